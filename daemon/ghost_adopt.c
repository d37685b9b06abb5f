/* A ghost becomes a VM while it runs: ghosts.h shows the steps. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/daemon.h"
#include "daemon/ghosts_internal.h"
#include "daemon/tasks.h"
#include "vm/vm_ghost_marks.h"
#include "vm/vm_op.h"

enum {
	STATIC_MIN_KIB = 16 << 10,
};
enum adopt_state { LOOK, DEVICES, LEAVE, RECORD, DOWN, DONE, FAILED, STATE_COUNT };

static const struct op_state states[STATE_COUNT] = {
	[LOOK] = {"look", OP_TO(DEVICES) | OP_TO(FAILED)},
	[DEVICES] = {"devices", OP_TO(LEAVE) | OP_TO(DOWN)},
	[LEAVE] = {"leave", OP_TO(RECORD) | OP_TO(DOWN)},
	[RECORD] = {"record", OP_TO(DONE) | OP_TO(DOWN)},
	[DOWN] = {"down", OP_TO(FAILED)},
	[DONE] = {"done", 0},
	[FAILED] = {"failed", 0},
};

static const struct op_table table = {"vm.adopt", states, STATE_COUNT, LOOK};

struct adoption {
	struct op op;
	struct list node;
	struct ghosts *all;
	struct call *task_of;
	adopted_fn *fn;
	void *arg;
	uint32_t domid;
	struct hyper_req req;
	struct hyper_domain domain; /* once looked at */
	struct uuid vm;
	bool fresh, claimed;
	char name[RV_MAX_NAME_BYTES + 1];
	uint64_t generation; /* that it gets */
	struct vm_devices devices;
	struct vm_entry entry;
	struct job job;
	char domain_name[HYPER_NAME_SIZE];
	struct xl_leave leave;
};

static struct adoption *adoption_of(struct op *op)
{
	return CONTAINER_OF(op, struct adoption, op);
}

bool ghost_is_adopted(const struct ghosts *g, const struct hyper_domain_id *id)
{
	LIST_FOR_EACH (node, &g->adoptions) {
		const struct adoption *a = CONTAINER_OF(node, struct adoption, node);

		if (a->claimed && a->domain.id.domid == id->domid)
			return true;
	}
	return false;
}

static void adopt_answered(void *arg, uint64_t token, int rc)
{
	struct adoption *a = arg;

	(void)rc;
	if (op_resume(&a->op, token))
		a->op.step(&a->op);
}

/* --- the entry --- */

static void txn_memory(struct adoption *a, const struct row *vm, struct txn *t)
{
	const struct hyper_domain *d = &a->domain;
	uint64_t most = d->static_max_kib,
		 now = d->target_kib ? d->target_kib : d->actual_kib;
	uint64_t least = now < STATIC_MIN_KIB ? now : STATIC_MIN_KIB;

	if (most < d->actual_kib)
		most = d->actual_kib;
	if (now > most)
		now = most;
	/* What an admin has said already holds, where it fits what runs. */
	if (vm && (uint64_t)db_int(vm, VM_MEMORY_STATIC_MAX) >> 10 == most)
		return;
	txn_set_int(t, a->vm, VM_MEMORY_STATIC_MIN, (int64_t)(least << 10));
	txn_set_int(t, a->vm, VM_MEMORY_DYNAMIC_MIN, (int64_t)(now << 10));
	txn_set_int(t, a->vm, VM_MEMORY_DYNAMIC_MAX, (int64_t)(now << 10));
	txn_set_int(t, a->vm, VM_MEMORY_STATIC_MAX, (int64_t)(most << 10));
}

static void txn_unblock(struct adoption *a, const struct row *vm, struct txn *t)
{
	const struct value *blocked = row_value(vm, VM_BLOCKED_OPERATIONS);

	for (size_t i = 0; i < value_count(blocked); i++)
		if (strcmp(value_at(blocked, i), GHOSTS_BLOCKED) == 0)
			txn_map_remove(t, a->vm, VM_BLOCKED_OPERATIONS,
				value_key_at(blocked, i));
}

/* What the database knows of its devices; a running domain's own are not looked for. */
static bool say_devices(
	const struct adoption *a, const struct db *db, char *text, size_t size)
{
	size_t drives = 0, nics = 0;

	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VM, a->vm, r));)
		drives++;
	for (const struct row *r = NULL; (r = db_next_ref(db, VIF_VM, a->vm, r));)
		nics++;
	if (drives + nics)
		snprintf(text, size,
			", with what is on record (drives: %zu, interfaces: %zu)", drives,
			nics);
	else
		snprintf(text, size,
			". No drive and no interface of it is on record: it keeps what "
			"it "
			"has while it runs, but starts without, and nobody guards its "
			"disks. Give it the records: vm-import-xl with its configuration "
			"and then vm-adopt vm=, or vdi-introduce, vbd-create, vif-create "
			"while it is halted");
	return drives + nics > 0;
}

static void txn_say(struct adoption *a, const struct db *db, struct txn *t)
{
	const char *done = a->leave.processes && a->leave.links
				   ? "; its xl was ended and its link in /etc/xen/auto "
				     "removed"
			   : a->leave.processes ? "; its xl was ended"
			   : a->leave.links ? "; its link in /etc/xen/auto was removed"
					    : "";
	char body[960], devices[400];
	bool known = say_devices(a, db, devices, sizeof devices);

	snprintf(body, sizeof body, "domain %u (%.64s) runs on as VM %.64s%s%s%s%s",
		a->domain.id.domid, a->domain_name, a->name, done, devices,
		a->leave.words[0] ? ". " : "", a->leave.words);
	vm_txn_message(t, a->all->daemon->vms, "VM_ADOPTED",
		a->leave.words[0] || !known ? 2 : 3, a->vm, body);
}

static void txn_adopt(void *arg, const struct db *db, struct txn *t)
{
	struct adoption *a = arg;
	const struct row *vm = db_row(db, CLASS_VM, a->vm);
	struct hyper_domain_id id = a->domain.id;
	bool paused = a->domain.state == HYPER_PAUSED;
	uint32_t vcpus = a->domain.vcpus_online ? a->domain.vcpus_online : 1;
	struct value result = value_ref(a->vm);
	char host[UUID_TEXT_SIZE];

	if (a->fresh) {
		txn_expect_name_free(t, CLASS_VM, a->name);
		txn_create(t, CLASS_VM, a->vm);
		txn_set_string(t, a->vm, VM_NAME_LABEL, a->name);
		txn_set_int(t, a->vm, VM_VCPUS_MAX, vcpus);
		txn_set_int(t, a->vm, VM_VCPUS_AT_STARTUP, vcpus);
		txn_set_enum(t, a->vm, VM_DOMAIN_TYPE, (int)a->domain.type);
	} else {
		txn_expect_enum(t, a->vm, VM_POWER_STATE, VM_POWER_STATE_HALTED);
		txn_expect_unset(t, a->vm, VM_CURRENT_OPERATIONS);
		txn_expect_int(t, a->vm, VM_OWNER_GENERATION, (int64_t)a->generation - 1);
	}
	id.generation = a->generation;
	txn_memory(a, vm, t);
	txn_set_enum(t, a->vm, VM_POWER_STATE,
		paused ? VM_POWER_STATE_PAUSED : VM_POWER_STATE_RUNNING);
	if (paused)
		txn_set_string(t, a->vm, VM_PAUSED_BY, "it was adopted so");
	vm_txn_domain(db, t, a->vm, &id, a->all->daemon->host);
	vm_txn_attached(db, t, a->vm);
	if (vm)
		txn_unblock(a, vm, t);
	uuid_format(&a->all->daemon->host, host);
	txn_map_remove(t, a->vm, VM_GHOSTS, host);
	vm_ghost_unmark_txn(db, a->domain.vm, a->all->daemon->host, t);
	txn_say(a, db, t);
	if (a->task_of && !uuid_is_none(&a->task_of->request))
		tasks_add_finished(a->task_of, t, a->vm, &result);
}

static bool adopt_holds(void *arg, const struct db *db)
{
	struct adoption *a = arg;
	const struct row *vm = db_row(db, CLASS_VM, a->vm);
	struct hyper_domain_id id;

	return vm && vm_recorded(vm, &id) && id.generation == a->generation &&
	       uuid_eq(&id.handle, &a->domain.id.handle);
}

/* --- steps --- */

/* The domain's name, without what makes the names of our own ghosts unique. */
static void own_name(struct adoption *a, const struct hyper_domain *d)
{
	char vm[UUID_TEXT_SIZE];
	size_t len = strlen(d->name);

	snprintf(a->name, sizeof a->name, "%s", d->name);
	if (!uuid_is_none(&d->vm) && len > 9 && d->name[len - 9] == '-' &&
		strncmp(d->name + len - 8, uuid_format(&d->vm, vm), 8) == 0)
		a->name[len - 9] = '\0';
}

static bool ghost_elsewhere(
	const struct daemon *d, const struct row *vm, struct vm_ghost_mark *ghost)
{
	for (unsigned i = 0; vm_ghost_marked_at(pool_db(d->pool), vm, &i, ghost);) {
		struct uuid host = row_uuid(ghost->host);

		if (!uuid_eq(&host, &d->host))
			return true;
	}
	return false;
}

/* What speaks against it. */
static int adopt_check(struct adoption *a, const struct hyper_domain *d)
{
	struct daemon *daemon = a->all->daemon;
	const struct row *vm = db_row(pool_db(daemon->pool), CLASS_VM, a->vm);
	const struct row *left = db_row(pool_db(daemon->pool), CLASS_VM, d->vm);
	struct vm_ghost_mark ghost;
	struct rv_error e = {0};

	if (ghost_is_adopted(a->all, &d->id))
		return op_fail(
			&a->op, RV_EBUSY, "domain %u is being adopted already", a->domid);
	if (d->state != HYPER_RUNNING && d->state != HYPER_PAUSED)
		return op_fail(&a->op, RV_ESTATE,
			"domain %u (%s) is %s: only one that runs or is paused can be "
			"adopted; end it with host-ghost-destroy",
			a->domid, d->name, hyper_state_name(d->state));
	/* Adopted as another one, it would keep that VM from nothing any more. */
	if (left && !uuid_eq(&d->vm, &a->vm))
		return op_fail(&a->op, RV_ESTATE,
			"domain %u (%s) is left of VM %s, to whose disks it may be "
			"writing, so it can be no other VM: adopt it as that one "
			"(vm=%s), or end it (host-ghost-destroy)",
			a->domid, d->name, row_name(left), row_name(left));
	if (a->fresh && call_name_check(CLASS_VM, a->name[0] ? a->name : d->name, &e))
		return op_fail_with(&a->op, &e);
	if (a->fresh)
		return 0;
	if (!vm || db_bool(vm, VM_IS_A_TEMPLATE) || db_bool(vm, VM_IS_A_SNAPSHOT))
		return op_fail(&a->op, RV_ENOENT,
			"there is no such VM, or it is a template or snapshot");
	if (db_enum(vm, VM_POWER_STATE) != VM_POWER_STATE_HALTED ||
		value_count(row_value(vm, VM_CURRENT_OPERATIONS)))
		return op_fail(&a->op, RV_ESTATE,
			"VM %s is not halted, or an operation is at work on it: it can't "
			"have another domain",
			row_name(vm));
	if (ghost_elsewhere(daemon, vm, &ghost))
		return op_fail(&a->op, RV_ESTATE,
			"VM %s has domain %u (%s) on host %s, too: end that one first "
			"(host-ghost-destroy host=%s domid=%u)",
			row_name(vm), ghost.domid, ghost.name, row_name(ghost.host),
			row_name(ghost.host), ghost.domid);
	if (db_enum(vm, VM_DOMAIN_TYPE) != (int)d->type)
		return op_fail(&a->op, RV_ESTATE,
			"VM %s and domain %u are not of the same type (domain-type)",
			row_name(vm), a->domid);
	return 0;
}

static void adopt_fail(struct adoption *a)
{
	if (a->claimed)
		(void)vm_ghost_claim(a->all->daemon->vms, &a->all->daemon->host,
			&a->domain.id, &a->domain.vm);
	op_move(&a->op, FAILED);
	op_finish(&a->op);
}

static void adopt_down(struct adoption *a)
{
	op_move(&a->op, DOWN);
	vm_devices_down(&a->devices, a->generation, false, adopt_answered, a,
		op_await(&a->op, 0));
}

static void enter_devices(struct adoption *a)
{
	struct daemon *d = a->all->daemon;
	const struct row *vm = db_row(pool_db(d->pool), CLASS_VM, a->vm);
	struct rv_error e = {0};

	op_move(&a->op, DEVICES);
	a->generation = vm ? (uint64_t)db_int(vm, VM_OWNER_GENERATION) + 1 : 1;
	if (vm && vm_devices_load(&a->devices, pool_db(d->pool), vm, UUID_NONE, &e)) {
		op_fail_with(&a->op, &e);
		adopt_down(a);
		return;
	}
	vm_devices_up(&a->devices, a->generation, adopt_answered, a, op_await(&a->op, 0));
}

static void in_look(struct adoption *a)
{
	const struct hyper_domain *d = NULL;
	const struct row *vm;
	struct rv_error e = {0};

	if (a->req.rc)
		op_fail_with(&a->op, &a->req.error);
	else if (!(d = ghost_find(a->all, &a->req, a->domid, &e)))
		op_fail_with(&a->op, &e);
	if (!d || adopt_check(a, d)) {
		adopt_fail(a);
		return;
	}
	a->domain = *d;
	snprintf(a->domain_name, sizeof a->domain_name, "%s", d->name);
	vm = db_row(pool_db(a->all->daemon->pool), CLASS_VM, a->vm);
	if (vm)
		snprintf(a->name, sizeof a->name, "%s", row_name(vm));
	else if (!a->name[0])
		own_name(a, d);
	a->claimed = vm_ghost_claim(
		a->all->daemon->vms, &a->all->daemon->host, &d->id, &a->vm);
	enter_devices(a);
}

static void leave_run(struct job *job)
{
	struct adoption *a = CONTAINER_OF(job, struct adoption, job);

	xl_leave("", a->domain_name, &a->leave);
}

static void leave_done(struct job *job, int rc)
{
	struct adoption *a = CONTAINER_OF(job, struct adoption, job);

	if (rc)
		snprintf(a->leave.words, sizeof a->leave.words,
			"whether an xl watches over it is not known: look with ps");
	if (a->op.awaiting && op_resume(&a->op, a->op.token))
		a->op.step(&a->op);
}

static void enter_leave(struct adoption *a)
{
	op_move(&a->op, LEAVE);
	(void)op_await(&a->op, 0);
	a->job = (struct job){.run = leave_run, .done = leave_done, .name = "xl.leave"};
	if (worker_submit(a->all->daemon->worker, &a->job) == 0)
		return;
	(void)op_resume(&a->op, a->op.token);
	op_fail(&a->op, RV_ELIMIT, "too much is being looked at; ask again later");
	adopt_down(a);
}

static void in_record(struct adoption *a)
{
	if (a->entry.rc) {
		op_fail_with(&a->op, &a->entry.error);
		adopt_down(a);
		return;
	}
	op_move(&a->op, DONE);
	vm_manager_look(a->all->daemon->vms); /* the label follows */
	op_finish(&a->op);
}

static void adopt_step(struct op *op)
{
	struct adoption *a = adoption_of(op);

	if (op->awaiting)
		return;
	switch ((enum adopt_state)op->state) {
	case LOOK:
		if (a->req.call == HYPER_CALL_NONE) {
			a->req.token = op_await(op, 0);
			hyper_list(a->all->daemon->hyper, &a->req);
		} else {
			in_look(a);
		}
		return;
	case DEVICES:
		if (a->devices.rc) {
			op_fail_with(op, &a->devices.error);
			adopt_down(a);
		} else {
			enter_leave(a);
		}
		return;
	case LEAVE:
		op_move(op, RECORD);
		vm_entry_commit(&a->entry, txn_adopt, adopt_holds, false, adopt_answered,
			a, op_await(op, 0));
		return;
	case RECORD:
		in_record(a);
		return;
	case DOWN:
		adopt_fail(a);
		return;
	default:
		vm_op_lost(op);
	}
}

static void adopt_listed(void *arg, struct hyper_req *req)
{
	struct adoption *a = arg;

	if (op_resume(&a->op, req->token))
		a->op.step(&a->op); /* the list is there in this callback only */
}

static void adoption_free(struct adoption *a)
{
	list_remove(&a->node);
	vm_devices_fini(&a->devices);
	free(a);
}

static void adopt_done(struct op *op)
{
	struct adoption *a = adoption_of(op);

	a->fn(a->arg, a->vm, op->error.code, &op->error);
	adoption_free(a);
}

int ghosts_adopt(struct ghosts *g, uint32_t domid, struct uuid vm, const char *name,
	struct call *task_of, adopted_fn *fn, void *arg, struct rv_error *e)
{
	struct daemon *d = g->daemon;
	struct adoption *a = calloc(1, sizeof *a);
	char subject[OP_SUBJECT_MAX];

	if (!a)
		return rv_error_set(e, RV_ENOMEM, "out of memory; ask again later");
	a->all = g;
	a->domid = domid;
	a->fresh = uuid_is_none(&vm);
	a->vm = a->fresh ? uuid_random(loop_prng(d->loop)) : vm;
	snprintf(a->name, sizeof a->name, "%s", name);
	a->task_of = task_of;
	a->fn = fn;
	a->arg = arg;
	hyper_req_init(&a->req, adopt_listed, a);
	vm_devices_init(&a->devices, d->loop, d->storage, d->net);
	vm_entry_init(&a->entry, d->loop, d->pool);
	list_push_back(&g->adoptions, &a->node);
	snprintf(subject, sizeof subject, "domid=%u name=%.64s", domid, name);
	op_start(&a->op, d->loop, &table, adopt_step, adopt_done, subject);
	return 0;
}

/* --- VM.adopt --- */

static void adopt_reply(void *arg, struct uuid vm, int rc, const struct rv_error *e)
{
	struct call *c = arg;
	struct value v = value_ref(vm);

	if (!rc)
		call_reply(c, &v);
	else if (!tasks_join_first(c))
		call_fail(c, e);
}

void vm_adopt(struct call *c)
{
	const struct row *host = call_row(c, "host");
	struct uuid uuid, vm = UUID_NONE;
	struct rv_error e = {0};
	uint32_t domid;

	if (!host || !ghost_domid(c, &domid))
		return;
	uuid = row_uuid(host);
	if (!uuid_eq(&uuid, &c->daemon->host)) {
		call_failf(c, RV_ENOTALLOWED, "host %s is another machine; ask it there",
			row_name(host));
		return;
	}
	if (call_arg(c, "vm")) {
		const struct row *row = call_row(c, "vm");

		if (!row)
			return;
		vm = row_uuid(row);
	}
	if (!uuid_is_none(&vm) && call_text(c, "new_name")[0]) {
		call_failf(c, RV_EPARAM,
			"give vm or new-name, not both: new-name is of a VM that is "
			"made");
		return;
	}
	if (call_text(c, "new_name")[0] &&
		call_name_check(CLASS_VM, call_text(c, "new_name"), &e)) {
		call_fail(c, &e);
		return;
	}
	if (call_keep(c)) {
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return;
	}
	if (ghosts_adopt(c->daemon->ghosts, domid, vm, call_text(c, "new_name"), c,
		    adopt_reply, c, &e))
		call_fail(c, &e);
}
/* --- life --- */

void ghost_adoptions_stop(struct ghosts *g)
{
	LIST_FOR_EACH (node, &g->adoptions) {
		struct adoption *a = CONTAINER_OF(node, struct adoption, node);

		op_drop(&a->op);
		vm_devices_stop(&a->devices);
		vm_entry_stop(&a->entry);
	}
}

void ghost_adoptions_free(struct ghosts *g)
{
	LIST_FOR_EACH_SAFE (node, &g->adoptions)
		adoption_free(CONTAINER_OF(node, struct adoption, node));
}
