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
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "pool/life.h"
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
	INSTALL_TIMEOUT_MS = 5000, /* until a snapshot is sent again */
	STOP_POLL_MS = 2,
	STOP_TIMEOUT_US = 5 * 1000000,
};

static void open_begin(struct rlog *rlog);
static void retry_fire(void *arg);

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

/* --- what the owner is told -----------------------------------------------------------
 */

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

/* --- libraft's state machine
 * ------------------------------------------------------------ */

/* Called while libraft applies, so some entries up to last_applied are still on their way
 * to us: the state is fixed when they have arrived. */
static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n)
{
	struct rlog *rlog = fsm->data;

	*bufs = NULL;
	*n = 0;
	rlog->snapshot_wanted = false;
	raft_set_snapshot_threshold(&rlog->raft, UINT_MAX);
	/* Opened again, libraft catches up with a state that is ahead of it. */
	if (rlog->stuck || rlog->raft_closing ||
		rlog->raft.last_applied < rlog->applied_index)
		return RAFT_BUSY;
	/* libraft would write the uncommitted configuration into the snapshot. */
	if (rlog->raft.configuration_uncommitted_index)
		return RAFT_BUSY;
	rlog->snapshot_at = rlog->raft.last_applied;
	rlog->snapshot_begun = false;
	defer_start(&rlog->apply);
	return 0;
}

/* Never called: our async_work does the encoding itself, in slices. */
static int fsm_snapshot_async(
	struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n)
{
	(void)fsm;
	(void)bufs;
	(void)n;
	return 0;
}

static int fsm_snapshot_finalize(
	struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n)
{
	struct rlog *rlog = fsm->data;

	(void)bufs;
	(void)n;
	if (rlog->snapshot_begun)
		rlog->fsm->snapshot_end(rlog->arg);
	rlog->snapshot_begun = false;
	rlog->snapshot_at = 0;
	return 0;
}

static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
	struct rlog *rlog = fsm->data;
	uint64_t index, term;
	bool installed =
		rio_commit_install(rlog->rio, rlog->applied_index, &index, &term);

	raft_free(buf->base);
	if (rlog->restoring) { /* opening: its data was decoded before */
		rlog->restoring = false;
		restore_commit(&rlog->restore, index, term);
		installed = true;
	}
	rlog->restored = true;
	if (installed) {
		rlog->applied_index = index;
		rlog->applied_term = term;
		rlog_forget_up_to(rlog, index);
	}
	return 0;
}

/* --- failing and closing
 * ------------------------------------------------------------------ */

static void end_stop(struct rlog *rlog)
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
		end_stop(rlog);
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
		end_stop(rlog);
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

static void rio_touched_us(void *arg)
{
	struct rlog *rlog = arg;

	rlog_snapshot_check(rlog);
	rlog_look(rlog);
}

static void rio_failed_us(void *arg, int rc, const struct rv_error *e)
{
	rlog_fail(arg, rc, e);
}

/* --- opening
 * -------------------------------------------------------------------------------- */

static void open_failed(struct rlog *rlog, int rc, const struct rv_error *e)
{
	rlog->error = *e;
	rlog->error.code = rc;
	if (rlog->opened_told) {
		/* A log that served before: it may come back. */
		rlog->failing = true;
		if (rc != RV_ECORRUPT)
			timer_start_ms(&rlog->retry, rlog->config.retry_ms);
		defer_start(&rlog->tell);
		return;
	}
	rlog->opened_told = true;
	rlog->stopped = true;
	rlog->state = RLOG_STOPPED;
	rlog->events->opened(rlog->arg, rc, &rlog->error);
}

static void raft_settings(struct rlog *rlog)
{
	struct raft *r = &rlog->raft;

	raft_set_election_timeout(r, rlog->config.election_ms);
	raft_set_heartbeat_timeout(r, rlog->config.heartbeat_ms);
	raft_set_install_snapshot_timeout(r, INSTALL_TIMEOUT_MS);
	raft_set_pre_vote(r, true);
	raft_set_snapshot_threshold(r, UINT_MAX);
	raft_set_snapshot_trailing(r, rlog->config.trailing_entries);
}

static int start_raft(struct rlog *rlog, struct rv_error *e)
{
	struct rio_config config = {
		.loop = rlog->loop,
		.disk = rlog->disk,
		.transport = rlog->transport,
		.fsm = rlog->fsm,
		.fsm_arg = rlog->arg,
		.chunk_bytes = rlog->config.chunk_bytes,
		.meta_first = &rlog->meta_first,
		.touched = rio_touched_us,
		.failed = rio_failed_us,
		.applying = rlog_applying,
		.arg = rlog,
	};
	struct rlog_open_job *j = &rlog->opening;
	int rc, r;

	rlog->healed += j->recovered.healed;
	j->loaded = false;
	rc = rio_new(&rlog->rio, &config, &j->recovered);
	if (rc) {
		recovered_fini(&j->recovered);
		return rv_error_set(e, rc, "open the log: %s", rv_error_text(rc));
	}
	rlog->raft_fsm = (struct raft_fsm){
		.version = 3,
		.data = rlog,
		.apply = rlog_fsm_apply,
		.snapshot = fsm_snapshot,
		.restore = fsm_restore,
		.snapshot_finalize = fsm_snapshot_finalize,
		.snapshot_async = fsm_snapshot_async,
	};
	memset(&rlog->raft, 0, sizeof rlog->raft);
	r = raft_init(&rlog->raft, rio_raft_io(rlog->rio), &rlog->raft_fsm,
		rlog->config.id, rlog->config.address);
	if (r) {
		rio_free(rlog->rio);
		rlog->rio = NULL;
		return rv_error_set(
			e, rlog_from_raft(r), "open the log: %s", raft_strerror(r));
	}
	rlog->raft.data = rlog;
	rlog->raft_inited = true;
	rlog->snapshot_wanted = false;
	raft_settings(rlog);
	rlog->raft_live = true;
	r = raft_start(&rlog->raft);
	if (r)
		return rv_error_set(e, rlog_from_raft(r), "open the log: %s: %s",
			raft_strerror(r), raft_errmsg(&rlog->raft));
	rio_doubt_conf(rlog->rio);
	return 0;
}

static void open_serve(struct rlog *rlog)
{
	struct rv_error e = {0};
	int rc;

	rlog->failing = false;
	rc = rlog->learns ? rlog_start_learner(rlog, &e) : start_raft(rlog, &e);
	if (!rc)
		rlog_look(rlog);
	else if (rlog->raft_inited)
		rlog_fail(rlog, rc, &e);
	else
		open_failed(rlog, rc, &e);
}

static void open_restored(void *arg, int rc, const struct rv_error *e)
{
	struct rlog *rlog = arg;
	struct rv_error worse;

	if (rc) {
		rlog->restoring = false;
		recovered_fini(&rlog->opening.recovered);
		rlog->opening.loaded = false;
		worse = *e;
		rv_error_prefix(
			&worse, "%s: the snapshot is not usable", rlog->disk->path);
		open_failed(rlog, rc, &worse);
		return;
	}
	if (rlog->learns) { /* libraft does it in fsm_restore */
		const struct snapfile *file = &rlog->opening.recovered.snapshot;

		rlog->restoring = false;
		rlog->restored = true;
		rlog->applied_index = file->index;
		rlog->applied_term = file->term;
		restore_commit(&rlog->restore, file->index, file->term);
	}
	open_serve(rlog);
}

static void open_run(struct job *job)
{
	struct rlog_open_job *j = CONTAINER_OF(job, struct rlog_open_job, job);
	struct disk *disk = j->rlog->disk;
	uint64_t left = 0;

	rv_error_clear(&j->error);
	j->rc = disk_space(disk, &left, &j->error);
	if (!j->rc && left < j->need_space)
		j->rc = rv_error_set(&j->error, RV_ESPACE,
			"%s has %" PRIu64 " KiB left, the log needs %" PRIu64
			" KiB to go on: free some space on that file system",
			disk->path, left >> 10, j->need_space >> 10);
	if (!j->rc)
		j->rc = rlog_recover(j);
}

static void open_done(struct job *job, int rc)
{
	struct rlog_open_job *j = CONTAINER_OF(job, struct rlog_open_job, job);
	struct rlog *rlog = j->rlog;
	struct snapfile *file = &j->recovered.snapshot;

	j->running = false;
	if (rc)
		j->rc = rv_error_set(&j->error, rc, "the disk was closed");
	j->loaded = !j->rc;
	if (rlog->freeing)
		return;
	if (rlog->stopping) {
		end_stop(rlog);
		return;
	}
	if (j->rc) {
		open_failed(rlog, j->rc, &j->error);
		return;
	}
	rlog->config.id = j->config.id;
	rlog->learns = j->adopt && !j->config.id;
	if (!j->recovered.has_snapshot || file->index <= rlog->applied_index) {
		open_serve(rlog);
		return;
	}
	rlog->restoring = true;
	restore_start(&rlog->restore, rlog->loop, rlog->fsm, rlog->arg, file, NULL, 0,
		open_restored, rlog);
}

static void open_begin(struct rlog *rlog)
{
	struct rlog_open_job *j = &rlog->opening;
	struct rv_error e;
	int rc;

	j->job =
		(struct job){.run = open_run, .done = open_done, .name = "pool.log.open"};
	j->rlog = rlog;
	j->adopt = rlog->config.adopt;
	j->config = (struct recover_config){
		.id = rlog->config.id,
		.segment_bytes = rlog->config.segment_bytes,
		.trailing = rlog->config.trailing_entries,
		.bootstrap = &j->bootstrap,
		.refound = rlog->config.refound,
		.refound_term = life_base(rlog->config.refound_generation),
		.meta_first = &rlog->meta_first,
		/* What was carried into this life another log held. */
		.applied = rlog->applied_index > rlog->carried || rlog->learns
				   ? rlog->applied_index
				   : 0,
	};
	/* Opening again for nothing would only wear the disk. */
	j->need_space = rlog->failing && rlog->error.code == RV_ESPACE
				? rlog->config.segment_bytes + rlog->config.reserve_bytes
				: 0;
	j->running = true;
	rc = disk_submit(rlog->disk, DISK_LANE_LOG, &j->job);
	if (rc) {
		j->running = false;
		open_failed(rlog,
			rv_error_set(
				&e, rc, "%s: its thread takes no work", rlog->disk->path),
			&e);
	}
}

/* What this host was has gone from its disk: it begins as the other. */
void rlog_wiped(struct rlog *rlog, int rc, const struct rv_error *e)
{
	if (rlog->stopping)
		return; /* stop_poll ends it */
	if (rc)
		open_failed(rlog, rc, e);
	else
		open_begin(rlog);
}

static void retry_fire(void *arg)
{
	struct rlog *rlog = arg;

	if (!rlog->stopping && !rlog->opening.running)
		open_begin(rlog);
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
	open_begin(rlog);
	*out = rlog;
	return 0;
}

/* --- stopping
 * -------------------------------------------------------------------------------- */

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
		end_stop(rlog);
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
