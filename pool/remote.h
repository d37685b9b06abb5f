/*
 * The pool on a host that is not its master: changes go to the master and come back as
 * applied entries, so that pool_commit and barriers work alike on every host.
 *
 * A commit waits until there is a master. It is sent to that start of the master's daemon
 * for the term in which it leads, and again to the same start when the link came back:
 * the master remembers what it was asked, and proposes nothing of another term. When the
 * master is another one by then, the former one is asked as long as it is linked; when
 * that has gone too, or was restarted, the outcome is unknown (RV_EOUTCOME).
 * What a master has refused because it leads no more goes to the next one.
 *
 * Inside pool/ only; the daemon sees pool_deliver, pool_peer_up and pool_peer_down.
 */
#ifndef REEVE_POOL_REMOTE_H
#define REEVE_POOL_REMOTE_H

#include "base/map.h"
#include "pool/messenger.h"
#include "pool/pool.h"

enum {
	/* until an unanswered commit's outcome is unknown */
	REMOTE_TIMEOUT_MS = POOL_PATIENCE_MS,
	REMOTE_REMEMBERED = 8192, /* answers that a master keeps for repeats */
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

/* Has the master, this host or another, propose the bytes (borrowed until fn); none: a
 * barrier. Waits for one. fn follows, never inside the call. RV_ELIMIT: too many wait. */
int remote_ask_master(struct remote *r, struct pool_ask *a, const uint8_t *bytes,
	size_t len, bool essential, void (*fn)(struct pool_ask *)) RV_MUST_CHECK;

void remote_peer_up(struct remote *r, const struct uuid *host);
void remote_peer_down(struct remote *r, const struct uuid *host);
void remote_deliver(struct remote *r, const struct uuid *from, enum pool_message type,
	const uint8_t *bytes, size_t len);

/* The master may be another one: what was sent to the former is settled. */
void remote_look(struct remote *r);

/* The database was replaced, and live fields with it: the master is asked for them. */
void remote_ask_live(struct remote *r);

/* This host set a live field of its own, perhaps to what it was: tells the others soon.
 */
void remote_live(struct remote *r, const struct uuid *uuid, enum schema_field_id field,
	bool changed);

#endif
