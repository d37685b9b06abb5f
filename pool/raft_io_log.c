/* The log as libraft writes it: appends in groups, one job of the log lane after the
 * other, and which term each entry is of. */
#include "pool/raft_io.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "pool/raft_io_internal.h"

enum {
	GROUP_BYTES = 4 << 20, /* about, of one write */
	GROUP_BATCHES = 1024,  /* append requests of one write */
	FINISH_SLICE = 64,     /* append callbacks per callback of ours */
	MARK_IDLE_MS = 20,
	PREPARE_RETRY_MS = 1000,
};

/* --- terms of entries --- */

bool rio_note_term(struct rio *rio, uint64_t first, uint64_t term)
{
	struct rio_term *last = rio->term_count ? &rio->terms[rio->term_count - 1] : NULL;

	if (last && last->term == term)
		return true;
	if (rio->term_count == rio->term_size) {
		size_t size = rio->term_size ? 2 * rio->term_size : 16;
		struct rio_term *more = realloc(rio->terms, size * sizeof *more);

		if (!more)
			return false;
		rio->terms = more;
		rio->term_size = size;
	}
	rio->terms[rio->term_count++] = (struct rio_term){first, term};
	return true;
}

static void rio_cut_terms(struct rio *rio, uint64_t index)
{
	while (rio->term_count && rio->terms[rio->term_count - 1].first >= index)
		rio->term_count--;
}

/* Terms of entries before the snapshot are asked for no more. */
void rio_prune_terms(struct rio *rio, uint64_t index)
{
	size_t gone = 0;

	while (gone + 1 < rio->term_count && rio->terms[gone + 1].first <= index)
		gone++;
	memmove(rio->terms, rio->terms + gone,
		(rio->term_count - gone) * sizeof *rio->terms);
	rio->term_count -= gone;
}

uint64_t rio_term_at(const struct rio *rio, uint64_t index)
{
	for (size_t i = rio->term_count; i-- > 0;)
		if (rio->terms[i].first <= index)
			return rio->terms[i].term;
	return 0;
}

/* --- the log lane --- */

static struct rio_op *ops_room(struct rio_ops *ops)
{
	if (ops->start == ops->end)
		ops->start = ops->end = 0;
	if (ops->end == ops->size && ops->start > ops->size / 2) {
		memmove(ops->at, ops->at + ops->start,
			(ops->end - ops->start) * sizeof *ops->at);
		ops->end -= ops->start;
		ops->start = 0;
	}
	if (ops->end == ops->size) {
		size_t size = ops->size ? 2 * ops->size : 64;
		struct rio_op *more = realloc(ops->at, size * sizeof *more);

		if (!more)
			return NULL;
		ops->at = more;
		ops->size = size;
	}
	return &ops->at[ops->end++];
}

int rio_push(struct rio *rio, const struct rio_op *op)
{
	struct rio_op *room = ops_room(&rio->ops);

	if (!room)
		return RV_ENOMEM;
	*room = *op;
	rio_pump(rio);
	return 0;
}

static void job_run_kind(struct rio_job *j)
{
	struct segments *s = j->segments;

	switch (j->kind) {
	case RIO_APPEND:
		j->rc = segments_append(s, j->batches, j->count, &j->error);
		break;
	case RIO_TRUNCATE:
		j->rc = segments_truncate(s, j->index, &j->error);
		break;
	case RIO_RESET:
		j->rc = segments_reset(s, j->index, &j->error);
		break;
	case RIO_PRUNE:
		j->rc = segments_prune(s, j->index, &j->error);
		break;
	case RIO_MARK:
		j->rc = segments_mark(s, &j->error);
		break;
	case RIO_PREPARE:
		j->rc = segments_prepare(s, &j->error);
		break;
	}
}

static void job_run(struct job *job)
{
	struct rio_job *j = CONTAINER_OF(job, struct rio_job, job);

	rv_error_clear(&j->error);
	if (j->cut)
		j->rc = segments_cut(j->segments, &j->error);
	else
		job_run_kind(j);
	j->next = j->segments->next;
	j->room = segments_room(j->segments);
	j->bytes = segments_bytes(j->segments);
	j->spare = j->segments->spare != NULL;
}

/* The appends of a job go from `ops` to `done`. */
static bool job_take_done(struct rio *rio, struct rio_job *j)
{
	for (unsigned i = 0; i < j->count; i++) {
		struct rio_op *room = ops_room(&rio->done);

		if (!room)
			return false;
		*room = rio->ops.at[rio->ops.start++];
		rio->stats.queued -= room->bytes;
		rio->stats.log_bytes += room->bytes;
	}
	defer_start(&rio->finish);
	return true;
}

static void job_good(struct rio *rio, struct rio_job *j)
{
	struct rv_error e;

	switch (j->kind) {
	case RIO_APPEND:
		rio->stats.syncs++;
		if (!job_take_done(rio, j)) {
			rio_fail(rio, rv_error_set(&e, RV_ENOMEM, "log: out of memory"),
				&e);
			return;
		}
		rio->mark_due = true;
		timer_start_ms(&rio->idle, MARK_IDLE_MS);
		break;
	case RIO_PREPARE:
		rio->stats.low_space = false;
		break;
	case RIO_MARK:
	case RIO_TRUNCATE:
	case RIO_PRUNE:
		break;
	case RIO_RESET:
		rio_install_reset_done(rio);
		break;
	}
	rio->stats.synced = j->next - 1;
}

/* What may fail without harm to what was promised. */
static void job_bad(struct rio *rio, struct rio_job *j)
{
	if (j->kind == RIO_PREPARE) {
		if (!rio->stats.low_space)
			log_warn("pool.log",
				"msg=\"%s; until then only essential changes are taken\"",
				j->error.detail);
		rio->stats.low_space = true;
		rio->prepare_due = false;
		timer_start_ms(&rio->retry, PREPARE_RETRY_MS);
	} else if (j->kind == RIO_PRUNE) {
		log_warn("pool.log", "msg=\"%s\"", j->error.detail);
	} else {
		rio_fail(rio, j->rc, &j->error);
	}
}

static void job_done(struct job *job, int rc)
{
	struct rio_job *j = CONTAINER_OF(job, struct rio_job, job);
	struct rio *rio = j->rio;

	rio->job_running = false;
	if (rc)
		j->rc = rv_error_set(&j->error, rc, "the log's disk was closed");
	if (j->cut) {
		rio->stats.tail_cut = !j->rc;
		rio_close_step(rio);
		return;
	}
	if (j->kind == RIO_TRUNCATE || j->kind == RIO_RESET || j->kind == RIO_PRUNE)
		rio->ops.start++;
	if (!rc) {
		rio->stats.room = j->room;
		rio->stats.disk_bytes = j->bytes + rio->recovered.snapshot_bytes;
		rio->prepare_due = rio->prepare_due || !j->spare;
	}
	if (j->rc)
		job_bad(rio, j);
	else
		job_good(rio, j);
	rio_pump(rio);
	rio_close_step(rio);
	rio_release_soon(rio);
}

static bool job_add(struct rio_job *j, const struct rio_op *op)
{
	if (j->count == j->size) {
		unsigned size = j->size ? 2 * j->size : 64;
		struct segments_batch *more = realloc(j->batches, size * sizeof *more);

		if (!more)
			return false;
		j->batches = more;
		j->size = size;
	}
	j->batches[j->count++] = (struct segments_batch){op->entries, op->n};
	return true;
}

/* Fills the job with the first waiting op, or all appends in a row from there on. */
static bool job_fill(struct rio *rio)
{
	struct rio_job *j = &rio->job;
	size_t bytes = 0;

	j->cut = false;
	j->count = 0;
	if (rio_ops_empty(&rio->ops)) {
		bool prepare = rio->prepare_due && !timer_active(&rio->retry);

		if (!prepare && !(rio->mark_due && !timer_active(&rio->idle)))
			return false;
		j->kind = prepare ? RIO_PREPARE : RIO_MARK;
		if (prepare)
			rio->prepare_due = false;
		else
			rio->mark_due = false;
		return true;
	}
	j->kind = rio->ops.at[rio->ops.start].kind;
	j->index = rio->ops.at[rio->ops.start].index;
	for (size_t i = rio->ops.start; i < rio->ops.end && j->kind == RIO_APPEND; i++) {
		const struct rio_op *op = &rio->ops.at[i];

		if (op->kind != RIO_APPEND || j->count == GROUP_BATCHES ||
			(bytes > 0 && bytes + op->bytes > GROUP_BYTES))
			break;
		bytes += op->bytes;
		if (!job_add(j, op))
			return j->count > 0;
	}
	return true;
}

static void job_submit(struct rio *rio)
{
	struct rv_error e;
	int rc;

	rio->job.job.run = job_run;
	rio->job.job.done = job_done;
	rio->job.job.name = "pool.log.write";
	rio->job.rio = rio;
	rio->job.segments = &rio->segments;
	rio->job.rc = 0;
	rio->job_running = true;
	rc = disk_submit(rio->config.disk, DISK_LANE_LOG, &rio->job.job);
	if (rc) {
		rio->job_running = false;
		rio_fail(rio, rv_error_set(&e, rc, "log: its thread takes no work"), &e);
	}
}

void rio_cut_tail(struct rio *rio)
{
	rio->job.cut = true;
	job_submit(rio);
}

void rio_pump(struct rio *rio)
{
	if (rio->job_running || rio->failed || rio->closing || rio->abandoned)
		return;
	if (job_fill(rio))
		job_submit(rio);
}

void rio_idle(void *arg)
{
	rio_pump(arg);
}

void rio_retry(void *arg)
{
	struct rio *rio = arg;

	rio->prepare_due = true;
	rio_pump(rio);
}

void rio_finish(void *arg)
{
	struct rio *rio = arg;

	if (rio->failed)
		return; /* nothing is acknowledged any more */
	for (int i = 0; i < FINISH_SLICE && !rio_ops_empty(&rio->done); i++) {
		struct rio_op op = rio->done.at[rio->done.start++];

		rio->told_stored = op.index + op.n - 1;
		rio_post_letters(rio);
		op.cb(op.req, 0);
		if (rio->closing || rio->failed)
			return;
	}
	if (!rio_ops_empty(&rio->done))
		defer_start(&rio->finish);
	rio_touched(rio);
	rio_release_soon(rio);
}

bool rio_settled(struct rio *rio)
{
	if (rio->failed)
		return true;
	if (rio->job_running || !rio_ops_empty(&rio->ops) || !rio_ops_empty(&rio->done))
		return false;
	rio->prepare_due = false;
	if (rio->mark_due) {
		timer_stop(&rio->idle);
		rio_pump(rio);
		return false;
	}
	return true;
}

int rio_append(struct raft_io *io, struct raft_io_append *req,
	const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
	struct rio *rio = RIO_OF(io);
	struct rio_op op = {
		.kind = RIO_APPEND,
		.index = rio->next,
		.req = req,
		.cb = cb,
		.entries = entries,
		.n = n,
	};

	for (unsigned i = 0; i < n; i++) {
		op.bytes += FRAME_HEAD_SIZE + entries[i].buf.len;
		if (!rio_note_term(rio, rio->next + i, entries[i].term))
			return RAFT_NOMEM;
		if (entries[i].type == RAFT_CHANGE)
			rio->change = rio->next + i;
	}
	if (rio->receiving && rio->reach > rio->verified)
		rio->verified = rio->reach;
	tail_append(&rio->tail, entries, n);
	rio->next += n;
	rio->stats.queued += op.bytes;
	rio->stats.appends++;
	req->cb = cb;
	return rio_push(rio, &op) ? RAFT_NOMEM : 0;
}

int rio_truncate(struct raft_io *io, raft_index index)
{
	struct rio *rio = RIO_OF(io);
	struct rio_op op = {.kind = RIO_TRUNCATE, .index = index};

	rio->next = index;
	if (rio->change >= index) {
		rio->change = 0;
		rio_drop_letters(rio);
	}
	tail_cut(&rio->tail, index);
	rio_cut_terms(rio, index);
	return rio_push(rio, &op) ? RAFT_NOMEM : 0;
}
