/*
 * Calls that another host must carry out: sent there over the link, answered here.
 *
 * The client never notices. Every forwarded call has a request UUID, so when the link
 * breaks before the answer, the task, which every host's database holds, tells what came
 * of it; without a task nothing was begun, and the client may ask again.
 */
#ifndef REEVE_DAEMON_FORWARD_H
#define REEVE_DAEMON_FORWARD_H

#include "daemon/call.h"

struct forward;

int forward_new(struct forward **out, struct daemon *d) RV_MUST_CHECK;
void forward_free(struct forward *f); /* after the calls have been ended; NULL-safe */

/* True: the call goes elsewhere (or has been failed). False: it is for this host. */
bool forward_call(struct call *c);

/* Hands the call, kept (call_keep), to a host; `on` is added to its params unless NULL.
 */
void forward_to(struct call *c, struct uuid host, const struct uuid *on);

/* daemon/members.c */
void forward_serve(
	struct forward *f, const struct uuid *from, const uint8_t *bytes, size_t len);
void forward_answered(
	struct forward *f, const struct uuid *from, const uint8_t *bytes, size_t len);
void forward_host_down(struct forward *f, const struct uuid *host);

#endif
