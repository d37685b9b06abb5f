/* The simulated twin: the same seed gives the same trace. */
#include "reactor/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "reactor/io.h"
#include "reactor/worker.h"

struct world {
	struct loop *loop;
	struct timer timers[8];
	struct worker *worker;
	struct job job;
	int left, invariants;
};

static void job_run(struct job *job)
{
	(void)job;
}

static void job_done(struct job *job, int rc)
{
	(void)job;
	assert_int_equal(rc, 0);
}

static void tick(void *arg)
{
	struct world *w = arg;
	struct prng *p = loop_prng(w->loop);

	if (w->left-- <= 0)
		return;
	timer_start_us(&w->timers[prng_below(p, 8)], prng_range(p, 0, 900));
	timer_start_us(&w->timers[prng_below(p, 8)], prng_range(p, 0, 900));
	if (w->left == 50)
		assert_int_equal(worker_submit(w->worker, &w->job), 0);
}

static void check(void *arg)
{
	struct world *w = arg;

	w->invariants++;
}

static uint64_t run_world(uint64_t seed)
{
	struct world w = {.left = 100};
	uint64_t hash;

	assert_int_equal(loop_new_sim(&w.loop, seed), 0);
	assert_int_equal(worker_new(&w.worker, w.loop, "test.worker"), 0);
	w.job = (struct job){.run = job_run, .done = job_done, .name = "test.job"};
	for (int i = 0; i < 8; i++)
		timer_init(&w.timers[i], w.loop, i % 2 ? "odd" : "even", tick, &w);
	loop_sim_on_event(w.loop, check, &w);
	timer_start_us(&w.timers[0], 10);
	timer_start_us(&w.timers[1], 10);
	loop_run(w.loop);
	assert_true(loop_sim_event_count(w.loop) >= 100);
	assert_int_equal(loop_sim_event_count(w.loop), w.invariants);
	hash = loop_sim_trace_hash(w.loop);
	worker_free(w.worker);
	loop_free(w.loop);
	return hash;
}

static void test_same_seed_same_trace(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 20; seed++)
		assert_int_equal(run_world(seed), run_world(seed));
	assert_int_not_equal(run_world(1), run_world(2));
}

static void test_trace_mixes_bytes(void **state)
{
	struct loop *a, *b;

	(void)state;
	assert_int_equal(loop_new_sim(&a, 1), 0);
	assert_int_equal(loop_new_sim(&b, 1), 0);
	assert_int_equal(loop_sim_trace_hash(a), loop_sim_trace_hash(b));
	loop_sim_trace(a, "x", 1);
	assert_int_not_equal(loop_sim_trace_hash(a), loop_sim_trace_hash(b));
	loop_sim_trace(b, "x", 1);
	assert_int_equal(loop_sim_trace_hash(a), loop_sim_trace_hash(b));
	loop_free(a);
	loop_free(b);
}

static void nothing(void *arg)
{
	(void)arg;
}

static uint64_t hash_of_one(const char *name, int64_t after_us)
{
	struct loop *l;
	struct timer t;
	uint64_t hash;

	assert_int_equal(loop_new_sim(&l, 1), 0);
	timer_init(&t, l, name, nothing, NULL);
	timer_start_us(&t, after_us);
	loop_run(l);
	hash = loop_sim_trace_hash(l);
	loop_free(l);
	return hash;
}

static void test_trace_has_time_and_name(void **state)
{
	(void)state;
	assert_int_equal(hash_of_one("a", 5), hash_of_one("a", 5));
	assert_int_not_equal(hash_of_one("a", 5), hash_of_one("b", 5));
	assert_int_not_equal(hash_of_one("a", 5), hash_of_one("a", 6));
}

static void test_clock(void **state)
{
	struct loop *l;
	struct timer t;
	struct io io;

	(void)state;
	assert_int_equal(loop_new_sim(&l, 1), 0);
	assert_true(loop_is_sim(l));
	assert_int_equal(loop_now_us(l), 1000000);
	timer_init(&t, l, "t", nothing, NULL);
	timer_start_ms(&t, 500);
	loop_sim_run_until(l, 1200000);
	assert_int_equal(loop_now_us(l), 1200000);
	assert_true(timer_active(&t));
	loop_sim_run_until(l, 1500000);
	assert_false(timer_active(&t));
	assert_int_equal(loop_now_us(l), 1500000);
	loop_sim_run_until(l, 1400000);
	assert_int_equal(loop_now_us(l), 1500000);

	loop_sim_set_wall_ms(l, 5000);
	assert_int_equal(loop_wall_ms(l), 5000);
	loop_sim_run_until(l, 2500000);
	assert_int_equal(loop_wall_ms(l), 6000);
	assert_false(loop_sim_step(l));
	assert_int_equal(io_init(&io, l, "io", 0, NULL, NULL), RV_EUNSUPPORTED);
	assert_int_equal(loop_on_signal(l, 1, nothing, NULL), RV_EUNSUPPORTED);
	loop_free(l);
}

struct notes {
	char text[16];
	size_t len;
};

struct noter {
	struct notes *notes;
	struct loop *loop;
	struct timer timer;
	struct defer defer;
	char letter;
};

static void note(void *arg)
{
	struct noter *n = arg;

	n->notes->text[n->notes->len++] = n->letter;
}

static void note_and_defer(void *arg)
{
	struct noter *n = arg;

	note(n);
	defer_init(&n->defer, n->loop, "d", note, n); /* of whoever runs this */
	defer_start(&n->defer);
}

/* A process that is stopped: what came due meanwhile happens afterwards, in order. */
static void test_frozen(void **state)
{
	struct notes notes = {.len = 0};
	struct noter n[4];
	struct loop *l;

	(void)state;
	assert_int_equal(loop_new_sim(&l, 1), 0);
	for (int i = 0; i < 4; i++) {
		n[i] = (struct noter){
			.notes = &notes, .loop = l, .letter = (char)('a' + i)};
		assert_int_equal(loop_sim_as(l, i < 3 ? 1 : 2), 0);
		timer_init(&n[i].timer, l, "t", i == 2 ? note_and_defer : note, &n[i]);
		assert_int_equal(loop_sim_as(l, 0), i < 3 ? 1 : 2);
	}
	timer_start_ms(&n[1].timer, 20);
	timer_start_ms(&n[0].timer, 10);
	timer_start_ms(&n[2].timer, 500);
	timer_start_ms(&n[3].timer, 90);
	loop_sim_freeze(l, 1, loop_now_us(l) + 100000);
	loop_sim_run_until(l, loop_now_us(l) + 99999);
	assert_string_equal(notes.text, "d");
	loop_sim_run_until(l, loop_now_us(l) + 1);
	assert_string_equal(notes.text, "dab");
	loop_sim_run_until(l, loop_now_us(l) + 399999);
	assert_true(loop_sim_step(l));
	assert_string_equal(notes.text, "dabc");
	loop_sim_freeze(l, 1, loop_now_us(l) + 1000); /* the defer is his, too */
	assert_false(loop_sim_step(l));
	loop_sim_run_until(l, loop_now_us(l) + 1000);
	loop_run(l);
	assert_string_equal(notes.text, "dabcc");
	loop_free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_seed_same_trace),
		cmocka_unit_test(test_trace_mixes_bytes),
		cmocka_unit_test(test_trace_has_time_and_name),
		cmocka_unit_test(test_clock),
		cmocka_unit_test(test_frozen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
