/*
 * What follows when this host becomes the pool's master, or loses the role: who votes is
 * put in order (pool/voters.h decides, one change at a time), the records say who leads
 * and votes, and VMs that are nowhere are this host's to look after.
 *
 * Runs on every host; acts on the master alone.
 */
#ifndef REEVE_DAEMON_VOTERS_H
#define REEVE_DAEMON_VOTERS_H

#include "daemon/call.h"

struct voters;

int voters_new(struct voters **out, struct daemon *d) RV_MUST_CHECK;
void voters_stop(struct voters *v); /* before the pool is freed; NULL-safe */
void voters_free(struct voters *v); /* after; NULL-safe */

/* The pool, its database or a link changed. */
void voters_look(struct voters *v);

/* Ends them without a word: their calls are ended elsewhere. */
void designations_free(struct daemon *d);

/* Methods. */
void pool_designate_new_master(struct call *c);
void pool_get_status(struct call *c);

/* A call for the master's status that another host has answered: replies with that, and
 * with what this host, which was asked, sees by itself. False: it is no such call. */
bool pool_status_reply(struct call *c, const void *result, size_t len);

#endif
