/* Ghosts that are on record (VM.ghosts): found here, they are told to the whole pool;
 * found on another host, they keep their VM from being started. */
#include "scenario.h"

#include "vm/vm_ghost_marks.h"

static struct uuid add_host(struct world *w, const char *name)
{
	struct uuid host = world_uuid(w);
	struct txn t;

	world_txn(w, &t);
	txn_create(&t, CLASS_HOST, host);
	txn_set_string(&t, host, HOST_NAME_LABEL, name);
	world_commit(w, &t);
	return host;
}

/* As host-declare-dead: the VM is let go of, and its domain runs on. `ejected`: that host
 * goes, too; or none. */
static void let_go_of(struct world *w, size_t vm, struct uuid ejected)
{
	struct txn t;

	world_txn(w, &t);
	if (!uuid_is_none(&ejected))
		txn_delete(&t, CLASS_HOST, ejected);
	txn_set_enum(&t, w->vm[vm], VM_POWER_STATE, VM_POWER_STATE_HALTED);
	txn_set_ref(&t, w->vm[vm], VM_RESIDENT_ON, UUID_NONE);
	txn_set_int(&t, w->vm[vm], VM_DOMID, -1);
	txn_set_ref(&t, w->vm[vm], VM_DOMAIN_HANDLE, UUID_NONE);
	txn_set_ref(&t, w->vm[vm], VM_HOST_BOOT_ID, UUID_NONE);
	txn_set_int(&t, w->vm[vm], VM_OWNER_GENERATION,
		db_int(world_row(w, vm), VM_OWNER_GENERATION) + 2);
	world_commit(w, &t);
}

static void let_go(struct world *w, size_t vm)
{
	let_go_of(w, vm, UUID_NONE);
}

static void txn_ghost(struct world *w, struct txn *t, size_t vm, struct uuid host)
{
	char key[UUID_TEXT_SIZE];

	txn_map_put(t, w->vm[vm], VM_GHOSTS, uuid_format(&host, key), "7 web-0123");
}

static void ghost_on(struct world *w, size_t vm, struct uuid host)
{
	struct txn t;

	world_txn(w, &t);
	txn_ghost(w, &t, vm, host);
	world_commit(w, &t);
}

static void ghosts_off(struct world *w, struct uuid host)
{
	struct txn t;

	world_txn(w, &t);
	vm_ghost_unmark_all_txn(pool_db(w->pool), host, &t);
	world_commit(w, &t);
}

static bool is_marked(struct world *w, size_t vm)
{
	return vm_ghost_marked_on(world_row(w, vm), w->host);
}

static int64_t reports(struct world *w)
{
	return db_int(db_row(pool_db(w->pool), CLASS_HOST, w->host), HOST_GHOST_REPORTS);
}

/* What this host finds is recorded until it is gone, also over a restart. */
static void test_recorded(void **state)
{
	struct world *w = world_new(300);
	size_t vm = world_add_vm(w, 0, 0), other = world_add_vm(w, 0, 0);
	struct vm_ghost_mark mark;
	struct hyper_domain_id id;
	struct uuid host;

	(void)state;
	world_must(w, VM_OP_START, vm);
	assert_true(vm_recorded(world_row(w, vm), &id));
	w->unchecked = true; /* it runs, and is no VM */
	let_go(w, vm);
	world_run_ms(w, 25000);
	assert_true(vm_ghost_is(w->mgr, &w->host, &id));
	assert_true(vm_ghost_marked(pool_db(w->pool), world_row(w, vm), &mark));
	host = row_uuid(mark.host);
	assert_true(uuid_eq(&host, &w->host));
	assert_int_equal(mark.domid, id.domid);
	assert_int_equal(strncmp(mark.name, "vm0", 3), 0);
	assert_false(is_marked(w, other));
	/* A VM that changes at each look keeps it. */
	for (int i = 0; i < 300; i++) {
		world_set_enum(w, vm, VM_ACTIONS_AFTER_CRASH,
			i % 2 ? VM_AFTER_RESTART : VM_AFTER_DESTROY);
		world_run_ms(w, 100);
		assert_true(is_marked(w, vm));
	}
	assert_int_equal(reports(w), 1);
	/* Taken out by somebody else, it comes again. */
	ghosts_off(w, w->host);
	assert_false(is_marked(w, vm));
	world_run_ms(w, 25000);
	assert_true(is_marked(w, vm));
	assert_int_equal(reports(w), 2);
	world_restart(w);
	world_run_ms(w, 25000);
	assert_true(is_marked(w, vm));
	assert_int_equal(hyper_sim_destroy_behind(w->hyper, id.domid), 0);
	world_run_ms(w, 25000);
	assert_false(is_marked(w, vm));
	assert_int_equal(reports(w), 2); /* and that it is gone is no report */
	w->unchecked = false;
	world_must(w, VM_OP_START, vm);
	world_free(w);
}

/* Gone while the daemon was away: what is on record of this host is looked through. */
static void test_forgotten(void **state)
{
	struct world *w = world_new(301);
	size_t vm = world_add_vm(w, 0, 0);

	(void)state;
	world_kill(w);
	world_start(w);
	ghost_on(w, vm, w->host);
	world_manage(w);
	world_run_ms(w, 25000);
	assert_false(is_marked(w, vm));
	ghost_on(w, vm, w->host);
	world_run_ms(w, 400 * 1000); /* all VMs are looked at again */
	assert_false(is_marked(w, vm));
	world_free(w);
}

/* Another host's: no start here, in words that can be followed. */
static void test_kept_from_starting(void **state)
{
	struct world *w = world_new(302);
	size_t vm = world_add_vm(w, 1, 0), suspended = world_add_vm(w, 0, 0);
	struct uuid host = add_host(w, "host2"), task;
	struct txn t;

	(void)state;
	world_must(w, VM_OP_START, suspended);
	world_must(w, VM_OP_SUSPEND, suspended);
	ghost_on(w, vm, host);
	ghost_on(w, suspended, host);
	assert_int_equal(world_begin(w, VM_OP_RESUME, suspended, &task), RV_ESTATE);
	assert_int_equal(world_begin(w, VM_OP_DESTROY, vm, &task), RV_ESTATE);
	assert_int_equal(
		world_begin_args(w, VM_OP_CLONE,
			&(struct vm_op_args){.vm = w->vm[vm], .new_name = "copy"}, &task),
		RV_ESTATE);
	assert_non_null(strstr(w->accepted_error.detail, "no vm-clone until"));
	assert_int_equal(world_begin(w, VM_OP_START, vm, &task), RV_ESTATE);
	for (size_t i = 0; i < 6; i++) {
		static const char *const words[] = {"VM vm0", "host host2 has domain 7",
			"web-0123", "host-ghost-destroy host=host2 domid=7",
			"vm-adopt host=host2 domid=7 vm=vm0", "host-declare-dead"};

		if (!strstr(w->accepted_error.detail, words[i]))
			fail_msg("%s: %s", words[i], w->accepted_error.detail);
	}
	/* Declared dead, the host's word counts no more; nor does one that has left. */
	world_txn(w, &t);
	txn_set_bool(&t, host, HOST_DECLARED_DEAD, true);
	world_commit(w, &t);
	world_must(w, VM_OP_START, vm);
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	world_txn(w, &t);
	txn_delete(&t, CLASS_HOST, host);
	world_commit(w, &t);
	world_must(w, VM_OP_START, vm);
	world_must(w, VM_OP_RESUME, suspended);
	world_free(w);
}

/* It is found at the very moment of a start: in the log before the intent, or before the
 * domain is recorded. The domain has not run then, and never does. */
static void test_found_meanwhile(void **state)
{
	struct world *w = world_new(303);
	size_t vm = world_add_vm(w, 1, 1);
	struct uuid host = add_host(w, "host2"), task;
	struct world_commit c = {.done = false};
	struct rv_error e;
	struct txn t;

	(void)state;
	world_txn(w, &t);
	txn_ghost(w, &t, vm, host);
	assert_int_equal(pool_commit(w->pool, &c.commit, &t, world_committed, &e), 0);
	assert_int_equal(world_begin(w, VM_OP_START, vm, &task), RV_ESTATE);
	assert_non_null(strstr(w->accepted_error.detail, "host-ghost-destroy"));
	ghosts_off(w, host);
	/* A copy would be of several moments. */
	memset(&c, 0, sizeof c);
	world_txn(w, &t);
	txn_ghost(w, &t, vm, host);
	assert_int_equal(pool_commit(w->pool, &c.commit, &t, world_committed, &e), 0);
	assert_int_equal(
		world_begin_args(w, VM_OP_CLONE,
			&(struct vm_op_args){
				.vm = w->vm[vm], .with_disks = true, .new_name = "copy"},
			&task),
		RV_ESTATE);
	assert_int_equal(db_count(pool_db(w->pool), CLASS_VM), 1);
	ghosts_off(w, host);

	/* That of a host that is declared dead counts for nothing, until it is back. */
	for (int recorded = 0; recorded < 2; recorded++) {
		world_txn(w, &t);
		txn_set_bool(&t, host, HOST_DECLARED_DEAD, true);
		txn_ghost(w, &t, vm, host);
		world_commit(w, &t);
		if (recorded)
			assert_int_equal(world_begin(w, VM_OP_START, vm, &task), 0);
		memset(&c, 0, sizeof c);
		world_txn(w, &t);
		txn_set_bool(&t, host, HOST_DECLARED_DEAD, false);
		assert_int_equal(
			pool_commit(w->pool, &c.commit, &t, world_committed, &e), 0);
		if (recorded)
			assert_int_equal(world_end(w, task), TASK_STATUS_FAILURE);
		else
			assert_int_equal(
				world_begin(w, VM_OP_START, vm, &task), RV_ESTATE);
		assert_non_null(
			strstr(recorded ? world_why(w, task) : w->accepted_error.detail,
				"host-ghost-destroy"));
		world_assert_clean(w, vm);
		ghosts_off(w, host);
	}

	assert_int_equal(world_begin(w, VM_OP_START, vm, &task), 0);
	ghost_on(w, vm, host);
	assert_int_equal(world_end(w, task), TASK_STATUS_FAILURE);
	assert_non_null(
		strstr(world_why(w, task), "host host2 has just reported domain 7"));
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	world_assert_clean(w, vm);
	ghosts_off(w, host);
	/* One that runs is not stopped for it, and may reboot. */
	world_must(w, VM_OP_START, vm);
	ghost_on(w, vm, host);
	world_must(w, VM_OP_HARD_REBOOT, vm);
	world_assert_runs(w, vm);
	world_free(w);
}

static void clone_fails(struct world *w, struct uuid task, const char *words)
{
	assert_int_equal(world_end(w, task), TASK_STATUS_FAILURE);
	if (!strstr(world_why(w, task), words))
		fail_msg("%s", world_why(w, task));
	assert_int_equal(db_count(pool_db(w->pool), CLASS_VM), 1);
	assert_int_equal(db_count(pool_db(w->pool), CLASS_VDI), 1);
	assert_int_equal(db_count(pool_db(w->pool), CLASS_VBD), 1);
	settle(w);
	check_world(w);
}

/* Its disks were copied while a ghost wrote to them: found right behind the intent, in
 * the middle of it, or gone again by the end. */
static void test_found_while_copied(void **state)
{
	struct world *w = world_new(308);
	size_t vm = world_add_vm(w, 1, 0);
	struct uuid host = add_host(w, "host2"), task = world_uuid(w);
	struct vm_op_args args = {
		.vm = w->vm[vm], .with_disks = true, .new_name = "copy"};
	struct world_commit c = {.done = false};
	struct rv_error e;
	struct txn t;

	(void)state;
	assert_int_equal(
		vm_op_start(w->mgr, VM_OP_CLONE, &args, task, NULL, NULL, &e), 0);
	world_txn(w, &t);
	txn_ghost(w, &t, vm, host);
	assert_int_equal(pool_commit(w->pool, &c.commit, &t, world_committed, &e), 0);
	clone_fails(w, task, "host host2 has just reported domain 7");
	ghosts_off(w, host);

	assert_int_equal(world_begin_args(w, VM_OP_CLONE, &args, &task), 0);
	ghost_on(w, vm, host);
	assert_false(world_idle(w));
	clone_fails(w, task, "host host2 has just reported domain 7");
	ghosts_off(w, host);

	/* A mark that counts for nothing, until its host is back. */
	world_txn(w, &t);
	txn_set_bool(&t, host, HOST_DECLARED_DEAD, true);
	txn_ghost(w, &t, vm, host);
	world_commit(w, &t);
	assert_int_equal(world_begin_args(w, VM_OP_CLONE, &args, &task), 0);
	world_txn(w, &t);
	txn_set_bool(&t, host, HOST_DECLARED_DEAD, false);
	world_commit(w, &t);
	ghosts_off(w, host);
	assert_false(world_idle(w));
	clone_fails(w, task, "gone by now");

	assert_int_equal(world_begin_args(w, VM_OP_CLONE, &args, &task), 0);
	assert_int_equal(world_end(w, task), TASK_STATUS_SUCCESS);
	assert_int_equal(db_count(pool_db(w->pool), CLASS_VM), 2);
	world_free(w);
}

/* A second, smaller host of the same manager. */
struct second {
	struct uuid uuid;
	struct hyper_sim_machine *machine;
	struct hyper *hyper;
};

static void manage_two(struct world *w, struct second *s)
{
	struct vm_manager_config config = {
		.loop = w->loop, .pool = w->pool, .self = w->host, .answer_ms = 5000};
	struct hyper_sim_config machine = w->hyper_config;
	struct vm_host_config one = {.uuid = w->host,
				      .hyper = w->hyper,
				      .storage = w->storage,
				      .net = w->net},
			      two = one;
	struct rv_error e;
	struct txn t;

	s->uuid = add_host(w, "host2");
	world_txn(w, &t);
	txn_set_int(&t, s->uuid, HOST_CPU_COUNT, 512);
	world_commit(w, &t);
	machine.memory_kib /= 2;
	assert_int_equal(hyper_sim_machine_new(&s->machine, &machine), 0);
	machine.machine = s->machine;
	assert_int_equal(hyper_sim_new(&s->hyper, w->loop, &machine, &e), 0);
	two.uuid = s->uuid;
	two.hyper = s->hyper;
	assert_int_equal(vm_manager_new(&w->mgr, &config, &e), 0);
	assert_int_equal(vm_manager_add_host(w->mgr, &one, &e), 0);
	assert_int_equal(vm_manager_add_host(w->mgr, &two, &e), 0);
	vm_manager_start(w->mgr, world_ready, w);
	assert_true(world_run(w, world_is_ready, 60000));
}

static bool is_moved(struct world *w)
{
	struct uuid host = db_ref(world_row(w, 0), VM_INTENT_HOST);

	return !uuid_is_none(&host) && !uuid_eq(&host, &w->host);
}

/* The word of one that is no member counts for nothing: it is not recorded. */
static void test_not_of_a_stranger(void **state)
{
	struct world *w = world_new(307);
	struct hyper_domain_id thief, id;
	struct second s;
	size_t vm;

	(void)state;
	w->static_max = w->dynamic_min = 2048LL * WORLD_MIB;
	vm = world_add_vm(w, 0, 0);
	world_kill(w);
	world_start(w);
	w->unchecked = true;
	manage_two(w, &s);
	assert_int_equal(hyper_sim_make_ghost(w->hyper, "thief", 14 << 20, &thief), 0);
	world_run_ms(w, 25000);
	world_must(w, VM_OP_START, vm);
	assert_true(vm_recorded(world_row(w, vm), &id));
	let_go_of(w, vm, s.uuid);
	world_run_ms(w, 25000);
	assert_true(vm_ghost_is(w->mgr, &s.uuid, &id));
	assert_int_equal(value_count(row_value(world_row(w, vm), VM_GHOSTS)), 0);
	vm_manager_stop(w->mgr);
	hyper_free(s.hyper);
	world_free(w);
	hyper_sim_machine_free(s.machine);
}

/* The first host has no memory after all, so it is built on another one: what was found
 * since it was asked for still counts. */
static void test_found_between_two_hosts(void **state)
{
	struct world *w = world_new(306);
	struct uuid host = add_host(w, "host3"), task;
	struct hyper_domain_id thief;
	struct second s;
	size_t vm;

	(void)state;
	w->static_max = w->dynamic_min = 2048LL * WORLD_MIB;
	vm = world_add_vm(w, 0, 0);
	world_kill(w);
	world_start(w);
	w->unchecked = true;
	manage_two(w, &s);
	for (int ghost = 0; ghost < 2; ghost++) {
		assert_int_equal(world_begin(w, VM_OP_START, vm, &task), 0);
		assert_int_equal(
			hyper_sim_make_ghost(w->hyper, "thief", 14 << 20, &thief), 0);
		assert_true(world_run(w, is_moved, 60000));
		if (ghost)
			ghost_on(w, vm, host);
		assert_int_equal(world_end(w, task),
			ghost ? TASK_STATUS_FAILURE : TASK_STATUS_SUCCESS);
		if (!ghost)
			world_must(w, VM_OP_HARD_SHUTDOWN, vm);
		assert_int_equal(hyper_sim_destroy_behind(w->hyper, thief.domid), 0);
		world_run_ms(w, 25000);
	}
	assert_non_null(
		strstr(world_why(w, task), "host host3 has just reported domain 7"));
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	vm_manager_stop(w->mgr);
	hyper_free(s.hyper);
	world_free(w);
	hyper_sim_machine_free(s.machine);
}

/* Its domain vanished, and its host would start it again by itself. */
static void test_not_restarted(void **state)
{
	struct world *w = world_new(304);
	size_t vm = world_add_vm(w, 1, 0);
	struct uuid host = add_host(w, "host2");

	(void)state;
	world_must(w, VM_OP_START, vm);
	ghost_on(w, vm, host);
	assert_int_equal(hyper_sim_destroy_behind(
				 w->hyper, (uint32_t)db_int(world_row(w, vm), VM_DOMID)),
		0);
	world_run_ms(w, 30000);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	assert_int_equal(world_messages(w, "VM_RESTART_FAILED"), 1);
	assert_int_equal(world_messages(w, "VM_RESTARTED"), 0);
	ghosts_off(w, host);
	world_must(w, VM_OP_START, vm);
	world_free(w);
}

/* Its VM runs elsewhere, and is migrated: what was found here stays on record. */
static void test_kept_in_migration(void **state)
{
	struct world *w = world_new(305);
	size_t vm = world_add_vm(w, 0, 0);
	struct uuid host = add_host(w, "host2");
	struct txn t;

	(void)state;
	world_must(w, VM_OP_START, vm);
	w->unchecked = true;
	let_go(w, vm);
	world_txn(w, &t);
	txn_set_enum(&t, w->vm[vm], VM_POWER_STATE, VM_POWER_STATE_RUNNING);
	txn_set_ref(&t, w->vm[vm], VM_RESIDENT_ON, host);
	world_commit(w, &t);
	world_run_ms(w, 25000);
	assert_true(is_marked(w, vm));
	world_txn(w, &t);
	txn_set_ref(&t, w->vm[vm], VM_MIGRATION, world_uuid(w));
	world_commit(w, &t);
	for (int i = 0; i < 100; i++) {
		world_run_ms(w, 250);
		assert_true(is_marked(w, vm));
	}
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_recorded),
		cmocka_unit_test(test_forgotten),
		cmocka_unit_test(test_kept_from_starting),
		cmocka_unit_test(test_found_meanwhile),
		cmocka_unit_test(test_found_while_copied),
		cmocka_unit_test(test_not_of_a_stranger),
		cmocka_unit_test(test_found_between_two_hosts),
		cmocka_unit_test(test_not_restarted),
		cmocka_unit_test(test_kept_in_migration),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
