/*
 * The RPC client of `reeve` and of tests, on libnng: one call at a time, synchronous.
 * tls+tcp speaks TLS 1.3 by OpenSSL. Not for the daemon: libnng brings threads.
 *
 * A request is sent again when the connection breaks while it waits, as REQ sockets do,
 * so a call that changes something must carry a request UUID.
 */
#ifndef REEVE_RPC_CLIENT_H
#define REEVE_RPC_CLIENT_H

#include <msgpack.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct rpc_client;
struct rpc_subscription;

struct rpc_client_config {
	const char *url; /* ipc:///path, tcp://host:port, tls+tcp://host:port */
	/* tls+tcp: one of the two is needed; with both, both must hold. */
	const char *ca_pem;	 /* who signs the server; its name is then checked */
	const char *fingerprint; /* SHA-256 of the server's certificate, in hex; colons
				    are skipped */
	const char *cert_pem, *key_pem; /* own identity, or NULL */
	const char *server_name;	/* NULL: the URL's host */
	int64_t connect_timeout_ms;	/* 0: 10 s */
};

/* Connects; all strings are copied or used up. Returned owned. Errors name the URL, the
 * reason and the remedy. */
int rpc_client_open(struct rpc_client **out, const struct rpc_client_config *config,
	struct rv_error *e) RV_MUST_CHECK;
void rpc_client_close(struct rpc_client *c); /* NULL-safe */

/* Adds params["session"] to every later call; NULL stops that. */
int rpc_client_set_session(struct rpc_client *c, const char *token) RV_MUST_CHECK;

/* Has `c` call by the session that `other` has now, if any: one of the same server. It
 * stays the other's, which may log out of it. */
void rpc_client_share_session(struct rpc_client *c, const struct rpc_client *other);

/* Starts a call: the packer takes the params' entries, `entries` key-value pairs. */
msgpack_packer *rpc_client_begin(
	struct rpc_client *c, const char *method, uint32_t entries);

/* Sends what was begun and waits. *result is borrowed until the next begin or close; it
 * may be NULL when not wanted. The server's errors come back as their code with their
 * words; RV_ETIMEDOUT and RV_ECLOSED are our own. timeout_ms 0: for ever. */
int rpc_client_end(struct rpc_client *c, int64_t timeout_ms,
	const msgpack_object **result, struct rv_error *e) RV_MUST_CHECK;

/* Begin and end in one: `params` is one packed map, or NULL for none. */
int rpc_client_call(struct rpc_client *c, const char *method, const void *params,
	size_t len, int64_t timeout_ms, const msgpack_object **result,
	struct rv_error *e) RV_MUST_CHECK;

/* Has every later call that has no answer after `after_ms` call `fn`, once, while it goes
 * on waiting, in the caller's thread. `fn` must leave this client alone; it may call by
 * another. NULL: none. */
void rpc_client_on_slow(
	struct rpc_client *c, int64_t after_ms, void (*fn)(void *arg), void *arg);

/* Of the last server error, whether the same call may succeed later. */
bool rpc_client_retryable(const struct rpc_client *c);

/* session.login_with_password, then rpc_client_set_session. */
int rpc_client_login(struct rpc_client *c, const char *user, const char *password,
	int64_t timeout_ms, struct rv_error *e) RV_MUST_CHECK;

/* --- notifications --- */

/* Subscribes at a PUB socket to one method's notifications, or to all (NULL). */
int rpc_subscription_open(struct rpc_subscription **out,
	const struct rpc_client_config *config, const char *method,
	struct rv_error *e) RV_MUST_CHECK;
void rpc_subscription_close(struct rpc_subscription *s);

/* Waits for the next one. *method (NUL-terminated) and *params are borrowed until the
 * next call. RV_ETIMEDOUT. */
int rpc_subscription_next(struct rpc_subscription *s, int64_t timeout_ms,
	const char **method, const msgpack_object **params,
	struct rv_error *e) RV_MUST_CHECK;

#endif
