/*
 * The pool's CA changes while the pool runs: the next one comes into the database beside
 * the present one, every host trusts both and takes a certificate of the next one
 * (daemon/rotation.h); when the master sees that every member has, the former one goes. A
 * host that is away keeps it there: it believes the others by a cross certificate
 * (link/ca.h) when it is back, and takes its own then, or is ejected. What an ejected
 * host needs to believe who tells it so is kept for some changes more (daemon/pool_ca.h).
 *
 * The master also warns of certificates that expire: a message CERTIFICATE_EXPIRES.
 */
#ifndef REEVE_DAEMON_CA_CHANGE_H
#define REEVE_DAEMON_CA_CHANGE_H

#include "daemon/call.h"

struct ca_change;

/* Returned owned. Runs on every host, acts on the master alone. */
int ca_change_new(struct ca_change **out, struct daemon *d) RV_MUST_CHECK;
void ca_change_stop(struct ca_change *k); /* before the pool is freed; NULL-safe */
void ca_change_free(struct ca_change *k); /* after; NULL-safe */

/* While it goes on, for people: who has no certificate of the next CA yet; else "". Of a
 * large pool not all hosts may have been looked at yet; it says so then. */
const char *ca_change_advice(struct daemon *d, char *text, size_t size);

/* Method, at the master. */
void pool_rotate_ca(struct call *c);

#endif
