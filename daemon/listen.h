/* The RPC sockets, and who may call through them. */
#ifndef REEVE_DAEMON_LISTEN_H
#define REEVE_DAEMON_LISTEN_H

#include "daemon/daemon.h"

/* Opens the sockets of the configuration: always RUN_DIR/rpc.sock and
 * RUN_DIR/events.sock, and those of rpc.listen. Errors name the address. */
int listen_open(struct daemon *d, struct rv_error *e) RV_MUST_CHECK;
void listen_close(struct daemon *d); /* idempotent */

/* Tells subscribers that the database changed. */
void listen_publish(struct daemon *d);

#endif
