#include "reactor/worker.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/limits.h"

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

struct work {
	struct job job;
	struct loop *loop;
	struct worker *worker;
	struct work *next;
	int *order;
	int ran_as, done_as, rc;
	bool stop, free_worker;
	pthread_t thread;
	pthread_mutex_t *gate;
};

static void work_run(struct job *job)
{
	struct work *w = CONTAINER_OF(job, struct work, job);

	if (w->gate) {
		pthread_mutex_lock(w->gate);
		pthread_mutex_unlock(w->gate);
	}
	w->ran_as = ++*w->order;
	w->thread = pthread_self();
}

static void work_done(struct job *job, int rc)
{
	struct work *w = CONTAINER_OF(job, struct work, job);

	assert_int_equal(w->done_as, 0);
	w->done_as = ++*w->order;
	w->rc = rc;
	if (w->free_worker)
		worker_free(w->worker);
	else if (w->next)
		assert_int_equal(worker_submit(w->worker, &w->next->job), 0);
	if (w->stop)
		loop_stop(w->loop);
}

static struct work work_make(struct loop *l, struct worker *worker, int *order)
{
	return (struct work){
		.job = {.run = work_run, .done = work_done, .name = "test.job"},
		.loop = l,
		.worker = worker,
		.order = order};
}

static void test_in_order_and_from_the_loop(void **state)
{
	enum { COUNT = 200 };
	struct loop *l = *state;
	struct worker *worker;
	struct work w[COUNT], last;
	int order = 0;

	assert_int_equal(worker_new(&worker, l, "test.worker"), 0);
	last = work_make(l, worker, &order);
	last.stop = true;
	for (int i = 0; i < COUNT; i++) {
		w[i] = work_make(l, worker, &order);
		w[i].order = calloc(1, sizeof(int));
		assert_int_equal(worker_submit(worker, &w[i].job), 0);
		assert_int_equal(w[i].done_as, 0);
	}
	w[COUNT - 1].next = &last;
	loop_run(l);
	for (int i = 0; i < COUNT; i++) {
		assert_int_equal(w[i].ran_as, 1);
		assert_int_equal(w[i].done_as, 2);
		assert_int_equal(w[i].rc, 0);
		free(w[i].order);
	}
	assert_int_equal(last.done_as, 2);
	if (!loop_is_sim(l))
		assert_false(pthread_equal(last.thread, pthread_self()));
	worker_free(worker);
}

/* The first job is held at work, the second waits and is cancelled. */
/* One right after the other: the thread may be asleep, on its way to sleep, or look out
 * for the next; and it ends well in each of these. */
static void test_one_after_the_other(void **state)
{
	enum { CHAINS = 20, JOBS = 50 };
	static struct work work[JOBS];

	for (int chain = 0; chain < CHAINS; chain++) {
		struct worker *worker;
		int order = 0;

		assert_int_equal(worker_new(&worker, *state, "test"), 0);
		for (int i = 0; i < JOBS; i++) {
			work[i] = work_make(*state, worker, &order);
			work[i].next = i + 1 < JOBS ? &work[i + 1] : NULL;
			work[i].stop = i + 1 == JOBS;
		}
		assert_int_equal(worker_submit(worker, &work[0].job), 0);
		loop_run(*state);
		for (int i = 0; i < JOBS; i++) {
			assert_int_equal(work[i].ran_as, 2 * i + 1);
			assert_int_equal(work[i].done_as, 2 * i + 2);
		}
		worker_free(worker);
	}
}

static void test_free_cancels_waiting(void **state)
{
	struct loop *l = *state;
	pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
	struct worker *worker;
	struct work a, b;
	int order_a = 0, order_b = 0;

	assert_int_equal(worker_new(&worker, l, "test.worker"), 0);
	a = work_make(l, worker, &order_a);
	b = work_make(l, worker, &order_b);
	a.gate = loop_is_sim(l) ? NULL : &gate;
	pthread_mutex_lock(&gate);
	assert_int_equal(worker_submit(worker, &a.job), 0);
	assert_int_equal(worker_submit(worker, &b.job), 0);
	pthread_mutex_unlock(&gate);
	worker_free(worker);
	/* Whether it ran or was cancelled, each done came once and told the truth. */
	assert_int_equal(a.rc, a.ran_as ? 0 : RV_ECANCELLED);
	assert_int_equal(b.rc, b.ran_as ? 0 : RV_ECANCELLED);
	assert_true(a.done_as > a.ran_as);
	assert_true(b.done_as > b.ran_as);
	if (loop_is_sim(l))
		assert_int_equal(b.rc, RV_ECANCELLED);
	worker_free(NULL);
}

static void test_free_inside_done(void **state)
{
	struct loop *l = *state;
	struct worker *worker;
	struct work a, b;
	int order_a = 0, order_b = 0;

	assert_int_equal(worker_new(&worker, l, "test.worker"), 0);
	a = work_make(l, worker, &order_a);
	b = work_make(l, worker, &order_b);
	a.free_worker = a.stop = true;
	assert_int_equal(worker_submit(worker, &a.job), 0);
	assert_int_equal(worker_submit(worker, &b.job), 0);
	loop_run(l);
	assert_true(a.done_as > 0);
	assert_true(b.done_as > 0);
}

static void test_queue_is_bounded(void **state)
{
	struct loop *l = *state;
	struct work *w = calloc(RV_MAX_WORKER_JOBS + 1, sizeof *w);
	struct worker *worker;
	int order = 0, rc;

	assert_int_equal(worker_new(&worker, l, "test.worker"), 0);
	for (int i = 0; i <= RV_MAX_WORKER_JOBS; i++) {
		w[i] = work_make(l, worker, &order);
		w[i].order = calloc(1, sizeof(int));
		rc = worker_submit(worker, &w[i].job);
		assert_int_equal(rc, i < RV_MAX_WORKER_JOBS ? 0 : RV_ELIMIT);
	}
	worker_free(worker);
	for (int i = 0; i <= RV_MAX_WORKER_JOBS; i++) {
		assert_int_equal(w[i].done_as > 0, i < RV_MAX_WORKER_JOBS);
		free(w[i].order);
	}
	free(w);
}

static void test_sim_delay(void **state)
{
	struct loop *l = *state;
	struct worker *worker;
	struct work a, b;
	int order = 0;

	assert_int_equal(worker_new(&worker, l, "test.worker"), 0);
	worker_sim_set_delay(worker, 700, 700);
	a = work_make(l, worker, &order);
	b = work_make(l, worker, &order);
	assert_int_equal(worker_submit(worker, &a.job), 0);
	assert_int_equal(worker_submit(worker, &b.job), 0);
	loop_run(l);
	assert_int_equal(loop_now_us(l), 1000000 + 2 * 700);
	assert_int_equal(a.ran_as, 1);
	assert_int_equal(a.done_as, 2);
	assert_int_equal(b.ran_as, 3);
	assert_int_equal(b.done_as, 4);
	worker_free(worker);
}

#define BOTH(test)                                                                       \
	{#test " real", test, setup_real, teardown, NULL},                               \
	{                                                                                \
#test " sim", test, setup_sim, teardown, NULL                            \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_in_order_and_from_the_loop),
		BOTH(test_one_after_the_other),
		BOTH(test_free_cancels_waiting),
		BOTH(test_free_inside_done),
		BOTH(test_queue_is_bounded),
		cmocka_unit_test_setup_teardown(test_sim_delay, setup_sim, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
