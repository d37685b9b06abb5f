/*
 * Three kinds of rules:
 * - of this moment (model_event): vm/'s own invariants against the hypervisor's truth,
 *   memory, claims;
 * - of history: every applied entry leaves the database with a hash; the same sequence
 *   number must have the same hash in every later life, and none may be missing. Tasks
 *   are looked at after each entry: they end once and then never change. What a client
 *   was told must be so in the database of that moment;
 * - of rest (model_rest.c): nothing is left over.
 */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "client.h"
#include "look.h"
#include "model_look.h"
#include "memctl/memctl.h"
#include "vm/vm_invariants.h"
#include "vm/vm_memory.h"

/* --- life --- */

void model_init(struct sim_host *h)
{
	list_init(&h->tasks);
	list_init(&h->numbers);
	list_init(&h->disks);
	map_init(&h->tasks_by_uuid, 1);
}

void model_fini(struct sim_host *h)
{
	LIST_FOR_EACH_SAFE (node, &h->tasks)
		free(CONTAINER_OF(node, struct sim_task, node));
	LIST_FOR_EACH_SAFE (node, &h->numbers)
		free(CONTAINER_OF(node, struct sim_numbers, node));
	LIST_FOR_EACH_SAFE (node, &h->disks)
		free(CONTAINER_OF(node, struct sim_disk, node));
	map_fini(&h->tasks_by_uuid);
	free(h->hashes);
}

/* --- tasks --- */

struct sim_task *model_task(struct sim_host *h, const struct uuid *uuid)
{
	return map_get(&h->tasks_by_uuid, uuid, sizeof *uuid);
}

static struct sim_task *task_new(struct sim_host *h, struct uuid uuid)
{
	struct sim_task *t = calloc(1, sizeof *t);

	if (!t)
		abort();
	t->uuid = uuid;
	t->kind = VM_OP_COUNT;
	list_push_back(&h->tasks, &t->node);
	if (map_add(&h->tasks_by_uuid, &t->uuid, sizeof t->uuid, t))
		abort();
	h->task_count++;
	return t;
}

struct sim_task *model_asked(struct sim_host *h, struct uuid uuid, enum vm_operation kind,
	const struct vm_op_args *args)
{
	struct sim_task *t = model_task(h, &uuid);

	if (!t) {
		t = task_new(h, uuid);
		t->asked = true;
		t->kind = kind;
		t->args = *args;
		t->args.user = t->args.origin = NULL;
		if (args->new_name)
			snprintf(t->new_name, sizeof t->new_name, "%s", args->new_name);
		t->args.new_name = NULL;
	}
	t->refused = false;
	t->tries++;
	return t;
}

void model_accepted(struct sim_host *h, struct sim_task *t)
{
	char text[UUID_TEXT_SIZE];

	if (!db_row(db_of(h), CLASS_TASK, t->uuid))
		sim_fail("task %s (%s) was accepted and is not in the database",
			text_of(t->uuid, text), vm_operation_name(t->kind));
	if (!t->accepted)
		trail_get()->totals.actions[client_action(t->kind)]++;
	t->accepted = true;
}

void model_refused(struct sim_host *h, struct sim_task *t, int rc)
{
	char text[UUID_TEXT_SIZE];

	/* Not known to this host: it may lead again and find it done. */
	if (rc == RV_ENOTMASTER)
		return;
	if (t->accepted || t->seen) {
		/* A repeat is the same task, whenever it is asked for. */
		if (rc != RV_EAGAIN && rc != RV_ELIMIT)
			sim_fail("task %s (%s) was accepted, and its repeat refused: %s",
				text_of(t->uuid, text), vm_operation_name(t->kind),
				rv_error_symbol(rc));
		return;
	}
	if (db_row(db_of(h), CLASS_TASK, t->uuid))
		sim_fail("task %s (%s) was refused (%s) and is in the database",
			text_of(t->uuid, text), vm_operation_name(t->kind),
			rv_error_symbol(rc));
	t->refused = true;
}

static uint64_t ending_of(const struct row *task)
{
	char text[2048];
	int n = snprintf(text, sizeof text, "%d %lld %s %s %s %lld",
		db_enum(task, TASK_STATUS), (long long)db_int(task, TASK_FINISHED),
		db_string(task, TASK_RESULT), db_string(task, TASK_ERROR_CODE),
		db_string(task, TASK_ERROR_DETAIL),
		(long long)db_int(task, TASK_ERROR_NUMBER));

	return XXH3_64bits(text, (size_t)n);
}

static bool domain_lives(struct sim_host *h, struct uuid vm)
{
	struct hyper_domain domains[SIM_MAX_DOMAINS];
	size_t n = look_domains(h->hyper, domains, SIM_MAX_DOMAINS);

	for (size_t i = 0; i < n; i++)
		if (uuid_eq(&domains[i].vm, &vm) && domains[i].state != HYPER_DYING)
			return true;
	return false;
}

/* The domain does what was asked for, if it is still there. */
static void must_not_be(struct sim_host *h, const struct sim_task *t,
	const struct row *vm, enum hyper_state state)
{
	struct hyper_domain domains[SIM_MAX_DOMAINS];
	size_t n = look_domains(h->hyper, domains, SIM_MAX_DOMAINS);
	struct uuid uuid = row_uuid(vm);

	for (size_t i = 0; i < n; i++)
		if (uuid_eq(&domains[i].vm, &uuid) && domains[i].state == state)
			sim_fail("%s of VM %s succeeded, and its domain %u is in state "
				 "%d",
				vm_operation_name(t->kind), row_name(vm),
				domains[i].id.domid, state);
}

static void must_be(struct sim_host *h, const struct sim_task *t, const struct row *vm,
	enum vm_power_state state)
{
	if (!vm || db_enum(vm, VM_POWER_STATE) != (int)state)
		sim_fail("%s of VM %s succeeded, and it is in state %d",
			vm_operation_name(t->kind), vm ? row_name(vm) : "(gone)",
			vm ? db_enum(vm, VM_POWER_STATE) : -1);
	if (state == VM_POWER_STATE_PAUSED)
		must_not_be(h, t, vm, HYPER_RUNNING);
	if (state == VM_POWER_STATE_RUNNING)
		must_not_be(h, t, vm, HYPER_PAUSED);
}

/* The copies hold what the originals do: the source is at rest until this very entry. */
static void must_be_copied(struct sim_host *h, const struct row *task, struct uuid source)
{
	const struct db *db = db_of(h);
	struct uuid target;
	const struct row *a = NULL, *b = NULL;

	if (uuid_parse(&target, db_string(task, TASK_RESULT), UUID_TEXT_LEN) ||
		!db_row(db, CLASS_VM, target))
		sim_fail("a clone succeeded, and there is no VM '%s'",
			db_string(task, TASK_RESULT));
	while ((a = db_next_ref(db, VBD_VM, source, a))) {
		struct uuid from = db_ref(a, VBD_VDI), to;

		b = db_next_ref(db, VBD_VM, target, b);
		if (!b)
			sim_fail("a clone has fewer drives than its origin");
		to = db_ref(b, VBD_VDI);
		if (storage_sim_vdi_hash(h->bytes, from) !=
			storage_sim_vdi_hash(h->bytes, to))
			sim_fail("a disk of a clone differs from its origin's");
		if (storage_sim_vdi_hash(h->bytes, to))
			model_disk(h, to)->hash = storage_sim_vdi_hash(h->bytes, to);
	}
}

static void check_success(struct sim_host *h, const struct sim_task *t)
{
	const struct row *task = db_row(db_of(h), CLASS_TASK, t->uuid);
	const struct row *vm = db_row(db_of(h), CLASS_VM, db_ref(task, TASK_SUBJECT));

	switch (t->kind) {
	case VM_OP_START:
	case VM_OP_START_ON:
	case VM_OP_RESUME:
		must_be(h, t, vm,
			t->args.start_paused ? VM_POWER_STATE_PAUSED
					     : VM_POWER_STATE_RUNNING);
		break;
	case VM_OP_UNPAUSE:
	case VM_OP_CLEAN_REBOOT:
	case VM_OP_HARD_REBOOT:
		must_be(h, t, vm, VM_POWER_STATE_RUNNING);
		break;
	case VM_OP_PAUSE:
		must_be(h, t, vm, VM_POWER_STATE_PAUSED);
		break;
	case VM_OP_SUSPEND:
		must_be(h, t, vm, VM_POWER_STATE_SUSPENDED);
		break;
	case VM_OP_CLEAN_SHUTDOWN:
	case VM_OP_HARD_SHUTDOWN:
		must_be(h, t, vm, VM_POWER_STATE_HALTED);
		if (domain_lives(h, row_uuid(vm)))
			sim_fail("%s of VM %s succeeded, and its domain lives",
				vm_operation_name(t->kind), row_name(vm));
		break;
	case VM_OP_DESTROY:
		if (vm)
			sim_fail("destroy of VM %s succeeded, and it is there",
				row_name(vm));
		break;
	case VM_OP_CLONE:
		must_be_copied(h, task, db_ref(task, TASK_SUBJECT));
		break;
	case VM_OP_PROVISION:
		must_be(h, t, vm, VM_POWER_STATE_HALTED);
		if (db_bool(vm, VM_IS_A_TEMPLATE))
			sim_fail("provision of VM %s succeeded, and it is a template",
				row_name(vm));
		break;
	default:
		break;
	}
}

/* To be asked for again; what it had deleted stays so. */
static void destroy_failed(struct sim_host *h, struct uuid vm)
{
	for (const struct row *r = NULL; (r = db_next_ref(db_of(h), VBD_VM, vm, r));) {
		struct uuid vdi = db_ref(r, VBD_VDI);

		if (!uuid_is_none(&vdi))
			model_disk(h, vdi)->may_be_gone = true;
	}
}

static void task_ended(struct sim_host *h, struct sim_task *t, const struct row *task)
{
	struct sim_totals *totals = &trail_get()->totals;
	int status = db_enum(task, TASK_STATUS);

	t->status = status;
	t->ending = ending_of(task);
	t->ended_seq = row_seq(task);
	sim_note("%s task %s %s: %s", h->name, db_string(task, TASK_METHOD),
		status == TASK_STATUS_SUCCESS	? "succeeded"
		: status == TASK_STATUS_FAILURE ? "failed"
						: "cancelled",
		db_string(task, TASK_ERROR_DETAIL));
	if (db_int(task, TASK_FINISHED) == 0)
		sim_fail("a task has ended without a time");
	if (status == TASK_STATUS_FAILURE && !*db_string(task, TASK_ERROR_DETAIL))
		sim_fail("%s failed without a reason", db_string(task, TASK_METHOD));
	if (db_int(task, TASK_ERROR_NUMBER) == -RV_ECORRUPT)
		sim_fail("%s found damage, and nothing was damaged: %s",
			db_string(task, TASK_METHOD), db_string(task, TASK_ERROR_DETAIL));
	totals->failed += status == TASK_STATUS_FAILURE;
	totals->cancelled += status == TASK_STATUS_CANCELLED;
	if (status != TASK_STATUS_SUCCESS && t->kind == VM_OP_DESTROY)
		destroy_failed(h, db_ref(task, TASK_SUBJECT));
	if (status != TASK_STATUS_SUCCESS || !t->asked)
		return;
	totals->succeeded[client_action(t->kind)]++;
	check_success(h, t);
}

static void look_task(struct sim_host *h, const struct row *task)
{
	struct uuid uuid = row_uuid(task);
	struct sim_task *t = model_task(h, &uuid);
	int status = db_enum(task, TASK_STATUS);
	char text[UUID_TEXT_SIZE];

	if (!t)
		t = task_new(h, uuid);
	if (!t->seen) {
		if (t->refused)
			sim_fail("task %s (%s) was refused and is there",
				text_of(uuid, text), vm_operation_name(t->kind));
		t->seen = true;
		t->status = TASK_STATUS_PENDING;
		t->created_ms = db_int(task, TASK_CREATED);
	}
	if (t->created_ms != db_int(task, TASK_CREATED))
		sim_fail("task %s was begun twice", text_of(uuid, text));
	if (t->ended_seq) {
		if (t->ending != ending_of(task))
			sim_fail("task %s (%s) has ended at %llu, and ended again",
				text_of(uuid, text), db_string(task, TASK_METHOD),
				(unsigned long long)t->ended_seq);
	} else if (status != TASK_STATUS_PENDING && status != TASK_STATUS_CANCELLING) {
		task_ended(h, t, task);
	}
}

static void look_tasks(struct sim_host *h)
{
	const struct db *db = db_of(h);

	for (const struct row *t = NULL; (t = db_next(db, CLASS_TASK, t));)
		look_task(h, t);
}

void model_tasks_are_there(struct sim_host *h)
{
	char text[UUID_TEXT_SIZE];

	LIST_FOR_EACH (node, &h->tasks) {
		struct sim_task *t = CONTAINER_OF(node, struct sim_task, node);
		const struct row *row = db_row(db_of(h), CLASS_TASK, t->uuid);

		if ((t->seen || t->accepted) && !row)
			sim_fail("task %s (%s) is lost", text_of(t->uuid, text),
				vm_operation_name(t->kind));
		if (row)
			look_task(h, row);
	}
}

/* --- numbers that clients wrote --- */

struct sim_numbers *model_numbers(struct sim_host *h, struct uuid vm)
{
	struct sim_numbers *n;

	LIST_FOR_EACH (node, &h->numbers) {
		n = CONTAINER_OF(node, struct sim_numbers, node);
		if (uuid_eq(&n->vm, &vm))
			return n;
	}
	n = calloc(1, sizeof *n);
	if (!n)
		abort();
	n->vm = vm;
	list_push_back(&h->numbers, &n->node);
	return n;
}

static void look_number(struct sim_host *h, struct sim_numbers *n)
{
	const struct row *vm = db_row(db_of(h), CLASS_VM, n->vm);
	char key[UUID_TEXT_SIZE]; /* clones inherit their origin's */
	const char *text =
		vm ? db_map_get(vm, VM_OTHER_CONFIG, uuid_format(&n->vm, key)) : NULL;
	int64_t is = text ? strtoll(text, NULL, 10) : 0;

	if (!vm)
		return; /* destroyed; the hashes tell whether rightly */
	if (is < n->acked || is > n->issued)
		sim_fail("VM %s: %lld was acknowledged, %lld is there", row_name(vm),
			(long long)n->acked, (long long)is);
	for (unsigned i = 0; i < n->refused_count && i < 16; i++)
		if (n->refused[i] == (uint64_t)is)
			sim_fail("VM %s: write %lld was refused, and is there",
				row_name(vm), (long long)is);
	n->acked = is; /* seen once, it stays */
}

void model_wrote(struct sim_host *h, struct sim_numbers *n, int64_t number, int rc)
{
	n->open = false;
	if (rc == 0)
		n->acked = number;
	else if (rc != RV_EOUTCOME)
		n->refused[n->refused_count++ % 16] = (uint64_t)number;
	look_number(h, n);
}

/* --- disks --- */

struct sim_disk *model_disk(struct sim_host *h, struct uuid vdi)
{
	struct sim_disk *d;

	LIST_FOR_EACH (node, &h->disks) {
		d = CONTAINER_OF(node, struct sim_disk, node);
		if (uuid_eq(&d->vdi, &vdi))
			return d;
	}
	d = calloc(1, sizeof *d);
	if (!d)
		abort();
	d->vdi = vdi;
	d->hash = storage_sim_vdi_hash(h->bytes, vdi);
	list_push_back(&h->disks, &d->node);
	return d;
}

/* --- history --- */

static void history_at(struct sim_host *h, uint64_t seq)
{
	struct db_hash now = db_hash(db_of(h));
	size_t room = h->hash_room;

	if (seq >= room) {
		h->hash_room = seq * 2 + 64;
		h->hashes = realloc(h->hashes, h->hash_room * sizeof *h->hashes);
		if (!h->hashes)
			abort();
		memset(h->hashes + room, 0, (h->hash_room - room) * sizeof *h->hashes);
	}
	if (h->hashes[seq].hi | h->hashes[seq].lo) {
		if (h->hashes[seq].hi != now.hi || h->hashes[seq].lo != now.lo)
			sim_fail("%s: entry %llu was applied, and is another one after a "
				 "crash",
				h->name, (unsigned long long)seq);
	} else if (seq <= h->seq && h->seq > 0) {
		sim_fail("%s: entry %llu took no effect, and takes one after a crash",
			h->name, (unsigned long long)seq);
	}
	h->hashes[seq] = now;
	if (seq > h->seq)
		h->seq = seq;
}

static void history_follow(struct pool_subscriber *s, const struct db_result *r)
{
	struct sim_host *h = CONTAINER_OF(s, struct sim_host, subscriber);

	if (!r)
		return;
	history_at(h, r->seq);
	if (r->seq == h->seq) /* not what a former life had applied already */
		look_tasks(h);
}

void model_follow(struct sim_host *h)
{
	pool_subscribe(h->pool, &h->subscriber, history_follow);
}

void model_recovered(struct sim_host *h)
{
	uint64_t seq = pool_seq(h->pool);
	struct pool_status status;

	if (seq < h->seq)
		sim_fail("%s: entry %llu was applied, only %llu are there after a crash",
			h->name, (unsigned long long)h->seq, (unsigned long long)seq);
	pool_status(h->pool, &status);
	if (status.db_differs)
		sim_fail("%s: its database's hash differs from its own", h->name);
	LIST_FOR_EACH (node, &h->numbers) {
		struct sim_numbers *n = CONTAINER_OF(node, struct sim_numbers, node);

		n->open = false;
		look_number(h, n);
	}
	model_tasks_are_there(h);
}

/* --- this moment --- */

static void check_vdi(void *arg, const struct look_vdi *v)
{
	char text[UUID_TEXT_SIZE];

	(void)arg;
	if (v->writers > 1)
		sim_fail("VDI %s has %u writers", text_of(v->uuid, text), v->writers);
	if (v->writers && v->readers)
		sim_fail("VDI %s has a writer and %u readers", text_of(v->uuid, text),
			v->readers);
}

/* What a domain has open is claimed for its VM. */
static void check_domain_disks(struct sim_host *h, const struct hyper_domain *d)
{
	const struct db *db = db_of(h);

	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VM, d->vm, r));) {
		struct uuid vdi = db_ref(r, VBD_VDI);
		struct storage_sim_claims c;

		if (uuid_is_none(&vdi) ||
			!look_has_disk(h->hyper, d->id.domid, disk_number(r)))
			continue;
		c = storage_sim_vdi_claims(h->bytes, vdi);
		if (c.writers != 1 || !uuid_eq(&c.writer_holder, &d->vm))
			sim_fail("domain %u (%s) writes to disk %s, which is not claimed "
				 "for it",
				d->id.domid, d->name, db_string(r, VBD_USERDEVICE));
	}
}

/* What domains hold that are being built with a reservation: booked as that. */
static uint64_t being_built_kib(struct sim_host *h, const struct memctl *m,
	const struct hyper_domain *domains, size_t count)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < memctl_reservation_count(m); i++) {
		struct memctl_reservation r = memctl_reservation_at(m, i);
		const struct row *vm =
			db_next_ref(db_of(h), VM_INTENT_TASK, r.owner, NULL);
		struct uuid uuid = vm ? row_uuid(vm) : UUID_NONE;

		for (size_t d = 0; vm && d < count; d++) {
			struct memctl_view known;

			if (uuid_eq(&domains[d].vm, &uuid) &&
				memctl_domain_get(m, domains[d].id.domid, &known))
				sum += domains[d].actual_kib + domains[d].overhead_kib;
		}
	}
	return sum;
}

/* The books never show more as free than there is. */
static void check_books(struct sim_host *h, const struct memctl *m,
	const struct hyper_domain *domains, size_t count)
{
	uint64_t used_kib = h->hyper_config.dom0_kib, free_kib;

	for (size_t i = 0; i < count; i++)
		used_kib += domains[i].actual_kib + domains[i].overhead_kib;
	free_kib = h->hyper_config.memory_kib - used_kib +
		   being_built_kib(h, m, domains, count);
	if (memctl_totals(m).free_kib > free_kib)
		sim_fail("%s: %llu KiB are booked as free, there are %llu", h->name,
			(unsigned long long)memctl_totals(m).free_kib,
			(unsigned long long)free_kib);
}

void model_event(struct sim_host *h)
{
	struct hyper_domain domains[SIM_MAX_DOMAINS];
	struct vm_observed seen = {.host = h->uuid,
		.domains = domains,
		.total_kib = h->hyper_config.memory_kib,
		.dom0_kib = h->hyper_config.dom0_kib,
		.seq = UINT64_MAX};
	struct vm_memory *memory;
	struct rv_error e;

	seen.domain_count = look_domains(h->hyper, domains, SIM_MAX_DOMAINS);
	if (hyper_sim_check(h->hyper, &e))
		sim_fail("%s: %s", h->name, e.detail);
	look_vdis(h->bytes, check_vdi, NULL);
	memory = h->mgr ? vm_host_memory(h->mgr, &h->uuid) : NULL;
	if (!memory || !vm_memory_ready(memory))
		return;
	for (size_t i = 0; i < seen.domain_count; i++)
		if (domains[i].state != HYPER_DYING)
			check_domain_disks(h, &domains[i]);
	seen.memory = vm_memory_controller(memory);
	if (loop_now_us(h->world->loop) < h->ghost_until_us)
		seen.total_kib = 0; /* somebody else took what was promised */
	else
		check_books(h, seen.memory, domains, seen.domain_count);
	if (vm_invariants_check(db_of(h), &seen, 1, &e))
		sim_fail("%s: %s", h->name, e.detail);
}
