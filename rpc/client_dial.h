/* Connecting an NNG socket for rpc/client: URL, TLS, time-out, words. */
#ifndef REEVE_RPC_CLIENT_DIAL_H
#define REEVE_RPC_CLIENT_DIAL_H

#include <nng/nng.h>

#include "rpc/client.h"

/* Dials from an open socket and waits until connected. */
int client_dial(nng_socket socket, const struct rpc_client_config *config,
	struct rv_error *e) RV_MUST_CHECK;

/* Our code for libnng's; words name the URL. */
int client_error(struct rv_error *e, int nng_error, const char *url, const char *what);

#endif
