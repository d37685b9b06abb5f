/*
 * Keeps this host attached to what the database wants: its PBDs plugged, its networks and
 * PIFs up. Runs at start, and again by itself for what failed. Deletes the images of
 * suspended guests that could not be deleted before.
 */
#ifndef REEVE_DAEMON_ATTACH_H
#define REEVE_DAEMON_ATTACH_H

#include "daemon/daemon.h"

struct attach;

/* Returned owned. */
int attach_new(struct attach **out, struct daemon *d) RV_MUST_CHECK;
void attach_free(struct attach *a); /* NULL-safe */

/* Tries everything that is wanted and not attached, once; `done` when all of it has been
 * answered, well or not. What failed is tried again later, with a message in the log and
 * in PBD.last_error or PIF.last_error. */
void attach_all(struct attach *a, timer_fn *done, void *arg);

#endif
