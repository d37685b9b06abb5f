/* Between the files of remote: remote.c and remote_served.c. */
#ifndef REEVE_POOL_REMOTE_INTERNAL_H
#define REEVE_POOL_REMOTE_INTERNAL_H

#include "base/buf.h"
#include "pool/pool_internal.h"
#include "pool/remote.h"

struct remote_live;

struct remote {
	struct rlog_transport transport; /* first: see transport_send */
	struct pool *pool;
	struct pool_messenger *messenger;
	struct uuid self;
	uint64_t start, last_id;
	struct list peers;
	struct map by_host;   /* the same */
	struct list asks;     /* ours, waiting for the master */
	struct list answered; /* ours, waiting for the answer's effects to be here */
	size_t ask_count;     /* both */
	struct timer retry;   /* remote_look again */
	struct map served;
	struct list served_order;
	size_t served_count;
	uint64_t served_asked; /* ever */
	struct map forgotten;  /* by host: which answers gave way */
	struct remote_live *live;
	rlog_transport_deliver_fn *deliver;
	void *deliver_arg;
};

/* 0, or it was not sent. */
int remote_send(struct remote *r, const struct uuid *host, enum pool_message type,
	const struct buf *b) RV_MUST_CHECK;

/* --- remote_served.c --- */

/* A host asks this one, the master: it is answered now or, asked again, later. */
void remote_served_deliver(
	struct remote *r, const struct uuid *from, const uint8_t *bytes, size_t len);
/* Forgets all; before the pool is freed. */
void remote_served_clear(struct remote *r);

#endif
