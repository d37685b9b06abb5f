/*
 * The messages of a migration, as bytes. Pure: no I/O, no allocation, constant stack.
 *
 * Everything between source and target goes over one stream, frame by frame,
 * little-endian:
 *
 *	length u32 of the payload, type u8, 0 u8, version u16,
 *	sum u64: XXH3 of the payload, seeded with the 8 bytes before
 *	payload
 *
 *	source                                   target
 *	PREPARE   what the VM needs       ──►
 *	                                  ◄──    READY_TO_STREAM or REFUSE
 *	DATA, ROUND ...                   ══►
 *	FINAL     that was all            ──►
 *	                                  ◄──    READY       the domain is whole, paused
 *	                                  ◄──    COMMITTED   it owns the VM
 *	                                  ◄──    RUNNING     or RETURNED
 *	ABORTED   either way, with the reason; KEEPALIVE either way, now and then
 *
 * Nothing here decides who owns a VM: that is what the database says. The notices only
 * make the other side look at once.
 */
#ifndef REEVE_MIGRATE_FRAME_H
#define REEVE_MIGRATE_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"
#include "xen/hyper.h"

enum {
	MIGRATE_VERSION = 2,
	MIGRATE_HEADER_BYTES = 16,
	MIGRATE_OFFSET_BYTES = 8, /* before the bytes of a DATA payload */
	MIGRATE_DATA_MAX = 128 * 1024,
	MIGRATE_TEXT_MAX = 512, /* of a reason, without NUL */
	/* The largest payload of any type. */
	MIGRATE_PAYLOAD_MAX = MIGRATE_DATA_MAX + MIGRATE_OFFSET_BYTES,
	/* The largest frame but DATA: PREPARE with its CPU policy. */
	MIGRATE_CONTROL_MAX = MIGRATE_HEADER_BYTES + 512 + HYPER_MAX_CPU_POLICY,
};

enum migrate_type {
	MIGRATE_PREPARE = 1,
	MIGRATE_READY_TO_STREAM,
	MIGRATE_REFUSE,
	MIGRATE_DATA,
	MIGRATE_ROUND,
	MIGRATE_FINAL,
	MIGRATE_READY,
	MIGRATE_COMMITTED,
	MIGRATE_RUNNING,
	MIGRATE_RETURNED,
	MIGRATE_ABORTED,
	MIGRATE_KEEPALIVE,
	MIGRATE_TYPE_COUNT
};

const char *migrate_type_name(unsigned type); /* "PREPARE" */

/* What the target must know before the first byte; the rest is in the database, which it
 * has to have followed up to `seq`. */
struct migrate_prepare {
	uint16_t version_min, version_max; /* of this protocol, that the source speaks */
	struct uuid migration, task, vm, source, target;
	uint64_t generation; /* of the owner, before the migration */
	uint64_t seq;
	int64_t wall_ms; /* the source's clock */
	uint64_t target_kib, actual_kib;
	uint32_t xen_major, xen_minor;
	char driver[32];
	bool live;
	const uint8_t *cpu_policy; /* borrowed: of the frame when decoded */
	size_t cpu_policy_len;
};

/* The end of the stream, and what it has cost so far. */
struct migrate_final {
	struct uuid migration;
	uint64_t generation;
	uint64_t bytes;			/* of all DATA */
	uint32_t rounds;		/* before the guest was suspended */
	int64_t total_us, suspended_us; /* since the start, since the guest stood still */
	int64_t prepared_us;		/* since PREPARE was sent */
};

/* How long FINAL waited behind the pages that were queued before it, by the receiver's
 * clock alone: `came_us` after PREPARE it came, which had waited behind nothing. */
static inline int64_t migrate_final_late_us(
	const struct migrate_final *f, int64_t came_us)
{
	return came_us > f->prepared_us ? came_us - f->prepared_us : 0;
}

struct migrate_round {
	uint32_t round;
	uint64_t dirty_pages, bytes;
	int64_t predicted_us;
};

struct migrate_message {
	enum migrate_type type;
	union {
		struct migrate_prepare prepare;
		uint16_t version; /* READY_TO_STREAM: the one to speak */
		struct {
			int code; /* a negative RV_E... */
			char text[MIGRATE_TEXT_MAX + 1];
		} reason; /* REFUSE, RETURNED, ABORTED */
		struct {
			uint64_t offset; /* of the first byte, in all DATA */
			const uint8_t *bytes;
			size_t len;
		} data;
		struct migrate_round round;
		struct migrate_final final;
		uint64_t generation; /* READY, COMMITTED, RUNNING: the new owner's */
	} as;
};

/* Writes a frame of any type but DATA; returns its length, at most MIGRATE_CONTROL_MAX.
 * What does not fit its bound (a policy, a text) is a programmer's error or cut. */
size_t migrate_encode(
	const struct migrate_message *m, uint8_t out[static MIGRATE_CONTROL_MAX]);

/* Makes a DATA frame in place: its `len` bytes stand at frame + MIGRATE_HEADER_BYTES +
 * MIGRATE_OFFSET_BYTES already. Returns the frame's length. */
size_t migrate_seal_data(uint8_t *frame, uint64_t offset, size_t len);

/* How long the frame that begins here is, header included; 0: not enough bytes to say.
 * RV_EPROTO: this is no frame; RV_ETOOBIG: longer than its type can be. To be asked
 * before anything is stored. */
int migrate_frame_length(const uint8_t *bytes, size_t len, size_t *frame_len,
	struct rv_error *e) RV_MUST_CHECK;

/* Takes apart one whole frame. RV_ECORRUPT: the checksum; RV_EPROTO: the content. What
 * *out points at is in the frame. */
int migrate_decode(const uint8_t *frame, size_t len, struct migrate_message *out,
	struct rv_error *e) RV_MUST_CHECK;

#endif
