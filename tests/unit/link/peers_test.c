/*
 * Pools of three to five hosts on one simulated loop, each with its registry and port:
 * connections are cut, reset and refused, hosts restart, certificates rotate, members are
 * removed and come back, strangers knock. After every event the rules of link/peers.h
 * hold; when the trouble ends, all links come up.
 *
 *	unit_link_peers_test [FIRST_SEED [COUNT]]
 */
#include "link/peers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "link/port.h"

enum { HOSTS_MAX = 5, WIRES_MAX = 4096, SEEDS = 500 };

struct pool;
struct duel_end;

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
	struct duel_end *dialled; /* takes the other end of what host 0 dials */
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

/* --- callbacks ------------------------------------------------------------------------
 */

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

/* --- the network ----------------------------------------------------------------------
 */

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

static void duel_answer(struct duel_end *end, struct stream *stream);

static int dial(void *arg, const struct peer_member *to,
	const struct stream_config *config, struct stream **out, struct rv_error *e)
{
	struct host *h = arg;
	struct pool *p = h->pool;
	int target = index_of(p, &to->host);
	struct stream *other;

	if (p->dialled) {
		connect_hosts(p, h->index, target, config, out, &other);
		duel_answer(p->dialled, other);
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

/* --- hosts ----------------------------------------------------------------------------
 */

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

/* --- trouble --------------------------------------------------------------------------
 */

static void set_cut(struct pool *p, int a, int b, bool to, bool back)
{
	p->cut[a][b] = to;
	p->cut[b][a] = back;
	for (int i = 0; i < p->wire_count; i++) {
		const struct wire *w = &p->wires[i];

		if (w->from == a && w->to == b)
			stream_sim_cut(w->sim, to, back);
		else if (w->from == b && w->to == a)
			stream_sim_cut(w->sim, back, to);
	}
}

/* Somebody with no, a foreign or a member's certificate who speaks nonsense. */
static void stranger(struct pool *p)
{
	struct host *target = &p->hosts[prng_below(&p->prng, (uint64_t)p->count)];
	struct stream_config none = {.events = &nobody};
	struct tls_peer peer = {.alpn = PORT_ALPN_LINK};
	struct stream *a, *b;
	uint8_t noise[64];
	struct iovec piece = {noise, sizeof noise};

	if (!target->port || p->stranger_count >= 64)
		return;
	connect_hosts(p, 0, target->index, &none, &a, &b);
	p->strangers[p->stranger_count++] = a;
	for (size_t i = 0; i < sizeof noise; i++)
		noise[i] = (uint8_t)prng_next(&p->prng);
	switch (prng_below(&p->prng, 3)) {
	case 0:
		p->tally->strangers++;
		break;
	case 1:
		peer.has_certificate = true;
		snprintf(peer.uuid, sizeof peer.uuid,
			"01234567-89ab-4def-8123-456789abcdef");
		p->tally->strangers++;
		break;
	default:
		peer.has_certificate = true;
		uuid_format(&p->hosts[prng_below(&p->prng, (uint64_t)p->count)].uuid,
			peer.uuid);
		noise[0] = LINK_FRAME_VERSION;
		p->tally->garbage++;
	}
	assert_int_equal(stream_sim_set_tls_peer(b, &peer), 0);
	assert_int_equal(stream_write(a, &piece, 1), 0);
	port_sim_accept(target->port, b);
}

static void send_some(struct pool *p)
{
	static uint8_t data[100000];

	for (int i = 0; i < p->count; i++)
		for (int j = 0; j < p->count; j++) {
			struct host *h = &p->hosts[i];
			enum link_channel channel =
				(enum link_channel)prng_below(&p->prng, LINK_CHANNELS);
			size_t len = prng_chance_ppm(&p->prng, 50000) ? sizeof data : 40;
			struct iovec piece = {data, len};
			int rc;

			if (i == j || !h->peers)
				continue;
			memcpy(data, &h->life, 8);
			memcpy(data + 8, &h->views[j].next_out, 8);
			h->views[j].next_out++;
			p->in_call++;
			rc = peers_send(h->peers, &p->hosts[j].uuid, channel, (uint16_t)i,
				&piece, 1);
			p->in_call--;
			HOLDS(p, rc == 0 || rc == RV_ECLOSED || rc == RV_EAGAIN ||
					 rc == RV_ENOENT);
			HOLDS(p, rc != 0 || h->views[j].up);
			HOLDS(p, (rc == RV_ENOENT) == !h->views[j].member);
		}
}

static void trouble(struct pool *p)
{
	uint64_t n = (uint64_t)p->count;
	int a = (int)prng_below(&p->prng, n), b = (int)prng_below(&p->prng, n);
	struct host *h = &p->hosts[a];

	if (a == b)
		b = (a + 1) % p->count;
	switch (prng_below(&p->prng, 9)) {
	case 0:
		set_cut(p, a, b, true, true);
		p->tally->cuts++;
		break;
	case 1:
		set_cut(p, a, b, true, false);
		p->tally->one_way++;
		break;
	case 2:
	case 3:
		set_cut(p, a, b, false, false);
		break;
	case 4:
		for (int i = 0; i < p->wire_count; i++)
			if ((p->wires[i].from == a && p->wires[i].to == b) ||
				(p->wires[i].from == b && p->wires[i].to == a))
				stream_sim_reset(p->wires[i].sim);
		p->tally->resets++;
		break;
	case 5:
		if (h->peers)
			host_stop(h);
		else
			host_start(h);
		p->tally->restarts++;
		break;
	case 6:
		if (!h->peers)
			break;
		if (h->views[b].member) {
			p->in_call++;
			assert_int_equal(peers_remove(h->peers, &p->hosts[b].uuid), 0);
			p->in_call--;
			h->views[b].member = false;
			p->tally->removals++;
		} else {
			set_member(h, b, true);
		}
		break;
	case 7: /* a new certificate, on record with the others before */
		h->certificate++;
		for (int i = 0; i < p->count; i++)
			if (i != a && p->hosts[i].peers && p->hosts[i].views[a].member) {
				p->hosts[i].views[a].pinned = true;
				/* the old one stays good for a while, or not */
				set_member(&p->hosts[i], a,
					prng_chance_ppm(&p->prng, 500000));
			}
		p->tally->rotations++;
		break;
	default:
		stranger(p);
	}
}

/* --- a life ---------------------------------------------------------------------------
 */

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

static void heal(struct pool *p)
{
	for (int i = 0; i < p->count; i++)
		for (int j = 0; j < i; j++)
			set_cut(p, i, j, false, false);
	for (int i = 0; i < p->count; i++)
		if (!p->hosts[i].peers)
			host_start(&p->hosts[i]);
	for (int i = 0; i < p->count; i++)
		for (int j = 0; j < p->count; j++)
			if (i != j)
				set_member(&p->hosts[i], j, false);
}

static void all_linked(struct pool *p)
{
	struct peer_status status;

	for (int i = 0; i < p->count; i++)
		for (int j = 0; j < p->count; j++) {
			struct host *h = &p->hosts[i];
			uint64_t got;

			if (i == j)
				continue;
			HOLDS(p, peers_is_up(h->peers, &p->hosts[j].uuid));
			assert_int_equal(
				peers_status(h->peers, &p->hosts[j].uuid, &status), 0);
			HOLDS(p, status.state == PEER_UP);
			HOLDS(p, status.link.clock.known);
			got = h->views[j].got;
			send_some(p);
			run_ms(p, 200);
			HOLDS(p, h->views[j].got > got);
		}
}

static void one_seed(uint64_t seed, struct tally *tally)
{
	struct pool *p = pool_new(seed, tally);

	for (int i = 0; i < 60; i++) {
		run_ms(p, prng_range(&p->prng, 1, 400));
		send_some(p);
		trouble(p);
	}
	heal(p);
	run_ms(p, 20000);
	all_linked(p);
	pool_free(p);
}

static uint64_t first_seed = 1, seed_count = SEEDS;

static void test_seeds(void **state)
{
	struct tally t = {0};

	(void)state;
	for (uint64_t seed = first_seed; seed < first_seed + seed_count; seed++)
		one_seed(seed, &t);
	printf("seeds=%llu events=%llu messages=%llu ups=%llu downs=%llu cuts=%llu "
	       "one_way=%llu resets=%llu restarts=%llu removals=%llu rotations=%llu "
	       "strangers=%llu garbage=%llu refused=%llu\n",
		(unsigned long long)seed_count, (unsigned long long)t.events,
		(unsigned long long)t.messages, (unsigned long long)t.ups,
		(unsigned long long)t.downs, (unsigned long long)t.cuts,
		(unsigned long long)t.one_way, (unsigned long long)t.resets,
		(unsigned long long)t.restarts, (unsigned long long)t.removals,
		(unsigned long long)t.rotations, (unsigned long long)t.strangers,
		(unsigned long long)t.garbage, (unsigned long long)t.refused);
	if (seed_count < 20)
		return;
	assert_true(t.messages && t.cuts && t.one_way && t.resets && t.restarts);
	assert_true(t.removals && t.rotations && t.strangers && t.garbage && t.refused);
}

static void test_same_seed_same_trace(void **state)
{
	uint64_t hash[2];
	struct tally t = {0};

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct pool *p = pool_new(77, &t);

		for (int j = 0; j < 20; j++) {
			run_ms(p, 100);
			send_some(p);
			trouble(p);
		}
		hash[i] = loop_sim_trace_hash(p->loop);
		pool_free(p);
	}
	assert_true(hash[0] == hash[1]);
}

/* Nothing but strangers and removed members: no link, nothing leaks, all is counted. */
static void test_removed_at_once(void **state)
{
	struct tally t = {0};
	struct pool *p = pool_new(5, &t);
	struct host *h = &p->hosts[0];
	struct peer_status status;
	struct port_stats stats;

	(void)state;
	run_ms(p, 2000);
	assert_true(h->views[1].up);
	send_some(p);
	p->in_call++;
	assert_int_equal(peers_remove(h->peers, &p->hosts[1].uuid), 0);
	h->views[1].member = false;
	p->in_call--;
	assert_false(peers_is_up(h->peers, &p->hosts[1].uuid));
	assert_int_equal(peers_status(h->peers, &p->hosts[1].uuid, &status), RV_ENOENT);
	assert_int_equal(peers_remove(h->peers, &p->hosts[1].uuid), RV_ENOENT);
	run_ms(p, 100);
	assert_false(h->views[1].up);
	assert_false(p->hosts[1].views[0].up);
	run_ms(p, 10000);
	assert_false(p->hosts[1].views[0].up);
	port_stats(h->port, &stats);
	assert_true(stats.refused_unknown > 0);
	assert_int_equal(peers_status(p->hosts[1].peers, &h->uuid, &status), 0);
	assert_true(status.reason[0] && status.failures > 0);
	/* Back again. */
	set_member(h, 1, true);
	run_ms(p, 10000);
	assert_true(h->views[1].up && p->hosts[1].views[0].up);
	pool_free(p);
}

/* A certificate on record beside the next one: the link stays; alone: it is made anew. */
static void test_rotation(void **state)
{
	struct tally t = {0};
	struct pool *p = pool_new(6, &t);
	struct host *a = &p->hosts[0], *b = &p->hosts[1];
	struct peer_member m = {.host = a->uuid, .dial = true, .pin_count = 2};
	struct rv_error e = {0};
	uint64_t ups;

	(void)state;
	snprintf(m.address, sizeof m.address, "sim:0");
	m.pins[0][0] = a->certificate;
	m.pins[1][0] = (uint8_t)(a->certificate + 1);
	run_ms(p, 2000);
	ups = b->views[0].ups;
	assert_true(ups > 0);
	assert_int_equal(peers_set(b->peers, &m, &e), 0);
	a->certificate++;
	run_ms(p, 3000);
	assert_int_equal(b->views[0].ups, ups);
	assert_true(b->views[0].up);
	m.pin_count = 1;
	memcpy(m.pins[0], m.pins[1], 32);
	assert_int_equal(peers_set(b->peers, &m, &e), 0);
	assert_false(peers_is_up(b->peers, &a->uuid));
	run_ms(p, 5000);
	assert_true(b->views[0].up);
	assert_int_equal(b->views[0].ups, ups + 1);
	pool_free(p);
}

/* --- against a peer whose every frame the test writes ---------------------------------
 */

/* One host and a peer (host 1, which never starts) with two connections. */
struct duel {
	struct pool *pool;
	struct host *host;
	struct stream *ends[2];
	uint8_t got[2][512];
	size_t got_len[2];
	bool over[2];
};

struct duel_end {
	struct duel *duel;
	int index;
};

static size_t duel_data(void *arg, const uint8_t *data, size_t len)
{
	struct duel_end *end = arg;
	struct duel *d = end->duel;
	size_t room = sizeof d->got[0] - d->got_len[end->index],
	       n = len < room ? len : room;

	memcpy(d->got[end->index] + d->got_len[end->index], data, n);
	d->got_len[end->index] += n;
	return len;
}

static void duel_closed(void *arg, int rc, const char *detail)
{
	struct duel_end *end = arg;

	(void)rc;
	(void)detail;
	end->duel->over[end->index] = true;
}

static const struct stream_events duel_events = {
	.data = duel_data, .closed = duel_closed};

/* The number in the SELECT that came, or 0. */
static uint64_t duel_selected(const struct duel *d, int i)
{
	struct link_frame f;
	struct rv_error e;
	size_t at = 0, used;

	while (link_frame_decode(&f, d->got[i] + at, d->got_len[i] - at, &used, &e) ==
		0) {
		if (f.kind == LINK_SELECT)
			return link_get64(f.payload);
		at += used;
	}
	return 0;
}

static void duel_write(struct duel *d, int i, const uint8_t *bytes, size_t len)
{
	struct iovec piece = {(void *)bytes, len};

	(void)!stream_write(d->ends[i], &piece, 1);
}

static void duel_open(struct duel *d, struct duel_end *end)
{
	struct pool *p = d->pool;
	struct stream_config a = {.events = &duel_events, .arg = end};
	struct stream *other;

	connect_hosts(p, 1, 0, &a, &d->ends[end->index], &other);
	port_sim_accept(d->host->port, other);
}

static void duel_hello(struct duel *d, int i, uint64_t selected)
{
	struct link_hello hello = {1, 1, d->pool->hosts[1].uuid, 77, selected};
	uint8_t frame[LINK_FRAME_HEAD + LINK_HELLO_SIZE];

	link_frame_head(frame, LINK_HELLO, 0, 0, LINK_HELLO_SIZE);
	link_hello_encode(frame + LINK_FRAME_HEAD, &hello);
	duel_write(d, i, frame, sizeof frame);
}

static void duel_answer(struct duel_end *end, struct stream *stream)
{
	struct stream_config config = {.events = &duel_events, .arg = end};

	if (end->duel->ends[end->index]) { /* it dials again: refused, in a way */
		stream_free(stream);
		return;
	}
	end->duel->ends[end->index] = stream;
	stream_take_over(stream, &config);
}

static void duel_message(struct duel *d, int i, uint64_t number)
{
	uint8_t frame[LINK_FRAME_HEAD + LINK_START_SIZE + 16] = {0};
	uint64_t life = 1;

	link_frame_head(
		frame, LINK_DATA, LINK_RPC, LINK_FIRST | LINK_LAST, LINK_START_SIZE + 16);
	link_put16(frame + 8, 1);
	link_put32(frame + 10, 16);
	memcpy(frame + 14, &life, 8);
	memcpy(frame + 22, &number, 8);
	duel_write(d, i, frame, sizeof frame);
}

static void duel_select(struct duel *d, int i, uint64_t number)
{
	uint8_t frame[LINK_FRAME_HEAD + LINK_SELECT_SIZE];

	link_frame_head(frame, LINK_SELECT, 0, 0, LINK_SELECT_SIZE);
	link_put64(frame + 8, number);
	duel_write(d, i, frame, sizeof frame);
}

/* `arbiter`: the tested host is the pair's. */
static void duel(bool arbiter, bool late_hello)
{
	struct tally t = {0};
	struct pool *p = pool_new(11, &t);
	struct duel d = {.pool = p, .host = &p->hosts[0]};
	struct duel_end ends[2] = {{&d, 0}, {&d, 1}};
	struct view *v = &d.host->views[1];

	for (int i = 0; i < p->count; i++)
		host_stop(&p->hosts[i]);
	p->count = 2;
	p->hosts[0].uuid.b[0] = arbiter ? 1 : 200;
	p->hosts[1].uuid.b[0] = 100;
	host_start(d.host);
	duel_open(&d, &ends[0]);
	duel_hello(&d, 0, 0);
	run_ms(p, 50);
	if (!arbiter) {
		assert_int_equal(duel_selected(&d, 0), 0);
		duel_select(&d, 0, 5);
	}
	duel_message(&d, 0, 1);
	run_ms(p, 50);
	assert_true(v->up);
	assert_int_equal(v->got, 1);
	/* The second connection: of a peer that has seen the first go, or (late) not. */
	duel_open(&d, &ends[1]);
	duel_hello(&d, 1, !arbiter ? 5 : late_hello ? 0 : duel_selected(&d, 0));
	run_ms(p, 50);
	if (arbiter)
		assert_int_equal(
			duel_selected(&d, 1) > duel_selected(&d, 0), !late_hello);
	else
		duel_select(&d, 1, 6);
	run_ms(p, 50);
	assert_true(v->up);
	assert_int_equal(v->ups, late_hello ? 1 : 2);
	assert_true(d.over[late_hello ? 1 : 0]);
	assert_false(d.over[late_hello ? 0 : 1]);
	/* Only the chosen one delivers. */
	duel_message(&d, late_hello ? 1 : 0, 2);
	run_ms(p, 50);
	assert_int_equal(v->got, 1);
	duel_message(&d, late_hello ? 0 : 1, 3);
	run_ms(p, 50);
	assert_int_equal(v->got, 2);
	host_stop(d.host);
	stream_free(d.ends[0]);
	stream_free(d.ends[1]);
	pool_free(p);
}

static void test_replaced_links_are_silent(void **state)
{
	(void)state;
	duel(true, false);
	duel(false, false);
	duel(true, true);
}

/* The arbiter dials while the peer's connection is there already: its own wins, if it
 * comes to something in time. */
static void crossing(bool answers)
{
	struct tally t = {0};
	struct pool *p = pool_new(12, &t);
	struct duel d = {.pool = p, .host = &p->hosts[0]};
	struct duel_end ends[2] = {{&d, 0}, {&d, 1}};
	struct peer_status status;

	for (int i = 0; i < p->count; i++)
		host_stop(&p->hosts[i]);
	p->count = 2;
	p->hosts[0].uuid.b[0] = 1;
	p->hosts[1].uuid.b[0] = 100;
	p->dialled = &ends[0];
	host_start(d.host);
	while (!d.ends[0])
		run_ms(p, 1);
	duel_open(&d, &ends[1]);
	duel_hello(&d, 1, 0);
	run_ms(p, 300);
	assert_int_equal(duel_selected(&d, 0) | duel_selected(&d, 1), 0);
	if (answers)
		duel_hello(&d, 0, 0);
	run_ms(p, 290);
	assert_true(duel_selected(&d, answers ? 0 : 1) > 0);
	assert_true(duel_selected(&d, answers ? 1 : 0) == 0);
	assert_true(d.over[answers ? 1 : 0]);
	assert_int_equal(peers_status(d.host->peers, &p->hosts[1].uuid, &status), 0);
	assert_int_equal(status.dialled, answers);
	host_stop(d.host);
	stream_free(d.ends[0]);
	stream_free(d.ends[1]);
	pool_free(p);
}

static void test_crossing_connections(void **state)
{
	(void)state;
	crossing(true);
	crossing(false);
}

static void test_admission(void **state)
{
	struct tally t = {0};
	struct pool *p = pool_new(6, &t);
	struct peer_member m = {.host = p->hosts[1].uuid, .pin_count = 2};
	struct tls_peer peer = {.has_certificate = true, .fingerprint = {7}};
	struct rv_error e = {0};
	struct uuid host;

	(void)state;
	m.pins[0][0] = 7;
	m.pins[1][0] = 8;
	uuid_format(&p->hosts[1].uuid, peer.uuid);
	assert_int_equal(peers_set(p->hosts[0].peers, &m, &e), 0);
	assert_int_equal(peers_admit(p->hosts[0].peers, &peer, &host, &e), 0);
	assert_true(uuid_eq(&host, &p->hosts[1].uuid));
	peer.fingerprint[0] = 8;
	assert_int_equal(peers_admit(p->hosts[0].peers, &peer, &host, &e), 0);
	peer.fingerprint[0] = 9;
	assert_int_equal(peers_admit(p->hosts[0].peers, &peer, &host, &e), RV_EAUTH);
	peer.fingerprint[0] = 7;
	peer.uuid[0] = '\0';
	assert_int_equal(peers_admit(p->hosts[0].peers, &peer, &host, &e), RV_EAUTH);
	uuid_format(&(struct uuid){{4}}, peer.uuid);
	assert_int_equal(peers_admit(p->hosts[0].peers, &peer, &host, &e), RV_EPERM);
	peer.has_certificate = false;
	assert_int_equal(peers_admit(p->hosts[0].peers, &peer, &host, &e), RV_EAUTH);
	assert_int_equal(peers_admit(p->hosts[0].peers, NULL, &host, &e), RV_EAUTH);
	m.host = p->hosts[0].uuid;
	assert_int_equal(peers_set(p->hosts[0].peers, &m, &e), RV_EINVAL);
	pool_free(p);
}

/* Both dial at once, again and again: one link, the one that the lower UUID dialled,
 * and it stays. */
static void test_both_dial(void **state)
{
	(void)state;
	for (uint64_t seed = 1000; seed < 1100; seed++) {
		struct tally t = {0};
		struct pool *p = pool_new(seed, &t);

		run_ms(p, 3000);
		for (int i = 0; i < p->count; i++)
			for (int j = 0; j < p->count; j++) {
				if (i == j)
					continue;
				HOLDS(p, p->hosts[i].views[j].up);
				HOLDS(p, p->hosts[i].views[j].ups == 1);
			}
		pool_free(p);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_seed_same_trace),
		cmocka_unit_test(test_removed_at_once),
		cmocka_unit_test(test_rotation),
		cmocka_unit_test(test_admission),
		cmocka_unit_test(test_replaced_links_are_silent),
		cmocka_unit_test(test_crossing_connections),
		cmocka_unit_test(test_both_dial),
		cmocka_unit_test(test_seeds),
	};

	if (argc > 1)
		first_seed = strtoull(argv[1], NULL, 10);
	if (argc > 2)
		seed_count = strtoull(argv[2], NULL, 10);
	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
