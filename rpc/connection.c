#include "rpc/connection.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

/* --- deadlines --- */

void connection_await_nothing(struct connection *c)
{
	if (!c->waits_for)
		return;
	c->waits_for = NULL;
	list_remove(&c->queue_node);
}

void connection_await(
	struct connection *c, struct connection_queue *queue, const char *what)
{
	struct rpc_server *s = c->server;

	if (c->waits_for)
		return;
	c->waits_for = what;
	c->deadline_us = loop_now_us(s->config.loop) + queue->timeout_us;
	list_push_back(&queue->waiting, &c->queue_node);
	if (!timer_active(&s->deadline))
		timer_start_ms(&s->deadline, SERVER_TICK_MS);
}

/* --- whose --- */

int connection_owner_max(const struct rpc_server *s)
{
	return (s->config.max_connections + 3) / 4;
}

static void owner_unref(struct connection_owner *o)
{
	if (!o || --o->count > 0)
		return;
	list_remove(&o->node);
	free(o);
}

static struct connection_owner *owner_find(struct rpc_server *s, uid_t uid)
{
	struct connection_owner *o;

	LIST_FOR_EACH (node, &s->owners) {
		o = CONTAINER_OF(node, struct connection_owner, node);
		if (o->uid == uid)
			return o;
	}
	o = calloc(1, sizeof *o);
	if (!o)
		return NULL;
	o->uid = uid;
	list_push_back(&s->owners, &o->node);
	return o;
}

/* --- places --- */

int connection_places(const struct rpc_server *s, enum rpc_transport transport)
{
	int max = s->config.max_connections;

	/* What ipc has above `max` is root's. */
	return transport == RPC_IPC ? max + max / 64 + 4 : max - max / 16;
}

int connection_surplus_max(const struct rpc_server *s)
{
	int most = s->config.max_connections / 32;

	return most < 1 ? 1 : most > 4 ? 4 : most;
}

void connection_full_words(const struct rpc_server *s, struct rv_error *e)
{
	(void)rv_error_set(e, RV_ELIMIT,
		"too many clients: %llu are connected to this host, which serves %d; try "
		"again when others have left",
		(unsigned long long)s->stats.connections, s->config.max_connections);
}

/* Rare: of many only the first is told. */
static void connection_full(struct rpc_server *s, const char *what)
{
	uint32_t held;

	if (blame_may_log(&s->blame, "full", loop_now_us(s->config.loop), &held))
		log_warn("rpc.full",
			"clients=%llu most=%d left_out=%u msg=\"too many RPC clients: "
			"%s. End clients that sit idle%s%s\"",
			(unsigned long long)s->stats.connections,
			s->config.max_connections, held, what,
			s->config.full_advice ? ", or " : "",
			s->config.full_advice ? s->config.full_advice : "");
}

/* The one that can best be spared for root's next; NULL: all are at work, or have just
 * been. */
static struct connection *connection_idlest(struct rpc_server *s)
{
	int64_t before = loop_now_us(s->config.loop) - (int64_t)RPC_IDLE_MS * 1000;
	struct connection *best = NULL;

	LIST_FOR_EACH (node, &s->connections) {
		struct connection *c = CONTAINER_OF(node, struct connection, node);

		if (c->doomed || c->surplus || c->outstanding || c->self != SP_REP ||
			c->used_us > before)
			continue;
		if (!best || c->used_us < best->used_us)
			best = c;
	}
	return best;
}

/* Of the places; those that are turned away have none. */
static int connection_placed(const struct rpc_server *s)
{
	return (int)s->stats.connections - s->surplus;
}

/* False: there is no place for root's next either. */
static bool connection_make_place(struct rpc_server *s)
{
	struct connection *c;

	if (connection_placed(s) < connection_places(s, RPC_IPC))
		return true;
	c = connection_idlest(s);
	if (!c)
		return false;
	connection_full(s, "one that was idle was closed for root's next");
	connection_doom(c);
	return true;
}

/* The last local connections are kept for root, and nobody else may take them all. */
static int connection_owner_ref(struct rpc_server *s, enum rpc_transport transport,
	int fd, struct connection_owner **out, struct rv_error *e)
{
	struct ucred peer;
	socklen_t size = sizeof peer;
	struct connection_owner *o;

	*out = NULL;
	if (transport != RPC_IPC)
		return (int)s->stats.connections < connection_places(s, transport)
			       ? 0
			       : rv_error_set(e, RV_ELIMIT,
					 "%d connections over TCP, the most there may be",
					 connection_places(s, transport));
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
		return rv_error_set(e, RV_EIO, "who connects is not known");
	if (peer.uid == 0 || peer.uid == geteuid())
		return connection_make_place(s)
			       ? 0
			       : rv_error_set(e, RV_ELIMIT,
					 "%d connections, and all of them are at work",
					 connection_places(s, RPC_IPC));
	if (connection_placed(s) >= s->config.max_connections)
		return rv_error_set(e, RV_ELIMIT,
			"uid %u: %d connections are open, the rest is kept for root",
			(unsigned)peer.uid, s->config.max_connections);
	o = owner_find(s, peer.uid);
	if (!o)
		return rv_error_set(e, RV_ENOMEM, "out of memory");
	o->count++;
	if (o->count > connection_owner_max(s)) {
		owner_unref(o);
		return rv_error_set(e, RV_ELIMIT,
			"uid %u has %d connections, the most that one user may have",
			(unsigned)peer.uid, connection_owner_max(s));
	}
	*out = o;
	return 0;
}

/* --- end --- */

void connection_unref(struct connection *c)
{
	struct rpc_server *s = c->server;

	if (--c->refs > 0)
		return;
	assert(!c->stream && list_empty(&c->requests));
	owner_unref(c->owner);
	free(c->tls);
	free(c->groups);
	free(c);
	server_unref(s);
}

void connection_close(struct connection *c)
{
	struct rpc_server *s = c->server;

	connection_await_nothing(c);
	list_remove(&c->queue_node); /* of the doomed */
	list_remove(&c->sub_node);
	list_remove(&c->yield_node);
	list_remove(&c->pause_node);
	list_remove(&c->node);
	stream_free(c->stream);
	c->stream = NULL;
	s->stats.connections--;
	s->surplus -= c->surplus;
	server_count_changed(s);
	requests_gone(c);
	connection_unref(c);
}

void connection_doom(struct connection *c)
{
	if (c->doomed)
		return;
	connection_await_nothing(c);
	c->doomed = true;
	list_push_back(&c->server->doomed, &c->queue_node);
	defer_start(&c->server->reaper);
}

static void connection_closed(void *arg, int rc, const char *detail)
{
	struct connection *c = arg;

	if (rc)
		log_debug("rpc.connection", "peer=%s rc=%s msg=\"%s\"", c->peer.name,
			rv_error_symbol(rc), detail ? detail : "");
	connection_doom(c);
}

static void connection_broken(struct connection *c, const struct rv_error *e)
{
	struct rpc_server *s = c->server;
	uint32_t held;

	s->stats.bad_connections++;
	if (blame_peer(&s->blame, &c->peer, loop_now_us(s->config.loop), &held))
		log_warn("rpc.connection", "peer=%s rc=%s left_out=%u msg=\"closed: %s\"",
			c->peer.name, rv_error_symbol(e->code), held, e->detail);
	connection_doom(c);
}

/* --- flow control --- */

/* Whether another request of this connection may be taken on. */
static bool connection_may_read(const struct connection *c)
{
	const struct rpc_server *s = c->server;
	size_t unsent = stream_queued(c->stream);

	if (s->current == c)
		unsent += buf_len(&s->stage);
	return !c->doomed && c->outstanding < RV_MAX_RPC_PIPELINE &&
	       unsent < RPC_PAUSE_BYTES;
}

/* One that is turned away has no more time for that. */
static void connection_owes_nothing(struct connection *c)
{
	if (!c->surplus)
		connection_await_nothing(c);
}

static void connection_block(struct connection *c)
{
	if (c->paused || c->doomed)
		return;
	c->paused = true;
	c->server->stats.paused++;
	/* The peer owes nothing while we don't read. */
	connection_owes_nothing(c);
	stream_pause(c->stream);
	list_push_back(&c->server->paused, &c->pause_node);
	if (!timer_active(&c->server->deadline))
		timer_start_ms(&c->server->deadline, SERVER_TICK_MS);
}

bool connection_hung_up(const struct connection *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLRDHUP};

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

void connection_unblock(struct connection *c)
{
	if (!c->paused || !c->stream || !connection_may_read(c))
		return;
	c->paused = false;
	list_remove(&c->pause_node);
	stream_resume(c->stream);
}

static void connection_drained(void *arg)
{
	connection_unblock(arg);
}

/* --- bytes in --- */

/* The first eight bytes. False: closing. */
static bool connection_greet(struct connection *c, const uint8_t *data)
{
	struct rv_error e;

	if (sp_hello_decode(data, sp_peer_of(c->self), &e) != 0) {
		connection_broken(c, &e);
		return false;
	}
	c->greeted = true;
	connection_owes_nothing(c);
	if (c->self == SP_PUB)
		list_push_back(&c->server->subscribers, &c->sub_node);
	return true;
}

/* The frame at data, if it is complete: its length; 0 if bytes are missing or the
 * connection is closing. */
static size_t connection_frame(struct connection *c, const uint8_t *data, size_t len)
{
	size_t header, body;
	struct rv_error e;
	int rc = sp_frame_decode(
		c->framing, data, len, RV_MAX_RPC_MESSAGE_BYTES, &header, &body, &e);

	if (rc == RV_EAGAIN)
		return 0;
	if (rc == 0 && c->self == SP_PUB)
		rc = rv_error_set(&e, RV_EPROTO, "a subscriber sent a message");
	if (rc) {
		connection_broken(c, &e);
		return 0;
	}
	if (len - header < body)
		return 0;
	if (!request_arrived(c, data + header, body, &e)) {
		connection_broken(c, &e);
		return 0;
	}
	return header + body;
}

static int64_t monotonic_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Handles whole frames until bytes, flow control or the time slice end; returns how many
 * bytes. */
static size_t connection_frames(struct connection *c, const uint8_t *data, size_t len)
{
	int64_t until = monotonic_us() + CONNECTION_SLICE_US;
	unsigned handled = 0;
	size_t at = 0;

	while (at < len) {
		size_t used;

		if (!connection_may_read(c)) {
			connection_block(c);
			return at;
		}
		used = connection_frame(c, data + at, len - at);
		if (used == 0)
			break;
		at += used;
		if (at < len && ++handled % CONNECTION_CLOCK_EVERY == 0 &&
			monotonic_us() >= until) {
			/* Others first; the rest is offered again by the waker. */
			connection_owes_nothing(c);
			stream_pause(c->stream);
			list_remove(&c->yield_node);
			list_push_back(&c->server->yielded, &c->yield_node);
			defer_start(&c->server->waker);
			return at;
		}
	}
	if (at < len && !c->doomed) {
		/* Progress restarts the clock: a frame's own, not the connection's. */
		if (at > 0)
			connection_owes_nothing(c);
		connection_await(c, &c->server->frame, "the rest of a message");
	} else {
		connection_owes_nothing(c);
	}
	return at;
}

static size_t connection_data(void *arg, const uint8_t *data, size_t len)
{
	struct connection *c = arg;
	struct rpc_server *s = c->server;
	size_t at = 0;

	if (c->doomed)
		return len;
	if (!c->greeted) {
		if (len < SP_HELLO_BYTES)
			return 0;
		if (!connection_greet(c, data))
			return len;
		at = SP_HELLO_BYTES;
	}
	s->current = c;
	at += connection_frames(c, data + at, len - at);
	s->current = NULL;
	replies_flush(s, c);
	/* The kernel may have taken all of it: then nothing will drain. */
	connection_unblock(c);
	return c->doomed ? len : at;
}

/* --- start --- */

static void connection_know_peer(struct connection *c)
{
	snprintf(c->peer.name, sizeof c->peer.name, "%s", stream_peer(c->stream));
	if (c->peer.transport == RPC_IPC &&
		stream_peer_credentials(
			c->stream, &c->peer.pid, &c->peer.uid, &c->peer.gid) == 0)
		c->peer.has_credentials = true;
}

static void connection_ready(void *arg)
{
	struct connection *c = arg;
	const struct tls_peer *tls = stream_tls_peer(c->stream);

	connection_know_peer(c);
	if (!tls || c->tls)
		return;
	/* Requests may outlive the stream, so the peer is copied. */
	c->tls = malloc(sizeof *c->tls);
	if (!c->tls) {
		connection_doom(c);
		return;
	}
	*c->tls = *tls;
	c->peer.tls = c->tls;
}

static const struct stream_events connection_events = {
	.data = connection_data,
	.drained = connection_drained,
	.ready = connection_ready,
	.closed = connection_closed,
};

/* The peer's groups as the kernel knows them: asking the user database could block. */
static void connection_know_groups(struct connection *c, int fd)
{
	socklen_t size = 0;

	/* With no room at all the kernel answers ERANGE and the size wanted. */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &size) == 0 ||
		errno != ERANGE || size == 0)
		return;
	c->groups = malloc(size);
	if (!c->groups ||
		getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, c->groups, &size) != 0)
		return;
	c->peer.groups = c->groups;
	c->peer.group_count = size / sizeof *c->groups;
}

static int connection_open_stream(struct connection *c, int fd, struct rv_error *e)
{
	struct rpc_server *s = c->server;
	struct stream_config config = {
		.events = &connection_events,
		.arg = c,
		.name = "rpc.connection",
		.read_max = RV_MAX_RPC_MESSAGE_BYTES + SP_MAX_HEADER_BYTES,
		/* reply.c keeps below RV_MAX_RPC_QUEUED_BYTES; error replies and the
		 * hello need some room above it. */
		.write_high_water = RV_MAX_RPC_QUEUED_BYTES + (4 << 20),
		.write_low_water = RPC_PAUSE_BYTES / 2,
		.tls = c->peer.transport == RPC_TLS ? s->config.tls : NULL,
	};
	int on = 1;

	if (c->peer.transport == RPC_IPC) {
		connection_know_groups(c, fd);
	} else {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	}
	return stream_open(&c->stream, s->config.loop, fd, true, &config, e);
}

/* There is no place for it. True: it may stay until it has been told so in words. */
static bool connection_turn_away(
	struct server_listener *sl, struct connection *c, const struct rv_error *e)
{
	struct rpc_server *s = sl->server;

	if (e->code != RV_ELIMIT)
		return false;
	connection_full(s, e->detail);
	s->stats.refused++;
	if (sl->self != SP_REP || s->surplus >= connection_surplus_max(s))
		return false;
	c->surplus = true;
	s->surplus++;
	return true;
}

/* Before anything is known of the peer. */
static void connection_refused(struct rpc_server *s, const struct rv_error *e)
{
	uint32_t held;

	if (blame_may_log(&s->blame, "refused", loop_now_us(s->config.loop), &held))
		log_warn("rpc.connection", "left_out=%u msg=\"refused: %s\"", held,
			e->detail);
}

void connection_accept(struct server_listener *sl, int fd)
{
	struct rpc_server *s = sl->server;
	struct connection *c = calloc(1, sizeof *c);
	uint8_t hello[SP_HELLO_BYTES];
	struct iovec piece = {hello, sizeof hello};
	struct rv_error e;

	if (!c || (connection_owner_ref(s, sl->transport, fd, &c->owner, &e) &&
			  !connection_turn_away(sl, c, &e))) {
		if (!c || e.code != RV_ELIMIT) {
			if (c)
				connection_refused(s, &e);
			s->stats.refused++;
		}
		free(c);
		close(fd);
		return;
	}
	c->server = s;
	c->self = sl->self;
	c->fd = fd;
	c->peer.transport = sl->transport;
	c->framing = sl->transport == RPC_IPC ? SP_FRAMING_IPC : SP_FRAMING_TCP;
	if (connection_open_stream(c, fd, &e) != 0) {
		connection_refused(s, &e);
		s->stats.refused++;
		s->surplus -= c->surplus;
		owner_unref(c->owner);
		free(c->groups);
		free(c);
		return;
	}
	list_init(&c->requests);
	list_init(&c->sub_node);
	list_init(&c->queue_node);
	list_init(&c->yield_node);
	list_init(&c->pause_node);
	list_push_back(&s->connections, &c->node);
	c->refs = 1;
	c->used_us = loop_now_us(s->config.loop);
	s->refs++;
	s->stats.connections++;
	s->stats.accepted++;
	server_count_changed(s);
	connection_know_peer(c);
	connection_await(c, &s->hello, "the NNG greeting");
	sp_hello_encode(hello, c->self);
	if (stream_write(c->stream, &piece, 1) != 0)
		connection_doom(c);
}
