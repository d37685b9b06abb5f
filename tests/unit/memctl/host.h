/*
 * A host in virtual time for the controller's tests: guests with balloon drivers of every
 * kind, free pages, and a person who starts and stops things. After each step the
 * invariants of DESIGN.md section 11 are checked.
 */
#ifndef REEVE_TESTS_UNIT_MEMCTL_HOST_H
#define REEVE_TESTS_UNIT_MEMCTL_HOST_H

/* clang-format off: cmocka.h needs these before it */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
/* clang-format on */
#include <stdio.h>
#include <string.h>

#include "base/prng.h"
#include "memctl/memctl.h"

enum { HOST_GUESTS = 64, HOST_OWNERS = 64, HOST_ORDERS = 4096 };
#define MiB UINT64_C(1024)
#define GiB (1024 * MiB)

enum driver { IDEAL, SLOW, STUCK, INTERMITTENT, OVERSHOOT, LYING, OFFSET, DRIVERS };

struct guest {
	uint32_t domid;
	enum driver driver;
	uint64_t speed; /* KiB per ms */
	uint64_t actual, target, maxmem;
	uint64_t dmin, dmax, smax;
	int64_t offset;
	bool here, declared_stuck, declared_proven;
	uint64_t carry_us;
};

enum answer { ANSWER_NONE, ANSWER_GRANT, ANSWER_REFUSE, ANSWER_EXPIRE };

struct host {
	struct memctl *m;
	int64_t now;
	uint64_t total;
	struct guest g[HOST_GUESTS];
	size_t n;
	struct prng prng;
	enum answer answer[HOST_OWNERS];
	int64_t answered_at[HOST_OWNERS];
	uint64_t asked[HOST_OWNERS], used[HOST_OWNERS];
	int64_t next;
	unsigned long steps, orders;
	/* Orders are carried out so much later; those on their way, oldest first. */
	int64_t lag_us;
	struct host_order {
		int64_t due;
		struct memctl_action a;
	} under_way[HOST_ORDERS];
	size_t n_under_way;
};

static inline struct uuid host_owner(unsigned i)
{
	struct uuid u = {.b = {1}};

	u.b[15] = (uint8_t)i;
	u.b[14] = (uint8_t)(i >> 8);
	return u;
}

static inline uint64_t host_free(const struct host *h)
{
	uint64_t used = 0;

	for (size_t i = 0; i < h->n; i++)
		used += h->g[i].here ? h->g[i].actual : 0;
	for (size_t i = 0; i < HOST_OWNERS; i++)
		used += h->used[i];
	assert_true(used <= h->total);
	return h->total - used;
}

static inline struct guest *host_guest(struct host *h, uint32_t domid)
{
	for (size_t i = 0; i < h->n; i++)
		if (h->g[i].here && h->g[i].domid == domid)
			return &h->g[i];
	return NULL;
}

/* What is promised and what is used never exceed the host. */
static inline void host_check(struct host *h)
{
	struct rv_error e = {0};
	uint64_t sum = 0;

	if (memctl_check(h->m, &e) != 0)
		fail_msg("at %lld us: %s", (long long)h->now, e.detail);
	for (size_t i = 0; i < h->n; i++) {
		const struct guest *g = &h->g[i];

		if (g->here)
			sum += g->actual > g->maxmem ? g->actual : g->maxmem;
	}
	for (size_t i = 0; i < HOST_OWNERS; i++)
		sum += h->used[i];
	for (size_t i = 0; i < memctl_reservation_count(h->m); i++)
		sum += memctl_reservation_at(h->m, i).held_kib;
	if (sum > h->total)
		fail_msg("at %lld us: %llu KiB promised, the host has %llu",
			(long long)h->now, (unsigned long long)sum,
			(unsigned long long)h->total);
}

/* An order arrives. */
static inline void host_land(struct host *h, const struct memctl_action *a)
{
	struct guest *g = host_guest(h, a->domid);

	if (!g)
		return;
	if (a->what == MEMCTL_SET_TARGET) {
		/* Growing: maxmem went first. */
		assert_true(h->lag_us || a->kib <= g->target || a->kib <= g->maxmem);
		g->target = a->kib;
		return;
	}
	g->maxmem = a->kib;
	memctl_host_free(h->m, host_free(h));
	assert_int_equal(memctl_domain_actual(h->m, h->now, g->domid, g->actual), 0);
	assert_int_equal(memctl_domain_limited(h->m, g->domid, a->kib), 0);
	h->next = h->now;
}

static inline void host_land_due(struct host *h)
{
	size_t n = 0;

	for (size_t i = 0; i < h->n_under_way; i++)
		if (h->under_way[i].due <= h->now)
			host_land(h, &h->under_way[i].a);
		else
			h->under_way[n++] = h->under_way[i];
	h->n_under_way = n;
}

static inline void host_do(struct host *h, const struct memctl_action *a)
{
	struct guest *g = host_guest(h, a->domid);
	unsigned o = a->owner.b[15] | (unsigned)a->owner.b[14] << 8;

	h->orders++;
	switch (a->what) {
	case MEMCTL_SET_MAXMEM:
	case MEMCTL_SET_TARGET:
		assert_non_null(g);
		if (a->what == MEMCTL_SET_MAXMEM) {
			/* Never below what the guest holds. */
			assert_true(a->kib >= g->actual);
		} else {
			assert_true(h->lag_us || a->kib >= g->dmin || a->kib > g->target);
			assert_true(a->kib <= g->smax);
		}
		assert_true(h->n_under_way < HOST_ORDERS);
		h->under_way[h->n_under_way++] =
			(struct host_order){h->now + h->lag_us, *a};
		break;
	case MEMCTL_DECLARE_PROVEN:
		g->declared_proven = true;
		break;
	case MEMCTL_DECLARE_STUCK:
		g->declared_stuck = true;
		break;
	case MEMCTL_DECLARE_FREE:
		g->declared_stuck = false;
		break;
	case MEMCTL_GRANT:
		assert_int_equal(h->answer[o], ANSWER_NONE);
		assert_int_equal(a->kib, h->asked[o]);
		h->answer[o] = ANSWER_GRANT;
		h->answered_at[o] = h->now;
		break;
	case MEMCTL_REFUSE:
	case MEMCTL_EXPIRE:
		h->answer[o] = a->what == MEMCTL_REFUSE ? ANSWER_REFUSE : ANSWER_EXPIRE;
		h->answered_at[o] = h->now;
		break;
	}
}

static inline void host_step(struct host *h)
{
	struct memctl_step s;

	memctl_host_free(h->m, host_free(h));
	for (size_t i = 0; i < h->n; i++)
		if (h->g[i].here)
			assert_int_equal(memctl_domain_actual(h->m, h->now, h->g[i].domid,
						 h->g[i].actual),
				0);
	s = memctl_step(h->m, h->now);
	for (size_t i = 0; i < s.count; i++) {
		host_do(h, &s.actions[i]);
	}
	h->steps++;
	h->next = s.next_us;
	host_land_due(h);
	host_check(h);
}

/* Moves one guest's memory for `us` microseconds. */
static inline void guest_run(struct host *h, struct guest *g, int64_t us)
{
	uint64_t speed = g->speed, goal = (uint64_t)((int64_t)g->target + g->offset), by;
	uint64_t work;

	if (g->driver == STUCK)
		return;
	if (g->driver == INTERMITTENT && (h->now / 700000) % 2)
		return;
	if (g->driver == OVERSHOOT && g->actual > goal)
		goal = goal > g->dmin / 2 + 3 * MiB ? goal - 3 * MiB : goal;
	work = speed * (uint64_t)us + g->carry_us;
	by = work / 1000;
	g->carry_us = work % 1000;
	/* Lies: drips a page now and then. */
	if (g->driver == LYING)
		by = prng_chance_ppm(&h->prng, 20000) ? 4 : 0;
	if (g->actual > goal) {
		g->actual -= by < g->actual - goal ? by : g->actual - goal;
	} else {
		uint64_t top = goal < g->maxmem ? goal : g->maxmem;

		if (g->actual < top)
			g->actual += by < top - g->actual ? by : top - g->actual;
	}
}

/* Runs until `until`, in slices of at most a millisecond; steps when asked to. */
static inline void host_run(struct host *h, int64_t until)
{
	while (h->now < until) {
		int64_t to = h->now + 1000;

		if (h->next != MEMCTL_NEVER && h->next < to)
			to = h->next > h->now ? h->next : h->now + 1;
		if (to > until)
			to = until;
		for (size_t i = 0; i < h->n; i++)
			if (h->g[i].here)
				guest_run(h, &h->g[i], to - h->now);
		h->now = to;
		host_land_due(h);
		if (h->next != MEMCTL_NEVER && h->next <= h->now)
			host_step(h);
	}
}

static inline void host_init(struct host *h, uint64_t total, uint64_t seed)
{
	memset(h, 0, sizeof *h);
	h->m = memctl_new(NULL);
	assert_non_null(h->m);
	h->total = total;
	h->next = MEMCTL_NEVER;
	prng_seed(&h->prng, seed);
}

static inline void host_fini(struct host *h)
{
	memctl_free(h->m);
}

static inline struct guest *host_add(struct host *h, enum driver driver, uint64_t speed,
	uint64_t dmin, uint64_t dmax, uint64_t actual, bool proven)
{
	struct guest *g = &h->g[h->n];
	struct memctl_domain d;

	assert_true(h->n < HOST_GUESTS);
	*g = (struct guest){.domid = (uint32_t)h->n + 1,
		.driver = driver,
		.speed = speed,
		.actual = actual,
		.target = actual,
		.maxmem = actual,
		.dmin = dmin,
		.dmax = dmax,
		.smax = dmax,
		.here = true};
	h->n++;
	if (driver == OFFSET) {
		g->offset = -300;
		g->actual = (uint64_t)((int64_t)g->actual + g->offset);
	}
	d = (struct memctl_domain){.domid = g->domid,
		.vm = host_owner(1000 + g->domid),
		.static_max_kib = dmax,
		.dynamic_min_kib = dmin,
		.dynamic_max_kib = dmax,
		.actual_kib = g->actual,
		.target_kib = g->target,
		.maxmem_kib = g->maxmem,
		.proven = proven,
		.mode = MEMCTL_RUNNING};
	assert_int_equal(memctl_domain_add(h->m, &d, NULL, NULL), 0);
	return g;
}

static inline void host_reserve(
	struct host *h, unsigned owner, uint64_t kib, int64_t wait)
{
	struct uuid u = host_owner(owner);

	h->answer[owner] = ANSWER_NONE;
	h->asked[owner] = kib;
	assert_int_equal(memctl_reserve(h->m, &u, kib, h->now + wait, NULL), 0);
	host_step(h);
}

static inline void host_release(struct host *h, unsigned owner)
{
	struct uuid u = host_owner(owner);

	memctl_release(h->m, &u);
	host_step(h);
}

#endif
