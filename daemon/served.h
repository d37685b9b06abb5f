/*
 * Calls of other hosts' clients, carried out here: the far end of daemon/forward.c.
 *
 * CALL is [id, start, user, role, method, params], ANSWER is [id, start, error number,
 * detail, packed result, change by which it was done]. `id` counts the asking daemon's
 * calls, `start` is a random number of that start of it: an answer to its former life
 * bears another one, and is not taken for an answer to a later call of the same id.
 *
 * Every call that can be read is answered. An answer for which the link has no room waits
 * for it; one that is too big for a message becomes an error. Only a broken link loses
 * answers: the asking host then follows the task.
 */
#ifndef REEVE_DAEMON_SERVED_H
#define REEVE_DAEMON_SERVED_H

#include "base/buf.h"
#include "base/limits.h"
#include "daemon/call.h"

struct serving;

/* The largest CALL or ANSWER: what a client may send or get, and a frame around it (the
 * link's channel has as much room). */
enum { FORWARD_MESSAGE_BYTES = RV_MAX_RPC_MESSAGE_BYTES + (64 << 10) };

int serving_new(struct serving **out, struct daemon *d) RV_MUST_CHECK;
/* Calls may end after this, but nobody is answered. Before the pool goes. NULL-safe. */
void serving_stop(struct serving *v);
void serving_free(struct serving *v); /* after the calls have been ended; NULL-safe */

/* A host asks. Its bytes are checked. */
void serving_asked(
	struct serving *v, const struct uuid *from, const uint8_t *bytes, size_t len);

/* The link to a host has room again, or is gone. */
void serving_room(struct serving *v, const struct uuid *host);
void serving_host_down(struct serving *v, const struct uuid *host);

/* What is packed for another host; it says when it didn't fit. */
struct packing {
	struct buf buf;
	int rc; /* the first error: RV_ETOOBIG or RV_ENOMEM */
	msgpack_packer pk;
};

void packing_init(struct packing *p, size_t cap);

#endif
