#include "reactor/loop.h"

#include <assert.h>
#include <stdlib.h>
#include <time.h>

#include "base/log.h"
#include "reactor/loop_internal.h"

enum { HEAP_FIRST_SIZE = 64 };

int64_t loop_clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	assert(l->heap_count == 0);
	assert(list_empty(&l->defers));
	assert(list_empty(&l->ops));
	assert(list_empty(&l->children));
	if (l->ev)
		loop_real_fini(l);
	free(l->heap);
	free(l->scratch);
	free(l);
}

bool loop_is_sim(const struct loop *l)
{
	return !l->ev;
}

void loop_run(struct loop *l)
{
	if (l->ev)
		loop_real_run(l);
	else
		loop_sim_run(l);
	l->stopped = false;
}

void loop_stop(struct loop *l)
{
	l->stopped = true;
}

int64_t loop_now_us(const struct loop *l)
{
	/* Before the loop runs, no callback has set the clock. */
	if (l->ev && l->watchdog.depth == 0)
		return loop_clock_ns() / 1000;
	return l->now_us;
}

int64_t loop_wall_ms(const struct loop *l)
{
	struct timespec t;

	if (!l->ev)
		return l->sim.wall_offset_ms + l->now_us / 1000;
	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000 + l->wall_ahead_ms;
}

void loop_set_wall_ahead_ms(struct loop *l, int64_t ahead_ms)
{
	l->wall_ahead_ms = ahead_ms;
}

struct prng *loop_prng(struct loop *l)
{
	return &l->prng;
}

/* --- timers: a binary heap --- */

static bool timer_before(const struct timer *a, const struct timer *b)
{
	if (a->due_us != b->due_us)
		return a->due_us < b->due_us;
	return a->order < b->order;
}

static void heap_put(struct loop *l, size_t slot, struct timer *t)
{
	l->heap[slot] = t;
	t->heap_slot = slot;
}

static void heap_up(struct loop *l, struct timer *t)
{
	size_t slot = t->heap_slot;

	while (slot > 0) {
		size_t parent = (slot - 1) / 2;

		if (!timer_before(t, l->heap[parent]))
			break;
		heap_put(l, slot, l->heap[parent]);
		slot = parent;
	}
	heap_put(l, slot, t);
}

static void heap_down(struct loop *l, struct timer *t)
{
	size_t slot = t->heap_slot;

	for (;;) {
		size_t child = 2 * slot + 1;

		if (child >= l->heap_count)
			break;
		if (child + 1 < l->heap_count &&
			timer_before(l->heap[child + 1], l->heap[child]))
			child++;
		if (!timer_before(l->heap[child], t))
			break;
		heap_put(l, slot, l->heap[child]);
		slot = child;
	}
	heap_put(l, slot, t);
}

static void heap_grow(struct loop *l)
{
	size_t size = l->heap_size ? 2 * l->heap_size : HEAP_FIRST_SIZE;
	struct timer **heap = realloc(l->heap, size * sizeof *heap);

	/* A deadline that can't be kept has no honest refusal: every caller's safety
	 * hangs on it. 8 bytes a timer, so this is a machine at its very end. */
	if (!heap) {
		log_error("reactor.timer", "msg=\"out of memory for %zu timers\"", size);
		abort();
	}
	l->heap = heap;
	l->heap_size = size;
}

struct timer *loop_timer_first(const struct loop *l)
{
	return l->heap_count ? l->heap[0] : NULL;
}

void timer_init(
	struct timer *t, struct loop *l, const char *name, timer_fn *fn, void *arg)
{
	*t = (struct timer){.loop = l,
		.name = name,
		.fn = fn,
		.arg = arg,
		.heap_slot = SIZE_MAX,
		.who = l->sim.who};
}

static void timer_start_at(struct timer *t, int64_t due_us)
{
	struct loop *l = t->loop;

	t->due_us = due_us;
	t->order = l->next_order++;
	if (t->heap_slot == SIZE_MAX) {
		if (l->heap_count == l->heap_size)
			heap_grow(l);
		t->heap_slot = l->heap_count++;
		heap_up(l, t);
		return;
	}
	heap_up(l, t);
	heap_down(l, t);
}

void timer_start_us(struct timer *t, int64_t after_us)
{
	int64_t now_us = loop_now_us(t->loop);

	if (after_us < 0)
		after_us = 0;
	timer_start_at(t, after_us > INT64_MAX - now_us ? INT64_MAX : now_us + after_us);
}

void timer_start_ms(struct timer *t, int64_t after_ms)
{
	timer_start_us(t, after_ms > INT64_MAX / 1000 ? INT64_MAX : after_ms * 1000);
}

void timer_start_about_ms(struct timer *t, int64_t after_ms)
{
	const int64_t grid_us = LOOP_ABOUT_MS * INT64_C(1000);
	struct loop *l = t->loop;
	int64_t due_us;

	if (!l->ev || after_ms < LOOP_ABOUT_MS || after_ms > INT64_MAX / 4000) {
		timer_start_ms(t, after_ms);
		return;
	}
	due_us = loop_now_us(l) + after_ms * 1000 + grid_us / 2 - l->about_us;
	/* The moment itself: outside callbacks the clock goes on. */
	timer_start_at(t, due_us / grid_us * grid_us + l->about_us);
}

void timer_stop(struct timer *t)
{
	struct loop *l = t->loop;
	size_t slot = t->heap_slot;
	struct timer *last;

	if (!l || slot == SIZE_MAX)
		return;
	last = l->heap[--l->heap_count];
	t->heap_slot = SIZE_MAX;
	if (last == t)
		return;
	heap_put(l, slot, last);
	heap_up(l, last);
	heap_down(l, last);
}

bool timer_active(const struct timer *t)
{
	return t->loop && t->heap_slot != SIZE_MAX;
}

void loop_timer_fire(struct loop *l, struct timer *t)
{
	timer_stop(t);
	loop_call(l, t->name, t->fn, t->arg);
}

/* --- defers --- */

void defer_init(
	struct defer *d, struct loop *l, const char *name, timer_fn *fn, void *arg)
{
	*d = (struct defer){
		.loop = l, .name = name, .fn = fn, .arg = arg, .who = l->sim.who};
	list_init(&d->node);
}

void defer_start(struct defer *d)
{
	if (list_empty(&d->node))
		list_push_back(&d->loop->defers, &d->node);
}

void defer_stop(struct defer *d)
{
	if (d->loop)
		list_remove(&d->node);
}

void loop_defer_fire(struct loop *l, struct defer *d)
{
	list_remove(&d->node);
	loop_call(l, d->name, d->fn, d->arg);
}
