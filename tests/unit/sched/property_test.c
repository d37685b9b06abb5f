/* Random pools and requests from seeds: the properties every decision must have. */
#include "pool.h"

enum { SEEDS = 60, HOSTS = 150, REQUESTS = 40 };

static struct sched_host random_host(struct prng *p, unsigned n, struct uuid *things)
{
	struct sched_host h = plain_host(n);

	h.enabled = !prng_chance_ppm(p, 50000);
	h.live = !prng_chance_ppm(p, 50000);
	h.clock_ok = !prng_chance_ppm(p, 100000);
	h.pcpus = (uint32_t)prng_range(p, 1, 16);
	h.vcpus_limit = prng_chance_ppm(p, 500000) ? (uint32_t)prng_range(p, 4, 40) : 0;
	h.features.w[0] = prng_below(p, 4) | 4;
	h.xen_version = (uint32_t)prng_range(p, 16, 18);
	h.n_srs = prng_below(p, 6);
	h.n_networks = prng_below(p, 4);
	for (size_t i = 0; i < h.n_srs; i++)
		things[i] = id('s', (unsigned)prng_below(p, 5));
	if (h.n_srs > 0)
		things[0] = id('s', 1000 + n); /* one of its own */
	for (size_t i = 0; i < h.n_networks; i++)
		things[8 + i] = id('n', (unsigned)prng_below(p, 4));
	h.srs = things;
	h.networks = things + 8;
	h.load.memory_free_kib = prng_below(p, 16 * GiB);
	h.load.memory_squeezable_kib = prng_below(p, 16 * GiB);
	h.load.memory_promised_kib = prng_below(p, 2 * GiB);
	h.load.cpu_load_ppm = (uint32_t)prng_below(p, 1100000);
	h.load.vms = (uint32_t)prng_below(p, 3);
	h.load.vcpus = h.load.vms * (uint32_t)prng_below(p, 8);
	h.load.stale = prng_chance_ppm(p, 100000);
	h.load.oldest_vm_s = (uint32_t)prng_below(p, 100000);
	h.load.in_use_s = h.load.oldest_vm_s;
	if (prng_chance_ppm(p, 20000))
		h.load.memory_free_kib = 20 * GiB; /* absurd */
	return h;
}

struct lists {
	struct uuid srs[2], nets[2], only[60], avoid[20];
	struct sched_exclusion out[20];
};

static struct sched_request random_request(struct prng *p, struct lists *l)
{
	struct sched_request r = vm(prng_below(p, 8 * GiB), (uint32_t)prng_below(p, 8));

	r.features.w[0] = prng_below(p, 8);
	r.min_xen_version = prng_chance_ppm(p, 300000) ? 17 : 0;
	r.needs_clock = prng_chance_ppm(p, 300000);
	r.n_srs = prng_below(p, 3);
	r.n_networks = prng_below(p, 2);
	for (size_t i = 0; i < 2; i++) {
		l->srs[i] = id('s', (unsigned)prng_below(p, 5));
		l->nets[i] = id('n', (unsigned)prng_below(p, 4));
	}
	if (prng_chance_ppm(p, 100000))
		l->srs[0] = id('s', 1000 + (unsigned)prng_below(p, HOSTS));
	r.srs = l->srs;
	r.networks = l->nets;
	r.only = l->only;
	r.n_only = prng_chance_ppm(p, 200000) ? 60 : 0;
	r.avoid = l->avoid;
	r.n_avoid = prng_chance_ppm(p, 300000) ? 20 : 0;
	r.exclude = l->out;
	r.n_exclude = prng_chance_ppm(p, 300000) ? 20 : 0;
	for (size_t i = 0; i < 60; i++)
		l->only[i] = id('h', (unsigned)prng_below(p, HOSTS + 10));
	for (size_t i = 0; i < 20; i++) {
		l->avoid[i] = id('h', (unsigned)prng_below(p, HOSTS + 10));
		l->out[i].host = id('h', (unsigned)prng_below(p, HOSTS + 10));
	}
	if (prng_chance_ppm(p, 200000))
		r.affinity = id('h', (unsigned)prng_below(p, HOSTS));
	if (prng_chance_ppm(p, 100000))
		r.on = id('h', (unsigned)prng_below(p, HOSTS));
	return r;
}

/* The long way round: every host's reason, every host's score, the best by seed. */
static void check_against_reasons(const struct sched *s, const struct sched_request *r,
	const struct reeve_sched_policy *p, uint64_t seed)
{
	struct sched_reason why[HOSTS];
	struct sched_decision d, slow, again;
	struct reeve_sched_policy other = *p; /* not known by its address: no index */
	size_t n, ok = 0;
	int64_t best = INT64_MIN;
	int rc = sched_explain(s, r, p, seed, &d, why, HOSTS, &n, NULL);

	for (size_t i = 0; i < n; i++) {
		if (why[i].why != SCHED_OK)
			continue;
		ok++;
		best = why[i].score > best ? why[i].score : best;
	}
	assert_int_equal(rc, ok > 0 ? 0 : RV_ENOHOST);
	assert_int_equal(ok, d.candidates);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(
			why[i].chosen, d.placed && uuid_eq(&why[i].host, &d.host));
		if (!why[i].chosen)
			continue;
		assert_int_equal(why[i].why, SCHED_OK);
		assert_int_equal(why[i].squeeze_kib, d.squeeze_kib);
		assert_int_equal(why[i].score, best);
	}
	assert_int_equal(sched_decide(s, r, &other, seed, &slow, NULL), rc);
	assert_memory_equal(&slow.host, &d.host, sizeof d.host);
	assert_int_equal(sched_decide(s, r, p, seed, &again, NULL), rc);
	assert_memory_equal(&again.host, &d.host, sizeof d.host);
}

static void decisions_agree_with_reasons(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct sched *s = sched_new(HOSTS), *t = sched_new(HOSTS);
		struct sched_host hosts[HOSTS];
		struct uuid things[HOSTS][16];
		struct lists l;
		struct prng p;

		prng_seed(&p, seed);
		for (unsigned i = 0; i < HOSTS; i++) {
			hosts[i] = random_host(&p, i, things[i]);
			put(s, &hosts[i]);
		}
		/* The same pool by other ways: backwards, changed back and forth. */
		for (unsigned i = HOSTS; i-- > 0;) {
			struct uuid spare[16];
			struct sched_host h = random_host(&p, i, spare);

			put(t, &h);
			if (i % 3 == 0)
				sched_host_remove(t, &h.uuid);
			put(t, &hosts[i]);
			assert_int_equal(sched_host_charge(t, &h.uuid, 1 * GiB, 2, 1), 0);
			assert_int_equal(sched_host_load(t, &h.uuid, &hosts[i].load), 0);
		}
		assert_int_equal(sched_host_count(t), HOSTS);
		for (unsigned i = 0; i < REQUESTS; i++) {
			struct sched_request r = random_request(&p, &l);
			uint64_t draw = prng_next(&p);

			check_against_reasons(s, &r, &sched_greedy, draw);
			check_against_reasons(s, &r, &sched_conservative, draw);
			assert_int_equal(place(s, &r, &sched_greedy, draw),
				place(t, &r, &sched_greedy, draw));
			assert_int_equal(place(s, &r, &sched_conservative, draw),
				place(t, &r, &sched_conservative, draw));
		}
		sched_free(s);
		sched_free(t);
	}
}

/* More room anywhere never loses a start, and what is charged is never given twice. */
static void more_room_never_loses_a_start(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct sched *s = sched_new(20);
		struct sched_host hosts[20];
		struct prng p;

		prng_seed(&p, seed);
		for (unsigned i = 0; i < 20; i++) {
			hosts[i] = plain_host(i);
			hosts[i].vcpus_limit = 8;
			put(s, &hosts[i]);
		}
		for (unsigned i = 0; i < 300; i++) {
			struct sched_request r = vm(
				prng_below(&p, 4 * GiB) + 1, (uint32_t)prng_below(&p, 5));
			int at = place(s, &r, &sched_conservative, seed);
			unsigned more = (unsigned)prng_below(&p, 20);
			struct uuid u = id('h', more);

			assert_int_equal(at >= 0, place(s, &r, &sched_greedy, seed) >= 0);
			if (at >= 0) {
				struct sched_load *l = &hosts[at].load;

				assert_true(l->memory_free_kib >= r.memory_min_kib);
				assert_true(l->vcpus + r.vcpus <= 8);
				l->memory_free_kib -= r.memory_min_kib;
				l->vcpus += r.vcpus;
				l->vms++;
				u = id('h', (unsigned)at);
				assert_int_equal(sched_host_charge(s, &u,
							 (int64_t)r.memory_min_kib,
							 (int32_t)r.vcpus, 1),
					0);
				continue;
			}
			/* It did not fit: give one host room, then it must go there. */
			hosts[more].load = plain_host(more).load;
			assert_int_equal(sched_host_load(s, &u, &hosts[more].load), 0);
			assert_int_equal(place(s, &r, &sched_greedy, seed), (int)more);
		}
		sched_free(s);
	}
}

/* Sizes of a small instance, largest first, into as few hosts as possible: exhaustive. */
static unsigned optimal(
	const unsigned *sizes, unsigned n, unsigned *room, unsigned used, unsigned best)
{
	if (used >= best)
		return best;
	if (n == 0)
		return used;
	for (unsigned i = 0; i < used; i++) {
		if (room[i] < sizes[0])
			continue;
		room[i] -= sizes[0];
		best = optimal(sizes + 1, n - 1, room, used, best);
		room[i] += sizes[0];
	}
	room[used] = 16 - sizes[0];
	return optimal(sizes + 1, n - 1, room, used + 1, best);
}

/* conservative sees one VM at a time; any-fit packing needs at most 1.7 times the optimum
 * (Dósa and Sgall 2014, for best-fit), and in the mean it should be near it. */
static void conservative_packs_near_the_optimum(void **state)
{
	unsigned ours = 0, best = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 100; seed++) {
		struct sched *s = sched_new(12);
		struct prng p;
		unsigned sizes[9], room[10], mine = 0, least;

		prng_seed(&p, seed);
		for (unsigned i = 0; i < 12; i++) {
			struct sched_host h = plain_host(i);

			put(s, &h);
		}
		for (unsigned i = 0; i < 9; i++) {
			struct sched_request r;
			struct uuid u;
			int at;

			sizes[i] = (unsigned)prng_range(&p, 1, 12);
			r = vm(sizes[i] * GiB, 1);
			at = place(s, &r, &sched_conservative, seed);
			assert_true(at >= 0);
			u = id('h', (unsigned)at);
			assert_int_equal(
				sched_host_charge(s, &u, (int64_t)r.memory_min_kib, 0, 1),
				0);
			mine |= 1u << at;
		}
		mine = (unsigned)__builtin_popcount(mine);
		least = optimal(sizes, 9, room, 0, 10);
		assert_true(mine * 10 <= least * 17);
		ours += mine;
		best += least;
		sched_free(s);
	}
	assert_true(ours * 100 <= best * 112);
}

static void ties_are_drawn_by_seed(void **state)
{
	struct sched *s = sched_new(200);
	struct sched_request r = vm(1 * GiB, 1);
	struct reeve_sched_policy slow = sched_greedy;
	struct prng p;
	unsigned hits[200] = {0}, hit = 0;

	(void)state;
	for (unsigned i = 0; i < 200; i++) {
		struct sched_host h = plain_host(i);

		put(s, &h);
	}
	prng_seed(&p, 1);
	for (unsigned i = 0; i < 2000; i++) {
		uint64_t draw = prng_next(&p);
		int at = place(s, &r, &sched_greedy, draw);

		hits[at]++;
		assert_int_equal(place(s, &r, &slow, draw), at);
	}
	for (unsigned i = 0; i < 200; i++)
		hit += hits[i] > 0;
	assert_true(hit > 150);
	sched_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decisions_agree_with_reasons),
		cmocka_unit_test(more_room_never_loses_a_start),
		cmocka_unit_test(conservative_packs_near_the_optimum),
		cmocka_unit_test(ties_are_drawn_by_seed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
