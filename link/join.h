/*
 * Joining a pool: the handshake between the host that joins and a member, over TLS with
 * ALPN "reeve/join". The joiner knows the CA's fingerprint from its token, so it speaks
 * to nobody else; the member knows the joiner by the token.
 *
 *	joiner                                  member
 *	JOIN_REQUEST  token, key, facts  ──►    callback: checks, compare-and-set
 *	JOIN_GRANT / JOIN_REFUSAL        ◄──    certificate, CA, members, pool
 *
 * Repeating the same request (same request UUID, host, key) is harmless: the member
 * grants it again. What the facts say is checked by the member's callback, not here.
 */
#ifndef REEVE_LINK_JOIN_H
#define REEVE_LINK_JOIN_H

#include "link/join_wire.h"
#include "reactor/op.h"
#include "reactor/stream.h"

/* --- the joiner --- */

struct join_spec {
	const char *address; /* of any member: "tcp:ADDRESS:PORT" */
	const char *token;   /* TOKEN.FINGERPRINT */
	struct uuid request, host;
	const char *csr_pem, *key_pem; /* ca_request_new; keep them for a repeat */
	const char *const *names;
	const uint8_t *facts;
	size_t facts_len;
	int timeout_ms; /* of each step; 0: 30 s */
	/* Takes stream_connect's place in simulations; may be NULL. */
	int (*dial)(void *arg, const struct stream_config *config, struct stream **out,
		struct rv_error *e);
	void *dial_arg;
};

struct join_op {
	struct op op;
	struct loop *loop;
	struct join_spec spec; /* only what is kept below still points anywhere */
	struct token token;
	char *address, *key_pem;
	struct stream *stream;
	struct tls_context *tls;
	struct buf request; /* encoded */
	uint64_t awaited;
	bool answered;
	/* After an end without error; valid until join_fini. */
	struct join_grant grant;
	struct join_text text;
	uint8_t *members;
};

/* `j` zeroed. All of spec is borrowed for the call only. Fails at once, without starting,
 * on a malformed spec. Ends with op.error code 0 and j->grant, or with the reason: what
 * the member said, RV_ETLS for another pool's CA, RV_ETIMEDOUT, RV_ECLOSED, RV_EPROTO. An
 * outcome that is not known (the connection broke after the request had left) is
 * RV_EOUTCOME: repeat the same request. */
int join_start(struct join_op *j, struct loop *l, const struct join_spec *spec,
	op_fn *done, struct rv_error *e) RV_MUST_CHECK;
void join_fini(struct join_op *j); /* after the end, or of one never started */

/* --- the member --- */

struct join_acceptor;
struct join_desk;

struct join_desk_config {
	/* Decides about a request, now or later, and answers by join_grant_to or
	 * join_refuse exactly once. `r` is borrowed until then; its facts are well-formed
	 * msgpack. */
	void (*request)(void *arg, struct join_acceptor *a, const struct join_request *r);
	/* The joiner went away, or the time was up, before the answer: forget `a`. */
	void (*gone)(void *arg, struct join_acceptor *a);
	/* One connection is over: for port_closed. May be NULL. */
	void (*closed)(void *arg);
	void *arg;
	int read_timeout_ms, decide_timeout_ms; /* 0: 10 s, 60 s */
	int max;				/* at once; 0: 32 */
};

struct join_decision {
	struct uuid pool, generation_id;
	uint64_t generation;
	const char *ca_cert_pem, *ca_key_pem; /* signs for the request's key and names */
	int days;			      /* 0: CA_HOST_DAYS */
	const uint8_t *members;
	size_t members_len;
};

int join_desk_new(struct join_desk **out, struct loop *l,
	const struct join_desk_config *config, struct rv_error *e) RV_MUST_CHECK;
/* Drops all, without callbacks; the last memory goes with the loop's next turn.
 * NULL-safe. */
void join_desk_free(struct join_desk *d);
/* The acceptor of "reeve/join" for link/port.h; takes the stream. */
void join_desk_accept(void *desk, struct stream *stream);

/* Issues the certificate and answers. All is borrowed for the call. An error (the CA does
 * not sign) is told to the joiner as a refusal, and returned. */
int join_grant_to(struct join_acceptor *a, const struct join_decision *d,
	struct rv_error *e) RV_MUST_CHECK;
void join_refuse(struct join_acceptor *a, const struct rv_error *why);

#endif
