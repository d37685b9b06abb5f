/*
 * The port through which the hosts of a pool talk about the database: the host link in
 * the daemon, a simulated network in tests. Whole messages, between hosts that are
 * linked, in order; what was on its way when a link broke is lost.
 */
#ifndef REEVE_POOL_MESSENGER_H
#define REEVE_POOL_MESSENGER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"

struct pool_messenger;

/* On the wire; never renumber. */
enum pool_message {
	POOL_MESSAGE_RAFT = 1,	 /* voters' agreement; urgent */
	POOL_MESSAGE_HELLO = 2,	 /* which start of the daemon speaks */
	POOL_MESSAGE_COMMIT = 3, /* to the master: propose this */
	POOL_MESSAGE_RESULT = 4, /* from the master: what came of it */
	POOL_MESSAGE_LIVE = 5,	 /* live fields that changed; may be lost */
	/* pool/learner_wire.h */
	POOL_MESSAGE_LEARN = 16, /* a learner to a voter */
	POOL_MESSAGE_FEED = 17,	 /* a voter to a learner; up to 4 MiB, least urgent */
	POOL_MESSAGE_PLACE = 18, /* the master to each: your place in the log */
};

struct pool_messenger_ops {
	/* Queues a copy. RV_ECLOSED: not linked; RV_EAGAIN: the queue is full;
	 * RV_ETOOBIG. Never delivers inside the call. */
	int (*send)(struct pool_messenger *m, const struct uuid *host,
		enum pool_message type, const uint8_t *bytes, size_t len);
};

struct pool_messenger {
	const struct pool_messenger_ops *ops;
};

#endif
