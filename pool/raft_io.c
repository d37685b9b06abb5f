#include "pool/raft_io.h"

#include <stdio.h>
#include <stdlib.h>

#include "pool/raft_io_internal.h"
#include "pool/raft_message.h"

struct raft *rio_raft(struct rio *rio)
{
	return rio->io.data;
}

int rio_raft_error(int rc)
{
	switch (rc) {
	case 0:
		return 0;
	case RV_ENOMEM:
		return RAFT_NOMEM;
	case RV_ESPACE:
		return RAFT_NOSPACE;
	case RV_ECORRUPT:
		return RAFT_CORRUPT;
	case RV_ECANCELLED:
		return RAFT_CANCELED;
	default:
		return RAFT_IOERR;
	}
}

void rio_touched(struct rio *rio)
{
	rio->config.touched(rio->config.arg);
}

/* --- failure --- */

static void rio_tell_failed(void *arg)
{
	struct rio *rio = arg;

	rio->config.failed(rio->config.arg, rio->error.code, &rio->error);
}

void rio_fail(struct rio *rio, int rc, const struct rv_error *e)
{
	if (rio->failed)
		return;
	rio->failed = true;
	rio->error = *e;
	rio->error.code = rc;
	snprintf(rio->io.errmsg, sizeof rio->io.errmsg, "%.*s",
		(int)sizeof rio->io.errmsg - 1, e->detail);
	timer_stop(&rio->tick);
	timer_stop(&rio->idle);
	timer_stop(&rio->retry);
	if (!rio->closing)
		defer_start(&rio->tell_failed);
}

/* --- terms, votes, time --- */

/* After a failed write libraft is told that all is well: it would free garbage on its way
 * out of an election. Nothing it does from here on leaves this process: sends are
 * dropped, no tick or message comes in, and the owner closes it. */
static int rio_write_meta(struct rio *rio, const struct slots *meta)
{
	struct slots next = *meta;
	struct rv_error e = {0};
	int rc;

	if (rio->failed)
		return 0;
	rc = slots_write_both(
		rio->meta_file, FRAME_META, &next, rio->config.meta_first, &e);
	if (rc) {
		rio_fail(rio, rc, &e);
		return 0;
	}
	rio->meta = next;
	rio->stats.term = next.term;
	return 0;
}

static int rio_set_term(struct raft_io *io, raft_term term)
{
	struct slots meta = RIO_OF(io)->meta;

	meta.term = term;
	meta.value = 0;
	RIO_OF(io)->verified = 0; /* another leader */
	rio_hear_no_more(RIO_OF(io));
	return rio_write_meta(RIO_OF(io), &meta);
}

static int rio_set_vote(struct raft_io *io, raft_id id)
{
	struct slots meta = RIO_OF(io)->meta;

	meta.value = id;
	return rio_write_meta(RIO_OF(io), &meta);
}

static raft_time rio_time(struct raft_io *io)
{
	return (raft_time)(loop_now_us(RIO_OF(io)->config.loop) / 1000);
}

static int rio_random(struct raft_io *io, int min, int max)
{
	return (int)prng_range(loop_prng(RIO_OF(io)->config.loop), min, max);
}

/* --- opening and closing --- */

static int rio_init(struct raft_io *io, raft_id id, const char *address)
{
	(void)io;
	(void)id;
	(void)address;
	return 0;
}

/* libraft's own form of the snapshot; the data itself went to the fsm already. */
static struct raft_snapshot *load_snapshot(struct rio *rio)
{
	struct snapfile *file = &rio->recovered.snapshot;
	struct raft_snapshot *s = raft_calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->bufs = raft_calloc(1, sizeof *s->bufs);
	if (s->bufs)
		s->bufs[0].base = raft_malloc(1);
	if (!s->bufs || !s->bufs[0].base) {
		raft_free(s->bufs);
		raft_free(s);
		return NULL;
	}
	s->bufs[0].len = 1;
	s->n_bufs = 1;
	s->index = file->index;
	s->term = file->term;
	s->configuration = file->conf;
	s->configuration_index = file->conf_index;
	raft_configuration_init(&file->conf);
	return s;
}

static int rio_load(struct raft_io *io, raft_term *term, raft_id *voted_for,
	struct raft_snapshot **snapshot, raft_index *start_index,
	struct raft_entry *entries[], size_t *n_entries)
{
	struct rio *rio = RIO_OF(io);
	struct recovered *r = &rio->recovered;

	*term = rio->meta.term;
	*voted_for = rio->meta.value;
	*snapshot = NULL;
	if (r->has_snapshot) {
		*snapshot = load_snapshot(rio);
		if (!*snapshot)
			return RAFT_NOMEM;
	}
	*start_index = r->start_index;
	*entries = r->entries;
	*n_entries = r->count;
	r->entries = NULL;
	r->count = 0;
	snapfile_fini(&r->snapshot);
	return 0;
}

static int rio_start(
	struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
	struct rio *rio = RIO_OF(io);
	struct rlog_transport *t = rio->config.transport;

	rio->tick_ms = msecs;
	rio->tick_cb = tick;
	rio->recv_cb = recv;
	rio_start_clock(rio);
	if (t)
		t->ops->set_receiver(t, rio_deliver, rio);
	rio->prepare_due = true;
	rio_pump(rio);
	return 0;
}

/* The first configuration is written by recover(), before libraft sees the disk. */
static int rio_bootstrap(struct raft_io *io, const struct raft_configuration *conf)
{
	(void)io;
	(void)conf;
	return RAFT_CANTBOOTSTRAP;
}

/* Emergency transition makes a new generation with an empty log instead. */
static int rio_recover(struct raft_io *io, const struct raft_configuration *conf)
{
	(void)io;
	(void)conf;
	return RAFT_INVALID;
}

/* libraft is unavailable now: it takes its memory back and does nothing else. Status 0,
 * since a failed append would have it cut its log again for each one. */
static void close_ops(struct rio_ops *ops)
{
	while (!rio_ops_empty(ops)) {
		struct rio_op op = ops->at[ops->start++];

		if (op.kind == RIO_APPEND)
			op.cb(op.req, 0);
	}
}

static void rio_closed(void *arg)
{
	struct rio *rio = arg;

	rio->over = true;
	close_ops(&rio->done);
	close_ops(&rio->ops);
	rio_snapshot_end(rio);
	rio_sent(rio);
	rio_drop_held(rio);
	rio_drop_letters(rio);
	rio->close_cb(&rio->io);
}

void rio_close_step(struct rio *rio)
{
	if (!rio->closing || rio->over || rio->job_running || rio_snapshot_running(rio))
		return;
	if (rio->failed && !rio->cut_tried && !rio->abandoned) {
		rio->cut_tried = true;
		rio_cut_tail(rio);
		if (rio->job_running)
			return;
	}
	if (rio->abandoned)
		rio_closed(rio);
	else
		defer_start(&rio->closed);
}

static void rio_close(struct raft_io *io, raft_io_close_cb cb)
{
	struct rio *rio = RIO_OF(io);
	struct rlog_transport *t = rio->config.transport;

	rio->closing = true;
	rio->close_cb = cb;
	if (t)
		t->ops->set_receiver(t, NULL, NULL);
	timer_stop(&rio->tick);
	timer_stop(&rio->idle);
	timer_stop(&rio->retry);
	defer_stop(&rio->finish);
	defer_stop(&rio->sent);
	defer_stop(&rio->release);
	defer_stop(&rio->tell_failed);
	rio_close_step(rio);
}

void rio_abandon(struct rio *rio)
{
	rio->abandoned = true;
	rio_close_step(rio);
}

static void rio_methods(struct rio *rio)
{
	rio->io = (struct raft_io){
		.version = 2,
		.impl = rio,
		.init = rio_init,
		.close = rio_close,
		.load = rio_load,
		.start = rio_start,
		.bootstrap = rio_bootstrap,
		.recover = rio_recover,
		.set_term = rio_set_term,
		.set_vote = rio_set_vote,
		.send = rio_send,
		.append = rio_append,
		.truncate = rio_truncate,
		.snapshot_put = rio_snapshot_put,
		.snapshot_get = rio_snapshot_get,
		.time = rio_time,
		.random = rio_random,
		.async_work = rio_async_work,
	};
}

static int rio_take_recovered(struct rio *rio, struct recovered *r)
{
	struct loop *l = rio->config.loop;
	bool ok = true;

	rio->recovered = *r;
	rio->segments = r->segments;
	*r = (struct recovered){0};
	rio->recovered.segments = (struct segments){0};
	r = &rio->recovered;
	rio->meta = r->meta;
	rio->next = rio->segments.next;
	tail_init(&rio->tail, rio->next);
	rio->stats.term = r->meta.term;
	rio->stats.synced = rio->next - 1;
	rio->stats.disk_bytes = segments_bytes(&rio->segments) + r->snapshot_bytes;
	rio->stats.snapshot_index = r->has_snapshot ? r->snapshot.index : 0;
	rio->stats.snapshot_us = loop_now_us(l);
	if (r->has_snapshot)
		ok = rio_note_term(rio, r->snapshot.index, r->snapshot.term);
	if (r->count > 0 && r->start_index <= rio->stats.snapshot_index)
		rio->term_count = 0; /* the entries tell from further back */
	for (size_t i = 0; i < r->count && ok; i++) {
		ok = rio_note_term(rio, r->start_index + i, r->entries[i].term);
		if (r->start_index + i > rio->stats.snapshot_index)
			rio->stats.log_bytes += FRAME_HEAD_SIZE + r->entries[i].buf.len;
	}
	return ok ? rio_load_conf(rio, r) : RV_ENOMEM;
}

int rio_new(struct rio **out, const struct rio_config *config, struct recovered *r)
{
	struct rio *rio = calloc(1, sizeof *rio);
	struct loop *l = config->loop;
	struct rv_error e;
	int rc;

	if (!rio)
		return RV_ENOMEM;
	rio->config = *config;
	rio_methods(rio);
	timer_init(&rio->tick, l, "pool.raft.tick", rio_tick, rio);
	timer_init(&rio->idle, l, "pool.log.idle", rio_idle, rio);
	timer_init(&rio->retry, l, "pool.log.retry", rio_retry, rio);
	defer_init(&rio->finish, l, "pool.raft.appended", rio_finish, rio);
	defer_init(&rio->sent, l, "pool.raft.sent", rio_sent, rio);
	defer_init(&rio->release, l, "pool.raft.release", rio_release, rio);
	defer_init(&rio->tell_failed, l, "pool.log.failed", rio_tell_failed, rio);
	defer_init(&rio->closed, l, "pool.raft.closed", rio_closed, rio);
	list_init(&rio->sends);
	list_init(&rio->letters);
	list_init(&rio->held);
	buf_init(&rio->out, RAFT_MESSAGE_MAX);
	rio_snapshot_init(rio);
	rc = rio_take_recovered(rio, r);
	if (!rc)
		rc = disk_open(config->disk, SEGMENTS_META, &rio->meta_file, &e);
	if (rc) {
		rio_free(rio);
		return rc;
	}
	*out = rio;
	return 0;
}

void rio_free(struct rio *rio)
{
	if (!rio)
		return;
	timer_stop(&rio->tick);
	timer_stop(&rio->idle);
	timer_stop(&rio->retry);
	defer_stop(&rio->finish);
	defer_stop(&rio->sent);
	defer_stop(&rio->release);
	defer_stop(&rio->tell_failed);
	defer_stop(&rio->closed);
	rio_snapshot_fini(rio);
	recovered_fini(&rio->recovered);
	segments_fini(&rio->segments);
	disk_close(rio->meta_file);
	buf_fini(&rio->out);
	free(rio->ops.at);
	free(rio->done.at);
	free(rio->job.batches);
	free(rio->terms);
	tail_fini(&rio->tail);
	rio_conf_fini(rio);
	free(rio);
}

struct raft_io *rio_raft_io(struct rio *rio)
{
	return &rio->io;
}

const struct tail_entry *rio_tail_entry(const struct rio *rio, uint64_t index)
{
	return tail_get(&rio->tail, index);
}

void rio_stats(const struct rio *rio, struct rio_stats *out)
{
	*out = rio->stats;
	out->taking = rio->take.state != TAKE_IDLE;
}
