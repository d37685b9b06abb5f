/*
 * This host's lease, and, on the master, everybody's: pool/leases.h with the daemon's
 * links, and with reeve-fenced, which is told how long it lasts.
 *
 * Without a lease nothing is started or unpaused here (lease_may_run); what runs goes on,
 * but for protected VMs, which reeve-fenced ends (daemon/fencing.h).
 */
#ifndef REEVE_DAEMON_LEASE_H
#define REEVE_DAEMON_LEASE_H

#include "daemon/daemon.h"
#include "pool/db/txn.h"
#include "pool/lease.h"

struct lease;

/* Returned owned. */
int lease_new(struct lease **out, struct daemon *d) RV_MUST_CHECK;
void lease_start(struct lease *l); /* the pool is open */
void lease_stop(struct lease *l);  /* NULL-safe */
void lease_free(struct lease *l);  /* after the pool; NULL-safe */

/* The master may be another one, or can be reached again: asks at once. NULL-safe. */
void lease_look(struct lease *l);

/* vm_may_run_fn; `arg` is the struct lease. */
int lease_may_run(void *arg, const struct uuid *host, struct rv_error *e) RV_MUST_CHECK;

/* Until when (CLOCK_BOOTTIME, ms) this host's lasts; 0: it had none in this life of the
 * pool. */
int64_t lease_until_ms(const struct lease *l);

/* Whether this host, as the master, is sure that the host's lease and all that it
 * protected have ended. */
bool lease_is_over(const struct lease *l, const struct uuid *host);

/* When that will be, in ms from now; -1: that can't be said. */
int64_t lease_over_in_ms(const struct lease *l, const struct uuid *host);

/* Adds that this master is still the last one: for entries that build on
 * lease_is_over. False: it is not yet the master in this sense. */
bool lease_expect(const struct lease *l, struct txn *t);

/* daemon/members.c */
void lease_asked(
	struct lease *l, const struct uuid *from, const uint8_t *bytes, size_t len);
void lease_answered(
	struct lease *l, const struct uuid *from, const uint8_t *bytes, size_t len);

#endif
