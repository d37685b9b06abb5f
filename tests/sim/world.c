#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "faults.h"
#include "look.h"
#include "model.h"
#include "reactor/op.h"

enum {
	ACTIVE_MS = 20 * 60 * 1000, /* clients are done by then, or are stopped */
	QUIESCE_MS = 2 * 3600 * 1000,
	REST_MS = 330 * 1000, /* at rest for so long: all VMs were looked at once more */
	MAX_EVENTS = 6000000,
	DOM0_KIB = 128 << 10,
	NOTED_OPS = 256,
};

static void host_attach(struct sim_host *h);
static void host_net(struct sim_host *h);
static void host_install(struct sim_host *h);
static void host_manage(struct sim_host *h);

/* --- writes --- */

static void write_done(struct pool_commit *c)
{
	struct sim_write *w = CONTAINER_OF(c, struct sim_write, commit);

	list_remove(&w->node);
	w->fn(w, c->rc);
	free(w);
}

struct sim_write *host_write_new(struct sim_host *h, struct txn *t)
{
	struct sim_write *w = calloc(1, sizeof *w);

	if (!w)
		abort();
	w->host = h;
	txn_init(t, pool_db(h->pool), loop_wall_ms(h->world->loop));
	return w;
}

void host_write(struct sim_host *h, struct sim_write *w, struct txn *t,
	void (*fn)(struct sim_write *w, int rc))
{
	struct rv_error e;
	int rc;

	w->fn = fn;
	list_push_back(&h->writes, &w->node);
	rc = pool_commit(h->pool, &w->commit, t, write_done, &e);
	if (rc) {
		list_remove(&w->node);
		fn(w, rc);
		free(w);
	}
}

/* --- a daemon comes up --- */

static void host_again(struct sim_host *h)
{
	timer_start_ms(&h->retry, 300);
}

static void host_retry(void *arg)
{
	struct sim_host *h = arg;

	switch (h->life) {
	case SIM_INSTALLING:
		host_install(h);
		return;
	case SIM_ATTACHING:
		host_attach(h);
		return;
	case SIM_NETTING:
		host_net(h);
		return;
	default:
		return;
	}
}

static void host_opened(void *arg, int rc, const struct rv_error *e)
{
	struct sim_host *h = arg;

	sim_note("%s pool opened rc=%s %s", h->name, rv_error_symbol(rc),
		rc ? e->detail : "");
	if (rc == RV_ECORRUPT)
		sim_fail("%s: its log is refused after a crash: %s", h->name, e->detail);
	if (rc)
		host_die(h, SIM_KILL); /* as the real one: it is started again */
}

static void host_ready(void *arg)
{
	struct sim_host *h = arg;

	sim_note("%s up", h->name);
	if (h->life == SIM_RECONCILING)
		h->life = SIM_UP;
}

static void host_changed(void *arg)
{
	struct sim_host *h = arg;
	bool master = pool_is_master(h->pool);

	if (master == h->was_master)
		return;
	h->was_master = master;
	sim_note("%s %s", h->name, master ? "leads" : "does not lead");
	if (!master)
		return;
	model_recovered(h);
	if (h->life == SIM_OPENING) {
		h->life = h->installed ? SIM_ATTACHING : SIM_INSTALLING;
		timer_start_us(&h->retry, 0);
	} else if (h->mgr) {
		vm_manager_start(h->mgr, host_ready, h);
	}
}

static void host_closed(void *arg)
{
	(void)arg;
}

static void host_pool_open(struct sim_host *h)
{
	static const struct pool_events events = {
		.opened = host_opened, .changed = host_changed, .closed = host_closed};
	struct pool_config config = {
		.log = {.id = 1,
			.address = "one",
			.bootstrap_count = 1,
			.bootstrap = {{.id = 1, .address = "one", .voter = true}},
			.segment_bytes = 256 << 10,
			.snapshot_entries = 200,
			.snapshot_bytes = 1 << 20,
			.trailing_entries = 16,
			.reserve_bytes = 64 << 10},
		.hash_entries = 32};
	struct rv_error e;

	if (disk_new_sim(&h->disk, h->world->loop, h->medium))
		abort();
	if (pool_open(&h->pool, h->world->loop, h->disk, &config, &events, h, &e))
		sim_fail("%s: pool_open: %s", h->name, e.detail);
	model_follow(h);
}

void host_boot(struct sim_host *h)
{
	struct sim_world *w = h->world;
	struct net_sim_config net = {.seed = prng_next(&h->prng), .devices = 2};
	struct rv_error e;

	h->life = SIM_OPENING;
	h->lives++;
	h->was_master = h->death_due = h->dead_at_point = false;
	h->die_at = -1;
	h->kill_in = 0;
	sim_note("%s boots, life %llu", h->name, (unsigned long long)h->lives);
	host_pool_open(h);
	h->hyper_config.machine = h->machine;
	if (hyper_sim_new(&h->hyper, w->loop, &h->hyper_config, &e))
		sim_fail("%s: hypervisor: %s", h->name, e.detail);
	if (storage_new(&h->storage, w->loop, h->uuid) ||
		storage_sim_add(h->storage, h->bytes, "file",
			STORAGE_CAN_READ_WRITE | STORAGE_CAN_COPY | STORAGE_CAN_RESIZE) ||
		net_sim_new(&h->net, w->loop, &net))
		abort();
	faults_host_up(h);
}

static void host_boot_again(void *arg)
{
	host_boot(arg);
}

/* --- the first start --- */

static void host_storage_done(
	void *arg, uint64_t token, const struct storage_result *result)
{
	struct sim_host *h = arg;

	(void)token;
	if (result->rc) {
		host_again(h);
	} else if (h->life == SIM_INSTALLING) {
		h->installed = true;
		h->life = SIM_ATTACHING;
		host_attach(h);
	} else {
		h->life = SIM_NETTING;
		host_net(h);
	}
}

static void host_ask_storage(struct sim_host *h, enum storage_verb verb)
{
	struct storage_config config = {"location", h->name};
	struct storage_call call = {.verb = verb,
		.sr = h->sr,
		.type = "file",
		.config = &config,
		.config_count = 1,
		.done = host_storage_done,
		.arg = h};
	struct rv_error e;

	if (storage_start(h->storage, &call, NULL, &e))
		host_again(h);
}

static void host_attach(struct sim_host *h)
{
	host_ask_storage(h, STORAGE_SR_ATTACH);
}

static void host_net_done(void *arg, uint64_t token, const struct net_result *result)
{
	struct sim_host *h = arg;

	(void)token;
	if (result->rc)
		host_again(h);
	else
		host_manage(h);
}

static void host_net(struct sim_host *h)
{
	struct net_call call = {.verb = NET_UP,
		.network = h->network,
		.bridge = "xenbr0",
		.vlan = NET_VLAN_NONE,
		.done = host_net_done,
		.arg = h};
	struct rv_error e;

	if (net_start(h->net, &call, NULL, &e))
		host_again(h);
}

static void host_installed(struct sim_write *w, int rc)
{
	if (rc)
		host_again(w->host);
	else
		host_ask_storage(w->host, STORAGE_SR_CREATE);
}

static void host_install(struct sim_host *h)
{
	struct uuid pbd = uuid_random(&h->prng);
	struct txn t;
	struct sim_write *w = host_write_new(h, &t);

	txn_create(&t, CLASS_POOL, h->pool_uuid);
	txn_create(&t, CLASS_HOST, h->uuid);
	txn_set_string(&t, h->uuid, HOST_NAME_LABEL, h->name);
	txn_set_int(&t, h->uuid, HOST_CPU_COUNT, 512);
	txn_set_ref(&t, h->pool_uuid, POOL_MASTER, h->uuid);
	txn_create(&t, CLASS_SR, h->sr);
	txn_set_string(&t, h->sr, SR_NAME_LABEL, "sr1");
	txn_set_string(&t, h->sr, SR_TYPE, "file");
	txn_create(&t, CLASS_PBD, pbd);
	txn_set_ref(&t, pbd, PBD_HOST, h->uuid);
	txn_set_ref(&t, pbd, PBD_SR, h->sr);
	txn_set_bool(&t, pbd, PBD_CURRENTLY_ATTACHED, true);
	txn_create(&t, CLASS_NETWORK, h->network);
	txn_set_string(&t, h->network, NETWORK_NAME_LABEL, "net1");
	txn_set_string(&t, h->network, NETWORK_BRIDGE, "xenbr0");
	txn_set_ref(&t, h->pool_uuid, POOL_DEFAULT_SR, h->sr);
	host_write(h, w, &t, host_installed);
}

static void host_manage(struct sim_host *h)
{
	struct vm_manager_config config = {.loop = h->world->loop,
		.pool = h->pool,
		.self = h->uuid,
		.answer_ms = 5000,
		.point = faults_point,
		.point_arg = h};
	struct vm_host_config host = {
		.uuid = h->uuid, .hyper = h->hyper, .storage = h->storage, .net = h->net};
	struct rv_error e;

	h->life = SIM_RECONCILING;
	if (vm_manager_new(&h->mgr, &config, &e) ||
		vm_manager_add_host(h->mgr, &host, &e))
		sim_fail("%s: VM manager: %s", h->name, e.detail);
	if (pool_is_master(h->pool))
		vm_manager_start(h->mgr, host_ready, h);
}

bool host_up(const struct sim_host *h)
{
	return h->life == SIM_UP && !h->death_due && vm_manager_ready(h->mgr);
}

/* --- and goes --- */

void host_die(struct sim_host *h, enum sim_death death)
{
	if (h->life == SIM_DOWN || h->death_due)
		return;
	h->death_due = true;
	h->death = death;
}

void host_crash(struct sim_host *h, enum sim_death death)
{
	static const char *const words[] = {
		"kill -9", "kill -9, unsynced torn", "power loss"};
	static const int64_t pauses_ms[] = {0, 10, 1000, 60000};

	sim_note("%s dies: %s", h->name, words[death]);
	faults_collect(h);
	timer_stop(&h->retry);
	if (h->mgr)
		vm_manager_stop(h->mgr);
	hyper_free(h->hyper);
	storage_free(h->storage);
	net_free(h->net);
	pool_free(h->pool);
	disk_free(h->disk);
	vm_manager_free(h->mgr);
	LIST_FOR_EACH_SAFE (node, &h->writes) {
		list_remove(node);
		free(CONTAINER_OF(node, struct sim_write, node));
	}
	h->mgr = NULL;
	h->pool = NULL;
	h->hyper = NULL;
	h->storage = NULL;
	h->net = NULL;
	h->disk = NULL;
	h->life = SIM_DOWN;
	h->death_due = false;
	if (death != SIM_KILL)
		disk_sim_crash(h->medium);
	if (death == SIM_POWER)
		hyper_sim_machine_reboot(h->machine);
	timer_start_ms(&h->restart, pauses_ms[prng_below(&h->prng, 4)]);
}

static void host_init(struct sim_host *h, struct sim_world *w, int index)
{
	uint64_t seed = prng_next(&w->prng);

	h->world = w;
	h->index = index;
	snprintf(h->name, sizeof h->name, "host%d", index + 1);
	h->prng = prng_fork(&w->prng);
	h->die_at = -1;
	list_init(&h->writes);
	timer_init(&h->restart, w->loop, "sim.restart", host_boot_again, h);
	timer_init(&h->retry, w->loop, "sim.retry", host_retry, h);
	hyper_sim_config_init(&h->hyper_config);
	h->hyper_config.seed = seed;
	h->hyper_config.dom0_kib = DOM0_KIB;
	h->hyper_config.memory_kib = DOM0_KIB + w->profile.host_kib;
	h->hyper_config.step_us = 2000;
	h->hyper_config.guest.used_ppm = 20000;
	if (disk_sim_medium_new(&h->medium, seed) ||
		storage_sim_world_new(&h->bytes, w->loop, seed) ||
		hyper_sim_machine_new(&h->machine, &h->hyper_config))
		abort();
	h->uuid = uuid_random(&h->prng);
	h->sr = uuid_random(&h->prng);
	h->network = uuid_random(&h->prng);
	h->pool_uuid = uuid_random(&h->prng);
	model_init(h);
}

static void host_fini(struct sim_host *h)
{
	if (h->life != SIM_DOWN)
		host_crash(h, SIM_KILL);
	timer_stop(&h->restart);
	model_fini(h);
	hyper_sim_machine_free(h->machine);
	storage_sim_world_free(h->bytes);
	disk_sim_medium_free(h->medium);
}

const struct row *host_any_vm(struct sim_host *h, struct prng *p)
{
	const struct db *db = pool_db(h->pool);
	unsigned count = db_count(db, CLASS_VM), n;
	const struct row *vm = NULL;

	if (count == 0)
		return NULL;
	n = (unsigned)prng_below(p, count);
	for (unsigned i = 0; i <= n; i++)
		vm = db_next(db, CLASS_VM, vm);
	return vm;
}

/* --- a seed's run --- */

/* What leads to a crash point, by the first word of its name. */
static void favour(struct sim_profile *p)
{
	static const struct {
		const char *point;
		enum sim_action actions[4];
	} ways[] = {
		{"destroy.", {SIM_ACTION_DESTROY, SIM_ACTION_CLONE, SIM_ACTION_PROVISION,
				     SIM_ACTION_CREATE}},
		{"hotplug.", {SIM_ACTION_VBD_PLUG, SIM_ACTION_VIF_PLUG,
				     SIM_ACTION_VBD_UNPLUG, SIM_ACTION_VIF_UNPLUG}},
		{"make.", {SIM_ACTION_PROVISION, SIM_ACTION_CLONE, SIM_ACTION_CREATE,
				  SIM_ACTION_DESTROY}},
		{"pause.", {SIM_ACTION_PAUSE, SIM_ACTION_UNPAUSE, SIM_ACTION_START,
				   SIM_ACTION_PAUSE}},
		{"reboot.", {SIM_ACTION_CLEAN_REBOOT, SIM_ACTION_HARD_REBOOT,
				    SIM_ACTION_START, SIM_ACTION_UNPAUSE}},
		{"resume.", {SIM_ACTION_SUSPEND, SIM_ACTION_RESUME, SIM_ACTION_START,
				    SIM_ACTION_UNPAUSE}},
		{"shutdown.", {SIM_ACTION_CLEAN_SHUTDOWN, SIM_ACTION_HARD_SHUTDOWN,
				      SIM_ACTION_START, SIM_ACTION_UNPAUSE}},
		{"suspend.", {SIM_ACTION_SUSPEND, SIM_ACTION_RESUME, SIM_ACTION_START,
				     SIM_ACTION_UNPAUSE}},
	};
	const char *name = sim_point_name(p->favourite_point);

	for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++)
		if (strncmp(name, ways[i].point, strlen(ways[i].point)) == 0)
			for (int a = 0; a < 4; a++)
				p->weights[ways[i].actions[a]] += 30;
}

/* Swarm testing: each seed has only some of the faults and its own mix of operations, so
 * that combinations come up which a mix of everything would drown. */
static void profile_draw(struct sim_profile *p, struct prng *prng, uint64_t seed)
{
	p->hosts = 1 + (int)prng_below(prng, 2);
	p->clients = 1 + (int)prng_below(prng, SIM_MAX_CLIENTS);
	p->actions = 15 + (unsigned)prng_below(prng, 45);
	p->think_ms = (int64_t[]){20, 200, 1000, 4000}[prng_below(prng, 4)];
	p->fault_every_ms = (int64_t[]){300, 1000, 3000, 10000}[prng_below(prng, 4)];
	/* Now and then so little that everybody waits for somebody. */
	p->host_kib = (uint64_t)(prng_below(prng, 3) ? prng_range(prng, 160, 640)
						     : prng_range(prng, 100, 180))
		      << 10;
	p->favourite_point = -1;
	if (prng_below(prng, 2))
		p->favourite_point = (int)(seed % SIM_POINT_COUNT);
	if (seed % 16 == 0)
		p->fault_every_ms = 0;
	for (int f = 0; f < SIM_FAULT_COUNT; f++)
		if (prng_below(prng, 3) == 0)
			p->faults[f / 32] |= UINT32_C(1) << (f % 32);
	for (int a = 0; a < SIM_ACTION_COUNT; a++)
		p->weights[a] = (uint32_t[]){1, 2, 4, 12}[prng_below(prng, 4)];
	p->weights[SIM_ACTION_CREATE] = 4;
	p->weights[SIM_ACTION_PROVISION] += 4;
	p->weights[SIM_ACTION_START] += 8;
	/* So that what needs a rare state comes up. */
	p->weights[SIM_ACTION_SUSPEND] += 2;
	p->weights[SIM_ACTION_RESUME] += 8;
	p->weights[SIM_ACTION_VBD_PLUG] += 8;
	p->weights[SIM_ACTION_VIF_PLUG] += 8;
	if (p->favourite_point >= 0)
		favour(p);
}

/* Notes every operation's moves: the log's own lines are limited in number. */
static void note_moves(struct sim_world *w)
{
	static struct {
		const struct op *op;
		int state;
	} known[NOTED_OPS];
	static size_t next;

	for (struct op *op = op_next(w->loop, NULL); op; op = op_next(w->loop, op)) {
		size_t i = 0;

		while (i < NOTED_OPS && known[i].op != op)
			i++;
		if (i == NOTED_OPS) {
			i = next++ % NOTED_OPS;
		} else if (known[i].state == op->state) {
			continue;
		}
		known[i].op = op;
		known[i].state = op->state;
		sim_note("  %s %s -> %s%s%s", op->table->name, op->subject,
			op_state_name(op), op->error.code ? " failed: " : "",
			op->error.code ? op->error.detail : "");
	}
}

static void world_event(void *arg)
{
	struct sim_world *w = arg;

	if (trail_get()->on)
		note_moves(w);
	for (int i = 0; i < w->host_count; i++) {
		struct sim_host *h = &w->hosts[i];

		if (h->life != SIM_DOWN && !h->dead_at_point)
			model_event(h);
		if (h->life != SIM_DOWN)
			faults_event(h);
	}
}

static void world_step(struct sim_world *w)
{
	if (!loop_sim_step(w->loop))
		sim_fail("nothing is left to happen");
	if (loop_sim_event_count(w->loop) > MAX_EVENTS)
		sim_fail("%d events and no end", MAX_EVENTS);
	for (int i = 0; i < w->host_count; i++)
		if (w->hosts[i].death_due)
			host_crash(&w->hosts[i], w->hosts[i].death);
}

static bool world_all_up(struct sim_world *w)
{
	for (int i = 0; i < w->host_count; i++)
		if (!host_up(&w->hosts[i]))
			return false;
	return true;
}

static bool world_clients_done(struct sim_world *w)
{
	for (int i = 0; i < w->profile.clients; i++)
		if (!client_done(&w->clients[i]))
			return false;
	return true;
}

static bool world_at_rest(struct sim_world *w)
{
	for (int i = 0; i < w->host_count; i++)
		if (!host_up(&w->hosts[i]) || !model_at_rest(&w->hosts[i]))
			return false;
	return true;
}

/* Faults are off: everything must come to an end by itself. */
static void world_quiesce(struct sim_world *w)
{
	int64_t until = loop_now_us(w->loop) + QUIESCE_MS * INT64_C(1000), rest = 0;
	char why[400] = "";

	sim_note("--- faults end");
	w->quiet = true;
	faults_stop(w);
	while (!rest || loop_now_us(w->loop) - rest < REST_MS * INT64_C(1000)) {
		if (loop_now_us(w->loop) >= until) {
			for (int i = 0; i < w->host_count && !*why; i++)
				model_unrest(&w->hosts[i], why, sizeof why);
			sim_fail("%d s after the last fault there is no rest: %s",
				QUIESCE_MS / 1000, why);
		}
		world_step(w);
		if (!world_at_rest(w))
			rest = 0;
		else if (!rest)
			rest = loop_now_us(w->loop);
	}
	sim_note("--- at rest");
	for (int i = 0; i < w->host_count; i++)
		model_settled(&w->hosts[i]);
}

static void world_run(struct sim_world *w)
{
	int64_t until;

	while (!world_all_up(w))
		world_step(w);
	for (int i = 0; i < w->profile.clients; i++)
		client_start(&w->clients[i], w, &w->hosts[i % w->host_count], i);
	faults_start(w);
	until = loop_now_us(w->loop) + ACTIVE_MS * INT64_C(1000);
	while (!world_clients_done(w) && loop_now_us(w->loop) < until)
		world_step(w);
	world_quiesce(w);
}

uint64_t world_run_seed(uint64_t seed)
{
	struct sim_world *w = calloc(1, sizeof *w);
	struct sim_totals *totals = &trail_get()->totals;
	uint64_t hash;

	if (!w || loop_new_sim(&w->loop, seed))
		abort();
	trail_set(trail_get(), w->loop);
	w->seed = seed;
	prng_seed(&w->prng, seed ^ UINT64_C(0x5eed5eed5eed));
	profile_draw(&w->profile, &w->prng, seed);
	w->host_count = w->profile.hosts;
	w->fault_prng = prng_fork(&w->prng);
	for (int i = 0; i < w->host_count; i++)
		host_init(&w->hosts[i], w, i);
	loop_sim_on_event(w->loop, world_event, w);
	for (int i = 0; i < w->host_count; i++)
		host_boot(&w->hosts[i]);
	world_run(w);
	totals->seeds++;
	totals->events += loop_sim_event_count(w->loop);
	totals->virtual_s += (uint64_t)loop_now_us(w->loop) / 1000000;
	loop_sim_on_event(w->loop, NULL, NULL);
	for (int i = 0; i < SIM_MAX_CLIENTS; i++)
		if (w->clients[i].world)
			timer_stop(&w->clients[i].timer);
	for (int i = 0; i < w->host_count; i++) {
		totals->lives += w->hosts[i].lives;
		totals->tasks += w->hosts[i].task_count;
		host_fini(&w->hosts[i]);
	}
	hash = loop_sim_trace_hash(w->loop);
	trail_set(trail_get(), NULL);
	loop_free(w->loop);
	free(w);
	return hash;
}
