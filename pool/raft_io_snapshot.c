/* Snapshots of raft_io: made, installed, read for a follower. */
#include "pool/raft_io.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "pool/raft_conf.h"
#include "pool/raft_io_internal.h"

static void took_snapshot(struct rio *rio, uint64_t index, uint64_t older, uint64_t kept)
{
	struct rio_op prune = {.kind = RIO_PRUNE, .index = older + 1};

	rio->stats.snapshot_index = index;
	rio->stats.snapshot_us = loop_now_us(rio->config.loop);
	rio->recovered.snapshot_bytes = kept;
	rio_prune_terms(rio, index);
	if (older && !rio->closing && rio_push(rio, &prune))
		log_warn("pool.log", "msg=\"out of memory: old segments stay\"");
}

/* --- our own --- */

static void take_fail(struct rio_take *t)
{
	struct rio *rio = t->rio;

	log_warn("pool.log", "msg=\"no snapshot could be made: %s\"", t->error.detail);
	rio->stats.take_failed_us = loop_now_us(rio->config.loop);
	snapfile_abort(&t->writer);
	t->state = TAKE_IDLE;
}

static void take_run(struct job *job)
{
	struct rio_take *t = CONTAINER_OF(job, struct rio_take, job);

	t->rc = 0;
	rv_error_clear(&t->error);
	if (t->state == TAKE_COMMIT) {
		t->rc = snapfile_commit(
			&t->writer, t->meta, &t->older, &t->kept, &t->error);
		return;
	}
	if (t->begin)
		t->rc = snapfile_begin(&t->writer, t->rio->config.disk, &t->error);
	if (!t->rc && buf_len(&t->chunk) > 0)
		t->rc = snapfile_chunk(
			&t->writer, buf_data(&t->chunk), buf_len(&t->chunk), &t->error);
}

static void take_committed(struct rio_take *t)
{
	struct rio *rio = t->rio;

	if (t->rc) {
		take_fail(t);
	} else {
		log_info("pool.log", "index=%llu bytes=%" PRIu64 " msg=\"snapshot made\"",
			t->meta->index, t->writer.offset);
		rio->stats.log_bytes -= t->log_bytes;
		t->state = TAKE_IDLE;
		took_snapshot(rio, t->meta->index, t->older, t->kept);
	}
	t->put_cb(t->put, rio_raft_error(t->rc));
}

static void take_done(struct job *job, int rc)
{
	struct rio_take *t = CONTAINER_OF(job, struct rio_take, job);
	struct rio *rio = t->rio;

	t->running = false;
	if (rc)
		t->rc = rv_error_set(&t->error, rc, "the disk was closed");
	t->begin = false;
	buf_consume(&t->chunk, buf_len(&t->chunk));
	if (rio->closing || rio->abandoned) {
		rio_close_step(rio);
		return;
	}
	if (t->state == TAKE_COMMIT) {
		take_committed(t);
	} else if (t->rc) {
		take_fail(t);
		t->work_cb(t->work, rio_raft_error(t->rc));
	} else if (t->last) {
		t->state = TAKE_ENCODED;
		t->work_cb(t->work, 0);
	} else {
		defer_start(&t->step);
		return;
	}
	rio_touched(rio);
	rio_release_soon(rio);
}

static void take_submit(struct rio_take *t)
{
	t->job = (struct job){
		.run = take_run, .done = take_done, .name = "pool.snapshot.write"};
	t->running = true;
	if (disk_submit(t->rio->config.disk, DISK_LANE_BULK, &t->job))
		take_done(&t->job, RV_ELIMIT);
}

/* One slice of the encoder; a full chunk goes to disk. */
static void take_step(void *arg)
{
	struct rio_take *t = arg;
	const struct rlog_fsm *fsm = t->rio->config.fsm;
	int rc = t->begin_rc;

	if (!rc)
		rc = fsm->snapshot_next(t->rio->config.fsm_arg, &t->chunk, &t->last);
	if (rc) {
		t->rc = rv_error_set(&t->error, rc, "the database could not be encoded");
		take_fail(t);
		t->work_cb(t->work, rio_raft_error(rc));
		rio_touched(t->rio);
		return;
	}
	if (t->last || buf_len(&t->chunk) >= t->rio->config.chunk_bytes)
		take_submit(t);
	else
		defer_start(&t->step);
}

int rio_async_work(
	struct raft_io *io, struct raft_io_async_work *req, raft_io_async_work_cb cb)
{
	struct rio *rio = RIO_OF(io);
	struct rio_take *t = &rio->take;

	t->state = TAKE_ENCODE;
	t->work = req;
	t->work_cb = cb;
	t->begin = true;
	t->last = false;
	t->log_bytes = rio->stats.log_bytes;
	return 0;
}

void rio_take_begin(struct rio *rio, int rc)
{
	rio->take.begin_rc = rc;
	if (rio->take.state == TAKE_ENCODE)
		defer_start(&rio->take.step);
}

static void take_commit(struct rio *rio, struct raft_io_snapshot_put *req,
	const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
	struct rio_take *t = &rio->take;

	t->state = TAKE_COMMIT;
	t->put = req;
	t->put_cb = cb;
	t->meta = snapshot;
	take_submit(t);
}

/* --- another's --- */

static void install_run(struct job *job)
{
	struct rio_install *in = CONTAINER_OF(job, struct rio_install, job);
	const struct raft_buffer *data = &in->snapshot->bufs[0];
	struct snapfile_writer w = {0};
	size_t at = 0;

	rv_error_clear(&in->error);
	in->rc = snapfile_begin(&w, in->rio->config.disk, &in->error);
	while (!in->rc && at < data->len) {
		size_t n = data->len - at;

		if (n > SNAPFILE_CHUNK)
			n = SNAPFILE_CHUNK;
		in->rc = snapfile_chunk(&w, (uint8_t *)data->base + at, n, &in->error);
		at += n;
	}
	if (!in->rc)
		in->rc = snapfile_commit(
			&w, in->snapshot, &in->older, &in->kept, &in->error);
	snapfile_abort(&w);
}

static void install_done(struct job *job, int rc)
{
	struct rio_install *in = CONTAINER_OF(job, struct rio_install, job);
	struct rio *rio = in->rio;
	struct rio_op reset = {.kind = RIO_RESET, .index = in->snapshot->index + 1};

	in->running = false;
	if (rc)
		in->rc = rv_error_set(&in->error, rc, "the disk was closed");
	if (!in->rc && !rio->closing && rio_push(rio, &reset))
		in->rc = rv_error_set(&in->error, RV_ENOMEM, "out of memory");
	if (in->rc)
		rio_fail(rio, in->rc, &in->error);
	rio_close_step(rio);
}

/* The last step: libraft goes on from the snapshot. */
void rio_install_reset_done(struct rio *rio)
{
	struct rio_install *in = &rio->install;
	struct raft_io_snapshot_put *put = in->put;

	if (!put)
		return;
	rio->next = in->snapshot->index + 1;
	tail_reset(&rio->tail, rio->next);
	rio->term_count = 0;
	rio->stats.log_bytes = 0;
	if (!rio_note_term(rio, in->snapshot->index, in->snapshot->term)) {
		rio_fail(rio, rv_error_set(&in->error, RV_ENOMEM, "out of memory"),
			&in->error);
		return;
	}
	took_snapshot(rio, in->snapshot->index, 0, in->kept);
	in->put = NULL;
	in->put_cb(put, 0);
	rio_touched(rio);
	rio_release_soon(rio);
}

/* The state is built aside; now the disk. */
static void install_restored(void *arg, int rc, const struct rv_error *e)
{
	struct rio_install *in = arg;

	if (rc) {
		rio_fail(in->rio, rc, e);
		return;
	}
	in->job = (struct job){.run = install_run,
		.done = install_done,
		.name = "pool.snapshot.install"};
	in->running = true;
	if (disk_submit(in->rio->config.disk, DISK_LANE_BULK, &in->job))
		install_done(&in->job, RV_ELIMIT);
}

bool rio_commit_install(
	struct rio *rio, uint64_t applied, uint64_t *index, uint64_t *term)
{
	struct restore *r = &rio->install.restore;

	*index = rio->stats.snapshot_index;
	*term = rio_term_at(rio, *index);
	if (!r->begun)
		return false;
	if (*index <= applied) { /* brought along from before this life */
		restore_cancel(r);
		return false;
	}
	restore_commit(r, *index, *term);
	return true;
}

int rio_snapshot_put(struct raft_io *io, unsigned trailing,
	struct raft_io_snapshot_put *req, const struct raft_snapshot *snapshot,
	raft_io_snapshot_put_cb cb)
{
	struct rio *rio = RIO_OF(io);
	struct rio_install *in = &rio->install;

	(void)trailing;
	req->cb = cb;
	if (rio->take.state == TAKE_ENCODED) {
		take_commit(rio, req, snapshot, cb);
		return 0;
	}
	if (rio->receiving && rio->reach > rio->verified)
		rio->verified = rio->reach;
	in->put = req;
	in->put_cb = cb;
	in->snapshot = snapshot;
	restore_start(&in->restore, rio->config.loop, rio->config.fsm,
		rio->config.fsm_arg, NULL, snapshot->bufs[0].base, snapshot->bufs[0].len,
		install_restored, in);
	return 0;
}

/* --- for a follower --- */

static int get_fill(struct rio_get *g)
{
	struct raft_snapshot *s = raft_calloc(1, sizeof *s);
	const uint8_t *chunk;
	size_t at = 0, len, to = 0;

	g->snapshot = s;
	if (!s)
		return RV_ENOMEM;
	s->index = g->file.index;
	s->term = g->file.term;
	s->configuration_index = g->file.conf_index;
	s->bufs = raft_calloc(1, sizeof *s->bufs);
	if (!s->bufs)
		return RV_ENOMEM;
	s->n_bufs = 1;
	s->bufs[0].len = g->file.data_bytes;
	s->bufs[0].base = raft_malloc(g->file.data_bytes + 1);
	if (!s->bufs[0].base)
		return RV_ENOMEM;
	while (snapfile_next(&g->file, &at, &chunk, &len)) {
		memcpy((uint8_t *)s->bufs[0].base + to, chunk, len);
		to += len;
	}
	return raft_conf_copy(&g->file.conf, &s->configuration);
}

static void get_run(struct job *job)
{
	struct rio_get *g = CONTAINER_OF(job, struct rio_get, job);
	char name[DISK_NAME_MAX];
	unsigned healed = 0;

	g->rc = snapfile_read(&g->file, g->rio->config.disk,
		snapfile_name(name, g->index), &healed, &g->error);
	if (!g->rc)
		g->rc = get_fill(g);
}

static void get_free_snapshot(struct raft_snapshot *s)
{
	if (!s)
		return;
	if (s->bufs)
		raft_free(s->bufs[0].base);
	raft_free(s->bufs);
	raft_configuration_close(&s->configuration);
	raft_free(s);
}

static void get_done(struct job *job, int rc)
{
	struct rio_get *g = CONTAINER_OF(job, struct rio_get, job);
	struct rio *rio = g->rio;

	list_remove(&g->node);
	snapfile_fini(&g->file);
	if (rc)
		g->rc = rc;
	if (g->rc) {
		get_free_snapshot(g->snapshot);
		g->snapshot = NULL;
		log_warn("pool.log", "msg=\"no snapshot to send: %s\"", g->error.detail);
	}
	g->cb(g->req, g->snapshot, rio_raft_error(g->rc));
	free(g);
	rio_close_step(rio);
}

int rio_snapshot_get(
	struct raft_io *io, struct raft_io_snapshot_get *req, raft_io_snapshot_get_cb cb)
{
	struct rio *rio = RIO_OF(io);
	struct rio_get *g = calloc(1, sizeof *g);

	if (!g)
		return RAFT_NOMEM;
	g->rio = rio;
	g->req = req;
	g->cb = cb;
	g->index = rio->stats.snapshot_index;
	g->job = (struct job){
		.run = get_run, .done = get_done, .name = "pool.snapshot.read"};
	if (disk_submit(rio->config.disk, DISK_LANE_BULK, &g->job)) {
		free(g);
		return RAFT_BUSY;
	}
	list_push_back(&rio->gets, &g->node);
	req->cb = cb;
	return 0;
}

/* --- opening and closing --- */

void rio_snapshot_init(struct rio *rio)
{
	rio->take.rio = rio->install.rio = rio;
	buf_init(&rio->take.chunk, 64 << 20);
	defer_init(&rio->take.step, rio->config.loop, "pool.snapshot.slice", take_step,
		&rio->take);
	list_init(&rio->gets);
}

bool rio_snapshot_running(const struct rio *rio)
{
	return rio->take.running || rio->install.running || !list_empty(&rio->gets);
}

void rio_snapshot_end(struct rio *rio)
{
	struct rio_take *t = &rio->take;
	struct rio_install *in = &rio->install;
	enum take_state state = t->state;

	defer_stop(&t->step);
	snapfile_abort(&t->writer);
	t->state = TAKE_IDLE;
	if (state == TAKE_ENCODE)
		t->work_cb(t->work, RAFT_CANCELED);
	else if (state == TAKE_COMMIT)
		t->put_cb(t->put, RAFT_CANCELED);
	restore_cancel(&in->restore);
	if (in->put) {
		struct raft_io_snapshot_put *put = in->put;
		struct raft_buffer *bufs = in->snapshot->bufs;

		in->put = NULL;
		in->put_cb(put, RAFT_CANCELED);
#ifndef RAFT_VERSION_NUMBER /* 0.15 forgets it */
		raft_free(bufs);
#else
		(void)bufs;
#endif
	}
}

void rio_snapshot_fini(struct rio *rio)
{
	defer_stop(&rio->take.step);
	restore_cancel(&rio->install.restore);
	snapfile_abort(&rio->take.writer);
	buf_fini(&rio->take.chunk);
}
