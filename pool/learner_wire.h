/*
 * What a learner and the voter that feeds it say to each other, and what the master says
 * to everyone about their place in the log. Hostile until decoded here: lengths, counts,
 * types and order are checked; what an entry means is the database's business.
 *
 *	learner                          voter
 *	ASK (session, cursor)       ──►
 *	                            ◄──  BEAT (term, master, commit), each 250 ms
 *	                            ◄──  ENTRIES ..., or
 *	                                 SNAP_BEGIN, SNAP_DATA ..., SNAP_END
 *	ACK (received, on disk)     ──►
 *
 * ENTRIES and SNAP_* are the session's data: each carries its position (bytes of data
 * messages before it) and a running checksum, so that a gap, a repeat or other bytes
 * than were sent end the session. All numbers are little endian.
 */
#ifndef REEVE_POOL_LEARNER_WIRE_H
#define REEVE_POOL_LEARNER_WIRE_H

#include <raft.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/uuid.h"
#include "pool/rlog.h"

enum {
	/* One entry of the log: its kind and what the database's limit allows. */
	LEARN_MAX_ENTRY = RV_MAX_ENTRY_BYTES + 1,
	LEARN_BATCH_BYTES = 256
			    << 10, /* of entries in one message, unless one is larger */
	LEARN_BATCH_ENTRIES = 1024,
	LEARN_MAX_CHUNK = 1 << 20, /* of a snapshot */
	LEARN_WINDOW = 2 << 20,	   /* what a learner lets be on its way, at most one
				    * message more */
	LEARN_MAX_MESSAGE = LEARN_MAX_ENTRY + 4096,
};

/* --- POOL_MESSAGE_LEARN: to a voter --- */

enum learn_kind { LEARN_ASK = 1, LEARN_ACK = 2, LEARN_BYE = 3 };

struct learn_message {
	enum learn_kind kind;
	uint64_t session;
	/* ASK */
	struct rlog_generation generation;
	uint64_t index, term; /* the last entry it holds; 0: none */
	bool discard; /* what it holds is not to be built upon: a snapshot, no older */
	/* ACK */
	uint64_t position; /* of data taken in */
	uint64_t stored;   /* entries up to here are on its disk and applied */
};
int learn_encode(const struct learn_message *m, struct buf *out) RV_MUST_CHECK;
int learn_decode(struct learn_message *m, const uint8_t *bytes, size_t len) RV_MUST_CHECK;

/* --- POOL_MESSAGE_FEED: to a learner --- */

enum feed_kind {
	FEED_BEAT = 1,
	FEED_REFUSE = 2,
	FEED_ENTRIES = 3,
	FEED_SNAP_BEGIN = 4,
	FEED_SNAP_DATA = 5,
	FEED_SNAP_END = 6,
};

enum feed_refusal {
	FEED_NOT_VOTER = 1,
	FEED_BEHIND = 2,     /* it knows of less than the learner holds */
	FEED_FULL = 3,	     /* it feeds as many as it may */
	FEED_GENERATION = 4, /* it is of an older, or of another, life of the pool */
	FEED_ENDED = 5,	     /* it is a voter no more, or stops */
};

/* What follows `body` is borrowed from the message. */
struct feed_message {
	enum feed_kind kind;
	uint64_t session;
	/* BEAT */
	uint64_t term, commit;
	struct uuid master; /* UUID_NONE: none known */
	uint64_t age_ms;    /* since when the sender knows `commit` to be all there was */
	/* REFUSE */
	enum feed_refusal refusal;
	/* data */
	uint64_t position, sum; /* sum: with this message */
	const uint8_t *body;	/* all after the sum */
	size_t body_len;
	/* ENTRIES; and SNAP_BEGIN: the entry that it ends with */
	uint64_t index, entry_term; /* of the entry before the first */
	uint32_t count;
	const uint8_t *entries;
	size_t entries_len;
	/* SNAP_BEGIN */
	uint64_t conf_index, total; /* total: bytes of all SNAP_DATA */
	const uint8_t *conf;
	size_t conf_len;
	/* SNAP_DATA */
	const uint8_t *chunk;
	size_t chunk_len;
};

int feed_encode_beat(const struct feed_message *m, struct buf *out) RV_MUST_CHECK;
int feed_encode_refuse(
	uint64_t session, enum feed_refusal why, struct buf *out) RV_MUST_CHECK;
int feed_decode(struct feed_message *m, const uint8_t *bytes, size_t len) RV_MUST_CHECK;

/* Data messages are built piece by piece: begin, then the body, then end, which fills in
 * the running checksum (*sum: before, then after it). `out` is empty at first. */
int feed_begin(enum feed_kind kind, uint64_t session, uint64_t position,
	struct buf *out) RV_MUST_CHECK;
/* ENTRIES: first the entry before the first one, then each; at last how many. */
int feed_put_entries(struct buf *out, uint64_t index, uint64_t term) RV_MUST_CHECK;
int feed_put_entry(struct buf *out, uint64_t term, uint16_t type, const void *bytes,
	size_t len) RV_MUST_CHECK;
void feed_set_count(struct buf *out, uint32_t count);
int feed_put_snapshot(struct buf *out, uint64_t index, uint64_t term, uint64_t conf_index,
	uint64_t total, const struct raft_configuration *conf) RV_MUST_CHECK;
void feed_end(struct buf *out, uint64_t *sum);

/* The checksum that a session begins with, and the one after a message. */
uint64_t feed_first_sum(uint64_t session);
uint64_t feed_next_sum(uint64_t sum, const struct feed_message *m);

/* Walks the entries of a decoded message: start with *at = 0; false at the end. Bytes are
 * borrowed. Only sound for what feed_decode accepted: it checks them all. */
struct feed_entry {
	uint64_t term;
	uint16_t type; /* libraft's, 1 to 3 */
	const uint8_t *bytes;
	size_t len; /* 1 to LEARN_MAX_ENTRY */
};
bool feed_next_entry(const struct feed_message *m, size_t *at, struct feed_entry *entry);

/* --- POOL_MESSAGE_PLACE: from the master --- */

struct place_message {
	struct rlog_generation generation;
	uint64_t term;	     /* the sender leads in it; 0: it only names a generation */
	uint64_t id;	     /* of the receiver, in the sender's configuration; 0: none */
	uint64_t conf_index; /* of that configuration's entry, which is committed */
	bool standby;	     /* and it has no vote */
};
int place_encode(const struct place_message *m, struct buf *out) RV_MUST_CHECK;
int place_decode(struct place_message *m, const uint8_t *bytes, size_t len) RV_MUST_CHECK;

#endif
