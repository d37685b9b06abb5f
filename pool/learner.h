/*
 * A member outside the raft configuration: it follows the stream of committed entries
 * that a voter feeds it, writes them to its own disk (the same files as a voter's, so
 * recovery is shared), then applies them. It votes for nothing and promises nothing, so
 * whatever it holds may be thrown away for a snapshot; but it never goes on from entries
 * that are not the voter's.
 *
 *	replay ──► SEEK ── ASK ──► FOLLOW ◄──► INSTALL (a snapshot)
 *	             ▲                │
 *	             └── silent, lagging, refused, wrong bytes: another voter
 *
 * - (term, index) of what precedes is checked with each message, and a running checksum.
 * - It acknowledges what is on its disk and applied, nothing else.
 * - A snapshot is decoded aside and written while it arrives; it takes effect when both
 *   are whole.
 *
 * Users: pool/rlog_learner.c; all calls from the loop.
 */
#ifndef REEVE_POOL_LEARNER_H
#define REEVE_POOL_LEARNER_H

#include "pool/learner_wire.h"
#include "pool/messenger.h"
#include "pool/recover.h"
#include "pool/rlog.h"

enum {
	LEARNER_SILENT_MS = 2000,     /* without a word from its voter: another */
	LEARNER_LEADERLESS_MS = 1500, /* its voter knows no master: another */
	LEARNER_STUCK_MS = 3000,      /* it knows of entries and sends none: another */
	LEARNER_AVOID_MS = 1000,      /* a voter that failed is not asked so soon again */
};

struct learner;

struct learner_events {
	/* The state, the master or what is applied changed. */
	void (*changed)(void *arg);
	/* The disk failed; once. Close it and open anew. */
	void (*failed)(void *arg, int rc, const struct rv_error *e);
	/* An entry can't be applied; nothing follows. */
	void (*stuck)(void *arg, int rc, uint64_t index);
	/* learner_close is done: free it. */
	void (*closed)(void *arg);
};

struct learner_config {
	struct loop *loop;
	struct disk *disk;
	struct pool_messenger *messenger; /* borrowed; NULL: nobody feeds it */
	struct uuid self;
	const struct rlog_fsm *fsm;
	void *fsm_arg;
	const struct rlog_config *log; /* thresholds; borrowed */
	/* What the state machine holds already. When that is more than the disk has, a
	 * snapshot of it is written before anything else. */
	uint64_t applied_index, applied_term;
	const struct raft_configuration *conf; /* of then; borrowed; NULL: none */
	uint64_t conf_index;
	bool discard; /* what it holds is wrong: see learner_discard */
	const struct learner_events *events;
	void *arg;
};

/* Takes the content of *r, whose snapshot is restored already. Returned owned. */
int learner_new(struct learner **out, const struct learner_config *config,
	struct recovered *r) RV_MUST_CHECK;
/* Ends what the disk is at, closes; `closed` follows. */
void learner_close(struct learner *l);
void learner_abandon(struct learner *l); /* as a crash: no further job begins */
/* After `closed`; or after learner_abandon and disk_quiesce. NULL-safe. */
void learner_free(struct learner *l);

void learner_peer_up(struct learner *l, const struct uuid *host);
void learner_peer_down(struct learner *l, const struct uuid *host);
/* A POOL_MESSAGE_FEED. */
void learner_deliver(
	struct learner *l, const struct uuid *from, const uint8_t *bytes, size_t len);
/* `master` says that it leads in `term`. */
void learner_note_master(struct learner *l, uint64_t term, const struct uuid *master);

void learner_snapshot(struct learner *l); /* soon */
/* What it holds is wrong: asks for a snapshot whatever its cursor. */
void learner_discard(struct learner *l);

/* The configuration that the stream has told of, and its entry. Borrowed. */
const struct raft_configuration *learner_conf(const struct learner *l, uint64_t *index);

struct learner_status {
	bool open; /* what its disk held is applied */
	uint64_t applied_index, applied_term, last_index;
	uint64_t commit;    /* the last that its voter told of */
	uint64_t term;	    /* the greatest heard of */
	struct uuid master; /* UUID_NONE: none known */
	struct uuid feeder; /* UUID_NONE: seeking */
	bool installing;
	bool discard; /* what it holds is to be replaced by a snapshot */
	uint64_t snapshot_index;
	int64_t snapshot_us;
	uint64_t disk_bytes;
	int voters, servers;
	int64_t fresh_us; /* see rlog_fresh_us */
	uint64_t former;  /* the greatest raft id that this host ever used */
	uint64_t switches, refused, installs, appends;
};
void learner_status(const struct learner *l, struct learner_status *out);

#endif
