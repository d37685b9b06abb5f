#include "link/port.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "link/frame.h"

enum {
	PORT_CONNECTIONS = 8192,
	PORT_HANDSHAKES = 256,
	PORT_HANDSHAKE_MS = 5000,
	PORT_LOG_MS = 1000,
};

/* A connection before its purpose is known. */
struct greeting {
	struct list node; /* oldest first */
	struct port *port;
	struct stream *stream;
	bool refused; /* told so; its connection is being closed */
};

struct port_slot {
	struct port_acceptor acceptor;
	int open;
};

struct port {
	struct loop *loop;
	struct port_config config;
	struct listener *listener;
	struct port_slot slots[PORT_ACCEPTORS];
	int slot_count, open;
	struct list greetings;
	int greeting_count;
	struct port_stats stats;
	int64_t logged_us;
	uint64_t unlogged;
};

/* Strangers can make us refuse as often as they like, but not fill the logs. */
static void log_refusal(struct port *p, const char *peer, const char *why)
{
	int64_t now_us = loop_now_us(p->loop);

	if (p->logged_us && now_us - p->logged_us < PORT_LOG_MS * INT64_C(1000)) {
		p->unlogged++;
		return;
	}
	log_warn("link.port", "peer=%s unlogged=%llu msg=\"refused: %s\"", peer,
		(unsigned long long)p->unlogged, why);
	p->logged_us = now_us;
	p->unlogged = 0;
}

static void port_count(struct port *p)
{
	if (p->listener)
		listener_set_open(p->listener, p->open + p->greeting_count);
}

static void greeting_free(struct greeting *g)
{
	list_remove(&g->node);
	g->port->greeting_count--;
	port_count(g->port);
	stream_free(g->stream);
	free(g);
}

/* --- what is it for? --- */

static struct port_slot *find_slot(struct port *p, const char *alpn)
{
	for (int i = 0; i < p->slot_count; i++)
		if (strcmp(p->slots[i].acceptor.alpn, alpn) == 0)
			return &p->slots[i];
	return NULL;
}

/* 0, or why the connection goes no further; counted. */
static int port_judge(struct port *p, const struct port_slot *slot,
	const struct tls_peer *peer, struct rv_error *e)
{
	if (!slot) {
		p->stats.refused_alpn++;
		return rv_error_set(e, RV_EPROTO, "nothing here speaks \"%s\"",
			peer ? peer->alpn : "");
	}
	if (slot->acceptor.max > 0 && slot->open >= slot->acceptor.max) {
		p->stats.refused_limit++;
		return rv_error_set(e, RV_ELIMIT, "%d connections of %s already",
			slot->open, slot->acceptor.alpn);
	}
	if (slot->acceptor.strangers)
		return 0;
	if (peer->unverified) {
		p->stats.refused_unknown++;
		if (p->config.admit && p->config.admit(p->config.admit_arg, peer, e) != 0)
			return e->code;
		return rv_error_set(e, RV_EAUTH, "its certificate does not verify (%s)",
			peer->unverified);
	}
	if (!peer->has_certificate) {
		p->stats.refused_unknown++;
		return rv_error_set(
			e, RV_EPERM, "%s needs a certificate", slot->acceptor.alpn);
	}
	if (p->config.admit && p->config.admit(p->config.admit_arg, peer, e) != 0) {
		p->stats.refused_unknown++;
		return e->code;
	}
	return 0;
}

/* A former member learns that it is one no more, another one that its certificate is not
 * accepted: see link/frame.h, GOODBYE. */
static void greeting_dismiss(struct greeting *g, const struct rv_error *why)
{
	uint8_t head[LINK_FRAME_HEAD + 4];
	size_t len = strnlen(why->detail, LINK_REASON_MAX);
	struct iovec pieces[2] = {{head, sizeof head}, {(void *)why->detail, len}};

	link_frame_head(head, LINK_GOODBYE, 0, 0, (uint32_t)len + 4);
	link_put32(head + LINK_FRAME_HEAD, (uint32_t)-why->code);
	if (stream_write(g->stream, pieces, 2)) {
		greeting_free(g);
		return;
	}
	g->refused = true;
	stream_close_after_flush(g->stream);
}

static void greeting_ready(void *arg)
{
	struct greeting *g = arg;
	struct port *p = g->port;
	const struct tls_peer *peer = stream_tls_peer(g->stream);
	struct port_slot *slot = peer ? find_slot(p, peer->alpn) : NULL;
	struct stream *stream = g->stream;
	struct rv_error e = {0};

	if (port_judge(p, slot, peer, &e) != 0) {
		log_refusal(p, stream_peer(stream), e.detail);
		if ((e.code == RV_EEJECTED || e.code == RV_EAUTH) &&
			strcmp(peer->alpn, PORT_ALPN_LINK) == 0)
			greeting_dismiss(g, &e);
		else
			greeting_free(g);
		return;
	}
	g->stream = NULL;
	greeting_free(g);
	slot->open++;
	p->open++;
	p->stats.accepted++;
	port_count(p);
	slot->acceptor.accept(slot->acceptor.arg, stream);
}

static size_t greeting_data(void *arg, const uint8_t *data, size_t len)
{
	(void)arg;
	(void)data;
	(void)len;
	return 0; /* for whoever takes over; never before `ready` */
}

static void greeting_closed(void *arg, int rc, const char *detail)
{
	struct greeting *g = arg;

	(void)rc;
	if (!g->refused) {
		g->port->stats.failed_handshakes++;
		log_refusal(g->port, stream_peer(g->stream), detail);
	}
	greeting_free(g);
}

static const struct stream_events greeting_events = {
	.data = greeting_data,
	.ready = greeting_ready,
	.closed = greeting_closed,
};

static struct greeting *greeting_new(struct port *p)
{
	struct greeting *g = calloc(1, sizeof *g);

	if (!g)
		return NULL;
	if (p->greeting_count >= p->config.max_handshakes) {
		struct greeting *oldest =
			CONTAINER_OF(p->greetings.next, struct greeting, node);

		p->stats.evicted++;
		log_refusal(p, stream_peer(oldest->stream),
			"too many unfinished handshakes; the oldest gives way");
		greeting_free(oldest);
	}
	g->port = p;
	list_push_back(&p->greetings, &g->node);
	p->greeting_count++;
	port_count(p);
	return g;
}

static void port_config_stream(
	const struct port *p, struct greeting *g, struct stream_config *config)
{
	*config = (struct stream_config){.events = &greeting_events,
		.arg = g,
		.name = "link.greeting",
		.tls = p->config.tls,
		.handshake_timeout_ms = p->config.handshake_timeout_ms};
}

static void port_connected(void *arg, int fd)
{
	struct port *p = arg;
	struct greeting *g = greeting_new(p);
	struct stream_config config;
	struct rv_error e = {0};

	if (!g) {
		close(fd);
		return;
	}
	port_config_stream(p, g, &config);
	if (stream_open(&g->stream, p->loop, fd, true, &config, &e) != 0) {
		log_refusal(p, "unknown", e.detail);
		greeting_free(g);
	}
}

void port_sim_accept(struct port *p, struct stream *stream)
{
	struct greeting *g = greeting_new(p);
	struct stream_config config;

	if (!g) {
		stream_free(stream);
		return;
	}
	port_config_stream(p, g, &config);
	g->stream = stream;
	stream_take_over(stream, &config);
}

/* --- the port --- */

int port_open(struct port **out, struct loop *l, const struct port_config *config,
	struct rv_error *e)
{
	struct port *p = calloc(1, sizeof *p);
	int rc = 0;

	*out = NULL;
	if (!p)
		return rv_error_set(e, RV_ENOMEM, "port: out of memory");
	p->loop = l;
	p->config = *config;
	list_init(&p->greetings);
	if (p->config.max_connections <= 0)
		p->config.max_connections = PORT_CONNECTIONS;
	if (p->config.max_handshakes <= 0)
		p->config.max_handshakes = PORT_HANDSHAKES;
	if (p->config.handshake_timeout_ms <= 0)
		p->config.handshake_timeout_ms = PORT_HANDSHAKE_MS;
	if (config->tls)
		tls_context_ref(config->tls);
	if (config->address) {
		assert(config->tls);
		rc = listener_open(&p->listener, l, config->address,
			p->config.max_connections, port_connected, p, e);
	}
	if (rc) {
		port_free(p);
		return rc;
	}
	*out = p;
	return 0;
}

void port_free(struct port *p)
{
	if (!p)
		return;
	listener_free(p->listener);
	p->listener = NULL;
	LIST_FOR_EACH_SAFE (node, &p->greetings)
		greeting_free(CONTAINER_OF(node, struct greeting, node));
	tls_context_unref(p->config.tls);
	free(p);
}

int port_register(struct port *p, const struct port_acceptor *acceptor)
{
	if (find_slot(p, acceptor->alpn))
		return RV_EEXIST;
	if (p->slot_count >= PORT_ACCEPTORS)
		return RV_ELIMIT;
	p->slots[p->slot_count++].acceptor = *acceptor;
	return 0;
}

void port_closed(struct port *p, const char *alpn)
{
	struct port_slot *slot = find_slot(p, alpn);

	assert(slot && slot->open > 0);
	slot->open--;
	p->open--;
	port_count(p);
}

void port_set_tls(struct port *p, struct tls_context *tls)
{
	tls_context_ref(tls);
	tls_context_unref(p->config.tls);
	p->config.tls = tls;
}

int port_number(const struct port *p)
{
	return listener_port(p->listener);
}

void port_stats(const struct port *p, struct port_stats *out)
{
	*out = p->stats;
	out->open = p->open;
	out->handshakes = p->greeting_count;
}

/* --- contexts --- */

int port_tls(struct tls_context **out, const char *cert_pem, const char *key_pem,
	const char *ca_pem, struct rv_error *e)
{
	static const char *const alpn[] = {PORT_ALPN_LINK, PORT_ALPN_MIGRATE,
		PORT_ALPN_CONSOLE, PORT_ALPN_JOIN, NULL};
	struct tls_config config = {.profile = TLS_LINK,
		.server = true,
		.verify = TLS_VERIFY_LENIENT,
		.cert_pem = cert_pem,
		.key_pem = key_pem,
		.ca_pem = ca_pem,
		.alpn = alpn};

	return tls_context_new(out, &config, e);
}

int port_client_tls(struct tls_context **out, const char *alpn, const char *cert_pem,
	const char *key_pem, const char *ca_pem, struct rv_error *e)
{
	const char *const names[] = {alpn, NULL};
	struct tls_config config = {.profile = TLS_LINK,
		.verify = TLS_VERIFY_REQUIRED,
		.cert_pem = cert_pem,
		.key_pem = key_pem,
		.ca_pem = ca_pem,
		.alpn = names};

	return tls_context_new(out, &config, e);
}
