/*
 * An RPC server on a thread of its own, for tests: REP and PUB on ipc, tcp and tls+tcp,
 * with methods that behave well and badly.
 *
 *	echo {…}		its params
 *	later {ms}		nil, after so long
 *	big {bytes}		a string of that length
 *	fail {}			RV_EBUSY, "told so"
 *	never {}		no reply until the client goes away
 *	publish {count, bytes}	count notifications "tick" {n, pad}; then nil
 *	stats {}		the server's counters
 *	session.*		as rpc/session; user "ann", password "secret", vm-operator
 */
#ifndef REEVE_TESTS_CONFORMANCE_RPC_HARNESS_H
#define REEVE_TESTS_CONFORMANCE_RPC_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/client.h"
#include "rpc/sp.h"

struct harness {
	char dir[64];
	char ipc[128], tcp[64], tls[64];	     /* URLs of REP sockets */
	char pub_ipc[128], pub_tcp[64], pub_tls[64]; /* and of PUB sockets */
	char ipc_path[108];
	int tcp_port, tls_port;
	char *ca_pem, *server_pem; /* a CA and the server's certificate */
	char *client_pem, *client_key_pem;
	char fingerprint[65];
	struct harness_server *server;
};

/* Ends the program with a message where anything is wrong. max_connections 0: the
 * default; idle_ms: of sessions. */
void harness_start(struct harness *h, int max_connections, int64_t idle_ms);
void harness_stop(struct harness *h);

/* A client connected to one of the URLs, with the CA given. */
struct rpc_client *harness_client(const struct harness *h, const char *url);
/* An echo over each transport. */
void harness_must_serve(const struct harness *h);
/* One counter of the server's, asked over ipc. */
uint64_t harness_stat(const struct harness *h, const char *name);
/* Waits until a counter has at least (or, with `below`, less than) a value. */
void harness_wait_stat(
	const struct harness *h, const char *name, bool below, uint64_t value);

/* --- raw sockets --- */

/* Blocking, with a receive time-out of 10 s. */
int raw_ipc(const struct harness *h);
int raw_tcp(const struct harness *h);
/* raw_ipc or raw_tcp and the greetings exchanged. */
int raw_open(const struct harness *h, enum sp_framing framing);
void raw_send(int fd, const void *data, size_t len);
/* Sends a frame: backtrace id and message. */
void raw_request(
	int fd, enum sp_framing framing, uint32_t id, const void *message, size_t len);
/* Receives exactly `len` bytes; false at the end of the connection. */
bool raw_recv(int fd, void *data, size_t len);
/* Receives one frame; returns its body's length, -1 at the end of the connection. */
long raw_frame(int fd, enum sp_framing framing, uint8_t *body, size_t size);
/* True when the server closes the connection (what it sent before is read away). */
bool raw_closed(int fd);

#endif
