/* A host: what outlives its daemons, and the lives of those. */
#include <stdlib.h>
#include <string.h>

#include "ring.h"
#include "vm/vm_memory.h"

enum { TICK_MS = 200, DOM0_KIB = 128 << 10 };

static void host_go(struct ring_host *h);

static void host_opened(void *arg, int rc, const struct rv_error *e)
{
	struct ring_host *h = arg;

	if (rc == RV_ECORRUPT)
		ring_fail(h->ring, "host%d: its log is refused: %s", h->index + 1,
			e->detail);
	ring_note(h->ring, "host%d: pool opened %s", h->index + 1, rc ? e->detail : "");
	if (rc) {
		h->death_due = true;
		h->death = RING_KILL;
	} else {
		h->life = RING_JOINING;
		leases_start(&h->leases, h->pool, &h->uuid);
	}
}

static void host_changed(void *arg)
{
	struct ring_host *h = arg;

	leases_look(&h->leases);
	ring_voters_look(h);
}

static void host_closed(void *arg)
{
	(void)arg;
}

static void host_ready(void *arg)
{
	struct ring_host *h = arg;

	if (h->life != RING_RECONCILING)
		return;
	h->life = RING_UP;
	ring_note(h->ring, "host%d is up", h->index + 1);
	migrate_begin(h->migrate);
}

static void host_storage_done(
	void *arg, uint64_t token, const struct storage_result *result)
{
	struct ring_host *h = arg;

	(void)token;
	if (h->life == RING_ATTACHING)
		h->life = result->rc ? RING_JOINING : RING_NETTING;
	if (h->life == RING_NETTING)
		host_go(h);
}

static void host_attach(struct ring_host *h)
{
	struct storage_config config = {"location", "shared"};
	struct storage_call call = {.verb = STORAGE_SR_ATTACH,
		.sr = h->ring->sr,
		.type = "nfs",
		.config = &config,
		.config_count = 1,
		.done = host_storage_done,
		.arg = h};
	struct rv_error e;

	h->life = RING_ATTACHING;
	if (storage_start(h->storage, &call, NULL, &e))
		h->life = RING_JOINING;
}

static void host_manage(struct ring_host *h)
{
	struct vm_manager_config config = {.loop = h->ring->loop,
		.pool = h->pool,
		.self = h->uuid,
		.answer_ms = 5000,
		.may_run = ring_lease_may_run,
		.may_run_arg = h,
		.point = ring_aim_point,
		.point_arg = h};
	struct vm_host_config host = {
		.uuid = h->uuid, .hyper = h->hyper, .storage = h->storage, .net = h->net};
	struct migrate_config migrate = {.loop = h->ring->loop,
		.pool = h->pool,
		.self = h->uuid,
		.dial = ring_link_dial,
		.arg = h};
	struct rv_error e;

	h->life = RING_RECONCILING;
	if (vm_manager_new(&h->mgr, &config, &e) ||
		vm_manager_add_host(h->mgr, &host, &e))
		ring_fail(h->ring, "VM manager: %s", e.detail);
	migrate.vms = h->mgr;
	if (migrate_new(&h->migrate, &migrate, &e))
		ring_fail(h->ring, "migrate: %s", e.detail);
	vm_manager_start(h->mgr, host_ready, h);
}

static void host_net_done(void *arg, uint64_t token, const struct net_result *result)
{
	struct ring_host *h = arg;

	(void)token;
	if (h->life == RING_NETTING && !h->mgr && !result->rc)
		host_manage(h);
	else if (h->life == RING_NETTING)
		h->life = RING_JOINING;
}

static void host_go(struct ring_host *h)
{
	struct net_call call = {.verb = NET_UP,
		.network = h->ring->network,
		.bridge = "xenbr0",
		.vlan = NET_VLAN_NONE,
		.done = host_net_done,
		.arg = h};
	struct rv_error e;

	if (net_start(h->net, &call, NULL, &e))
		h->life = RING_JOINING;
}

static void host_live(
	struct ring_host *h, struct uuid of, enum schema_field_id field, struct value v)
{
	struct rv_error e;

	if (pool_set_live(h->pool, of, field, &v, &e))
		return; /* a row that is gone */
}

/* What daemon/metrics tells the others once a second. */
static void host_metrics(struct ring_host *h)
{
	struct vm_memory *memory = vm_host_memory(h->mgr, &h->uuid);
	struct memctl_totals t;

	if (!memory || !vm_memory_ready(memory) ||
		!db_row(pool_db(h->pool), CLASS_HOST, h->uuid))
		return;
	t = vm_memory_totals(memory);
	host_live(h, h->uuid, HOST_MEMORY_TOTAL,
		value_int((int64_t)h->config.memory_kib * 1024));
	host_live(h, h->uuid, HOST_MEMORY_FREE, value_int((int64_t)t.free_kib * 1024));
	host_live(h, h->uuid, HOST_MEMORY_PROMISED,
		value_int((int64_t)(t.reserved_kib + t.growable_kib) * 1024));
	host_live(h, h->uuid, HOST_MEMORY_SQUEEZABLE,
		value_int((int64_t)t.squeezable_kib * 1024));
	host_live(h, h->uuid, HOST_LIVE, value_bool(true));
}

/* As daemon/members: the master says who is linked to it. */
static void host_peers(struct ring_host *h)
{
	if (!pool_is_master(h->pool))
		return;
	for (int i = 0; i < h->ring->count; i++)
		if (i != h->index &&
			db_row(pool_db(h->pool), CLASS_HOST, h->ring->hosts[i].uuid))
			host_live(h, h->ring->hosts[i].uuid, HOST_LIVE,
				value_bool(h->ring->ways[h->index][i].up));
}

static void host_current(struct pool_barrier *b, int rc)
{
	struct ring_host *h = CONTAINER_OF(b, struct ring_host, barrier);

	h->asking = false;
	if (rc == 0 && h->life == RING_JOINING)
		host_attach(h);
}

/* As the daemon, which records itself first: what it knows then is not old. */
static void host_join(struct ring_host *h)
{
	if (h->asking || !db_row(pool_db(h->pool), CLASS_HOST, h->uuid) ||
		!(pool_is_master(h->pool) || pool_can_commit(h->pool)))
		return;
	h->asking = pool_read_barrier(h->pool, &h->barrier, host_current) == 0;
}

/* Waits for what no callback tells. */
static void host_tick(void *arg)
{
	struct ring_host *h = arg;

	timer_start_ms(&h->tick, TICK_MS);
	if (h->dead_at_point || h->death_due)
		return;
	if (h->life == RING_JOINING)
		host_join(h);
	if (h->life == RING_UP) {
		host_metrics(h);
		host_peers(h);
	}
}

static void host_pool(struct ring_host *h)
{
	static const struct pool_events events = {host_opened, host_changed, host_closed};
	struct pool_config config = {.messenger = &h->messenger,
		.self = h->uuid,
		.hash_entries = 32,
		.log = {.id = h->index == 0,
			.adopt = true,
			.segment_bytes = 256 << 10,
			.snapshot_entries = 150,
			.snapshot_bytes = 1 << 20,
			.trailing_entries = 16,
			.chunk_bytes = 8 << 10,
			.reserve_bytes = 64 << 10}};
	struct rv_error e;

	uuid_format(&h->uuid, config.log.address);
	if (h->index == 0) {
		config.log.bootstrap_count = 1;
		config.log.bootstrap[0].id = 1;
		config.log.bootstrap[0].voter = true;
		uuid_format(&h->uuid, config.log.bootstrap[0].address);
	}
	if (disk_new_sim(&h->disk, h->ring->loop, h->medium))
		abort();
	if (pool_open(&h->pool, h->ring->loop, h->disk, &config, &events, h, &e))
		ring_fail(h->ring, "pool_open: %s", e.detail);
	ring_model_follow(h);
}

int ring_host_who(const struct ring_host *h)
{
	return h->index + 1;
}

/* What the daemon asks of its hypervisor is watched. */
static void host_watch(struct ring_host *h)
{
	h->hyper_ops = *h->hyper->ops;
	h->hyper_submit = h->hyper_ops.submit;
	h->hyper_ops.submit = ring_lease_submit;
	h->hyper->ops = &h->hyper_ops;
}

void ring_host_boot(struct ring_host *h)
{
	struct net_sim_config net = {.seed = prng_next(&h->prng), .devices = 2};
	struct ring *r = h->ring;
	int before = loop_sim_as(r->loop, ring_host_who(h));
	struct rv_error e;

	ring_note(r, "host%d boots", h->index + 1);
	h->found = false;
	h->checked_seq = 0;
	h->installs = 0;
	r->totals->lives++;
	h->life = RING_OPENING;
	h->death_due = h->dead_at_point = h->asking = false;
	h->led = false;
	ring_lease_boot(h);
	host_pool(h);
	h->config.machine = h->machine;
	if (hyper_sim_new(&h->hyper, r->loop, &h->config, &e))
		ring_fail(r, "hypervisor: %s", e.detail);
	host_watch(h);
	if (storage_new(&h->storage, r->loop, h->uuid) ||
		storage_sim_add(h->storage, r->bytes, "nfs",
			STORAGE_CAN_SHARE | STORAGE_CAN_READ_WRITE | STORAGE_CAN_COPY |
				STORAGE_CAN_RESIZE) ||
		net_sim_new(&h->net, r->loop, &net))
		abort();
	timer_start_ms(&h->tick, TICK_MS);
	ring_fence_boot(h);
	ring_restart_boot(h);
	loop_sim_as(r->loop, before);
}

static void host_restart(void *arg)
{
	ring_host_boot(arg);
}

bool ring_host_up(const struct ring_host *h)
{
	return h->life == RING_UP && !h->death_due && !h->dead_at_point &&
	       !ring_host_frozen(h) && vm_manager_ready(h->mgr);
}

/* --- stopped, and without power --- */

bool ring_host_frozen(const struct ring_host *h)
{
	return loop_now_us(h->ring->loop) < h->frozen_us;
}

static void host_wakes(void *arg)
{
	struct ring_host *h = arg;
	bool asleep = h->asleep;

	ring_note(h->ring, "host%d goes on", h->index + 1);
	h->asleep = false;
	if (asleep)
		ring_fence_sleep(h, false);
	/* What it asked before it was stopped was answered before. */
	if (h->hyper && !h->death_due) {
		int before = loop_sim_as(h->ring->loop, ring_host_who(h));

		hyper_sim_fence_tell(h->hyper);
		loop_sim_as(h->ring->loop, before);
	}
}

void ring_host_freeze(struct ring_host *h, int64_t ms, bool asleep)
{
	struct ring *r = h->ring;

	ring_note(r, "host%d fault: %s for %d ms", h->index + 1,
		asleep ? "it sleeps" : "reeved is stopped", (int)ms);
	h->frozen_us = loop_now_us(r->loop) + ms * 1000;
	h->asleep = asleep;
	timer_start_ms(&h->wake, ms);
	loop_sim_freeze(r->loop, ring_host_who(h), h->frozen_us);
	if (asleep)
		ring_fence_sleep(h, true);
	for (int i = 0; i < r->count; i++)
		if (i != h->index)
			ring_link_cut(r, h->index, i, ms);
}

static void host_thaw(struct ring_host *h)
{
	h->frozen_us = 0;
	loop_sim_freeze(h->ring->loop, ring_host_who(h), 0);
}

void ring_host_power(struct ring_host *h)
{
	if (h->life != RING_DOWN) {
		h->death_due = true;
		h->death = RING_POWER;
		return;
	}
	disk_sim_crash(h->medium);
	hyper_sim_machine_reboot(h->machine);
	h->last_count = 0;
	ring_fence_power(h);
}

void ring_host_last_fenced(struct ring_host *h, const struct uuid *handle, bool gone)
{
	for (size_t i = 0; i < h->last_count; i++) {
		if (!uuid_eq(&h->last[i].id.handle, handle))
			continue;
		if (h->last[i].state == HYPER_RUNNING)
			h->last[i].state = HYPER_PAUSED;
		if (gone)
			h->last[i] = h->last[--h->last_count];
		return;
	}
}

struct ring_host *ring_host_of(struct ring *r, const struct uuid *uuid)
{
	for (int i = 0; i < r->count; i++)
		if (uuid_eq(&r->hosts[i].uuid, uuid))
			return &r->hosts[i];
	return NULL;
}

struct ring_host *ring_host_master(struct ring *r)
{
	struct ring_host *master = NULL;
	struct rlog_status s;
	uint64_t term = 0;

	for (int i = 0; i < r->count; i++) {
		struct ring_host *h = &r->hosts[i];

		if (!h->pool || h->dead_at_point || ring_host_frozen(h) ||
			!pool_is_master(h->pool))
			continue;
		rlog_status(pool_log(h->pool), &s);
		if (s.term >= term)
			master = h;
		term = s.term >= term ? s.term : term;
	}
	return master;
}

void ring_host_crash(struct ring_host *h, enum ring_death death)
{
	static const char *const words[] = {
		"kill -9", "kill -9, unsynced torn", "power loss"};
	static const int64_t pauses_ms[] = {1, 100, 3000, 30000};

	ring_note(h->ring, "host%d dies: %s", h->index + 1, words[death]);
	h->last_count = ring_model_domains(h, h->last);
	ring_faults_collect(h);
	h->life = RING_DOWN;
	timer_stop(&h->tick);
	host_thaw(h);
	ring_fence_gone(h);
	ring_restart_gone(h);
	ring_voters_stop(h);
	ring_link_host_gone(h->ring, h->index, death == RING_POWER);
	if (h->migrate)
		migrate_stop(h->migrate);
	if (h->mgr)
		vm_manager_stop(h->mgr);
	hyper_free(h->hyper);
	storage_free(h->storage);
	net_free(h->net);
	pool_free(h->pool);
	disk_free(h->disk);
	vm_manager_free(h->mgr);
	migrate_free(h->migrate);
	ring_lease_gone(h);
	h->migrate = NULL;
	h->mgr = NULL;
	h->hyper = NULL;
	h->storage = NULL;
	h->net = NULL;
	h->pool = NULL;
	h->disk = NULL;
	ring_client_lost(h);
	ring_voters_stop(h);
	h->life = RING_DOWN;
	h->death_due = h->dead_at_point = false;
	if (death != RING_KILL)
		disk_sim_crash(h->medium);
	if (death == RING_POWER) {
		hyper_sim_machine_reboot(h->machine);
		h->last_count = 0;
		h->asleep = false;
		timer_stop(&h->wake);
		ring_fence_power(h);
	}
	timer_start_ms(&h->restart, pauses_ms[prng_below(&h->prng, 4)]);
}

void ring_host_init(struct ring *r, int index)
{
	static const struct pool_messenger_ops ops = {ring_link_send};
	struct ring_host *h = &r->hosts[index];
	uint64_t seed = prng_next(&r->prng);
	int before;

	h->ring = r;
	h->index = index;
	h->prng = prng_fork(&r->prng);
	h->uuid = uuid_random(&h->prng);
	h->messenger.ops = &ops;
	list_init(&h->asks);
	h->clock_ahead_ms = prng_range(&h->prng, 0, INT64_C(1) << 40);
	h->clock_ppm = prng_range(&h->prng, -10000, 10000);
	timer_init(&h->restart, r->loop, "ring.restart", host_restart, h);
	timer_init(&h->wake, r->loop, "ring.wake", host_wakes, h);
	ring_fence_init(h);
	ring_restart_init(h);
	before = loop_sim_as(r->loop, ring_host_who(h));
	ring_voters_init(h);
	timer_init(&h->tick, r->loop, "ring.tick", host_tick, h);
	loop_sim_as(r->loop, before);
	hyper_sim_config_init(&h->config);
	h->config.seed = seed;
	h->config.dom0_kib = DOM0_KIB;
	h->config.memory_kib = DOM0_KIB + (prng_range(&h->prng, 120, 300) << 10);
	h->config.step_us = 2000;
	h->config.guest.used_ppm = 20000;
	if (disk_sim_medium_new(&h->medium, seed) ||
		hyper_sim_machine_new(&h->machine, &h->config))
		abort();
}

void ring_host_fini(struct ring_host *h)
{
	if (h->life != RING_DOWN)
		ring_host_crash(h, RING_KILL);
	timer_stop(&h->restart);
	timer_stop(&h->wake);
	ring_fence_fini(h);
	hyper_sim_machine_free(h->machine);
	disk_sim_medium_free(h->medium);
}
