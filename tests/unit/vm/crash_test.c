/*
 * kill -9 of the daemon at every named point of every operation, and at every event in
 * between; and a power loss instead. Whatever the moment: after the next start each task
 * has its true ending, nothing is left over, and the VM can be used.
 */
#include "scenario.h"

enum { STRIDE = 3 };

static void after_crash(struct world *w, struct uuid task)
{
	int status;

	settle(w);
	status = world_task(w, task);
	if (status == TASK_STATUS_PENDING)
		fail_msg("seed %llu: the task never ended", (unsigned long long)w->seed);
	check_world(w);
	check_usable(w);
}

/* What a death at a point must come to, where that is certain. */
static void expect(
	const struct scenario *s, const char *point, struct world *w, struct uuid task)
{
	static const struct {
		enum vm_operation kind;
		const char *point;
		enum task_status status;
		int state; /* -1: destroyed */
	} known[] = {
		{VM_OP_START, "op.intent", TASK_STATUS_FAILURE, VM_POWER_STATE_HALTED},
		{VM_OP_START, "build.reserved", TASK_STATUS_FAILURE,
			VM_POWER_STATE_HALTED},
		{VM_OP_START, "build.plugged", TASK_STATUS_FAILURE,
			VM_POWER_STATE_HALTED},
		{VM_OP_START, "build.created", TASK_STATUS_FAILURE,
			VM_POWER_STATE_HALTED},
		{VM_OP_START, "build.unpaused", TASK_STATUS_SUCCESS,
			VM_POWER_STATE_RUNNING},
		{VM_OP_HARD_SHUTDOWN, "op.intent", TASK_STATUS_SUCCESS,
			VM_POWER_STATE_HALTED},
		{VM_OP_HARD_SHUTDOWN, "op.ending", TASK_STATUS_SUCCESS,
			VM_POWER_STATE_HALTED},
		{VM_OP_CLEAN_SHUTDOWN, "op.intent", TASK_STATUS_FAILURE,
			VM_POWER_STATE_RUNNING},
		{VM_OP_CLEAN_SHUTDOWN, "shutdown.ended", TASK_STATUS_SUCCESS,
			VM_POWER_STATE_HALTED},
		{VM_OP_CLEAN_SHUTDOWN, "shutdown.gone", TASK_STATUS_SUCCESS,
			VM_POWER_STATE_HALTED},
		{VM_OP_HARD_REBOOT, "op.intent", TASK_STATUS_SUCCESS,
			VM_POWER_STATE_RUNNING},
		{VM_OP_HARD_REBOOT, "reboot.gone", TASK_STATUS_SUCCESS,
			VM_POWER_STATE_RUNNING},
		{VM_OP_HARD_REBOOT, "build.unpaused", TASK_STATUS_SUCCESS,
			VM_POWER_STATE_RUNNING},
		{VM_OP_CLEAN_REBOOT, "reboot.ended", TASK_STATUS_SUCCESS,
			VM_POWER_STATE_RUNNING},
		{VM_OP_PAUSE, "pause.called", TASK_STATUS_SUCCESS, VM_POWER_STATE_PAUSED},
		{VM_OP_UNPAUSE, "op.intent", TASK_STATUS_SUCCESS, VM_POWER_STATE_RUNNING},
		{VM_OP_SUSPEND, "suspend.image", TASK_STATUS_FAILURE,
			VM_POWER_STATE_RUNNING},
		{VM_OP_SUSPEND, "suspend.saved", TASK_STATUS_FAILURE,
			VM_POWER_STATE_RUNNING},
		{VM_OP_SUSPEND, "suspend.flushed", TASK_STATUS_FAILURE,
			VM_POWER_STATE_RUNNING},
		{VM_OP_SUSPEND, "suspend.committed", TASK_STATUS_SUCCESS,
			VM_POWER_STATE_SUSPENDED},
		{VM_OP_RESUME, "build.created", TASK_STATUS_FAILURE,
			VM_POWER_STATE_SUSPENDED},
		{VM_OP_RESUME, "build.unpaused", TASK_STATUS_SUCCESS,
			VM_POWER_STATE_RUNNING},
		{VM_OP_CLONE, "make.disk", TASK_STATUS_FAILURE, VM_POWER_STATE_HALTED},
		{VM_OP_PROVISION, "make.disk", TASK_STATUS_FAILURE,
			VM_POWER_STATE_HALTED},
		{VM_OP_DESTROY, "destroy.disk", TASK_STATUS_SUCCESS, -1},
	};

	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
		if (known[i].kind != s->kind || strcmp(known[i].point, point) != 0)
			continue;
		assert_int_equal(world_task(w, task), known[i].status);
		if (known[i].state >= 0)
			assert_int_equal(world_state(w, 0), known[i].state);
		else
			assert_null(world_row(w, 0));
	}
}

static void crash_at_point(const struct scenario *s, const char *point, int skip)
{
	struct vm_op_args args;
	struct world *w = prepare(s, 1000 + (uint64_t)(s - scenarios), &args);
	struct uuid task;

	w->die_at = point;
	w->die_skip = skip;
	assert_int_equal(world_begin_args(w, s->kind, &args, &task), 0);
	world_run(w, world_idle, 600 * 1000);
	assert_true(w->died);
	world_restart(w);
	settle(w);
	expect(s, point, w, task);
	after_crash(w, task);
	world_free(w);
}

/* Power is lost while a resume is between "may have run" and "runs": the old memory must
 * never meet the disks again. Before that it is as good as ever. */
static void power_at(const char *point, int state)
{
	const struct scenario *s = &scenarios[10];
	struct vm_op_args args;
	struct world *w = prepare(s, 1500, &args);
	struct uuid task;

	assert_int_equal(s->kind, VM_OP_RESUME);
	w->die_at = point;
	assert_int_equal(world_begin_args(w, s->kind, &args, &task), 0);
	world_run(w, world_idle, 600 * 1000);
	assert_true(w->died);
	world_kill(w);
	disk_sim_crash(w->medium);
	hyper_sim_machine_reboot(w->machine);
	world_start(w);
	world_manage(w);
	settle(w);
	assert_int_equal(world_state(w, 0), state);
	assert_int_equal(world_task(w, task), TASK_STATUS_FAILURE);
	after_crash(w, task);
	world_free(w);
}

static void test_power_loss_in_resume(void **state)
{
	(void)state;
	power_at("op.intent", VM_POWER_STATE_SUSPENDED);
	power_at("build.created", VM_POWER_STATE_SUSPENDED);
	power_at("build.recorded", VM_POWER_STATE_HALTED);
	power_at("build.unpaused", VM_POWER_STATE_HALTED);
}

static void test_every_point(void **state)
{
	(void)state;
	for (size_t i = 0; i < SCENARIOS; i++) {
		struct vm_op_args args;
		struct world *w = prepare(&scenarios[i], 1000 + i, &args);
		struct uuid task;
		const char *points[64];
		size_t count;

		assert_int_equal(world_begin_args(w, scenarios[i].kind, &args, &task), 0);
		if (world_end(w, task) != TASK_STATUS_SUCCESS)
			fail_msg("scenario %zu: %s", i, world_why(w, task));
		count = w->seen_count;
		memcpy(points, w->seen, sizeof points);
		world_free(w);
		assert_true(count >= 2);
		for (size_t p = 0; p < count; p++) {
			print_message("%s dies at %s\n",
				vm_operation_name(scenarios[i].kind), points[p]);
			crash_at_point(&scenarios[i], points[p], 0);
		}
	}
}

static void crash_after(
	const struct scenario *s, uint64_t seed, uint64_t steps, bool power)
{
	struct vm_op_args args;
	struct world *w = prepare(s, seed, &args);
	struct uuid task = world_uuid(w);
	struct rv_error e;

	assert_int_equal(vm_op_start(w->mgr, s->kind, &args, task, NULL, NULL, &e), 0);
	for (uint64_t i = 0; i < steps; i++)
		loop_sim_step(w->loop);
	world_kill(w);
	if (power) {
		disk_sim_crash(w->medium);
		hyper_sim_machine_reboot(w->machine);
	}
	world_start(w);
	world_manage(w);
	after_crash(w, task);
	world_free(w);
}

static void test_every_moment(void **state)
{
	(void)state;
	for (size_t i = 0; i < SCENARIOS; i++) {
		uint64_t n = length(&scenarios[i], 2000 + i);

		print_message("%s: %llu moments\n", vm_operation_name(scenarios[i].kind),
			(unsigned long long)n);
		for (uint64_t k = i % STRIDE; k<n; k += n> 300 ? n / 60 : STRIDE)
			crash_after(&scenarios[i], 2000 + i, k, false);
	}
}

static void test_power_loss(void **state)
{
	(void)state;
	for (size_t i = 0; i < SCENARIOS; i++) {
		uint64_t n = length(&scenarios[i], 3000 + i);

		for (uint64_t k = 0; k<n; k += n> 60 ? n / 12 : 5)
			crash_after(&scenarios[i], 3000 + i, k, true);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_point),
		cmocka_unit_test(test_power_loss_in_resume),
		cmocka_unit_test(test_every_moment),
		cmocka_unit_test(test_power_loss),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
