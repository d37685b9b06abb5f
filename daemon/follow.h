/*
 * Who looks when the pool's database has changed, one after the other, in the daemon's
 * one place for it: each reads what it needs itself, from the database as it is by then.
 *
 * Where that takes long, as in a pool of many hosts or after a snapshot, the rest waits
 * until the sockets were served: no callback is much longer than FOLLOW_SLICE_US and the
 * longest of those who look. A change that comes meanwhile has all of them look again.
 */
#ifndef REEVE_DAEMON_FOLLOW_H
#define REEVE_DAEMON_FOLLOW_H

#include "daemon/daemon.h"

enum { FOLLOW_SLICE_US = 1000 };

void follow_init(struct daemon *d);
void follow_begin(struct daemon *d); /* the pool is open */
void follow_stop(struct daemon *d);  /* before the pool is freed; idempotent */

/* For those who look, and read in pieces: whether this callback has gone on for its time;
 * and the one that looks comes once more for the rest before the next one does. */
bool follow_is_long(const struct daemon *d);
void follow_once_more(struct daemon *d);

#endif
