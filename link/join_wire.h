/*
 * The join handshake's messages: pure codec over link/frame.h's JOIN kinds.
 *
 * Fields are u16 tag, u32 length, bytes; each tag at most once, but JOIN_NAME may repeat;
 * a tag that is not known is skipped. Decoded text points into copies inside the struct's
 * own buffer, so that it is NUL-terminated.
 */
#ifndef REEVE_LINK_JOIN_WIRE_H
#define REEVE_LINK_JOIN_WIRE_H

#include "base/buf.h"
#include "link/frame.h"
#include "link/token.h"

enum {
	JOIN_NAMES_MAX = 16,
	JOIN_NAME_MAX = 255,
	JOIN_PEM_MAX = 8 << 10,
	JOIN_FACTS_MAX = 256 << 10,
	JOIN_MEMBERS_MAX = 2 << 20,
};

struct join_request {
	struct uuid request; /* drawn once: a repeat carries the same */
	struct uuid host;
	uint8_t secret[TOKEN_SECRET_SIZE];
	const char *csr_pem;
	const char *names[JOIN_NAMES_MAX + 1]; /* for the certificate; NULL-terminated */
	const uint8_t *facts; /* msgpack: CPU policy, Xen version, clock, running VMs */
	size_t facts_len;
	int64_t clock_ms; /* UTC, as the message leaves */
	/* Decoded by the desk: it left at most so long ago, since it follows what the
	 * desk's side of the connection sent. Not on the wire. */
	int64_t travel_max_ms;
};

struct join_grant {
	struct uuid pool;
	uint64_t generation;
	struct uuid generation_id;
	const char *ca_pem, *cert_pem;
	const uint8_t *members; /* opaque here */
	size_t members_len;
};

/* A decoded message owns the text that its pointers point to. Zero it first. */
struct join_text {
	char *text;
};

int join_request_encode(
	struct buf *out, const struct join_request *r, struct rv_error *e) RV_MUST_CHECK;
/* Puts the time into an encoded request that is about to leave. */
void join_request_set_clock(struct buf *request, int64_t clock_ms);
int join_request_decode(struct join_request *r, struct join_text *text,
	const uint8_t *data, size_t len, struct rv_error *e) RV_MUST_CHECK;
int join_grant_encode(
	struct buf *out, const struct join_grant *g, struct rv_error *e) RV_MUST_CHECK;
int join_grant_decode(struct join_grant *g, struct join_text *text, const uint8_t *data,
	size_t len, struct rv_error *e) RV_MUST_CHECK;
/* A refusal carries code and words of `why`. */
int join_refusal_encode(struct buf *out, const struct rv_error *why) RV_MUST_CHECK;
int join_refusal_decode(struct rv_error *why, const uint8_t *data, size_t len,
	struct rv_error *e) RV_MUST_CHECK;
void join_text_fini(struct join_text *t);

#endif
