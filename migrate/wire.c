#include "migrate/wire.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	WIRE_OUT_BYTES = 4 * (MIGRATE_DATA_MAX + MIGRATE_CONTROL_MAX),
	/* Queued in the stream at most, so that what is sent next is not old. */
	WIRE_QUEUED_BYTES = 1024 * 1024,
	WIRE_DATA_AT = MIGRATE_HEADER_BYTES + MIGRATE_OFFSET_BYTES,
};

/* --- the end --- */

static void wire_tell(void *arg)
{
	struct wire *w = arg;

	if (w->closing) {
		wire_free(w);
		return;
	}
	if (w->told)
		return;
	w->told = true;
	w->events->lost(w->arg, w->rc, w->why);
}

/* Nothing is sent or heard any more; told from the loop. */
static void wire_end(struct wire *w, int rc, const char *why)
{
	if (w->over)
		return;
	w->over = true;
	w->ended = true;
	w->rc = rc ? rc : RV_ECLOSED;
	snprintf(w->why, sizeof w->why, "%s", why);
	timer_stop(&w->life);
	timer_stop(&w->paced);
	defer_start(&w->tell);
	if (w->save)
		hyper_kick(w->save);
	if (w->restore)
		hyper_kick(w->restore);
}

/* --- sending --- */

static void wire_write(struct wire *w, const uint8_t *frame, size_t len)
{
	struct iovec piece = {(void *)frame, len};
	int rc = RV_EAGAIN;

	if (w->over || !w->stream)
		return;
	w->spoke_us = loop_now_us(w->loop);
	if (buf_len(&w->out) == 0)
		rc = stream_write(w->stream, &piece, 1);
	if (rc == RV_EAGAIN)
		rc = buf_append(&w->out, frame, len);
	if (rc)
		wire_end(w, rc, "the migration's connection takes nothing more");
}

static void wire_drain(struct wire *w)
{
	struct iovec piece = {buf_data(&w->out), buf_len(&w->out)};

	if (piece.iov_len && !w->over) {
		int rc = stream_write(w->stream, &piece, 1);

		if (rc == RV_EAGAIN)
			return;
		if (rc) {
			wire_end(w, rc, "the migration's connection takes nothing more");
			return;
		}
		buf_consume(&w->out, piece.iov_len);
	}
	if (w->save)
		hyper_kick(w->save);
}

void wire_send(struct wire *w, const struct migrate_message *m)
{
	uint8_t frame[MIGRATE_CONTROL_MAX];

	wire_write(w, frame, migrate_encode(m, frame));
}

void wire_send_reason(struct wire *w, enum migrate_type type, int code, const char *text)
{
	struct migrate_message m = {.type = type, .as.reason.code = code};

	snprintf(m.as.reason.text, sizeof m.as.reason.text, "%s", text);
	wire_send(w, &m);
}

void wire_send_generation(struct wire *w, enum migrate_type type, uint64_t generation)
{
	struct migrate_message m = {.type = type, .as.generation = generation};

	wire_send(w, &m);
}

bool wire_drained(const struct wire *w)
{
	return buf_len(&w->out) == 0 && (!w->stream || stream_queued(w->stream) == 0);
}

/* --- memory out --- */

static void wire_paced(void *arg)
{
	struct wire *w = arg;

	if (w->save)
		hyper_kick(w->save);
}

static size_t wire_room(void *arg, uint8_t **room)
{
	struct wire *w = arg;
	size_t n = MIGRATE_DATA_MAX - w->chunk_len;
	uint64_t allowed;

	/* Over: takes anything to nowhere, until the save is cancelled. */
	if (!w->over && (!w->stream || buf_len(&w->out) > 0 ||
				stream_queued(w->stream) >= WIRE_QUEUED_BYTES))
		return 0;
	allowed = bucket_allows(&w->bucket, loop_now_us(w->loop));
	/* Not for a few bytes: a chunk's worth, or what the bucket can hold. */
	if (allowed == 0) {
		timer_start_us(&w->paced, bucket_wait_us(&w->bucket, MIGRATE_DATA_MAX));
		return 0;
	}
	*room = w->chunk + WIRE_DATA_AT + w->chunk_len;
	return n < allowed ? n : (size_t)allowed;
}

void wire_flush(struct wire *w)
{
	size_t len = w->chunk_len;

	if (len == 0)
		return;
	w->chunk_len = 0;
	wire_write(w, w->chunk, migrate_seal_data(w->chunk, w->sent_bytes, len));
	w->sent_bytes += len;
}

static void wire_filled(void *arg, size_t n)
{
	struct wire *w = arg;

	w->chunk_len += n;
	bucket_take(&w->bucket, n);
	if (w->chunk_len == MIGRATE_DATA_MAX)
		wire_flush(w);
}

struct hyper_sink wire_sink(struct wire *w, struct hyper_req *req, uint64_t bytes_per_s)
{
	w->save = req;
	bucket_init(&w->bucket, bytes_per_s, loop_now_us(w->loop));
	return (struct hyper_sink){.room = wire_room, .filled = wire_filled, .arg = w};
}

/* --- memory in --- */

static void wire_unblock(struct wire *w)
{
	if (!w->blocked || w->over)
		return;
	w->blocked = false;
	w->heard_us = loop_now_us(w->loop); /* it was we who did not listen */
	stream_resume(w->stream);
}

static size_t wire_peek(void *arg, const uint8_t **data, bool *end)
{
	struct wire *w = arg;

	*end = w->ended;
	*data = buf_data(&w->in);
	return buf_len(&w->in);
}

static void wire_consumed(void *arg, size_t n)
{
	struct wire *w = arg;

	buf_consume(&w->in, n);
	if (buf_len(&w->in) <= WIRE_IN_BYTES / 2)
		wire_unblock(w);
}

struct hyper_source wire_source(struct wire *w, struct hyper_req *req)
{
	w->restore = req;
	return (struct hyper_source){
		.peek = wire_peek, .consumed = wire_consumed, .arg = w};
}

void wire_source_done(struct wire *w)
{
	w->restore = NULL;
	buf_consume(&w->in, buf_len(&w->in));
	wire_unblock(w);
}

/* --- receiving --- */

static void wire_data_came(struct wire *w, const struct migrate_message *m)
{
	if (w->ended || m->as.data.offset != w->received_bytes) {
		wire_end(w, RV_EPROTO,
			"the migration stream repeats itself or has a gap: the peer is "
			"broken");
		return;
	}
	w->received_bytes += m->as.data.len;
	if (!w->restore)
		return;
	if (buf_append(&w->in, m->as.data.bytes, m->as.data.len)) {
		wire_end(w, RV_ENOMEM, "no memory for a migration's bytes");
		return;
	}
	hyper_kick(w->restore);
}

static void wire_message_came(struct wire *w, const struct migrate_message *m)
{
	switch (m->type) {
	case MIGRATE_DATA:
		wire_data_came(w, m);
		return;
	case MIGRATE_KEEPALIVE:
		return;
	case MIGRATE_FINAL:
		if (w->ended || m->as.final.bytes != w->received_bytes) {
			wire_end(w, RV_EPROTO,
				"the migration stream ended at another place than it "
				"should");
			return;
		}
		w->ended = true;
		if (w->restore)
			hyper_kick(w->restore);
		break;
	default:
		break;
	}
	w->events->message(w->arg, m);
}

static size_t wire_bytes(void *arg, const uint8_t *data, size_t len)
{
	struct wire *w = arg;
	size_t used = 0, frame_len;
	struct migrate_message m;
	struct rv_error e;

	w->heard_us = loop_now_us(w->loop);
	while (!w->over) {
		if (migrate_frame_length(data + used, len - used, &frame_len, &e)) {
			wire_end(w, e.code, e.detail);
			break;
		}
		if (frame_len == 0 || frame_len > len - used)
			return used;
		if (w->restore && buf_len(&w->in) >= WIRE_IN_BYTES) {
			w->blocked = true;
			return used;
		}
		if (migrate_decode(data + used, frame_len, &m, &e)) {
			wire_end(w, e.code, e.detail);
			break;
		}
		used += frame_len;
		wire_message_came(w, &m);
	}
	return len; /* over: whatever else comes is of no interest */
}

static void wire_stream_ready(void *arg)
{
	struct wire *w = arg;

	w->heard_us = loop_now_us(w->loop);
	if (w->events->ready)
		w->events->ready(w->arg);
}

static void wire_stream_drained(void *arg)
{
	struct wire *w = arg;

	if (!w->over)
		wire_drain(w);
}

static void wire_stream_closed(void *arg, int rc, const char *detail)
{
	struct wire *w = arg;

	if (w->closing)
		defer_start(&w->tell);
	else
		wire_end(w, rc, detail);
}

static const struct stream_events wire_stream_events = {
	.data = wire_bytes,
	.ready = wire_stream_ready,
	.drained = wire_stream_drained,
	.closed = wire_stream_closed,
};

/* --- signs of life --- */

static void wire_life(void *arg)
{
	struct wire *w = arg;
	int64_t now = loop_now_us(w->loop);
	static const struct migrate_message alive = {.type = MIGRATE_KEEPALIVE};

	if (w->over)
		return;
	if (w->watched && !w->blocked &&
		now - w->heard_us >= WIRE_SILENCE_MS * INT64_C(1000)) {
		wire_end(w, RV_ETIMEDOUT,
			"the other host has not been heard of for 10 s: look at the "
			"network between the two");
		return;
	}
	/* Behind what is queued already it would say nothing new. */
	if (wire_drained(w) && now - w->spoke_us >= WIRE_KEEPALIVE_MS * INT64_C(1000) / 2)
		wire_send(w, &alive);
	timer_start_ms(&w->life, WIRE_KEEPALIVE_MS);
}

void wire_watch(struct wire *w)
{
	w->watched = true;
	w->heard_us = loop_now_us(w->loop);
}

/* --- life --- */

int wire_new(
	struct wire **out, struct loop *l, const struct wire_events *events, void *arg)
{
	struct wire *w = calloc(1, sizeof *w);

	*out = NULL;
	if (!w)
		return RV_ENOMEM;
	w->chunk = malloc(WIRE_DATA_AT + MIGRATE_DATA_MAX);
	if (!w->chunk) {
		free(w);
		return RV_ENOMEM;
	}
	list_init(&w->node);
	w->loop = l;
	w->events = events;
	w->arg = arg;
	buf_init(&w->out, WIRE_OUT_BYTES);
	buf_init(&w->in, WIRE_IN_BYTES + MIGRATE_DATA_MAX);
	timer_init(&w->life, l, "migrate.wire.life", wire_life, w);
	timer_init(&w->paced, l, "migrate.wire.paced", wire_paced, w);
	defer_init(&w->tell, l, "migrate.wire.lost", wire_tell, w);
	*out = w;
	return 0;
}

void wire_free(struct wire *w)
{
	if (!w)
		return;
	list_remove(&w->node);
	timer_stop(&w->life);
	timer_stop(&w->paced);
	defer_stop(&w->tell);
	stream_free(w->stream);
	buf_fini(&w->out);
	buf_fini(&w->in);
	free(w->chunk);
	free(w);
}

void wire_set_events(struct wire *w, const struct wire_events *events, void *arg)
{
	w->events = events;
	w->arg = arg;
}

void wire_stream_config(struct wire *w, struct stream_config *config)
{
	*config = (struct stream_config){
		.events = &wire_stream_events,
		.arg = w,
		.name = "migrate.stream",
		.read_max = 2 * (MIGRATE_HEADER_BYTES + MIGRATE_PAYLOAD_MAX),
		.write_high_water = WIRE_QUEUED_BYTES + MIGRATE_DATA_MAX,
		.write_low_water = WIRE_QUEUED_BYTES / 2,
	};
}

void wire_attach(struct wire *w, struct stream *stream)
{
	assert(!w->stream && !w->over);
	w->stream = stream;
	w->heard_us = w->spoke_us = loop_now_us(w->loop);
	timer_start_ms(&w->life, WIRE_KEEPALIVE_MS);
}

void wire_close(struct wire *w, struct list *closing)
{
	if (!w)
		return;
	defer_stop(&w->tell);
	if (w->over || !w->stream || buf_len(&w->out) > 0) {
		wire_free(w);
		return;
	}
	w->over = w->closing = true;
	w->save = w->restore = NULL;
	timer_stop(&w->life);
	timer_stop(&w->paced);
	list_push_back(closing, &w->node);
	stream_close_after_flush(w->stream);
}

void wire_free_all(struct list *closing)
{
	LIST_FOR_EACH_SAFE (node, closing)
		wire_free(CONTAINER_OF(node, struct wire, node));
}
