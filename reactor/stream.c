/*
 * The core of a stream: queues, callbacks, states. What moves the bytes is a backend.
 *
 * Everything the owner is told, it is told from stream_event, which descriptors, the
 * `soon` defer and timers lead to. Writes made inside the owner's callbacks are sent
 * together at the end of that event; others by `soon`, before the loop waits again.
 */
#include "reactor/stream.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reactor/loop_internal.h"
#include "reactor/stream_internal.h"

enum {
	STREAM_READ_MAX = 256 << 10,
	STREAM_HIGH_WATER = 1 << 20,
	STREAM_HANDSHAKE_MS = 10000,
	STREAM_FLUSH_MS = 10000, /* without any progress */
	STREAM_LINGER_MS = 1000,
	/* One event moves so much each way, or takes so long, before others' turn. */
	STREAM_EVENT_BYTES = 256 << 10,
	STREAM_EVENT_NS = 1000000,
	/* At least so much is written past the queue, to save copying it. */
	STREAM_DIRECT_MIN = 32 << 10,
	/* An empty queue gives larger memory back. */
	STREAM_KEEP_BYTES = 64 << 10,
};

static void stream_soon(void *arg);
static void stream_deadline(void *arg);

void stream_take_over(struct stream *s, const struct stream_config *config)
{
	assert(config->events && config->events->data && config->events->closed);
	s->events = config->events;
	s->arg = config->arg;
	s->name = config->name ? config->name : "stream";
	s->read_max = config->read_max ? config->read_max : STREAM_READ_MAX;
	/* What the former owner left is never more than it held. */
	if (s->read_max < buf_len(&s->in))
		s->read_max = buf_len(&s->in);
	s->in.cap = s->read_max;
	s->high_water =
		config->write_high_water ? config->write_high_water : STREAM_HIGH_WATER;
	s->low_water =
		config->write_low_water ? config->write_low_water : s->high_water / 4;
}

int stream_new(struct stream **out, struct loop *l, const struct stream_config *config,
	struct rv_error *e)
{
	struct stream *s = calloc(1, sizeof *s);

	*out = NULL;
	if (!l->scratch)
		l->scratch = malloc(LOOP_SCRATCH_BYTES);
	if (!s || !l->scratch) {
		free(s);
		return rv_error_set(e, RV_ENOMEM, "stream: out of memory");
	}
	s->loop = l;
	s->opened_us = loop_now_us(l);
	buf_init(&s->in, 0);
	stream_take_over(s, config);
	s->fd = -1;
	s->moved_at_us = -1;
	buf_init(&s->out, SIZE_MAX);
	defer_init(&s->soon, l, s->name, stream_soon, s);
	timer_init(&s->deadline, l, s->name, stream_deadline, s);
	timer_start_ms(&s->deadline, config->handshake_timeout_ms
					     ? config->handshake_timeout_ms
					     : STREAM_HANDSHAKE_MS);
	*out = s;
	return 0;
}

void stream_release(struct stream *s)
{
	timer_stop(&s->deadline);
	defer_stop(&s->soon);
	if (s->backend)
		s->backend->fini(s);
	buf_fini(&s->in);
	buf_fini(&s->out);
	free(s->over_detail);
	free(s->tls_peer);
	free(s);
}

void stream_free(struct stream *s)
{
	if (!s)
		return;
	assert(!s->freed);
	if (!s->busy) {
		stream_release(s);
		return;
	}
	/* The peer sees the end now, the memory goes when the event has returned. */
	s->freed = true;
	timer_stop(&s->deadline);
	defer_stop(&s->soon);
	s->backend->fini(s);
	s->backend = NULL;
}

/* --- the end --- */

static void stream_end(struct stream *s, int rc, const char *detail)
{
	if (s->state == STREAM_OVER)
		return;
	s->state = STREAM_OVER;
	s->over_rc = rc;
	if (asprintf(&s->over_detail, "%s: %s", s->peer, detail) < 0)
		s->over_detail = NULL;
	timer_stop(&s->deadline);
	s->backend->want(s, 0);
	if (!s->busy)
		defer_start(&s->soon);
}

static void stream_end_with(struct stream *s, const struct rv_error *e)
{
	stream_end(s, e->code, e->detail);
}

static void stream_deadline(void *arg)
{
	struct stream *s = arg;

	switch (s->state) {
	case STREAM_OPENING:
		stream_end(s, RV_ETIMEDOUT,
			s->connected ? "no TLS handshake in time"
				     : "no connection in time");
		break;
	case STREAM_LINGERING:
		stream_end(s, 0, "closed");
		break;
	default:
		stream_end(s, RV_ETIMEDOUT,
			"closed: the peer does not read what is left to send");
	}
	stream_event(s, 0);
}

/* --- writing --- */

size_t stream_queued(const struct stream *s)
{
	size_t unsent = s->backend->unsent ? s->backend->unsent(s) : 0;

	return buf_len(&s->out) + unsent;
}

/* What the backend takes of the pieces right now; *taken counts also on failure. */
static int write_direct(
	struct stream *s, const struct iovec *pieces, int count, size_t *taken)
{
	struct rv_error e;
	ssize_t n;

	/* Outside the stream's own events, each callback of the loop is one. */
	if (!s->busy && s->moved_at_us != s->loop->now_us) {
		s->moved_at_us = s->loop->now_us;
		s->moved = 0;
	}
	if (s->moved >= STREAM_EVENT_BYTES)
		return 0;
	n = s->backend->write(s, pieces, count, &e);
	if (n == RV_EAGAIN)
		return 0;
	if (n < 0) {
		stream_end_with(s, &e);
		return RV_ECLOSED;
	}
	s->moved += (size_t)n;
	*taken = (size_t)n;
	return 0;
}

static int queue_pieces(struct stream *s, const struct iovec *pieces, int count,
	size_t total, size_t skip)
{
	uint8_t *room;
	int rc = buf_reserve(&s->out, total - skip, &room);

	if (rc)
		return rc;
	for (int i = 0; i < count; i++) {
		const uint8_t *base = pieces[i].iov_base;
		size_t len = pieces[i].iov_len;

		if (skip >= len) {
			skip -= len;
			continue;
		}
		memcpy(room, base + skip, len - skip);
		room += len - skip;
		buf_commit(&s->out, len - skip);
		skip = 0;
	}
	return 0;
}

int stream_write(struct stream *s, const struct iovec *pieces, int count)
{
	size_t queued, total = 0, taken = 0;
	int rc;

	if (s->freed || s->state > STREAM_OPEN)
		return RV_ECLOSED;
	for (int i = 0; i < count; i++)
		total += pieces[i].iov_len;
	if (total == 0)
		return 0;
	queued = stream_queued(s);
	if (queued > 0 && (total > s->high_water || queued > s->high_water - total)) {
		s->refused = true;
		return RV_EAGAIN;
	}
	if (queued == 0 && total >= STREAM_DIRECT_MIN && s->state == STREAM_OPEN) {
		rc = write_direct(s, pieces, count, &taken);
		if (rc)
			return rc;
	}
	if (taken < total) {
		rc = queue_pieces(s, pieces, count, total, taken);
		/* Half a message is out: only an end keeps the framing true. */
		if (rc && taken) {
			stream_end(s, RV_ENOMEM, "out of memory for unsent bytes");
			return RV_ECLOSED;
		}
		if (rc)
			return rc;
	}
	if (stream_queued(s) >= s->low_water)
		s->above_low = true;
	if (!s->busy && stream_queued(s) > 0)
		defer_start(&s->soon);
	return 0;
}

/* Sends what is queued, as far as the peer and fairness allow. */
static void stream_flush(struct stream *s)
{
	size_t before = stream_queued(s);
	struct rv_error e;

	while (stream_queued(s) > 0 && s->moved < STREAM_EVENT_BYTES) {
		struct iovec piece = {buf_data(&s->out), buf_len(&s->out)};
		ssize_t n;

		if (piece.iov_len > STREAM_EVENT_BYTES)
			piece.iov_len = STREAM_EVENT_BYTES;
		n = s->backend->write(s, &piece, piece.iov_len > 0, &e);
		if (n == RV_EAGAIN)
			break;
		if (n < 0) {
			stream_end_with(s, &e);
			return;
		}
		buf_consume(&s->out, (size_t)n);
		s->moved += (size_t)n;
		if ((size_t)n < piece.iov_len)
			break;
	}
	if (stream_queued(s) < before && (s->state == STREAM_FLUSHING || s->eof))
		timer_start_ms(&s->deadline, STREAM_FLUSH_MS);
	if (buf_len(&s->out) == 0 && s->out.size > STREAM_KEEP_BYTES)
		buf_fini(&s->out);
}

/* True when the owner was told that there is room, and may have written again. */
static bool stream_tell_drained(struct stream *s)
{
	if (!s->refused && !s->above_low)
		return false;
	if (s->state != STREAM_OPEN || stream_queued(s) >= s->low_water)
		return false;
	s->refused = s->above_low = false;
	if (!s->events->drained)
		return false;
	s->events->drained(s->arg);
	return true;
}

/* --- reading --- */

static bool stream_reads(const struct stream *s)
{
	return !s->freed && !s->eof &&
	       (s->state == STREAM_LINGERING || s->state == STREAM_FLUSHING ||
		       (s->state == STREAM_OPEN && !s->paused &&
			       buf_len(&s->in) < s->read_max));
}

/* Offers bytes; those not consumed are kept. `data` is s->in's or the scratch's. */
static void stream_offer(struct stream *s, const uint8_t *data, size_t len)
{
	bool held = buf_len(&s->in) > 0;
	size_t used;

	if (s->state != STREAM_OPEN)
		return; /* after close_after_flush: dropped */
	used = s->events->data(s->arg, data, len);
	if (s->freed)
		return;
	assert(used <= len);
	if (s->state != STREAM_OPEN) {
		buf_fini(&s->in);
		return;
	}
	if (held)
		buf_consume(&s->in, used);
	else if (used < len && buf_append(&s->in, data + used, len - used) != 0)
		stream_end(s, RV_ENOMEM, "out of memory for received bytes");
	if (buf_len(&s->in) == 0 && s->in.size > STREAM_KEEP_BYTES)
		buf_fini(&s->in);
}

/* Reads once and offers; true when there may be more at once. */
static bool stream_read_once(struct stream *s, size_t *moved)
{
	size_t held = buf_len(&s->in), room = LOOP_SCRATCH_BYTES;
	uint8_t *data = s->loop->scratch;
	struct rv_error e;
	ssize_t n;

	if (s->state == STREAM_OPEN && room > s->read_max - held)
		room = s->read_max - held;
	if (held > 0 && buf_reserve(&s->in, room, &data) != 0) {
		stream_end(s, RV_ENOMEM, "out of memory for received bytes");
		return false;
	}
	n = s->backend->read(s, data, room, &e);
	if (n == RV_EAGAIN)
		return false;
	if (n < 0) {
		stream_end_with(s, &e);
		return false;
	}
	if (n == 0) {
		s->eof = true;
		return false;
	}
	*moved += (size_t)n;
	if (held > 0) {
		buf_commit(&s->in, (size_t)n);
		stream_offer(s, buf_data(&s->in), buf_len(&s->in));
	} else {
		stream_offer(s, data, (size_t)n);
	}
	if (s->freed)
		return false;
	return s->backend->pending ? s->backend->pending(s) : (size_t)n == room;
}

static void stream_pull(struct stream *s)
{
	int64_t end_ns = 0;
	size_t moved = 0;

	while (stream_reads(s)) {
		if (!stream_read_once(s, &moved))
			return;
		if (moved >= STREAM_EVENT_BYTES)
			break;
		if (!end_ns)
			end_ns = loop_clock_ns() + STREAM_EVENT_NS;
		else if (loop_clock_ns() > end_ns)
			break;
	}
	/* The descriptor does not say that the backend has more. */
	if (stream_reads(s) && s->backend->pending && s->backend->pending(s))
		defer_start(&s->soon);
}

/* --- events --- */

static void stream_try_open(struct stream *s)
{
	struct rv_error e;
	int rc = s->backend->open(s, &e);

	if (rc == RV_EAGAIN)
		return;
	if (rc) {
		stream_end_with(s, &e);
		return;
	}
	timer_stop(&s->deadline);
	s->state = STREAM_OPEN;
	if (s->events->ready)
		s->events->ready(s->arg);
}

static void stream_finish(struct stream *s)
{
	struct rv_error e;
	int rc = s->backend->finish(s, &e);

	if (rc == RV_EAGAIN)
		return;
	if (rc) {
		stream_end_with(s, &e);
		return;
	}
	s->state = STREAM_LINGERING;
	timer_start_ms(&s->deadline, STREAM_LINGER_MS);
}

/* A peer that ended its side still gets what was queued for it. */
static void stream_check_end(struct stream *s)
{
	if (s->state == STREAM_FLUSHING && stream_queued(s) == 0)
		stream_finish(s);
	if (!s->eof || s->state == STREAM_OVER)
		return;
	if (s->state == STREAM_OPEN && s->paused)
		return;
	if (s->state != STREAM_LINGERING && stream_queued(s) > 0) {
		if (!timer_active(&s->deadline))
			timer_start_ms(&s->deadline, STREAM_FLUSH_MS);
		return;
	}
	stream_end(s, 0, "closed by the peer");
}

static void stream_update_want(struct stream *s)
{
	int events = 0;

	if (s->state == STREAM_OPENING)
		events = s->open_want;
	else if (s->state != STREAM_OVER)
		events = (stream_reads(s) ? IO_READ : 0) |
			 (stream_queued(s) > 0 ? IO_WRITE : 0);
	s->backend->want(s, events);
}

static void stream_advance(struct stream *s, int events)
{
	if (s->state == STREAM_OPENING)
		stream_try_open(s);
	if (s->freed || s->state == STREAM_OPENING || s->state == STREAM_OVER)
		return;
	if (s->offer_soon) {
		s->offer_soon = false;
		if (buf_len(&s->in) > 0 && !s->paused)
			stream_offer(s, buf_data(&s->in), buf_len(&s->in));
		if (s->freed)
			return;
	}
	if ((events & IO_READ) || (s->backend->pending && s->backend->pending(s)))
		stream_pull(s);
	/* A bulk sender that always writes again waits for the next event. */
	for (int i = 0; i < 2 && !s->freed && s->state != STREAM_OVER; i++) {
		stream_flush(s);
		if (!stream_tell_drained(s))
			break;
	}
	if (!s->freed && s->state != STREAM_OVER)
		stream_check_end(s);
}

void stream_event(struct stream *s, int events)
{
	s->busy = true;
	s->moved = 0;
	if (s->state != STREAM_OVER)
		stream_advance(s, events);
	if (!s->freed && s->state == STREAM_OVER && !s->told) {
		s->told = true;
		s->events->closed(
			s->arg, s->over_rc, s->over_detail ? s->over_detail : s->peer);
	}
	s->busy = false;
	if (s->freed)
		stream_release(s);
	else
		stream_update_want(s);
}

static void stream_soon(void *arg)
{
	stream_event(arg, 0);
}

/* --- the owner's side --- */

void stream_close_after_flush(struct stream *s)
{
	if (s->freed || s->state == STREAM_OVER || s->state >= STREAM_FLUSHING)
		return;
	if (s->state == STREAM_OPENING) {
		/* Nobody can be told anything yet. */
		stream_end(s, 0, "closed before it was open");
		return;
	}
	s->state = STREAM_FLUSHING;
	timer_start_ms(&s->deadline, STREAM_FLUSH_MS);
	if (s->busy)
		return; /* the owner may be looking at s->in */
	buf_fini(&s->in);
	defer_start(&s->soon);
}

void stream_pause(struct stream *s)
{
	s->paused = true;
	if (!s->busy && !s->freed)
		stream_update_want(s);
}

void stream_resume(struct stream *s)
{
	if (s->freed || s->state == STREAM_OVER)
		return;
	s->paused = false;
	s->offer_soon = true;
	defer_start(&s->soon);
}

const char *stream_peer(const struct stream *s)
{
	return s->peer;
}

int64_t stream_opened_us(const struct stream *s)
{
	return s->opened_us;
}

const struct tls_peer *stream_tls_peer(const struct stream *s)
{
	return s->state == STREAM_OPENING ? NULL : s->tls_peer;
}
