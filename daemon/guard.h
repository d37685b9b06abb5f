/*
 * Whether VMs may be built on this host at all. On real Xen they may not while dom0's
 * memory is not fixed, since dom0 would move the memory that Reeve counts, nor while
 * xendomains' saved guests lie in /var/lib/xen/save: restored by xl behind the pool's
 * back they would run beside what was started instead. Looked at before the host is up,
 * and again now and then, so that what was mended counts without a restart.
 */
#ifndef REEVE_DAEMON_GUARD_H
#define REEVE_DAEMON_GUARD_H

#include "daemon/daemon.h"

struct guard;

int guard_new(struct guard **out, struct daemon *d) RV_MUST_CHECK;
/* Begins to look; d->hyper_host is known and d->vms there. */
void guard_start(struct guard *g);
void guard_stop(struct guard *g); /* NULL-safe, idempotent; before the worker ends */
void guard_free(struct guard *g); /* after it */

/* In words why no VM may be built here; "" : it may. `root` is put before paths. Pure but
 * for looking into one directory; blocks. */
void guard_look(const char *root, bool dom0_fixed, char *why, size_t size);

#endif
