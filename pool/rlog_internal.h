/* What rlog.c (life), rlog_open.c, rlog_propose.c (proposals, applying), rlog_member.c
 * and rlog_status.c share. */
#ifndef REEVE_POOL_RLOG_INTERNAL_H
#define REEVE_POOL_RLOG_INTERNAL_H

#include <raft.h>

#include "pool/learner.h"
#include "pool/learner_feed.h"
#include "pool/raft_io.h"
#include "pool/restore.h"
#include "pool/rlog.h"

enum { RLOG_KIND_BARRIER = 0 };

/* A committed entry, not yet applied; bytes are libraft's. */
struct rlog_item {
	uint64_t index, term;
	const uint8_t *bytes;
	size_t len;
};

struct rlog_open_job {
	struct job job;
	struct rlog *rlog;
	struct recover_config config;
	struct raft_configuration bootstrap;
	uint64_t need_space;
	struct recovered recovered;
	bool running, loaded; /* loaded: recovered is filled */
	bool adopt;	      /* the disk says who this is: then config.id is that */
	uint64_t former;      /* of a learner: the last id that it had */
	int rc;
	struct rv_error error;
};

/* The disk is emptied, for another part in the pool. */
struct rlog_wipe_job {
	struct job job;
	struct rlog *rlog;
	uint64_t id, former, term;
	bool running;
	int rc;
	struct rv_error error;
};

/* A linked host. */
struct rlog_link {
	struct list node;
	struct uuid host;
};

struct rlog {
	struct loop *loop;
	struct disk *disk;
	struct rlog_transport *transport;
	struct rlog_config config;
	const struct rlog_fsm *fsm;
	const struct rlog_events *events;
	void *arg;

	enum rlog_state state; /* as told to the owner */
	struct rv_error error;
	bool opened_told, stopping, stopped, freeing, failing, sole;

	/* one voter's life: from a recovery to raft_close */
	struct rlog_open_job opening;
	struct restore restore;
	bool restoring, restored;
	struct rio *rio;
	struct raft raft;
	struct raft_fsm raft_fsm;
	bool raft_inited, raft_live, raft_closing;

	/* leadership */
	bool leads;	      /* libraft says so */
	bool ready;	      /* and the term's barrier is applied */
	uint64_t lead_term;   /* the term `leads` is about */
	bool barrier_pending; /* term_barrier is proposed */
	struct rlog_proposal term_barrier;
	/* as last told */
	uint64_t told_term, told_leader;

	/* proposals: waiting to be handed to libraft, and handed over (by index) */
	struct list fresh, pending;
	int queued;
	uint64_t fresh_bytes;
	struct defer submit;

	/* committed entries waiting to be applied: items[start..end) */
	struct rlog_item *items;
	size_t item_start, item_end, item_size;
	struct defer apply;
	uint64_t applied_index, applied_term;
	bool stuck; /* met an entry it can't apply */

	/* snapshots */
	bool snapshot_asked;  /* rlog_snapshot */
	bool snapshot_wanted; /* libraft's threshold is down */
	uint64_t snapshot_at; /* begin when this is applied; 0: none */
	bool snapshot_begun;

	/* when this state was the leader's, and when it will be once heard_commit is
	 * applied (loop time) */
	int64_t fresh_us, heard_us;
	uint64_t heard_commit;

	struct raft_transfer transfer;
	bool transferring;
	rlog_transfer_fn *transfer_fn;
	void *transfer_arg;
	uint64_t transfer_to;
	struct defer transfer_over;

	struct raft_change change;
	bool changing, change_to_standby;
	uint64_t change_id;
	rlog_change_fn *change_fn;
	void *change_arg;
	int change_status;
	struct defer change_step;

	/* learners, and being one: see rlog_learner.c */
	bool learns, switching;
	struct learner *learner; /* while this host is one, and open */
	struct feeder *feeder;	 /* NULL without a messenger */
	struct list links;
	struct rlog_wipe_job wipe;
	uint64_t carried; /* applied when this host last became another */
	struct raft_configuration kept_conf;
	uint64_t kept_conf_index;
	bool discard;		    /* the learner's state was found to be wrong */
	struct place_message place; /* the master's word; term 0: none */
	uint64_t placed_term, placed_conf;
	struct rlog_generation clash; /* of another life that was met; number 0: none */
	struct uuid clash_host;

	struct timer retry, sweep, stop_poll;
	int64_t stop_deadline_us;
	struct defer tell, closed;
	uint64_t healed;
	unsigned meta_first;
};

/* rlog.c */
enum rlog_state rlog_current_state(const struct rlog *rlog);
uint64_t rlog_current_term(const struct rlog *rlog);
void rlog_look(struct rlog *rlog);
void rlog_fail(struct rlog *rlog, int rc, const struct rv_error *e);
int rlog_from_raft(int r);

/* The learner, or libraft, is closed; then rlog_closed or rlog_wiped. */
void rlog_close_mode(struct rlog *rlog);
void rlog_closed(struct rlog *rlog);
void rlog_end_stop(struct rlog *rlog); /* nothing is open any more */

/* rlog_open.c */
void rlog_begin_open(struct rlog *rlog);
void rlog_wiped(struct rlog *rlog, int rc, const struct rv_error *e);

/* rlog_learner.c */
int rlog_learner_init(struct rlog *rlog);
void rlog_learner_fini(struct rlog *rlog);
int rlog_disk_wipe(
	struct disk *d, uint64_t id, uint64_t former, uint64_t term, struct rv_error *e);
int rlog_recover(struct rlog_open_job *j); /* on the lane */
int rlog_start_learner(struct rlog *rlog, struct rv_error *e);
void rlog_switch(struct rlog *rlog);
void rlog_follow_place(struct rlog *rlog);
/* Whether the word of a master, which has another place for this server than it has, is
 * newer than what this server knows. Pure. */
bool rlog_must_follow(const struct rlog *rlog, const struct place_message *m);
void rlog_fill_learner(const struct rlog *rlog, struct rlog_status *out);
/* What learner_feed.c may give: this host votes; entries that are committed and on its
 * disk; the term of an entry, 0 if not known; an entry, if in memory; its snapshot. */
bool rlog_feeds(const struct rlog *rlog);
uint64_t rlog_feed_limit(const struct rlog *rlog);
uint64_t rlog_feed_term(const struct rlog *rlog, uint64_t index);
const struct tail_entry *rlog_feed_entry(const struct rlog *rlog, uint64_t index);
uint64_t rlog_feed_snapshot(const struct rlog *rlog);
void rlog_feed_generation(const struct rlog *rlog, struct rlog_generation *out);

/* rlog_place.c. To a host, where this one leads; from one. */
void rlog_tell_place(struct rlog *rlog, const struct uuid *host);
void rlog_take_place(
	struct rlog *rlog, const struct uuid *from, const uint8_t *bytes, size_t len);
void rlog_look_around(struct rlog *rlog); /* the configuration, or who leads, is new */

/* rlog_propose.c */
void rlog_get_stuck(struct rlog *rlog, uint64_t index, int rc);
void rlog_propose_init(struct rlog *rlog);
void rlog_propose_fini(struct rlog *rlog);
int rlog_fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result);
bool rlog_applying(void *arg);
void rlog_drop_items(struct rlog *rlog);
void rlog_begin_leading(struct rlog *rlog);
void rlog_forget_barrier(struct rlog *rlog);
/* Never handed to libraft: rejected. */
void rlog_reject_fresh(struct rlog *rlog, int rc);
/* Handed to libraft: from now on they have so long to be found. */
void rlog_date_pending(struct rlog *rlog);
/* Those after `index` end. */
void rlog_end_pending(
	struct rlog *rlog, uint64_t after, enum rlog_outcome outcome, int rc);
void rlog_sweep(void *arg);
void rlog_snapshot_check(struct rlog *rlog);
void rlog_forget_up_to(struct rlog *rlog, uint64_t index);

/* rlog_member.c */
void rlog_member_init(struct rlog *rlog);
void rlog_member_fini(struct rlog *rlog);
void rlog_finish_adding(struct rlog *rlog);

/* Whether libraft's state may be looked at: closing, it frees its configuration and log
 * before it says that it has closed. */
static inline bool rlog_raft_readable(const struct rlog *rlog)
{
	return rlog->raft_live && !rlog->raft_closing;
}

#endif
