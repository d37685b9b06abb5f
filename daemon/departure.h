/*
 * What a host that was ejected takes down before it goes: SRs of the pool that are
 * attached here, networks that its interfaces are plugged into. The entry that ejects it
 * deletes the records of both, so it keeps in mind what is plugged while it still is a
 * member. What can't be taken down is named.
 */
#ifndef REEVE_DAEMON_DEPARTURE_H
#define REEVE_DAEMON_DEPARTURE_H

#include "daemon/daemon.h"

struct departure;

/* Returned owned. */
int departure_new(struct departure **out, struct daemon *d) RV_MUST_CHECK;
void departure_stop(struct departure *p); /* before the ports are freed; NULL-safe */
void departure_free(struct departure *p); /* after; NULL-safe */

/* The database changed: notes what is plugged here, while this host is on record. */
void departure_note(struct departure *p);

/* What was noted, as names in a sentence; "": nothing. Borrowed until the next call. */
const char *departure_plugged(struct departure *p);

/* Takes it down; `done(arg, left)` once, from the loop, with what is left and why, in
 * words; "": nothing. */
typedef void departure_fn(void *arg, const char *left);
void departure_begin(struct departure *p, departure_fn *done, void *arg);

#endif
