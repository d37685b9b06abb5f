#include "rpc/server.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "rpc/connection.h"

enum { URL_MAX = 256, REAP_BATCH = 64 };

/* --- deadlines --- */

static void queue_expire(struct rpc_server *s, struct connection_queue *q, int64_t now)
{
	uint32_t held;

	while (!list_empty(&q->waiting)) {
		struct connection *c =
			CONTAINER_OF(q->waiting.next, struct connection, queue_node);

		if (c->deadline_us > now)
			return;
		if (!c->surplus && blame_peer(&s->blame, &c->peer, now, &held))
			log_warn("rpc.connection",
				"peer=%s left_out=%u msg=\"closed: %s did not come "
				"within "
				"%lld s\"",
				c->peer.name, held, c->waits_for,
				(long long)(q->timeout_us / 1000000));
		s->stats.bad_connections += !c->surplus;
		connection_doom(c);
	}
}

static void server_deadline(void *arg)
{
	struct rpc_server *s = arg;
	int64_t now = loop_now_us(s->config.loop);

	queue_expire(s, &s->hello, now);
	queue_expire(s, &s->frame, now);
	LIST_FOR_EACH_SAFE (node, &s->paused) {
		struct connection *c = CONTAINER_OF(node, struct connection, pause_node);

		if (connection_hung_up(c))
			connection_doom(c);
	}
	if (!list_empty(&s->hello.waiting) || !list_empty(&s->frame.waiting) ||
		!list_empty(&s->paused))
		timer_start_ms(&s->deadline, SERVER_TICK_MS);
}

static void server_reap(void *arg)
{
	struct rpc_server *s = arg;

	for (int i = 0; i < REAP_BATCH && !list_empty(&s->doomed); i++)
		connection_close(
			CONTAINER_OF(s->doomed.next, struct connection, queue_node));
	if (!list_empty(&s->doomed))
		defer_start(&s->reaper);
}

static void server_wake(void *arg)
{
	struct rpc_server *s = arg;

	while (!list_empty(&s->yielded)) {
		struct connection *c =
			CONTAINER_OF(s->yielded.next, struct connection, yield_node);

		list_remove(&c->yield_node);
		if (!c->paused)
			stream_resume(c->stream);
	}
}

/* --- life --- */

int rpc_server_new(struct rpc_server **out, const struct rpc_server_config *config,
	struct rv_error *e)
{
	struct rpc_server *s = calloc(1, sizeof *s);

	*out = NULL;
	if (!s || !msgpack_zone_init(&s->zone, MSGPACK_ZONE_CHUNK_SIZE)) {
		free(s);
		return rv_error_set(e, RV_ENOMEM, "RPC server: out of memory");
	}
	s->config = *config;
	if (s->config.max_connections <= 0)
		s->config.max_connections = RV_MAX_RPC_CONNECTIONS;
	if (s->config.tls)
		tls_context_ref(s->config.tls);
	list_init(&s->listeners);
	list_init(&s->connections);
	list_init(&s->subscribers);
	list_init(&s->doomed);
	list_init(&s->yielded);
	list_init(&s->paused);
	list_init(&s->spare);
	list_init(&s->owners);
	list_init(&s->hello.waiting);
	list_init(&s->frame.waiting);
	s->hello.timeout_us = (int64_t)RPC_HELLO_TIMEOUT_MS * 1000;
	s->frame.timeout_us = (int64_t)RPC_FRAME_TIMEOUT_MS * 1000;
	timer_init(&s->deadline, config->loop, "rpc.deadline", server_deadline, s);
	defer_init(&s->reaper, config->loop, "rpc.reap", server_reap, s);
	defer_init(&s->waker, config->loop, "rpc.wake", server_wake, s);
	/* Room for what may be staged before flow control stops reading, and one more. */
	buf_init(&s->stage, RPC_PAUSE_BYTES + 3 * (size_t)RV_MAX_RPC_MESSAGE_BYTES);
	msgpack_packer_init(&s->packer, s, stage_write);
	s->refs = 1;
	*out = s;
	return 0;
}

void server_unref(struct rpc_server *s)
{
	if (--s->refs > 0)
		return;
	requests_free_spare(s);
	buf_fini(&s->stage);
	msgpack_zone_destroy(&s->zone);
	free(s);
}

static void server_listener_free(struct server_listener *sl)
{
	list_remove(&sl->node);
	listener_free(sl->listener);
	free(sl);
}

void rpc_server_free(struct rpc_server *s)
{
	if (!s)
		return;
	assert(!s->current && !s->replying);
	s->closed = true;
	while (!list_empty(&s->listeners))
		server_listener_free(
			CONTAINER_OF(s->listeners.next, struct server_listener, node));
	while (!list_empty(&s->connections)) {
		struct connection *c =
			CONTAINER_OF(s->connections.next, struct connection, node);

		/* The daemon is going down with its own order: nobody is told. */
		LIST_FOR_EACH (node, &c->requests)
			CONTAINER_OF(node, struct request, node)->on_gone = NULL;
		connection_close(c);
	}
	timer_stop(&s->deadline);
	defer_stop(&s->reaper);
	defer_stop(&s->waker);
	tls_context_unref(s->config.tls);
	s->config.tls = NULL;
	server_unref(s);
}

void rpc_server_set_tls(struct rpc_server *s, struct tls_context *tls)
{
	struct tls_context *old = s->config.tls;

	s->config.tls = tls ? tls_context_ref(tls) : NULL;
	tls_context_unref(old);
}

void rpc_server_get_stats(const struct rpc_server *s, struct rpc_server_stats *out)
{
	*out = s->stats;
}

/* --- listening --- */

static int listener_limit(const struct rpc_server *s, enum rpc_transport transport)
{
	/* Root's next comes in beside all that are turned away, and before the one that
	 * is closed for it has gone. */
	return connection_places(s, transport) + connection_surplus_max(s) +
	       (transport == RPC_IPC ? 2 : 0);
}

void server_count_changed(struct rpc_server *s)
{
	LIST_FOR_EACH (node, &s->listeners) {
		struct server_listener *sl =
			CONTAINER_OF(node, struct server_listener, node);

		listener_set_open(sl->listener, (int)s->stats.connections);
	}
}

static void listener_accepted(void *arg, int fd)
{
	connection_accept(arg, fd);
}

/* "ADDRESS:PORT" with 127.x.y.z or [::1]. */
static bool is_loopback(const char *host_port)
{
	struct in_addr v4;
	char host[64];
	size_t len;

	if (strncmp(host_port, "[::1]:", 6) == 0)
		return true;
	len = strcspn(host_port, ":");
	if (len >= sizeof host)
		return false;
	memcpy(host, host_port, len);
	host[len] = '\0';
	return inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127;
}

/* Turns the URL into the reactor's address; sets the transport. */
static int parse_url(const struct rpc_server *s, const char *url, char *address,
	size_t size, enum rpc_transport *transport, struct rv_error *e)
{
	static const struct {
		const char *scheme, *address;
		enum rpc_transport transport;
	} schemes[] = {
		{"ipc://", "unix:", RPC_IPC},
		{"tcp://", "tcp:", RPC_TCP},
		{"tls+tcp://", "tcp:", RPC_TLS},
	};

	for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
		size_t len = strlen(schemes[i].scheme);
		const char *rest = url + len;

		if (strncmp(url, schemes[i].scheme, len) != 0)
			continue;
		*transport = schemes[i].transport;
		if (*transport == RPC_IPC && rest[0] != '/')
			break;
		if (*transport == RPC_TCP && !s->config.allow_remote_tcp &&
			!is_loopback(rest))
			return rv_error_set(e, RV_ENOTALLOWED,
				"%s: plain tcp is served on loopback only, passwords and "
				"data would cross the network readable; use tls+tcp://",
				url);
		if (*transport == RPC_TLS && !s->config.tls)
			return rv_error_set(e, RV_ETLS,
				"%s: no certificate is configured for tls+tcp", url);
		if (snprintf(address, size, "%s%s", schemes[i].address, rest) >=
			(int)size)
			return rv_error_set(
				e, RV_ETOOBIG, "%.64s...: the address is too long", url);
		return 0;
	}
	return rv_error_set(e, RV_EINVAL,
		"%.200s: no address to listen on; use ipc:///path, tcp://address:port or "
		"tls+tcp://address:port",
		url);
}

int rpc_server_listen(struct rpc_server *s, enum sp_protocol self, const char *url,
	int *port, struct rv_error *e)
{
	struct server_listener *sl;
	char address[URL_MAX];
	enum rpc_transport transport;
	int rc;

	assert(self == SP_REP || self == SP_PUB);
	rc = parse_url(s, url, address, sizeof address, &transport, e);
	if (rc)
		return rc;
	sl = calloc(1, sizeof *sl);
	if (!sl)
		return rv_error_set(e, RV_ENOMEM, "%s: out of memory", url);
	sl->server = s;
	sl->transport = transport;
	sl->self = self;
	rc = listener_open(&sl->listener, s->config.loop, address,
		listener_limit(s, transport), listener_accepted, sl, e);
	if (rc) {
		free(sl);
		rv_error_prefix(e, "%s", url);
		return rc;
	}
	list_push_back(&s->listeners, &sl->node);
	listener_set_open(sl->listener, (int)s->stats.connections);
	if (port)
		*port = transport == RPC_IPC ? 0 : listener_port(sl->listener);
	log_info("rpc.listen", "url=%s kind=%s", url, sp_protocol_name(self));
	return 0;
}

/* --- publishing --- */

static void publish_to(
	struct rpc_server *s, struct connection *c, const void *body, size_t len)
{
	uint8_t header[SP_MAX_HEADER_BYTES];
	struct iovec pieces[2] = {
		{header, sp_frame_encode(c->framing, header, len)},
		{(void *)body, len},
	};

	if (stream_queued(c->stream) + len > RPC_PUB_QUEUED_BYTES ||
		stream_write(c->stream, pieces, 2) != 0)
		s->stats.publish_dropped++;
	else
		s->stats.published++;
}

int rpc_server_publish(
	struct rpc_server *s, const char *method, const void *params, size_t len)
{
	size_t start = buf_len(&s->stage), body_len;
	int rc;

	assert(!s->replying);
	if (list_empty(&s->subscribers))
		return 0;
	if (len > RPC_PUB_QUEUED_BYTES / 2)
		return RV_ETOOBIG;
	s->reply_start = start;
	s->reply_overflow = false;
	rpc_pack_notification(&s->packer, method);
	rc = stage_write(s, params, len) ? RV_ENOMEM : 0;
	body_len = buf_len(&s->stage) - start;
	if (!rc) {
		LIST_FOR_EACH (node, &s->subscribers)
			publish_to(s, CONTAINER_OF(node, struct connection, sub_node),
				buf_data(&s->stage) + start, body_len);
	}
	s->stage.end -= body_len;
	return rc;
}
