/*
 * Destroys stopped domains, one after the other, on a thread of its own: giving a large
 * guest's memory back takes Xen seconds, minutes for the largest, and meanwhile the
 * watchdog must be kept quiet, or left to bite, and other domains stopped in time.
 *
 * The thread is made at start, so that nothing needs to be had when it counts. It touches
 * the port alone, by ops->destroy.
 */
#ifndef REEVE_FENCE_ENDER_H
#define REEVE_FENCE_ENDER_H

#include "fence/port.h"

struct fence_ender;

/* `port` is borrowed. */
int fence_ender_new(struct fence_ender **out, struct fence_port *port,
	struct rv_error *e) RV_MUST_CHECK;

/* Waits for the destroy at work. NULL-safe. */
void fence_ender_free(struct fence_ender *n);

/* Becomes readable when a destroy has ended; fence_ender_take makes it quiet again. */
int fence_ender_fd(const struct fence_ender *n);

/* Not while one is at work, or ended and not yet taken. Never blocks. */
void fence_ender_begin(struct fence_ender *n, const struct fence_domain *d);

/* True: that of *d has ended with *rc and *e. Never blocks. */
bool fence_ender_take(
	struct fence_ender *n, struct fence_domain *d, int *rc, struct rv_error *e);

#endif
