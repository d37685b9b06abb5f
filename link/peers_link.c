/*
 * The connections of one peer and which of them counts.
 *
 * The pair's arbiter (lower UUID) alone decides; the other host follows its SELECT, so
 * the two never keep different ones. While the arbiter dials it holds back what the peer
 * dialled, for `settle_ms` at most; a connection that comes while another is up replaces
 * it only if the peer has seen that one go, or lives a new life.
 */
#include "link/peers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "link/peers_internal.h"

static const char *host_text(const struct peer *peer, char text[static UUID_TEXT_SIZE])
{
	return uuid_format(&peer->member.host, text);
}

void peer_set_state(struct peer *peer)
{
	enum peer_state state = PEER_IDLE;

	if (peer->current && peer->told_up)
		state = PEER_UP;
	else if (peer->dialling || peer->candidate || peer->current)
		state = PEER_DIALLING;
	else if (timer_active(&peer->retry))
		state = PEER_WAITING;
	if (state == peer->state)
		return;
	peer->state = state;
	peer->since_us = loop_now_us(peer->p->loop);
}

bool peer_pinned(const struct peer_member *m, const uint8_t fingerprint[static 32],
	int64_t issued_s)
{
	for (int i = 0; i < m->pin_count; i++)
		if (memcmp(m->pins[i], fingerprint, 32) == 0)
			return true;
	return m->pin_count == 0 || (m->issued_s && issued_s > m->issued_s);
}

/* --- ends --- */

void peer_link_free(struct peer_link *pl)
{
	list_remove(&pl->node);
	link_free(pl->link);
	free(pl);
}

void peer_link_drop(struct peer_link *pl, int rc, const char *reason)
{
	struct peer *peer = pl->peer;

	if (pl->over)
		return;
	pl->over = true;
	if (peer->dialling == pl)
		peer->dialling = NULL;
	if (peer->candidate == pl)
		peer->candidate = NULL;
	link_close(pl->link, rc, reason);
}

static void peer_down(struct peer *peer, int rc, const char *reason)
{
	char text[UUID_TEXT_SIZE];

	if (!peer->told_up)
		return;
	peer->told_up = false;
	snprintf(peer->reason, sizeof peer->reason, "%s", reason);
	/* One that lasted starts anew with the short pause. */
	if (loop_now_us(peer->p->loop) - peer->up_since_us >
		peer->p->config.backoff_max_ms * INT64_C(1000))
		peer->attempts = 0;
	peer_set_state(peer);
	log_info("link.down", "host=%s rc=%s msg=\"%s\"", host_text(peer, text),
		rv_error_symbol(rc), reason);
	peer->p->config.events->down(peer->p->config.arg, &peer->member.host, rc, reason);
}

/* --- the choice --- */

void peer_select(struct peer *peer, struct peer_link *pl)
{
	struct peer_link *former = peer->current;

	peer->number++;
	peer->incarnation = pl->hello.incarnation;
	if (peer->dialling == pl)
		peer->dialling = NULL;
	if (peer->candidate == pl)
		peer->candidate = NULL;
	peer->current = pl;
	timer_stop(&peer->retry);
	timer_stop(&peer->settle);
	LIST_FOR_EACH (node, &peer->links) {
		struct peer_link *other = CONTAINER_OF(node, struct peer_link, node);

		if (other != pl && other != former)
			peer_link_drop(other, RV_ECONFLICT, "another connection counts");
	}
	link_select(pl->link, peer->number);
	if (former) {
		peer_link_drop(former, RV_ECLOSED, "replaced by a newer connection");
		peer_down(peer, RV_ECLOSED, "replaced by a newer connection");
	}
	peer_set_state(peer);
}

static void peer_choose(struct peer *peer, struct peer_link *pl)
{
	if (peer->current) {
		if (pl->hello.incarnation != peer->incarnation ||
			pl->hello.selected == peer->number)
			peer_select(peer, pl);
		else
			peer_link_drop(pl, RV_ECONFLICT, "another connection counts");
		return;
	}
	if (pl->dialled || !peer->dialling) {
		peer_select(peer, pl);
		return;
	}
	if (peer->candidate)
		peer_link_drop(peer->candidate, RV_ECONFLICT, "a newer connection came");
	else
		timer_start_ms(&peer->settle, peer->p->config.settle_ms);
	peer->candidate = pl;
}

/* --- what a link tells --- */

static void on_hello(void *arg, const struct link_hello *hello)
{
	struct peer_link *pl = arg;
	const struct tls_peer *certificate = link_certificate(pl->link);
	struct peer *peer = pl->peer;

	if (pl->over)
		return;
	pl->hello = *hello;
	memcpy(pl->fingerprint, certificate->fingerprint, sizeof pl->fingerprint);
	if (!peer_pinned(&peer->member, pl->fingerprint, certificate->issued_s)) {
		peer_link_drop(pl, RV_EAUTH,
			"the certificate is not the one that the pool has on record");
		snprintf(peer->reason, sizeof peer->reason,
			"its certificate is not the one that the pool has on record");
		return;
	}
	if (link_is_arbiter(pl->link))
		peer_choose(peer, pl);
}

static void on_up(void *arg, uint64_t number)
{
	struct peer_link *pl = arg;
	struct peer *peer = pl->peer;
	char text[UUID_TEXT_SIZE];

	if (pl->over)
		return;
	if (!link_is_arbiter(pl->link)) {
		struct peer_link *former = peer->current;

		peer->number = number;
		peer->incarnation = pl->hello.incarnation;
		peer->current = pl;
		if (peer->dialling == pl)
			peer->dialling = NULL;
		timer_stop(&peer->retry);
		LIST_FOR_EACH (node, &peer->links) {
			struct peer_link *other =
				CONTAINER_OF(node, struct peer_link, node);

			if (other != pl)
				peer_link_drop(other, RV_ECONFLICT,
					"the peer chose another connection");
		}
		if (former)
			peer_down(peer, RV_ECLOSED, "replaced by a newer connection");
		if (pl->over)
			return; /* the owner removed it when it was told */
	}
	peer->told_up = true;
	peer->ups++;
	peer->up_since_us = loop_now_us(peer->p->loop);
	peer->attempts++;
	peer->reason[0] = '\0';
	peer_set_state(peer);
	log_info("link.up", "host=%s peer=%s dialled=%s", host_text(peer, text),
		link_peer_name(pl->link), pl->dialled ? "here" : "there");
	peer->p->config.events->up(peer->p->config.arg, &peer->member.host);
}

static void on_message(void *arg, enum link_channel channel, uint16_t type,
	const uint8_t *data, size_t len)
{
	struct peer_link *pl = arg;
	struct peers *p = pl->peer->p;

	if (!pl->over)
		p->config.events->message(
			p->config.arg, &pl->peer->member.host, channel, type, data, len);
}

static void on_room(void *arg, enum link_channel channel)
{
	struct peer_link *pl = arg;
	struct peers *p = pl->peer->p;

	if (!pl->over && p->config.events->room)
		p->config.events->room(p->config.arg, &pl->peer->member.host, channel);
}

static void note_failure(struct peer *peer, int rc, const char *reason)
{
	char text[UUID_TEXT_SIZE];

	peer->failures++;
	peer->attempts++;
	snprintf(peer->reason, sizeof peer->reason, "%s", reason);
	log_info("link.dial", "host=%s address=%s rc=%s attempt=%d msg=\"%s\"",
		host_text(peer, text), peer->member.address, rv_error_symbol(rc),
		peer->attempts, reason);
}

static void on_closed(void *arg, int rc, const char *reason)
{
	struct peer_link *pl = arg;
	struct peer *peer = pl->peer;
	struct peers *p = peer->p;

	/* Only a peer's GOODBYE bears that code, unless this side closed it itself. */
	if (rc == RV_EEJECTED && !pl->over && !peer->removed && p->config.events->ejected)
		p->config.events->ejected(p->config.arg, &peer->member.host, reason);
	if (peer->dialling == pl) {
		peer->dialling = NULL;
		/* Losing to the peer's own connection is no failure. */
		if (rc != RV_ECONFLICT)
			note_failure(peer, rc, reason);
	}
	if (peer->candidate == pl)
		peer->candidate = NULL;
	pl->over = true;
	/* The peer stays: this link is in its list until the owner has been told. */
	if (peer->current == pl) {
		peer->current = NULL;
		peer_down(peer, rc, reason);
	}
	peer_link_free(pl);
	peer_next_step(peer);
}

static const struct link_events peer_link_events = {
	.hello = on_hello,
	.up = on_up,
	.message = on_message,
	.room = on_room,
	.closed = on_closed,
};

/* --- beginnings --- */

struct link_timing peer_timing(const struct peer *peer)
{
	struct link_timing t = peer->p->timing;
	int calm = peer->member.calm > 1 ? peer->member.calm : 1;

	link_timing_fill(&t);
	t.probe_ms *= calm;
	t.silence_ms *= calm;
	t.deaf_ms *= calm;
	return t;
}

static int peer_link_new(struct peer *peer, struct stream *stream, bool dialled,
	struct peer_link **out, struct rv_error *e)
{
	struct peer_link *pl = calloc(1, sizeof *pl);
	struct link_config config = {.events = &peer_link_events,
		.arg = pl,
		.peer = peer->member.host,
		.timing = peer_timing(peer)};
	int rc;

	if (!pl) {
		stream_free(stream);
		return rv_error_set(e, RV_ENOMEM, "link: out of memory");
	}
	config.self.host = peer->p->config.self;
	config.self.incarnation = peer->p->incarnation;
	config.self.selected = peer->number;
	pl->peer = peer;
	pl->dialled = dialled;
	rc = link_open(&pl->link, peer->p->loop, stream, !dialled, &config, e);
	if (rc) {
		free(pl);
		return rc;
	}
	list_push_back(&peer->links, &pl->node);
	*out = pl;
	return 0;
}

void peer_dial(struct peer *peer)
{
	struct peers *p = peer->p;
	struct stream_config config;
	struct stream *stream;
	struct rv_error e = {0};
	int rc;

	link_stream_config(&config, p->config.tls);
	config.handshake_timeout_ms = p->config.dial_timeout_ms;
	if (p->config.dial)
		rc = p->config.dial(
			p->config.dial_arg, &peer->member, &config, &stream, &e);
	else
		rc = stream_connect(&stream, p->loop, peer->member.address, &config, &e);
	if (!rc)
		rc = peer_link_new(peer, stream, true, &peer->dialling, &e);
	if (rc) {
		note_failure(peer, rc, e.detail);
		peer_next_step(peer);
	}
	peer_set_state(peer);
}

int peer_take(struct peer *peer, struct stream *stream, struct rv_error *e)
{
	struct peer_link *pl;
	int count = 0;

	LIST_FOR_EACH (node, &peer->links)
		count += !CONTAINER_OF(node, struct peer_link, node)->over;
	if (count >= PEER_CONNECTIONS) {
		stream_free(stream);
		return rv_error_set(e, RV_ELIMIT, "too many connections of one host");
	}
	return peer_link_new(peer, stream, false, &pl, e);
}
