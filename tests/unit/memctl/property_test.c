/* Random hosts, guests and events from seeds; the invariants hold after every step, and
 * when calm returns all that waits is answered and cooperative guests are treated alike.
 */
#include "host.h"

#include <stdlib.h>

enum { SEEDS = 150, EVENTS = 60 };

static const int64_t second = 1000000;

static void add_random(struct host *h)
{
	enum driver driver = (enum driver)prng_below(&h->prng, DRIVERS);
	uint64_t dmin = (uint64_t)prng_range(&h->prng, 64, 512) * MiB;
	uint64_t dmax = dmin + (uint64_t)prng_range(&h->prng, 0, 1024) * MiB;
	int64_t spare = memctl_totals(h->m).unpromised_kib;
	uint64_t speed = driver == SLOW ? 5 : (uint64_t)prng_range(&h->prng, 100, 3000);

	if (h->n == HOST_GUESTS || spare < (int64_t)dmin)
		return;
	host_add(h, driver, speed, dmin, dmax, dmin, prng_chance_ppm(&h->prng, 700000));
}

static struct guest *any_guest(struct host *h)
{
	struct guest *g = h->n ? &h->g[prng_below(&h->prng, h->n)] : NULL;

	return g && g->here ? g : NULL;
}

static void set_mode(struct host *h, enum memctl_mode mode)
{
	struct guest *g = any_guest(h);

	if (g)
		assert_int_equal(memctl_domain_mode(h->m, h->now, g->domid, mode), 0);
}

static void reserve_random(struct host *h)
{
	unsigned o = (unsigned)prng_below(&h->prng, HOST_OWNERS);

	if (h->answer[o] != ANSWER_NONE || h->asked[o])
		return;
	host_reserve(h, o, (uint64_t)prng_range(&h->prng, 1, 2048) * MiB,
		prng_range(&h->prng, 1, 60) * second);
}

/* The reserved memory goes to a guest that is built right away. */
static void build_random(struct host *h)
{
	for (unsigned o = 0; o < HOST_OWNERS && h->n < HOST_GUESTS; o++) {
		struct uuid u = host_owner(o);
		struct guest *g = &h->g[h->n];
		uint64_t kib = h->asked[o];
		struct memctl_domain d = {.domid = (uint32_t)h->n + 1,
			.dynamic_min_kib = kib / 2,
			.dynamic_max_kib = kib,
			.static_max_kib = kib,
			.actual_kib = kib,
			.target_kib = kib,
			.maxmem_kib = kib,
			.mode = MEMCTL_RUNNING};

		if (h->answer[o] != ANSWER_GRANT)
			continue;
		assert_int_equal(memctl_domain_add(h->m, &d, &u, NULL), 0);
		*g = (struct guest){.domid = d.domid,
			.driver = IDEAL,
			.speed = 500,
			.actual = kib,
			.target = kib,
			.maxmem = kib,
			.dmin = kib / 2,
			.dmax = kib,
			.smax = kib,
			.here = true};
		h->n++;
		h->answer[o] = ANSWER_NONE;
		h->asked[o] = 0;
		return;
	}
}

static void change_range(struct host *h)
{
	struct guest *g = any_guest(h);
	uint64_t dmin, dmax;

	if (!g)
		return;
	dmin = (uint64_t)prng_range(&h->prng, 0, (int64_t)(g->smax / MiB)) * MiB;
	dmax = (uint64_t)prng_range(
		       &h->prng, (int64_t)(dmin / MiB), (int64_t)(g->smax / MiB)) *
	       MiB;
	assert_int_equal(memctl_domain_range(h->m, g->domid, dmin, dmax, NULL), 0);
	g->dmin = dmin;
	g->dmax = dmax;
}

static void one_event(struct host *h)
{
	unsigned o = (unsigned)prng_below(&h->prng, HOST_OWNERS);
	struct guest *g;

	switch (prng_below(&h->prng, 10)) {
	case 0:
		add_random(h);
		break;
	case 1:
	case 2:
	case 3:
		reserve_random(h);
		break;
	case 4:
		build_random(h);
		break;
	case 5:
		host_release(h, o);
		h->answer[o] = ANSWER_NONE;
		h->asked[o] = 0;
		break;
	case 6:
		set_mode(h, (enum memctl_mode)prng_range(
				    &h->prng, MEMCTL_RUNNING, MEMCTL_FROZEN));
		break;
	case 7:
		change_range(h);
		break;
	case 8:
		g = prng_chance_ppm(&h->prng, 300000) ? any_guest(h) : NULL;
		if (g) {
			g->here = false;
			memctl_domain_remove(h->m, g->domid);
		}
		break;
	default:
		set_mode(h, MEMCTL_RUNNING);
	}
	host_step(h);
}

static double fraction(const struct guest *g)
{
	return ((double)g->actual - (double)g->dmin) / (double)(g->dmax - g->dmin);
}

/* Guests that cooperate end at the same fraction of their ranges. */
static void check_fair(struct host *h, uint64_t seed)
{
	double lo = 2, hi = -1;

	for (size_t i = 0; i < h->n; i++) {
		const struct guest *g = &h->g[i];
		struct memctl_view v;

		if (!g->here || (g->driver != IDEAL && g->driver != SLOW) ||
			g->dmax - g->dmin < 256 * MiB)
			continue;
		assert_int_equal(memctl_domain_get(h->m, g->domid, &v), 0);
		if (v.balloon != MEMCTL_PROVEN)
			continue;
		lo = fraction(g) < lo ? fraction(g) : lo;
		hi = fraction(g) > hi ? fraction(g) : hi;
	}
	if (hi - lo > 0.15)
		fail_msg("seed %llu: fractions from %.3f to %.3f",
			(unsigned long long)seed, lo, hi);
}

static void run_seed(uint64_t seed)
{
	struct host h;
	struct memctl_totals t;

	/* cmocka shows the output of a test that failed: its last line is the seed. */
	fprintf(stderr, "SEED=%llu\n", (unsigned long long)seed);

	host_init(&h, 16 * GiB, seed);
	/* Every other host is slow to carry its orders out: guests move meanwhile. */
	h.lag_us = seed % 2 ? 0 : prng_range(&h.prng, 1, 30000);
	for (unsigned i = 0; i < 12; i++)
		add_random(&h);
	for (unsigned i = 0; i < EVENTS; i++) {
		one_event(&h);
		host_run(&h, h.now + prng_range(&h.prng, 0, 2 * second));
	}
	for (unsigned o = 0; o < HOST_OWNERS; o++)
		host_release(&h, o);
	for (size_t i = 0; i < h.n; i++)
		if (h.g[i].here)
			assert_int_equal(memctl_domain_mode(h.m, h.now, h.g[i].domid,
						 MEMCTL_RUNNING),
				0);
	host_step(&h);
	/* The slow ones need their time. */
	host_run(&h, h.now + 400 * second);
	t = memctl_totals(h.m);
	assert_int_equal(t.reserved_kib, 0);
	assert_true(t.unpromised_kib >= 0);
	check_fair(&h, seed);
	host_fini(&h);
}

static void invariants_hold_for_all_seeds(void **state)
{
	const char *one = getenv("SEED");

	(void)state;
	if (one) {
		run_seed(strtoull(one, NULL, 10));
		return;
	}
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		run_seed(seed);
	}
}

/* The same calls give the same actions. */
static void the_same_seed_gives_the_same_trace(void **state)
{
	unsigned long orders[2], steps[2];

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct host h;

		host_init(&h, 16 * GiB, 7);
		for (unsigned k = 0; k < 12; k++)
			add_random(&h);
		for (unsigned k = 0; k < 30; k++) {
			one_event(&h);
			host_run(&h, h.now + second);
		}
		orders[i] = h.orders;
		steps[i] = h.steps;
		host_fini(&h);
	}
	assert_int_equal(orders[0], orders[1]);
	assert_int_equal(steps[0], steps[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(invariants_hold_for_all_seeds),
		cmocka_unit_test(the_same_seed_gives_the_same_trace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
