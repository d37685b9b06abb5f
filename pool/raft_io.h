/*
 * libraft's raft_io on our loop and disk: its files, its clock, its messages.
 *
 * Rules that libraft 0.15 needs to be safe, kept here:
 * - While an append or a snapshot install is in flight, a follower or candidate gets no
 *   ticks, vote requests or TimeoutNow: it would vote on entries that are not on disk, or
 *   crash when its election timer fires during an install. A leader's ticks are never
 *   held, or it would lose its followers to a slow disk.
 * - After the first failed write or sync no append is ever completed again: a leader
 *   would take the index for another entry. The owner closes and opens anew.
 * - Sending never fails in the call, which libraft takes for a reason to stop.
 * - A message that libraft would assert on is dropped.
 * - What it believes of configurations is put right (raft_io_conf.c): opened again, it
 * takes an uncommitted one for committed; rolling one back, it reads the one before from
 * its log, where that may be compacted away.
 * - Votes: it may vote twice in a term around a transfer, one without a vote in its own
 *   configuration refuses the candidate that needs it, and a refused pre-vote does not
 *   tell of a greater term (raft_io_link.c).
 *
 * Users: pool/rlog.c. All calls from the loop; libraft's callbacks are never called
 * inside libraft's calls.
 */
#ifndef REEVE_POOL_RAFT_IO_H
#define REEVE_POOL_RAFT_IO_H

#include <raft.h>

#include "pool/learner_tail.h"
#include "pool/recover.h"
#include "pool/rlog.h"

struct rio;

struct rio_config {
	struct loop *loop;
	struct disk *disk;
	struct rlog_transport *transport; /* may be NULL */
	const struct rlog_fsm *fsm;
	void *fsm_arg;
	uint64_t chunk_bytes; /* see rlog_config */
	unsigned *meta_first; /* see slots_write_both; outlives this voter */
	/* libraft has just run and may be in another state. */
	void (*touched)(void *arg);
	/* The disk failed; once. Called from a callback of its own. */
	void (*failed)(void *arg, int rc, const struct rv_error *e);
	/* Whether committed entries wait to be applied: installs wait for them. */
	bool (*applying)(void *arg);
	void *arg;
};

/* Takes the content of *r. Returned owned. */
int rio_new(struct rio **out, const struct rio_config *config,
	struct recovered *r) RV_MUST_CHECK;

/* After libraft closed it, or before libraft saw it. NULL-safe. */
void rio_free(struct rio *rio);

struct raft_io *rio_raft_io(struct rio *rio);

/* Like a crash: no further job begins. With disk_quiesce called next, a raft_close under
 * way ends inside that, a later one inside its own call. */
void rio_abandon(struct rio *rio);

/* Term of an entry that this log holds or held lately. 0: not known. */
uint64_t rio_term_at(const struct rio *rio, uint64_t index);

/* An entry of this log, committed or not, if it is in memory still. Borrowed until the
 * next call of libraft. */
const struct tail_entry *rio_tail_entry(const struct rio *rio, uint64_t index);

/* libraft restores: tells which snapshot; true when its state was built here for an
 * install, and is now the fsm's. Dropped instead when the fsm holds more: `applied`. */
bool rio_commit_install(
	struct rio *rio, uint64_t applied, uint64_t *index, uint64_t *term);

/* The fsm's snapshot_begin is done, with rc: slices may be asked for. */
void rio_take_begin(struct rio *rio, int rc);

/* No append or mark is due or in flight; asks for a mark if one is wanted. */
bool rio_settled(struct rio *rio);

/* --- who was heard --- */

/* A server's answers to this leader, in the present term. */
struct rio_answer {
	uint64_t id;
	uint64_t match;	  /* it has the log up to here */
	int64_t heard_us; /* loop time of its last answer */
};
/* NULL: none came in this term. Borrowed until the next message. */
const struct rio_answer *rio_answer_of(const struct rio *rio, uint64_t id);

/* A follower: when the leader was heard last (loop time; 0: not in this term), and up to
 * where it said that the log was committed. */
void rio_leader_heard(const struct rio *rio, int64_t *us, uint64_t *commit);

/* libraft's configuration may be another one: remembers the last committed. */
void rio_note_conf(struct rio *rio);

/* After raft_start: libraft takes the last configuration in its log for committed. */
void rio_doubt_conf(struct rio *rio);

struct rio_stats {
	uint64_t term;	     /* current, as on disk */
	uint64_t synced;     /* entries up to here are on disk */
	uint64_t room;	     /* bytes left for appends, set aside already */
	uint64_t queued;     /* bytes of appends not yet on disk */
	uint64_t disk_bytes; /* segments and snapshots */
	uint64_t snapshot_index;
	int64_t snapshot_us; /* when it was made or loaded (loop time) */
	uint64_t log_bytes;  /* of entries since the last snapshot */
	bool low_space;	     /* no further segment could be set aside */
	bool tail_cut;	     /* after a failure: what was not synced is gone for good */
	bool taking;	     /* a snapshot is being made */
	int64_t take_failed_us; /* when one failed last; 0: never */
	uint64_t appends, syncs, dropped;
};
void rio_stats(const struct rio *rio, struct rio_stats *out);

#endif
