/*
 * The SP ("scalability protocols") wire format as stock NNG 1.x speaks it: pure coding,
 * no I/O, no allocation. Used by rpc/server and by tests.
 *
 *	connection	00 'S' 'P' 00 | protocol, 2 bytes | 00 00; both sides, at once
 *	message, ipc	01 | length, 8 bytes | body
 *	message, tcp	length, 8 bytes | body; tls+tcp likewise
 *	REQ/REP body	hop ids, 4 bytes each, top bit clear |
 *			request id, top bit set | data
 *	PUB body	data; a subscriber filters by leading bytes, on its own side
 *
 * All numbers are big-endian. The reply carries the request's whole backtrace (hop ids
 * and request id) in front of its data.
 */
#ifndef REEVE_RPC_SP_H
#define REEVE_RPC_SP_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum sp_protocol { SP_PUB = 0x20, SP_SUB = 0x21, SP_REQ = 0x30, SP_REP = 0x31 };
enum sp_framing { SP_FRAMING_IPC, SP_FRAMING_TCP };

enum {
	SP_HELLO_BYTES = 8,
	SP_MAX_HEADER_BYTES = 9, /* of a frame */
	SP_MAX_HOPS = 8,	 /* words of a backtrace; NNG's default time-to-live */
	SP_MAX_BACKTRACE_BYTES = SP_MAX_HOPS * 4,
};

/* What each side sends first. */
void sp_hello_encode(uint8_t out[static SP_HELLO_BYTES], enum sp_protocol self);

/* Checks the peer's first eight bytes: RV_EPROTO unless they announce `wanted`. */
int sp_hello_decode(const uint8_t in[static SP_HELLO_BYTES], enum sp_protocol wanted,
	struct rv_error *e) RV_MUST_CHECK;

/* The protocol that can talk with `self`. */
enum sp_protocol sp_peer_of(enum sp_protocol self);
const char *sp_protocol_name(int protocol); /* "req"; "unknown" */

static inline size_t sp_frame_header_bytes(enum sp_framing framing)
{
	return framing == SP_FRAMING_IPC ? 9 : 8;
}

/* Writes a frame's header; returns its length. */
size_t sp_frame_encode(enum sp_framing framing, uint8_t out[static SP_MAX_HEADER_BYTES],
	uint64_t body_bytes);

/* Reads a frame's header. 0: *header_bytes and *body_bytes are set (the body need not be
 * there yet). RV_EAGAIN: fewer bytes than a header. RV_EPROTO: not a frame. RV_ETOOBIG:
 * body larger than `max_body`. Errors are final: framing is lost, close the connection.
 */
int sp_frame_decode(enum sp_framing framing, const uint8_t *data, size_t len,
	uint64_t max_body, size_t *header_bytes, size_t *body_bytes,
	struct rv_error *e) RV_MUST_CHECK;

/* Length of the backtrace at the front of a REQ or REP body. RV_EPROTO: the body ends
 * before a word with the top bit (NNG closes such a connection). RV_ELIMIT: more than
 * SP_MAX_HOPS words (NNG drops such a message). */
int sp_backtrace_decode(const uint8_t *body, size_t len, size_t *backtrace_bytes,
	struct rv_error *e) RV_MUST_CHECK;

#endif
