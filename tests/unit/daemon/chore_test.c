/* What a chore makes of an entry whose outcome it is not told. */
#include "daemon/chore.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "daemon/call.h"
#include "alone.h"

/* The pool's own pool_commit is asked through here (--wrap). */
enum outcome { TOLD, KEPT, LOST };

static struct {
	enum outcome next;
	void (*fn)(struct pool_commit *c);
	struct pool_commit *commit;
	struct defer lost;
} between;

int __real_pool_commit(struct pool *pool, struct pool_commit *c, struct txn *t,
	void (*fn)(struct pool_commit *c), struct rv_error *e);
int __wrap_pool_commit(struct pool *pool, struct pool_commit *c, struct txn *t,
	void (*fn)(struct pool_commit *c), struct rv_error *e);

static void tell_unknown(struct pool_commit *c)
{
	c->rc = rv_error_set(&c->error, RV_EOUTCOME, "nobody knows");
	between.fn(c);
}

static void on_lost(void *arg)
{
	(void)arg;
	tell_unknown(between.commit);
}

int __wrap_pool_commit(struct pool *pool, struct pool_commit *c, struct txn *t,
	void (*fn)(struct pool_commit *c), struct rv_error *e)
{
	enum outcome now = between.next;

	between.next = TOLD;
	if (now == TOLD)
		return __real_pool_commit(pool, c, t, fn, e);
	between.fn = fn;
	between.commit = c;
	if (now == KEPT)
		return __real_pool_commit(pool, c, t, tell_unknown, e);
	txn_fini(t);
	defer_start(&between.lost);
	return 0;
}

/* --- a daemon with a pool and nothing else --- */

struct world {
	struct daemon d;
	struct alone alone;
	struct call call;
	const struct rv_error *error;
	int steps, undone, ended, failed, replied;
};

static struct world *world; /* the chore's kind has no argument of its own */

static bool run(struct world *w, bool (*done)(struct world *w))
{
	for (int i = 0; i < 100000 && !done(w); i++)
		if (!loop_sim_step(w->d.loop))
			break;
	return done(w);
}

static bool has_ended(struct world *w)
{
	return w->ended > 0;
}

static struct world *world_new(void)
{
	struct world *w = calloc(1, sizeof *w);

	assert_non_null(w);
	log_setup(LOG_ERROR + 1, NULL, NULL);
	world = w;
	list_init(&w->d.chores);
	list_init(&w->d.task_waiters);
	alone_open(&w->alone, &w->d);
	defer_init(&between.lost, w->d.loop, "test.lost", on_lost, NULL);
	between.next = TOLD;
	return w;
}

static void world_free(struct world *w)
{
	pool_free(w->d.pool);
	chores_free(&w->d);
	alone_close(&w->alone, &w->d);
	free(w);
}

/* --- the chore --- */

static int step(struct chore *c, uint64_t token, struct rv_error *e)
{
	(void)e;
	world->steps++;
	chore_answer(c, token, 0, NULL);
	return 0;
}

static int undo(struct chore *c, uint64_t token, struct rv_error *e)
{
	(void)e;
	world->undone++;
	chore_answer(c, token, 0, NULL);
	return 0;
}

static const struct chore_kind kind = {
	.name = "test", .steps = (chore_step_fn *const[]){step, NULL}, .undo = undo};

static void after(void *arg)
{
	struct world *w = arg;

	w->ended++;
}

static int task_status(struct world *w, struct uuid task)
{
	const struct row *row = db_row(pool_db(w->d.pool), CLASS_TASK, task);

	assert_non_null(row);
	return db_enum(row, TASK_STATUS);
}

/* A chore whose task is there already, as after a restart. */
static struct uuid begin(struct world *w)
{
	struct chore *c = chore_new_own(&w->d, &kind, after, w);
	struct txn t;

	assert_non_null(c);
	c->task = uuid_random(loop_prng(w->d.loop));
	txn_init(&t, pool_db(w->d.pool), 0);
	txn_create(&t, CLASS_TASK, c->task);
	alone_commit(&w->alone, &w->d, &t);
	chore_start(c);
	return c->task;
}

static void test_recorded_but_not_told(void **state)
{
	struct world *w = world_new();
	struct uuid task = begin(w);

	(void)state;
	between.next = KEPT;
	assert_true(run(w, has_ended));
	assert_int_equal(w->steps, 1);
	assert_int_equal(w->undone, 0);
	assert_int_equal(task_status(w, task), TASK_STATUS_SUCCESS);
	world_free(w);
}

static void test_record_lost(void **state)
{
	struct world *w = world_new();
	struct uuid task = begin(w);

	(void)state;
	between.next = LOST;
	assert_true(run(w, has_ended));
	assert_int_equal(w->undone, 0);
	assert_int_equal(task_status(w, task), TASK_STATUS_SUCCESS);
	world_free(w);
}

/* --- with a call that journals --- */

static void port_fail(struct call *c, const struct rv_error *e)
{
	struct world *w = CONTAINER_OF(c, struct world, call);

	w->failed = e->code;
}

static int port_keep(struct call *c)
{
	(void)c;
	return 0;
}

static void port_on_gone(struct call *c, timer_fn *fn)
{
	(void)c;
	(void)fn;
}

static const struct call_port port = {
	.fail = port_fail, .keep = port_keep, .on_gone = port_on_gone};

static void begin_call(struct world *w)
{
	struct chore *c;

	w->call.daemon = &w->d;
	w->call.port = &port;
	w->call.origin = "test";
	w->call.method = schema_method(METHOD_VDI_DESTROY);
	list_init(&w->call.waiting);
	c = chore_new(&w->call, &kind);
	assert_non_null(c);
	c->self = uuid_random(loop_prng(w->d.loop));
	c->after = after;
	c->after_arg = w;
	chore_start(c);
}

static void test_journalled_but_not_told(void **state)
{
	struct world *w = world_new();

	(void)state;
	between.next = KEPT;
	begin_call(w);
	assert_true(run(w, has_ended));
	assert_int_equal(w->failed, 0);
	assert_int_equal(w->steps, 1);
	assert_int_equal(task_status(w, w->call.request), TASK_STATUS_SUCCESS);
	list_remove(&w->call.waiting);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_recorded_but_not_told),
		cmocka_unit_test(test_record_lost),
		cmocka_unit_test(test_journalled_but_not_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
