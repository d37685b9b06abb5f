#include "link/peers.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "link/peers_internal.h"

enum {
	BACKOFF_MIN_MS = 100,
	BACKOFF_MAX_MS = 5000,
	DIAL_TIMEOUT_MS = 3000,
	SETTLE_MS = 500,
};

static const char *const state_names[] = {
	[PEER_IDLE] = "idle",
	[PEER_WAITING] = "waiting",
	[PEER_DIALLING] = "dialling",
	[PEER_UP] = "up",
};

const char *peer_state_name(enum peer_state state)
{
	return state_names[state];
}

static struct peer *find(const struct peers *p, const struct uuid *host)
{
	return map_get(&p->members, host->b, sizeof host->b);
}

/* --- one peer --- */

static void peer_free(struct peer *peer)
{
	timer_stop(&peer->retry);
	timer_stop(&peer->settle);
	LIST_FOR_EACH_SAFE (node, &peer->links)
		peer_link_free(CONTAINER_OF(node, struct peer_link, node));
	free(peer);
}

/* min * 2^attempts, at most max; of that a random half. The first one after a link that
 * lasted may come at once. */
static int64_t draw_backoff_us(struct peer *peer)
{
	const struct peers_config *c = &peer->p->config;
	int64_t ms = c->backoff_min_ms;

	for (int i = 1; i < peer->attempts && ms < c->backoff_max_ms; i++)
		ms *= 2;
	if (ms > c->backoff_max_ms)
		ms = c->backoff_max_ms;
	if (peer->attempts == 0)
		return prng_range(&peer->p->prng, 0, ms * 500);
	return prng_range(&peer->p->prng, ms * 500, ms * 1000);
}

/* After anything has changed: what is left to do for a link. */
void peer_next_step(struct peer *peer)
{
	if (peer->removed) {
		if (list_empty(&peer->links)) {
			list_remove(&peer->node);
			peer_free(peer);
		}
		return;
	}
	if (!peer->current && !peer->dialling) {
		if (peer->candidate)
			peer_select(peer, peer->candidate);
		else if (!peer->member.dial || !peer->member.address[0])
			timer_stop(&peer->retry);
		else if (!timer_active(&peer->retry))
			timer_start_us(&peer->retry, draw_backoff_us(peer));
	}
	peer_set_state(peer);
}

static void retry_fired(void *arg)
{
	struct peer *peer = arg;

	if (!peer->current && !peer->dialling)
		peer_dial(peer);
}

/* Our own connection takes too long to hold back the one that is there. */
static void settle_fired(void *arg)
{
	struct peer *peer = arg;

	if (peer->candidate && !peer->current)
		peer_select(peer, peer->candidate);
}

static int peer_new(struct peers *p, const struct peer_member *member, struct peer **out)
{
	struct peer *peer = calloc(1, sizeof *peer);
	int rc;

	if (!peer)
		return RV_ENOMEM;
	peer->p = p;
	peer->member = *member;
	list_init(&peer->links);
	/* A former life's numbers, which the peer may still know, are far away. */
	peer->number = prng_next(&p->prng) >> 16 | 1;
	peer->since_us = loop_now_us(p->loop);
	timer_init(&peer->retry, p->loop, "link.retry", retry_fired, peer);
	timer_init(&peer->settle, p->loop, "link.settle", settle_fired, peer);
	rc = map_add(&p->members, peer->member.host.b, sizeof peer->member.host.b, peer);
	if (rc) {
		free(peer);
		return rc;
	}
	*out = peer;
	return 0;
}

/* --- the registry --- */

int peers_new(struct peers **out, struct loop *l, const struct peers_config *config,
	struct rv_error *e)
{
	struct peers *p = calloc(1, sizeof *p);
	struct peers_config *c;

	assert(config->events->up && config->events->down && config->events->message);
	assert(config->tls || config->dial);
	*out = NULL;
	if (!p)
		return rv_error_set(e, RV_ENOMEM, "peers: out of memory");
	p->loop = l;
	list_init(&p->leaving);
	p->config = *config;
	c = &p->config;
	if (c->backoff_min_ms <= 0)
		c->backoff_min_ms = BACKOFF_MIN_MS;
	if (c->backoff_max_ms <= 0)
		c->backoff_max_ms = BACKOFF_MAX_MS;
	if (c->dial_timeout_ms <= 0)
		c->dial_timeout_ms = DIAL_TIMEOUT_MS;
	if (c->settle_ms <= 0)
		c->settle_ms = SETTLE_MS;
	p->timing = config->timing;
	p->prng = prng_fork(loop_prng(l));
	do {
		p->incarnation = prng_next(&p->prng);
	} while (p->incarnation == 0);
	map_init(&p->members, prng_next(&p->prng));
	if (c->tls)
		tls_context_ref(c->tls);
	*out = p;
	return 0;
}

void peers_free(struct peers *p)
{
	struct peer *peer;
	size_t cursor = 0;

	if (!p)
		return;
	while ((peer = map_next(&p->members, &cursor)))
		peer_free(peer);
	LIST_FOR_EACH_SAFE (node, &p->leaving)
		peer_free(CONTAINER_OF(node, struct peer, node));
	map_fini(&p->members);
	tls_context_unref(p->config.tls);
	free(p);
}

static void peer_set_timing(struct peer *peer)
{
	struct link_timing timing = peer_timing(peer);

	LIST_FOR_EACH (node, &peer->links)
		link_set_timing(
			CONTAINER_OF(node, struct peer_link, node)->link, &timing);
}

/* What a changed record means for the links that are there. */
static void peer_changed(struct peer *peer)
{
	LIST_FOR_EACH (node, &peer->links) {
		struct peer_link *pl = CONTAINER_OF(node, struct peer_link, node);

		if (!pl->over && pl->hello.incarnation != 0 && !peer->member.replaced &&
			!peer_pinned(&peer->member, pl->fingerprint, 0))
			peer_link_drop(pl, RV_EAUTH,
				"the certificate was withdrawn from the pool's record");
	}
	if (!peer->member.dial && peer->dialling)
		peer_link_drop(peer->dialling, RV_ECANCELLED, "no longer wanted");
}

int peers_set(struct peers *p, const struct peer_member *member, struct rv_error *e)
{
	struct peer *peer = find(p, &member->host);
	int rc;

	assert(member->pin_count >= 0 && member->pin_count <= PEER_PINS);
	if (uuid_is_none(&member->host) || uuid_eq(&member->host, &p->config.self))
		return rv_error_set(
			e, RV_EINVAL, "peers: a member must be another host with a UUID");
	if (peer) {
		bool moved = strcmp(peer->member.address, member->address) != 0;

		bool calmer = peer->member.calm != member->calm;

		peer->member = *member;
		if (calmer)
			peer_set_timing(peer);
		peer_changed(peer);
		if (moved && !peer->current) { /* the old address' pauses don't count */
			peer->attempts = 0;
			timer_stop(&peer->retry);
		}
	} else {
		if (p->members.count >= PEERS_MAX)
			return rv_error_set(
				e, RV_ELIMIT, "peers: %d members at most", PEERS_MAX);
		rc = peer_new(p, member, &peer);
		if (rc)
			return rv_error_set(e, rc, "peers: out of memory");
	}
	peer_next_step(peer);
	return 0;
}

void peers_set_calm(struct peers *p, const struct uuid *host, int calm)
{
	struct peer *peer = find(p, host);

	if (!peer || peer->member.calm == calm)
		return;
	peer->member.calm = calm;
	peer_set_timing(peer);
}

int peers_remove(struct peers *p, const struct uuid *host)
{
	return peers_dismiss(p, host, RV_EPERM, "no longer a member of the pool");
}

int peers_dismiss(struct peers *p, const struct uuid *host, int rc, const char *reason)
{
	struct peer *peer = map_remove(&p->members, host->b, sizeof host->b);

	if (!peer)
		return RV_ENOENT;
	peer->removed = true;
	timer_stop(&peer->retry);
	timer_stop(&peer->settle);
	list_push_back(&p->leaving, &peer->node);
	LIST_FOR_EACH (node, &peer->links)
		peer_link_drop(CONTAINER_OF(node, struct peer_link, node), rc, reason);
	peer_next_step(peer);
	return 0;
}

void peers_set_tls(struct peers *p, struct tls_context *tls)
{
	tls_context_ref(tls);
	tls_context_unref(p->config.tls);
	p->config.tls = tls;
}

void peers_set_timing(struct peers *p, const struct link_timing *timing)
{
	struct peer *peer;
	size_t cursor = 0;

	p->timing = *timing;
	while ((peer = map_next(&p->members, &cursor)))
		peer_set_timing(peer);
}

/* --- admission --- */

int peers_admit(struct peers *p, const struct tls_peer *peer, struct uuid *host,
	struct rv_error *e)
{
	struct peer *member;

	if (peer && peer->unverified)
		return rv_error_set(e, RV_EAUTH,
			"the certificate of host %s is none of this pool's (%s)",
			*peer->claimed_uuid ? peer->claimed_uuid : "unknown",
			peer->unverified);
	if (!peer || !peer->has_certificate)
		return rv_error_set(e, RV_EAUTH, "no certificate");
	if (uuid_parse(host, peer->uuid, strlen(peer->uuid)) != 0)
		return rv_error_set(
			e, RV_EAUTH, "the certificate names no host (SAN urn:uuid)");
	member = find(p, host);
	if (!member)
		return rv_error_set(
			e, RV_EPERM, "host %s is not a member of this pool", peer->uuid);
	if (!peer_pinned(&member->member, peer->fingerprint, peer->issued_s))
		return rv_error_set(e, RV_EAUTH,
			"the certificate is not the one that the pool has on record for "
			"host %s",
			peer->uuid);
	return 0;
}

void peers_accept(struct peers *p, struct stream *stream)
{
	struct rv_error e = {0};
	struct uuid host;
	char peer[128];
	int rc;

	snprintf(peer, sizeof peer, "%s", stream_peer(stream));
	rc = peers_admit(p, stream_tls_peer(stream), &host, &e);
	if (rc)
		stream_free(stream);
	else
		rc = peer_take(find(p, &host), stream, &e);
	if (rc)
		log_warn("link.accept", "peer=%s rc=%s msg=\"%s\"", peer,
			rv_error_symbol(rc), e.detail);
}

/* --- messages --- */

static struct link *link_up(const struct peers *p, const struct uuid *host)
{
	struct peer *peer = find(p, host);

	if (!peer || !peer->told_up || !peer->current || peer->current->over)
		return NULL;
	return peer->current->link;
}

int peers_send(struct peers *p, const struct uuid *host, enum link_channel channel,
	uint16_t type, const struct iovec *pieces, int count)
{
	struct link *k = link_up(p, host);

	if (!k)
		return find(p, host) ? RV_ECLOSED : RV_ENOENT;
	return link_send(k, channel, type, pieces, count);
}

bool peers_is_up(const struct peers *p, const struct uuid *host)
{
	struct link *k = link_up(p, host);

	return k && link_is_up(k);
}

void peers_pause(struct peers *p, const struct uuid *host, enum link_channel channel)
{
	struct link *k = link_up(p, host);

	if (k)
		link_pause(k, channel);
}

void peers_resume(struct peers *p, const struct uuid *host, enum link_channel channel)
{
	struct link *k = link_up(p, host);

	if (k)
		link_resume(k, channel);
}

/* --- status --- */

static void peer_report(const struct peer *peer, struct peer_status *out)
{
	*out = (struct peer_status){.host = peer->member.host,
		.state = peer->state,
		.since_us = peer->since_us,
		.ups = peer->ups,
		.failures = peer->failures};
	snprintf(out->address, sizeof out->address, "%s", peer->member.address);
	snprintf(out->reason, sizeof out->reason, "%s", peer->reason);
	if (peer->state == PEER_UP && peer->current && !peer->current->over) {
		out->dialled = peer->current->dialled;
		memcpy(out->fingerprint, peer->current->fingerprint,
			sizeof out->fingerprint);
		link_stats(peer->current->link, &out->link);
	}
}

int peers_status(const struct peers *p, const struct uuid *host, struct peer_status *out)
{
	const struct peer *peer = find(p, host);

	if (!peer)
		return RV_ENOENT;
	peer_report(peer, out);
	return 0;
}

bool peers_next(const struct peers *p, size_t *cursor, struct peer_status *out)
{
	const struct peer *peer = map_next(&p->members, cursor);

	if (peer)
		peer_report(peer, out);
	return peer;
}
