/* event.from: long polls for what changed since a token. */
#ifndef REEVE_DAEMON_EVENTS_H
#define REEVE_DAEMON_EVENTS_H

#include "daemon/call.h"

void events_init(struct daemon *d);
void events_stop(struct daemon *d); /* no callback follows */

/* Looks again, soon and some at a time, at the calls that wait, after the database
 * changed. Called by the daemon's subscriber, at most once per turn of the loop. */
void events_look(struct daemon *d);

void event_from(struct call *c);

#endif
