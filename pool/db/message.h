/*
 * A message for the admin, as part of a transaction: what became of which object.
 */
#ifndef REEVE_POOL_DB_MESSAGE_H
#define REEVE_POOL_DB_MESSAGE_H

#include "pool/db/txn.h"

struct message {
	const char *name; /* XenAPI's, or ours in its style: HOST_CLOCK_SKEW_DETECTED */
	int priority;	  /* 1: act now, to 5: for the record */
	const char *cls;  /* the object's class, as the schema names it */
	struct uuid obj;
	const char *body; /* what happened, to which object, what to do */
};

/* Creates it under `uuid`, at the transaction's time. Everything is copied; errors stick
 * in `t` as with all of its calls. */
void message_add(struct txn *t, struct uuid uuid, const struct message *m);

#endif
