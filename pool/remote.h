/*
 * The pool on a host that is not its master: changes go to the master and come back as
 * applied entries, so that pool_commit and barriers work alike on every host.
 *
 * A commit is sent once to a given start of a given master's daemon, and again to the
 * same start when the link came back: the master remembers what it was asked. When the
 * master is another one by then, or was restarted, the outcome is unknown (RV_EOUTCOME),
 * and is never found out by proposing again.
 *
 * Inside pool/ only; the daemon sees pool_deliver, pool_peer_up and pool_peer_down.
 */
#ifndef REEVE_POOL_REMOTE_H
#define REEVE_POOL_REMOTE_H

#include "base/map.h"
#include "pool/messenger.h"
#include "pool/pool.h"

enum {
	REMOTE_TIMEOUT_MS = 30000, /* until an unanswered commit's outcome is unknown */
	REMOTE_REMEMBERED = 8192,  /* answers that a master keeps for repeats */
	REMOTE_MAX_PEERS = 1024,
};

struct remote;

/* Returned owned. `pool` is borrowed; `start` names this start of the daemon. */
int remote_new(struct remote **out, struct pool *pool, struct pool_messenger *messenger,
	struct uuid self, uint64_t start) RV_MUST_CHECK;
void remote_free(struct remote *r); /* ends open commits with RV_EOUTCOME; NULL-safe */

/* The transport to give to rlog_open: raft's addresses are the hosts' UUIDs. */
struct rlog_transport *remote_transport(struct remote *r);

/* The master is known, linked, and has said which start of it speaks. */
bool remote_is_ready(const struct remote *r);

/* Sends to the master. RV_ENOTMASTER: none is known or linked. */
int remote_commit(struct remote *r, struct pool_commit *c, const uint8_t *bytes,
	size_t len) RV_MUST_CHECK;
int remote_barrier(struct remote *r, struct pool_barrier *b) RV_MUST_CHECK;

void remote_peer_up(struct remote *r, const struct uuid *host);
void remote_peer_down(struct remote *r, const struct uuid *host);
void remote_deliver(struct remote *r, const struct uuid *from, enum pool_message type,
	const uint8_t *bytes, size_t len);

/* The master may be another one: what was sent to the former is settled. */
void remote_look(struct remote *r);

/* The database was replaced, and live fields with it: the master is asked for them. */
void remote_ask_live(struct remote *r);

/* This host's own live field changed: tells the others soon. */
void remote_live(struct remote *r, const struct uuid *uuid, enum schema_field_id field);

#endif
