/*
 * Checks bytes that claim to be msgpack before anything unpacks them.
 *
 * msgpack-c allocates what a header claims before it has seen the bytes (`dd 03 ff ff ff`
 * costs gigabytes), so every message from a socket or a disk passes here first: exactly
 * one object, nesting and element count within limits, each array, map, string and
 * extension fully present, strings valid UTF-8 without NUL.
 */
#ifndef REEVE_BASE_MPCHECK_H
#define REEVE_BASE_MPCHECK_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Returns 0, RV_EPROTO (malformed, truncated, bytes left over) or RV_ETOOBIG (a limit of
 * base/limits.h). `e` gets the offset and what is wrong; it may be NULL. Constant stack,
 * no allocation, linear time. */
int mpcheck(const uint8_t *data, size_t len, struct rv_error *e) RV_MUST_CHECK;

/* As mpcheck, but bytes may follow the object; *used is its length. */
int mpcheck_prefix(
	const uint8_t *data, size_t len, size_t *used, struct rv_error *e) RV_MUST_CHECK;

/* How many bytes from the front are valid UTF-8 without NUL: `len` when all are. */
size_t mpcheck_utf8(const uint8_t *text, size_t len);

/* Replaces by '?' what is no UTF-8 in a text of ours: a name in it was cut, or came from
 * somewhere that knows no UTF-8. No value of the database and no message may hold it. */
void mpcheck_mend_utf8(char *text);

#endif
