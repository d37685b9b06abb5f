/* Cancelled at every event of every operation: it ends as cancelled with nothing left, or
 * as if nobody had asked. */
#include "scenario.h"

enum { STRIDE = 2 };

static void cancel_after(const struct scenario *s, uint64_t seed, uint64_t steps,
	unsigned *cancelled, unsigned *refused)
{
	struct vm_op_args args;
	struct world *w = prepare(s, seed, &args);
	struct uuid task = world_uuid(w);
	struct rv_error e;
	int rc, status, state = world_state(w, 0);

	assert_int_equal(vm_op_start(w->mgr, s->kind, &args, task, NULL, NULL, &e), 0);
	for (uint64_t i = 0; i < steps; i++)
		loop_sim_step(w->loop);
	rc = vm_op_cancel(w->mgr, &task, &e);
	status = world_end(w, task);
	if (rc == RV_ENOTALLOWED) {
		(*refused)++;
		assert_int_equal(status, TASK_STATUS_SUCCESS);
	} else if (status == TASK_STATUS_CANCELLED) {
		(*cancelled)++;
		/* Nothing has changed, and nobody else's error is shown. */
		assert_int_equal(world_state(w, 0), state);
		assert_non_null(strstr(world_why(w, task), "vm0"));
		assert_non_null(strstr(world_why(w, task), "cancel"));
	} else if (status != TASK_STATUS_SUCCESS) {
		fail_msg("%s cancelled after %llu: %s", vm_operation_name(s->kind),
			(unsigned long long)steps, world_why(w, task));
	}
	settle(w);
	check_world(w);
	check_usable(w);
	world_free(w);
}

static void test_every_moment(void **state)
{
	(void)state;
	for (size_t i = 0; i < SCENARIOS; i++) {
		uint64_t n = length(&scenarios[i], 4000 + i);
		unsigned cancelled = 0, refused = 0;

		for (uint64_t k = 0; k<n; k += n> 100 ? n / 40 : STRIDE)
			cancel_after(&scenarios[i], 4000 + i, k, &cancelled, &refused);
		print_message("%s: %u cancelled, %u too late\n",
			vm_operation_name(scenarios[i].kind), cancelled, refused);
	}
}

/* A start that waits for memory ends at once, and its reservation with it. */
static void test_waiting_for_memory(void **state)
{
	struct world *w = world_new_with(4100, 1024 + 1200);
	struct uuid task;

	(void)state;
	w->static_max = 512 * WORLD_MIB;
	w->dynamic_min = 256 * WORLD_MIB;
	w->platform_key = "sim.balloon_rate";
	w->platform_value = "1MiB"; /* minutes for what the third needs */
	for (int i = 0; i < 3; i++)
		world_add_vm(w, 0, 0);
	world_must(w, VM_OP_START, 0);
	world_must(w, VM_OP_START, 1);
	world_run_ms(w, 120000);
	assert_int_equal(world_begin(w, VM_OP_START, 2, &task), 0);
	world_run_ms(w, 2000);
	assert_int_equal(world_task(w, task), TASK_STATUS_PENDING);
	struct rv_error e;
	assert_int_equal(vm_op_cancel(w->mgr, &task, &e), 0);
	assert_int_equal(world_end(w, task), TASK_STATUS_CANCELLED);
	world_assert_clean(w, 2);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_moment),
		cmocka_unit_test(test_waiting_for_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
