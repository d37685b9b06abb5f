#include "reactor/loop.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/limits.h"
#include "reactor/io.h"

/* Every test here runs on both twins: *state is the loop. */
static int setup_real(void **state)
{
	struct rv_error e = {0};

	return loop_new((struct loop **)state, &e);
}

static int setup_sim(void **state)
{
	return loop_new_sim((struct loop **)state, 7);
}

static int teardown(void **state)
{
	loop_free(*state);
	return 0;
}

/* What ran, as letters in order. */
struct trace {
	struct loop *loop;
	char text[64];
	size_t len, stop_at;
};

struct mark {
	struct trace *trace;
	char letter;
	struct timer timer, *other;
	struct defer defer;
	int left;
};

static void trace_add(struct trace *tr, char letter)
{
	assert_true(tr->len < sizeof tr->text - 1);
	tr->text[tr->len++] = letter;
	if (tr->len == tr->stop_at)
		loop_stop(tr->loop);
}

static void mark_fn(void *arg)
{
	struct mark *m = arg;

	trace_add(m->trace, m->letter);
}

static void mark_init(struct mark *m, struct trace *tr, char letter, timer_fn *fn)
{
	*m = (struct mark){.trace = tr, .letter = letter};
	timer_init(&m->timer, tr->loop, "test.timer", fn, m);
	defer_init(&m->defer, tr->loop, "test.defer", fn, m);
}

/* Within a callback the clock stands still, however long the process is held up. */
static void start_five_fn(void *arg)
{
	static const int delays_us[] = {3000, 1000, 2000, 1000, 0};
	struct mark *m = arg;

	for (int i = 0; i < 5; i++) {
		timer_start_us(&m[i].timer, delays_us[i]);
		assert_true(timer_active(&m[i].timer));
	}
}

static void test_timers_fire_in_order(void **state)
{
	struct trace tr = {.loop = *state, .stop_at = 5};
	struct mark m[5];
	int64_t start_us = loop_now_us(*state);
	struct defer first;

	for (int i = 0; i < 5; i++)
		mark_init(&m[i], &tr, (char)('a' + i), mark_fn);
	defer_init(&first, *state, "test.first", start_five_fn, m);
	defer_start(&first);
	loop_run(*state);
	assert_string_equal(tr.text, "ebdca");
	assert_true(loop_now_us(*state) - start_us >= 3000);
	for (int i = 0; i < 5; i++)
		assert_false(timer_active(&m[i].timer));
}

static void test_timer_stop_and_restart(void **state)
{
	struct trace tr = {.loop = *state, .stop_at = 2};
	struct mark a, b, c;

	mark_init(&a, &tr, 'a', mark_fn);
	mark_init(&b, &tr, 'b', mark_fn);
	mark_init(&c, &tr, 'c', mark_fn);
	timer_start_ms(&a.timer, 1);
	timer_start_ms(&b.timer, 2);
	timer_start_ms(&c.timer, 3);
	timer_stop(&b.timer);
	timer_stop(&b.timer);
	assert_false(timer_active(&b.timer));
	timer_start_ms(&a.timer, 5);
	loop_run(*state);
	assert_string_equal(tr.text, "ca");
}

static void repeat_fn(void *arg)
{
	struct mark *m = arg;

	if (--m->left > 0)
		timer_start_us(&m->timer, 0);
	if (m->other)
		timer_stop(m->other);
	trace_add(m->trace, m->letter);
}

/* On the real loop their times are a grid's, so that they come together: to the
 * microsecond, also outside callbacks, where the clock goes on. */
static void test_timers_about_a_time(void **state)
{
	struct trace tr = {.loop = *state, .stop_at = 3};
	int64_t began_us = loop_now_us(tr.loop), grid_us = LOOP_ABOUT_MS * 1000;
	struct mark m[3];

	for (int i = 0; i < 3; i++) {
		int64_t ms = 60 + i, off_us;

		mark_init(&m[i], &tr, (char)('a' + i), mark_fn);
		timer_start_about_ms(&m[i].timer, ms);
		off_us = m[i].timer.due_us - began_us - ms * 1000;
		assert_true(off_us >= (loop_is_sim(tr.loop) ? 0 : -grid_us / 2));
		if (loop_is_sim(tr.loop))
			assert_int_equal(off_us, 0);
		else
			assert_int_equal(
				(m[i].timer.due_us - m[0].timer.due_us) % grid_us, 0);
	}
	for (int i = 0; i < 200 && !loop_is_sim(tr.loop); i++) {
		timer_start_about_ms(&m[2].timer, 62);
		assert_int_equal((m[2].timer.due_us - m[0].timer.due_us) % grid_us, 0);
	}
	loop_run(tr.loop);
	assert_string_equal(tr.text, "abc");
	/* A shorter one is what it says. */
	timer_start_about_ms(&m[0].timer, 1);
	assert_true(m[0].timer.due_us >= began_us + 1000);
	timer_stop(&m[0].timer);
}

static void test_timer_inside_callbacks(void **state)
{
	struct trace tr = {.loop = *state, .stop_at = 3};
	struct mark again, victim, after;

	mark_init(&again, &tr, 'a', repeat_fn);
	mark_init(&victim, &tr, 'v', mark_fn);
	mark_init(&after, &tr, 'z', mark_fn);
	again.left = 3;
	again.other = &victim.timer;
	timer_start_us(&again.timer, 1000);
	timer_start_us(&victim.timer, 1000);
	loop_run(*state);
	tr.stop_at = 4;
	timer_start_us(&after.timer, 1000); /* the victim would come before it */
	loop_run(*state);
	assert_string_equal(tr.text, "aaaz");
}

/* Against a model: random starts and stops, then the order of firing. */
static void count_fn(void *arg)
{
	struct mark *m = arg;

	m->left++;
	m->trace->len++;
}

static void test_timer_heap(void **state)
{
	enum { COUNT = 500 };
	struct trace tr = {.loop = *state};
	struct mark *m = calloc(COUNT, sizeof *m);
	struct prng prng;
	size_t active = 0;

	if (!loop_is_sim(*state)) {
		free(m);
		return;
	}
	prng_seed(&prng, 3);
	for (int i = 0; i < COUNT; i++)
		mark_init(&m[i], &tr, 'x', count_fn);
	for (int i = 0; i < 20 * COUNT; i++) {
		struct timer *t = &m[prng_below(&prng, COUNT)].timer;

		if (prng_below(&prng, 3) == 0)
			timer_stop(t);
		else
			timer_start_us(t, prng_range(&prng, 0, 1000));
	}
	for (int i = 0; i < COUNT; i++)
		active += timer_active(&m[i].timer);
	for (;;) {
		int64_t first_us = INT64_MAX;

		for (int i = 0; i < COUNT; i++)
			if (timer_active(&m[i].timer) && m[i].timer.due_us < first_us)
				first_us = m[i].timer.due_us;
		if (!loop_sim_step(*state))
			break;
		assert_int_equal(loop_now_us(*state), first_us);
	}
	assert_int_equal(tr.len, active);
	free(m);
}

static void defer_chain_fn(void *arg)
{
	struct mark *m = arg;

	if (--m->left > 0)
		defer_start(&m->defer);
	trace_add(m->trace, m->letter);
}

static void test_defer(void **state)
{
	struct trace tr = {.loop = *state, .stop_at = 4};
	struct mark a, b, c, t;

	mark_init(&a, &tr, 'a', mark_fn);
	mark_init(&b, &tr, 'b', defer_chain_fn);
	mark_init(&c, &tr, 'c', mark_fn);
	mark_init(&t, &tr, 't', mark_fn);
	b.left = 3;
	defer_start(&a.defer);
	defer_start(&a.defer);
	defer_start(&b.defer);
	defer_start(&c.defer);
	defer_stop(&c.defer);
	defer_stop(&c.defer);
	assert_int_equal(tr.len, 0);
	loop_run(*state);
	tr.stop_at = 5;
	timer_start_us(&t.timer, 2000); /* what was stopped would come before it */
	loop_run(*state);
	assert_string_equal(tr.text, "abbbt");
}

/* A defer that starts itself for ever must not keep timers from firing. */
static void forever_fn(void *arg)
{
	struct mark *m = arg;

	defer_start(&m->defer);
}

static void test_defer_does_not_starve(void **state)
{
	struct trace tr = {.loop = *state, .stop_at = 1};
	struct mark f, t;

	if (loop_is_sim(*state))
		return; /* a simulated clock stands still meanwhile, by design */
	mark_init(&f, &tr, 'f', forever_fn);
	mark_init(&t, &tr, 't', mark_fn);
	defer_start(&f.defer);
	timer_start_us(&t.timer, 500);
	loop_run(*state);
	defer_stop(&f.defer);
	assert_string_equal(tr.text, "t");
}

static void test_stop_before_run(void **state)
{
	struct trace tr = {.loop = *state};
	struct mark a;

	mark_init(&a, &tr, 'a', mark_fn);
	timer_start_us(&a.timer, 0);
	loop_stop(*state);
	loop_run(*state);
	assert_int_equal(tr.len, 0);
	timer_stop(&a.timer);
}

static void spin_fn(void *arg)
{
	struct mark *m = arg;
	struct timespec t, end;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
	end.tv_nsec += (RV_CALLBACK_BUDGET_US + 2000) * 1000;
	do
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	while ((t.tv_sec - end.tv_sec) * 1000000000 + t.tv_nsec - end.tv_nsec < 0);
	trace_add(m->trace, m->letter);
}

/* `left` becomes the microseconds that it took, asleep or not. */
static void sleep_fn(void *arg)
{
	struct mark *m = arg;
	struct timespec from, to;

	clock_gettime(CLOCK_BOOTTIME, &from);
	usleep(3 * RV_CALLBACK_BUDGET_US);
	clock_gettime(CLOCK_BOOTTIME, &to);
	m->left = (int)((to.tv_sec - from.tv_sec) * 1000000 +
			(to.tv_nsec - from.tv_nsec) / 1000);
	trace_add(m->trace, m->letter);
}

/* CPU time counts, waiting (here: asleep, elsewhere: preempted) does not. A machine that
 * is itself a guest may charge what was taken from it to whoever was just waking up. */
static void test_watchdog(void **state)
{
	struct trace tr = {.loop = *state, .stop_at = 2};
	struct loop_stat stats[4], *spin, *asleep;
	struct mark a, b;

	mark_init(&a, &tr, 'a', sleep_fn);
	mark_init(&b, &tr, 'b', spin_fn);
	a.timer.name = "test.sleep";
	b.timer.name = "test.spin";
	timer_start_us(&a.timer, 0);
	timer_start_us(&b.timer, 0);
	loop_run(*state);
	assert_int_equal(loop_stats(*state, stats, 4), 2);
	assert_true(stats[0].max_us >= stats[1].max_us);
	spin = strcmp(stats[0].name, "test.spin") == 0 ? &stats[0] : &stats[1];
	asleep = spin == &stats[0] ? &stats[1] : &stats[0];
	assert_string_equal(spin->name, "test.spin");
	assert_int_equal(spin->calls, 1);
	assert_int_equal(spin->over_budget, 1);
	assert_true(spin->max_us > RV_CALLBACK_BUDGET_US);
	assert_string_equal(asleep->name, "test.sleep");
	assert_true(asleep->max_us + 2 * RV_CALLBACK_BUDGET_US < (uint64_t)a.left);
	assert_int_equal(loop_stats(*state, stats, 1), 1);
}

static void test_watchdog_many_names(void **state)
{
	static char names[LOOP_MAX_STATS + 50][16];
	struct trace tr = {.loop = *state};
	struct loop_stat stats[LOOP_MAX_STATS + 8];
	struct mark m;
	uint64_t calls = 0;
	size_t count;

	mark_init(&m, &tr, 'm', count_fn);
	for (int i = 0; i < LOOP_MAX_STATS + 50; i++) {
		snprintf(names[i], sizeof names[i], "n%d", i % (LOOP_MAX_STATS + 40));
		loop_call(*state, names[i], count_fn, &m);
	}
	count = loop_stats(*state, stats, LOOP_MAX_STATS + 8);
	assert_int_equal(count, LOOP_MAX_STATS + 1);
	for (size_t i = 0; i < count; i++)
		calls += stats[i].calls;
	assert_int_equal(calls, LOOP_MAX_STATS + 50);
}

/* --- real only --- */

static void signal_fn(void *arg)
{
	trace_add(arg, 's');
}

static void test_signal(void **state)
{
	struct trace tr = {.loop = *state, .stop_at = 1};

	assert_int_equal(loop_on_signal(*state, SIGUSR1, signal_fn, &tr), 0);
	kill(getpid(), SIGUSR1);
	loop_run(*state);
	kill(getpid(), SIGUSR1);
	tr.stop_at = 2;
	loop_run(*state);
	assert_string_equal(tr.text, "ss");
}

struct io_test {
	struct trace tr;
	struct io io;
	int fd;
};

static void io_fn_test(void *arg, int events)
{
	struct io_test *t = arg;
	char byte;

	if (events & IO_WRITE) {
		trace_add(&t->tr, 'w');
		io_want(&t->io, 0);
		return;
	}
	assert_int_equal(read(t->fd, &byte, 1), 1);
	trace_add(&t->tr, byte);
}

static void test_io(void **state)
{
	struct io_test t = {.tr = {.loop = *state, .stop_at = 3}};
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	t.fd = fds[0];
	assert_int_equal(io_init(&t.io, *state, "test.io", fds[0], io_fn_test, &t), 0);
	io_want(&t.io, IO_READ);
	assert_int_equal(write(fds[1], "xyz", 3), 3);
	loop_run(*state);
	assert_string_equal(t.tr.text, "xyz");
	io_fini(&t.io);
	io_fini(&t.io);

	t.tr.stop_at = 4;
	assert_int_equal(io_init(&t.io, *state, "test.io", fds[1], io_fn_test, &t), 0);
	io_want(&t.io, IO_WRITE);
	loop_run(*state);
	assert_string_equal(t.tr.text, "xyzw");
	io_fini(&t.io);
	close(fds[0]);
	close(fds[1]);
}

static int64_t clock_us(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return t.tv_sec * INT64_C(1000000) + t.tv_nsec / 1000;
}

static void test_clocks(void **state)
{
	int64_t before_us = clock_us(CLOCK_REALTIME), ms = loop_wall_ms(*state), us;

	assert_in_range(ms, before_us / 1000, clock_us(CLOCK_REALTIME) / 1000);
	before_us = clock_us(CLOCK_BOOTTIME);
	us = loop_now_us(*state);
	assert_in_range(us, before_us, clock_us(CLOCK_BOOTTIME));
}

#define BOTH(test)                                                                       \
	{#test " real", test, setup_real, teardown, NULL},                               \
	{                                                                                \
#test " sim", test, setup_sim, teardown, NULL                            \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_timers_fire_in_order),
		BOTH(test_timer_stop_and_restart),
		BOTH(test_timers_about_a_time),
		BOTH(test_timer_inside_callbacks),
		BOTH(test_timer_heap),
		BOTH(test_defer),
		BOTH(test_defer_does_not_starve),
		BOTH(test_stop_before_run),
		BOTH(test_watchdog),
		BOTH(test_watchdog_many_names),
		cmocka_unit_test_setup_teardown(test_signal, setup_real, teardown),
		cmocka_unit_test_setup_teardown(test_io, setup_real, teardown),
		cmocka_unit_test_setup_teardown(test_clocks, setup_real, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
