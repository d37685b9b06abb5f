/*
 * The life of a log:
 *
 *	OPENING ── recover (worker) ── restore snapshot (slices) ── raft_start ──► serving
 *	   ▲                                                                         │
 *	   └── retry_ms ◄── FAILED ◄── raft_close, unsynced tail cut ◄── disk failed ┘
 *	serving ── rlog_stop: drain, mark, raft_close ──► STOPPED
 */
#include "pool/rlog.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "pool/raft_conf.h"
#include "pool/rlog_internal.h"

enum {
	DEFAULT_ELECTION_MS = 200,
	DEFAULT_HEARTBEAT_MS = 50,
	DEFAULT_SEGMENT_BYTES = 8 << 20,
	DEFAULT_SNAPSHOT_ENTRIES = 16384,
	DEFAULT_SNAPSHOT_BYTES = 16 << 20,
	DEFAULT_TRAILING = 1024,
	DEFAULT_RESERVE_BYTES = 256 << 10,
	DEFAULT_OUTCOME_MS = 5000,
	DEFAULT_RETRY_MS = 1000,
	STOP_POLL_MS = 2,
	STOP_TIMEOUT_US = 5 * 1000000,
};

const char *rlog_state_name(enum rlog_state state)
{
	static const char *const names[] = {
		[RLOG_OPENING] = "opening",
		[RLOG_FOLLOWER] = "follower",
		[RLOG_CANDIDATE] = "candidate",
		[RLOG_LEADER] = "leader",
		[RLOG_FAILED] = "failed",
		[RLOG_STOPPED] = "stopped",
	};

	return names[state];
}

int rlog_from_raft(int r)
{
	switch (r) {
	case 0:
		return 0;
	case RAFT_NOMEM:
		return RV_ENOMEM;
	case RAFT_NOTLEADER:
	case RAFT_LEADERSHIPLOST:
		return RV_ENOTMASTER;
	case RAFT_BADID:
	case RAFT_NOTFOUND:
		return RV_ENOENT;
	case RAFT_DUPLICATEID:
	case RAFT_DUPLICATEADDRESS:
		return RV_EEXIST;
	case RAFT_CANTCHANGE:
	case RAFT_BUSY:
		return RV_EBUSY;
	case RAFT_NOCONNECTION:
		return RV_ETIMEDOUT;
	case RAFT_NOSPACE:
		return RV_ESPACE;
	default:
		return RV_EIO;
	}
}

/* --- what the owner is told --- */

enum rlog_state rlog_current_state(const struct rlog *rlog)
{
	if (rlog->stopped)
		return RLOG_STOPPED;
	if (rlog->failing)
		return RLOG_FAILED;
	if (rlog->learner)
		return rlog->opened_told ? RLOG_FOLLOWER : RLOG_OPENING;
	if (!rlog->opened_told || !rlog_raft_readable(rlog))
		return RLOG_OPENING;
	if (rlog->ready)
		return RLOG_LEADER;
	return raft_state((struct raft *)&rlog->raft) == RAFT_FOLLOWER ? RLOG_FOLLOWER
								       : RLOG_CANDIDATE;
}

static uint64_t current_leader(const struct rlog *rlog)
{
	raft_id id = 0;
	const char *address;
	struct learner_status s;

	if (rlog_raft_readable(rlog))
		raft_leader((struct raft *)&rlog->raft, &id, &address);
	if (rlog->learner) { /* it knows hosts, not ids: to see that it changed */
		learner_status(rlog->learner, &s);
		memcpy(&id, s.master.b, sizeof id);
	}
	return id;
}

uint64_t rlog_current_term(const struct rlog *rlog)
{
	struct rio_stats stats;
	struct learner_status s;

	if (rlog->learner) {
		learner_status(rlog->learner, &s);
		return s.term;
	}
	if (!rlog->rio)
		return rlog->told_term;
	rio_stats(rlog->rio, &stats);
	return stats.term;
}

static bool is_open(const struct rlog *rlog)
{
	struct learner_status s;

	if (rlog->failing)
		return rlog->restored || rlog->applied_index > 0;
	if (rlog->learner) {
		learner_status(rlog->learner, &s);
		return s.open;
	}
	return rlog->raft_live && (rlog->ready || !rlog->leads) &&
	       rlog->item_start == rlog->item_end;
}

static void tell(void *arg)
{
	struct rlog *rlog = arg;
	uint64_t term, leader;
	enum rlog_state state;

	if (!rlog->opened_told && !rlog->stopped && is_open(rlog)) {
		rlog->opened_told = true;
		rlog->state = rlog_current_state(rlog);
		rlog->events->opened(rlog->arg, 0, NULL);
	}
	if (!rlog->opened_told)
		return;
	rlog_follow_place(rlog);
	term = rlog_current_term(rlog);
	leader = current_leader(rlog);
	state = rlog_current_state(rlog);
	if (state == rlog->state && term == rlog->told_term &&
		leader == rlog->told_leader)
		return;
	if (state != rlog->state)
		log_info("pool.log", "state=%s term=%" PRIu64 " leader=%" PRIu64,
			rlog_state_name(state), term, leader);
	rlog->state = state;
	rlog->told_term = term;
	rlog->told_leader = leader;
	if (rlog->feeder)
		feeder_tell(rlog->feeder);
	rlog->events->changed(rlog->arg);
}

static void lose_leadership(struct rlog *rlog)
{
	rlog->leads = rlog->ready = false;
	rlog_forget_barrier(rlog);
	rlog_date_pending(rlog);
	rlog_reject_fresh(rlog, RV_ENOTMASTER);
}

/* A follower's state is as of when the leader was heard, once everything that the leader
 * called committed then is applied. */
static void note_fresh(struct rlog *rlog)
{
	if (rlog->heard_us && rlog->heard_commit > rlog->applied_index)
		return;
	if (rlog->heard_us)
		rlog->fresh_us = rlog->heard_us;
	rio_leader_heard(rlog->rio, &rlog->heard_us, &rlog->heard_commit);
}

void rlog_look(struct rlog *rlog)
{
	uint64_t term = rlog_current_term(rlog);
	struct rv_error e;
	bool leads;

	if (!rlog->raft_live || rlog->raft_closing || rlog->freeing)
		return;
	if (raft_state(&rlog->raft) == RAFT_UNAVAILABLE) {
		rlog_fail(rlog,
			rv_error_set(&e, RV_EIO, "the log's voter gave up: %s",
				raft_errmsg(&rlog->raft)),
			&e);
		return;
	}
	rio_note_conf(rlog->rio);
	note_fresh(rlog);
	leads = raft_state(&rlog->raft) == RAFT_LEADER;
	if (rlog->leads && (!leads || term != rlog->lead_term))
		lose_leadership(rlog);
	rlog->leads = leads;
	rlog->lead_term = term;
	rlog->sole = raft_conf_sole_voter(&rlog->raft.configuration, rlog->config.id);
	if (leads && !rlog->ready)
		rlog_begin_leading(rlog);
	rlog_look_around(rlog);
	rlog_finish_adding(rlog);
	defer_start(&rlog->tell);
}

/* --- failing and closing --- */

void rlog_end_stop(struct rlog *rlog)
{
	timer_stop(&rlog->stop_poll);
	timer_stop(&rlog->retry);
	timer_stop(&rlog->sweep);
	restore_cancel(&rlog->restore);
	rlog->restoring = false;
	rlog->stopped = true;
	rlog->state = RLOG_STOPPED;
	rlog_reject_fresh(rlog, RV_ECLOSED);
	rlog_end_pending(rlog, 0, RLOG_UNKNOWN, RV_EOUTCOME);
	rlog->events->stopped(rlog->arg);
}

/* Of the only voter's open proposals those on disk will be found when it opens again;
 * those cut off never happened. */
static void settle_after_failure(struct rlog *rlog, const struct rio_stats *stats)
{
	if (rlog->sole && stats->tail_cut)
		rlog_end_pending(rlog, stats->synced, RLOG_REJECTED, rlog->error.code);
	else if (rlog->sole)
		rlog_end_pending(rlog, stats->synced, RLOG_UNKNOWN, RV_EOUTCOME);
	rlog_date_pending(rlog);
	if (rlog->error.code != RV_ECORRUPT)
		timer_start_ms(&rlog->retry, rlog->config.retry_ms);
}

static void raft_is_closed(struct rlog *rlog)
{
	struct rio_stats stats;

	rio_stats(rlog->rio, &stats);
	rio_free(rlog->rio);
	rlog->rio = NULL;
	rlog->raft_inited = rlog->raft_live = rlog->raft_closing = false;
	rlog->told_term = stats.term;
	if (rlog->freeing)
		return;
	if (rlog->stopping)
		rlog_end_stop(rlog);
	else if (rlog->switching)
		rlog_switch(rlog);
	else
		settle_after_failure(rlog, &stats);
	if (!rlog->stopped)
		defer_start(&rlog->tell);
}

/* A learner is. */
void rlog_closed(struct rlog *rlog)
{
	if (rlog->stopping)
		rlog_end_stop(rlog);
	else if (rlog->switching)
		rlog_switch(rlog);
	else if (rlog->error.code != RV_ECORRUPT)
		timer_start_ms(&rlog->retry, rlog->config.retry_ms);
	if (!rlog->stopped)
		defer_start(&rlog->tell);
}

static void closed(void *arg)
{
	raft_is_closed(arg);
}

static void raft_closed(struct raft *raft)
{
	struct rlog *rlog = raft->data;

	if (!rlog->freeing)
		defer_start(&rlog->closed);
}

static void raft_begin_close(struct rlog *rlog)
{
	rlog->raft_closing = true;
	rlog->leads = rlog->ready = false;
	rlog_forget_barrier(rlog);
	rlog_drop_items(rlog);
	raft_close(&rlog->raft, raft_closed);
}

void rlog_close_mode(struct rlog *rlog)
{
	if (rlog->learner) {
		learner_close(rlog->learner);
		return;
	}
	rlog_date_pending(rlog);
	rlog_reject_fresh(rlog, RV_ENOTMASTER);
	raft_begin_close(rlog);
}

void rlog_fail(struct rlog *rlog, int rc, const struct rv_error *e)
{
	if (rlog->failing || rlog->freeing || rlog->stopped)
		return;
	rlog->failing = true;
	rlog->error = *e;
	rlog->error.code = rc;
	log_error("pool.log",
		"msg=\"%s; the pool is read-only here until that works again\"",
		e->detail);
	if (rlog->raft_inited && !rlog->raft_closing)
		raft_begin_close(rlog);
	if (rlog->learner)
		learner_close(rlog->learner);
	rlog_date_pending(rlog);
	rlog_reject_fresh(rlog, rc == RV_ESPACE ? RV_ESPACE : RV_EIO);
	defer_start(&rlog->tell);
}

/* --- opening --- */

static void retry_fire(void *arg)
{
	struct rlog *rlog = arg;

	if (!rlog->stopping && !rlog->opening.running)
		rlog_begin_open(rlog);
}

static void use_defaults(struct rlog_config *c)
{
#define DEFAULT(field, value) c->field = c->field ? c->field : (value)
	DEFAULT(election_ms, DEFAULT_ELECTION_MS);
	DEFAULT(heartbeat_ms, DEFAULT_HEARTBEAT_MS);
	DEFAULT(segment_bytes, DEFAULT_SEGMENT_BYTES);
	DEFAULT(snapshot_entries, DEFAULT_SNAPSHOT_ENTRIES);
	DEFAULT(snapshot_bytes, DEFAULT_SNAPSHOT_BYTES);
	DEFAULT(trailing_entries, DEFAULT_TRAILING);
	DEFAULT(chunk_bytes, SNAPFILE_CHUNK);
	DEFAULT(reserve_bytes, DEFAULT_RESERVE_BYTES);
	DEFAULT(outcome_timeout_ms, DEFAULT_OUTCOME_MS);
	DEFAULT(retry_ms, DEFAULT_RETRY_MS);
#undef DEFAULT
}

static int make_bootstrap(struct rlog *rlog, struct rv_error *e)
{
	struct rlog_config *c = &rlog->config;
	int r = 0;

	raft_configuration_init(&rlog->opening.bootstrap);
	for (int i = 0; i < c->bootstrap_count && r == 0; i++)
		r = raft_configuration_add(&rlog->opening.bootstrap, c->bootstrap[i].id,
			c->bootstrap[i].address,
			c->bootstrap[i].voter ? RAFT_VOTER : RAFT_STANDBY);
	if (r)
		return rv_error_set(
			e, RV_EINVAL, "first configuration: %s", raft_strerror(r));
	return 0;
}

static void stop_poll(void *arg);

int rlog_open(struct rlog **out, struct loop *l, struct disk *disk,
	struct rlog_transport *transport, const struct rlog_config *config,
	const struct rlog_fsm *fsm, const struct rlog_events *events, void *arg,
	struct rv_error *e)
{
	struct rlog *rlog;
	int rc;

	if ((config->id == 0 && !config->adopt) ||
		config->bootstrap_count > RLOG_MAX_SERVERS)
		return rv_error_set(e, RV_EINVAL,
			"the log's server id must not be 0, its first servers at most %d",
			RLOG_MAX_SERVERS);
	rlog = calloc(1, sizeof *rlog);
	if (!rlog)
		return rv_error_set(e, RV_ENOMEM, "open the log: out of memory");
	rlog->loop = l;
	rlog->disk = disk;
	rlog->transport = transport;
	rlog->config = *config;
	rlog->fsm = fsm;
	rlog->events = events;
	rlog->arg = arg;
	use_defaults(&rlog->config);
	rlog_propose_init(rlog);
	rlog_member_init(rlog);
	timer_init(&rlog->retry, l, "pool.log.reopen", retry_fire, rlog);
	timer_init(&rlog->sweep, l, "pool.log.sweep", rlog_sweep, rlog);
	timer_init(&rlog->stop_poll, l, "pool.log.stop", stop_poll, rlog);
	defer_init(&rlog->tell, l, "pool.log.changed", tell, rlog);
	defer_init(&rlog->closed, l, "pool.log.closed", closed, rlog);
	rc = make_bootstrap(rlog, e);
	if (rlog_learner_init(rlog) && !rc)
		rc = rv_error_set(e, RV_ENOMEM, "open the log: out of memory");
	if (rc) {
		rlog_free(rlog);
		return rc;
	}
	rlog_begin_open(rlog);
	*out = rlog;
	return 0;
}

/* --- stopping --- */

static bool stop_ready(struct rlog *rlog)
{
	if (rlog->opening.running || rlog->raft_closing || rlog->wipe.running)
		return false;
	if (!rlog->raft_live)
		return true;
	if (loop_now_us(rlog->loop) >= rlog->stop_deadline_us)
		return true;
	return list_empty(&rlog->fresh) && list_empty(&rlog->pending) &&
	       !rlog_applying(rlog) && rio_settled(rlog->rio);
}

static void stop_poll(void *arg)
{
	struct rlog *rlog = arg;

	if (rlog->stopped)
		return;
	if (!stop_ready(rlog)) {
		timer_start_ms(&rlog->stop_poll, STOP_POLL_MS);
		return;
	}
	if (rlog->raft_inited)
		raft_begin_close(rlog);
	else if (rlog->learner)
		learner_close(rlog->learner);
	else
		rlog_end_stop(rlog);
}

void rlog_stop(struct rlog *rlog)
{
	if (rlog->stopping || rlog->stopped)
		return;
	rlog->stopping = true;
	rlog->stop_deadline_us = loop_now_us(rlog->loop) + STOP_TIMEOUT_US;
	timer_stop(&rlog->retry);
	timer_start_us(&rlog->stop_poll, 0);
}

void rlog_free(struct rlog *rlog)
{
	if (!rlog)
		return;
	rlog->freeing = true;
	if (rlog->rio)
		rio_abandon(rlog->rio); /* no new jobs */
	learner_abandon(rlog->learner);
	disk_quiesce(rlog->disk);
	timer_stop(&rlog->retry);
	timer_stop(&rlog->sweep);
	timer_stop(&rlog->stop_poll);
	defer_stop(&rlog->tell);
	defer_stop(&rlog->closed);
	rlog_drop_items(rlog);
	if (rlog->raft_inited) {
		if (!rlog->raft_closing)
			raft_close(&rlog->raft, raft_closed);
		raft_is_closed(rlog);
	}
	rlog_learner_fini(rlog);
	restore_cancel(&rlog->restore);
	if (rlog->opening.loaded)
		recovered_fini(&rlog->opening.recovered);
	rlog_member_fini(rlog);
	rlog_propose_fini(rlog);
	raft_configuration_close(&rlog->opening.bootstrap);
	free(rlog);
}

void rlog_snapshot(struct rlog *rlog)
{
	if (rlog->learner) {
		learner_snapshot(rlog->learner);
		return;
	}
	rlog->snapshot_asked = true;
	rlog_snapshot_check(rlog);
	/* libraft decides when it commits something: give it something. */
	if (rlog->snapshot_wanted && rlog->leads)
		rlog_begin_leading(rlog);
}
