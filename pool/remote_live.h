/*
 * Live fields among the hosts of a pool: each host tells the master what changed, the
 * master tells the others. Latest values only, a few times a second; what was told in the
 * last minute is told again to a new master, or over a new link to it. What the master
 * passes on is bounded for all links together, so that a large pool's hosts hear of one
 * another's less often instead of drowning it.
 *
 * A few fields are the master's to say (whether it hears a host, leases, clocks): nobody
 * takes a host's word for them, and who was the master does not tell them again. What the
 * master tells bears its term, so a former one's late message is dropped. Inside pool/
 * only.
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

struct remote_live_port {
	/* 0, or it was not sent; RV_EAGAIN: its queue is full. */
	int (*send)(void *arg, const struct uuid *to, const struct buf *b);
	/* To some of those that were not sent to in this round; true: there are more. */
	bool (*send_some)(void *arg, const struct buf *b, uint64_t round);
	size_t (*peers)(void *arg); /* linked hosts */
};

int remote_live_new(struct remote_live **out, struct pool *pool,
	const struct remote_live_port *port, void *arg) RV_MUST_CHECK;
void remote_live_free(struct remote_live *l); /* NULL-safe */

/* This host set the field; to what it was already, where not `changed`. */
void remote_live_note(struct remote_live *l, const struct uuid *uuid,
	enum schema_field_id field, bool changed);

/* A link has gone: what the master may have missed is told again over the next. */
void remote_live_down(struct remote_live *l, const struct uuid *host);

/* The master may be another one: what it may have missed is told again. */
void remote_live_look(struct remote_live *l);

/* A host was linked: the master tells it everything that is known here, by and by. */
void remote_live_greet(struct remote_live *l, const struct uuid *host);

/* What the others told is not here, or not all of it: asks the master for it, soon. */
void remote_live_ask(struct remote_live *l);

void remote_live_deliver(
	struct remote_live *l, const struct uuid *from, const uint8_t *bytes, size_t len);

#endif
