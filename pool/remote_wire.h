/* The bytes of POOL_MESSAGE_*: little-endian numbers in fixed places, then the rest.
 * Pure. */
#ifndef REEVE_POOL_REMOTE_WIRE_H
#define REEVE_POOL_REMOTE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum { REMOTE_DETAIL_MAX = 700 };

/* COMMIT: asks the master's start `master` to propose `bytes`; none: a barrier. */
struct remote_ask {
	uint64_t start, id; /* of the sender: name the request */
	uint64_t master;
	uint64_t term; /* in which the master leads, as far as the sender knows */
	bool essential;
	const uint8_t *bytes; /* borrowed */
	size_t len;
};

/* RESULT. */
struct remote_answer {
	uint64_t start, id;
	int rc;
	uint64_t seq; /* apply at least this before telling */
	char detail[REMOTE_DETAIL_MAX + 1];
};

int remote_ask_encode(const struct remote_ask *a, struct buf *out) RV_MUST_CHECK;
int remote_ask_decode(
	struct remote_ask *a, const uint8_t *bytes, size_t len) RV_MUST_CHECK;
int remote_answer_encode(const struct remote_answer *a, struct buf *out) RV_MUST_CHECK;
int remote_answer_decode(
	struct remote_answer *a, const uint8_t *bytes, size_t len) RV_MUST_CHECK;

#endif
