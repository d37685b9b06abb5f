/* What this host and its VMs use, measured now and then, as live fields of the database.
 */
#ifndef REEVE_DAEMON_METRICS_H
#define REEVE_DAEMON_METRICS_H

#include "daemon/daemon.h"

enum { METRICS_INTERVAL_MS = 1000 };

/* Returned owned. */
int metrics_new(struct metrics **out, struct daemon *d) RV_MUST_CHECK;
void metrics_start(struct metrics *m);
void metrics_stop(struct metrics *m); /* NULL-safe */
void metrics_free(struct metrics *m); /* after the hypervisor's driver; NULL-safe */

#endif
