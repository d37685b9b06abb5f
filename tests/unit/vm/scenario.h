/* Operations, each with the state it begins in; and what must hold when it is over,
 * whatever happened in between. */
#ifndef REEVE_TESTS_VM_SCENARIO_H
#define REEVE_TESTS_VM_SCENARIO_H

#include "world.h"

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

static inline struct uuid a_vbd(struct world *w)
{
	return row_uuid(db_next_ref(pool_db(w->pool), VBD_VM, w->vm[0], NULL));
}

/* A world with one VM, as the scenario begins. */
static inline struct world *prepare(
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

static inline void settle(struct world *w)
{
	if (!world_run(w, world_idle, 600 * 1000)) {
		world_tell(w);
		fail_msg("seed %llu: not settled", (unsigned long long)w->seed);
	}
	world_run_ms(w, 25000); /* two looks more */
	if (!world_run(w, world_idle, 600 * 1000))
		fail_msg("seed %llu: not settled", (unsigned long long)w->seed);
}

/* No disk of it is claimed. */
static inline void check_released(struct world *w, const struct row *vm)
{
	const struct row *r = NULL;

	while ((r = db_next_ref(pool_db(w->pool), VBD_VM, row_uuid(vm), r))) {
		struct storage_sim_claims c =
			storage_sim_vdi_claims(w->bytes, db_ref(r, VBD_VDI));

		if (c.writers + c.readers)
			fail_msg("seed %llu: a disk of %s is still claimed",
				(unsigned long long)w->seed, row_name(vm));
	}
}

/* Every domain is the recorded one of a VM that has one. */
static inline void check_world_but_disks(struct world *w)
{
	const struct db *db = pool_db(w->pool);
	struct world_domains d;

	world_domains(w, &d);
	for (size_t i = 0; i < d.count; i++) {
		const struct row *vm = db_row(db, CLASS_VM, d.list[i].vm);

		assert_non_null(vm);
		if (db_int(vm, VM_DOMID) != d.list[i].id.domid)
			fail_msg("seed %llu: domain %u of %s, database %lld, state %d",
				(unsigned long long)w->seed, d.list[i].id.domid,
				row_name(vm), (long long)db_int(vm, VM_DOMID),
				d.list[i].state);
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
		if (db_int(vm, VM_DOMID) < 0)
			check_released(w, vm);
	}
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

/* And every disk is known. */
static inline void check_world(struct world *w)
{
	check_world_but_disks(w);
	assert_int_equal(storage_sim_vdi_count(w->bytes, w->sr),
		db_count(pool_db(w->pool), CLASS_VDI));
}

static inline void check_usable(struct world *w)
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

/* Steps until the operation is over; returns how many. */
static inline uint64_t length(const struct scenario *s, uint64_t seed)
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

#endif
