/*
 * The joiner's side.
 *
 *	START ──► CONNECT ──ready──► ANSWER ──grant, checked──► DONE
 *	             │                  │
 *	             └── refused, timed out, closed, cancelled ──► FAILED
 *
 * From ANSWER on the member may have let us in without our knowing: what is not an answer
 * then is RV_EOUTCOME, and the same request may be sent again.
 */
#include "link/join.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "link/port.h"

enum join_state { START, CONNECT, ANSWER, DONE, FAILED, STATES };

enum { JOIN_TIMEOUT_MS = 30000 };

static const struct op_state states[STATES] = {
	[START] = {"start", OP_TO(CONNECT) | OP_TO(FAILED)},
	[CONNECT] = {"connect", OP_TO(ANSWER) | OP_TO(FAILED)},
	[ANSWER] = {"answer", OP_TO(DONE) | OP_TO(FAILED)},
	[DONE] = {"done", 0},
	[FAILED] = {"failed", 0},
};

static const struct op_table table = {"link.join", states, STATES, START};

static void join_step(struct op *op);

static struct join_op *join_of(struct op *op)
{
	return CONTAINER_OF(op, struct join_op, op);
}

/* What failed after the request had left may have succeeded over there. */
static void join_broke(struct join_op *j, int rc, const char *what)
{
	if (j->op.state == ANSWER)
		op_fail(&j->op, RV_EOUTCOME,
			"join: %s before the pool had answered; repeat the command, a "
			"second time does no harm",
			what);
	else
		op_fail(&j->op, rc, "join: %s", what);
}

/* --- the answer --- */

static int join_check_grant(struct join_op *j, struct rv_error *e)
{
	uint8_t fingerprint[CA_FINGERPRINT_SIZE];
	int rc = ca_fingerprint(j->grant.ca_pem, fingerprint, e);

	if (rc)
		return rc;
	if (memcmp(fingerprint, j->token.fingerprint, sizeof fingerprint) != 0)
		return rv_error_set(
			e, RV_ETLS, "the pool's CA is not the one that the token names");
	return ca_check(j->grant.ca_pem, j->grant.cert_pem, j->key_pem, &j->spec.host, e);
}

static int join_take_grant(
	struct join_op *j, const struct link_frame *f, struct rv_error *e)
{
	int rc = join_grant_decode(&j->grant, &j->text, f->payload, f->len, e);

	if (rc)
		return rc;
	j->members = malloc(j->grant.members_len + 1);
	if (!j->members)
		return rv_error_set(e, RV_ENOMEM, "out of memory");
	memcpy(j->members, j->grant.members, j->grant.members_len);
	j->grant.members = j->members;
	return join_check_grant(j, e);
}

static void join_take_frame(struct join_op *j, const struct link_frame *f)
{
	struct rv_error why = {0}, e = {0};
	int rc;

	switch (f->kind) {
	case LINK_JOIN_GRANT:
		rc = join_take_grant(j, f, &e);
		break;
	case LINK_JOIN_REFUSAL:
		rc = join_refusal_decode(&why, f->payload, f->len, &e);
		if (!rc) {
			op_fail_with(&j->op, &why);
			return;
		}
		break;
	default:
		rc = rv_error_set(
			&e, RV_EPROTO, "frame of kind %u in answer to a join", f->kind);
	}
	if (rc)
		op_fail(&j->op, rc, "join: %s", e.detail);
}

static size_t join_data(void *arg, const uint8_t *data, size_t len)
{
	struct join_op *j = arg;
	struct link_frame f;
	struct rv_error e;
	size_t used = 0;
	int rc = link_frame_decode(&f, data, len, &used, &e);

	if (rc == RV_EAGAIN)
		return 0;
	if (!op_resume(&j->op, j->awaited))
		return len;
	if (rc)
		op_fail(&j->op, rc, "join: %s", e.detail);
	else
		join_take_frame(j, &f);
	j->answered = true;
	join_step(&j->op);
	return len;
}

static void join_ready(void *arg)
{
	struct join_op *j = arg;

	if (op_resume(&j->op, j->awaited))
		join_step(&j->op);
}

static void join_closed(void *arg, int rc, const char *detail)
{
	struct join_op *j = arg;

	if (!op_resume(&j->op, j->awaited))
		return;
	join_broke(j, rc ? rc : RV_ECLOSED, detail);
	join_step(&j->op);
}

static const struct stream_events join_events = {
	.data = join_data,
	.ready = join_ready,
	.closed = join_closed,
};

/* --- the steps --- */

static void join_finish(struct join_op *j, int state)
{
	op_move(&j->op, state);
	stream_free(j->stream);
	j->stream = NULL;
	op_finish(&j->op);
}

static void join_connect(struct join_op *j)
{
	struct stream_config config = {.events = &join_events,
		.arg = j,
		.name = "link.join",
		.read_max = LINK_FRAME_HEAD + LINK_JOIN_GRANT_MAX,
		.tls = j->tls,
		.handshake_timeout_ms = j->spec.timeout_ms};
	struct rv_error e = {0};
	int rc;

	op_move(&j->op, CONNECT);
	if (j->spec.dial)
		rc = j->spec.dial(j->spec.dial_arg, &config, &j->stream, &e);
	else
		rc = stream_connect(&j->stream, j->loop, j->address, &config, &e);
	if (rc) {
		op_fail(&j->op, rc, "join: %s", e.detail);
		join_finish(j, FAILED);
		return;
	}
	j->awaited = op_await(&j->op, j->spec.timeout_ms);
}

static void join_send(struct join_op *j)
{
	uint8_t head[LINK_FRAME_HEAD];
	struct iovec pieces[2] = {
		{head, sizeof head}, {buf_data(&j->request), buf_len(&j->request)}};
	int rc;

	join_request_set_clock(&j->request, loop_wall_ms(j->loop));
	link_frame_head(head, LINK_JOIN_REQUEST, 0, 0, (uint32_t)pieces[1].iov_len);
	rc = stream_write(j->stream, pieces, 2);
	if (rc) {
		op_fail(&j->op, rc, "join: sending the request");
		join_finish(j, FAILED);
		return;
	}
	op_move(&j->op, ANSWER);
	j->awaited = op_await(&j->op, j->spec.timeout_ms);
}

static void join_step(struct op *op)
{
	struct join_op *j = join_of(op);

	if (op->cancelled && !op->error.code)
		op_fail(op, RV_ECANCELLED, "join: cancelled");
	if (op->error.code) {
		join_finish(j, FAILED);
		return;
	}
	switch ((enum join_state)op->state) {
	case START:
		join_connect(j);
		return;
	case CONNECT:
		join_send(j);
		return;
	case ANSWER:
		join_finish(j, DONE);
		return;
	case DONE:
	case FAILED:
	case STATES:
		return;
	}
}

static void join_late(struct op *op)
{
	struct join_op *j = join_of(op);

	join_broke(j, RV_ETIMEDOUT, "no answer in time");
	join_finish(j, FAILED);
}

/* --- beginning and end --- */

static int join_encode(
	struct join_op *j, const struct join_spec *spec, struct rv_error *e)
{
	struct join_request r = {.request = spec->request,
		.host = spec->host,
		.csr_pem = spec->csr_pem,
		.facts = spec->facts,
		.facts_len = spec->facts_len};

	memcpy(r.secret, j->token.secret, sizeof r.secret);
	for (int i = 0; spec->names && spec->names[i]; i++) {
		if (i >= JOIN_NAMES_MAX)
			return rv_error_set(e, RV_EINVAL,
				"join: at most %d names and addresses", JOIN_NAMES_MAX);
		r.names[i] = spec->names[i];
	}
	buf_init(&j->request, LINK_JOIN_REQUEST_MAX);
	return join_request_encode(&j->request, &r, e);
}

static int join_prepare(
	struct join_op *j, const struct join_spec *spec, struct rv_error *e)
{
	static const char *const alpn[] = {PORT_ALPN_JOIN, NULL};
	struct tls_config tls = {.profile = TLS_LINK,
		.verify = TLS_VERIFY_REQUIRED,
		.ca_fingerprint = j->token.fingerprint,
		.alpn = alpn};
	int rc = token_parse(&j->token, spec->token, strlen(spec->token), e);

	if (rc)
		return rc;
	j->address = strdup(spec->address ? spec->address : "");
	j->key_pem = strdup(spec->key_pem);
	if (!j->address || !j->key_pem)
		return rv_error_set(e, RV_ENOMEM, "join: out of memory");
	rc = join_encode(j, spec, e);
	if (!rc)
		rc = tls_context_new(&j->tls, &tls, e);
	return rc;
}

int join_start(struct join_op *j, struct loop *l, const struct join_spec *spec,
	op_fn *done, struct rv_error *e)
{
	char subject[OP_SUBJECT_MAX], text[UUID_TEXT_SIZE];
	int rc;

	memset(j, 0, sizeof *j);
	j->loop = l;
	j->spec = (struct join_spec){.host = spec->host,
		.timeout_ms = spec->timeout_ms > 0 ? spec->timeout_ms : JOIN_TIMEOUT_MS,
		.dial = spec->dial,
		.dial_arg = spec->dial_arg};
	buf_init(&j->request, 0);
	rc = join_prepare(j, spec, e);
	if (rc) {
		join_fini(j);
		return rc;
	}
	j->op.on_deadline = join_late;
	snprintf(subject, sizeof subject, "host=%s master=%s",
		uuid_format(&spec->host, text), j->address);
	op_start(&j->op, l, &table, join_step, done, subject);
	return 0;
}

void join_fini(struct join_op *j)
{
	/* The request and the token are secrets until the token is used. */
	if (buf_len(&j->request))
		explicit_bzero(buf_data(&j->request), buf_len(&j->request));
	explicit_bzero(&j->token, sizeof j->token);
	buf_fini(&j->request);
	stream_free(j->stream);
	j->stream = NULL;
	tls_context_unref(j->tls);
	j->tls = NULL;
	ca_key_free(j->key_pem);
	free(j->address);
	free(j->members);
	j->key_pem = j->address = NULL;
	j->members = NULL;
	join_text_fini(&j->text);
}
