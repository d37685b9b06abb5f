/*
 * The hosts' clocks: how far each is from the pool's, and what follows from that.
 *
 * Every link measures its peer's clock, corrected for the round trip (link/clock.h). The
 * master compares the hosts linked to it once a second: it sets host.clock_skew_ms, and
 * when a clock goes beyond the pool's clock_skew_limit_ms, or comes back, one entry sets
 * host.clock_off and leaves a message. So what is known outlives a change of master, and
 * every host refuses alike.
 *
 * The limit is 500 ms by default: NTP keeps hosts of one network within a few ms, so a
 * clock beyond it is not kept at all; a guest that migrates would see its time jump, by
 * more than the pause of the migration itself.
 */
#ifndef REEVE_DAEMON_CLOCKS_H
#define REEVE_DAEMON_CLOCKS_H

#include "daemon/daemon.h"

struct clocks;

/* Returned owned. */
int clocks_new(struct clocks **out, struct daemon *d) RV_MUST_CHECK;
void clocks_start(struct clocks *c);
void clocks_stop(struct clocks *c); /* NULL-safe */
void clocks_free(struct clocks *c); /* after the pool; NULL-safe */

/* Whether VMs may be migrated to or from the host. RV_ECLOCK names host, skew, limit and
 * what to do. */
int clocks_check(
	struct daemon *d, const struct row *host, struct rv_error *e) RV_MUST_CHECK;

#endif
