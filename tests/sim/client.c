#include "client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "look.h"
#include "model.h"

static const enum vm_operation operations[SIM_ACTION_COUNT] = {
	[SIM_ACTION_CREATE] = VM_OP_COUNT,
	[SIM_ACTION_WRITE] = VM_OP_COUNT,
	[SIM_ACTION_MEMORY] = VM_OP_COUNT,
	[SIM_ACTION_CANCEL] = VM_OP_COUNT,
	[SIM_ACTION_REPEAT] = VM_OP_COUNT,
	[SIM_ACTION_START] = VM_OP_START,
	[SIM_ACTION_START_ON] = VM_OP_START_ON,
	[SIM_ACTION_RESUME] = VM_OP_RESUME,
	[SIM_ACTION_CLEAN_SHUTDOWN] = VM_OP_CLEAN_SHUTDOWN,
	[SIM_ACTION_HARD_SHUTDOWN] = VM_OP_HARD_SHUTDOWN,
	[SIM_ACTION_CLEAN_REBOOT] = VM_OP_CLEAN_REBOOT,
	[SIM_ACTION_HARD_REBOOT] = VM_OP_HARD_REBOOT,
	[SIM_ACTION_PAUSE] = VM_OP_PAUSE,
	[SIM_ACTION_UNPAUSE] = VM_OP_UNPAUSE,
	[SIM_ACTION_SUSPEND] = VM_OP_SUSPEND,
	[SIM_ACTION_CLONE] = VM_OP_CLONE,
	[SIM_ACTION_PROVISION] = VM_OP_PROVISION,
	[SIM_ACTION_DESTROY] = VM_OP_DESTROY,
	[SIM_ACTION_VBD_PLUG] = VM_OP_VBD_PLUG,
	[SIM_ACTION_VBD_UNPLUG] = VM_OP_VBD_UNPLUG,
	[SIM_ACTION_VIF_PLUG] = VM_OP_VIF_PLUG,
	[SIM_ACTION_VIF_UNPLUG] = VM_OP_VIF_UNPLUG,
};

enum sim_action client_action(enum vm_operation kind)
{
	for (int a = SIM_ACTION_START; a < SIM_ACTION_COUNT; a++)
		if (operations[a] == kind)
			return (enum sim_action)a;
	return SIM_ACTION_START;
}

/* --- operations --- */

/* Where the answer goes; the daemon's death loses it (with the list of the host's
 * writes, which frees it). */
struct ask {
	struct sim_write write; /* first: only its node and memory are used */
	struct sim_task *task;
};

static void ask_accepted(void *arg, int rc, const struct rv_error *e)
{
	struct ask *a = arg;
	struct sim_host *h = a->write.host;

	sim_note("%s %s of %.8s: %s %s", h->name, vm_operation_name(a->task->kind), "",
		rc ? "refused" : "accepted", rc ? e->detail : "");
	list_remove(&a->write.node);
	if (rc)
		model_refused(h, a->task, rc);
	else
		model_accepted(h, a->task);
	free(a);
}

static void ask_task(struct sim_host *h, struct sim_task *t)
{
	struct ask *a = calloc(1, sizeof *a);
	struct vm_op_args args = t->args;
	struct rv_error e;
	int rc;

	if (!a)
		abort();
	a->write.host = h;
	a->task = t;
	args.new_name = t->new_name[0] ? t->new_name : NULL;
	args.user = "client";
	list_push_back(&h->writes, &a->write.node);
	rc = vm_op_start(h->mgr, t->kind, &args, t->uuid, ask_accepted, a, &e);
	if (!rc)
		return;
	list_remove(&a->write.node);
	free(a);
	model_refused(h, t, rc);
	sim_note("%s %s refused: %s", h->name, vm_operation_name(t->kind), e.detail);
}

/* Mostly one in the state that the operation needs. */
static struct uuid any_device(struct sim_client *c, const struct row *vm,
	enum schema_field_id owner, enum schema_field_id attached, bool want)
{
	const struct db *db = pool_db(c->host->pool);
	struct uuid chosen = UUID_NONE;
	bool any = prng_below(&c->prng, 5) == 0;
	unsigned n = 0;

	for (const struct row *r = NULL; (r = db_next_ref(db, owner, row_uuid(vm), r));)
		if ((any || db_bool(r, attached) == want) &&
			prng_below(&c->prng, ++n) == 0)
			chosen = row_uuid(r);
	return chosen;
}

static void operate(struct sim_client *c, enum vm_operation kind, const struct row *vm)
{
	struct sim_host *h = c->host;
	struct vm_op_args args = {.vm = row_uuid(vm)};
	char name[40];

	switch (kind) {
	case VM_OP_START_ON:
		args.on = h->uuid;
		break;
	case VM_OP_START:
	case VM_OP_RESUME:
		args.start_paused = prng_below(&c->prng, 5) == 0;
		break;
	case VM_OP_CLEAN_SHUTDOWN:
	case VM_OP_CLEAN_REBOOT:
		args.timeout_ms = prng_range(&c->prng, 500, 20000);
		break;
	case VM_OP_CLONE:
		snprintf(name, sizeof name, "vm%llu",
			(unsigned long long)++c->world->last_vm);
		args.new_name = name;
		break;
	case VM_OP_DESTROY:
		args.with_disks = prng_below(&c->prng, 4) != 0;
		break;
	case VM_OP_VBD_PLUG:
	case VM_OP_VBD_UNPLUG:
		args.device = any_device(
			c, vm, VBD_VM, VBD_CURRENTLY_ATTACHED, kind == VM_OP_VBD_UNPLUG);
		break;
	case VM_OP_VIF_PLUG:
	case VM_OP_VIF_UNPLUG:
		args.device = any_device(
			c, vm, VIF_VM, VIF_CURRENTLY_ATTACHED, kind == VM_OP_VIF_UNPLUG);
		break;
	default:
		break;
	}
	sim_note("client%d: %s %s", c->index, vm_operation_name(kind), row_name(vm));
	ask_task(h, model_asked(h, uuid_random(&c->prng), kind, &args));
}

static bool has_unplugged(struct sim_client *c, const struct row *vm,
	enum schema_field_id owner, enum schema_field_id attached)
{
	const struct db *db = pool_db(c->host->pool);

	for (const struct row *r = NULL; (r = db_next_ref(db, owner, row_uuid(vm), r));)
		if (!db_bool(r, attached))
			return true;
	return false;
}

static bool fits(struct sim_client *c, const struct row *vm, enum vm_operation kind)
{
	if (!(vm_allowed_now(c->host->mgr, vm) & (1u << kind)))
		return false;
	if (kind == VM_OP_VBD_PLUG)
		return has_unplugged(c, vm, VBD_VM, VBD_CURRENTLY_ATTACHED);
	if (kind == VM_OP_VIF_PLUG)
		return has_unplugged(c, vm, VIF_VM, VIF_CURRENTLY_ATTACHED);
	return true;
}

/* Clients mostly ask for what makes sense. */
static const struct row *fitting_vm(struct sim_client *c, enum vm_operation kind)
{
	const struct db *db = pool_db(c->host->pool);
	const struct row *chosen = NULL;
	unsigned n = 0;

	if (prng_below(&c->prng, 8) == 0)
		return host_any_vm(c->host, &c->prng);
	for (const struct row *vm = NULL; (vm = db_next(db, CLASS_VM, vm));)
		if (fits(c, vm, kind) && prng_below(&c->prng, ++n) == 0)
			chosen = vm;
	return chosen;
}

/* --- the others --- */

static void created(struct sim_write *w, int rc)
{
	if (rc == 0 && !db_row(pool_db(w->host->pool), CLASS_VM, w->vm))
		sim_fail("a VM was made, and is not there");
	if (rc == 0)
		trail_get()->totals.actions[SIM_ACTION_CREATE]++;
}

static void create_limits(struct sim_client *c, struct txn *t, struct uuid vm)
{
	int64_t max = prng_range(&c->prng, 16, 96), min = max;

	if (prng_below(&c->prng, 2))
		min = prng_range(&c->prng, 16, max);
	txn_set_int(t, vm, VM_MEMORY_STATIC_MIN, 16 * SIM_MIB);
	txn_set_int(t, vm, VM_MEMORY_STATIC_MAX, max * SIM_MIB);
	txn_set_int(t, vm, VM_MEMORY_DYNAMIC_MAX, max * SIM_MIB);
	txn_set_int(t, vm, VM_MEMORY_DYNAMIC_MIN, min * SIM_MIB);
	if (prng_below(&c->prng, 2))
		txn_map_put(t, vm, VM_PLATFORM, "sim.feature_balloon", "true");
	if (prng_below(&c->prng, 3) == 0)
		txn_map_put(t, vm, VM_PLATFORM, "sim.dirty_pages_per_s", "300");
}

static void create(struct sim_client *c)
{
	struct sim_host *h = c->host;
	struct uuid vm = uuid_random(&c->prng), metrics = uuid_random(&c->prng);
	unsigned disks = (unsigned)prng_below(&c->prng, 3);
	unsigned nics = (unsigned)prng_below(&c->prng, 3);
	char text[80], mac[NET_MAC_SIZE];
	struct sim_write *w;
	struct txn t;

	if (db_count(pool_db(h->pool), CLASS_VM) >= SIM_MAX_VMS)
		return;
	w = host_write_new(h, &t);
	w->vm = vm;
	txn_create(&t, CLASS_VM_METRICS, metrics);
	txn_create(&t, CLASS_VM, vm);
	snprintf(text, sizeof text, "vm%llu", (unsigned long long)++c->world->last_vm);
	sim_note("client%d: create %s", c->index, text);
	txn_set_string(&t, vm, VM_NAME_LABEL, text);
	txn_set_ref(&t, vm, VM_METRICS, metrics);
	create_limits(c, &t, vm);
	txn_set_enum(&t, vm, VM_DOMAIN_TYPE, (int)prng_below(&c->prng, 3));
	txn_set_enum(&t, vm, VM_ACTIONS_AFTER_CRASH, (int)prng_below(&c->prng, 3));
	txn_set_enum(&t, vm, VM_ACTIONS_AFTER_REBOOT, (int)prng_below(&c->prng, 2));
	if (disks > 0) {
		txn_set_bool(&t, vm, VM_IS_A_TEMPLATE, true);
		txn_map_put(&t, vm, VM_OTHER_CONFIG, "disks",
			disks == 1 ? "0: size=1MiB, bootable"
				   : "0: size=1MiB, bootable; 1: size=64MiB");
	}
	for (unsigned i = 0; i < nics; i++) {
		struct uuid vif = uuid_random(&c->prng);

		snprintf(text, sizeof text, "%u", i);
		txn_create(&t, CLASS_VIF, vif);
		txn_set_ref(&t, vif, VIF_VM, vm);
		txn_set_ref(&t, vif, VIF_NETWORK, h->network);
		txn_set_string(&t, vif, VIF_DEVICE, text);
		txn_set_string(&t, vif, VIF_MAC, net_mac_random(&c->prng, mac));
	}
	host_write(h, w, &t, created);
}

static void wrote(struct sim_write *w, int rc)
{
	if (rc == 0)
		trail_get()->totals.actions[SIM_ACTION_WRITE]++;
	model_wrote(w->host, model_numbers(w->host, w->vm), w->number, rc);
}

static void write_number(struct sim_client *c, const struct row *vm)
{
	struct sim_numbers *n = model_numbers(c->host, row_uuid(vm));
	struct sim_write *w;
	char text[24], key[UUID_TEXT_SIZE];
	struct txn t;

	if (n->open)
		return;
	n->open = true;
	w = host_write_new(c->host, &t);
	w->vm = n->vm;
	w->number = ++n->issued;
	snprintf(text, sizeof text, "%lld", (long long)w->number);
	txn_map_put(&t, n->vm, VM_OTHER_CONFIG, uuid_format(&n->vm, key), text);
	host_write(c->host, w, &t, wrote);
}

static void ranged(struct sim_write *w, int rc)
{
	if (rc)
		return;
	trail_get()->totals.actions[SIM_ACTION_MEMORY]++;
	if (w->host->mgr)
		vm_memory_changed(w->host->mgr, &w->vm);
}

/* As vm-memory-dynamic-range-set. */
static void change_memory(struct sim_client *c, const struct row *vm)
{
	int64_t top = db_int(vm, VM_MEMORY_STATIC_MAX) / SIM_MIB;
	int64_t max = prng_range(&c->prng, 16, top);
	int64_t min = prng_range(&c->prng, 16, max);
	struct sim_write *w;
	struct txn t;

	w = host_write_new(c->host, &t);
	w->vm = row_uuid(vm);
	txn_expect_int(&t, w->vm, VM_MEMORY_STATIC_MAX, top * SIM_MIB);
	txn_set_int(&t, w->vm, VM_MEMORY_DYNAMIC_MIN, min * SIM_MIB);
	txn_set_int(&t, w->vm, VM_MEMORY_DYNAMIC_MAX, max * SIM_MIB);
	sim_note("client%d: memory of %s %lld..%lld MiB", c->index, row_name(vm),
		(long long)min, (long long)max);
	host_write(c->host, w, &t, ranged);
}

static struct sim_task *any_task(struct sim_client *c, bool at_work)
{
	struct sim_task *chosen = NULL;
	unsigned n = 0;

	LIST_FOR_EACH (node, &c->host->tasks) {
		struct sim_task *t = CONTAINER_OF(node, struct sim_task, node);

		if (at_work ? t->seen && !t->ended_seq : t->asked)
			if (prng_below(&c->prng, ++n) == 0)
				chosen = t;
	}
	return chosen;
}

static void cancel(struct sim_client *c)
{
	struct sim_task *t = any_task(c, true);
	struct rv_error e;

	if (!t)
		return;
	sim_note("client%d: cancel %s", c->index, vm_operation_name(t->kind));
	if (vm_op_cancel(c->host->mgr, &t->uuid, &e) == 0)
		trail_get()->totals.actions[SIM_ACTION_CANCEL]++;
}

/* The same request again, as by a client that lost the answer. */
static void repeat(struct sim_client *c)
{
	struct sim_task *t = any_task(c, false);

	if (!t)
		return;
	sim_note("client%d: repeat %s", c->index, vm_operation_name(t->kind));
	trail_get()->totals.actions[SIM_ACTION_REPEAT]++;
	ask_task(c->host, model_asked(c->host, t->uuid, t->kind, &t->args));
}

/* A guest writes to one of its disks. */
static void guest_writes(struct sim_client *c)
{
	struct sim_host *h = c->host;
	const struct db *db = pool_db(h->pool);
	const struct row *vm = host_any_vm(h, &c->prng), *r = NULL;
	uint64_t stamp = prng_next(&c->prng);
	struct hyper_domain domains[SIM_MAX_DOMAINS];
	size_t count = look_domains(h->hyper, domains, SIM_MAX_DOMAINS);

	while (vm && (r = db_next_ref(db, VBD_VM, row_uuid(vm), r))) {
		struct uuid vdi = db_ref(r, VBD_VDI), uuid = row_uuid(vm);

		for (size_t i = 0; i < count; i++) {
			uint32_t devid =
				202u << 8 |
				(uint32_t)(atoi(db_string(r, VBD_USERDEVICE)) << 4);
			struct sim_disk *d;

			if (!uuid_eq(&domains[i].vm, &uuid) ||
				domains[i].state != HYPER_RUNNING ||
				!look_has_disk(h->hyper, domains[i].id.domid, devid))
				continue;
			d = model_disk(h, vdi);
			if (storage_sim_guest_write(h->bytes, h->uuid, vdi,
				    (stamp % 200) * 4096, &stamp, sizeof stamp))
				sim_fail("VM %s: its guest can't write to its disk",
					row_name(vm));
			d->hash = storage_sim_vdi_hash(h->bytes, vdi);
		}
	}
}

/* --- acting --- */

static enum sim_action draw(struct sim_client *c)
{
	const uint32_t *weights = c->world->profile.weights;
	uint64_t sum = 0, at;

	for (int a = 0; a < SIM_ACTION_COUNT; a++)
		sum += weights[a];
	at = prng_below(&c->prng, sum);
	for (int a = 0; a < SIM_ACTION_COUNT; a++) {
		if (at < weights[a])
			return (enum sim_action)a;
		at -= weights[a];
	}
	return SIM_ACTION_CREATE;
}

static void act(struct sim_client *c)
{
	enum sim_action action = draw(c);
	const struct row *vm;

	if (db_count(pool_db(c->host->pool), CLASS_VM) < 2)
		action = SIM_ACTION_CREATE;
	if (action == SIM_ACTION_CLONE &&
		db_count(pool_db(c->host->pool), CLASS_VM) >= SIM_MAX_VMS)
		action = SIM_ACTION_DESTROY;
	switch (action) {
	case SIM_ACTION_CREATE:
		create(c);
		return;
	case SIM_ACTION_CANCEL:
		cancel(c);
		return;
	case SIM_ACTION_REPEAT:
		repeat(c);
		return;
	case SIM_ACTION_WRITE:
	case SIM_ACTION_MEMORY:
		vm = host_any_vm(c->host, &c->prng);
		if (vm && action == SIM_ACTION_WRITE)
			write_number(c, vm);
		else if (vm)
			change_memory(c, vm);
		return;
	default:
		vm = fitting_vm(c, operations[action]);
		if (vm)
			operate(c, operations[action], vm);
		else
			c->left++; /* not this one, not now */
	}
}

static void client_turn(void *arg)
{
	struct sim_client *c = arg;

	if (c->world->quiet || c->left == 0)
		return;
	timer_start_ms(
		&c->timer, prng_range(&c->prng, 1, 2 * c->world->profile.think_ms));
	if (!host_up(c->host) || c->host->dead_at_point)
		return;
	guest_writes(c);
	c->left--;
	act(c);
}

bool client_done(const struct sim_client *c)
{
	return c->left == 0;
}

void client_start(struct sim_client *c, struct sim_world *w, struct sim_host *h, int i)
{
	c->world = w;
	c->host = h;
	c->index = i;
	c->prng = prng_fork(&w->prng);
	c->left = w->profile.actions;
	timer_init(&c->timer, w->loop, "sim.client", client_turn, c);
	timer_start_ms(&c->timer, i + 1);
}
