/*
 * kill -9 of the daemon at every named point of every operation, and at every event in
 * between; and a power loss instead. Whatever the moment: after the next start each task
 * has its true ending, nothing is left over, and the VM can be used.
 */
#include "world.h"

enum { STRIDE = 3 };

struct scenario {
	enum vm_operation kind;
	enum vm_power_state from;
	bool start_paused;
};

static const struct scenario scenarios[] = {
	{VM_OP_START, VM_POWER_STATE_HALTED, false},
	{VM_OP_START, VM_POWER_STATE_HALTED, true},
	{VM_OP_CLEAN_SHUTDOWN, VM_POWER_STATE_RUNNING, false},
	{VM_OP_HARD_SHUTDOWN, VM_POWER_STATE_RUNNING, false},
	{VM_OP_HARD_SHUTDOWN, VM_POWER_STATE_SUSPENDED, false},
	{VM_OP_CLEAN_REBOOT, VM_POWER_STATE_RUNNING, false},
	{VM_OP_HARD_REBOOT, VM_POWER_STATE_RUNNING, false},
	{VM_OP_PAUSE, VM_POWER_STATE_RUNNING, false},
	{VM_OP_UNPAUSE, VM_POWER_STATE_PAUSED, false},
	{VM_OP_SUSPEND, VM_POWER_STATE_RUNNING, false},
	{VM_OP_RESUME, VM_POWER_STATE_SUSPENDED, false},
	{VM_OP_RESUME, VM_POWER_STATE_SUSPENDED, true},
	{VM_OP_CLONE, VM_POWER_STATE_HALTED, false},
	{VM_OP_PROVISION, VM_POWER_STATE_HALTED, false},
	{VM_OP_DESTROY, VM_POWER_STATE_HALTED, false},
	{VM_OP_VBD_UNPLUG, VM_POWER_STATE_RUNNING, false},
	{VM_OP_VBD_PLUG, VM_POWER_STATE_RUNNING, false},
};

enum { SCENARIOS = sizeof scenarios / sizeof scenarios[0] };

static struct uuid a_vbd(struct world *w)
{
	return row_uuid(db_next_ref(pool_db(w->pool), VBD_VM, w->vm[0], NULL));
}

/* A world with one VM, as the scenario begins. */
static struct world *prepare(
	const struct scenario *s, uint64_t seed, struct vm_op_args *a)
{
	struct world *w = world_new(seed);
	struct txn t;

	w->static_max = w->dynamic_min = 32 * WORLD_MIB;
	world_add_vm(w, 2, 1);
	*a = (struct vm_op_args){.vm = w->vm[0],
		.start_paused = s->start_paused,
		.with_disks = true,
		.new_name = "copy"};
	if (s->kind == VM_OP_PROVISION) {
		world_txn(w, &t);
		txn_map_put(&t, w->vm[0], VM_OTHER_CONFIG, "disks",
			"4: size=1GiB; 5: size=1GiB");
		world_commit(w, &t);
	}
	if (s->from != VM_POWER_STATE_HALTED) {
		world_must(w, VM_OP_START, 0);
		world_run_ms(w, 1000);
	}
	if (s->from == VM_POWER_STATE_PAUSED)
		world_must(w, VM_OP_PAUSE, 0);
	if (s->from == VM_POWER_STATE_SUSPENDED)
		world_must(w, VM_OP_SUSPEND, 0);
	a->device = a_vbd(w);
	if (s->kind == VM_OP_VBD_PLUG) {
		struct uuid task;

		assert_int_equal(world_begin_args(w, VM_OP_VBD_UNPLUG, a, &task), 0);
		assert_int_equal(world_end(w, task), TASK_STATUS_SUCCESS);
	}
	w->seen_count = 0;
	return w;
}

static void settle(struct world *w)
{
	if (!world_run(w, world_idle, 600 * 1000))
		fail_msg("seed %llu: not settled", (unsigned long long)w->seed);
	world_run_ms(w, 25000); /* two looks more */
	if (!world_run(w, world_idle, 600 * 1000))
		fail_msg("seed %llu: not settled", (unsigned long long)w->seed);
}

/* Every domain is the recorded one of a VM that has one; every disk is known. */
static void check_world(struct world *w)
{
	const struct db *db = pool_db(w->pool);
	struct world_domains d;

	world_domains(w, &d);
	for (size_t i = 0; i < d.count; i++) {
		const struct row *vm = db_row(db, CLASS_VM, d.list[i].vm);

		assert_non_null(vm);
		assert_int_equal(db_int(vm, VM_DOMID), d.list[i].id.domid);
	}
	for (const struct row *vm = NULL; (vm = db_next(db, CLASS_VM, vm));) {
		int state = db_enum(vm, VM_POWER_STATE);

		if ((state == VM_POWER_STATE_RUNNING || state == VM_POWER_STATE_PAUSED) !=
			(db_int(vm, VM_DOMID) >= 0))
			fail_msg("seed %llu: state %d with domid %lld",
				(unsigned long long)w->seed, state,
				(long long)db_int(vm, VM_DOMID));
		assert_int_equal(db_enum(vm, VM_INTENT), VM_INTENT_NONE);
		assert_int_equal(value_count(row_value(vm, VM_CURRENT_OPERATIONS)), 0);
		assert_true((state == VM_POWER_STATE_SUSPENDED) ==
			    (db_follow(db, vm, VM_SUSPEND_VDI) != NULL));
	}
	assert_int_equal(storage_sim_vdi_count(w->bytes, w->sr), db_count(db, CLASS_VDI));
	for (const struct row *t = NULL; (t = db_next(db, CLASS_TASK, t));)
		if (db_enum(t, TASK_STATUS) == TASK_STATUS_PENDING)
			fail_msg("seed %llu: a task never ended",
				(unsigned long long)w->seed);
	assert_int_equal(
		memctl_reservation_count(vm_memory_controller(w->mgr->hosts[0]->memory)),
		0);
	if (vm_manager_complaint(w->mgr))
		fail_msg("%s", vm_manager_complaint(w->mgr));
}

static void check_usable(struct world *w)
{
	struct hyper_sim_view v;

	if (!world_row(w, 0))
		return; /* destroyed */
	if (world_state(w, 0) == VM_POWER_STATE_SUSPENDED) {
		world_must(w, VM_OP_RESUME, 0);
		assert_true(world_guest(w, 0, &v));
		assert_int_equal(v.damaged_pages, 0);
	}
	if (world_state(w, 0) == VM_POWER_STATE_PAUSED)
		world_must(w, VM_OP_UNPAUSE, 0);
	if (world_state(w, 0) == VM_POWER_STATE_HALTED)
		world_must(w, VM_OP_START, 0);
	world_assert_runs(w, 0);
	world_must(w, VM_OP_HARD_SHUTDOWN, 0);
	world_assert_clean(w, 0);
}

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
	after_crash(w, task);
	world_free(w);
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

/* Steps until the operation is over; returns how many. */
static uint64_t length(const struct scenario *s, uint64_t seed)
{
	struct vm_op_args args;
	struct world *w = prepare(s, seed, &args);
	uint64_t n = 0;
	struct rv_error e;

	assert_int_equal(
		vm_op_start(w->mgr, s->kind, &args, world_uuid(w), NULL, NULL, &e), 0);
	for (; !world_idle(w) && loop_sim_step(w->loop); n++)
		;
	world_free(w);
	return n;
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
		cmocka_unit_test(test_every_moment),
		cmocka_unit_test(test_power_loss),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
