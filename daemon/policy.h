/* Which placement policy decides: pool.scheduler, a built-in one or a plugin's name. */
#ifndef REEVE_DAEMON_POLICY_H
#define REEVE_DAEMON_POLICY_H

#include "daemon/daemon.h"

/* The database changed: takes the policy that pool.scheduler names now. One that can't be
 * had leaves the one before at work, and is logged. */
void policy_follow(struct daemon *d);

void policy_close(struct daemon *d); /* after the VM manager */

/* Whether there is a policy of that name; for pool-param-set. RV_EINVAL names those there
 * are. */
int policy_check(struct daemon *d, const char *name, struct rv_error *e) RV_MUST_CHECK;

#endif
