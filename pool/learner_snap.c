/* Snapshots of a learner: its own, so that its log stays short, and a voter's. */
#include "pool/learner.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "pool/learner_internal.h"
#include "pool/raft_conf.h"
#include "pool/restore.h"

enum { TAKE_RETRY_US = 30 * 1000000 };

/* --- its own --- */

static void take_end(struct learner_take *t)
{
	struct learner *l = t->learner;

	defer_stop(&t->step);
	if (t->begun)
		l->config.fsm->snapshot_end(l->config.fsm_arg);
	snapfile_abort(&t->writer);
	raft_configuration_close(&t->meta.configuration);
	raft_configuration_init(&t->meta.configuration);
	buf_consume(&t->chunk, buf_len(&t->chunk));
	t->active = t->begun = t->commit = t->cancel = t->file = false;
}

static void take_failed(struct learner_take *t, int rc)
{
	struct learner *l = t->learner;

	if (!t->cancel && !l->closing)
		log_warn("pool.learner", "msg=\"no snapshot could be made: %s\"",
			t->error.code ? t->error.detail : rv_error_text(rc));
	t->failed_us = loop_now_us(l->loop);
	take_end(t);
	/* Without it nothing of the state is on disk: only opening anew can tell more. */
	if (l->save_first && !l->closing)
		learner_fail(l, rc, &t->error);
}

static void take_run(struct job *job)
{
	struct learner_take *t = CONTAINER_OF(job, struct learner_take, job);

	t->rc = 0;
	rv_error_clear(&t->error);
	if (t->commit) {
		t->rc = snapfile_commit(
			&t->writer, &t->meta, &t->older, &t->kept, &t->error);
		return;
	}
	if (!t->file)
		t->rc = snapfile_begin(&t->writer, t->learner->config.disk, &t->error);
	t->file = !t->rc;
	if (!t->rc && buf_len(&t->chunk) > 0)
		t->rc = snapfile_chunk(
			&t->writer, buf_data(&t->chunk), buf_len(&t->chunk), &t->error);
}

static void take_good(struct learner_take *t)
{
	struct learner *l = t->learner;

	log_info("pool.learner", "index=%llu bytes=%" PRIu64 " msg=\"snapshot made\"",
		t->meta.index, t->writer.offset);
	l->snapshot_index = t->meta.index;
	l->snapshot_us = loop_now_us(l->loop);
	l->snapshot_bytes = t->kept;
	l->log_bytes -= t->log_bytes < l->log_bytes ? t->log_bytes : l->log_bytes;
	l->save_first = false;
	if (t->older)
		l->prune_to = t->older;
	take_end(t);
	learner_pump(l);
	learner_touched(l);
}

static void take_submit(struct learner_take *t);

static void take_done(struct job *job, int rc)
{
	struct learner_take *t = CONTAINER_OF(job, struct learner_take, job);
	struct learner *l = t->learner;

	t->running = false;
	if (l->abandoned)
		return;
	if (rc)
		t->rc = rv_error_set(&t->error, rc, "the disk was closed");
	buf_consume(&t->chunk, buf_len(&t->chunk));
	if (t->rc || (t->cancel && !t->commit)) {
		take_failed(t, t->rc);
	} else if (t->commit) {
		take_good(t);
	} else if (t->last) {
		t->commit = true;
		take_submit(t);
	} else {
		defer_start(&t->step);
	}
	learner_pump(l);
	learner_close_step(l);
}

static void take_submit(struct learner_take *t)
{
	t->job = (struct job){
		.run = take_run, .done = take_done, .name = "pool.snapshot.write"};
	t->running = true;
	if (disk_submit(t->learner->config.disk, DISK_LANE_BULK, &t->job))
		take_done(&t->job, RV_ELIMIT);
}

/* One slice of the encoder; a full chunk goes to disk. */
static void take_step(void *arg)
{
	struct learner_take *t = arg;
	struct learner *l = t->learner;
	int rc = l->config.fsm->snapshot_next(l->config.fsm_arg, &t->chunk, &t->last);

	if (rc)
		take_failed(t,
			rv_error_set(&t->error, rc, "the database could not be encoded"));
	else if (t->last || buf_len(&t->chunk) >= l->config.log->chunk_bytes)
		take_submit(t);
	else
		defer_start(&t->step);
}

static void take_begin(struct learner *l)
{
	struct learner_take *t = &l->take;
	int rc = l->config.fsm->snapshot_begin(l->config.fsm_arg);

	l->snapshot_asked = false;
	t->active = true;
	t->begun = !rc;
	t->last = false;
	rv_error_clear(&t->error);
	if (!rc)
		rc = raft_conf_copy(&l->conf, &t->meta.configuration);
	t->meta.index = l->applied_index;
	t->meta.term = l->applied_term;
	t->meta.configuration_index = l->conf_index;
	t->log_bytes = l->log_bytes;
	if (rc)
		take_failed(t, rc);
	else
		defer_start(&t->step);
}

void learner_take_cancel(struct learner *l)
{
	struct learner_take *t = &l->take;

	if (!t->active)
		return;
	t->cancel = true;
	if (!t->running)
		take_failed(t, RV_ECANCELLED);
}

void learner_snapshot_check(struct learner *l)
{
	struct learner_take *t = &l->take;
	const struct rlog_config *c = l->config.log;
	uint64_t entries = l->applied_index - l->snapshot_index;
	bool due = entries >= c->snapshot_entries || l->log_bytes >= c->snapshot_bytes;

	if (!l->open || t->active || l->install.state != INSTALL_IDLE || l->closing ||
		l->failed || l->stuck || l->discard)
		return;
	if (t->failed_us && loop_now_us(l->loop) - t->failed_us < TAKE_RETRY_US)
		due = false;
	if (l->save_first ||
		(l->applied_index > l->snapshot_index && (due || l->snapshot_asked)))
		take_begin(l);
}

void learner_snapshot(struct learner *l)
{
	l->snapshot_asked = true;
	learner_snapshot_check(l);
}

/* --- a voter's --- */

static void install_fail(struct learner_install *in, int rc, const char *why);
static void install_submit(struct learner_install *in);

static struct learner_item *head_of(const struct learner *l)
{
	return CONTAINER_OF(l->waiting.next, struct learner_item, node);
}

static void install_end(struct learner_install *in)
{
	struct learner *l = in->learner;

	defer_stop(&in->step);
	if (in->decoding)
		l->config.fsm->restore_end(l->config.fsm_arg, false, 0, 0);
	snapfile_abort(&in->writer);
	raft_configuration_close(&in->meta.configuration);
	raft_configuration_init(&in->meta.configuration);
	if (in->item)
		learner_item_free(l, in->item);
	in->item = NULL;
	in->decoding = in->cancel = in->file = false;
	in->state = INSTALL_IDLE;
	learner_touched(l);
}

static void install_fail(struct learner_install *in, int rc, const char *why)
{
	struct learner *l = in->learner;

	log_warn("pool.learner", "error=%s msg=\"%s\"", rv_error_symbol(rc), why);
	l->refused++;
	install_end(in);
	learner_lose(l, why);
}

void learner_install_cancel(struct learner *l)
{
	struct learner_install *in = &l->install;

	if (in->state == INSTALL_IDLE || in->state >= INSTALL_COMMIT)
		return;
	/* A job at work ends it. */
	in->cancel = true;
	if (!in->running && in->state != INSTALL_WIPE)
		install_end(in);
}

/* What is on disk must not be newer than what comes: files are judged by their index. */
static void install_begin(struct learner *l)
{
	struct learner_install *in = &l->install;
	struct learner_item *item = head_of(l);
	bool older = item->m.index <= l->written_index || l->discard;
	int rc;

	if (l->take.active) {
		learner_take_cancel(l);
		if (l->take.active)
			return; /* its end has us called again */
	}
	log_info("pool.learner", "index=%" PRIu64 " bytes=%" PRIu64 " msg=\"%s\"",
		item->m.index, item->m.total,
		older ? "taking a snapshot instead of what is here"
		      : "taking a snapshot: too far behind for entries");
	in->total = item->m.total;
	in->bytes = 0;
	in->meta.index = item->m.index;
	in->meta.term = item->m.entry_term;
	in->meta.configuration_index = item->m.conf_index;
	in->state = INSTALL_DATA;
	rc = raft_conf_decode(item->m.conf, item->m.conf_len, &in->meta.configuration);
	if (!rc)
		rc = l->config.fsm->restore_begin(l->config.fsm_arg);
	in->decoding = !rc;
	learner_item_free(l, item);
	if (rc) {
		install_fail(in, rc, "its snapshot can't be taken in");
		return;
	}
	if (older) {
		/* Until it is whole there is nothing here to go on from. */
		l->discard = true;
		in->state = INSTALL_WIPE;
		learner_write_job(l, LEARNER_WIPE, 0, 0);
		return;
	}
	learner_pump(l);
}

void learner_install_wiped(struct learner *l)
{
	struct learner_install *in = &l->install;

	l->written_index = l->written_term = 0;
	l->snapshot_index = l->snapshot_bytes = l->log_bytes = 0;
	if (in->cancel)
		install_end(in);
	else
		in->state = INSTALL_DATA; /* the pump goes on */
}

/* The next message of the snapshot. */
void learner_install_next(struct learner *l)
{
	struct learner_install *in = &l->install;
	struct learner_item *item = head_of(l);

	if (in->state == INSTALL_IDLE) {
		/* Order is checked when they arrive: this is a BEGIN. */
		install_begin(l);
		return;
	}
	if (item->m.kind == FEED_SNAP_DATA) {
		list_remove(&item->node);
		in->item = item;
		in->at = 0;
		in->bytes += item->m.chunk_len;
		in->state = INSTALL_DECODE;
	} else {
		learner_item_free(l, item);
		in->state = INSTALL_FINISH;
	}
	if (in->bytes > in->total ||
		(in->state == INSTALL_FINISH && in->bytes < in->total))
		install_fail(in, RV_EPROTO, "its snapshot is not as long as it said");
	else
		defer_start(&in->step);
}

static void install_run(struct job *job)
{
	struct learner_install *in = CONTAINER_OF(job, struct learner_install, job);

	in->rc = 0;
	rv_error_clear(&in->error);
	if (!in->file)
		in->rc =
			snapfile_begin(&in->writer, in->learner->config.disk, &in->error);
	in->file = !in->rc;
	if (!in->rc && in->state == INSTALL_COMMIT)
		in->rc = snapfile_commit(
			&in->writer, &in->meta, &in->older, &in->kept, &in->error);
	else if (!in->rc)
		in->rc = snapfile_chunk(&in->writer, in->item->m.chunk,
			in->item->m.chunk_len, &in->error);
}

static void install_done(struct job *job, int rc)
{
	struct learner_install *in = CONTAINER_OF(job, struct learner_install, job);
	struct learner *l = in->learner;

	in->running = false;
	if (l->abandoned)
		return;
	if (rc)
		in->rc = rv_error_set(&in->error, rc, "the disk was closed");
	if (in->rc) {
		install_end(in);
		learner_fail(l, in->rc, &in->error);
	} else if (in->cancel) {
		install_end(in);
	} else if (in->state == INSTALL_COMMIT) {
		in->state = INSTALL_RESET;
		learner_write_job(l, LEARNER_RESET, in->meta.index, in->meta.term);
	} else {
		learner_item_free(l, in->item);
		in->item = NULL;
		in->state = INSTALL_DATA;
		learner_pump(l);
	}
	learner_close_step(l);
}

static void install_submit(struct learner_install *in)
{
	in->job = (struct job){.run = install_run,
		.done = install_done,
		.name = "pool.snapshot.install"};
	in->running = true;
	if (disk_submit(in->learner->config.disk, DISK_LANE_BULK, &in->job))
		install_done(&in->job, RV_ELIMIT);
}

static int decode_slice(struct learner_install *in)
{
	struct learner *l = in->learner;
	size_t n = in->item->m.chunk_len - in->at;

	if (n > RESTORE_SLICE)
		n = RESTORE_SLICE;
	in->at += n;
	return l->config.fsm->restore_next(
		l->config.fsm_arg, in->item->m.chunk + in->at - n, n, &in->error);
}

static void install_step(void *arg)
{
	struct learner_install *in = arg;
	struct learner *l = in->learner;
	int rc;

	rv_error_clear(&in->error);
	if (in->state == INSTALL_DECODE) {
		rc = decode_slice(in);
		if (!rc && in->at == in->item->m.chunk_len) {
			in->state = INSTALL_WRITE;
			install_submit(in);
			return;
		}
	} else {
		rc = l->config.fsm->restore_finish(l->config.fsm_arg, &in->error);
		if (!rc) {
			in->state = INSTALL_COMMIT;
			install_submit(in);
			return;
		}
		rc = rc == RV_EAGAIN ? 0 : rc;
	}
	if (rc)
		install_fail(in, rc, "its snapshot is not sound");
	else
		defer_start(&in->step);
}

/* File and log are as they must be: now the state. */
void learner_install_reset(struct learner *l)
{
	struct learner_install *in = &l->install;

	l->applied_index = in->meta.index;
	l->applied_term = in->meta.term;
	l->snapshot_index = in->meta.index;
	l->snapshot_us = loop_now_us(l->loop);
	l->snapshot_bytes = in->kept;
	l->log_bytes = 0;
	l->prune_to = 0;
	l->installs++;
	l->discard = false;
	raft_configuration_close(&l->conf);
	l->conf = in->meta.configuration;
	l->conf_index = in->meta.configuration_index;
	raft_configuration_init(&in->meta.configuration);
	in->decoding = false;
	l->config.fsm->restore_end(
		l->config.fsm_arg, true, in->meta.index, in->meta.term);
	if (!l->session) {
		l->last_index = l->written_index;
		l->last_term = l->written_term;
	}
	log_info("pool.learner", "index=%llu msg=\"snapshot taken in\"", in->meta.index);
	install_end(in);
	defer_start(&l->ack);
}

/* --- the rest --- */

bool learner_snap_running(const struct learner *l)
{
	return l->take.running || l->install.running;
}

void learner_snap_init(struct learner *l)
{
	l->take.learner = l->install.learner = l;
	buf_init(&l->take.chunk, 64 << 20);
	raft_configuration_init(&l->take.meta.configuration);
	raft_configuration_init(&l->install.meta.configuration);
	defer_init(&l->take.step, l->loop, "pool.snapshot.slice", take_step, &l->take);
	defer_init(&l->install.step, l->loop, "pool.snapshot.take", install_step,
		&l->install);
}

void learner_snap_fini(struct learner *l)
{
	if (l->take.active)
		take_end(&l->take);
	if (l->install.state != INSTALL_IDLE)
		install_end(&l->install);
	buf_fini(&l->take.chunk);
}
