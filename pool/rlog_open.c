/*
 * Opening a log: what is on disk is read in its lane, the snapshot decoded in slices,
 * then libraft, or the learner, is started with what follows it; and what libraft then
 * asks of the state machine.
 */
#include "pool/rlog.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "pool/life.h"
#include "pool/rlog_internal.h"

enum {
	INSTALL_TIMEOUT_MS = 5000, /* until a snapshot is sent again */
};

/* --- libraft's state machine --- */

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

/* --- opening --- */

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
		rlog_end_stop(rlog);
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

void rlog_begin_open(struct rlog *rlog)
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
		rlog_begin_open(rlog);
}
