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
	w->may_run = may_run;
	w->may_run_arg = g;
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

static bool is_running(struct world *w, size_t vm)
{
	struct hyper_domain domains[WORLD_MAX_VMS];
	struct uuid uuid = row_uuid(world_row(w, vm));
	size_t n = world_truth(w, domains);

	for (size_t i = 0; i < n; i++)
		if (uuid_eq(&domains[i].vm, &uuid))
			return domains[i].state == HYPER_RUNNING;
	return false;
}

/* It ends on the unpause's way to the hypervisor: what comes of it late is nothing. */
static void test_unpauses_nothing_late(void **state)
{
	struct gate g = {.shut = false};
	struct world *w = gated(5, &g);
	size_t vm = world_add_vm(w, 1, 0);
	struct uuid task;

	(void)state;
	world_must(w, VM_OP_START, vm);
	world_must(w, VM_OP_PAUSE, vm);
	hyper_sim_inject(w->hyper, HYPER_CALL_UNPAUSE, HYPER_SIM_FAULT_LATE, 1, 2000000);
	assert_int_equal(world_begin(w, VM_OP_UNPAUSE, vm, &task), 0);
	world_run_ms(w, 1000);
	g.shut = true;
	assert_int_equal(world_end(w, task), TASK_STATUS_FAILURE);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_PAUSED);
	assert_false(is_running(w, vm));
	g.shut = false;
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	hyper_sim_inject(w->hyper, HYPER_CALL_UNPAUSE, HYPER_SIM_FAULT_LATE, 1, 2000000);
	assert_int_equal(world_begin(w, VM_OP_START, vm, &task), 0);
	world_run_ms(w, 1000);
	g.shut = true;
	assert_int_equal(world_end(w, task), TASK_STATUS_FAILURE);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	world_assert_clean(w, vm);
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

static bool is_told(struct world *w)
{
	return world_messages(w, "VM_WAITS_FOR_LEASE") == 1;
}

/* One that is running. */
static size_t protected_vm(struct world *w)
{
	size_t vm = world_add_vm(w, 1, 0);

	world_set_enum(w, vm, VM_HA_RESTART_PRIORITY, VM_RESTART_PRIORITY_RESTART);
	world_must(w, VM_OP_START, vm);
	return vm;
}

/* Its save came to nothing, and the pool may start it elsewhere meanwhile. */
static void test_protected_goes_on_later(void **state)
{
	struct gate g = {.shut = false};
	struct world *w = gated(6, &g);
	size_t vm = world_add_vm(w, 1, 0), plain = world_add_vm(w, 1, 0);
	struct uuid task;

	(void)state;
	world_set_enum(w, vm, VM_HA_RESTART_PRIORITY, VM_RESTART_PRIORITY_RESTART);
	world_must(w, VM_OP_START, vm);
	world_must(w, VM_OP_START, plain);
	world_run_ms(w, 1000);
	g.shut = true;
	hyper_sim_inject(w->hyper, HYPER_CALL_SAVE, HYPER_SIM_FAULT_EFFECT_ERROR, 2, 0);
	assert_int_equal(world_do(w, VM_OP_SUSPEND, plain), TASK_STATUS_FAILURE);
	world_assert_runs(w, plain);
	assert_int_equal(world_begin(w, VM_OP_SUSPEND, vm, &task), 0);
	assert_true(world_run(w, is_told, 60000));
	world_run_ms(w, 120000); /* for as long as it takes */
	assert_false(is_running(w, vm));
	assert_true(is_told(w)); /* once */
	assert_int_equal(world_task(w, task), TASK_STATUS_PENDING);
	g.shut = false;
	assert_int_equal(world_end(w, task), TASK_STATUS_FAILURE);
	world_assert_runs(w, vm);
	world_free(w);
}

/* The daemon was restarted in the middle of the save: the reconciler asks, too. */
static void test_settled_later(void **state)
{
	struct gate g = {.shut = false};
	struct world *w = gated(7, &g);
	size_t vm = protected_vm(w);
	struct uuid task;

	(void)state;
	world_run_ms(w, 1000);
	w->die_at = "suspend.saved";
	assert_int_equal(world_begin(w, VM_OP_SUSPEND, vm, &task), 0);
	assert_false(world_run(w, is_told, 60000));
	assert_true(w->died);
	g.shut = true;
	world_restart(w);
	assert_true(world_run(w, is_told, 60000));
	world_run_ms(w, 60000);
	assert_false(is_running(w, vm));
	g.shut = false;
	assert_int_equal(world_end(w, task), TASK_STATUS_FAILURE);
	world_run_ms(w, 1000);
	assert_true(is_running(w, vm));
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
	size_t vm = protected_vm(w);

	(void)state;
	assert_int_equal(hyper_sim_destroy_behind(
				 w->hyper, (uint32_t)db_int(world_row(w, vm), VM_DOMID)),
		0);
	assert_true(world_run(w, is_due, 60000));
	world_run_ms(w, 30000);
	assert_true(is_due(w)); /* nobody here starts it */
	world_free(w);
}

/* It was to run on after its reboot, whoever asked for that, and can't be built: the
 * master starts it again, and no one else. */
static void reboot_fails(uint64_t seed, enum vm_restart_priority priority, bool by_guest)
{
	struct gate g = {.shut = false};
	struct world *w = gated(seed, &g);
	size_t vm = world_add_vm(w, 1, 0);

	world_set_enum(w, vm, VM_HA_RESTART_PRIORITY, priority);
	world_must(w, VM_OP_START, vm);
	world_run_ms(w, 1000);
	g.shut = true;
	if (by_guest)
		assert_int_equal(
			hyper_sim_end_guest(w->hyper, &w->vm[vm], HYPER_REASON_REBOOT),
			0);
	else
		assert_int_equal(result(w, VM_OP_HARD_REBOOT, vm), TASK_STATUS_FAILURE);
	world_run_ms(w, 60000);
	assert_int_equal(world_messages(w, "VM_REBOOT_FAILED"), 1);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	assert_true(is_due(w) == (priority != VM_RESTART_PRIORITY_NONE));
	world_assert_clean(w, vm);
	world_free(w);
}

static void test_reboot_fails(void **state)
{
	(void)state;
	reboot_fails(13, VM_RESTART_PRIORITY_RESTART, true);
	reboot_fails(14, VM_RESTART_PRIORITY_RESTART, false);
	reboot_fails(15, VM_RESTART_PRIORITY_NONE, true);
}

/* Somebody changes a VM's protection just as an operation's end is proposed: his change
 * is in the log before it. */
struct late_change {
	struct world *w;
	enum vm_restart_priority to;
	bool made;
	struct world_commit commit;
};

static bool change_at_end(void *arg, const char *point, const struct uuid *vm)
{
	struct late_change *c = arg;
	struct rv_error e;
	struct txn t;

	if (c->made || strcmp(point, "op.ending"))
		return false;
	c->made = true;
	world_txn(c->w, &t);
	txn_set_enum(&t, *vm, VM_HA_RESTART_PRIORITY, c->to);
	assert_int_equal(
		pool_commit(c->w->pool, &c->commit.commit, &t, world_committed, &e), 0);
	return false;
}

/* Whether the master is to start it is decided by what is so when it goes down. */
static void changed_at_end(
	uint64_t seed, enum vm_restart_priority before, enum vm_restart_priority to)
{
	struct gate g = {.shut = false};
	struct world *w = gated(seed, &g);
	struct late_change c = {.w = w, .to = to};
	size_t vm = world_add_vm(w, 1, 0);
	struct uuid task;

	world_set_enum(w, vm, VM_HA_RESTART_PRIORITY, before);
	world_must(w, VM_OP_START, vm);
	w->mgr->config.point = change_at_end;
	w->mgr->config.point_arg = &c;
	g.shut = true;
	assert_int_equal(world_begin(w, VM_OP_HARD_REBOOT, vm, &task), 0);
	world_run_ms(w, 120000); /* it is tried again at the next look */
	assert_true(c.made);
	assert_int_equal(world_task(w, task), TASK_STATUS_FAILURE);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	assert_true(is_due(w) == (to != VM_RESTART_PRIORITY_NONE));
	world_free(w);
}

static void test_changed_at_end(void **state)
{
	(void)state;
	changed_at_end(16, VM_RESTART_PRIORITY_NONE, VM_RESTART_PRIORITY_RESTART);
	changed_at_end(17, VM_RESTART_PRIORITY_RESTART, VM_RESTART_PRIORITY_NONE);
}

/* Its domain could not be removed: whatever is gone at last was to be. */
static void shut_down_at_last(uint64_t seed, enum vm_restart_priority priority)
{
	struct gate g = {.shut = false};
	struct world *w = gated(seed, &g);
	size_t vm = world_add_vm(w, 1, 0);

	world_set_enum(w, vm, VM_HA_RESTART_PRIORITY, priority);
	world_must(w, VM_OP_START, vm);
	hyper_sim_inject(w->hyper, HYPER_CALL_DESTROY, HYPER_SIM_FAULT_ERROR, 20, 0);
	assert_int_equal(world_do(w, VM_OP_HARD_SHUTDOWN, vm), TASK_STATUS_FAILURE);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_RUNNING);
	assert_true(db_bool(world_row(w, vm), VM_ENDING));
	assert_int_equal(hyper_sim_destroy_behind(
				 w->hyper, (uint32_t)db_int(world_row(w, vm), VM_DOMID)),
		0);
	world_run_ms(w, 120000);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	assert_false(is_due(w));
	assert_int_equal(world_messages(w, "VM_CRASHED"), 0);
	assert_false(db_bool(world_row(w, vm), VM_ENDING));
	world_must(w, VM_OP_START, vm);
	world_free(w);
}

static void test_shut_down_at_last(void **state)
{
	(void)state;
	shut_down_at_last(18, VM_RESTART_PRIORITY_RESTART);
	shut_down_at_last(19, VM_RESTART_PRIORITY_NONE);
}

/* A resume that the pool was about to repeat is not due once its memory is gone. */
static void test_thrown_away(void **state)
{
	struct gate g = {.shut = false};
	struct world *w = gated(9, &g);
	size_t vm = protected_vm(w);
	struct txn t;

	(void)state;
	world_must(w, VM_OP_SUSPEND, vm);
	world_txn(w, &t);
	txn_set_ref(&t, w->vm[vm], VM_HA_RESTART_TASK, world_uuid(w));
	world_commit(w, &t);
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	assert_false(is_due(w));
	world_free(w);
}

static bool is_at_work(struct world *w)
{
	return vm_op_of(w->mgr, &w->vm[0]) != NULL;
}

static bool is_at_rest(struct world *w)
{
	return !is_at_work(w);
}

/* It was started before the master's own start came, and shut down or suspended before
 * the master saw that: nobody starts it again. */
static void test_ended_while_due(void **state)
{
	static const enum vm_operation kinds[] = {
		VM_OP_HARD_SHUTDOWN, VM_OP_CLEAN_SHUTDOWN, VM_OP_SUSPEND};
	struct gate g = {.shut = false};
	struct world *w = gated(10, &g);
	size_t vm = world_add_vm(w, 1, 0);
	struct uuid task;
	struct txn t;

	(void)state;
	world_set_enum(w, vm, VM_HA_RESTART_PRIORITY, VM_RESTART_PRIORITY_RESTART);
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		world_txn(w, &t);
		txn_set_ref(&t, w->vm[vm], VM_HA_RESTART_TASK, world_uuid(w));
		world_commit(w, &t);
		world_must(w, VM_OP_START, vm);
		task = db_ref(world_row(w, vm), VM_HA_RESTART_TASK);
		assert_false(uuid_is_none(&task)); /* the master's to take back */
		world_run_ms(w, 30000);
		world_must(w, kinds[i], vm);
		task = db_ref(world_row(w, vm), VM_HA_RESTART_TASK);
		assert_true(uuid_is_none(&task));
	}
	world_free(w);
}

/* Its domain is gone, and its protection changes before that is recorded: by what is so
 * then, the master starts it again, or its host does. */
static void protection_changes(uint64_t seed, int before, int after)
{
	struct gate g = {.shut = false};
	struct world *w = gated(seed, &g);
	size_t vm = world_add_vm(w, 1, 0);

	world_set_enum(w, vm, VM_HA_RESTART_PRIORITY, before);
	world_must(w, VM_OP_START, vm);
	assert_int_equal(hyper_sim_destroy_behind(
				 w->hyper, (uint32_t)db_int(world_row(w, vm), VM_DOMID)),
		0);
	assert_true(world_run(w, is_at_work, 60000));
	world_set_enum(w, vm, VM_HA_RESTART_PRIORITY, after);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_RUNNING);
	assert_true(world_run(w, is_at_rest, 60000));
	world_run_ms(w, 30000);
	if (after == VM_RESTART_PRIORITY_NONE)
		world_assert_runs(w, vm);
	else
		assert_true(is_due(w));
	assert_int_equal(world_messages(w, "VM_RESTARTED"),
		after == VM_RESTART_PRIORITY_NONE ? 1 : 0);
	world_free(w);
}

static void test_protected_while_recorded(void **state)
{
	(void)state;
	protection_changes(11, VM_RESTART_PRIORITY_NONE, VM_RESTART_PRIORITY_RESTART);
	protection_changes(12, VM_RESTART_PRIORITY_RESTART, VM_RESTART_PRIORITY_NONE);
}

static bool was_fenced(void *arg, const struct uuid *host, const struct uuid *handle)
{
	struct world *w = arg;
	struct uuid known = db_ref(world_row(w, 0), VM_DOMAIN_HANDLE);

	return uuid_eq(host, &w->host) && uuid_eq(handle, &known);
}

/* It is said that it was fenced, not that somebody destroyed it. */
static void test_fenced_is_told(void **state)
{
	struct gate g = {.shut = false};
	struct world *w = gated(8, &g);
	size_t vm = world_add_vm(w, 1, 0);

	(void)state;
	w->mgr->config.was_fenced = was_fenced;
	w->mgr->config.was_fenced_arg = w;
	world_set_enum(w, vm, VM_HA_RESTART_PRIORITY, VM_RESTART_PRIORITY_RESTART);
	world_must(w, VM_OP_START, vm);
	assert_int_equal(hyper_sim_destroy_behind(
				 w->hyper, (uint32_t)db_int(world_row(w, vm), VM_DOMID)),
		0);
	assert_true(world_run(w, is_due, 60000));
	assert_int_equal(world_messages(w, "VM_FENCED"), 1);
	assert_int_equal(world_messages(w, "VM_CRASHED"), 0);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_starts_nothing),
		cmocka_unit_test(test_waits_for_it),
		cmocka_unit_test(test_unpauses_nothing),
		cmocka_unit_test(test_unpauses_nothing_late),
		cmocka_unit_test(test_goes_on),
		cmocka_unit_test(test_protected_goes_on_later),
		cmocka_unit_test(test_settled_later),
		cmocka_unit_test(test_protected_and_gone),
		cmocka_unit_test(test_reboot_fails),
		cmocka_unit_test(test_changed_at_end),
		cmocka_unit_test(test_shut_down_at_last),
		cmocka_unit_test(test_thrown_away),
		cmocka_unit_test(test_ended_while_due),
		cmocka_unit_test(test_protected_while_recorded),
		cmocka_unit_test(test_fenced_is_told),
	};

	log_setup(LOG_ERROR, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
