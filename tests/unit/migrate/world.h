/*
 * Two hosts in one process: each with a machine and a daemon's part that can die apart
 * from it, a shared SR, one pool whose disk and master outlive both daemons (as a third
 * host would). A migration's connection is a simulated pair.
 *
 * After every event: the VM runs on at most one machine, that machine's host is the owner
 * by the database, with the generation and handle recorded there, holding its disks for
 * writing, and not a page of it is wrong.
 */
#ifndef REEVE_TESTS_MIGRATE_WORLD_H
#define REEVE_TESTS_MIGRATE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "migrate/journal.h"
#include "migrate/migrate.h"
#include "net/sim.h"
#include "pool/disk.h"
#include "storage/sim.h"
#include "vm/vm_invariants.h"
#include "vm/vm_op.h"
#include "xen/sim.h"
#include "xen/sim_machine.h"

enum { WORLD_HOSTS = 2, WORLD_DISKS = 2, WORLD_SLOTS = 8, WORLD_MIB = 1 << 20 };
enum { WORLD_GRAVES = 32 };

struct world;

struct world_host {
	struct world *w;
	struct uuid uuid;
	struct hyper_sim_machine *machine;
	struct hyper_sim_config config;
	struct hyper *hyper;
	struct storage *storage;
	struct net *net;
	struct vm_manager *mgr;
	struct migrate *migrate;
	bool alive, ready;
	bool doomed;	 /* dies as soon as the event is over */
	bool power;	 /* and its machine with it */
	int64_t back_us; /* when it starts again */
};

/* What dead daemons had: entries of theirs may still be on their way. */
struct world_grave {
	struct vm_manager *mgr;
	struct migrate *migrate;
};

struct world {
	struct loop *loop;
	uint64_t seed;
	struct prng prng;
	struct disk_sim_medium *medium;
	struct disk *disk;
	struct pool *pool;
	struct storage_sim_world *bytes;
	struct world_host hosts[WORLD_HOSTS];
	struct world_grave graves[WORLD_GRAVES];
	size_t grave_count;
	struct stream_sim_link *link;
	bool cut; /* connections are, too, that come later */
	bool opened;
	struct uuid pool_uuid, sr, network, vm, vdi[WORLD_DISKS];
	struct uuid task;
	uint64_t ran_us; /* of the guest, when the migration began */
	int accepted_rc;
	bool accepted;
	struct rv_error error;
	bool may_die; /* the guest has an excuse */
	int moved;    /* times the owner changed */
	/* The guest's own time: old memory that is resumed turns it back. */
	uint64_t lives, most_ran_us;
	uint64_t generation;
	char broken[512]; /* an invariant */
	bool quiet;	  /* broken is looked at by the test, not failed at once */

	/* Called at each named point of an operation; true: the daemon dies here. */
	bool (*point)(struct world *w, struct world_host *h, const char *point);
	const char *seen[64];
	size_t seen_count;
	int64_t max_downtime_ms;
	bool live, accept;
	uint64_t bandwidth;
	int (*check)(void *arg, const struct migrate_prepare *p, struct rv_error *e);
};

/* --- invariants --- */

static inline void world_break(struct world *w, const char *fmt, ...) RV_PRINTF(2, 3);
static inline void world_break(struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (w->broken[0])
		return;
	va_start(ap, fmt);
	vsnprintf(w->broken, sizeof w->broken, fmt, ap);
	va_end(ap);
	if (!w->quiet)
		fail_msg("seed %llu at %lld us: %s", (unsigned long long)w->seed,
			(long long)loop_now_us(w->loop), w->broken);
}

static inline const struct row *world_vm(struct world *w)
{
	return db_row(pool_db(w->pool), CLASS_VM, w->vm);
}

static inline void world_check_running(
	struct world *w, size_t host, const struct sim_record *r)
{
	const struct row *vm = world_vm(w);
	struct uuid on = db_ref(vm, VM_RESIDENT_ON),
		    handle = db_ref(vm, VM_DOMAIN_HANDLE);
	uint64_t ran_us;

	if (!uuid_eq(&on, &w->hosts[host].uuid) || !uuid_eq(&handle, &r->handle) ||
		(uint64_t)db_int(vm, VM_OWNER_GENERATION) != r->generation)
		world_break(w,
			"host %zu runs generation %llu, the owner is %lld elsewhere",
			host, (unsigned long long)r->generation,
			(long long)db_int(vm, VM_OWNER_GENERATION));
	ran_us = r->ran_us + (uint64_t)(loop_now_us(w->loop) - r->since_us);
	/* Without a driver nobody notes that a guest has done as it was asked. */
	if (!w->hosts[host].alive)
		ran_us = w->most_ran_us;
	if (r->content_seed == w->lives && ran_us < w->most_ran_us)
		world_break(w, "old memory goes on: %llu us of the guest's time are lost",
			(unsigned long long)(w->most_ran_us - ran_us));
	w->lives = r->content_seed;
	w->most_ran_us = ran_us;
	if (r->damaged_pages)
		world_break(
			w, "%llu pages are wrong", (unsigned long long)r->damaged_pages);
	for (int i = 0; i < WORLD_DISKS; i++) {
		struct storage_sim_claims c = storage_sim_vdi_claims(w->bytes, w->vdi[i]);

		if (c.writers != 1 || !uuid_eq(&c.writer_host, &w->hosts[host].uuid))
			world_break(w, "host %zu runs it without holding disk %d (%u)",
				host, i, c.writers);
	}
}

static inline void world_check(struct world *w)
{
	struct rv_error e;
	size_t running = 0;

	if (!w->opened || uuid_is_none(&w->vm) || !world_vm(w))
		return;
	for (size_t h = 0; h < WORLD_HOSTS; h++) {
		for (uint32_t slot = 0; slot < WORLD_SLOTS; slot++) {
			struct sim_record r;

			if (!sim_machine_load(w->hosts[h].machine, slot, &r) ||
				!r.in_use || r.state != HYPER_RUNNING)
				continue;
			running++;
			world_check_running(w, h, &r);
		}
		if (w->hosts[h].alive && hyper_sim_check(w->hosts[h].hyper, &e))
			world_break(w, "%s", e.detail);
		if (w->hosts[h].alive && w->hosts[h].ready) {
			struct vm_observed seen = {.host = w->hosts[h].uuid,
				.seq = UINT64_MAX,
				.memory = vm_memory_controller(
					w->hosts[h].mgr->hosts[0]->memory)};

			if (vm_invariants_check(pool_db(w->pool), &seen, 1, &e))
				world_break(w, "%s", e.detail);
		}
	}
	if (running > 1)
		world_break(w, "it runs twice");
	if ((uint64_t)db_int(world_vm(w), VM_OWNER_GENERATION) != w->generation) {
		w->generation = (uint64_t)db_int(world_vm(w), VM_OWNER_GENERATION);
		w->moved++;
	}
}

static inline void world_event(void *arg)
{
	world_check(arg);
}

/* --- daemons --- */

static inline bool world_point(void *arg, const char *point, const struct uuid *vm)
{
	struct world_host *h = arg;
	struct world *w = h->w;
	size_t i;

	(void)vm;
	for (i = 0; i < w->seen_count && strcmp(w->seen[i], point); i++)
		;
	if (i == w->seen_count && i < 64)
		w->seen[w->seen_count++] = point;
	if (h->doomed)
		return true;
	return w->point && w->point(w, h, point);
}

static inline size_t world_eat(void *arg, const uint8_t *data, size_t len)
{
	(void)arg;
	(void)data;
	return len;
}

static inline void world_closed(void *arg, int rc, const char *detail)
{
	(void)arg;
	(void)rc;
	(void)detail;
}

static inline int world_dial(void *arg, const struct uuid *host,
	struct stream_config *config, struct stream **out, struct rv_error *e)
{
	static const struct stream_events nobody = {
		.data = world_eat, .closed = world_closed};
	struct stream_config other = {.events = &nobody, .name = "test"};
	struct world *w = ((struct world_host *)arg)->w;
	struct world_host *h =
		uuid_eq(host, &w->hosts[0].uuid) ? &w->hosts[0] : &w->hosts[1];
	struct stream *end;

	if (!h->alive || !h->migrate)
		return rv_error_set(e, RV_ECLOSED, "connection refused");
	if (w->link)
		stream_sim_link_free(w->link);
	assert_int_equal(
		stream_sim_pair(w->loop, config, &other, out, &end, &w->link), 0);
	stream_sim_set(w->link, 50, 400, 400 << 20);
	migrate_accept(h->migrate, end);
	if (w->cut)
		stream_sim_cut(w->link, true, true);
	return 0;
}

static inline void world_ready(void *arg)
{
	struct world_host *h = arg;

	h->ready = true;
	migrate_begin(h->migrate);
}

static inline void world_storage_done(
	void *arg, uint64_t token, const struct storage_result *result)
{
	(void)token;
	*(int *)arg = result->rc ? result->rc : 1;
}

static inline void world_storage(struct world_host *h, struct storage_call *call)
{
	struct storage_config config = {"location", "shared"};
	struct rv_error e;
	int done = 0;

	call->type = "nfs";
	call->config = &config;
	call->config_count = 1;
	call->done = world_storage_done;
	call->arg = &done;
	call->sr = h->w->sr;
	if (storage_start(h->storage, call, NULL, &e))
		fail_msg("storage: %s", e.detail);
	while (!done && loop_sim_step(h->w->loop))
		;
	assert_int_equal(done, 1);
}

static inline void world_start(struct world_host *h)
{
	struct world *w = h->w;
	struct net_sim_config net = {.seed = w->seed, .devices = 2};
	struct storage_call attach = {.verb = STORAGE_SR_ATTACH};
	struct vm_manager_config config = {.loop = w->loop,
		.pool = w->pool,
		.self = h->uuid,
		.answer_ms = 5000,
		.point = world_point,
		.point_arg = h};
	struct migrate_config migrate = {.loop = w->loop,
		.pool = w->pool,
		.self = h->uuid,
		.dial = world_dial,
		.check = w->check,
		.arg = h};
	struct vm_host_config host = {.uuid = h->uuid};
	struct rv_error e;

	h->back_us = 0;
	h->config.machine = h->machine;
	if (hyper_sim_new(&h->hyper, w->loop, &h->config, &e))
		fail_msg("hyper: %s", e.detail);
	assert_int_equal(storage_new(&h->storage, w->loop, h->uuid), 0);
	assert_int_equal(storage_sim_add(h->storage, w->bytes, "nfs",
				 STORAGE_CAN_SHARE | STORAGE_CAN_READ_WRITE),
		0);
	assert_int_equal(net_sim_new(&h->net, w->loop, &net), 0);
	if (db_count(pool_db(w->pool), CLASS_SR) > 0)
		world_storage(h, &attach);
	host.hyper = h->hyper;
	host.storage = h->storage;
	host.net = h->net;
	assert_int_equal(vm_manager_new(&h->mgr, &config, &e), 0);
	assert_int_equal(vm_manager_add_host(h->mgr, &host, &e), 0);
	migrate.vms = h->mgr;
	assert_int_equal(migrate_new(&h->migrate, &migrate, &e), 0);
	h->alive = true;
	h->ready = false;
	vm_manager_start(h->mgr, world_ready, h);
}

/* kill -9, or the whole machine's end. */
static inline void world_kill(struct world_host *h, bool power)
{
	struct world *w = h->w;

	/* A machine that is gone says no farewell. */
	if (power && w->link)
		stream_sim_cut(w->link, true, true);
	h->alive = h->ready = h->doomed = h->power = false;
	migrate_stop(h->migrate);
	vm_manager_stop(h->mgr);
	hyper_free(h->hyper);
	storage_free(h->storage);
	net_free(h->net);
	h->hyper = NULL;
	assert_true(w->grave_count < WORLD_GRAVES);
	w->graves[w->grave_count++] = (struct world_grave){h->mgr, h->migrate};
	h->mgr = NULL;
	h->migrate = NULL;
	if (power)
		hyper_sim_machine_reboot(h->machine);
}

/* --- running --- */

/* One event, and what is due between events. False: nothing more happens. */
static inline bool world_step(struct world *w)
{
	for (int i = 0; i < WORLD_HOSTS; i++) {
		struct world_host *h = &w->hosts[i];

		if (h->doomed && h->alive)
			world_kill(h, h->power);
		if (!h->alive && h->back_us && loop_now_us(w->loop) >= h->back_us)
			world_start(h);
	}
	return loop_sim_step(w->loop);
}

static inline void world_run_ms(struct world *w, int64_t ms)
{
	int64_t until = loop_now_us(w->loop) + ms * 1000;

	while (loop_now_us(w->loop) < until && world_step(w))
		;
}

static inline bool world_idle(struct world *w)
{
	const struct row *vm = world_vm(w);

	for (int i = 0; i < WORLD_HOSTS; i++)
		if (!w->hosts[i].alive || !w->hosts[i].ready ||
			vm_op_count(w->hosts[i].mgr) > 0)
			return false;
	return vm && db_enum(vm, VM_INTENT) == VM_INTENT_NONE &&
	       value_count(row_value(vm, VM_CURRENT_OPERATIONS)) == 0;
}

/* Until nothing has been at work for a while. */
static inline bool world_settle(struct world *w, int64_t ms)
{
	int64_t until = loop_now_us(w->loop) + ms * 1000;
	int64_t since = loop_now_us(w->loop);

	while (loop_now_us(w->loop) < until) {
		if (!world_step(w))
			return false;
		if (w->broken[0])
			return false;
		if (!world_idle(w))
			since = loop_now_us(w->loop);
		else if (loop_now_us(w->loop) - since > 25 * 1000000)
			return true;
	}
	return false;
}

/* --- the database --- */

struct world_commit {
	struct pool_commit commit;
	bool done;
};

static inline void world_committed(struct pool_commit *c)
{
	if (c->rc)
		fail_msg("commit: %s", c->error.detail);
	CONTAINER_OF(c, struct world_commit, commit)->done = true;
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

static inline void world_opened(void *arg, int rc, const struct rv_error *e)
{
	if (rc)
		fail_msg("pool: %s", e->detail);
	((struct world *)arg)->opened = true;
}

static inline void world_changed(void *arg)
{
	(void)arg;
}

static inline void world_open_pool(struct world *w)
{
	static const struct pool_events events = {.opened = world_opened,
		.changed = world_changed,
		.closed = world_changed};
	struct pool_config config = {
		.log = {.id = 1,
			.address = "one",
			.bootstrap_count = 1,
			.bootstrap = {{.id = 1, .address = "one", .voter = true}},
			.segment_bytes = 1 << 18}};
	struct rv_error e;

	assert_int_equal(disk_new_sim(&w->disk, w->loop, w->medium), 0);
	assert_int_equal(
		pool_open(&w->pool, w->loop, w->disk, &config, &events, w, &e), 0);
	while ((!w->opened || !pool_is_master(w->pool)) && loop_sim_step(w->loop))
		;
}

static inline void world_rows(struct world *w, enum vm_domain_type type)
{
	struct uuid metrics = world_uuid(w), vif = world_uuid(w);
	char text[32], mac[NET_MAC_SIZE];
	struct txn t;

	txn_init(&t, pool_db(w->pool), loop_wall_ms(w->loop));
	txn_create(&t, CLASS_POOL, w->pool_uuid);
	for (int i = 0; i < WORLD_HOSTS; i++) {
		snprintf(text, sizeof text, "host%d", i + 1);
		txn_create(&t, CLASS_HOST, w->hosts[i].uuid);
		txn_set_string(&t, w->hosts[i].uuid, HOST_NAME_LABEL, text);
		txn_set_int(&t, w->hosts[i].uuid, HOST_CPU_COUNT, 512);
	}
	txn_set_ref(&t, w->pool_uuid, POOL_MASTER, w->hosts[0].uuid);
	txn_create(&t, CLASS_SR, w->sr);
	txn_set_string(&t, w->sr, SR_NAME_LABEL, "sr1");
	for (int i = 0; i < WORLD_HOSTS; i++) {
		struct uuid pbd = world_uuid(w);

		txn_create(&t, CLASS_PBD, pbd);
		txn_set_ref(&t, pbd, PBD_HOST, w->hosts[i].uuid);
		txn_set_ref(&t, pbd, PBD_SR, w->sr);
		txn_set_bool(&t, pbd, PBD_CURRENTLY_ATTACHED, true);
	}
	txn_create(&t, CLASS_NETWORK, w->network);
	txn_set_string(&t, w->network, NETWORK_NAME_LABEL, "net1");
	txn_create(&t, CLASS_VM_METRICS, metrics);
	txn_create(&t, CLASS_VM, w->vm);
	txn_set_string(&t, w->vm, VM_NAME_LABEL, "web1");
	txn_set_ref(&t, w->vm, VM_METRICS, metrics);
	txn_set_enum(&t, w->vm, VM_DOMAIN_TYPE, (int)type);
	txn_set_int(&t, w->vm, VM_MEMORY_STATIC_MAX, 64 * WORLD_MIB);
	txn_set_int(&t, w->vm, VM_MEMORY_DYNAMIC_MAX, 64 * WORLD_MIB);
	txn_set_int(&t, w->vm, VM_MEMORY_DYNAMIC_MIN, 64 * WORLD_MIB);
	for (int i = 0; i < WORLD_DISKS; i++) {
		struct uuid vbd = world_uuid(w);

		snprintf(text, sizeof text, "%d", i);
		txn_create(&t, CLASS_VDI, w->vdi[i]);
		txn_set_ref(&t, w->vdi[i], VDI_SR, w->sr);
		txn_set_int(&t, w->vdi[i], VDI_VIRTUAL_SIZE, 8 << 20);
		txn_create(&t, CLASS_VBD, vbd);
		txn_set_ref(&t, vbd, VBD_VM, w->vm);
		txn_set_ref(&t, vbd, VBD_VDI, w->vdi[i]);
		txn_set_string(&t, vbd, VBD_USERDEVICE, text);
	}
	txn_create(&t, CLASS_VIF, vif);
	txn_set_ref(&t, vif, VIF_VM, w->vm);
	txn_set_ref(&t, vif, VIF_NETWORK, w->network);
	txn_set_string(&t, vif, VIF_DEVICE, "0");
	txn_set_string(&t, vif, VIF_MAC, net_mac_random(loop_prng(w->loop), mac));
	world_commit(w, &t);
}

static inline void world_accepted(void *arg, int rc, const struct rv_error *e)
{
	struct world *w = arg;

	w->accepted = true;
	w->accepted_rc = rc;
	if (e)
		w->error = *e;
}

static inline void world_boot(struct world *w)
{
	struct vm_op_args args = {.vm = w->vm, .on = w->hosts[0].uuid};
	struct uuid task = world_uuid(w);
	struct rv_error e;

	if (vm_op_start(w->hosts[0].mgr, VM_OP_START_ON, &args, task, NULL, NULL, &e))
		fail_msg("start: %s", e.detail);
	while (vm_op_count(w->hosts[0].mgr) > 0 && loop_sim_step(w->loop))
		;
	if (db_enum(world_vm(w), VM_POWER_STATE) != VM_POWER_STATE_RUNNING)
		fail_msg(
			"start: %s", db_string(db_row(pool_db(w->pool), CLASS_TASK, task),
					     TASK_ERROR_DETAIL));
	world_run_ms(w, 2000);
}

/* Two hosts; a guest on the first that writes `dirty` pages a second into 8 MiB. */
static inline struct world *world_new(
	uint64_t seed, uint64_t dirty, enum vm_domain_type type)
{
	struct world *w = calloc(1, sizeof *w);
	struct storage_call create = {.verb = STORAGE_SR_CREATE};

	assert_non_null(w);
	log_setup(LOG_ERROR + 1, NULL, NULL);
	w->seed = seed;
	w->live = true;
	prng_seed(&w->prng, seed * 7919 + 1);
	assert_int_equal(loop_new_sim(&w->loop, seed), 0);
	assert_int_equal(disk_sim_medium_new(&w->medium, seed), 0);
	assert_int_equal(storage_sim_world_new(&w->bytes, w->loop, seed), 0);
	w->pool_uuid = world_uuid(w);
	w->sr = world_uuid(w);
	w->network = world_uuid(w);
	world_open_pool(w);
	for (int i = 0; i < WORLD_HOSTS; i++) {
		struct world_host *h = &w->hosts[i];

		h->w = w;
		h->uuid = world_uuid(w);
		hyper_sim_config_init(&h->config);
		h->config.seed = seed * 2 + (uint64_t)i;
		h->config.memory_kib = 2 << 20;
		h->config.step_us = 500;
		h->config.stream_kib_per_s = 100 << 10;
		h->config.guest.working_set_kib = 8 << 10;
		h->config.guest.dirty_pages_per_s = dirty;
		assert_int_equal(hyper_sim_machine_new(&h->machine, &h->config), 0);
		world_start(h);
	}
	world_storage(&w->hosts[0], &create);
	for (int i = 0; i < WORLD_HOSTS; i++) {
		struct storage_call attach = {.verb = STORAGE_SR_ATTACH};

		world_storage(&w->hosts[i], &attach);
	}
	for (int i = 0; i < WORLD_DISKS; i++) {
		struct storage_call vdi = {.verb = STORAGE_VDI_CREATE,
			.vdi = w->vdi[i] = world_uuid(w),
			.size = 8 << 20,
			.format = STORAGE_FORMAT_RAW};

		world_storage(&w->hosts[0], &vdi);
	}
	w->vm = world_uuid(w);
	world_rows(w, type);
	while (!(w->hosts[0].ready && w->hosts[1].ready) && loop_sim_step(w->loop))
		;
	loop_sim_on_event(w->loop, world_event, w);
	world_boot(w);
	return w;
}

static inline void world_free(struct world *w)
{
	loop_sim_on_event(w->loop, NULL, NULL);
	w->point = NULL;
	for (int i = 0; i < WORLD_HOSTS; i++)
		if (w->hosts[i].alive)
			world_kill(&w->hosts[i], false);
	stream_sim_link_free(w->link);
	pool_free(w->pool);
	disk_free(w->disk);
	for (size_t i = 0; i < w->grave_count; i++) {
		vm_manager_free(w->graves[i].mgr);
		migrate_free(w->graves[i].migrate);
	}
	for (int i = 0; i < WORLD_HOSTS; i++)
		hyper_sim_machine_free(w->hosts[i].machine);
	storage_sim_world_free(w->bytes);
	disk_sim_medium_free(w->medium);
	loop_free(w->loop);
	free(w);
}

/* --- migrating --- */

/* To host `to` from the other one; 0 once the intent is committed. */
static inline int world_migrate(struct world *w, int to)
{
	struct world_host *from = &w->hosts[1 - to];
	struct migrate_args args = {.host = w->hosts[to].uuid,
		.live = w->live,
		.accept = w->accept,
		.max_downtime_ms = w->max_downtime_ms,
		.bandwidth_bytes_s = (int64_t)w->bandwidth};
	struct hyper_sim_view v;
	int rc;

	if (hyper_sim_look(from->hyper, &w->vm, &v) == 0)
		w->ran_us = v.ran_us;
	w->moved = 0;
	w->task = world_uuid(w);
	w->accepted = false;
	w->accepted_rc = 0;
	rc = migrate_start(
		from->migrate, &w->vm, &args, w->task, world_accepted, w, &w->error);
	if (rc)
		return rc;
	while (!w->accepted && world_step(w))
		;
	return w->accepted_rc;
}

static inline int world_status(struct world *w)
{
	const struct row *task = db_row(pool_db(w->pool), CLASS_TASK, w->task);

	return task ? db_enum(task, TASK_STATUS) : -1;
}

static inline const char *world_why(struct world *w)
{
	const struct row *task = db_row(pool_db(w->pool), CLASS_TASK, w->task);

	return task ? db_string(task, TASK_ERROR_DETAIL) : "no task";
}

static inline const char *world_result(struct world *w)
{
	const struct row *task = db_row(pool_db(w->pool), CLASS_TASK, w->task);

	return task ? db_string(task, TASK_RESULT) : "";
}

/* Where the VM's only domain is and runs; -1: there is none; -2: that is not so. */
static inline int world_where(struct world *w)
{
	int where = -1;

	for (int h = 0; h < WORLD_HOSTS; h++)
		for (uint32_t slot = 0; slot < WORLD_SLOTS; slot++) {
			struct sim_record r;

			if (!sim_machine_load(w->hosts[h].machine, slot, &r) || !r.in_use)
				continue;
			if (where != -1 || r.state != HYPER_RUNNING)
				return -2;
			where = h;
		}
	return where;
}

/* At rest: database, machines and claims agree, nothing is left over, nothing is lost
 * that has no excuse. */
static inline void world_check_end(struct world *w)
{
	const struct row *vm = world_vm(w);
	struct uuid on = db_ref(vm, VM_RESIDENT_ON), migration = db_ref(vm, VM_MIGRATION);
	int where = world_where(w);
	struct hyper_sim_view v;

	if (where == -2)
		world_break(w, "a domain is left over, or does not run");
	if (world_status(w) == TASK_STATUS_PENDING)
		world_break(w, "the task never ended");
	if (!uuid_is_none(&migration) ||
		db_enum(vm, VM_MIGRATION_PHASE) != VM_MIGRATION_PHASE_NONE)
		world_break(w, "the migration's fields are left");
	if (where == -1 && db_enum(vm, VM_POWER_STATE) != VM_POWER_STATE_HALTED)
		world_break(w, "it has no domain and is not halted");
	if (where >= 0 && (!uuid_eq(&on, &w->hosts[where].uuid) ||
				  db_enum(vm, VM_POWER_STATE) != VM_POWER_STATE_RUNNING))
		world_break(w, "it runs on host %d, the database says otherwise", where);
	if (!w->may_die) {
		if (where < 0)
			world_break(w, "the guest is lost");
		else if (hyper_sim_look(w->hosts[where].hyper, &w->vm, &v) ||
			 v.ran_us < w->ran_us)
			world_break(w, "the guest was started anew");
		if (world_status(w) == TASK_STATUS_SUCCESS && where != 1)
			world_break(w, "success is said, but it is not there");
	}
	for (int i = 0; i < WORLD_DISKS; i++) {
		struct storage_sim_claims c = storage_sim_vdi_claims(w->bytes, w->vdi[i]);

		if (c.writers + c.readers != (where >= 0))
			world_break(w, "disk %d has %u claims", i, c.writers + c.readers);
	}
	for (int h = 0; h < WORLD_HOSTS; h++)
		if (memctl_reservation_count(
			    vm_memory_controller(w->hosts[h].mgr->hosts[0]->memory)))
			world_break(w, "host %d holds a reservation", h);
}

#endif
