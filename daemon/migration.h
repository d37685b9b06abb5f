/* Live migration in the daemon: see migrate/migrate.h, which does it. */
#ifndef REEVE_DAEMON_MIGRATION_H
#define REEVE_DAEMON_MIGRATION_H

#include "daemon/daemon.h"

/* Sets d->migrate. Of a host that has links (d->members). */
int migration_open(struct daemon *d, struct rv_error *e) RV_MUST_CHECK;

#endif
