/*
 * Each fault of the hypervisor in each kind of call of each operation, faults of storage
 * and network, and long random lives with all of it. Whatever happens: every task ends
 * once, the invariants hold after each event, the world can be used afterwards.
 */
#include "scenario.h"

static const enum hyper_call calls[] = {
	HYPER_CALL_CREATE,
	HYPER_CALL_RESTORE,
	HYPER_CALL_SAVE,
	HYPER_CALL_RESUME,
	HYPER_CALL_DESTROY,
	HYPER_CALL_PAUSE,
	HYPER_CALL_UNPAUSE,
	HYPER_CALL_REQUEST_SHUTDOWN,
	HYPER_CALL_ATTACH_VBD,
	HYPER_CALL_DETACH_VBD,
};

enum { CALLS = sizeof calls / sizeof calls[0] };

static void fault_in(const struct scenario *s, enum hyper_call call,
	enum hyper_sim_fault fault, uint32_t count, uint64_t *fired)
{
	struct vm_op_args args;
	struct world *w = prepare(s, 5000, &args);
	struct uuid task;
	int status;

	hyper_sim_inject(w->hyper, call, fault, count, 0);
	assert_int_equal(world_begin_args(w, s->kind, &args, &task), 0);
	status = world_end(w, task);
	assert_true(status == TASK_STATUS_SUCCESS || status == TASK_STATUS_FAILURE);
	*fired += hyper_sim_faults_fired(w->hyper, fault);
	if (status == TASK_STATUS_FAILURE)
		assert_non_null(strstr(world_why(w, task), "vm0"));
	hyper_sim_inject(w->hyper, call, HYPER_SIM_FAULT_NONE, 0, 0);
	settle(w);
	check_world(w);
	check_usable(w);
	world_free(w);
}

static void test_hypervisor(void **state)
{
	(void)state;
	for (int f = HYPER_SIM_FAULT_ERROR; f < HYPER_SIM_FAULT_COUNT; f++) {
		uint64_t fired = 0;

		for (size_t i = 0; i < SCENARIOS; i++)
			for (size_t c = 0; c < CALLS; c++)
				fault_in(&scenarios[i], calls[c], (enum hyper_sim_fault)f,
					1, &fired);
		print_message("%s: fired %llu times\n",
			hyper_sim_fault_name((enum hyper_sim_fault)f),
			(unsigned long long)fired);
		assert_true(fired >= 20);
	}
}

/* Twice in a row: the undo is hit too. */
static void test_hypervisor_twice(void **state)
{
	uint64_t fired = 0;

	(void)state;
	for (size_t i = 0; i < SCENARIOS; i++)
		for (size_t c = 0; c < CALLS; c++) {
			fault_in(&scenarios[i], calls[c], HYPER_SIM_FAULT_ERROR, 3,
				&fired);
			fault_in(&scenarios[i], calls[c], HYPER_SIM_FAULT_EFFECT_ERROR, 3,
				&fired);
		}
	assert_true(fired >= 40);
}

static void test_storage(void **state)
{
	static const struct storage_sim_faults faults[] = {
		{.latency_min_us = 100, .latency_max_us = 1000, .fail_ppm = 300000},
		{.latency_min_us = 100, .latency_max_us = 1000, .fail_after_ppm = 300000},
		{.latency_min_us = 100,
			.latency_max_us = 1000,
			.hang_ppm = 200000,
			.hang_us = 120000000},
	};
	static const struct storage_sim_faults none;
	unsigned failed = 0;

	(void)state;
	for (size_t f = 0; f < 3; f++)
		for (size_t i = 0; i < SCENARIOS; i++)
			for (uint64_t seed = 0; seed < 3; seed++) {
				struct vm_op_args args;
				struct world *w =
					prepare(&scenarios[i], 6000 + seed, &args);
				struct uuid task;

				storage_sim_set_faults(w->bytes, &faults[f]);
				assert_int_equal(world_begin_args(w, scenarios[i].kind,
							 &args, &task),
					0);
				failed += world_end(w, task) != TASK_STATUS_SUCCESS;
				storage_sim_set_faults(w->bytes, &none);
				world_run_ms(w, 130000); /* what hangs has answered */
				settle(w);
				/* What was deleted is deleted; asking again ends it. */
				if (scenarios[i].kind == VM_OP_DESTROY &&
					world_row(w, 0)) {
					assert_int_equal(
						world_begin_args(
							w, VM_OP_DESTROY, &args, &task),
						0);
					assert_int_equal(
						world_end(w, task), TASK_STATUS_SUCCESS);
				}
				check_world_but_disks(w);
				check_usable(w);
				world_free(w);
			}
	assert_true(failed > 20);
}

static void test_network(void **state)
{
	unsigned failed = 0;

	(void)state;
	for (uint64_t seed = 0; seed < 8; seed++) {
		struct vm_op_args args;
		struct world *w = prepare(&scenarios[0], 7000 + seed, &args);
		struct uuid task;

		net_sim_set_faults(w->net, 300000, 200000, 100000);
		assert_int_equal(world_begin_args(w, VM_OP_START, &args, &task), 0);
		failed += world_end(w, task) != TASK_STATUS_SUCCESS;
		net_sim_set_faults(w->net, 0, 0, 0);
		world_run_ms(w, 130000); /* what hangs has answered */
		settle(w);
		check_world(w);
		check_usable(w);
		world_free(w);
	}
	assert_true(failed > 0);
}

/* The SR is full in the middle of a save: the guest goes on, nothing is lost. */
static void test_suspend_on_a_full_disk(void **state)
{
	struct world *w = world_new_sized(7100, 16384, 40 * WORLD_MIB);
	struct hyper_sim_view before, after;
	struct uuid task;
	size_t vdis;

	(void)state;
	w->static_max = w->dynamic_min = 512 * WORLD_MIB;
	world_add_vm(w, 1, 0);
	world_must(w, VM_OP_START, 0);
	world_run_ms(w, 2000);
	vdis = storage_sim_vdi_count(w->bytes, w->sr);
	assert_true(world_guest(w, 0, &before));
	assert_int_equal(world_begin(w, VM_OP_SUSPEND, 0, &task), 0);
	assert_int_equal(world_end(w, task), TASK_STATUS_FAILURE);
	assert_string_equal(
		db_string(db_row(pool_db(w->pool), CLASS_TASK, task), TASK_ERROR_CODE),
		"SR_FULL");
	world_assert_runs(w, 0);
	world_run_ms(w, 1000);
	assert_true(world_guest(w, 0, &after));
	assert_true(after.ran_us > before.ran_us + 900000);
	assert_int_equal(after.damaged_pages, 0);
	assert_int_equal(storage_sim_vdi_count(w->bytes, w->sr), vdis);
	assert_int_equal(db_count(pool_db(w->pool), CLASS_VDI), vdis);
	world_free(w);
}

/* The SR fails from a point on, for a while: what was not yet certain is undone, what was
 * certain is finished when it works again. */
static void sr_fails_at(
	const struct scenario *s, const char *point, int status, int state)
{
	static const struct storage_sim_faults none;
	struct vm_op_args args;
	struct world *w = prepare(s, 7200, &args);
	struct uuid task;

	w->fail_at = point;
	assert_int_equal(world_begin_args(w, s->kind, &args, &task), 0);
	assert_int_equal(world_end(w, task), status);
	assert_int_equal(world_state(w, 0), state);
	w->fail_at = NULL;
	storage_sim_set_faults(w->bytes, &none);
	settle(w);
	assert_int_equal(world_state(w, 0), state);
	check_world_but_disks(w);
	check_usable(w);
	world_free(w);
}

static const struct scenario *scenario_of(enum vm_operation kind)
{
	for (size_t i = 0; i < SCENARIOS; i++)
		if (scenarios[i].kind == kind)
			return &scenarios[i];
	return NULL;
}

/* The last bytes of an image take longer than other requests may. */
static void test_suspend_on_a_slow_disk(void **state)
{
	static const struct storage_sim_faults none;
	const struct scenario *s = scenario_of(VM_OP_SUSPEND);
	struct vm_op_args args;
	struct world *w = prepare(s, 7300, &args);
	struct uuid task;

	(void)state;
	w->fail_at = "suspend.saved";
	w->slow_us = 50 * 1000000;
	assert_int_equal(world_begin_args(w, s->kind, &args, &task), 0);
	world_run_ms(w, 110 * 1000);
	storage_sim_set_faults(w->bytes, &none);
	assert_int_equal(world_end(w, task), TASK_STATUS_SUCCESS);
	assert_int_equal(world_state(w, 0), VM_POWER_STATE_SUSPENDED);
	settle(w);
	check_world(w);
	check_usable(w);
	world_free(w);
}

static void test_sr_fails(void **state)
{
	(void)state;
	sr_fails_at(scenario_of(VM_OP_SUSPEND), "suspend.image", TASK_STATUS_FAILURE,
		VM_POWER_STATE_RUNNING);
	sr_fails_at(scenario_of(VM_OP_SUSPEND), "suspend.saved", TASK_STATUS_FAILURE,
		VM_POWER_STATE_RUNNING);
	sr_fails_at(scenario_of(VM_OP_SUSPEND), "suspend.committed", TASK_STATUS_SUCCESS,
		VM_POWER_STATE_SUSPENDED);
	sr_fails_at(scenario_of(VM_OP_HARD_SHUTDOWN), "shutdown.ended",
		TASK_STATUS_SUCCESS, VM_POWER_STATE_HALTED);
	sr_fails_at(scenario_of(VM_OP_RESUME), "op.intent", TASK_STATUS_FAILURE,
		VM_POWER_STATE_SUSPENDED);
	sr_fails_at(scenario_of(VM_OP_RESUME), "build.created", TASK_STATUS_SUCCESS,
		VM_POWER_STATE_RUNNING);
	sr_fails_at(scenario_of(VM_OP_HARD_REBOOT), "reboot.gone", TASK_STATUS_FAILURE,
		VM_POWER_STATE_HALTED);
}

/* --- random lives --- */

static enum vm_operation any(struct prng *p)
{
	static const enum vm_operation kinds[] = {VM_OP_START, VM_OP_START, VM_OP_START,
		VM_OP_CLEAN_SHUTDOWN, VM_OP_HARD_SHUTDOWN, VM_OP_CLEAN_REBOOT,
		VM_OP_HARD_REBOOT, VM_OP_PAUSE, VM_OP_UNPAUSE, VM_OP_SUSPEND,
		VM_OP_RESUME, VM_OP_RESUME};

	return kinds[prng_below(p, sizeof kinds / sizeof kinds[0])];
}

/* tally: of the tasks' endings. */
static void live(uint64_t seed, unsigned tally[TASK_STATUS_COUNT])
{
	struct world *w = world_new_with(seed, 1024 + 400);
	struct prng p;
	struct uuid tasks[64];
	size_t count = 0;

	prng_seed(&p, seed);
	w->static_max = 96 * WORLD_MIB;
	w->dynamic_min = 64 * WORLD_MIB;
	for (int i = 0; i < 6; i++)
		world_add_vm(w, (int)prng_below(&p, 3), (int)prng_below(&p, 2));
	for (int round = 0; round < 40; round++) {
		struct vm_op_args args = {
			.vm = w->vm[prng_below(&p, 6)], .timeout_ms = 5000};
		struct uuid task = world_uuid(w);
		struct rv_error e;

		if (prng_chance_ppm(&p, 300000))
			hyper_sim_inject(w->hyper, HYPER_CALL_NONE,
				1 + (enum hyper_sim_fault)prng_below(
					    &p, HYPER_SIM_FAULT_COUNT - 1),
				1, 3000000);
		if (vm_op_start(w->mgr, any(&p), &args, task, NULL, NULL, &e) == 0 &&
			count < 64)
			tasks[count++] = task;
		if (prng_chance_ppm(&p, 100000) && count > 0 &&
			vm_op_cancel(w->mgr, &tasks[prng_below(&p, count)], &e))
			continue;
		if (prng_chance_ppm(&p, 100000))
			(void)!hyper_sim_end_guest(w->hyper, &w->vm[prng_below(&p, 6)],
				HYPER_REASON_POWEROFF +
					(enum hyper_reason)prng_below(&p, 2));
		world_run_ms(w, prng_range(&p, 0, 400));
		if (prng_chance_ppm(&p, 80000))
			world_restart(w);
	}
	hyper_sim_inject(w->hyper, HYPER_CALL_NONE, HYPER_SIM_FAULT_NONE, 0, 0);
	settle(w);
	settle(w);
	check_world(w);
	for (size_t i = 0; i < count; i++) {
		int status = world_task(w, tasks[i]);

		/* -1: the daemon died before the intent was committed. */
		assert_true(status != TASK_STATUS_PENDING);
		if (status >= 0)
			tally[status]++;
	}
	world_free(w);
}

static void test_seeds(void **state)
{
	const char *from = getenv("VM_SEED"), *count = getenv("VM_SEEDS");
	uint64_t first = from ? strtoull(from, NULL, 10) : 1;
	uint64_t n = count ? strtoull(count, NULL, 10) : 60;
	unsigned tally[TASK_STATUS_COUNT] = {0};

	(void)state;
	for (uint64_t seed = first; seed < first + n; seed++)
		live(seed, tally);
	print_message("%u succeeded, %u failed, %u were cancelled\n",
		tally[TASK_STATUS_SUCCESS], tally[TASK_STATUS_FAILURE],
		tally[TASK_STATUS_CANCELLED]);
	if (n >= 60)
		assert_true(tally[TASK_STATUS_SUCCESS] > 5 * n &&
			    tally[TASK_STATUS_FAILURE] > 0 &&
			    tally[TASK_STATUS_CANCELLED] > 0);
}

/* Its image could not be deleted when the guest was ended: the look does it, once the SR
 * answers again. */
static void test_image_is_discarded_later(void **state)
{
	static const struct storage_sim_faults none = {.latency_min_us = 200,
		.latency_max_us = 2000,
		.copy_bytes_per_s = 256 << 20};
	struct storage_sim_faults all = none;
	struct world *w = world_new(77);
	size_t vm = world_add_vm(w, 1, 1);

	(void)state;
	world_must(w, VM_OP_START, vm);
	world_must(w, VM_OP_SUSPEND, vm);
	all.fail_ppm = 1000000;
	storage_sim_set_faults(w->bytes, &all);
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	world_run_ms(w, 60 * 1000);
	assert_int_equal(db_count(pool_db(w->pool), CLASS_VDI), 2);
	storage_sim_set_faults(w->bytes, &none);
	world_run_ms(w, 60 * 1000);
	assert_int_equal(db_count(pool_db(w->pool), CLASS_VDI), 1);
	check_world(w);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hypervisor),
		cmocka_unit_test(test_hypervisor_twice),
		cmocka_unit_test(test_storage),
		cmocka_unit_test(test_network),
		cmocka_unit_test(test_suspend_on_a_full_disk),
		cmocka_unit_test(test_suspend_on_a_slow_disk),
		cmocka_unit_test(test_sr_fails),
		cmocka_unit_test(test_image_is_discarded_later),
		cmocka_unit_test(test_seeds),
	};

	const struct CMUnitTest seeds[] = {
		cmocka_unit_test(test_seeds),
	};

	/* Replaying a seed: VM_SEED=n [VM_SEEDS=m] [VM_LOG=1]. */
	if (getenv("VM_SEED"))
		return cmocka_run_group_tests(seeds, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
