/*
 * A stream's inside, shared by its core (stream.c) and what moves the bytes: sockets
 * (stream_socket.c), TLS over sockets (stream_tls.c), simulated pairs (stream_sim.c).
 * Private to reactor/.
 */
#ifndef REEVE_REACTOR_STREAM_INTERNAL_H
#define REEVE_REACTOR_STREAM_INTERNAL_H

#include <openssl/types.h>

#include "reactor/address.h"
#include "reactor/io.h"
#include "reactor/stream.h"

/*
 * OPENING: connecting, TLS handshake; or ready is still to be told.
 * FLUSHING: close_after_flush was asked for; LINGERING: all is sent, the peer's end is
 * awaited so that closing does not reset the connection under our last bytes.
 */
enum stream_state {
	STREAM_OPENING,
	STREAM_OPEN,
	STREAM_FLUSHING,
	STREAM_LINGERING,
	STREAM_OVER,
};

/* All of them are called from the loop, or from stream_write (write) and stream_free. */
struct stream_backend {
	/* 0: ready; RV_EAGAIN: s->open_want says what to wait for; else why it failed. */
	int (*open)(struct stream *s, struct rv_error *e);
	/* Bytes read; 0: the peer's end; RV_EAGAIN; else why the stream is over. */
	ssize_t (*read)(struct stream *s, uint8_t *data, size_t len, struct rv_error *e);
	/* Bytes taken (fewer than given: blocked); RV_EAGAIN; else why it is over. */
	ssize_t (*write)(struct stream *s, const struct iovec *pieces, int count,
		struct rv_error *e);
	/* Bytes taken by write that are not yet on their way. May be NULL. */
	size_t (*unsent)(const struct stream *s);
	/* Bytes that read has at hand without the descriptor being readable. */
	bool (*pending)(const struct stream *s);
	/* Tells the peer that no more comes. RV_EAGAIN: call again when writable. */
	int (*finish)(struct stream *s, struct rv_error *e);
	void (*want)(struct stream *s, int events);
	void (*fini)(struct stream *s);
};

struct stream_tls;
struct sim_end;

struct stream {
	struct loop *loop;
	const struct stream_backend *backend;
	const struct stream_events *events;
	void *arg;
	const char *name;
	size_t read_max, high_water, low_water;

	int64_t opened_us;
	enum stream_state state;
	int open_want; /* io_events while OPENING */
	bool server, paused, eof;
	bool refused;	 /* a write was: `drained` is owed */
	bool above_low;	 /* the queue has been above the low-water mark */
	bool offer_soon; /* bytes held are to be offered again */
	bool busy;	 /* inside stream_event: flush at its end */
	bool freed;	 /* inside stream_event: release at its end */
	bool told;	 /* `closed` was called */
	int over_rc;
	char *over_detail; /* owned; may be NULL */

	struct buf in, out; /* unconsumed, unsent */
	struct defer soon;
	struct timer deadline; /* of opening, flushing or lingering */
	size_t moved;	       /* bytes written in this event ... */
	int64_t moved_at_us;   /* ... or, between events, in this callback of the loop */

	char peer[128];
	struct tls_peer *tls_peer; /* owned; NULL without one */

	/* sockets */
	int fd;
	struct io io;
	struct address *target; /* owned; while connecting */
	struct timer retry;
	bool connected;
	struct stream_tls *tls; /* NULL: plain */

	struct sim_end *sim;
};

/* stream.c. A new stream with everything but its backend's part. */
int stream_new(struct stream **out, struct loop *l, const struct stream_config *config,
	struct rv_error *e) RV_MUST_CHECK;
void stream_release(struct stream *s); /* the memory; used when opening fails */
/* What happened on the descriptor or its likeness: io_events. */
void stream_event(struct stream *s, int events);

/* stream_socket.c */
extern const struct stream_backend stream_plain;
int stream_socket_open(struct stream *s, struct rv_error *e);
void stream_socket_want(struct stream *s, int events);
void stream_socket_fini(struct stream *s);
int stream_socket_error(const char *what, struct rv_error *e);

/* stream_tls.c */
extern const struct stream_backend stream_over_tls;
int stream_tls_init(struct stream *s, const struct stream_config *config,
	struct rv_error *e) RV_MUST_CHECK;

#endif
