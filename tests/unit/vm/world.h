/*
 * One host in a simulation: a machine, an SR, a network and a pool on a disk, all of
 * which outlive the daemon; and the daemon's part of it, which can be killed at any
 * moment.
 *
 * After every event the invariants are checked against the moment's truth, unless a test
 * breaks them on purpose.
 */
#ifndef REEVE_TESTS_VM_WORLD_H
#define REEVE_TESTS_VM_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/limits.h"
#include "base/log.h"
#include "net/sim.h"
#include "pool/disk.h"
#include "storage/sim.h"
#include "vm/vm_invariants.h"
#include "vm/vm_op.h"
#include "xen/sim.h"
#include "xen/sim_machine.h"

enum { WORLD_MAX_VMS = 256, WORLD_MIB = 1 << 20 };

struct world {
	struct loop *loop;
	uint64_t seed;
	struct disk_sim_medium *medium;
	struct storage_sim_world *bytes;
	struct hyper_sim_machine *machine;
	struct hyper_sim_config hyper_config;

	struct disk *disk;
	struct pool *pool;
	struct hyper *hyper;
	struct storage *storage;
	struct net *net;
	struct vm_manager *mgr;
	bool opened, ready, alive;
	char sr_size[24];

	struct uuid host, sr, network, pool_uuid;
	struct uuid vm[WORLD_MAX_VMS];
	size_t vms;
	int64_t static_max, dynamic_min; /* of the next VMs */
	enum vm_domain_type type;
	const char *platform_key, *platform_value;

	const char *die_at; /* the daemon dies at this point ... */
	int die_skip;	    /* ... when it was passed so often */
	bool died;
	const char *fail_at;  /* from this point on the SR fails every request ... */
	int64_t slow_us;      /* ... or, if set, takes so long for it */
	uint64_t points;      /* points passed */
	const char *seen[64]; /* their names, each once */
	size_t seen_count;

	/* As in vm_manager_config, for daemons that start from now on. */
	vm_may_run_fn *may_run;
	void *may_run_arg;
	vm_was_fenced_fn *was_fenced;

	bool unchecked;
	struct hyper_domain truth[WORLD_MAX_VMS];
	uint64_t endings; /* tasks seen to end */
	int accepted_rc;
	bool accepted;
	struct rv_error accepted_error;
};

/* --- running --- */

/* The moment's truth, past the port. */
static inline size_t world_truth(struct world *w, struct hyper_domain *domains)
{
	struct sim_record r;
	size_t n = 0;

	for (uint32_t slot = 0; slot < WORLD_MAX_VMS; slot++) {
		if (!sim_machine_load(w->machine, slot, &r))
			continue;
		domains[n++] = (struct hyper_domain){
			.id = {.boot_id = sim_machine_head(w->machine)->boot_id,
				.domid = r.domid,
				.handle = r.handle,
				.generation = r.generation},
			.vm = r.vm,
			.state = (enum hyper_state)r.state,
			.actual_kib = r.actual_kib,
			.overhead_kib = r.overhead_kib,
		};
	}
	return n;
}

static inline void world_check(struct world *w)
{
	struct vm_observed seen = {.host = w->host,
		.seq = UINT64_MAX,
		.domains = w->truth,
		.total_kib = w->hyper_config.memory_kib,
		.dom0_kib = w->hyper_config.dom0_kib};
	struct vm_memory *memory;
	struct rv_error e;

	if (!w->alive || w->unchecked || !w->mgr || w->mgr->host_count == 0)
		return;
	memory = w->mgr->hosts[0]->memory;
	if (vm_memory_ready(memory))
		seen.memory = vm_memory_controller(memory);
	seen.domain_count = world_truth(w, w->truth);
	if (vm_invariants_check(pool_db(w->pool), &seen, 1, &e) ||
		hyper_sim_check(w->hyper, &e))
		fail_msg("seed %llu at %lld us: %s", (unsigned long long)w->seed,
			(long long)loop_now_us(w->loop), e.detail);
}

static inline void world_event(void *arg)
{
	world_check(arg);
}

/* Until `done` says so or the time is over. */
static inline bool world_run(struct world *w, bool (*done)(struct world *w), int64_t ms)
{
	int64_t until = loop_now_us(w->loop) + ms * 1000;

	while (!done(w)) {
		if (w->died || loop_now_us(w->loop) >= until)
			return false;
		if (!loop_sim_step(w->loop))
			return done(w);
	}
	return true;
}

static inline void world_run_ms(struct world *w, int64_t ms)
{
	int64_t until = loop_now_us(w->loop) + ms * 1000;

	while (!w->died && loop_now_us(w->loop) < until && loop_sim_step(w->loop))
		;
}

/* What is at work, for a failure's message. */
static inline void world_tell(struct world *w)
{
	for (struct op *op = NULL; (op = op_next(w->loop, op));)
		print_error("  %s %s in %s for %lld ms%s\n", op->table->name, op->subject,
			op_state_name(op),
			(long long)((loop_now_us(w->loop) - op->state_since_us) / 1000),
			op->awaiting ? "" : ", awaiting nothing");
}

/* --- the daemon --- */

static inline void world_opened(void *arg, int rc, const struct rv_error *e)
{
	struct world *w = arg;

	if (rc)
		fail_msg("pool: %s", e->detail);
	w->opened = true;
}

static inline void world_changed(void *arg)
{
	(void)arg;
}

static inline void world_ready(void *arg)
{
	((struct world *)arg)->ready = true;
}

static inline bool world_point(void *arg, const char *point, const struct uuid *vm)
{
	struct world *w = arg;
	size_t i;

	(void)vm;
	w->points++;
	for (i = 0; i < w->seen_count && strcmp(w->seen[i], point); i++)
		;
	if (i == w->seen_count && i < 64)
		w->seen[w->seen_count++] = point;
	if (w->died)
		return true;
	if (w->fail_at && strcmp(w->fail_at, point) == 0) {
		struct storage_sim_faults all = {.latency_min_us = w->slow_us,
			.latency_max_us = w->slow_us,
			.fail_ppm = w->slow_us ? 0 : 1000000};

		storage_sim_set_faults(w->bytes, &all);
	}
	if (w->die_at && strcmp(w->die_at, point) == 0 && w->die_skip-- == 0)
		w->died = true;
	return w->died;
}

static inline bool world_is_master(struct world *w)
{
	return w->opened && pool_is_master(w->pool);
}

static inline bool world_is_ready(struct world *w)
{
	return w->ready;
}

static inline void world_storage_done(
	void *arg, uint64_t token, const struct storage_result *result)
{
	bool *done = arg;

	(void)token;
	if (result->rc)
		fail_msg("storage: %s", result->error.detail);
	*done = true;
}

static inline void world_storage(struct world *w, struct storage_call *call)
{
	struct storage_config config[] = {{"location", "here"}, {"size", w->sr_size}};
	struct rv_error e;
	bool done = false;

	call->type = "file";
	call->config = config;
	call->config_count = 2;
	call->done = world_storage_done;
	call->arg = &done;
	if (storage_start(w->storage, call, NULL, &e))
		fail_msg("storage: %s", e.detail);
	while (!done && loop_sim_step(w->loop))
		;
	assert_true(done);
}

/* A daemon starts; with a database, it reconciles. */
static inline void world_start(struct world *w)
{
	static const struct pool_events events = {.opened = world_opened,
		.changed = world_changed,
		.closed = world_changed};
	struct pool_config config = {
		.log = {.id = 1,
			.address = "one",
			.bootstrap_count = 1,
			.bootstrap = {{.id = 1, .address = "one", .voter = true}},
			.segment_bytes = 1 << 20}};
	struct net_sim_config net = {.seed = w->seed, .devices = 2};
	struct storage_call attach = {.verb = STORAGE_SR_ATTACH, .sr = w->sr};
	struct rv_error e;

	w->opened = w->ready = w->died = false;
	assert_int_equal(disk_new_sim(&w->disk, w->loop, w->medium), 0);
	assert_int_equal(
		pool_open(&w->pool, w->loop, w->disk, &config, &events, w, &e), 0);
	assert_true(world_run(w, world_is_master, 60000));
	w->hyper_config.machine = w->machine;
	if (hyper_sim_new(&w->hyper, w->loop, &w->hyper_config, &e))
		fail_msg("hyper: %s", e.detail);
	assert_int_equal(storage_new(&w->storage, w->loop, w->host), 0);
	assert_int_equal(storage_sim_add(w->storage, w->bytes, "file",
				 STORAGE_CAN_READ_WRITE | STORAGE_CAN_COPY |
					 STORAGE_CAN_RESIZE | STORAGE_CAN_SHARE),
		0);
	assert_int_equal(net_sim_new(&w->net, w->loop, &net), 0);
	if (db_count(pool_db(w->pool), CLASS_SR) > 0)
		world_storage(w, &attach);
	w->alive = true;
}

static inline void world_manage(struct world *w)
{
	struct vm_manager_config config = {.loop = w->loop,
		.pool = w->pool,
		.self = w->host,
		.answer_ms = 5000,
		.may_run = w->may_run,
		.may_run_arg = w->may_run_arg,
		.was_fenced = w->was_fenced,
		.was_fenced_arg = w,
		.point = world_point,
		.point_arg = w};
	struct vm_host_config host = {
		.uuid = w->host, .hyper = w->hyper, .storage = w->storage, .net = w->net};
	struct rv_error e;

	assert_int_equal(vm_manager_new(&w->mgr, &config, &e), 0);
	assert_int_equal(vm_manager_add_host(w->mgr, &host, &e), 0);
	vm_manager_start(w->mgr, world_ready, w);
	if (!world_run(w, world_is_ready, 60000) && !w->died)
		fail_msg("seed %llu: not ready", (unsigned long long)w->seed);
}

/* kill -9. */
static inline void world_kill(struct world *w)
{
	w->alive = false;
	if (w->mgr)
		vm_manager_stop(w->mgr);
	hyper_free(w->hyper);
	storage_free(w->storage);
	net_free(w->net);
	pool_free(w->pool);
	disk_free(w->disk);
	vm_manager_free(w->mgr);
	w->mgr = NULL;
	w->die_at = NULL;
	w->died = false;
}

static inline void world_restart(struct world *w)
{
	world_kill(w);
	world_start(w);
	world_manage(w);
}

/* --- the database --- */

struct world_commit {
	struct pool_commit commit;
	bool done;
};

static inline void world_committed(struct pool_commit *c)
{
	struct world_commit *wc = CONTAINER_OF(c, struct world_commit, commit);

	if (c->rc)
		fail_msg("commit: %s", c->error.detail);
	wc->done = true;
}

static inline void world_commit(struct world *w, struct txn *t)
{
	struct world_commit c = {.done = false};
	struct rv_error e;

	if (pool_commit(w->pool, &c.commit, t, world_committed, &e))
		fail_msg("commit: %s", e.detail);
	while (!c.done && loop_sim_step(w->loop))
		;
	assert_true(c.done);
}

static inline struct uuid world_uuid(struct world *w)
{
	return uuid_random(loop_prng(w->loop));
}

static inline void world_txn(struct world *w, struct txn *t)
{
	txn_init(t, pool_db(w->pool), loop_wall_ms(w->loop));
}

static inline const struct row *world_row(struct world *w, size_t i)
{
	return db_row(pool_db(w->pool), CLASS_VM, w->vm[i]);
}

static inline int world_state(struct world *w, size_t i)
{
	return db_enum(world_row(w, i), VM_POWER_STATE);
}

/* A VM with `disks` disks and `nics` interfaces. */
static inline size_t world_add_vm(struct world *w, int disks, int nics)
{
	struct uuid vdi[8], metrics = world_uuid(w);
	struct uuid vm = w->vm[w->vms] = world_uuid(w);
	char text[32], mac[NET_MAC_SIZE];
	struct txn t;

	for (int i = 0; i < disks; i++) {
		struct storage_call call = {.verb = STORAGE_VDI_CREATE,
			.sr = w->sr,
			.vdi = vdi[i] = world_uuid(w),
			.size = 8 << 20,
			.format = STORAGE_FORMAT_RAW};

		world_storage(w, &call);
	}
	world_txn(w, &t);
	txn_create(&t, CLASS_VM_METRICS, metrics);
	txn_create(&t, CLASS_VM, vm);
	snprintf(text, sizeof text, "vm%zu", w->vms);
	txn_set_string(&t, vm, VM_NAME_LABEL, text);
	txn_set_ref(&t, vm, VM_METRICS, metrics);
	txn_set_enum(&t, vm, VM_DOMAIN_TYPE, (int)w->type);
	txn_set_int(&t, vm, VM_MEMORY_STATIC_MAX, w->static_max);
	txn_set_int(&t, vm, VM_MEMORY_DYNAMIC_MAX, w->static_max);
	txn_set_int(&t, vm, VM_MEMORY_DYNAMIC_MIN, w->dynamic_min);
	if (w->platform_key)
		txn_map_put(&t, vm, VM_PLATFORM, w->platform_key, w->platform_value);
	for (int i = 0; i < disks; i++) {
		struct uuid vbd = world_uuid(w);

		snprintf(text, sizeof text, "%d", i);
		txn_create(&t, CLASS_VDI, vdi[i]);
		txn_set_ref(&t, vdi[i], VDI_SR, w->sr);
		txn_set_int(&t, vdi[i], VDI_VIRTUAL_SIZE, 8 << 20);
		txn_create(&t, CLASS_VBD, vbd);
		txn_set_ref(&t, vbd, VBD_VM, vm);
		txn_set_ref(&t, vbd, VBD_VDI, vdi[i]);
		txn_set_string(&t, vbd, VBD_USERDEVICE, text);
	}
	for (int i = 0; i < nics; i++) {
		struct uuid vif = world_uuid(w);

		snprintf(text, sizeof text, "%d", i);
		txn_create(&t, CLASS_VIF, vif);
		txn_set_ref(&t, vif, VIF_VM, vm);
		txn_set_ref(&t, vif, VIF_NETWORK, w->network);
		txn_set_string(&t, vif, VIF_DEVICE, text);
		txn_set_string(&t, vif, VIF_MAC, net_mac_random(loop_prng(w->loop), mac));
	}
	world_commit(w, &t);
	return w->vms++;
}

static inline void world_set_enum(
	struct world *w, size_t i, enum schema_field_id field, int value)
{
	struct txn t;

	world_txn(w, &t);
	txn_set_enum(&t, w->vm[i], field, value);
	world_commit(w, &t);
}

static inline void world_net_done(
	void *arg, uint64_t token, const struct net_result *result)
{
	(void)token;
	if (result->rc)
		fail_msg("net: %s", result->error.detail);
	*(bool *)arg = true;
}

/* The bridge is there, as after pif-plug. */
static inline void world_net_up(struct world *w)
{
	bool done = false;
	struct net_call call = {.verb = NET_UP,
		.network = w->network,
		.bridge = "xenbr0",
		.vlan = NET_VLAN_NONE,
		.done = world_net_done,
		.arg = &done};
	struct rv_error e;

	if (net_start(w->net, &call, NULL, &e))
		fail_msg("net: %s", e.detail);
	while (!done && loop_sim_step(w->loop))
		;
}

static inline void world_install(struct world *w)
{
	struct storage_call create = {.verb = STORAGE_SR_CREATE, .sr = w->sr};
	struct storage_call attach = {.verb = STORAGE_SR_ATTACH, .sr = w->sr};
	struct uuid pbd = world_uuid(w);
	struct txn t;

	world_storage(w, &create);
	world_storage(w, &attach);
	world_txn(w, &t);
	txn_create(&t, CLASS_POOL, w->pool_uuid);
	txn_create(&t, CLASS_HOST, w->host);
	txn_set_string(&t, w->host, HOST_NAME_LABEL, "host1");
	txn_set_int(&t, w->host, HOST_CPU_COUNT, 512);
	txn_set_ref(&t, w->pool_uuid, POOL_MASTER, w->host);
	txn_create(&t, CLASS_SR, w->sr);
	txn_set_string(&t, w->sr, SR_NAME_LABEL, "sr1");
	txn_create(&t, CLASS_PBD, pbd);
	txn_set_ref(&t, pbd, PBD_HOST, w->host);
	txn_set_ref(&t, pbd, PBD_SR, w->sr);
	txn_set_bool(&t, pbd, PBD_CURRENTLY_ATTACHED, true);
	txn_create(&t, CLASS_NETWORK, w->network);
	txn_set_string(&t, w->network, NETWORK_NAME_LABEL, "net1");
	txn_set_string(&t, w->network, NETWORK_BRIDGE, "xenbr0");
	txn_set_ref(&t, w->pool_uuid, POOL_DEFAULT_SR, w->sr);
	world_commit(w, &t);
}

static inline struct world *world_new_sized(
	uint64_t seed, uint64_t memory_mib, uint64_t sr_bytes)
{
	struct world *w = calloc(1, sizeof *w);

	assert_non_null(w);
	log_setup(getenv("VM_LOG") ? LOG_DEBUG : LOG_ERROR + 1, NULL, NULL);
	w->seed = seed;
	snprintf(w->sr_size, sizeof w->sr_size, "%llu", (unsigned long long)sr_bytes);
	w->static_max = w->dynamic_min = 256 * WORLD_MIB;
	w->type = VM_DOMAIN_TYPE_PVH;
	assert_int_equal(loop_new_sim(&w->loop, seed), 0);
	assert_int_equal(disk_sim_medium_new(&w->medium, seed), 0);
	assert_int_equal(storage_sim_world_new(&w->bytes, w->loop, seed), 0);
	hyper_sim_config_init(&w->hyper_config);
	w->hyper_config.seed = seed;
	w->hyper_config.memory_kib = memory_mib << 10;
	w->hyper_config.step_us = 5000;
	assert_int_equal(hyper_sim_machine_new(&w->machine, &w->hyper_config), 0);
	w->host = world_uuid(w);
	w->sr = world_uuid(w);
	w->network = world_uuid(w);
	w->pool_uuid = world_uuid(w);
	loop_sim_on_event(w->loop, world_event, w);
	world_start(w);
	world_install(w);
	world_net_up(w);
	world_manage(w);
	return w;
}

static inline struct world *world_new_with(uint64_t seed, uint64_t memory_mib)
{
	return world_new_sized(seed, memory_mib, UINT64_C(1) << 40);
}

static inline struct world *world_new(uint64_t seed)
{
	return world_new_with(seed, 16384);
}

static inline void world_free(struct world *w)
{
	world_kill(w);
	loop_sim_on_event(w->loop, NULL, NULL);
	hyper_sim_machine_free(w->machine);
	storage_sim_world_free(w->bytes);
	disk_sim_medium_free(w->medium);
	loop_free(w->loop);
	free(w);
}

/* --- operations --- */

static inline void world_accepted(void *arg, int rc, const struct rv_error *e)
{
	struct world *w = arg;

	w->accepted = true;
	w->accepted_rc = rc;
	if (e)
		w->accepted_error = *e;
}

static inline bool world_was_accepted(struct world *w)
{
	return w->accepted;
}

/* The task's status, or -1. */
static inline int world_task(struct world *w, struct uuid task)
{
	const struct row *row = db_row(pool_db(w->pool), CLASS_TASK, task);

	return row ? db_enum(row, TASK_STATUS) : -1;
}

static inline const char *world_why(struct world *w, struct uuid task)
{
	const struct row *row = db_row(pool_db(w->pool), CLASS_TASK, task);

	return row ? db_string(row, TASK_ERROR_DETAIL) : "no such task";
}

/* Starts it; *task is its task. Returns the refusal, or 0 once the intent is committed.
 */
static inline int world_begin_args(struct world *w, enum vm_operation kind,
	const struct vm_op_args *args, struct uuid *task)
{
	struct rv_error e;
	int rc;

	*task = world_uuid(w);
	w->accepted = false;
	w->accepted_rc = 0;
	rc = vm_op_start(w->mgr, kind, args, *task, world_accepted, w, &e);
	if (rc) {
		w->accepted_error = e;
		return rc;
	}
	world_run(w, world_was_accepted, 60000);
	return w->accepted_rc;
}

static inline int world_begin(
	struct world *w, enum vm_operation kind, size_t i, struct uuid *task)
{
	struct vm_op_args args = {.vm = w->vm[i]};

	return world_begin_args(w, kind, &args, task);
}

static inline bool world_idle(struct world *w)
{
	return vm_op_count(w->mgr) == 0;
}

/* Runs until nothing is at work; returns the task's status. */
static inline int world_end(struct world *w, struct uuid task)
{
	if (!world_run(w, world_idle, 3600 * 1000) && !w->died)
		fail_msg("seed %llu: operations don't end", (unsigned long long)w->seed);
	return world_task(w, task);
}

static inline int world_do(struct world *w, enum vm_operation kind, size_t i)
{
	struct uuid task;
	int rc = world_begin(w, kind, i, &task);

	if (rc)
		return rc;
	return world_end(w, task);
}

static inline void world_must(struct world *w, enum vm_operation kind, size_t i)
{
	struct uuid task;
	int rc = world_begin(w, kind, i, &task);

	if (rc)
		fail_msg("seed %llu: %s: %s", (unsigned long long)w->seed,
			vm_operation_name(kind), w->accepted_error.detail);
	if (world_end(w, task) != TASK_STATUS_SUCCESS)
		fail_msg("seed %llu: %s: %s", (unsigned long long)w->seed,
			vm_operation_name(kind), world_why(w, task));
}

/* --- what is there --- */

static inline bool world_guest(struct world *w, size_t i, struct hyper_sim_view *v)
{
	return hyper_sim_look(w->hyper, &w->vm[i], v) == 0;
}

struct world_domains {
	bool done;
	size_t count;
	struct hyper_domain list[WORLD_MAX_VMS];
};

static inline void world_listed(void *arg, struct hyper_req *req)
{
	struct world_domains *d = arg;

	d->done = true;
	d->count = req->domain_count < WORLD_MAX_VMS ? req->domain_count : WORLD_MAX_VMS;
	for (size_t i = 0; i < d->count; i++)
		d->list[i] = req->domains[i];
}

static inline size_t world_domains(struct world *w, struct world_domains *d)
{
	struct hyper_req req = {0};

	d->done = false;
	hyper_req_init(&req, world_listed, d);
	hyper_list(w->hyper, &req);
	while (!d->done && loop_sim_step(w->loop))
		;
	return d->count;
}

/* Claims on the disks of a VM. */
static inline size_t world_claims(struct world *w, size_t i)
{
	size_t n = 0;

	for (const struct row *r = NULL;
		(r = db_next_ref(pool_db(w->pool), VBD_VM, w->vm[i], r));) {
		struct storage_sim_claims c =
			storage_sim_vdi_claims(w->bytes, db_ref(r, VBD_VDI));

		n += c.writers + c.readers;
	}
	return n;
}

/* Nothing is left of it anywhere. */
static inline void world_assert_clean(struct world *w, size_t i)
{
	struct world_domains d;
	const struct row *vm = world_row(w, i);

	world_domains(w, &d);
	for (size_t n = 0; n < d.count; n++)
		if (uuid_eq(&d.list[n].vm, &w->vm[i]))
			fail_msg("seed %llu: domain %u is left",
				(unsigned long long)w->seed, d.list[n].id.domid);
	assert_int_equal(world_claims(w, i), 0);
	assert_int_equal(db_int(vm, VM_DOMID), -1);
	assert_int_equal(db_enum(vm, VM_INTENT), VM_INTENT_NONE);
	assert_int_equal(value_count(row_value(vm, VM_CURRENT_OPERATIONS)), 0);
	assert_int_equal(
		memctl_reservation_count(vm_memory_controller(w->mgr->hosts[0]->memory)),
		0);
}

static inline void world_assert_runs(struct world *w, size_t i)
{
	struct world_domains d;
	size_t n, mine = 0;

	world_domains(w, &d);
	for (n = 0; n < d.count; n++)
		if (uuid_eq(&d.list[n].vm, &w->vm[i])) {
			mine++;
			assert_int_equal(d.list[n].state, HYPER_RUNNING);
			assert_int_equal(
				db_int(world_row(w, i), VM_DOMID), d.list[n].id.domid);
		}
	assert_int_equal(mine, 1);
	assert_int_equal(world_state(w, i), VM_POWER_STATE_RUNNING);
}

static inline unsigned world_messages(struct world *w, const char *name)
{
	unsigned n = 0;

	for (const struct row *r = NULL;
		(r = db_next(pool_db(w->pool), CLASS_MESSAGE, r));)
		n += strcmp(db_string(r, MESSAGE_NAME), name) == 0;
	return n;
}

#endif
