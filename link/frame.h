/*
 * Frames of the host link and of the join handshake: pure, no allocation, no clock.
 *
 *	0  u8   version, LINK_FRAME_VERSION
 *	1  u8   kind
 *	2  u8   channel: of DATA and WINDOW; 0 for the others. Its number is its
 *		priority, 0 the highest: no second field that could contradict it
 *	3  u8   flags: LINK_FIRST, LINK_LAST of DATA; LINK_IGNORABLE of kinds to come
 *	4  u32  length of the payload that follows, bounded per kind
 *
 * Numbers are big endian. No checksum: frames travel inside TLS 1.3, whose AEAD refuses
 * every damaged or reordered byte. docs/link.md has the payloads and the rules.
 */
#ifndef REEVE_LINK_FRAME_H
#define REEVE_LINK_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"

enum {
	LINK_FRAME_VERSION = 1,
	LINK_FRAME_HEAD = 8,
	LINK_CHUNK_MAX = 16 << 10, /* message bytes in one DATA frame */
	LINK_START_SIZE = 6,	   /* type and total before a message's first bytes */
	LINK_REASON_MAX = 256,
	LINK_JOIN_REQUEST_MAX = 320 << 10,
	LINK_JOIN_GRANT_MAX = 3 << 20,
};

/* On the wire: never renumber. */
enum link_frame_kind {
	LINK_HELLO = 1,
	LINK_SELECT = 2,
	LINK_DATA = 3,
	LINK_WINDOW = 4,
	LINK_PROBE = 5,
	LINK_ECHO = 6,
	LINK_GOODBYE = 7,
	LINK_JOIN_REQUEST = 16,
	LINK_JOIN_GRANT = 17,
	LINK_JOIN_REFUSAL = 18,
};

enum link_frame_flags { LINK_FIRST = 1, LINK_LAST = 2, LINK_IGNORABLE = 0x80 };

/* In order of priority. On the wire: never renumber. */
enum link_channel {
	LINK_HEARTBEAT, /* heartbeats, leases, metrics: always next */
	LINK_RAFT,
	LINK_RPC,  /* forwarded calls and their replies */
	LINK_BULK, /* learner stream, snapshots */
	LINK_CHANNELS,
};

struct link_frame {
	uint8_t kind, channel, flags;
	uint32_t len;
	const uint8_t *payload; /* borrowed from the input */
};

/* Decodes the frame at the front of `data`. 0: *f and *used are set (a frame of an
 * unknown, ignorable kind too: f->kind says so). RV_EAGAIN: the bytes so far are right,
 * more are needed. RV_EPROTO or RV_ETOOBIG, told from the fewest bytes that prove it: the
 * connection is of no more use. */
int link_frame_decode(struct link_frame *f, const uint8_t *data, size_t len, size_t *used,
	struct rv_error *e) RV_MUST_CHECK;

/* Writes the 8 bytes of the head. */
void link_frame_head(uint8_t head[static LINK_FRAME_HEAD], enum link_frame_kind kind,
	unsigned channel, unsigned flags, uint32_t len);

bool link_frame_known(uint8_t kind);
const char *link_channel_name(enum link_channel channel);
/* The largest message of a channel; beyond it link_send refuses, and so does a receiver.
 */
size_t link_channel_max(enum link_channel channel);

/* --- payloads: encoders write exactly the size, decoders give RV_EPROTO --- */

enum {
	LINK_HELLO_SIZE = 40,
	LINK_SELECT_SIZE = 8,
	LINK_WINDOW_SIZE = 4,
	LINK_PROBE_SIZE = 12,
	LINK_ECHO_SIZE = 32,
};

struct link_hello {
	uint16_t oldest, newest; /* versions of the protocol it speaks */
	struct uuid host;
	uint64_t incarnation; /* drawn at start: another one is another life */
	uint64_t selected; /* number of the last SELECT it saw from the peer; 0: none */
};

struct link_probe {
	uint32_t number;
	int64_t sent_ms; /* sender's UTC */
};

/* The answer; see link/clock.h. */
struct link_echo {
	uint32_t number;
	int64_t sent_ms, received_ms, returned_ms; /* t0, t1, t2 */
	uint32_t held_us; /* between receiving and returning, by a steady clock */
};

void link_hello_encode(
	uint8_t out[static LINK_HELLO_SIZE], const struct link_hello *hello);
int link_hello_decode(struct link_hello *out, const struct link_frame *f,
	struct rv_error *e) RV_MUST_CHECK;
void link_probe_encode(
	uint8_t out[static LINK_PROBE_SIZE], const struct link_probe *probe);
void link_probe_decode(struct link_probe *out, const struct link_frame *f);
void link_echo_encode(uint8_t out[static LINK_ECHO_SIZE], const struct link_echo *echo);
void link_echo_decode(struct link_echo *out, const struct link_frame *f);

void link_put16(uint8_t *p, uint16_t v);
void link_put32(uint8_t *p, uint32_t v);
void link_put64(uint8_t *p, uint64_t v);
uint16_t link_get16(const uint8_t *p);
uint32_t link_get32(const uint8_t *p);
uint64_t link_get64(const uint8_t *p);

#endif
