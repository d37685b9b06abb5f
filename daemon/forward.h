/*
 * Calls that another host must carry out: sent there over the link, answered here.
 *
 * The client never notices. Every forwarded call has a request UUID, so when the link
 * breaks before the answer, the task, which every host's database holds, tells what came
 * of it; without a task it is sent again, to whoever it is for by then. The request's
 * UUID sees to it that it is begun once.
 *
 * Where no answer comes although the link stands, the task is looked up all the same.
 * The other host's end is daemon/served.h.
 *
 * What is for the master waits while there is none (POOL_PATIENCE_MS); what is for a host
 * that was there a moment ago waits a little for it.
 */
#ifndef REEVE_DAEMON_FORWARD_H
#define REEVE_DAEMON_FORWARD_H

#include "daemon/call.h"

struct forward;

int forward_new(struct forward **out, struct daemon *d) RV_MUST_CHECK;
/* The daemon ends: before its pool and its links go. Calls may still end, but nothing is
 * sent any more; the links that close tell the other hosts. NULL-safe. */
void forward_stop(struct forward *f);
void forward_free(struct forward *f); /* after the calls have been ended; NULL-safe */

/* True: the call goes elsewhere (or has been failed). False: it is for this host. */
bool forward_call(struct call *c);

/* Hands the call, kept (call_keep), to a host; `on` is added to its params unless NULL.
 */
void forward_to(struct call *c, struct uuid host, const struct uuid *on);

/* The master is another one, or links came or went: calls that waited are looked at, some
 * at once, the others in the loop's next rounds. */
void forward_look(struct forward *f);

/* daemon/members.c */
void forward_serve(
	struct forward *f, const struct uuid *from, const uint8_t *bytes, size_t len);
void forward_answered(
	struct forward *f, const struct uuid *from, const uint8_t *bytes, size_t len);
void forward_host_down(struct forward *f, const struct uuid *host);
void forward_room(struct forward *f, const struct uuid *host); /* for LINK_RPC */

#endif
