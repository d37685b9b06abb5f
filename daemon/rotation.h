/*
 * This host's certificate changes while it runs: before it expires, when it is asked to,
 * and when the pool's CA changes. Connections that are open go on.
 *
 * A host certifies itself: the CA's key is in the database, encrypted with the secret
 * that every host has. The steps are daemon/rotation_plan.h's; where the pool has a next
 * CA (daemon/ca_change.h), that one signs.
 */
#ifndef REEVE_DAEMON_ROTATION_H
#define REEVE_DAEMON_ROTATION_H

#include "daemon/call.h"

struct rotation;

/* After the members are open. Returned owned. */
int rotation_new(struct rotation **out, struct daemon *d) RV_MUST_CHECK;
/* This host is on record: from now on it looks after its certificate. */
void rotation_start(struct rotation *r);
void rotation_stop(struct rotation *r); /* before the pool is freed; NULL-safe */
void rotation_free(struct rotation *r); /* after; NULL-safe */

/* The database changed. */
void rotation_look(struct rotation *r);

/* Method. */
void host_refresh_server_certificate(struct call *c);

#endif
