/*
 * Leaving a pool.
 *
 * At the master: pool.eject takes the host's records out by one entry that also remembers
 * its certificate as ejected, and removes it from the log's servers. Every member that
 * applies the entry drops its link and refuses the certificate from then on, saying so
 * (RV_EEJECTED). At the host that was ejected: it learns of that by the entry, or by such
 * a refusal from a member whose certificate it has verified, also when it comes back
 * after a long time. Then it takes down what the pool had plugged there, or names what it
 * can't (daemon/departure.h), puts its former database in force (daemon/turnover.h) and
 * starts again, a pool of its own; it never joins again by itself.
 */
#ifndef REEVE_DAEMON_EJECT_H
#define REEVE_DAEMON_EJECT_H

#include "daemon/call.h"
#include "reactor/tls.h"

struct ejection;

/* After the members are open. Returned owned. */
int ejection_new(
	struct ejection **out, struct daemon *d, struct rv_error *e) RV_MUST_CHECK;
void ejection_stop(struct ejection *j); /* before the ports are freed; NULL-safe */
void ejection_free(struct ejection *j); /* NULL-safe */

/* RV_EEJECTED in words for the host itself, or 0. `issued_s`: its certificate's
 * notBefore, 0: not known; one that was made after a host was ejected is of a host that
 * has come back. The certificate need not have been verified: nothing is told but that.
 */
int ejection_admit(struct daemon *d, const struct uuid *host,
	const uint8_t fingerprint[static 32], int64_t issued_s,
	struct rv_error *e) RV_MUST_CHECK;

/* A member says that this host was ejected. */
void ejection_told(struct daemon *d, const struct uuid *by, const char *reason);

/* This host shows another certificate from now on. */
int ejection_own_certificate(struct daemon *d, struct rv_error *e) RV_MUST_CHECK;

/* The database changed: perhaps it says so itself. */
void ejection_look(struct daemon *d);

/* This host has been ejected and is about to start again. */
bool ejection_is_leaving(const struct daemon *d);

/* Method, at the master. */
void pool_eject(struct call *c);

#endif
