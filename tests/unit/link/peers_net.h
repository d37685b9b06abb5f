/*
 * Hosts on one simulated loop, each with its registry of peers and its port: what the
 * tests of link/peers.h share. After every event its rules hold.
 */
#ifndef REEVE_TESTS_LINK_PEERS_NET_H
#define REEVE_TESTS_LINK_PEERS_NET_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "link/peers.h"
#include "link/port.h"

enum { HOSTS_MAX = 5, WIRES_MAX = 4096 };

struct pool;

struct view { /* what one host has of another */
	bool member, up, pinned;
	uint64_t next_out;			  /* number of the next message to it */
	uint64_t last_in[LINK_CHANNELS], life_in; /* the last one that came */
	uint64_t ups, got;
};

struct host {
	struct pool *pool;
	int index;
	struct uuid uuid;
	struct peers *peers;
	struct port *port;
	uint64_t life;
	uint8_t certificate; /* stands for a fingerprint */
	struct view views[HOSTS_MAX];
};

struct wire {
	struct stream_sim_link *sim;
	int from, to;
};

struct pool {
	struct loop *loop;
	struct prng prng;
	uint64_t seed;
	int count;
	struct host hosts[HOSTS_MAX];
	bool cut[HOSTS_MAX][HOSTS_MAX];
	struct wire wires[WIRES_MAX];
	int wire_count;
	int in_call; /* inside a peers_ call: no callback may come */
	struct stream *strangers[64];
	int stranger_count;
	struct tally *tally;
	/* Takes the other end of what is dialled, in place of that host's port. */
	void (*answer)(void *arg, struct stream *stream);
	void *answer_arg;
};

/* Over all seeds: each kind of trouble must have happened. */
struct tally {
	uint64_t events, messages, ups, downs, cuts, one_way, resets, restarts, removals,
		rotations, strangers, garbage, refused;
};

#define HOLDS(pool, what)                                                                \
	do {                                                                             \
		if (!(what))                                                             \
			fail_msg("%s\n  replay: unit_link_peers_test %llu 1", #what,     \
				(unsigned long long)(pool)->seed);                       \
	} while (0)

static int index_of(const struct pool *p, const struct uuid *u)
{
	for (int i = 0; i < p->count; i++)
		if (uuid_eq(&p->hosts[i].uuid, u))
			return i;
	return -1;
}

/* --- callbacks --- */

static void on_up(void *arg, const struct uuid *peer)
{
	struct host *h = arg;
	struct view *v = &h->views[index_of(h->pool, peer)];

	HOLDS(h->pool, h->pool->in_call == 0);
	HOLDS(h->pool, !v->up);
	HOLDS(h->pool, v->member);
	v->up = true;
	v->ups++;
	h->pool->tally->ups++;
}

static void on_down(void *arg, const struct uuid *peer, int rc, const char *reason)
{
	struct host *h = arg;
	struct view *v = &h->views[index_of(h->pool, peer)];

	HOLDS(h->pool, h->pool->in_call == 0);
	HOLDS(h->pool, v->up);
	HOLDS(h->pool, rc < 0 && reason[0]);
	v->up = false;
	h->pool->tally->downs++;
}

static void on_message(void *arg, const struct uuid *peer, enum link_channel channel,
	uint16_t type, const uint8_t *data, size_t len)
{
	struct host *h = arg;
	int from = index_of(h->pool, peer);
	struct view *v = &h->views[from];
	uint64_t number, life;

	HOLDS(h->pool, h->pool->in_call == 0);
	HOLDS(h->pool, v->up);
	HOLDS(h->pool, v->member); /* nothing of a revoked one */
	HOLDS(h->pool, len >= 16 && type == from);
	memcpy(&life, data, 8);
	memcpy(&number, data + 8, 8);
	/* In order and at most once in each life of the sender; a former life never comes
	 * after a later one. */
	HOLDS(h->pool, life >= v->life_in);
	if (life > v->life_in)
		memset(v->last_in, 0, sizeof v->last_in);
	v->life_in = life;
	HOLDS(h->pool, number > v->last_in[channel]);
	v->last_in[channel] = number;
	v->got++;
	h->pool->tally->messages++;
	loop_sim_trace(h->pool->loop, data, 16);
}

static const struct peers_events events = {
	.up = on_up, .down = on_down, .message = on_message};

/* --- the network --- */

static size_t no_data(void *arg, const uint8_t *data, size_t len)
{
	(void)arg;
	(void)data;
	return len;
}

static void no_end(void *arg, int rc, const char *detail)
{
	(void)arg;
	(void)rc;
	(void)detail;
}

static const struct stream_events nobody = {.data = no_data, .closed = no_end};

static void show(const struct host *h, struct stream *end)
{
	struct tls_peer peer = {.has_certificate = true, .alpn = PORT_ALPN_LINK};

	uuid_format(&h->uuid, peer.uuid);
	peer.fingerprint[0] = h->certificate;
	assert_int_equal(stream_sim_set_tls_peer(end, &peer), 0);
}

static struct stream_sim_link *connect_hosts(struct pool *p, int from, int to,
	const struct stream_config *a, struct stream **end_a, struct stream **end_b)
{
	struct stream_config b = {.events = &nobody};
	struct stream_sim_link *sim;
	int64_t latency_us = prng_range(&p->prng, 20, 3000);

	assert_int_equal(stream_sim_pair(p->loop, a, &b, end_a, end_b, &sim), 0);
	stream_sim_set(sim, latency_us, latency_us * 2, 0);
	stream_sim_cut(sim, p->cut[from][to], p->cut[to][from]);
	assert_true(p->wire_count < WIRES_MAX);
	p->wires[p->wire_count++] = (struct wire){sim, from, to};
	show(&p->hosts[to], *end_a);
	show(&p->hosts[from], *end_b);
	return sim;
}

static int dial(void *arg, const struct peer_member *to,
	const struct stream_config *config, struct stream **out, struct rv_error *e)
{
	struct host *h = arg;
	struct pool *p = h->pool;
	int target = index_of(p, &to->host);
	struct stream *other;

	if (p->answer) {
		connect_hosts(p, h->index, target, config, out, &other);
		p->answer(p->answer_arg, other);
		return 0;
	}
	if (!p->hosts[target].port || prng_chance_ppm(&p->prng, 100000)) {
		p->tally->refused++;
		return rv_error_set(e, RV_ECLOSED, "connection refused (simulated)");
	}
	connect_hosts(p, h->index, target, config, out, &other);
	port_sim_accept(p->hosts[target].port, other);
	return 0;
}

static int admit(void *arg, const struct tls_peer *peer, struct rv_error *e)
{
	struct host *h = arg;
	struct uuid host;

	return peers_admit(h->peers, peer, &host, e);
}

static void accept_link(void *arg, struct stream *stream)
{
	struct host *h = arg;

	peers_accept(h->peers, stream);
	port_closed(h->port, PORT_ALPN_LINK); /* counted by peers themselves */
}

/* --- hosts --- */

static void set_member(struct host *h, int other, bool both_pins)
{
	struct pool *p = h->pool;
	struct peer_member m = {.host = p->hosts[other].uuid, .dial = true};
	struct rv_error e = {0};

	snprintf(m.address, sizeof m.address, "sim:%d", other);
	if (h->views[other].pinned) {
		m.pins[m.pin_count++][0] = p->hosts[other].certificate;
		if (both_pins)
			m.pins[m.pin_count++][0] =
				(uint8_t)(p->hosts[other].certificate + 1);
	}
	p->in_call++;
	assert_int_equal(peers_set(h->peers, &m, &e), 0);
	p->in_call--;
	h->views[other].member = true;
}

static void host_start(struct host *h)
{
	struct pool *p = h->pool;
	struct peers_config config = {.events = &events,
		.arg = h,
		.self = h->uuid,
		.dial = dial,
		.dial_arg = h};
	struct port_config port = {.admit = admit, .admit_arg = h};
	struct port_acceptor acceptor = {
		.alpn = PORT_ALPN_LINK, .accept = accept_link, .arg = h};
	struct rv_error e = {0};

	h->life++;
	assert_int_equal(peers_new(&h->peers, p->loop, &config, &e), 0);
	assert_int_equal(port_open(&h->port, p->loop, &port, &e), 0);
	assert_int_equal(port_register(h->port, &acceptor), 0);
	for (int i = 0; i < p->count; i++) {
		struct view *v = &h->views[i];

		v->up = false;
		v->next_out = 1;
		if (i != h->index)
			set_member(h, i, true);
	}
}

static void host_stop(struct host *h)
{
	struct pool *p = h->pool;

	p->in_call++;
	port_free(h->port);
	peers_free(h->peers);
	p->in_call--;
	h->port = NULL;
	h->peers = NULL;
}

/* --- a life --- */

static void count_events(void *arg)
{
	((struct pool *)arg)->tally->events++;
}

static struct pool *pool_new(uint64_t seed, struct tally *tally)
{
	struct pool *p = calloc(1, sizeof *p);

	p->seed = seed;
	p->tally = tally;
	prng_seed(&p->prng, seed);
	assert_int_equal(loop_new_sim(&p->loop, seed), 0);
	loop_sim_on_event(p->loop, count_events, p);
	p->count = (int)prng_range(&p->prng, 3, HOSTS_MAX);
	for (int i = 0; i < p->count; i++) {
		p->hosts[i].pool = p;
		p->hosts[i].index = i;
		p->hosts[i].uuid = uuid_random(&p->prng);
	}
	for (int i = 0; i < p->count; i++)
		host_start(&p->hosts[i]);
	return p;
}

static void pool_free(struct pool *p)
{
	for (int i = 0; i < p->count; i++)
		if (p->hosts[i].peers)
			host_stop(&p->hosts[i]);
	for (int i = 0; i < p->stranger_count; i++)
		stream_free(p->strangers[i]);
	for (int i = 0; i < p->wire_count; i++)
		stream_sim_link_free(p->wires[i].sim);
	loop_free(p->loop);
	free(p);
}

static void run_ms(struct pool *p, int64_t ms)
{
	loop_sim_run_until(p->loop, loop_now_us(p->loop) + ms * 1000);
}

#endif
