/*
 * The RPC server: SP REP and PUB sockets on the reactor, msgpack requests in, replies
 * out. Knows framing, flow control and peers; knows no method and no domain object. The
 * daemon gives one handler for all methods.
 *
 * Flow control, per connection: at most RV_MAX_RPC_PIPELINE requests are unanswered and
 * RPC_PAUSE_BYTES of replies unsent before reading stops, so a client that never reads
 * holds back itself alone. A reply that would bring the unsent bytes above
 * RV_MAX_RPC_QUEUED_BYTES is replaced by a small RV_ELIMIT error. Subscribers that don't
 * keep up lose messages, counted; they are never waited for.
 *
 * Bad input: bytes that break the framing close the connection with one log line; a
 * framed body that is no request gets an error reply (id 0 unless it could be read).
 */
#ifndef REEVE_RPC_SERVER_H
#define REEVE_RPC_SERVER_H

#include <msgpack.h>

#include "base/error.h"
#include "reactor/loop.h"
#include "reactor/tls.h"
#include "rpc/peer.h"
#include "rpc/sp.h"

enum {
	RPC_PAUSE_BYTES = 1 << 20,
	RPC_PUB_QUEUED_BYTES = 4 << 20, /* unsent messages of one subscriber */
	RPC_HELLO_TIMEOUT_MS = 10000,	/* until the SP header is here */
	RPC_FRAME_TIMEOUT_MS = 60000,	/* from a frame's first byte to its last */
	RPC_TURNED_AWAY_MS = RPC_HELLO_TIMEOUT_MS,
	RPC_IDLE_MS = 5000, /* one that is younger is not closed for root's */
};

struct rpc_server;
struct rpc_request;

/* Called once per request, from the loop. Reply now or later, exactly once. */
typedef void rpc_handler_fn(void *arg, struct rpc_request *req);

struct rpc_server_config {
	struct loop *loop;	 /* borrowed */
	rpc_handler_fn *handler; /* for REP sockets */
	void *arg;
	struct tls_context
		*tls;	     /* for tls+tcp; borrowed (reference taken); may be NULL */
	int max_connections; /* 0: RV_MAX_RPC_CONNECTIONS */
	/* What an admin can do about too few of them, for the log; borrowed; may be NULL.
	 */
	const char *full_advice;
	bool allow_remote_tcp; /* plain tcp on other addresses than loopback */
};

/* Returned owned. */
int rpc_server_new(struct rpc_server **out, const struct rpc_server_config *config,
	struct rv_error *e) RV_MUST_CHECK;

/* Closes sockets and connections. Requests still unanswered stay valid until replied to
 * (the replies go nowhere). NULL-safe. */
void rpc_server_free(struct rpc_server *s);

/* Listens on "ipc:///path", "tcp://address:port" (loopback unless allowed) or
 * "tls+tcp://address:port"; numeric addresses, [v6] in brackets, port 0: any free one.
 * `self` is SP_REP or SP_PUB. *port (may be NULL) is the TCP port taken. A sixteenth of
 * the connection limit is kept for ipc, so that a flood over TCP can't shut out the
 * administrator. Over ipc a uid has a quarter of it at most, and some connections above
 * it are root's (and the daemon's own uid's) alone; where root has those, too, the REP
 * connection that was idle longest is closed for the next of root's.
 *
 * Of those for whom there is no place a few are let in for RPC_TURNED_AWAY_MS: each of
 * their requests is answered with RV_ELIMIT and "too many clients" in words. One line in
 * the log, at most each half minute or so, tells the admin. */
int rpc_server_listen(struct rpc_server *s, enum sp_protocol self, const char *url,
	int *port, struct rv_error *e) RV_MUST_CHECK;

/* New tls+tcp connections use `tls` from now on (certificate rotation). */
void rpc_server_set_tls(struct rpc_server *s, struct tls_context *tls);

/* Sends [2, method, params] to every subscriber; `params` is one packed map. Never
 * waits. RV_ETOOBIG, RV_ENOMEM. */
int rpc_server_publish(struct rpc_server *s, const char *method, const void *params,
	size_t len) RV_MUST_CHECK;

struct rpc_server_stats {
	uint64_t connections, accepted, refused;
	uint64_t requests, replies, replies_dropped; /* dropped: the client had gone */
	uint64_t outstanding;			     /* requests not yet replied to */
	uint64_t bad_messages;	  /* framed right, but no request: error reply */
	uint64_t bad_connections; /* closed for broken framing or a time-out */
	uint64_t paused;	  /* times that reading stopped for flow control */
	uint64_t published, publish_dropped; /* per subscriber */
};
void rpc_server_get_stats(const struct rpc_server *s, struct rpc_server_stats *out);

/* --- requests --- */

/* method, params and session are borrowed: valid until the handler returns, or, after
 * rpc_request_keep, until the reply. peer and id are valid until the reply. */
struct rpc_request {
	uint64_t id;
	const char *method; /* not NUL-terminated */
	size_t method_len;
	msgpack_object params;	   /* always a map */
	const uint8_t *params_raw; /* the same, packed: for forwarding */
	size_t params_raw_len;
	const char *session; /* params["session"], NULL unless a string */
	size_t session_len;
	const struct rpc_peer *peer;
};

bool rpc_request_is(const struct rpc_request *req, const char *method);
const msgpack_object *rpc_request_param(const struct rpc_request *req, const char *key);

/* Copies method and params, so that they live until the reply. Idempotent. RV_ENOMEM. */
int rpc_request_keep(struct rpc_request *req) RV_MUST_CHECK;

/* True when the client's connection is over: nobody will read the reply. */
bool rpc_request_gone(const struct rpc_request *req);

/* Calls fn(arg) once, from the loop, if the client goes away before the reply. For long
 * polls. A reply is still due. NULL takes it back. */
void rpc_request_on_gone(struct rpc_request *req, timer_fn *fn, void *arg);

/* A good reply: pack exactly one object with the packer, then end. Nothing else may be
 * begun or published between the two calls. rpc_reply_end frees the request. A result
 * beyond RV_MAX_RPC_MESSAGE_BYTES is replaced by an RV_ETOOBIG error. */
msgpack_packer *rpc_reply_begin(struct rpc_request *req);
void rpc_reply_end(struct rpc_request *req);

/* Begin and end in one, with a result that is packed already. */
void rpc_reply_raw(struct rpc_request *req, const void *result, size_t len);
void rpc_reply_nil(struct rpc_request *req);

/* Error replies. All free the request. */
void rpc_reply_error(
	struct rpc_request *req, int code, const char *detail, bool retryable);
void rpc_reply_failure(struct rpc_request *req, const struct rv_error *e);
void rpc_reply_failuref(struct rpc_request *req, int code, const char *fmt, ...)
	RV_PRINTF(3, 4);

#endif
