/*
 * Large reads: clients that list everything, again and again, must not hold up the
 * operations of others. They are answered one after the other, in their order, records
 * some at a time; all else has its turn between, and while operations are at work there
 * is a pause between two reads as well.
 */
#ifndef REEVE_DAEMON_LARGE_H
#define REEVE_DAEMON_LARGE_H

#include "daemon/call.h"

void large_reads_init(struct daemon *d);
void large_reads_stop(struct daemon *d); /* those that wait end with the other calls */

/* Whether the call's method packs many objects. */
bool large_read_is(const struct call *c);
/* Runs its method when its turn comes. */
void large_read_later(struct call *c);

#endif
