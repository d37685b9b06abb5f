/*
 * The replicated log: an ordered sequence of entries, agreed by the voters and on disk
 * before anyone acts on it. Consensus is libraft's; files, timing, recovery and the life
 * of a proposal are ours. It knows nothing of what entries mean: that is the state
 * machine's (struct rlog_fsm) business. Users: pool/pool.c; tests with machines of their
 * own.
 *
 * A proposal ends exactly once:
 *   committed  the quorum has it on disk, and this host's state machine has just applied
 *              it: the callback runs directly after that apply, before the next one;
 *   rejected   it is not in the log and never will be;
 *   unknown    leadership or the disk was lost meanwhile and it could not be found out in
 *              time. It may still take effect.
 * After a lost leadership the log itself looks for the outcome, by comparing terms when
 * the new leader's entries arrive; `unknown` is left for what that can't decide.
 *
 * A failed write or fsync stops the voter with nothing acknowledged; the state machine
 * stays readable, and the log reopens from the disk when that works again.
 *
 * A host is in libraft's configuration (a server: standby or voter, with an id) or it is
 * a learner, fed by any voter through the messenger (pool/learner.h). What it is, is
 * written on its disk and follows the master's word:
 *	rlog_add(id, host)    the learner on `host` empties its log and is that standby
 *	rlog_remove(id)       that host throws its raft state away and is a learner again
 * Its state machine stays where it is meanwhile. An id that a host had is never its
 * again: a host that lost its disk as a voter stays out until its id is removed.
 */
#ifndef REEVE_POOL_RLOG_H
#define REEVE_POOL_RLOG_H

#include "base/buf.h"
#include "base/list.h"
#include "base/uuid.h"
#include "pool/disk.h"
#include "pool/messenger.h"
#include "pool/transport.h"

struct rlog;

enum rlog_outcome { RLOG_COMMITTED, RLOG_REJECTED, RLOG_UNKNOWN };
enum rlog_state {
	RLOG_OPENING, /* reading the disk, applying what is there */
	RLOG_FOLLOWER,
	RLOG_CANDIDATE,
	RLOG_LEADER, /* and all entries of earlier terms are applied here */
	RLOG_FAILED, /* the disk failed or is full; see rlog_status.error; retries */
	RLOG_STOPPED,
};
const char *rlog_state_name(enum rlog_state state);

/* --- the state machine --- */

/* Which life of the pool a database is of: see pool-emergency-transition-to-master. */
struct rlog_generation {
	uint64_t number; /* 0: no database yet */
	struct uuid id;
};

/* All from the loop. Only apply may take long, within the callback budget: the log
 * applies a few entries per callback. */
struct rlog_fsm {
	/* Takes effect of one entry; bytes are borrowed for the call. 0, or the code of
	 * why this host can't go on applying (an entry it does not know): it then stops
	 * applying for good and reports it. Deterministic; never fails on content. */
	int (*apply)(void *arg, uint8_t kind, const uint8_t *bytes, size_t len,
		uint64_t index, uint64_t term);

	/* A snapshot of the state as of now, in slices: begin fixes the state, next
	 * appends the next bytes to `out` (some KiB to 1 MiB per call) and sets *done
	 * with the last; end follows in any case, once. Applies go on in between. */
	int (*snapshot_begin)(void *arg);
	int (*snapshot_next)(void *arg, struct buf *out, bool *done);
	void (*snapshot_end)(void *arg);

	/* The reverse, building a state aside: begin, next with consecutive slices of any
	 * size, then end with commit (the new state replaces the current one; can't fail)
	 * or without (drop it). finish, before a committing end, says whether the whole
	 * was sound; RV_EAGAIN: call it again. */
	int (*restore_begin)(void *arg);
	int (*restore_next)(
		void *arg, const uint8_t *bytes, size_t len, struct rv_error *e);
	int (*restore_finish)(void *arg, struct rv_error *e);
	void (*restore_end)(void *arg, bool commit, uint64_t index, uint64_t term);

	/* Entries of one life are never fed to a learner of another. NULL: all are of
	 * one. */
	void (*generation)(void *arg, struct rlog_generation *out);
};

/* --- opening --- */

/* Servers of the raft configuration; a pool's other members are learners. */
enum {
	RLOG_MAX_SERVERS = 16, /* of the first configuration */
	RLOG_MAX_VOTERS = 16,
	RLOG_ADDRESS_MAX = 128
};

struct rlog_server {
	uint64_t id; /* never 0, never reused in a pool */
	char address[RLOG_ADDRESS_MAX];
	bool voter;
};

struct rlog_events {
	/* The state, term or leader changed. */
	void (*changed)(void *arg);
	/* rlog_open has come to its end: 0 (serving as what rlog_status says) or why not.
	 * RV_ECORRUPT names file, offset and what to do; the log then is RLOG_STOPPED. */
	void (*opened)(void *arg, int rc, const struct rv_error *e);
	/* rlog_stop is done: the log may be freed. */
	void (*stopped)(void *arg);
};

struct rlog_config {
	uint64_t id; /* this server; with `adopt`, 0: a learner */
	/* What the disk says this host is goes before `id`, and the master may change it.
	 * Needs the messenger, and hosts' UUIDs as the servers' addresses. */
	bool adopt;
	struct pool_messenger *messenger; /* borrowed; NULL: no learners */
	struct uuid self;		  /* this host, with a messenger */
	char address[RLOG_ADDRESS_MAX];
	/* The first configuration, used when the disk holds no log: servers and count.
	 * Count 0 with an empty disk: wait for a leader (a standby that joins). */
	struct rlog_server bootstrap[RLOG_MAX_SERVERS];
	int bootstrap_count;
	/* An admin said that the other voters are gone for good: this host is the only
	 * server from now on, with all that its disk holds. One that was a learner takes
	 * bootstrap[0]'s id. Repeating it changes nothing. */
	bool refound;
	uint64_t refound_generation; /* the number that it then begins; see rlog_clash */

	/* 0 stands for the value in brackets. */
	unsigned election_ms;	     /* [200] libraft draws T to 2T */
	unsigned heartbeat_ms;	     /* [50] */
	uint64_t segment_bytes;	     /* [8 MiB] preallocated */
	uint64_t snapshot_entries;   /* [16384] entries since the last snapshot, or */
	uint64_t snapshot_bytes;     /* [16 MiB] bytes of entries */
	unsigned trailing_entries;   /* [1024] kept in memory for slow followers */
	uint64_t chunk_bytes;	     /* [256 KiB] about, of a snapshot's chunks */
	uint64_t reserve_bytes;	     /* [256 KiB] of the log kept for essential entries */
	unsigned outcome_timeout_ms; /* [5000] until an open outcome is `unknown` */
	unsigned retry_ms; /* [1000] between attempts to reopen after a failure */
};

/* Starts reading the disk; `opened` follows. disk and transport (may be NULL with one
 * voter) are borrowed for the log's life, the tables of functions too. Returned owned. */
int rlog_open(struct rlog **out, struct loop *l, struct disk *disk,
	struct rlog_transport *transport, const struct rlog_config *config,
	const struct rlog_fsm *fsm, const struct rlog_events *events, void *arg,
	struct rv_error *e) RV_MUST_CHECK;

/* Writes and syncs what is accepted, ends every proposal, closes. `stopped` follows. */
void rlog_stop(struct rlog *rlog);

/* After `stopped` or a failed `opened`; or at any time, as a crash: no callback follows
 * except those of proposals (RLOG_UNKNOWN), inside this call. NULL-safe. */
void rlog_free(struct rlog *rlog);

/* --- proposing --- */

struct rlog_proposal;
/* rc: 0 when committed, else why. May free the proposal. */
typedef void rlog_proposal_fn(struct rlog_proposal *p, enum rlog_outcome outcome, int rc);

/* Embed it. Fields are the log's until the callback, then hold the result. */
struct rlog_proposal {
	struct list node;
	struct rlog *rlog;
	rlog_proposal_fn *fn;
	uint64_t index, term; /* of the entry, once proposed */
	int64_t deadline_us;  /* once leadership is lost; 0 before */
	uint8_t *bytes;	      /* until it is proposed */
	size_t len;
};

/* Proposes an entry; bytes (up to RV_MAX_ENTRY_BYTES) are copied, `kind` (not 0) is
 * handed to apply with them. `essential`: may use the reserve of a nearly full disk. The
 * callback follows unless the call itself fails: RV_ENOTMASTER, RV_ELIMIT
 * (RV_MAX_COMMITS_QUEUED wait), RV_ETOOBIG, RV_ESPACE, RV_EIO (the log failed),
 * RV_ENOMEM, RV_ECLOSED, RV_ENOTALLOWED (rlog_clash; barriers are taken). During a
 * transfer of leadership proposals wait; they are rejected with RV_ENOTMASTER when it
 * succeeds. */
int rlog_propose(struct rlog *rlog, struct rlog_proposal *p, uint8_t kind,
	const void *bytes, size_t len, bool essential,
	rlog_proposal_fn *fn) RV_MUST_CHECK;

/* Ends `committed` when everything that was committed by anyone before the call has been
 * applied here. Leader only; errors as rlog_propose. */
int rlog_barrier(
	struct rlog *rlog, struct rlog_proposal *p, rlog_proposal_fn *fn) RV_MUST_CHECK;

/* Hands leadership to a voter (0: the one most up to date). `fn` tells: 0, or
 * RV_ETIMEDOUT. Refuses with RV_ENOTALLOWED where there is no other voter. */
typedef void rlog_transfer_fn(void *arg, int rc);
int rlog_transfer(struct rlog *rlog, uint64_t server_id, rlog_transfer_fn *fn, void *arg,
	struct rv_error *e) RV_MUST_CHECK;

/* Has a snapshot taken soon, whatever the thresholds. */
void rlog_snapshot(struct rlog *rlog);

/* --- membership (leader; one change at a time, RV_EBUSY) --- */

typedef void rlog_change_fn(void *arg, int rc);
/* Adds a server as standby (it receives the log, has no vote). */
int rlog_add(struct rlog *rlog, uint64_t id, const char *address, rlog_change_fn *fn,
	void *arg, struct rv_error *e) RV_MUST_CHECK;
/* Gives a standby the vote once it has caught up, or takes it. */
int rlog_assign(struct rlog *rlog, uint64_t id, bool voter, rlog_change_fn *fn, void *arg,
	struct rv_error *e) RV_MUST_CHECK;
int rlog_remove(struct rlog *rlog, uint64_t id, rlog_change_fn *fn, void *arg,
	struct rv_error *e) RV_MUST_CHECK;

/* --- the messenger's side --- */

void rlog_peer_up(struct rlog *rlog, const struct uuid *host);
void rlog_peer_down(struct rlog *rlog, const struct uuid *host);
/* POOL_MESSAGE_LEARN, _FEED and _PLACE; others are ignored. */
void rlog_deliver(struct rlog *rlog, const struct uuid *from, enum pool_message type,
	const uint8_t *bytes, size_t len);

/* Another host's database is of a generation with this one's number and another id: two
 * lives of the pool, of which none is the older. False: none was met. Until this host's
 * own generation is another, rlog_propose refuses with RV_ENOTALLOWED, here and on the
 * other side. `host` (may be NULL): who said so. */
bool rlog_clash(const struct rlog *rlog, struct uuid *host);

/* How far the learner on `host`, fed by this very host, is on its own disk. */
bool rlog_learner_stored(
	const struct rlog *rlog, const struct uuid *host, uint64_t *index);
/* This host's state was found to differ from the pool's: a learner takes a snapshot. */
void rlog_discard(struct rlog *rlog);

/* --- what is going on --- */

struct rlog_status {
	enum rlog_state state;
	struct rv_error error; /* RLOG_FAILED, RLOG_STOPPED: why */
	uint64_t id, term;
	uint64_t leader_id; /* 0: none known */
	char leader_address[RLOG_ADDRESS_MAX];
	uint64_t last_index, applied_index, applied_term;
	uint64_t last_term; /* of the entry last_index, as far as is known */
	uint64_t snapshot_index;
	int64_t snapshot_age_ms; /* -1: there is none */
	uint64_t disk_bytes;	 /* segments and snapshots */
	uint64_t room;		 /* of the log, set aside already */
	bool low_space;		 /* only essential entries are accepted */
	int queued;		 /* proposals without an outcome */
	int voters, servers;
	uint64_t appends, syncs, healed; /* since open */
	bool learner;			 /* id is 0 then */
	struct uuid feeder; /* of a learner: the voter that feeds it, or UUID_NONE */
	uint64_t behind;    /* entries that it knows of and has not applied */
	int learners;	    /* that this host feeds */
};
void rlog_status(const struct rlog *rlog, struct rlog_status *out);

/* As of when (loop time) everything that was committed is known here: on a leader, when a
 * majority last answered it; on a follower, when it last heard the leader and has applied
 * what was committed then. 0: not since the log was opened. */
int64_t rlog_fresh_us(const struct rlog *rlog);

/* A server of the configuration. What it has and when it was heard is known to the leader
 * alone; 0: not in this term. */
struct rlog_member {
	uint64_t id;
	char address[RLOG_ADDRESS_MAX];
	bool voter, standby;
	uint64_t match;	  /* it has the log up to here */
	int64_t heard_us; /* loop time of its last answer */
};
/* Fills in up to `max`, returns how many. */
int rlog_members(const struct rlog *rlog, struct rlog_member *out, int max);

bool rlog_is_transferring(const struct rlog *rlog);
bool rlog_is_leader(const struct rlog *rlog);

#endif
