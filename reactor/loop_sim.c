#include "reactor/loop.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "reactor/loop_internal.h"

#define SIM_START_US	  INT64_C(1000000)
#define SIM_START_WALL_MS INT64_C(1767225600000) /* 2026-01-01 */
#define SIM_HASH_SEED	  UINT64_C(0xcbf29ce484222325)

int loop_new_sim(struct loop **out, uint64_t seed)
{
	struct loop *l = calloc(1, sizeof *l);

	*out = NULL;
	if (!l)
		return RV_ENOMEM;
	l->now_us = SIM_START_US;
	l->sim.wall_offset_ms = SIM_START_WALL_MS - SIM_START_US / 1000;
	l->sim.hash = SIM_HASH_SEED;
	l->next_token = 1;
	list_init(&l->defers);
	list_init(&l->children);
	list_init(&l->ops);
	prng_seed(&l->prng, seed);
	*out = l;
	return 0;
}

/* FNV-1a: the trace is short strings, and the hash must never change with a library. */
static void sim_mix(struct loop *l, const void *data, size_t len)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < len; i++)
		l->sim.hash = (l->sim.hash ^ p[i]) * UINT64_C(0x100000001b3);
}

void loop_sim_event_begin(struct loop *l, const char *name)
{
	l->sim.events++;
	l->watchdog.fresh = false; /* the test's own time is no callback's */
	sim_mix(l, &l->now_us, sizeof l->now_us);
	sim_mix(l, name, strlen(name));
}

void loop_sim_event_end(struct loop *l)
{
	if (l->sim.on_event)
		l->sim.on_event(l->sim.on_event_arg);
}

static bool is_frozen(const struct loop *l, int who, int64_t at_us)
{
	return at_us < l->sim.frozen_us[who];
}

static struct defer *first_defer(const struct loop *l)
{
	LIST_FOR_EACH (node, &l->defers) {
		struct defer *d = CONTAINER_OF(node, struct defer, node);

		if (!is_frozen(l, d->who, l->now_us))
			return d;
	}
	return NULL;
}

/* What comes due while its owner is frozen waits, in the order in which it came due. */
static struct timer *first_timer(struct loop *l)
{
	struct timer *t;

	while ((t = loop_timer_first(l))) {
		int64_t at_us = t->due_us > l->now_us ? t->due_us : l->now_us;

		if (!is_frozen(l, t->who, at_us))
			break;
		timer_start_us(t, l->sim.frozen_us[t->who] - l->now_us);
	}
	return t;
}

bool loop_sim_step(struct loop *l)
{
	struct defer *d = first_defer(l);
	struct timer *t = d ? NULL : first_timer(l);

	assert(!l->ev);
	if (!d && !t)
		return false;
	if (t && t->due_us > l->now_us)
		l->now_us = t->due_us;
	loop_sim_event_begin(l, d ? d->name : t->name);
	l->sim.who = d ? d->who : t->who;
	if (d)
		loop_defer_fire(l, d);
	else
		loop_timer_fire(l, t);
	l->sim.who = 0;
	loop_sim_event_end(l);
	return true;
}

void loop_sim_run(struct loop *l)
{
	while (!l->stopped && loop_sim_step(l))
		;
}

void loop_sim_run_until(struct loop *l, int64_t until_us)
{
	const struct timer *t;

	while (!l->stopped) {
		t = first_timer(l);
		if (!first_defer(l) && (!t || t->due_us > until_us))
			break;
		loop_sim_step(l);
	}
	if (!l->stopped && l->now_us < until_us)
		l->now_us = until_us;
	l->stopped = false;
}

uint64_t loop_sim_trace_hash(const struct loop *l)
{
	return l->sim.hash;
}

uint64_t loop_sim_event_count(const struct loop *l)
{
	return l->sim.events;
}

void loop_sim_on_event(struct loop *l, timer_fn *fn, void *arg)
{
	l->sim.on_event = fn;
	l->sim.on_event_arg = arg;
}

void loop_sim_trace(struct loop *l, const void *data, size_t len)
{
	sim_mix(l, &len, sizeof len);
	sim_mix(l, data, len);
}

void loop_sim_set_wall_ms(struct loop *l, int64_t wall_ms)
{
	l->sim.wall_offset_ms = wall_ms - l->now_us / 1000;
}

int loop_sim_as(struct loop *l, int who)
{
	int before = l->sim.who;

	assert(who >= 0 && who < LOOP_SIM_WHO);
	l->sim.who = who;
	return before;
}

void loop_sim_freeze(struct loop *l, int who, int64_t until_us)
{
	assert(!l->ev && who > 0 && who < LOOP_SIM_WHO);
	l->sim.frozen_us[who] = until_us;
}
