/* Each operation as it goes when nothing goes wrong, and what is refused. */
#include "world.h"

static void test_start_and_shutdown(void **state)
{
	struct world *w = world_new(1);
	struct hyper_sim_view v;
	size_t vm = world_add_vm(w, 2, 1);

	(void)state;
	world_must(w, VM_OP_START, vm);
	world_assert_runs(w, vm);
	assert_int_equal(world_claims(w, vm), 2);
	assert_int_equal(net_sim_vif_count(w->net), 1);
	assert_int_equal(db_int(world_row(w, vm), VM_OWNER_GENERATION), 1);
	world_run_ms(w, 1000);
	assert_true(world_guest(w, vm, &v) && v.booted);
	world_must(w, VM_OP_CLEAN_SHUTDOWN, vm);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	world_assert_clean(w, vm);
	assert_int_equal(net_sim_vif_count(w->net), 0);
	world_free(w);
}

static void test_pause(void **state)
{
	struct world *w = world_new(2);
	struct hyper_sim_view before, after;
	size_t vm = world_add_vm(w, 1, 0);

	(void)state;
	world_must(w, VM_OP_START, vm);
	world_run_ms(w, 1000);
	world_must(w, VM_OP_PAUSE, vm);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_PAUSED);
	assert_true(world_guest(w, vm, &before));
	world_run_ms(w, 5000);
	assert_true(world_guest(w, vm, &after));
	assert_int_equal(before.ran_us, after.ran_us);
	world_must(w, VM_OP_UNPAUSE, vm);
	world_assert_runs(w, vm);
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	world_assert_clean(w, vm);
	world_free(w);
}

static void test_start_paused(void **state)
{
	struct world *w = world_new(3);
	size_t vm = world_add_vm(w, 1, 0);
	struct vm_op_args args = {.vm = w->vm[vm], .start_paused = true};
	struct hyper_sim_view v;
	struct uuid task;

	(void)state;
	assert_int_equal(world_begin_args(w, VM_OP_START, &args, &task), 0);
	assert_int_equal(world_end(w, task), TASK_STATUS_SUCCESS);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_PAUSED);
	assert_true(world_guest(w, vm, &v));
	assert_int_equal(v.ran_us, 0);
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	world_assert_clean(w, vm);
	world_free(w);
}

static void test_reboot(void **state)
{
	struct world *w = world_new(4);
	size_t vm = world_add_vm(w, 1, 1);
	int64_t domid;

	(void)state;
	world_must(w, VM_OP_START, vm);
	world_run_ms(w, 1000);
	domid = db_int(world_row(w, vm), VM_DOMID);
	world_must(w, VM_OP_CLEAN_REBOOT, vm);
	world_assert_runs(w, vm);
	assert_int_not_equal(db_int(world_row(w, vm), VM_DOMID), domid);
	assert_int_equal(db_int(world_row(w, vm), VM_OWNER_GENERATION), 2);
	world_must(w, VM_OP_HARD_REBOOT, vm);
	world_assert_runs(w, vm);
	assert_int_equal(db_int(world_row(w, vm), VM_OWNER_GENERATION), 3);
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	world_assert_clean(w, vm);
	world_free(w);
}

/* A host so full that only the old domain's own memory can hold the new one. */
static void test_reboot_keeps_its_memory(void **state)
{
	struct world *w = world_new_with(5, 1024 + 600);
	size_t a = world_add_vm(w, 2, 0), b = world_add_vm(w, 0, 0),
	       c = world_add_vm(w, 0, 0);
	struct storage_sim_faults slow = {
		.latency_min_us = 20000, .latency_max_us = 30000};
	struct uuid reboot, start;

	(void)state;
	world_must(w, VM_OP_START, a);
	world_must(w, VM_OP_START, b);
	assert_int_equal(world_begin(w, VM_OP_HARD_REBOOT, a, &reboot), 0);
	/* The third is refused while the first has no domain. */
	storage_sim_set_faults(w->bytes, &slow);
	while (!world_idle(w) && loop_sim_step(w->loop))
		assert_int_equal(world_begin(w, VM_OP_START, c, &start), RV_ENOHOST);
	assert_int_equal(world_end(w, reboot), TASK_STATUS_SUCCESS);
	world_assert_runs(w, a);
	world_free(w);
}

static void test_suspend_and_resume(void **state)
{
	struct world *w = world_new(6);
	size_t vm = world_add_vm(w, 1, 1), vdis;
	struct hyper_sim_view v;
	uint64_t before, after;

	(void)state;
	world_must(w, VM_OP_START, vm);
	world_run_ms(w, 2000);
	vdis = storage_sim_vdi_count(w->bytes, w->sr);
	world_must(w, VM_OP_PAUSE, vm);
	assert_int_equal(hyper_sim_memory_hash(w->hyper, &w->vm[vm], &before), 0);
	world_must(w, VM_OP_UNPAUSE, vm);
	world_must(w, VM_OP_SUSPEND, vm);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_SUSPENDED);
	world_assert_clean(w, vm);
	assert_int_equal(storage_sim_vdi_count(w->bytes, w->sr), vdis + 1);

	struct vm_op_args args = {.vm = w->vm[vm], .start_paused = true};
	struct uuid task;
	assert_int_equal(world_begin_args(w, VM_OP_RESUME, &args, &task), 0);
	assert_int_equal(world_end(w, task), TASK_STATUS_SUCCESS);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_PAUSED);
	assert_int_equal(hyper_sim_memory_hash(w->hyper, &w->vm[vm], &after), 0);
	assert_true(before == after);
	world_must(w, VM_OP_UNPAUSE, vm);
	world_assert_runs(w, vm);
	assert_true(world_guest(w, vm, &v));
	assert_int_equal(v.damaged_pages, 0);
	assert_int_equal(v.restores, 1);
	/* The image is gone, from the SR and from the database: nobody waited for that.
	 */
	world_run_ms(w, 1000);
	assert_int_equal(storage_sim_vdi_count(w->bytes, w->sr), vdis);
	assert_null(db_follow(pool_db(w->pool), world_row(w, vm), VM_SUSPEND_VDI));
	assert_int_equal(db_count(pool_db(w->pool), CLASS_VDI), vdis);
	world_free(w);
}

static enum memctl_balloon balloon_of(struct world *w, size_t vm)
{
	struct memctl_view view;

	assert_int_equal(
		memctl_domain_get(vm_memory_controller(vm_host_memory(w->mgr, &w->host)),
			(uint32_t)db_int(world_row(w, vm), VM_DOMID), &view),
		0);
	return view.balloon;
}

/* What its balloon can do is known until its guest boots anew. */
static void test_a_balloon_is_tried_out_once(void **state)
{
	struct world *w = world_new(61);
	size_t vm;

	(void)state;
	w->dynamic_min = w->static_max / 2;
	vm = world_add_vm(w, 0, 0);
	world_must(w, VM_OP_START, vm);
	assert_int_equal(balloon_of(w, vm), MEMCTL_UNPROVEN);
	assert_false(db_bool(world_row(w, vm), VM_BALLOON_PROVEN));
	world_run_ms(w, 40 * 1000);
	assert_int_equal(balloon_of(w, vm), MEMCTL_PROVEN);
	assert_true(db_bool(world_row(w, vm), VM_BALLOON_PROVEN));
	world_must(w, VM_OP_SUSPEND, vm);
	world_must(w, VM_OP_RESUME, vm);
	assert_int_equal(balloon_of(w, vm), MEMCTL_PROVEN);
	world_restart(w);
	world_run_ms(w, 1000);
	assert_int_equal(balloon_of(w, vm), MEMCTL_PROVEN);
	world_must(w, VM_OP_HARD_REBOOT, vm);
	assert_int_equal(balloon_of(w, vm), MEMCTL_UNPROVEN);
	assert_false(db_bool(world_row(w, vm), VM_BALLOON_PROVEN));
	world_run_ms(w, 40 * 1000);
	assert_true(db_bool(world_row(w, vm), VM_BALLOON_PROVEN));
	world_free(w);
}

static void test_hard_shutdown_of_a_suspended_one(void **state)
{
	struct world *w = world_new(7);
	size_t vm = world_add_vm(w, 1, 0), vdis;

	(void)state;
	world_must(w, VM_OP_START, vm);
	world_run_ms(w, 1000);
	vdis = storage_sim_vdi_count(w->bytes, w->sr);
	world_must(w, VM_OP_SUSPEND, vm);
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	assert_int_equal(storage_sim_vdi_count(w->bytes, w->sr), vdis);
	assert_int_equal(db_count(pool_db(w->pool), CLASS_VDI), vdis);
	world_must(w, VM_OP_START, vm);
	world_assert_runs(w, vm);
	world_free(w);
}

static struct uuid set_disks(struct world *w, size_t vm, const char *text)
{
	struct txn t;

	world_txn(w, &t);
	txn_map_put(&t, w->vm[vm], VM_OTHER_CONFIG, "disks", text);
	txn_set_bool(&t, w->vm[vm], VM_IS_A_TEMPLATE, true);
	world_commit(w, &t);
	return w->vm[vm];
}

static void test_clone_and_provision(void **state)
{
	struct world *w = world_new(8);
	size_t template = world_add_vm(w, 0, 1), clone;
	struct vm_op_args args = {.vm = set_disks(w, template,
					  "0: size=1GiB, bootable; 1: size=2GiB, "
					  "name=data"),
		.new_name = "web1"};
	const struct row *vm, *vif;
	struct uuid task;

	(void)state;
	assert_int_equal(world_do(w, VM_OP_START, template), RV_ENOTALLOWED);
	assert_int_equal(world_begin_args(w, VM_OP_CLONE, &args, &task), 0);
	assert_int_equal(world_end(w, task), TASK_STATUS_SUCCESS);
	clone = w->vms++;
	assert_int_equal(uuid_parse(&w->vm[clone],
				 db_string(db_row(pool_db(w->pool), CLASS_TASK, task),
					 TASK_RESULT),
				 UUID_TEXT_LEN),
		0);
	vm = world_row(w, clone);
	assert_non_null(vm);
	assert_string_equal(row_name(vm), "web1");
	assert_true(db_bool(vm, VM_IS_A_TEMPLATE));
	vif = db_next_ref(pool_db(w->pool), VIF_VM, w->vm[clone], NULL);
	assert_non_null(vif);
	assert_string_not_equal(db_string(vif, VIF_MAC),
		db_string(db_next_ref(pool_db(w->pool), VIF_VM, w->vm[template], NULL),
			VIF_MAC));

	world_must(w, VM_OP_PROVISION, clone);
	assert_false(db_bool(world_row(w, clone), VM_IS_A_TEMPLATE));
	assert_int_equal(storage_sim_vdi_count(w->bytes, w->sr), 2);
	world_must(w, VM_OP_START, clone);
	world_assert_runs(w, clone);
	assert_int_equal(world_claims(w, clone), 2);

	/* A clone of a VM with disks copies them, byte for byte. */
	world_must(w, VM_OP_HARD_SHUTDOWN, clone);
	args = (struct vm_op_args){.vm = w->vm[clone], .new_name = "web2"};
	assert_int_equal(world_begin_args(w, VM_OP_CLONE, &args, &task), 0);
	assert_int_equal(world_end(w, task), TASK_STATUS_SUCCESS);
	assert_int_equal(storage_sim_vdi_count(w->bytes, w->sr), 4);
	world_free(w);
}

static void clone_accepted(void *arg, int rc, const struct rv_error *e)
{
	(void)e;
	assert_int_equal(rc, 0);
	(*(int *)arg)++;
}

/* Asked for at once, they are made one after the other; names are taken once. */
static void test_clones_at_once(void **state)
{
	struct world *w = world_new(81);
	size_t template = world_add_vm(w, 1, 0);
	struct vm_op_args args = {.vm = w->vm[template]};
	struct uuid task[3];
	int accepted = 0;
	struct rv_error e;

	(void)state;
	for (int i = 0; i < 3; i++) {
		char name[] = {'n', (char)('0' + i), 0}; /* ours for the call only */

		args.new_name = name;
		task[i] = world_uuid(w);
		assert_int_equal(vm_op_start(w->mgr, VM_OP_CLONE, &args, task[i],
					 clone_accepted, &accepted, &e),
			0);
	}
	assert_int_equal(world_do(w, VM_OP_START, template), RV_EBUSY);
	for (int i = 0; i < 3; i++) {
		while (!db_row(pool_db(w->pool), CLASS_TASK, task[i]))
			world_run_ms(w, 10);
		assert_int_equal(world_end(w, task[i]), TASK_STATUS_SUCCESS);
	}
	assert_int_equal(accepted, 3);
	assert_int_equal(storage_sim_vdi_count(w->bytes, w->sr), 4);
	args.new_name = "n1";
	assert_int_equal(world_begin_args(w, VM_OP_CLONE, &args, &task[0]), RV_EEXIST);
	assert_int_equal(storage_sim_vdi_count(w->bytes, w->sr), 4);
	world_free(w);
}

static void test_destroy(void **state)
{
	struct world *w = world_new(9);
	size_t vm = world_add_vm(w, 2, 1), kept = world_add_vm(w, 1, 0);
	struct vm_op_args args = {.vm = w->vm[vm], .with_disks = true};
	struct uuid task;

	(void)state;
	assert_int_equal(world_begin_args(w, VM_OP_DESTROY, &args, &task), 0);
	assert_int_equal(world_end(w, task), TASK_STATUS_SUCCESS);
	assert_null(world_row(w, vm));
	assert_int_equal(storage_sim_vdi_count(w->bytes, w->sr), 1);
	assert_int_equal(db_count(pool_db(w->pool), CLASS_VBD), 1);
	assert_int_equal(db_count(pool_db(w->pool), CLASS_VIF), 0);
	assert_int_equal(db_count(pool_db(w->pool), CLASS_VDI), 1);
	world_must(w, VM_OP_DESTROY, kept); /* without its disk */
	assert_int_equal(db_count(pool_db(w->pool), CLASS_VDI), 1);
	assert_int_equal(storage_sim_vdi_count(w->bytes, w->sr), 1);
	world_free(w);
}

static void test_hotplug(void **state)
{
	struct world *w = world_new(10);
	size_t vm = world_add_vm(w, 1, 1), donor = world_add_vm(w, 1, 0);
	struct uuid vbd = world_uuid(w), task;
	struct vm_op_args args = {.device = vbd};
	struct txn t;
	const struct row *r;

	(void)state;
	world_must(w, VM_OP_START, vm);
	world_run_ms(w, 1000);
	r = db_next_ref(pool_db(w->pool), VBD_VM, w->vm[donor], NULL);
	world_txn(w, &t);
	txn_create(&t, CLASS_VBD, vbd);
	txn_set_ref(&t, vbd, VBD_VM, w->vm[vm]);
	txn_set_ref(&t, vbd, VBD_VDI, db_ref(r, VBD_VDI));
	txn_set_string(&t, vbd, VBD_USERDEVICE, "1");
	txn_delete(&t, CLASS_VBD, row_uuid(r));
	world_commit(w, &t);
	assert_int_equal(world_begin_args(w, VM_OP_VBD_UNPLUG, &args, &task), RV_ESTATE);
	assert_int_equal(world_begin_args(w, VM_OP_VBD_PLUG, &args, &task), 0);
	assert_int_equal(world_end(w, task), TASK_STATUS_SUCCESS);
	assert_int_equal(world_claims(w, vm), 2);
	r = db_row(pool_db(w->pool), CLASS_VBD, vbd);
	assert_true(db_bool(r, VBD_CURRENTLY_ATTACHED));
	assert_int_equal(value_count(row_value(r, VBD_CURRENT_OPERATIONS)), 0);
	assert_int_equal(world_begin_args(w, VM_OP_VBD_UNPLUG, &args, &task), 0);
	assert_int_equal(world_end(w, task), TASK_STATUS_SUCCESS);
	assert_int_equal(world_claims(w, vm), 1);
	args.device = row_uuid(db_next_ref(pool_db(w->pool), VIF_VM, w->vm[vm], NULL));
	assert_int_equal(world_begin_args(w, VM_OP_VIF_UNPLUG, &args, &task), 0);
	assert_int_equal(world_end(w, task), TASK_STATUS_SUCCESS);
	assert_int_equal(net_sim_vif_count(w->net), 0);
	assert_int_equal(world_begin_args(w, VM_OP_VIF_PLUG, &args, &task), 0);
	assert_int_equal(world_end(w, task), TASK_STATUS_SUCCESS);
	assert_int_equal(net_sim_vif_count(w->net), 1);
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	world_assert_clean(w, vm);
	world_free(w);
}

/* --- refusals --- */

static void test_wrong_state(void **state)
{
	struct world *w = world_new(11);
	size_t vm = world_add_vm(w, 0, 0);

	(void)state;
	assert_int_equal(world_do(w, VM_OP_CLEAN_SHUTDOWN, vm), RV_ESTATE);
	assert_non_null(strstr(w->accepted_error.detail, "vm0"));
	assert_non_null(strstr(w->accepted_error.detail, "Halted"));
	assert_int_equal(world_do(w, VM_OP_RESUME, vm), RV_ESTATE);
	world_must(w, VM_OP_START, vm);
	assert_int_equal(world_do(w, VM_OP_START, vm), RV_ESTATE);
	assert_int_equal(world_do(w, VM_OP_DESTROY, vm), RV_ESTATE);
	world_free(w);
}

static void test_impossible_start(void **state)
{
	struct world *w = world_new(12);
	struct vm_op_args args;
	struct uuid task;
	size_t vm;

	(void)state;
	w->static_max = w->dynamic_min = (int64_t)64 * 1024 * WORLD_MIB;
	vm = world_add_vm(w, 0, 0);
	assert_int_equal(world_do(w, VM_OP_START, vm), RV_ENOHOST);
	assert_non_null(strstr(w->accepted_error.detail, "host1"));
	assert_non_null(strstr(w->accepted_error.detail, "MEMORY"));
	args = (struct vm_op_args){.vm = w->vm[vm], .on = w->host};
	assert_int_equal(world_begin_args(w, VM_OP_START, &args, &task), RV_ENOHOST);
	world_assert_clean(w, vm);
	world_free(w);
}

static void test_one_at_a_time(void **state)
{
	struct world *w = world_new(13);
	size_t vm = world_add_vm(w, 1, 0);
	struct uuid first, second;

	(void)state;
	assert_int_equal(world_begin(w, VM_OP_START, vm, &first), 0);
	assert_int_equal(world_begin(w, VM_OP_START, vm, &second), RV_EBUSY);
	assert_non_null(strstr(w->accepted_error.detail, "start"));
	assert_string_equal(rv_error_xenapi(RV_EBUSY), "OTHER_OPERATION_IN_PROGRESS");
	assert_int_equal(world_task(w, second), -1);
	assert_int_equal(world_end(w, first), TASK_STATUS_SUCCESS);
	world_free(w);
}

/* The same request again is the same task, whether it is at work or long over. */
static void test_repeated_request(void **state)
{
	struct world *w = world_new(14);
	size_t vm = world_add_vm(w, 1, 0);
	struct vm_op_args args = {.vm = w->vm[vm]};
	struct uuid task = world_uuid(w);
	struct rv_error e;

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(vm_op_start(w->mgr, VM_OP_START, &args, task,
					 world_accepted, w, &e),
			0);
	assert_int_equal(world_end(w, task), TASK_STATUS_SUCCESS);
	world_assert_runs(w, vm);
	w->accepted = false;
	assert_int_equal(
		vm_op_start(w->mgr, VM_OP_START, &args, task, world_accepted, w, &e), 0);
	assert_true(world_run(w, world_was_accepted, 1000));
	assert_int_equal(w->accepted_rc, 0);
	assert_int_equal(db_int(world_row(w, vm), VM_OWNER_GENERATION), 1);
	world_free(w);
}

/* The plug is pulled on a guest that does not listen. */
static void test_hard_beside_clean(void **state)
{
	struct world *w = world_new(15);
	struct uuid clean, hard;
	size_t vm;

	(void)state;
	w->platform_key = "sim.ignores_shutdown";
	w->platform_value = "true";
	vm = world_add_vm(w, 1, 0);
	world_must(w, VM_OP_START, vm);
	world_run_ms(w, 1000);
	assert_int_equal(world_begin(w, VM_OP_CLEAN_SHUTDOWN, vm, &clean), 0);
	world_run_ms(w, 2000);
	assert_int_equal(world_begin(w, VM_OP_HARD_SHUTDOWN, vm, &hard), 0);
	assert_int_equal(world_end(w, hard), TASK_STATUS_SUCCESS);
	assert_int_equal(world_task(w, clean), TASK_STATUS_CANCELLED);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	world_assert_clean(w, vm);
	world_free(w);
}

static void test_shutdown_times_out(void **state)
{
	struct world *w = world_new(16);
	struct vm_op_args args;
	struct uuid task;
	size_t vm;

	(void)state;
	w->platform_key = "sim.ignores_shutdown";
	w->platform_value = "true";
	vm = world_add_vm(w, 1, 0);
	world_must(w, VM_OP_START, vm);
	args = (struct vm_op_args){.vm = w->vm[vm], .timeout_ms = 3000};
	assert_int_equal(world_begin_args(w, VM_OP_CLEAN_SHUTDOWN, &args, &task), 0);
	assert_int_equal(world_end(w, task), TASK_STATUS_FAILURE);
	assert_non_null(strstr(world_why(w, task), "3 s"));
	world_assert_runs(w, vm);
	world_free(w);
}

/* --- many --- */

static void test_two_hundred(void **state)
{
	struct world *w = world_new(17);
	struct uuid task[200];
	unsigned running = 0;

	(void)state;
	w->static_max = w->dynamic_min = 70 * WORLD_MIB;
	for (int i = 0; i < 200; i++)
		world_add_vm(w, 1, 0);
	for (size_t i = 0; i < 200; i++)
		assert_int_equal(world_begin(w, VM_OP_START, i, &task[i]), 0);
	world_end(w, task[0]);
	for (size_t i = 0; i < 200; i++) {
		if (world_task(w, task[i]) != TASK_STATUS_SUCCESS)
			fail_msg("%zu: %s", i, world_why(w, task[i]));
		running += world_state(w, i) == VM_POWER_STATE_RUNNING;
	}
	assert_int_equal(running, 200);
	world_free(w);
}

/* More than fit, at once: as many as fit run, the others are told why. */
static void test_more_than_fit(void **state)
{
	struct world *w = world_new_with(18, 1024 + 1100);
	struct uuid task[8];
	unsigned running = 0;

	(void)state;
	for (size_t i = 0; i < 8; i++) {
		size_t vm = world_add_vm(w, 0, 0);
		struct vm_op_args args = {.vm = w->vm[vm]};
		struct rv_error e;

		task[i] = world_uuid(w);
		if (vm_op_start(w->mgr, VM_OP_START, &args, task[i], NULL, NULL, &e))
			assert_non_null(strstr(e.detail, "MEMORY"));
	}
	assert_true(world_run(w, world_idle, 600000));
	for (size_t i = 0; i < 8; i++)
		running += world_state(w, i) == VM_POWER_STATE_RUNNING;
	assert_int_equal(running, 4);
	world_free(w);
}

/* Running guests give memory back for one that starts. */
static void test_squeezed(void **state)
{
	struct world *w = world_new_with(19, 1024 + 1200);
	size_t a, b, c;

	(void)state;
	w->static_max = 512 * WORLD_MIB;
	w->dynamic_min = 256 * WORLD_MIB;
	w->platform_key = "sim.feature_balloon";
	w->platform_value = "true";
	a = world_add_vm(w, 0, 0);
	b = world_add_vm(w, 0, 0);
	c = world_add_vm(w, 0, 0);
	world_must(w, VM_OP_START, a);
	world_must(w, VM_OP_START, b);
	world_run_ms(w, 60000); /* long enough to be proven to balloon */
	world_must(w, VM_OP_START, c);
	world_assert_runs(w, c);
	world_run_ms(w, 60000);
	world_free(w);
}

static void set_intent(struct world *w, size_t vm, const char *intent)
{
	const struct row *vdi = db_follow(pool_db(w->pool),
		db_next_ref(pool_db(w->pool), VBD_VM, w->vm[vm], NULL), VBD_VDI);
	struct txn t;

	world_txn(w, &t);
	txn_set_string(&t, row_uuid(vdi), VDI_INTENT, intent);
	world_commit(w, &t);
}

/* A disk that is not whole, or being changed, is no guest's. */
static void test_disk_in_the_making(void **state)
{
	struct world *w = world_new(45);
	size_t vm = world_add_vm(w, 2, 1);
	struct vm_op_args args = {.vm = w->vm[vm]};
	struct uuid task;

	(void)state;
	set_intent(w, vm, "make");
	assert_int_equal(world_begin(w, VM_OP_START, vm, &task), RV_EBUSY);
	assert_non_null(strstr(w->accepted_error.detail, "not whole"));
	set_intent(w, vm, "");
	world_must(w, VM_OP_START, vm);
	world_must(w, VM_OP_SUSPEND, vm);
	set_intent(w, vm, "resize");
	assert_int_equal(world_begin(w, VM_OP_RESUME, vm, &task), RV_EBUSY);
	set_intent(w, vm, "");
	world_must(w, VM_OP_RESUME, vm);
	args.device = row_uuid(db_next_ref(pool_db(w->pool), VBD_VM, w->vm[vm], NULL));
	assert_int_equal(world_begin_args(w, VM_OP_VBD_UNPLUG, &args, &task), 0);
	assert_int_equal(world_end(w, task), TASK_STATUS_SUCCESS);
	set_intent(w, vm, "resize");
	assert_int_equal(world_begin_args(w, VM_OP_VBD_PLUG, &args, &task), RV_EBUSY);
	set_intent(w, vm, "");
	assert_int_equal(world_begin_args(w, VM_OP_VBD_PLUG, &args, &task), 0);
	assert_int_equal(world_end(w, task), TASK_STATUS_SUCCESS);
	world_free(w);
}

static void nothing(struct pool_commit *c)
{
	assert_int_equal(c->rc, 0);
}

/* Two hosts are asked at once, say to clone it: whose entry comes second is told in words
 * of the VM, not of the database. */
static void test_two_at_once(void **state)
{
	struct world *w = world_new(40);
	size_t i = world_add_vm(w, 1, 0);
	struct vm_op_args args = {.vm = w->vm[i], .new_name = "copy"};
	struct pool_commit first[2] = {0};
	struct uuid task, other = world_uuid(w);
	struct rv_error e;
	struct txn t;
	char text[UUID_TEXT_SIZE];

	(void)state;
	uuid_format(&other, text);
	world_txn(w, &t); /* not applied yet when the clone is looked at */
	txn_create(&t, CLASS_TASK, other);
	txn_set_ref(&t, other, TASK_SUBJECT, w->vm[i]);
	txn_map_put(&t, w->vm[i], VM_CURRENT_OPERATIONS, text, "clone");
	assert_int_equal(pool_commit(w->pool, &first[0], &t, nothing, &e), 0);
	assert_int_equal(world_begin_args(w, VM_OP_CLONE, &args, &task), RV_EBUSY);
	print_message("%s\n", w->accepted_error.detail);
	assert_non_null(strstr(w->accepted_error.detail, "clone"));
	assert_null(strstr(w->accepted_error.detail, "expected"));
	assert_true(world_idle(w));
	world_txn(w, &t);
	txn_map_remove(&t, w->vm[i], VM_CURRENT_OPERATIONS, text);
	txn_set_enum(&t, other, TASK_STATUS, TASK_STATUS_SUCCESS);
	world_commit(w, &t);

	world_txn(w, &t); /* it came and went */
	txn_set_int(&t, w->vm[i], VM_OWNER_GENERATION, 7);
	assert_int_equal(pool_commit(w->pool, &first[1], &t, nothing, &e), 0);
	assert_int_equal(world_begin_args(w, VM_OP_CLONE, &args, &task), RV_ECONFLICT);
	print_message("%s\n", w->accepted_error.detail);
	assert_non_null(strstr(w->accepted_error.detail, "at the same moment"));

	assert_int_equal(world_begin_args(w, VM_OP_CLONE, &args, &task), 0);
	assert_int_equal(world_end(w, task), TASK_STATUS_SUCCESS);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_start_and_shutdown),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_start_paused),
		cmocka_unit_test(test_reboot),
		cmocka_unit_test(test_reboot_keeps_its_memory),
		cmocka_unit_test(test_suspend_and_resume),
		cmocka_unit_test(test_a_balloon_is_tried_out_once),
		cmocka_unit_test(test_hard_shutdown_of_a_suspended_one),
		cmocka_unit_test(test_clone_and_provision),
		cmocka_unit_test(test_clones_at_once),
		cmocka_unit_test(test_destroy),
		cmocka_unit_test(test_hotplug),
		cmocka_unit_test(test_wrong_state),
		cmocka_unit_test(test_impossible_start),
		cmocka_unit_test(test_one_at_a_time),
		cmocka_unit_test(test_repeated_request),
		cmocka_unit_test(test_hard_beside_clean),
		cmocka_unit_test(test_shutdown_times_out),
		cmocka_unit_test(test_two_hundred),
		cmocka_unit_test(test_more_than_fit),
		cmocka_unit_test(test_squeezed),
		cmocka_unit_test(test_two_at_once),
		cmocka_unit_test(test_disk_in_the_making),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
