/* Requests from their first byte to their reply. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "rpc/connection.h"

static struct request *request_of(const struct rpc_request *req)
{
	return CONTAINER_OF((struct rpc_request *)req, struct request, pub);
}

/* --- allocation --- */

static struct request *request_new(struct connection *c)
{
	struct rpc_server *s = c->server;
	struct request *r;

	if (s->spare_count > 0) {
		r = CONTAINER_OF(s->spare.next, struct request, node);
		list_remove(&r->node);
		s->spare_count--;
	} else {
		r = malloc(sizeof *r);
		if (!r)
			return NULL;
	}
	r->connection = c;
	r->kept = NULL;
	r->kept_zone = NULL;
	r->on_gone = NULL;
	list_push_back(&c->requests, &r->node);
	c->refs++;
	c->outstanding++;
	s->stats.outstanding++;
	return r;
}

static void request_free(struct request *r)
{
	struct connection *c = r->connection;
	struct rpc_server *s = c->server;

	free(r->kept);
	if (r->kept_zone)
		msgpack_zone_free(r->kept_zone);
	list_remove(&r->node);
	if (s->spare_count < SERVER_SPARE_REQUESTS && !s->closed) {
		list_push_front(&s->spare, &r->node);
		s->spare_count++;
	} else {
		free(r);
	}
	c->outstanding--;
	s->stats.outstanding--;
	if (c->paused && c->stream)
		connection_unblock(c);
	connection_unref(c);
}

void requests_free_spare(struct rpc_server *s)
{
	while (!list_empty(&s->spare)) {
		struct list *node = s->spare.next;

		list_remove(node);
		free(CONTAINER_OF(node, struct request, node));
	}
	s->spare_count = 0;
}

/* --- staging --- */

int stage_write(void *server, const char *data, size_t len)
{
	struct rpc_server *s = server;

	struct buf *b = &s->stage;

	if (s->reply_overflow)
		return -1;
	/* Most pieces are a few bytes: a call for each would cost more than they do. */
	if (b->size - b->end >= len && b->end + len - b->start <= b->cap &&
		b->end - b->start - s->reply_start + len <= RV_MAX_RPC_MESSAGE_BYTES) {
		if (len)
			memcpy(b->base + b->end, data, len);
		b->end += len;
		return 0;
	}
	if (buf_len(&s->stage) - s->reply_start + len > RV_MAX_RPC_MESSAGE_BYTES ||
		buf_append(&s->stage, data, len) != 0) {
		s->reply_overflow = true;
		return -1;
	}
	return 0;
}

/* Starts a frame: room for its header, the backtrace. */
static void stage_begin(struct rpc_server *s, enum sp_framing framing,
	const uint8_t *backtrace, size_t backtrace_bytes)
{
	uint8_t front[SP_MAX_HEADER_BYTES + SP_MAX_BACKTRACE_BYTES] = {0};
	size_t header = sp_frame_header_bytes(framing);

	s->reply_start = buf_len(&s->stage);
	s->reply_overflow = false;
	memcpy(front + header, backtrace, backtrace_bytes);
	stage_write(s, (const char *)front, header + backtrace_bytes);
	s->reply_body = buf_len(&s->stage);
}

/* Completes the frame: true if it fits and the peer may be sent that much. */
static bool stage_end(struct rpc_server *s, struct connection *c)
{
	size_t header = sp_frame_header_bytes(c->framing);

	if (s->reply_overflow)
		return false;
	sp_frame_encode(c->framing, buf_data(&s->stage) + s->reply_start,
		buf_len(&s->stage) - s->reply_start - header);
	return true;
}

static void stage_cut(struct rpc_server *s, size_t len)
{
	s->stage.end = s->stage.start + len;
}

/* Writes what is staged from `from` on to the connection. */
static void stage_send(struct rpc_server *s, struct connection *c, size_t from)
{
	struct iovec piece = {buf_data(&s->stage) + from, buf_len(&s->stage) - from};
	uint32_t held;
	int rc;

	if (piece.iov_len == 0 || !c->stream || c->doomed)
		goto out;
	rc = stream_write(c->stream, &piece, 1);
	if (rc && rc != RV_ECLOSED) {
		if (blame_peer(&s->blame, &c->peer, loop_now_us(s->config.loop), &held))
			log_warn("rpc.connection",
				"peer=%s rc=%s left_out=%u msg=\"closed: %zu bytes of "
				"replies can't be queued\"",
				c->peer.name, rv_error_symbol(rc), held, piece.iov_len);
		connection_doom(c);
	}
out:
	stage_cut(s, from);
	if (from == 0 && s->stage.size > SERVER_STAGE_KEPT_BYTES)
		buf_fini(&s->stage);
}

void replies_flush(struct rpc_server *s, struct connection *c)
{
	assert(!s->replying);
	stage_send(s, c, 0);
}

/* --- requests --- */

/* Answers a body that is no request. */
static void answer_bad(struct connection *c, uint64_t id, const uint8_t *backtrace,
	size_t backtrace_bytes, const struct rv_error *e)
{
	struct rpc_server *s = c->server;
	uint32_t held;

	s->stats.bad_messages++;
	if (blame_peer(&s->blame, &c->peer, loop_now_us(s->config.loop), &held))
		log_info("rpc.message", "peer=%s rc=%s left_out=%u msg=\"%s\"",
			c->peer.name, rv_error_symbol(e->code), held, e->detail);
	stage_begin(s, c->framing, backtrace, backtrace_bytes);
	rpc_pack_error(&s->packer, id, e->code, e->detail, rv_error_retryable(e->code));
	if (!stage_end(s, c))
		stage_cut(s, s->reply_start);
}

static void request_fill(struct request *r, const struct rpc_message *m)
{
	const msgpack_object *session = rpc_map_get(&m->params, "session");

	r->pub = (struct rpc_request){
		.id = m->id,
		.method = m->method,
		.method_len = m->method_len,
		.params = m->params,
		.params_raw = m->raw,
		.params_raw_len = m->raw_len,
		.peer = &r->connection->peer,
	};
	if (session && session->type == MSGPACK_OBJECT_STR) {
		r->pub.session = session->via.str.ptr;
		r->pub.session_len = session->via.str.size;
	}
}

bool request_arrived(
	struct connection *c, const uint8_t *body, size_t len, struct rv_error *e)
{
	struct rpc_server *s = c->server;
	struct rpc_message m;
	struct request *r = NULL;
	size_t backtrace;
	int rc = sp_backtrace_decode(body, len, &backtrace, e);

	if (rc == RV_ELIMIT) { /* as NNG: dropped, the connection lives */
		s->stats.bad_messages++;
		return true;
	}
	if (rc)
		return false;
	rc = rpc_message_decode(
		&m, RPC_REQUEST, body + backtrace, len - backtrace, &s->zone, NULL, e);
	if (!rc) {
		r = request_new(c);
		if (!r)
			rc = rv_error_set(e, RV_ENOMEM, "out of memory for a request");
	}
	c->used_us = loop_now_us(s->config.loop);
	if (rc) {
		answer_bad(c, m.id, body, backtrace, e);
	} else if (c->surplus) {
		connection_full_words(s, e);
		request_fill(r, &m);
		memcpy(r->backtrace, body, backtrace);
		r->backtrace_bytes = backtrace;
		rpc_reply_failure(&r->pub, e);
	} else {
		memcpy(r->backtrace, body, backtrace);
		r->backtrace_bytes = backtrace;
		request_fill(r, &m);
		s->stats.requests++;
		s->config.handler(s->config.arg, &r->pub);
	}
	msgpack_zone_clear(&s->zone);
	return true;
}

bool rpc_request_is(const struct rpc_request *req, const char *method)
{
	return strlen(method) == req->method_len &&
	       memcmp(method, req->method, req->method_len) == 0;
}

const msgpack_object *rpc_request_param(const struct rpc_request *req, const char *key)
{
	return rpc_map_get(&req->params, key);
}

int rpc_request_keep(struct rpc_request *req)
{
	struct request *r = request_of(req);
	struct rpc_message m = {.id = req->id};
	size_t at = 0;

	if (r->kept)
		return 0;
	r->kept = malloc(req->method_len + req->params_raw_len);
	r->kept_zone = msgpack_zone_new(MSGPACK_ZONE_CHUNK_SIZE);
	if (!r->kept || !r->kept_zone)
		goto no_memory;
	memcpy(r->kept, req->method, req->method_len);
	memcpy(r->kept + req->method_len, req->params_raw, req->params_raw_len);
	m.method = (char *)r->kept;
	m.method_len = req->method_len;
	m.raw = r->kept + req->method_len;
	m.raw_len = req->params_raw_len;
	if (msgpack_unpack((const char *)m.raw, m.raw_len, &at, r->kept_zone,
		    &m.params) != MSGPACK_UNPACK_SUCCESS)
		goto no_memory; /* it was unpacked before: nothing else can be wrong */
	request_fill(r, &m);
	return 0;

no_memory:
	free(r->kept);
	if (r->kept_zone)
		msgpack_zone_free(r->kept_zone);
	r->kept = NULL;
	r->kept_zone = NULL;
	return RV_ENOMEM;
}

bool rpc_request_gone(const struct rpc_request *req)
{
	const struct connection *c = request_of(req)->connection;

	return !c->stream || c->doomed;
}

void rpc_request_on_gone(struct rpc_request *req, timer_fn *fn, void *arg)
{
	struct request *r = request_of(req);

	r->on_gone = fn;
	r->on_gone_arg = arg;
}

void requests_gone(struct connection *c)
{
	struct list going;

	/* A callback may reply to (and so free) any request, its own or another. */
	list_init(&going);
	while (!list_empty(&c->requests)) {
		struct list *node = c->requests.next;

		list_remove(node);
		list_push_back(&going, node);
	}
	c->refs++;
	while (!list_empty(&going)) {
		struct request *r = CONTAINER_OF(going.next, struct request, node);
		timer_fn *fn = r->on_gone;

		list_remove(&r->node);
		list_push_back(&c->requests, &r->node);
		r->on_gone = NULL;
		if (fn)
			fn(r->on_gone_arg);
	}
	connection_unref(c);
}

/* --- replies --- */

static void reply_start(struct request *r)
{
	struct rpc_server *s = r->connection->server;

	assert(!s->replying);
	s->replying = r;
	stage_begin(s, r->connection->framing, r->backtrace, r->backtrace_bytes);
}

/* Replaces what was packed by an error. */
static void reply_restart(struct request *r, int code, const char *detail, bool retryable)
{
	struct rpc_server *s = r->connection->server;

	stage_cut(s, s->reply_start);
	stage_begin(s, r->connection->framing, r->backtrace, r->backtrace_bytes);
	rpc_pack_error(&s->packer, r->pub.id, code, detail, retryable);
}

static void reply_finish(struct request *r)
{
	struct connection *c = r->connection;
	struct rpc_server *s = c->server;
	size_t size = buf_len(&s->stage) - s->reply_start;

	s->replying = NULL;
	c->used_us = loop_now_us(s->config.loop);
	if (!c->stream || c->doomed) {
		s->stats.replies_dropped++;
		stage_cut(s, s->reply_start);
		goto out;
	}
	if (s->reply_overflow)
		reply_restart(r, RV_ETOOBIG,
			"the result is larger than one message (16 MiB); ask for fewer "
			"fields or objects",
			false);
	else if (size > 4096 && stream_queued(c->stream) + size > RV_MAX_RPC_QUEUED_BYTES)
		reply_restart(r, RV_ELIMIT,
			"too many unread replies wait on this connection; read them and "
			"ask again",
			true);
	s->stats.replies++;
	if (!stage_end(s, c)) {
		log_error("rpc.reply", "peer=%s msg=\"closed: out of memory\"",
			c->peer.name);
		stage_cut(s, s->reply_start);
		connection_doom(c);
	} else if (s->current != c) {
		stage_send(s, c, s->reply_start);
	}
out:
	request_free(r);
}

msgpack_packer *rpc_reply_begin(struct rpc_request *req)
{
	struct request *r = request_of(req);
	struct rpc_server *s = r->connection->server;

	reply_start(r);
	rpc_pack_response(&s->packer, req->id);
	return &s->packer;
}

void rpc_reply_end(struct rpc_request *req)
{
	struct request *r = request_of(req);

	assert(r->connection->server->replying == r);
	reply_finish(r);
}

void rpc_reply_raw(struct rpc_request *req, const void *result, size_t len)
{
	struct rpc_server *s = request_of(req)->connection->server;

	rpc_reply_begin(req);
	stage_write(s, result, len);
	rpc_reply_end(req);
}

void rpc_reply_nil(struct rpc_request *req)
{
	msgpack_pack_nil(rpc_reply_begin(req));
	rpc_reply_end(req);
}

void rpc_reply_error(
	struct rpc_request *req, int code, const char *detail, bool retryable)
{
	struct request *r = request_of(req);

	reply_start(r);
	rpc_pack_error(&r->connection->server->packer, req->id, code, detail, retryable);
	reply_finish(r);
}

void rpc_reply_failure(struct rpc_request *req, const struct rv_error *e)
{
	const char *detail = e->detail[0] ? e->detail : rv_error_text(e->code);

	rpc_reply_error(req, e->code, detail, rv_error_retryable(e->code));
}

void rpc_reply_failuref(struct rpc_request *req, int code, const char *fmt, ...)
{
	struct rv_error e = {.code = code};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(e.detail, sizeof e.detail, fmt, ap);
	va_end(ap);
	rpc_reply_failure(req, &e);
}
