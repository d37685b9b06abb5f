/*
 * Live fields among the hosts of a pool: each host tells the master what it measured, the
 * master tells the others. Latest values only, a few times a second; a lost message is
 * mended by the next. Inside pool/ only.
 */
#ifndef REEVE_POOL_REMOTE_LIVE_H
#define REEVE_POOL_REMOTE_LIVE_H

#include "base/buf.h"
#include "pool/pool.h"

enum {
	REMOTE_LIVE_INTERVAL_MS = 200,
	REMOTE_LIVE_ASK_MS = 1000,
	REMOTE_LIVE_BATCH_BYTES = 128 << 10,
};

struct remote_live;

/* Sends to one host, or to all but one (both may be NULL). */
typedef void remote_live_send_fn(
	void *arg, const struct uuid *to, const struct uuid *but, const struct buf *b);

int remote_live_new(struct remote_live **out, struct pool *pool,
	remote_live_send_fn *send, void *arg) RV_MUST_CHECK;
void remote_live_free(struct remote_live *l); /* NULL-safe */

/* This host set the field. */
void remote_live_note(
	struct remote_live *l, const struct uuid *uuid, enum schema_field_id field);

/* The master may be another one: what it may have missed is told again. */
void remote_live_look(struct remote_live *l);

/* A host was linked: tell it everything that is known here. */
void remote_live_greet(struct remote_live *l, const struct uuid *host);

/* What the others told is not here, or not all of it: asks the master for it, soon. */
void remote_live_ask(struct remote_live *l);

void remote_live_deliver(
	struct remote_live *l, const struct uuid *from, const uint8_t *bytes, size_t len);

#endif
