/* The first records of a pool, and this host's own record at each start. */
#ifndef REEVE_DAEMON_BOOTSTRAP_H
#define REEVE_DAEMON_BOOTSTRAP_H

#include "daemon/daemon.h"

/* Reads the host's UUID from its state directory; makes one on the very first start. The
 * file is what ties a machine to its record, so a damaged one is refused, not replaced.
 */
int bootstrap_identity(struct daemon *d, struct rv_error *e) RV_MUST_CHECK;

/* Initialises `t` with whatever this start has to record. The caller commits it. */
void bootstrap_txn(struct daemon *d, struct txn *t);

#endif
