/*
 * Byte streams: sockets plain or TLS on the real loop, pipes with seeded latency and
 * faults on a simulated one. Both ends pull: a reader that stops consuming holds the peer
 * back, and a writer sees how much is queued.
 *
 * What is written inside the stream's own callbacks leaves together at the end of the
 * event, with one system call where the socket takes it; what is written elsewhere leaves
 * before the loop waits again. One event moves a bounded number of bytes.
 */
#ifndef REEVE_REACTOR_STREAM_H
#define REEVE_REACTOR_STREAM_H

#include <sys/socket.h>
#include <sys/types.h>

#include "base/buf.h"
#include "reactor/loop.h"
#include "reactor/tls.h"

struct stream;
struct listener;

/* Callbacks of a stream's owner. None is called inside a stream_ call. */
struct stream_events {
	/* Bytes arrived. Returns how many were consumed (0..len); the rest is offered
	 * again when more arrive or after stream_resume. `data` is borrowed for the call.
	 */
	size_t (*data)(void *arg, const uint8_t *data, size_t len);
	/* The queue of unsent bytes fell below the low-water mark. May be NULL. */
	void (*drained)(void *arg);
	/* Connected and, with TLS, handshake done. May be NULL. */
	void (*ready)(void *arg);
	/* The stream is over: rc 0 is a clean end by the peer. Called once, last, unless
	 * the owner freed it first. `detail` names the peer and the cause, borrowed for
	 * the call. The owner still frees the stream, inside this call or later. A peer
	 * that ends its sending side first gets what is queued for it by then, nothing
	 * that is written later. While paused, no end is noticed. */
	void (*closed)(void *arg, int rc, const char *detail);
};

struct stream_config {
	const struct stream_events *events; /* borrowed for the stream's life */
	void *arg;
	const char *name;	 /* literal, for the watchdog */
	size_t read_max;	 /* bytes held unconsumed at most; 0: 256 KiB */
	size_t write_high_water; /* stream_write refuses beyond this; 0: 1 MiB */
	size_t write_low_water; /* `drained` below this; 0: a quarter of the high water */
	struct tls_context *tls;      /* NULL: plain. Borrowed (reference taken) */
	const char *tls_server_name;  /* client side: name or NULL; copied */
	int64_t handshake_timeout_ms; /* connect and TLS together; 0: 10 s */
};

/* Takes the descriptor (closed on failure too). `server`: which side of TLS. */
int stream_open(struct stream **out, struct loop *l, int fd, bool server,
	const struct stream_config *config, struct rv_error *e) RV_MUST_CHECK;

/* Connects to "unix:PATH" or "tcp:ADDRESS:PORT" (numeric address, [v6] in brackets). */
int stream_connect(struct stream **out, struct loop *l, const char *address,
	const struct stream_config *config, struct rv_error *e) RV_MUST_CHECK;

/* Hands a stream to another owner: from now on its events, arg, name and bounds are those
 * of `config` (tls, names and time-outs in it don't count). Also inside the old owner's
 * `ready`, which is not told again, or `data`, which must then return what it consumed.
 */
void stream_take_over(struct stream *s, const struct stream_config *config);

/* Closes at once, unsent bytes are lost; no callback follows. NULL-safe. */
void stream_free(struct stream *s);

/* Sends what is queued, then closes; `closed` follows with rc 0, after the peer has
 * closed its side too or a second has passed (closing earlier could destroy our last
 * bytes on their way), or with RV_ETIMEDOUT when the peer takes nothing for 10 s. No
 * `data` and no `drained` follow. */
void stream_close_after_flush(struct stream *s);

/* Queues a copy of all the pieces or none: RV_EAGAIN above the high-water mark,
 * RV_ECLOSED. A message larger than the mark is taken when the queue is empty. */
int stream_write(struct stream *s, const struct iovec *pieces, int count) RV_MUST_CHECK;
size_t stream_queued(const struct stream *s);

void stream_pause(
	struct stream *s); /* no `data` until resumed; TCP holds the peer back */
void stream_resume(struct stream *s);

/* Peer, as text for logs and errors: "unix:pid=12,uid=0", "tcp:127.0.0.1:4711". Borrowed.
 */
const char *stream_peer(const struct stream *s);

/* loop_now_us of its beginning: connecting, or accepted and before any of its bytes. */
int64_t stream_opened_us(const struct stream *s);

/* Unix sockets: credentials of the peer. RV_EUNSUPPORTED on others. */
int stream_peer_credentials(
	const struct stream *s, pid_t *pid, uid_t *uid, gid_t *gid) RV_MUST_CHECK;

/* TLS: the peer's verified certificate and negotiated ALPN; see reactor/tls.h. NULL when
 * plain, without a certificate, or before ready. Borrowed. */
const struct tls_peer *stream_tls_peer(const struct stream *s);

/* --- listening --- */

/* A new connection; the callback takes the descriptor (and usually calls stream_open). */
typedef void listener_fn(void *arg, int fd);

/* "unix:PATH" (a stale socket is replaced, a live one refused; mode 0660) or
 * "tcp:ADDRESS:PORT" (port 0: any free one). Accepts in batches, pauses while
 * `max_connections` reported by listener_set_open are open or descriptors run out. */
int listener_open(struct listener **out, struct loop *l, const char *address,
	int max_connections, listener_fn *fn, void *arg,
	struct rv_error *e) RV_MUST_CHECK;
void listener_free(struct listener *li); /* removes a unix socket's path; NULL-safe */
void listener_set_open(struct listener *li, int open_connections);
int listener_port(const struct listener *li); /* tcp only */

/* --- simulated pairs --- */

struct stream_sim_link; /* faults of a pair: see below */

/* Two connected ends on a simulated loop (they may belong to different simulated hosts on
 * the same loop). `link` is returned owned; freeing it leaves the ends connected. */
int stream_sim_pair(struct loop *l, const struct stream_config *a,
	const struct stream_config *b, struct stream **end_a, struct stream **end_b,
	struct stream_sim_link **link) RV_MUST_CHECK;
/* This end is that process's (loop_sim_as); both are its that made the pair. */
void stream_sim_own(struct stream *end, int who);
void stream_sim_link_free(struct stream_sim_link *link);
/* One-way latency drawn from [min_us, max_us] per chunk (order kept); 0 bytes/s:
 * unlimited. */
void stream_sim_set(struct stream_sim_link *link, int64_t min_us, int64_t max_us,
	int64_t bytes_per_s);
/* A cut cable: nothing arrives that way, and nothing is seen, not even an end, until it
 * is healed; then what was sent meanwhile arrives, as TCP retransmits it. */
void stream_sim_cut(struct stream_sim_link *link, bool a_to_b, bool b_to_a);
void stream_sim_reset(struct stream_sim_link *link); /* both ends see RV_ECLOSED */
/* What stream_tls_peer says at this end: simulated pairs do no TLS. Copied. */
int stream_sim_set_tls_peer(
	struct stream *end, const struct tls_peer *peer) RV_MUST_CHECK;

#endif
