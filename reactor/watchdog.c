/*
 * The watchdog: how long each callback took, by name.
 *
 * The thread's CPU clock is a system call, the wall clock is not, and a callback's CPU
 * time is never more than its wall time. So the CPU clock is read when the last reading
 * is older than a quantum, hence at most once a quantum; and again at the end of a
 * callback that took longer than a quantum. The latter's CPU time then lies between
 * "since the reading before it" less the gap, and that itself: the lower bound is
 * recorded, at most one quantum short, so nobody is named who was merely preempted.
 */
#include "reactor/loop.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/limits.h"
#include "base/log.h"
#include "reactor/loop_internal.h"

#define WATCH_QUANTUM_NS INT64_C(1000000)

static int64_t watch_cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static struct watch_slot *watch_slot(struct watchdog *w, const char *name)
{
	size_t i = ((uintptr_t)name * UINT64_C(0x9e3779b97f4a7c15)) >> 40;

	for (;; i++) {
		struct watch_slot *slot = &w->slots[i % WATCH_SLOTS];

		if (slot->name == name)
			return slot;
		if (slot->name)
			continue;
		if (w->count == LOOP_MAX_STATS) {
			w->others.name = "(others)";
			return &w->others;
		}
		w->count++;
		slot->name = name;
		return slot;
	}
}

void watch_enter(struct loop *l, struct watch_frame *f, const char *name)
{
	struct watchdog *w = &l->watchdog;

	if (!w->fresh || w->depth > 0)
		w->wall_ns = loop_clock_ns();
	if (w->depth++ == 0 && l->ev)
		l->now_us = w->wall_ns / 1000;
	if (w->wall_ns - w->cpu_wall_ns > WATCH_QUANTUM_NS) {
		w->cpu_ns = watch_cpu_ns();
		w->cpu_wall_ns = w->wall_ns;
	}
	f->name = name;
	f->start_ns = w->wall_ns;
	f->cpu_base_ns = w->cpu_ns;
	f->gap_ns = w->wall_ns - w->cpu_wall_ns;
}

void watch_leave(struct loop *l, struct watch_frame *f)
{
	struct watchdog *w = &l->watchdog;
	struct watch_slot *slot = watch_slot(w, f->name);
	int64_t spent_ns;

	w->wall_ns = loop_clock_ns();
	w->fresh = true;
	w->depth--;
	spent_ns = w->wall_ns - f->start_ns;
	if (spent_ns > WATCH_QUANTUM_NS) {
		int64_t wall_ns = spent_ns;

		w->cpu_ns = watch_cpu_ns();
		w->cpu_wall_ns = w->wall_ns;
		spent_ns = w->cpu_ns - f->cpu_base_ns - f->gap_ns;
		if (spent_ns < 0)
			spent_ns = 0;
		if (spent_ns > wall_ns)
			spent_ns = wall_ns;
	}
	slot->calls++;
	slot->total_ns += spent_ns;
	if (spent_ns > slot->max_ns)
		slot->max_ns = spent_ns;
	if (spent_ns <= RV_CALLBACK_BUDGET_US * INT64_C(1000))
		return;
	slot->over_budget++;
	if (l->ev)
		log_warn("reactor.watchdog",
			"callback=%s cpu-us=%lld budget-us=%d "
			"msg=\"callback took too long\"",
			f->name, (long long)(spent_ns / 1000), RV_CALLBACK_BUDGET_US);
}

void loop_call(struct loop *l, const char *name, timer_fn *fn, void *arg)
{
	struct watch_frame frame;

	watch_enter(l, &frame, name);
	fn(arg);
	watch_leave(l, &frame);
}

static int watch_compare(const void *pa, const void *pb)
{
	const struct loop_stat *a = pa, *b = pb;

	if (a->max_us != b->max_us)
		return a->max_us < b->max_us ? 1 : -1;
	return strcmp(a->name, b->name);
}

/* Two source files may use the same name at two addresses: one line for both. */
static void watch_add(struct loop_stat *all, size_t *count, const struct watch_slot *slot)
{
	struct loop_stat *stat = all;

	while (stat < all + *count && strcmp(stat->name, slot->name) != 0)
		stat++;
	if (stat == all + *count) {
		*stat = (struct loop_stat){.name = slot->name};
		++*count;
	}
	stat->calls += slot->calls;
	stat->total_us += (uint64_t)slot->total_ns / 1000;
	stat->over_budget += slot->over_budget;
	if ((uint64_t)slot->max_ns / 1000 > stat->max_us)
		stat->max_us = (uint64_t)slot->max_ns / 1000;
}

size_t loop_stats(const struct loop *l, struct loop_stat *out, size_t max)
{
	const struct watchdog *w = &l->watchdog;
	struct loop_stat all[LOOP_MAX_STATS + 1];
	size_t count = 0;

	for (size_t i = 0; i < WATCH_SLOTS; i++)
		if (w->slots[i].name)
			watch_add(all, &count, &w->slots[i]);
	if (w->others.name)
		watch_add(all, &count, &w->others);
	qsort(all, count, sizeof all[0], watch_compare);
	if (count > max)
		count = max;
	memcpy(out, all, count * sizeof out[0]);
	return count;
}
