/* The first records of a pool, and this host's own record at each start. */
#ifndef REEVE_DAEMON_BOOTSTRAP_H
#define REEVE_DAEMON_BOOTSTRAP_H

#include "daemon/daemon.h"

/* The state directory: made, or closed to other users where it was open to them, which
 * is logged. RV_EPERM: it belongs to another user. */
int bootstrap_directory(const char *path, struct rv_error *e) RV_MUST_CHECK;

/* Reads the host's UUID from its state directory; makes one on the very first start. The
 * file is what ties a machine to its record, so a damaged one is refused, not replaced;
 * so is a missing one where there is a database or a membership already, and a missing
 * database where this host founded a pool. Before the database is opened. */
int bootstrap_identity(struct daemon *d, struct rv_error *e) RV_MUST_CHECK;

/* Initialises `t` with whatever this start has to record. The caller commits it. */
void bootstrap_txn(struct daemon *d, struct txn *t);

/* It was committed. */
void bootstrap_recorded(struct daemon *d);

#endif
