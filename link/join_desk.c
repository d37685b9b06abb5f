/*
 * The member's side: one operation for each host that wants in.
 *
 *	READ ──request──► DECIDE ──grant or refusal──► REPLY ──flushed──► DONE
 *	  │                  │                           │
 *	  └── closed, late ──┴───────────────────────────┴──────────────► FAILED
 */
#include "link/join.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum desk_state { READ, DECIDE, REPLY, DONE, FAILED, STATES };

enum {
	DESK_READ_MS = 10000,
	DESK_DECIDE_MS = 60000,
	DESK_REPLY_MS = 20000, /* the stream has deadlines of its own */
	DESK_MAX = 32,
};

static const struct op_state states[STATES] = {
	[READ] = {"read", OP_TO(DECIDE) | OP_TO(REPLY) | OP_TO(FAILED)},
	[DECIDE] = {"decide", OP_TO(REPLY) | OP_TO(FAILED)},
	[REPLY] = {"reply", OP_TO(DONE) | OP_TO(FAILED)},
	[DONE] = {"done", 0},
	[FAILED] = {"failed", 0},
};

static const struct op_table table = {"link.admit", states, STATES, READ};

struct join_acceptor {
	struct op op;
	struct list node;
	struct join_desk *desk;
	struct stream *stream;
	uint8_t *payload; /* owned: the request's facts point into it */
	struct join_request request;
	struct join_text text;
	struct buf reply; /* a whole frame */
	bool asked, decided, over;
	uint64_t awaited;
};

struct join_desk {
	struct loop *loop;
	struct join_desk_config config;
	struct list acceptors;
	int count;
	bool freed;
};

static void desk_step(struct op *op);

static struct join_acceptor *acceptor_of(struct op *op)
{
	return CONTAINER_OF(op, struct join_acceptor, op);
}

/* --- answers --- */

static void reply_begin(struct join_acceptor *a)
{
	uint8_t head[LINK_FRAME_HEAD] = {0};

	buf_fini(&a->reply);
	buf_init(&a->reply, LINK_FRAME_HEAD + LINK_JOIN_GRANT_MAX);
	(void)!buf_append(&a->reply, head, sizeof head); /* filled in by reply_end */
}

static void reply_end(struct join_acceptor *a, enum link_frame_kind kind)
{
	size_t len = buf_len(&a->reply);

	a->decided = true;
	if (len > LINK_FRAME_HEAD)
		link_frame_head(buf_data(&a->reply), kind, 0, 0,
			(uint32_t)(len - LINK_FRAME_HEAD));
	op_kick(&a->op);
}

void join_refuse(struct join_acceptor *a, const struct rv_error *why)
{
	assert(!a->decided && why->code < 0);
	op_fail_with(&a->op, why);
	reply_begin(a);
	(void)!join_refusal_encode(&a->reply, why);
	reply_end(a, LINK_JOIN_REFUSAL);
}

int join_grant_to(
	struct join_acceptor *a, const struct join_decision *d, struct rv_error *e)
{
	struct join_grant g = {.pool = d->pool,
		.generation = d->generation,
		.generation_id = d->generation_id,
		.ca_pem = d->ca_cert_pem,
		.members = d->members,
		.members_len = d->members_len};
	struct rv_error why = {0};
	char *cert_pem = NULL;
	int rc;

	assert(!a->decided);
	rc = ca_issue(d->ca_cert_pem, d->ca_key_pem, a->request.csr_pem, &a->request.host,
		a->request.names, d->days ? d->days : CA_HOST_DAYS, &cert_pem, &why);
	if (!rc) {
		g.cert_pem = cert_pem;
		reply_begin(a);
		rc = join_grant_encode(&a->reply, &g, &why);
	}
	free(cert_pem);
	if (rc) {
		rv_error_prefix(&why, "join");
		join_refuse(a, &why);
		return rv_error_set(e, rc, "%s", why.detail);
	}
	reply_end(a, LINK_JOIN_GRANT);
	return 0;
}

/* --- the stream --- */

static int take_request(struct join_acceptor *a, const struct link_frame *f)
{
	struct rv_error e = {0};
	int rc;

	if (f->kind != LINK_JOIN_REQUEST)
		return op_fail(
			&a->op, RV_EPROTO, "join: frame of kind %u first", f->kind);
	a->payload = malloc(f->len);
	if (!a->payload)
		return op_fail(&a->op, RV_ENOMEM, "join: out of memory");
	memcpy(a->payload, f->payload, f->len);
	rc = join_request_decode(&a->request, &a->text, a->payload, f->len, &e);
	return rc ? op_fail_with(&a->op, &e) : 0;
}

static size_t desk_data(void *arg, const uint8_t *data, size_t len)
{
	struct join_acceptor *a = arg;
	struct link_frame f;
	struct rv_error e;
	size_t used;
	int rc;

	if (a->op.state != READ || !a->op.awaiting)
		return len; /* one request is all */
	rc = link_frame_decode(&f, data, len, &used, &e);
	if (rc == RV_EAGAIN)
		return 0;
	(void)op_resume(&a->op, a->awaited);
	if (rc)
		op_fail_with(&a->op, &e);
	else
		(void)take_request(a, &f);
	desk_step(&a->op);
	return len;
}

static void desk_closed(void *arg, int rc, const char *detail)
{
	struct join_acceptor *a = arg;

	a->over = true;
	(void)op_resume(&a->op, a->awaited);
	if (!(a->op.state == REPLY && rc == 0) && !a->op.error.code)
		op_fail(&a->op, rc ? rc : RV_ECLOSED, "join: %s", detail);
	desk_step(&a->op);
}

static const struct stream_events desk_events = {
	.data = desk_data,
	.closed = desk_closed,
};

/* --- the steps --- */

static void desk_finish(struct join_acceptor *a, int state)
{
	op_move(&a->op, state);
	stream_free(a->stream);
	a->stream = NULL;
	if (a->asked && !a->decided && !a->desk->freed && a->desk->config.gone)
		a->desk->config.gone(a->desk->config.arg, a);
	op_finish(&a->op);
}

static void desk_reply(struct join_acceptor *a)
{
	struct iovec piece = {buf_data(&a->reply), buf_len(&a->reply)};

	op_move(&a->op, REPLY);
	if (stream_write(a->stream, &piece, 1) != 0) {
		op_fail(&a->op, RV_ECLOSED, "join: the joiner is gone");
		desk_finish(a, FAILED);
		return;
	}
	stream_close_after_flush(a->stream);
	a->awaited = op_await(&a->op, DESK_REPLY_MS);
}

static void desk_ask(struct join_acceptor *a)
{
	op_move(&a->op, DECIDE);
	a->asked = true;
	a->request.travel_max_ms =
		(loop_now_us(a->desk->loop) - stream_opened_us(a->stream)) / 1000 + 1;
	a->awaited = op_await(&a->op, a->desk->config.decide_timeout_ms);
	a->desk->config.request(a->desk->config.arg, a, &a->request);
}

static void desk_step(struct op *op)
{
	struct join_acceptor *a = acceptor_of(op);

	if (op->finished)
		return;
	if (a->over || op->cancelled) {
		desk_finish(a, op->state == REPLY && !op->error.code ? DONE : FAILED);
		return;
	}
	switch ((enum desk_state)op->state) {
	case READ:
		if (op->error.code) {
			struct rv_error why = op->error;

			join_refuse(a, &why);
			desk_reply(a);
		} else if (a->request.csr_pem) {
			desk_ask(a);
		}
		return;
	case DECIDE:
		if (a->decided)
			desk_reply(a);
		return;
	case REPLY:
	case DONE:
	case FAILED:
	case STATES:
		return;
	}
}

static void desk_late(struct op *op)
{
	struct join_acceptor *a = acceptor_of(op);
	struct rv_error why = {0};

	switch ((enum desk_state)op->state) {
	case DECIDE:
		if (a->decided)
			break;
		if (a->desk->config.gone)
			a->desk->config.gone(a->desk->config.arg, a);
		rv_error_set(&why, RV_ETIMEDOUT,
			"join: the pool did not decide in time; try again");
		join_refuse(a, &why);
		break;
	case REPLY:
		op_fail(op, RV_ETIMEDOUT, "join: the joiner does not take its answer");
		desk_finish(a, FAILED);
		break;
	default:
		op_fail(op, RV_ETIMEDOUT, "join: no whole request in time");
		desk_finish(a, FAILED);
	}
}

/* --- beginning and end --- */

static void desk_release(struct join_desk *d)
{
	if (d->freed && d->count == 0)
		free(d);
}

static void acceptor_done(struct op *op)
{
	struct join_acceptor *a = acceptor_of(op);
	struct join_desk *d = a->desk;

	if (op->error.code)
		log_warn("link.admit", "%s rc=%s msg=\"%s\"", op->subject,
			rv_error_symbol(op->error.code), op->error.detail);
	list_remove(&a->node);
	d->count--;
	explicit_bzero(a->request.secret, sizeof a->request.secret);
	join_text_fini(&a->text);
	buf_fini(&a->reply);
	free(a->payload);
	free(a);
	if (!d->freed && d->config.closed)
		d->config.closed(d->config.arg);
	desk_release(d);
}

void join_desk_accept(void *arg, struct stream *stream)
{
	struct stream_config config = {.events = &desk_events,
		.name = "link.admit",
		.read_max = LINK_FRAME_HEAD + LINK_JOIN_REQUEST_MAX,
		.write_high_water = LINK_FRAME_HEAD + LINK_JOIN_GRANT_MAX};
	struct join_desk *d = arg;
	struct join_acceptor *a = NULL;
	char subject[OP_SUBJECT_MAX];

	if (d->count < d->config.max)
		a = calloc(1, sizeof *a);
	if (!a) {
		log_warn("link.admit", "peer=%s msg=\"refused: %d hosts join already\"",
			stream_peer(stream), d->count);
		stream_free(stream);
		if (d->config.closed)
			d->config.closed(d->config.arg);
		return;
	}
	a->desk = d;
	a->stream = stream;
	buf_init(&a->reply, 0);
	list_push_back(&d->acceptors, &a->node);
	d->count++;
	config.arg = a;
	stream_take_over(stream, &config);
	a->op.on_deadline = desk_late;
	snprintf(subject, sizeof subject, "peer=%s", stream_peer(stream));
	op_start(&a->op, d->loop, &table, desk_step, acceptor_done, subject);
	/* The request may be here before the first step. */
	a->awaited = op_await(&a->op, d->config.read_timeout_ms);
}

int join_desk_new(struct join_desk **out, struct loop *l,
	const struct join_desk_config *config, struct rv_error *e)
{
	struct join_desk *d = calloc(1, sizeof *d);

	assert(config->request);
	*out = NULL;
	if (!d)
		return rv_error_set(e, RV_ENOMEM, "join: out of memory");
	d->loop = l;
	d->config = *config;
	list_init(&d->acceptors);
	if (d->config.read_timeout_ms <= 0)
		d->config.read_timeout_ms = DESK_READ_MS;
	if (d->config.decide_timeout_ms <= 0)
		d->config.decide_timeout_ms = DESK_DECIDE_MS;
	if (d->config.max <= 0)
		d->config.max = DESK_MAX;
	*out = d;
	return 0;
}

void join_desk_free(struct join_desk *d)
{
	if (!d)
		return;
	d->freed = true;
	LIST_FOR_EACH (node, &d->acceptors)
		op_cancel(&CONTAINER_OF(node, struct join_acceptor, node)->op);
	desk_release(d);
}
