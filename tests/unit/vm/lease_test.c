/* A host that may let nothing run: what is refused, what waits, and what goes on. */
#include "world.h"

struct gate {
	bool shut;
	int asked;
	int open_after; /* it opens by itself when asked so often; 0: never */
};

static int may_run(void *arg, const struct uuid *host, struct rv_error *e)
{
	struct gate *g = arg;

	(void)host;
	if (++g->asked == g->open_after)
		g->shut = false;
	return g->shut ? rv_error_set(e, RV_EAGAIN, "no lease") : 0;
}

static struct world *gated(uint64_t seed, struct gate *g)
{
	struct world *w = world_new(seed);

	w->mgr->config.may_run = may_run;
	w->mgr->config.may_run_arg = g;
	return w;
}

static int result(struct world *w, enum vm_operation op, size_t vm)
{
	struct uuid task;

	assert_int_equal(world_begin(w, op, vm, &task), 0);
	return world_end(w, task);
}

static void test_starts_nothing(void **state)
{
	struct gate g = {.shut = true};
	struct world *w = gated(1, &g);
	size_t vm = world_add_vm(w, 1, 1);

	(void)state;
	assert_int_equal(result(w, VM_OP_START, vm), TASK_STATUS_FAILURE);
	assert_true(g.asked > 10); /* it waited */
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	world_assert_clean(w, vm);
	g.shut = false;
	world_must(w, VM_OP_START, vm);
	world_assert_runs(w, vm);
	world_free(w);
}

/* A master is being elected: it waits, and starts. */
static void test_waits_for_it(void **state)
{
	struct gate g = {.shut = true, .open_after = 5};
	struct world *w = gated(2, &g);
	size_t vm = world_add_vm(w, 1, 0);

	(void)state;
	world_must(w, VM_OP_START, vm);
	world_assert_runs(w, vm);
	world_free(w);
}

/* It ends between the making of the domain and its first step. */
static bool ask_twice(struct world *w)
{
	return ((struct gate *)w->mgr->config.may_run_arg)->asked == 1;
}

static void test_unpauses_nothing(void **state)
{
	struct gate g = {.shut = false};
	struct world *w = gated(3, &g);
	size_t vm = world_add_vm(w, 1, 0);
	struct uuid task;

	(void)state;
	assert_int_equal(world_begin(w, VM_OP_START, vm, &task), 0);
	assert_true(world_run(w, ask_twice, 60000));
	g.shut = true;
	assert_int_equal(world_end(w, task), TASK_STATUS_FAILURE);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	world_assert_clean(w, vm);
	g.shut = false;
	world_must(w, VM_OP_START, vm);
	world_must(w, VM_OP_PAUSE, vm);
	g.shut = true;
	assert_int_equal(result(w, VM_OP_UNPAUSE, vm), TASK_STATUS_FAILURE);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_PAUSED);
	g.shut = false;
	world_must(w, VM_OP_UNPAUSE, vm);
	world_assert_runs(w, vm);
	world_free(w);
}

/* Stops, pauses and what runs need no lease; a resume does, and keeps its image. */
static void test_goes_on(void **state)
{
	struct gate g = {.shut = false};
	struct world *w = gated(4, &g);
	size_t a = world_add_vm(w, 1, 0), b = world_add_vm(w, 1, 0);

	(void)state;
	world_must(w, VM_OP_START, a);
	world_must(w, VM_OP_START, b);
	world_run_ms(w, 1000);
	g.shut = true;
	world_run_ms(w, 60000);
	world_assert_runs(w, a);
	world_must(w, VM_OP_PAUSE, a);
	world_must(w, VM_OP_SUSPEND, b);
	assert_int_equal(result(w, VM_OP_RESUME, b), TASK_STATUS_FAILURE);
	assert_int_equal(world_state(w, b), VM_POWER_STATE_SUSPENDED);
	world_must(w, VM_OP_HARD_SHUTDOWN, a);
	g.shut = false;
	world_must(w, VM_OP_RESUME, b);
	world_assert_runs(w, b);
	world_free(w);
}

static bool is_due(struct world *w)
{
	struct uuid task = db_ref(world_row(w, 0), VM_HA_RESTART_TASK);

	return world_state(w, 0) == VM_POWER_STATE_HALTED && !uuid_is_none(&task);
}

/* reeve-fenced destroyed it, or the host was restarted: the master starts it again. */
static void test_protected_and_gone(void **state)
{
	struct gate g = {.shut = false};
	struct world *w = gated(5, &g);
	size_t vm = world_add_vm(w, 1, 0);

	(void)state;
	world_set_enum(w, vm, VM_HA_RESTART_PRIORITY, VM_RESTART_PRIORITY_RESTART);
	world_must(w, VM_OP_START, vm);
	assert_int_equal(hyper_sim_destroy_behind(
				 w->hyper, (uint32_t)db_int(world_row(w, vm), VM_DOMID)),
		0);
	assert_true(world_run(w, is_due, 60000));
	world_run_ms(w, 30000);
	assert_true(is_due(w)); /* nobody here starts it */
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_starts_nothing),
		cmocka_unit_test(test_waits_for_it),
		cmocka_unit_test(test_unpauses_nothing),
		cmocka_unit_test(test_goes_on),
		cmocka_unit_test(test_protected_and_gone),
	};

	log_setup(LOG_ERROR, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
