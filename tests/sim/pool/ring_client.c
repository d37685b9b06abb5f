/* What clients ask for, at any host. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ring.h"

static const enum vm_operation operations[RING_ACTION_COUNT] = {
	[RING_ACTION_CREATE] = VM_OP_COUNT,
	[RING_ACTION_WRITE] = VM_OP_COUNT,
	[RING_ACTION_START] = VM_OP_START,
	[RING_ACTION_RESUME] = VM_OP_RESUME,
	[RING_ACTION_CLEAN_SHUTDOWN] = VM_OP_CLEAN_SHUTDOWN,
	[RING_ACTION_HARD_SHUTDOWN] = VM_OP_HARD_SHUTDOWN,
	[RING_ACTION_CLEAN_REBOOT] = VM_OP_CLEAN_REBOOT,
	[RING_ACTION_HARD_REBOOT] = VM_OP_HARD_REBOOT,
	[RING_ACTION_PAUSE] = VM_OP_PAUSE,
	[RING_ACTION_UNPAUSE] = VM_OP_UNPAUSE,
	[RING_ACTION_SUSPEND] = VM_OP_SUSPEND,
	[RING_ACTION_MIGRATE] = VM_OP_MIGRATE,
	[RING_ACTION_MIGRATE_STRICT] = VM_OP_MIGRATE,
	[RING_ACTION_REPEAT] = VM_OP_COUNT,
	[RING_ACTION_PROTECT] = VM_OP_COUNT,
	[RING_ACTION_LEASE_MS] = VM_OP_COUNT,
};

struct ring_ask *ring_ask_new(struct ring_host *h)
{
	struct ring_ask *a = calloc(1, sizeof *a);

	if (!a)
		abort();
	a->host = h;
	list_push_back(&h->asks, &a->node);
	return a;
}

void ring_ask_free(struct ring_ask *a)
{
	list_remove(&a->node);
	free(a);
}

void ring_client_lost(struct ring_host *h)
{
	LIST_FOR_EACH_SAFE (node, &h->asks) {
		struct ring_ask *a = CONTAINER_OF(node, struct ring_ask, node);

		if (a->vm && a->number)
			a->vm->open = false;
		if (a->session)
			a->session->busy = false;
		ring_ask_free(a);
	}
}

/* --- writes --- */

static void count_commit(struct ring *r, int rc)
{
	r->totals->commits += rc == 0;
	r->totals->unknown += rc == RV_EOUTCOME;
}

static void created(struct pool_commit *c)
{
	struct ring_ask *a = CONTAINER_OF(c, struct ring_ask, commit);
	struct ring *r = a->host->ring;

	ring_note(r, "create %s: %s", a->vm->name, rv_error_symbol(c->rc));
	count_commit(r, c->rc);
	if (c->rc == 0) {
		a->vm->made = true;
		r->totals->actions[RING_ACTION_CREATE]++;
		r->totals->succeeded[RING_ACTION_CREATE]++;
	} else if (c->rc != RV_EOUTCOME) {
		a->vm->asked = false;
	}
	ring_ask_free(a);
}

static void create_rows(struct ring *r, struct ring_vm *v, struct txn *t)
{
	struct uuid metrics = uuid_random(&r->prng), vbd = uuid_random(&r->prng);
	int64_t max = prng_range(&r->prng, 16, 64), min = prng_range(&r->prng, 16, max);

	txn_create(t, CLASS_VM_METRICS, metrics);
	txn_create(t, CLASS_VM, v->uuid);
	txn_set_string(t, v->uuid, VM_NAME_LABEL, v->name);
	txn_set_ref(t, v->uuid, VM_METRICS, metrics);
	txn_set_int(t, v->uuid, VM_MEMORY_STATIC_MIN, 16 * RING_MIB);
	txn_set_int(t, v->uuid, VM_MEMORY_STATIC_MAX, max * RING_MIB);
	txn_set_int(t, v->uuid, VM_MEMORY_DYNAMIC_MAX, max * RING_MIB);
	txn_set_int(t, v->uuid, VM_MEMORY_DYNAMIC_MIN, min * RING_MIB);
	txn_set_enum(t, v->uuid, VM_DOMAIN_TYPE,
		prng_below(&r->prng, 4) ? VM_DOMAIN_TYPE_PVH : VM_DOMAIN_TYPE_HVM);
	if (prng_below(&r->prng, 2))
		txn_map_put(t, v->uuid, VM_PLATFORM, "sim.feature_balloon", "true");
	if (prng_below(&r->prng, 2))
		txn_map_put(t, v->uuid, VM_PLATFORM, "sim.dirty_pages_per_s", "500");
	if (r->count > 1 && prng_below(&r->prng, 2))
		txn_set_enum(t, v->uuid, VM_HA_RESTART_PRIORITY,
			prng_below(&r->prng, 4) ? VM_RESTART_PRIORITY_RESTART
						: VM_RESTART_PRIORITY_BEST_EFFORT);
	txn_create(t, CLASS_VDI, v->vdi);
	txn_set_ref(t, v->vdi, VDI_SR, r->sr);
	txn_set_int(t, v->vdi, VDI_VIRTUAL_SIZE, 8 << 20);
	txn_create(t, CLASS_VBD, vbd);
	txn_set_ref(t, vbd, VBD_VM, v->uuid);
	txn_set_ref(t, vbd, VBD_VDI, v->vdi);
	txn_set_string(t, vbd, VBD_USERDEVICE, "0");
}

static void create(struct ring_host *h)
{
	struct ring *r = h->ring;
	struct ring_ask *a;
	struct rv_error e;
	struct txn t;
	int i;

	for (i = 0; i < RING_VMS && r->vms[i].asked; i++)
		;
	if (i == RING_VMS)
		return;
	a = ring_ask_new(h);
	a->vm = &r->vms[i];
	a->vm->asked = true;
	txn_init(&t, pool_db(h->pool), loop_wall_ms(r->loop));
	create_rows(r, a->vm, &t);
	if (!pool_commit(h->pool, &a->commit, &t, created, &e))
		return;
	a->vm->asked = false;
	ring_ask_free(a);
}

static void wrote(struct pool_commit *c)
{
	struct ring_ask *a = CONTAINER_OF(c, struct ring_ask, commit);
	struct ring *r = a->host->ring;

	count_commit(r, c->rc);
	a->vm->open = false;
	if (c->rc == 0) {
		a->vm->acked = a->number;
		r->totals->actions[RING_ACTION_WRITE]++;
		r->totals->succeeded[RING_ACTION_WRITE]++;
	}
	ring_ask_free(a);
}

/* A number that only grows. An older one whose outcome is unknown must not come after. */
static void write_number(struct ring_host *h, struct ring_vm *v)
{
	struct ring_ask *a;
	struct rv_error e;
	struct txn t;
	char text[24];

	if (v->open)
		return;
	a = ring_ask_new(h);
	a->vm = v;
	a->number = ++v->issued;
	v->open = true;
	snprintf(text, sizeof text, "%lld", (long long)a->number);
	txn_init(&t, pool_db(h->pool), loop_wall_ms(h->ring->loop));
	txn_map_put(&t, v->uuid, VM_OTHER_CONFIG, "number", text);
	if (!pool_commit(h->pool, &a->commit, &t, wrote, &e))
		return;
	v->open = false;
	ring_ask_free(a);
}

static void was_set(struct pool_commit *c)
{
	struct ring_ask *a = CONTAINER_OF(c, struct ring_ask, commit);
	enum ring_action action = a->vm ? RING_ACTION_PROTECT : RING_ACTION_LEASE_MS;
	struct ring *r = a->host->ring;

	count_commit(r, c->rc);
	ring_note(r, "%s: %s", ring_action_name(action), rv_error_symbol(c->rc));
	if (c->rc == 0) {
		r->totals->actions[action]++;
		r->totals->succeeded[action]++;
	}
	ring_ask_free(a);
}

/* A VM's protection, or for how long leases last. */
static void set_something(struct ring_host *h, struct ring_vm *v)
{
	struct ring *r = h->ring;
	struct ring_ask *a = ring_ask_new(h);
	struct rv_error e;
	struct txn t;

	txn_init(&t, pool_db(h->pool), loop_wall_ms(r->loop));
	a->vm = prng_below(&r->prng, 4) ? v : NULL;
	if (a->vm)
		txn_set_enum(&t, v->uuid, VM_HA_RESTART_PRIORITY,
			(int)prng_range(&r->prng, VM_RESTART_PRIORITY_NONE,
				VM_RESTART_PRIORITY_RESTART));
	else
		txn_set_int(&t, r->pool_uuid, POOL_LEASE_MS,
			(int64_t[]){5000, 7000, 10000, 20000}[prng_below(&r->prng, 4)]);
	if (pool_commit(h->pool, &a->commit, &t, was_set, &e))
		ring_ask_free(a);
}

/* --- operations --- */

static void accepted(void *arg, int rc, const struct rv_error *e)
{
	struct ring_ask *a = arg;
	struct ring *r = a->host->ring;
	struct ring_task *t = &r->tasks[a->task];

	ring_note(r, "%s: %s %s", ring_action_name(t->action),
		rc ? "refused" : "accepted", rc ? e->detail : "");
	if (rc == 0 && !t->accepted) {
		t->accepted = true;
		r->totals->actions[t->action]++;
	}
	ring_ask_free(a);
}

/* The host that carries it out, by what `at` knows; NULL: nobody can now. */
static struct ring_host *route(struct ring_host *at, const struct row *vm,
	enum ring_action action, struct uuid *on)
{
	struct ring *r = at->ring;
	struct uuid uuid = row_uuid(vm), where = db_ref(vm, VM_RESIDENT_ON);
	struct ring_host *h;
	struct rv_error e;

	if (action == RING_ACTION_START || action == RING_ACTION_RESUME) {
		where = pool_master(at->pool);
		h = ring_host_of(r, &where);
		if (!h || !ring_host_up(h) || !pool_is_master(h->pool) ||
			vm_place_explain(h->mgr, &uuid, NULL, &where, &e))
			return NULL;
		*on = where;
	}
	h = ring_host_of(r, &where);
	return h && ring_host_up(h) ? h : NULL;
}

static bool migrates(enum ring_action action)
{
	return action == RING_ACTION_MIGRATE || action == RING_ACTION_MIGRATE_STRICT;
}

static void ask(struct ring_host *h, size_t task)
{
	struct ring *r = h->ring;
	struct ring_task *t = &r->tasks[task];
	struct ring_ask *a = ring_ask_new(h);
	struct vm_op_args args = {.vm = t->vm, .on = t->on, .user = "client"};
	struct migrate_args migrate = {.host = t->on,
		.live = prng_below(&r->prng, 8) != 0,
		.accept = t->action == RING_ACTION_MIGRATE,
		.user = "client"};
	struct rv_error e = {0};
	int rc, before;

	a->task = task;
	if (t->action == RING_ACTION_CLEAN_SHUTDOWN ||
		t->action == RING_ACTION_CLEAN_REBOOT)
		args.timeout_ms = prng_range(&r->prng, 500, 20000);
	if (!migrate.accept && prng_below(&r->prng, 2))
		migrate.max_downtime_ms = 1; /* more than can be kept */
	before = loop_sim_as(r->loop, ring_host_who(h));
	if (migrates(t->action))
		rc = migrate_start(
			h->migrate, &t->vm, &migrate, t->uuid, accepted, a, &e);
	else
		rc = vm_op_start(
			h->mgr, operations[t->action], &args, t->uuid, accepted, a, &e);
	loop_sim_as(r->loop, before);
	if (!rc)
		ring_faults_freeze(h, 12);
	if (!rc)
		return;
	ring_note(r, "host%d refuses %s: %s", h->index + 1, ring_action_name(t->action),
		e.detail);
	ring_ask_free(a);
}

static void operate(struct ring_host *at, const struct row *vm, enum ring_action action)
{
	struct ring *r = at->ring;
	struct ring_task *t = &r->tasks[r->task_count];
	struct uuid on = UUID_NONE;
	struct ring_host *h = route(at, vm, action, &on);

	if (!h || r->task_count == RING_TASKS)
		return;
	if (migrates(action) && r->count > 1)
		on = r->hosts[((uint64_t)h->index + 1 +
				      prng_below(&r->prng, (uint64_t)r->count - 1)) %
			      (uint64_t)r->count]
			     .uuid;
	*t = (struct ring_task){.uuid = uuid_random(&r->prng),
		.vm = row_uuid(vm),
		.action = action,
		.on = on};
	ring_note(r, "client: %s %s at host%d", ring_action_name(action), row_name(vm),
		h->index + 1);
	ask(h, r->task_count++);
}

/* The same request again, at its host or where its VM is by now. */
static void repeat(struct ring_host *at)
{
	struct ring *r = at->ring;
	struct ring_task *t;
	struct ring_host *h = NULL;
	const struct row *vm;
	struct uuid where;

	if (r->task_count == 0)
		return;
	t = &r->tasks[r->task_count - 1 -
		      prng_below(&r->prng, r->task_count < 5 ? r->task_count : 5)];
	vm = db_row(pool_db(at->pool), CLASS_VM, t->vm);
	where = vm ? db_ref(vm, VM_RESIDENT_ON) : UUID_NONE;
	if (t->action == RING_ACTION_START || t->action == RING_ACTION_RESUME ||
		uuid_is_none(&where))
		where = migrates(t->action) ? where : t->on;
	h = ring_host_of(r, &where);
	if (!h || !ring_host_up(h))
		return;
	if (migrates(t->action) && uuid_eq(&t->on, &h->uuid))
		return; /* it is there */
	ring_note(r, "client: repeat %s at host%d", ring_action_name(t->action),
		h->index + 1);
	r->totals->actions[RING_ACTION_REPEAT]++;
	r->totals->succeeded[RING_ACTION_REPEAT]++;
	ask(h, (size_t)(t - r->tasks));
}

/* A task that is at work, at the host that does it. */
static void cancel(struct ring *r)
{
	struct ring_task *t;
	struct rv_error e;

	if (r->task_count == 0)
		return;
	t = &r->tasks[r->task_count - 1 -
		      prng_below(&r->prng, r->task_count < 3 ? r->task_count : 3)];
	for (int i = 0; i < r->count; i++) {
		int rc;

		if (!ring_host_up(&r->hosts[i]))
			continue;
		rc = vm_op_cancel(r->hosts[i].mgr, &t->uuid, &e);
		if (rc == RV_ENOENT)
			continue;
		ring_note(r, "client: cancel %s at host%d: %s",
			ring_action_name(t->action), i + 1, rv_error_symbol(rc));
		r->totals->actions[RING_ACTION_CANCEL]++;
		r->totals->succeeded[RING_ACTION_CANCEL] += rc == 0;
		return;
	}
}

/* --- acting --- */

static enum ring_action draw(struct ring *r, const struct row *vm)
{
	static const enum ring_action halted[] = {RING_ACTION_START};
	static const enum ring_action suspended[] = {RING_ACTION_RESUME,
		RING_ACTION_RESUME, RING_ACTION_RESUME, RING_ACTION_HARD_SHUTDOWN};
	static const enum ring_action paused[] = {RING_ACTION_UNPAUSE,
		RING_ACTION_UNPAUSE, RING_ACTION_UNPAUSE, RING_ACTION_HARD_SHUTDOWN};
	static const enum ring_action running[] = {RING_ACTION_MIGRATE,
		RING_ACTION_MIGRATE, RING_ACTION_MIGRATE, RING_ACTION_MIGRATE_STRICT,
		RING_ACTION_MIGRATE, RING_ACTION_MIGRATE, RING_ACTION_MIGRATE,
		RING_ACTION_MIGRATE_STRICT, RING_ACTION_PAUSE, RING_ACTION_SUSPEND,
		RING_ACTION_SUSPEND, RING_ACTION_CLEAN_SHUTDOWN,
		RING_ACTION_HARD_SHUTDOWN, RING_ACTION_CLEAN_REBOOT,
		RING_ACTION_HARD_REBOOT};

	if (prng_below(&r->prng, 12) == 0) /* whether it makes sense or not */
		return (enum ring_action)prng_range(
			&r->prng, RING_ACTION_START, RING_ACTION_MIGRATE_STRICT);
	switch (db_enum(vm, VM_POWER_STATE)) {
	case VM_POWER_STATE_RUNNING:
		return running[prng_below(&r->prng, sizeof running / sizeof running[0])];
	case VM_POWER_STATE_PAUSED:
		return paused[prng_below(&r->prng, 4)];
	case VM_POWER_STATE_SUSPENDED:
		return suspended[prng_below(&r->prng, 4)];
	default:
		return halted[0];
	}
}

static void act(struct ring *r)
{
	struct ring_host *at = &r->hosts[prng_below(&r->prng, (uint64_t)r->count)];
	struct ring_vm *v = &r->vms[prng_below(&r->prng, RING_VMS)];
	const struct row *vm;
	int before;

	if (!ring_host_up(at))
		return;
	r->left--;
	vm = db_row(pool_db(at->pool), CLASS_VM, v->uuid);
	before = loop_sim_as(r->loop, ring_host_who(at));
	if (vm && r->count > 1 && prng_below(&r->prng, 12) == 0)
		set_something(at, v);
	else if (!vm)
		create(at);
	else if (prng_below(&r->prng, 6) == 0)
		write_number(at, v);
	else if (prng_below(&r->prng, 10) == 0)
		repeat(at);
	else if (prng_below(&r->prng, 12) == 0)
		cancel(r);
	else
		operate(at, vm, draw(r, vm));
	loop_sim_as(r->loop, before);
}

static void client_turn(void *arg)
{
	struct ring *r = arg;

	if (r->left == 0)
		return;
	timer_start_ms(&r->client, prng_range(&r->prng, 1, 2 * r->think_ms));
	act(r);
	/* In the middle of what was just begun. */
	if (prng_below(&r->prng, 20) == 0)
		timer_start_ms(&r->client, prng_range(&r->prng, 1, 50));
}

bool ring_client_done(const struct ring *r)
{
	return r->left == 0;
}

void ring_client_start(struct ring *r)
{
	timer_init(&r->client, r->loop, "ring.client", client_turn, r);
	timer_start_ms(&r->client, 1);
}
