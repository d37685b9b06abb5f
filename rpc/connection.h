/*
 * Inside rpc/server: the structs that server.c (sockets, deadlines), connection.c (bytes
 * in, flow control) and reply.c (requests, replies) share. Nobody else includes it.
 *
 * Lifetimes: a connection outlives its stream until its last request is replied to; the
 * server outlives rpc_server_free until its last connection is gone.
 */
#ifndef REEVE_RPC_CONNECTION_H
#define REEVE_RPC_CONNECTION_H

#include "base/buf.h"
#include "base/limits.h"
#include "base/list.h"
#include "reactor/stream.h"
#include "rpc/message.h"
#include "rpc/blame.h"
#include "rpc/server.h"

enum {
	/* Handlers run this long in one callback before other events get their turn. */
	CONNECTION_SLICE_US = 1000,
	CONNECTION_CLOCK_EVERY = 8, /* requests between two looks at the clock */
	/* Requests kept for reuse, staging memory kept when idle. */
	SERVER_SPARE_REQUESTS = 1024,
	SERVER_STAGE_KEPT_BYTES = 1 << 20,
};

enum { SERVER_TICK_MS = 1000 }; /* deadlines and paused connections are looked at */

/* Connections that owe us bytes, in the order of their deadlines. */
struct connection_queue {
	struct list waiting;
	int64_t timeout_us;
};

struct rpc_server {
	struct rpc_server_config config;
	struct list listeners;
	struct list connections; /* with a stream */
	struct list subscribers; /* PUB connections past the hello; sub_node */
	struct list doomed;	 /* to be closed by `reaper`; queue_node */
	struct list yielded;	 /* to be resumed by `waker`; yield_node */
	struct list paused; /* by flow control: nothing is read from them; pause_node */
	struct list owners; /* struct connection_owner */
	struct connection_queue hello, frame;
	struct timer deadline;
	struct defer reaper, waker;
	struct rpc_server_stats stats;
	struct blame blame;
	int surplus; /* of the connections */
	int refs;    /* the owner's, and one per connection struct */
	bool closed;

	/* Replies are packed here: those to `current`, the connection whose bytes are
	 * being handled, pile up and leave in one write at the end of the callback. */
	struct buf stage;
	struct connection *current;
	struct request *replying;
	size_t reply_start, reply_body; /* offsets in stage of the frame, its data */
	bool reply_overflow;
	msgpack_packer packer;
	msgpack_zone zone; /* of the request being handled */
	struct list spare; /* struct request */
	int spare_count;
};

/* Whose local connections are counted: any uid but root's and the daemon's own. */
struct connection_owner {
	struct list node; /* server->owners */
	uid_t uid;
	int count;
};

struct server_listener {
	struct list node;
	struct rpc_server *server;
	struct listener *listener;
	enum rpc_transport transport;
	enum sp_protocol self;
};

struct connection {
	struct list node;	/* server->connections */
	struct list sub_node;	/* server->subscribers */
	struct list queue_node; /* hello, frame or doomed */
	struct list yield_node;
	struct list pause_node; /* server->paused */
	struct list requests;	/* unanswered */
	struct rpc_server *server;
	struct stream *stream; /* NULL once over */
	int fd;		       /* the stream's: only to look whether the peer is there */
	struct tls_peer *tls;  /* owned; NULL unless tls+tcp and ready */
	gid_t *groups;	       /* owned; NULL unless ipc */
	struct connection_owner *owner; /* NULL: not counted */
	struct rpc_peer peer;
	enum sp_protocol self;
	enum sp_framing framing;
	int refs; /* the stream's, and one per request */
	uint32_t outstanding;
	bool greeted;	       /* the peer's hello came */
	bool doomed;	       /* closing: ignore what still comes */
	bool paused;	       /* by flow control */
	bool surplus;	       /* let in to be told that there is no place */
	int64_t used_us;       /* when it last asked or was answered */
	const char *waits_for; /* names the deadline, for the log */
	int64_t deadline_us;
};

struct request {
	struct rpc_request pub; /* first: handlers hold a pointer to it */
	struct list node;	/* connection->requests, or server->spare */
	struct connection *connection;
	uint8_t backtrace[SP_MAX_BACKTRACE_BYTES];
	size_t backtrace_bytes;
	uint8_t *kept; /* owned copy of method and params */
	msgpack_zone *kept_zone;
	timer_fn *on_gone;
	void *on_gone_arg;
};

/* connection.c */

/* What each uid but root's and the daemon's own may have open of local connections. */
int connection_owner_max(const struct rpc_server *s);
/* How many may be open over the transport before others are turned away, and how many of
 * those are there at once. */
int connection_places(const struct rpc_server *s, enum rpc_transport transport);
int connection_surplus_max(const struct rpc_server *s);
/* What they are told. */
void connection_full_words(const struct rpc_server *s, struct rv_error *e);
/* Takes the descriptor. */
void connection_accept(struct server_listener *sl, int fd);
/* Ends it from the loop, soon; safe inside its callbacks. */
void connection_doom(struct connection *c);
/* Ends it now: closes the stream, tells waiting requests. Not inside its callbacks. */
void connection_close(struct connection *c);
void connection_unref(struct connection *c);
/* Whether the peer has hung up, which a stream that does not read can't see. */
bool connection_hung_up(const struct connection *c);
/* Reads on where flow control had stopped and allows it again. */
void connection_unblock(struct connection *c);
/* Makes the peer owe bytes until queue's time-out from now, or nothing more. */
void connection_await(
	struct connection *c, struct connection_queue *queue, const char *what);
void connection_await_nothing(struct connection *c);

/* server.c */

void server_unref(struct rpc_server *s);
void server_count_changed(struct rpc_server *s);

/* reply.c */

/* Handles one framed body. False: framing is lost, *e says why. */
bool request_arrived(
	struct connection *c, const uint8_t *body, size_t len, struct rv_error *e);
/* The client went away: tells those who asked for it. */
void requests_gone(struct connection *c);
/* Sends what is staged for the current connection. */
void replies_flush(struct rpc_server *s, struct connection *c);
void requests_free_spare(struct rpc_server *s);
/* The packer's write callback: appends to the stage, within one message's limit. */
int stage_write(void *server, const char *data, size_t len);

#endif
