/*
 * Loads scheduler plugins. This is the part of sched/ that does I/O; the rest never sees
 * it. A target of its own: reeve_sched_loader.
 *
 * A plugin is trusted like the daemon itself: it runs in the daemon's process. So it is
 * only loaded from the directory that the configuration names, when that directory and
 * the file belong to root or to this user and nobody else may write to them.
 */
#ifndef REEVE_SCHED_LOADER_H
#define REEVE_SCHED_LOADER_H

#include "base/error.h"
#include "sched/reeve-sched.h"

struct loader_plugin {
	void *handle; /* NULL: nothing is loaded */
	const struct reeve_sched_policy *policy;
};

/* Loads DIR/NAME.so and checks its table; the table's name must be NAME. Blocks for a
 * file's reading: call it at start or from a worker. RV_ENOENT, RV_EPERM (writable by
 * others), RV_EINVAL (no plugin, wrong interface), all named in `e`. */
int loader_open(struct loader_plugin *p, const char *dir, const char *name,
	struct rv_error *e) RV_MUST_CHECK;

/* The policy must not be used any more. Harmless on a zeroed struct. */
void loader_close(struct loader_plugin *p);

#endif
