/*
 * Pools of three to five hosts on one simulated loop, each with its registry and port:
 * connections are cut, reset and refused, hosts restart, certificates rotate, members are
 * removed and come back, strangers knock. After every event the rules of link/peers.h
 * hold; when the trouble ends, all links come up.
 *
 *	unit_link_peers_test [FIRST_SEED [COUNT]]
 */
#include "link/peers.h"

#include "base/log.h"
#include "peers_net.h"

enum { SEEDS = 500 };

/* --- trouble --- */

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

/* --- seeds --- */

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
