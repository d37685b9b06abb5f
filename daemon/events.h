/* event.from: long polls for what changed since a token. */
#ifndef REEVE_DAEMON_EVENTS_H
#define REEVE_DAEMON_EVENTS_H

#include "daemon/call.h"

/* Looks again at the calls that wait, after the database changed. Called by the daemon's
 * subscriber, at most once per turn of the loop. */
void events_look(struct daemon *d);

void event_from(struct call *c);

#endif
