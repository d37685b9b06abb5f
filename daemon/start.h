/*
 * Bringing a host up: the steps from the log's opening to the first operation on a VM,
 * each waited for; start.c has them. What a daemon is made of is daemon.c's.
 */
#ifndef REEVE_DAEMON_START_H
#define REEVE_DAEMON_START_H

#include "daemon/daemon.h"

void start_init(struct daemon *d);

/* Opens the pool; what comes of that is start_begin's, which is called next. */
int start_pool(struct daemon *d, struct rv_error *e) RV_MUST_CHECK;
void start_begin(struct daemon *d);

/* The pool or its database changed: what waits for that may go on. */
void start_look(struct daemon *d);
void start_stop(struct daemon *d);

#endif
