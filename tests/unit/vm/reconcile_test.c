/* What happens behind the daemon's back: guests that end by themselves, other tools,
 * hosts that restart, ghosts. */
#include "scenario.h"

static size_t running(struct world *w, int disks)
{
	size_t vm = world_add_vm(w, disks, 1);

	world_must(w, VM_OP_START, vm);
	world_run_ms(w, 60000); /* no crash loop, later */
	return vm;
}

static void test_poweroff(void **state)
{
	struct world *w = world_new(100);
	size_t vm = running(w, 1);

	(void)state;
	assert_int_equal(
		hyper_sim_end_guest(w->hyper, &w->vm[vm], HYPER_REASON_POWEROFF), 0);
	world_run_ms(w, 300); /* by its event, not by the next look */
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	world_assert_clean(w, vm);
	assert_int_equal(world_messages(w, "VM_SHUTDOWN"), 1);
	world_free(w);
}

static void test_reboot(void **state)
{
	struct world *w = world_new(101);
	size_t vm = running(w, 1);

	(void)state;
	assert_int_equal(
		hyper_sim_end_guest(w->hyper, &w->vm[vm], HYPER_REASON_REBOOT), 0);
	settle(w);
	world_assert_runs(w, vm);
	assert_int_equal(db_int(world_row(w, vm), VM_OWNER_GENERATION), 2);
	assert_int_equal(world_messages(w, "VM_REBOOTED"), 1);
	world_free(w);
}

static void test_crash(void **state)
{
	static const struct {
		enum vm_after after;
		int state;
		size_t domains;
	} cases[] = {
		{VM_AFTER_RESTART, VM_POWER_STATE_RUNNING, 1},
		{VM_AFTER_DESTROY, VM_POWER_STATE_HALTED, 0},
		{VM_AFTER_PRESERVE, VM_POWER_STATE_PAUSED, 1},
	};
	struct world_domains d;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct world *w = world_new(102 + i);
		size_t vm = running(w, 1);

		world_set_enum(w, vm, VM_ACTIONS_AFTER_CRASH, (int)cases[i].after);
		assert_int_equal(
			hyper_sim_end_guest(w->hyper, &w->vm[vm], HYPER_REASON_CRASH), 0);
		settle(w);
		assert_int_equal(world_state(w, vm), cases[i].state);
		assert_int_equal(world_domains(w, &d), cases[i].domains);
		assert_int_equal(world_messages(w, "VM_CRASHED"), 1);
		if (cases[i].after == VM_AFTER_PRESERVE) {
			/* It stays so until somebody has looked into it. */
			assert_int_equal(d.list[0].state, HYPER_SHUTDOWN);
			world_restart(w);
			settle(w);
			assert_int_equal(world_domains(w, &d), 1);
			world_must(w, VM_OP_HARD_SHUTDOWN, vm);
			world_assert_clean(w, vm);
		}
		world_free(w);
	}
}

/* One that crashes as soon as it is up is not restarted for ever. */
static void test_crash_loop(void **state)
{
	struct world *w = world_new(106);
	size_t vm;

	(void)state;
	w->platform_key = "sim.ends_by";
	w->platform_value = "crash";
	vm = world_add_vm(w, 1, 0);
	world_must(w, VM_OP_START, vm);
	world_run_ms(w, 120000);
	assert_true(world_run(w, world_idle, 60000));
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	world_assert_clean(w, vm);
	world_free(w);
}

/* The guest ends while the daemon is dead. */
static void test_ended_meanwhile(void **state)
{
	static const enum hyper_reason reasons[] = {
		HYPER_REASON_POWEROFF, HYPER_REASON_REBOOT, HYPER_REASON_CRASH};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct world *w = world_new(110 + i);
		size_t vm = running(w, 1);

		world_kill(w);
		world_start(w);
		assert_int_equal(
			hyper_sim_end_guest(w->hyper, &w->vm[vm], reasons[i]), 0);
		world_run_ms(w, 100);
		world_manage(w);
		settle(w);
		if (reasons[i] == HYPER_REASON_POWEROFF)
			assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
		else
			world_assert_runs(w, vm);
		check_world(w);
		world_free(w);
	}
}

static void destroy_behind(struct world *w, size_t vm)
{
	assert_int_equal(hyper_sim_destroy_behind(
				 w->hyper, (uint32_t)db_int(world_row(w, vm), VM_DOMID)),
		0);
}

static void test_destroyed_behind(void **state)
{
	struct world *w = world_new(120);
	size_t vm = running(w, 1);

	(void)state;
	w->unchecked = true; /* the world breaks it, for a moment */
	world_set_enum(w, vm, VM_ACTIONS_AFTER_CRASH, VM_AFTER_DESTROY);
	destroy_behind(w, vm);
	settle(w);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	world_assert_clean(w, vm);
	assert_int_equal(world_messages(w, "VM_CRASHED"), 1);
	/* And with its crash rule. */
	world_set_enum(w, vm, VM_ACTIONS_AFTER_CRASH, VM_AFTER_RESTART);
	world_must(w, VM_OP_START, vm);
	destroy_behind(w, vm);
	settle(w);
	world_assert_runs(w, vm);
	world_free(w);
}

/* Suspended guests keep their images over a restart of the host; running ones are lost,
 * said so, and can be started again. */
static void test_host_restarts(void **state)
{
	struct world *w = world_new(130);
	size_t lost = running(w, 1), kept = running(w, 1);
	struct hyper_sim_view v;

	(void)state;
	world_must(w, VM_OP_SUSPEND, kept);
	world_kill(w);
	hyper_sim_machine_reboot(w->machine);
	world_start(w);
	world_manage(w);
	settle(w);
	assert_int_equal(world_state(w, lost), VM_POWER_STATE_HALTED);
	world_assert_clean(w, lost);
	assert_int_equal(world_messages(w, "VM_CRASHED"), 1);
	world_must(w, VM_OP_RESUME, kept);
	assert_true(world_guest(w, kept, &v));
	assert_int_equal(v.damaged_pages, 0);
	world_must(w, VM_OP_START, lost);
	check_world(w);
	world_free(w);
}

/* A restart of the daemon alone: nobody notices. */
static void test_daemon_restarts(void **state)
{
	struct world *w = world_new(140);
	size_t a = running(w, 1), b = running(w, 2);
	struct hyper_sim_view before, after;
	int64_t domid = db_int(world_row(w, a), VM_DOMID);

	(void)state;
	world_must(w, VM_OP_PAUSE, b);
	assert_true(world_guest(w, a, &before));
	world_restart(w);
	world_net_up(w);
	settle(w);
	world_assert_runs(w, a);
	assert_int_equal(db_int(world_row(w, a), VM_DOMID), domid);
	assert_int_equal(world_state(w, b), VM_POWER_STATE_PAUSED);
	assert_true(world_guest(w, a, &after));
	assert_true(after.ran_us > before.ran_us + 20000000);
	assert_int_equal(after.longest_gap_us, 0);
	world_must(w, VM_OP_UNPAUSE, b);
	world_must(w, VM_OP_CLEAN_SHUTDOWN, a);
	world_must(w, VM_OP_HARD_REBOOT, b);
	check_world(w);
	world_free(w);
}

static void test_ghost(void **state)
{
	struct world *w = world_new(150);
	struct hyper_domain_id id;
	struct world_domains d;

	(void)state;
	assert_int_equal(hyper_sim_make_ghost(w->hyper, "stranger", 65536, &id), 0);
	world_run_ms(w, 25000);
	assert_int_equal(world_messages(w, "DOMAIN_UNKNOWN"), 1);
	assert_int_equal(world_domains(w, &d), 1); /* left alone */
	assert_true(vm_ghost_is(w->mgr, &w->host, &id));
	/* Known no better after a restart, but told already. */
	world_restart(w);
	settle(w);
	assert_true(vm_ghost_is(w->mgr, &w->host, &id));
	assert_int_equal(world_messages(w, "DOMAIN_UNKNOWN"), 1);
	assert_int_equal(world_domains(w, &d), 1);
	assert_int_equal(hyper_sim_destroy_behind(w->hyper, id.domid), 0);
	world_run_ms(w, 25000);
	assert_false(vm_ghost_is(w->mgr, &w->host, &id));
	world_free(w);
}

/* This host was declared dead, and its VMs are another's by now: it comes back. Each of
 * its domains is told of, and can be ended. */
static void test_overtaken(void **state)
{
	struct world *w = world_new(153);
	struct uuid host = world_uuid(w);
	struct hyper_domain_id id[2];
	size_t vm[2];
	struct txn t;

	(void)state;
	for (int i = 0; i < 2; i++) {
		vm[i] = world_add_vm(w, 0, 0);
		world_must(w, VM_OP_START, vm[i]);
		assert_true(vm_recorded(world_row(w, vm[i]), &id[i]));
	}
	w->unchecked = true; /* they run twice */
	world_txn(w, &t);
	txn_create(&t, CLASS_HOST, host);
	txn_set_string(&t, host, HOST_NAME_LABEL, "host2");
	for (int i = 0; i < 2; i++) {
		struct hyper_domain_id other = id[i];

		other.handle = world_uuid(w);
		other.boot_id = host;
		other.generation += 3;
		vm_txn_domain(pool_db(w->pool), &t, w->vm[vm[i]], &other, host);
	}
	world_commit(w, &t);
	world_run_ms(w, 25000);
	for (int i = 0; i < 2; i++)
		assert_true(vm_ghost_is(w->mgr, &w->host, &id[i]));
	assert_int_equal(world_messages(w, "DOMAIN_UNKNOWN"), 2);
	assert_int_equal(hyper_sim_destroy_behind(w->hyper, id[0].domid), 0);
	/* A migration of the VM is no leave to forget what was found before. */
	world_txn(w, &t);
	txn_set_ref(&t, w->vm[vm[1]], VM_MIGRATION, host);
	world_commit(w, &t);
	world_run_ms(w, 25000);
	assert_false(vm_ghost_is(w->mgr, &w->host, &id[0]));
	assert_true(vm_ghost_is(w->mgr, &w->host, &id[1]));
	world_free(w);
}

/* What VM.adopt records. */
static void record_adopted(
	struct world *w, size_t vm, const struct hyper_domain_id *domain, int64_t kib)
{
	struct hyper_domain_id id = *domain;
	struct txn t;

	world_txn(w, &t);
	id.generation = (uint64_t)db_int(world_row(w, vm), VM_OWNER_GENERATION) + 1;
	txn_set_int(&t, w->vm[vm], VM_MEMORY_STATIC_MAX, kib << 10);
	txn_set_int(&t, w->vm[vm], VM_MEMORY_DYNAMIC_MAX, kib << 10);
	txn_set_int(&t, w->vm[vm], VM_MEMORY_DYNAMIC_MIN, kib << 10);
	txn_set_enum(&t, w->vm[vm], VM_POWER_STATE, VM_POWER_STATE_RUNNING);
	vm_txn_domain(pool_db(w->pool), &t, w->vm[vm], &id, w->host);
	world_commit(w, &t);
}

/* The entry makes it the VM's; its label and its memory follow, also when the daemon dies
 * right after it. */
static void adopt(bool dies)
{
	struct world *w = world_new(152);
	size_t vm = world_add_vm(w, 0, 0);
	struct hyper_domain_id id;
	struct world_domains d;
	struct memctl_view view;
	struct uuid task;

	for (int i = 0; i < 9; i++)
		world_uuid(w); /* the stranger's handle: the seed is the same */
	assert_int_equal(hyper_sim_make_ghost(w->hyper, "stranger", 65536, &id), 0);
	world_run_ms(w, 1000);
	assert_true(vm_ghost_claim(w->mgr, &w->host, &id, &w->vm[vm]));
	assert_int_equal(world_begin(w, VM_OP_START, vm, &task), RV_ESTATE);
	w->unchecked = true; /* its label is yet to follow */
	record_adopted(w, vm, &id, 65536);
	assert_false(vm_ghost_is(w->mgr, &w->host, &id));
	if (dies)
		world_restart(w);
	else
		vm_manager_look(w->mgr);
	settle(w);
	w->unchecked = false;
	assert_int_equal(world_domains(w, &d), 1);
	assert_true(uuid_eq(&d.list[0].vm, &w->vm[vm]));
	assert_int_equal(
		d.list[0].id.generation, db_int(world_row(w, vm), VM_OWNER_GENERATION));
	assert_int_equal(
		memctl_domain_get(vm_memory_controller(vm_host_memory(w->mgr, &w->host)),
			id.domid, &view),
		0);
	world_assert_runs(w, vm);
	assert_int_equal(world_messages(w, "DOMAIN_UNKNOWN"), 1);
	world_must(w, VM_OP_PAUSE, vm);
	world_must(w, VM_OP_UNPAUSE, vm);
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	assert_int_equal(world_domains(w, &d), 0);
	check_world(w);
	world_free(w);
}

static void test_ghost_is_adopted(void **state)
{
	(void)state;
	adopt(false);
}

static void test_adoption_outlives_the_daemon(void **state)
{
	(void)state;
	adopt(true);
}

/* Its label can't be written: tried again at each look; meanwhile the VM is left alone.
 */
static void test_label_is_tried_again(void **state)
{
	struct world *w = world_new(153);
	size_t vm = world_add_vm(w, 0, 0);
	struct hyper_domain_id id;
	struct world_domains d;

	(void)state;
	for (int i = 0; i < 9; i++)
		world_uuid(w);
	assert_int_equal(hyper_sim_make_ghost(w->hyper, "stranger", 65536, &id), 0);
	world_run_ms(w, 1000);
	hyper_sim_inject(w->hyper, HYPER_CALL_RELABEL, HYPER_SIM_FAULT_ERROR, 3, 0);
	w->unchecked = true;
	record_adopted(w, vm, &id, 65536);
	world_run_ms(w, 60000);
	w->unchecked = false;
	assert_int_equal(hyper_sim_faults_fired(w->hyper, HYPER_SIM_FAULT_ERROR), 3);
	assert_int_equal(world_domains(w, &d), 1);
	assert_true(uuid_eq(&d.list[0].vm, &w->vm[vm]));
	world_assert_runs(w, vm);
	assert_int_equal(world_messages(w, "VM_STATE_CORRECTED"), 0);
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	world_free(w);
}

/* However many strangers there are, a domain that bears a VM's mark keeps the VM from
 * being started a second time. */
static void test_many_ghosts(void **state)
{
	struct world *w = world_new(155);
	struct hyper_domain_id id;
	struct world_domains d;
	struct uuid task;
	struct txn t;
	size_t vm;

	(void)state;
	for (int i = 0; i < 200; i++)
		world_uuid(w); /* the strangers' handles: the seed is the same */
	vm = running(w, 0);
	for (int i = 0; i < 70; i++)
		assert_int_equal(
			hyper_sim_make_ghost(w->hyper, "stranger", 4096, &id), 0);
	world_run_ms(w, 25000);
	w->unchecked = true; /* the database forgets a domain that runs */
	assert_true(vm_recorded(world_row(w, vm), &id));
	world_txn(w, &t);
	txn_set_enum(&t, w->vm[vm], VM_POWER_STATE, VM_POWER_STATE_HALTED);
	txn_set_ref(&t, w->vm[vm], VM_RESIDENT_ON, UUID_NONE);
	txn_set_ref(&t, w->vm[vm], VM_DOMAIN_HANDLE, UUID_NONE);
	txn_set_int(&t, w->vm[vm], VM_DOMID, -1);
	world_commit(w, &t);
	world_run_ms(w, 25000);
	assert_int_equal(world_begin(w, VM_OP_START, vm, &task), RV_ESTATE);
	assert_int_equal(world_domains(w, &d), 71);
	world_free(w);
}

/* A leftover that can't be removed is tried for at each look, and told of once. */
static void test_stuck_is_told_once(void **state)
{
	struct world *w = world_new(157);
	size_t vm = running(w, 0);
	struct hyper_domain_id id;
	struct txn t;

	(void)state;
	assert_true(vm_recorded(world_row(w, vm), &id));
	w->unchecked = true;
	hyper_sim_inject(w->hyper, HYPER_CALL_DESTROY, HYPER_SIM_FAULT_ERROR, 1000000, 0);
	world_txn(w, &t);
	txn_set_enum(&t, w->vm[vm], VM_POWER_STATE, VM_POWER_STATE_HALTED);
	world_commit(w, &t);
	world_run_ms(w, 300000);
	assert_true(hyper_sim_faults_fired(w->hyper, HYPER_SIM_FAULT_ERROR) > 10);
	assert_int_equal(world_messages(w, "VM_NOT_SETTLED"), 1);
	world_free(w);
}

/* What a start that was killed left behind is found although its record is not there. */
static void test_paused_by_another_tool(void **state)
{
	struct world *w = world_new(160);
	size_t vm = running(w, 0);
	struct hyper_req req = {0};
	struct hyper_domain_id id;
	struct world_domains d;

	(void)state;
	assert_true(vm_recorded(world_row(w, vm), &id));
	d.done = false;
	hyper_req_init(&req, world_listed, &d);
	hyper_pause(w->hyper, &req, &id);
	settle(w);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_PAUSED);
	assert_int_equal(world_messages(w, "VM_STATE_CORRECTED"), 1);
	world_must(w, VM_OP_UNPAUSE, vm);
	world_assert_runs(w, vm);
	world_free(w);
}

static void answered(void *arg, struct hyper_req *req)
{
	assert_int_equal(req->rc, 0);
	*(bool *)arg = true;
}

/* As `xl mem-set` does. */
static void mem_set(struct world *w, const struct hyper_domain_id *id, uint64_t kib)
{
	struct hyper_req req = {0};
	bool done = false;

	hyper_req_init(&req, answered, &done);
	hyper_set_target(w->hyper, &req, id, kib);
	while (!done)
		assert_true(loop_sim_step(w->loop));
	done = false;
	hyper_set_maxmem(w->hyper, &req, id, kib);
	while (!done)
		assert_true(loop_sim_step(w->loop));
}

static void assert_memory(struct world *w, const struct hyper_domain_id *id,
	uint64_t target_kib, uint64_t maxmem_kib)
{
	struct world_domains d;

	assert_int_equal(world_domains(w, &d), 1);
	assert_int_equal(d.list[0].id.domid, id->domid);
	assert_int_equal(d.list[0].target_kib, target_kib);
	assert_int_equal(d.list[0].maxmem_kib, maxmem_kib);
}

/* Only Reeve sets targets: what another tool sets is undone, and told once. */
static void test_memory_changed_by_another_tool(void **state)
{
	struct world *w = world_new(163);
	size_t vm = running(w, 0);
	struct hyper_domain_id id;
	struct world_domains before;

	(void)state;
	settle(w);
	assert_true(vm_recorded(world_row(w, vm), &id));
	assert_int_equal(world_domains(w, &before), 1);
	assert_int_equal(world_messages(w, "VM_MEMORY_CHANGED"), 0);
	mem_set(w, &id, before.list[0].target_kib / 2);
	settle(w);
	assert_memory(w, &id, before.list[0].target_kib, before.list[0].maxmem_kib);
	assert_int_equal(world_messages(w, "VM_MEMORY_CHANGED"), 1);
	/* An order that fails is given again; the message is not. */
	mem_set(w, &id, before.list[0].target_kib / 4);
	hyper_sim_inject(w->hyper, HYPER_CALL_SET_TARGET, HYPER_SIM_FAULT_ERROR, 3, 0);
	settle(w);
	assert_memory(w, &id, before.list[0].target_kib, before.list[0].maxmem_kib);
	assert_int_equal(world_messages(w, "VM_MEMORY_CHANGED"), 1);
	/* It goes on, told of again. */
	world_run_ms(w, 3600 * 1000);
	mem_set(w, &id, before.list[0].target_kib / 2);
	settle(w);
	assert_int_equal(world_messages(w, "VM_MEMORY_CHANGED"), 2);
	world_free(w);
}

/* The disk of the log is full, then has room again: nothing that was done is forgotten.
 */
static void test_full_log(void **state)
{
	struct world *w = world_new(170);
	size_t vm = world_add_vm(w, 1, 0);
	struct uuid task;
	int rc;

	(void)state;
	disk_sim_set_capacity(w->medium, disk_sim_used(w->medium));
	for (int i = 0; i < 400; i++) {
		rc = world_begin(w, i % 2 ? VM_OP_HARD_SHUTDOWN : VM_OP_START, vm, &task);
		if (rc)
			break;
		world_run(w, world_idle, 5000);
	}
	world_run_ms(w, 5000);
	disk_sim_set_capacity(w->medium, UINT64_MAX);
	settle(w);
	check_world(w);
	check_usable(w);
	world_free(w);
}

/* --- another host's clone --- */

/* A second host on the same database and SR: its VM manager dies at `die_at`. */
struct other_host {
	struct world *w;
	struct uuid uuid;
	struct hyper_sim_machine *machine;
	struct hyper *hyper;
	struct storage *storage;
	struct vm_manager *mgr;
	bool ready, dead;
};

static bool other_point(void *arg, const char *point, const struct uuid *vm)
{
	struct other_host *o = arg;

	(void)vm;
	o->dead = o->dead || strcmp(point, "make.disk") == 0;
	return o->dead;
}

static void other_ready(void *arg)
{
	((struct other_host *)arg)->ready = true;
}

static void other_manage(struct other_host *o)
{
	struct world *w = o->w;
	struct vm_manager_config config = {.loop = w->loop,
		.pool = w->pool,
		.self = o->uuid,
		.answer_ms = 5000,
		.point = other_point,
		.point_arg = o};
	struct vm_host_config host = {
		.uuid = o->uuid, .hyper = o->hyper, .storage = o->storage, .net = w->net};
	struct rv_error e;

	o->ready = o->dead = false;
	assert_int_equal(vm_manager_new(&o->mgr, &config, &e), 0);
	assert_int_equal(vm_manager_add_host(o->mgr, &host, &e), 0);
	vm_manager_start(o->mgr, other_ready, o);
	for (int i = 0; i < 100000 && !o->ready; i++)
		assert_true(loop_sim_step(w->loop));
	assert_true(o->ready);
}

/* The SR is this world's "here", which the first host attached. */
static void other_init(struct other_host *o, struct world *w)
{
	struct hyper_sim_config config = w->hyper_config;
	struct rv_error e;
	struct txn t;

	*o = (struct other_host){.w = w, .uuid = world_uuid(w), .storage = w->storage};
	world_txn(w, &t);
	txn_create(&t, CLASS_HOST, o->uuid);
	txn_set_string(&t, o->uuid, HOST_NAME_LABEL, "host2");
	world_commit(w, &t);
	assert_int_equal(hyper_sim_machine_new(&o->machine, &config), 0);
	config.machine = o->machine;
	assert_int_equal(hyper_sim_new(&o->hyper, w->loop, &config, &e), 0);
	other_manage(o);
}

static void other_kill(struct other_host *o)
{
	vm_manager_stop(o->mgr);
}

static void other_free(struct other_host *o)
{
	hyper_free(o->hyper);
	vm_manager_free(o->mgr);
	hyper_sim_machine_free(o->machine);
}

/* The other host begins to clone VM 0 and has copied one disk of two. */
static struct uuid half_cloned(struct other_host *o)
{
	struct world *w = o->w;
	struct vm_op_args args = {.vm = w->vm[0], .new_name = "copy"};
	struct uuid task = world_uuid(w);
	struct rv_error e;

	assert_int_equal(
		vm_op_start(o->mgr, VM_OP_CLONE, &args, task, NULL, NULL, &e), 0);
	for (int i = 0; i < 100000 && !o->dead; i++)
		assert_true(loop_sim_step(w->loop));
	assert_true(o->dead);
	return task;
}

static size_t images(struct world *w)
{
	return storage_sim_vdi_count(w->bytes, w->sr);
}

static void test_clone_of_another_host(void **state)
{
	(void)state;
	/* It goes on there; it is restarted; it is dead by an admin's word. */
	for (int fate = 0; fate < 3; fate++) {
		struct world *w = world_new(180 + (uint64_t)fate);
		struct other_host o;
		struct uuid task;
		struct txn t;

		world_add_vm(w, 2, 1);
		other_init(&o, w);
		task = half_cloned(&o);
		/* The master looks at everything, more than once. */
		world_run_ms(w, 700 * 1000);
		vm_manager_take_over(w->mgr);
		world_run_ms(w, 60 * 1000);
		assert_int_equal(images(w), 3);
		assert_int_equal(world_task(w, task), TASK_STATUS_PENDING);
		other_kill(&o);
		if (fate == 0) {
			other_free(&o);
			world_free(w);
			continue;
		}
		if (fate == 1) {
			vm_manager_free(o.mgr);
			other_manage(&o);
		} else {
			world_txn(w, &t);
			txn_set_bool(&t, o.uuid, HOST_DECLARED_DEAD, true);
			world_commit(w, &t);
		}
		vm_manager_take_over(w->mgr);
		world_run_ms(w, 60 * 1000);
		settle(w);
		assert_int_equal(images(w), 2);
		assert_int_equal(world_task(w, task), TASK_STATUS_FAILURE);
		check_world(w);
		other_kill(&o);
		other_free(&o);
		world_free(w);
	}
}

/* Of a VM that is on no host: the host that does it is named all the same. */
static void test_host_of_a_shutdown(void **state)
{
	struct world *w = world_new(184);
	size_t vm = running(w, 1);
	struct uuid task, host;

	(void)state;
	world_must(w, VM_OP_SUSPEND, vm);
	assert_int_equal(world_begin(w, VM_OP_HARD_SHUTDOWN, vm, &task), 0);
	host = db_ref(world_row(w, vm), VM_INTENT_HOST);
	assert_true(uuid_eq(&host, &w->host));
	assert_int_equal(world_end(w, task), TASK_STATUS_SUCCESS);
	world_assert_clean(w, vm);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_poweroff),
		cmocka_unit_test(test_reboot),
		cmocka_unit_test(test_crash),
		cmocka_unit_test(test_crash_loop),
		cmocka_unit_test(test_ended_meanwhile),
		cmocka_unit_test(test_destroyed_behind),
		cmocka_unit_test(test_host_restarts),
		cmocka_unit_test(test_daemon_restarts),
		cmocka_unit_test(test_ghost),
		cmocka_unit_test(test_overtaken),
		cmocka_unit_test(test_ghost_is_adopted),
		cmocka_unit_test(test_adoption_outlives_the_daemon),
		cmocka_unit_test(test_label_is_tried_again),
		cmocka_unit_test(test_many_ghosts),
		cmocka_unit_test(test_stuck_is_told_once),
		cmocka_unit_test(test_paused_by_another_tool),
		cmocka_unit_test(test_memory_changed_by_another_tool),
		cmocka_unit_test(test_full_log),
		cmocka_unit_test(test_clone_of_another_host),
		cmocka_unit_test(test_host_of_a_shutdown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
