/*
 *	vm_op_start ─► checks ─► admit ─► intent ─► accepted(0), begin ─► ... ─► done
 *	     │                              ╰─ refused ─► accepted(rc), freed
 *	     ├─ hard_shutdown beside another: cancel that, wait for its end, again
 *	     ╰─ a clone beside a clone of the same VM: wait for its end, again
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/log.h"
#include "vm/vm_ghost_marks.h"
#include "vm/vm_op.h"

const struct vm_verb *const vm_verbs[VM_OP_COUNT] = {
	[VM_OP_START] = &vm_verb_start,
	[VM_OP_START_ON] = &vm_verb_start,
	[VM_OP_RESUME] = &vm_verb_resume,
	[VM_OP_CLEAN_SHUTDOWN] = &vm_verb_shutdown,
	[VM_OP_HARD_SHUTDOWN] = &vm_verb_shutdown,
	[VM_OP_CLEAN_REBOOT] = &vm_verb_reboot,
	[VM_OP_HARD_REBOOT] = &vm_verb_reboot,
	[VM_OP_PAUSE] = &vm_verb_pause,
	[VM_OP_UNPAUSE] = &vm_verb_unpause,
	[VM_OP_SUSPEND] = &vm_verb_suspend,
	[VM_OP_CLONE] = &vm_verb_clone,
	[VM_OP_PROVISION] = &vm_verb_provision,
	[VM_OP_DESTROY] = &vm_verb_destroy,
	[VM_OP_VBD_PLUG] = &vm_verb_hotplug,
	[VM_OP_VBD_UNPLUG] = &vm_verb_hotplug,
	[VM_OP_VIF_PLUG] = &vm_verb_hotplug,
	[VM_OP_VIF_UNPLUG] = &vm_verb_hotplug,
};

/* One that is told later: it joined an intent under way, or waits for the end of the
 * operation that its hard_shutdown has cancelled, or of the clone that came before. */
struct vm_wait {
	struct list node;
	struct vm_manager *mgr;
	struct uuid task, vm;
	bool start; /* a vm_op_start to be made when the VM is free */
	enum vm_operation kind;
	struct vm_op_args args; /* its strings are owned */
	vm_accepted_fn *accepted;
	void *arg;
	int rc;
	struct rv_error error;
	struct defer tell;
};

static void wait_free(struct vm_wait *w)
{
	free((char *)w->args.user);
	free((char *)w->args.origin);
	free((char *)w->args.new_name);
	free(w);
}

/* --- telling --- */

static void wait_tell(void *arg)
{
	struct vm_wait *w = arg;

	list_remove(&w->node);
	if (w->accepted)
		w->accepted(w->arg, w->rc, w->rc ? &w->error : NULL);
	wait_free(w);
}

static struct vm_wait *wait_new(struct vm_manager *m, struct uuid task, struct uuid vm,
	vm_accepted_fn *accepted, void *arg)
{
	struct vm_wait *w = calloc(1, sizeof *w);

	if (!w)
		return NULL;
	w->mgr = m;
	w->task = task;
	w->vm = vm;
	w->accepted = accepted;
	w->arg = arg;
	defer_init(&w->tell, m->loop, "vm.accepted", wait_tell, w);
	list_push_back(&m->waiting, &w->node);
	return w;
}

/* The intent of `task` is committed or refused. */
static void waits_tell(
	struct vm_manager *m, const struct uuid *task, int rc, const struct rv_error *e)
{
	LIST_FOR_EACH (node, &m->waiting) {
		struct vm_wait *w = CONTAINER_OF(node, struct vm_wait, node);

		if (w->start || !uuid_eq(&w->task, task))
			continue;
		w->rc = rc;
		if (rc)
			w->error = *e;
		defer_start(&w->tell);
	}
}

/* Whether the request itself waits for a VM. */
static bool waits_have(const struct vm_manager *m, const struct uuid *task)
{
	LIST_FOR_EACH (node, &m->waiting) {
		const struct vm_wait *w = CONTAINER_OF(node, struct vm_wait, node);

		if (w->start && uuid_eq(&w->task, task))
			return true;
	}
	return false;
}

/* A VM is free again: what waited for that goes on. */
static void waits_run(struct vm_manager *m, const struct uuid *vm)
{
	struct uuid task;
	struct rv_error e;

	LIST_FOR_EACH (node, &m->waiting) {
		struct vm_wait *w = CONTAINER_OF(node, struct vm_wait, node);

		if (!w->start || !uuid_eq(&w->vm, vm))
			continue;
		w->start = false;
		task = w->task;
		w->rc = vm_op_start(m, w->kind, &w->args, task, w->accepted, w->arg, &e);
		if (w->rc == 0)
			w->accepted = NULL; /* told by the operation itself */
		/* Refused, or there already: no operation tells those who joined. */
		if (w->rc || !map_get(&m->by_task, &task, sizeof task))
			waits_tell(m, &task, w->rc, &e);
		defer_start(&w->tell);
		/* Refused, or done already: the next one's turn. */
		if (vm_op_of(m, vm))
			return;
	}
}

/* --- an operation's way in --- */

static void op_free(struct vm_op *o)
{
	if (o->verb->fini && o->begun)
		o->verb->fini(o);
	row_release(o->row);
	free(o->new_name);
	free(o);
}

static void op_unlist(struct vm_op *o)
{
	vm_unplaced(o);
	map_remove(&o->mgr->by_vm, &o->vm, sizeof o->vm);
	map_remove(&o->mgr->by_task, &o->task, sizeof o->task);
	list_remove(&o->node);
	o->mgr->op_count--;
}

/* It has ended, or never began. While it was listed nothing else looked after a domain of
 * its VM that had ended, and the VM is perhaps no more this host's. */
static void op_over(struct vm_op *o, bool well)
{
	if (!well && o->host)
		vm_claims_due(o->host);
	op_unlist(o);
}

/* Gives the guest disks: only whole ones, that nothing else changes. */
static bool takes_disks(const struct vm_op *o)
{
	return o->kind == VM_OP_START || o->kind == VM_OP_START_ON ||
	       o->kind == VM_OP_RESUME || o->kind == VM_OP_VBD_PLUG;
}

static bool makes_domain(enum vm_operation kind)
{
	return kind == VM_OP_START || kind == VM_OP_START_ON || kind == VM_OP_RESUME;
}

bool vm_op_makes_domain(const struct vm_op *o)
{
	return makes_domain(o->kind);
}

static struct uuid drive_of(const struct vm_op *o)
{
	return o->kind == VM_OP_VBD_PLUG ? o->args.device : UUID_NONE;
}

static void txn_intent(void *arg, const struct db *db, struct txn *t)
{
	struct vm_op *o = arg;
	const struct row *vm = db_row(db, CLASS_VM, o->vm);
	char text[UUID_TEXT_SIZE], generation[24];

	txn_expect_exists(t, CLASS_VM, o->vm);
	txn_expect_absent(t, CLASS_TASK, o->task);
	if (vm) {
		txn_expect_enum(
			t, o->vm, VM_POWER_STATE, db_enum(o->row, VM_POWER_STATE));
		txn_expect_int(t, o->vm, VM_OWNER_GENERATION,
			db_int(o->row, VM_OWNER_GENERATION));
	}
	txn_expect_unset(t, o->vm, VM_CURRENT_OPERATIONS);
	txn_create(t, CLASS_TASK, o->task);
	txn_set_string(t, o->task, TASK_NAME_LABEL, vm_operation_method(o->kind));
	txn_set_string(t, o->task, TASK_METHOD, vm_operation_method(o->kind));
	txn_set_ref(t, o->task, TASK_SUBJECT, o->vm);
	txn_set_time(t, o->task, TASK_CREATED, loop_wall_ms(o->mgr->loop));
	txn_set_ref(t, o->task, TASK_RESIDENT_ON, o->mgr->config.self);
	if (o->args.user)
		txn_set_string(t, o->task, TASK_USER, o->args.user);
	if (o->args.origin)
		txn_set_string(t, o->task, TASK_ORIGIN, o->args.origin);
	uuid_format(&o->task, text);
	txn_map_put(t, o->vm, VM_CURRENT_OPERATIONS, text, vm_operation_name(o->kind));
	if (o->verb->intent != VM_INTENT_NONE) {
		txn_set_enum(t, o->vm, VM_INTENT, o->verb->intent);
		txn_set_ref(t, o->vm, VM_INTENT_TASK, o->task);
		/* Without a host, too, it is one that works on it: a suspended VM's hard
		 * shutdown is not for the master to do at the same time. */
		txn_set_ref(t, o->vm, VM_INTENT_HOST,
			(o->host ? o->host : o->mgr->hosts[0])->uuid);
		txn_set_time(t, o->vm, VM_INTENT_STARTED, loop_wall_ms(o->mgr->loop));
		snprintf(generation, sizeof generation, "%lld",
			(long long)db_int(o->row, VM_OWNER_GENERATION));
		txn_map_put(t, o->vm, VM_INTENT_DATA, "generation", generation);
		if (o->args.start_paused)
			txn_map_put(t, o->vm, VM_INTENT_DATA, "start_paused", "true");
	}
	if (takes_disks(o))
		vm_txn_disks_whole(db, t, o->vm, drive_of(o));
	/* A host may have found one since this was admitted. */
	if (vm_op_makes_domain(o) || o->kind == VM_OP_CLONE)
		vm_ghost_expect(db, o->row, t);
	if (o->verb->intend)
		o->verb->intend(o, db, t);
}

static int op_admit(struct vm_manager *m, enum vm_operation kind, const struct row *vm,
	const struct vm_op_args *args, struct rv_error *e);

/* A task of that name may be another host's: a restart that the next master has begun, a
 * request that was made again there. Then it is that one's to carry out. */
static bool intent_holds(void *arg, const struct db *db)
{
	struct vm_op *o = arg;
	const struct row *task = db_row(db, CLASS_TASK, o->task);
	struct uuid on = task ? db_ref(task, TASK_RESIDENT_ON) : UUID_NONE;

	return task && uuid_eq(&on, &o->mgr->config.self);
}

/* In words of the VM, not of the database. It is not listed any more, so that it is not
 * itself what is at work. */
static int op_refusal(const struct vm_op *o, int rc, struct rv_error *e)
{
	const struct row *vm = db_row(pool_db(o->mgr->pool), CLASS_VM, o->vm);
	const char *verb = vm_operation_verb(o->kind);

	if (rc != RV_ECONFLICT)
		return rv_error_set(e, rc, "VM %s: %s was refused: %s", o->name, verb,
			o->entry.error.detail);
	/* It changed after it was looked at: as it is now it may say why. */
	if (!vm)
		return rv_error_set(e, RV_ENOENT,
			"VM %s was destroyed at the same moment; %s did nothing", o->name,
			verb);
	rc = op_admit(o->mgr, o->kind, vm, &o->args, e);
	return rc ? rc
		  : rv_error_set(e, RV_ECONFLICT,
			    "VM %s: something else changed it at the same moment, so %s "
			    "did nothing; try again",
			    o->name, verb);
}

static void op_refused(struct vm_op *o, int rc)
{
	struct vm_manager *m = o->mgr;
	struct uuid vm = o->vm;
	struct rv_error e = {0};

	op_over(o, false);
	if (rc == RV_ECONFLICT && db_row(pool_db(m->pool), CLASS_TASK, o->task))
		rc = 0; /* the same request came another way, and was first */
	if (rc)
		rc = op_refusal(o, rc, &e);
	waits_tell(m, &o->task, rc, &e);
	if (o->accepted)
		o->accepted(o->accepted_arg, rc, rc ? &e : NULL);
	op_free(o);
	waits_run(m, &vm);
}

void vm_op_go(struct vm_op *o)
{
	const struct row *vm = db_row(pool_db(o->mgr->pool), CLASS_VM, o->vm);

	row_release(o->row);
	o->row = row_hold(vm);
	o->begun = true;
	o->op.id = o->task;
	o->verb->begin(o);
	if (o->cancel_due)
		op_cancel(&o->op);
}

/* It was found out late that the intent is on record: the master had given this host up
 * by then, and has ended what it had not yet begun. */
static bool intent_overtaken(const struct vm_op *o)
{
	const struct row *task = db_row(pool_db(o->mgr->pool), CLASS_TASK, o->task);

	return !task || !vm_task_open(task);
}

static void intent_done(void *arg, uint64_t token, int rc)
{
	struct vm_op *o = arg;
	struct vm_manager *m = o->mgr;
	struct uuid vm = o->vm;

	(void)token;
	if (rc) {
		op_refused(o, rc);
		return;
	}
	waits_tell(o->mgr, &o->task, 0, NULL);
	if (o->accepted)
		o->accepted(o->accepted_arg, 0, NULL);
	if (intent_overtaken(o)) {
		op_over(o, false);
		op_free(o);
		waits_run(m, &vm);
		return;
	}
	if (vm_point(o, "op.intent"))
		return;
	vm_op_go(o);
}

/* The `done` of every operation. */
void vm_op_done(struct op *op)
{
	struct vm_op *o = CONTAINER_OF(op, struct vm_op, op);
	struct vm_manager *m = o->mgr;
	struct hyper_event event = o->guest_event;
	struct vm_host *host = o->guest_event_due ? o->host : NULL;
	struct uuid vm = o->vm;

	op_over(o, op->error.code == 0);
	op_free(o);
	waits_run(m, &vm);
	if (host)
		vm_guest_ended(host, &event);
}

int vm_op_new(struct vm_manager *m, const struct vm_verb *verb, enum vm_operation kind,
	const struct vm_op_args *args, struct uuid task, const struct row *vm,
	struct vm_op **out, struct rv_error *e)
{
	struct vm_op *o = calloc(1, verb->size);

	*out = NULL;
	if (!o)
		return rv_error_set(e, RV_ENOMEM, "no memory for an operation");
	o->mgr = m;
	o->verb = verb;
	o->kind = kind;
	o->args = *args;
	o->args.vm = row_uuid(vm);
	o->args.new_name = NULL;
	o->task = task;
	o->vm = row_uuid(vm);
	o->row = row_hold(vm);
	snprintf(o->name, sizeof o->name, "%s", row_name(vm));
	snprintf(o->subject, sizeof o->subject, "vm=%.100s", o->name);
	list_init(&o->node);
	vm_entry_init(&o->entry, m->loop, m->pool);
	if (args->new_name) {
		o->new_name = strdup(args->new_name);
		if (!o->new_name)
			goto nomem;
	}
	if (map_add(&m->by_vm, &o->vm, sizeof o->vm, o))
		goto nomem;
	/* The reconciler's own corrections have no task. */
	if (!uuid_is_none(&task) && map_add(&m->by_task, &o->task, sizeof o->task, o)) {
		map_remove(&m->by_vm, &o->vm, sizeof o->vm);
		goto nomem;
	}
	list_push_back(&m->ops, &o->node);
	m->op_count++;
	*out = o;
	return 0;
nomem:
	op_free(o);
	return rv_error_set(e, RV_ENOMEM, "no memory for an operation");
}

/* A copy of what is to be started when the VM is free. RV_ENOMEM: nothing waits. */
static int wait_for_vm(struct vm_op *o, enum vm_operation kind,
	const struct vm_op_args *args, struct uuid task, vm_accepted_fn *accepted,
	void *arg, struct rv_error *e)
{
	struct vm_wait *w = wait_new(o->mgr, task, o->vm, accepted, arg);

	if (!w)
		return rv_error_set(e, RV_ENOMEM, "no memory for an operation");
	w->start = true;
	w->kind = kind;
	w->args = *args;
	w->args.user = args->user ? strdup(args->user) : NULL;
	w->args.origin = args->origin ? strdup(args->origin) : NULL;
	w->args.new_name = args->new_name ? strdup(args->new_name) : NULL;
	if ((args->user && !w->args.user) || (args->origin && !w->args.origin) ||
		(args->new_name && !w->args.new_name)) {
		list_remove(&w->node);
		wait_free(w);
		return rv_error_set(e, RV_ENOMEM, "no memory for an operation");
	}
	return 0;
}

/* Copying a VM does it no harm: several clones of a template are made one after the
 * other, in the order that they were asked for. */
static bool clones_queue(enum vm_operation kind, const struct vm_op *other)
{
	return kind == VM_OP_CLONE && other && other->kind == VM_OP_CLONE;
}

/* What can be known before the database is asked. */
static int op_admit(struct vm_manager *m, enum vm_operation kind, const struct row *vm,
	const struct vm_op_args *args, struct rv_error *e)
{
	struct vm_condition c;
	const struct vm_op *other;
	const char *blocked;
	struct uuid uuid = row_uuid(vm);
	char text[UUID_TEXT_SIZE];
	int rc;

	(void)args;
	vm_condition(m, vm, &c);
	rc = vm_allowed(&c, kind);
	other = vm_op_of(m, &uuid);
	if (rc == RV_EBUSY && clones_queue(kind, other))
		rc = 0;
	if (rc) {
		return vm_refuse(&c, kind, rc, row_name(vm),
			other ? uuid_format(&other->task, text) : NULL, e);
	}
	blocked = db_map_get(vm, VM_BLOCKED_OPERATIONS, vm_operation_name(kind));
	if (blocked)
		return rv_error_set(e, RV_ENOTALLOWED,
			"VM %s: %s is blocked: %s. To allow it: vm-param-remove "
			"param-name=blocked-operations param-key=%s",
			row_name(vm), vm_operation_verb(kind), blocked,
			vm_operation_name(kind));
	return 0;
}

static int op_find_vm(const struct db *db, enum vm_operation kind,
	const struct vm_op_args *args, const struct row **vm, struct rv_error *e)
{
	char text[UUID_TEXT_SIZE];
	const struct row *device;

	*vm = NULL;
	if (kind == VM_OP_VBD_PLUG || kind == VM_OP_VBD_UNPLUG) {
		device = db_row(db, CLASS_VBD, args->device);
		if (device)
			*vm = db_follow(db, device, VBD_VM);
	} else if (kind == VM_OP_VIF_PLUG || kind == VM_OP_VIF_UNPLUG) {
		device = db_row(db, CLASS_VIF, args->device);
		if (device)
			*vm = db_follow(db, device, VIF_VM);
	} else {
		*vm = db_row(db, CLASS_VM, args->vm);
		if (!*vm)
			return rv_error_set(e, RV_ENOENT,
				"there is no VM %s (vm-list shows them)",
				uuid_format(&args->vm, text));
	}
	if (!*vm)
		return rv_error_set(e, RV_ENOENT, "there is no device %s",
			uuid_format(&args->device, text));
	return 0;
}

static int op_run(struct vm_op *o, struct rv_error *e)
{
	const struct db *db = pool_db(o->mgr->pool);
	int rc = 0;

	if (o->verb->resident) {
		struct uuid host = db_ref(o->row, VM_RESIDENT_ON);

		o->host = vm_host_find(o->mgr, &host);
		/* A suspended VM has no host, and its hard shutdown needs none. */
		if (!o->host && !uuid_is_none(&host))
			rc = rv_error_set(e, RV_ENOHOST,
				"VM %s: its host is not reachable from here", o->name);
	}
	if (!rc && !o->rerun && takes_disks(o))
		rc = vm_disks_whole(db, o->vm, drive_of(o), e);
	if (!rc && o->verb->admit)
		rc = o->verb->admit(o, db, e);
	if (rc) {
		op_unlist(o);
		op_free(o);
		return rc;
	}
	if (o->rerun)
		vm_op_go(o);
	else
		vm_entry_commit(
			&o->entry, txn_intent, intent_holds, false, intent_done, o, 0);
	o->args.user = o->args.origin = NULL; /* were borrowed for the call */
	o->extra = NULL;
	return 0;
}

int vm_op_start_verb(struct vm_manager *m, const struct vm_verb *verb,
	enum vm_operation kind, const struct vm_op_args *args, const void *extra,
	struct uuid task, vm_accepted_fn *accepted, void *arg, struct rv_error *e)
{
	const struct db *db = pool_db(m->pool);
	const struct row *vm;
	struct vm_op *o;
	struct vm_wait *w;
	struct uuid uuid;
	bool waits;
	int rc;

	if (!verb || uuid_is_none(&task))
		return rv_error_set(e, RV_EPARAM, "no such operation, or no task's uuid");
	if (!pool_takes_changes(m->pool))
		return rv_error_set(e, RV_ENOTMASTER,
			"this host has no link to the pool's master; nothing was done: "
			"try again");
	if (!m->ready || m->stopped)
		return rv_error_set(e, RV_EAGAIN,
			"still comparing the database with what runs; try again soon");
	o = map_get(&m->by_task, &task, sizeof task);
	waits = waits_have(m, &task);
	if (o || waits || db_row(db, CLASS_TASK, task)) {
		w = wait_new(m, task, UUID_NONE, accepted, arg);
		if (!w)
			return rv_error_set(e, RV_ENOMEM, "no memory for an operation");
		if (!waits && (!o || o->begun))
			defer_start(&w->tell);
		return 0;
	}
	if (m->op_count >= RV_MAX_OPS)
		return rv_error_set(e, RV_ELIMIT,
			"%d operations are at work already; try again soon", RV_MAX_OPS);
	rc = op_find_vm(db, kind, args, &vm, e);
	if (!rc)
		rc = op_admit(m, kind, vm, args, e);
	if (rc)
		return rc;
	uuid = row_uuid(vm);
	o = vm_op_of(m, &uuid);
	if (o) {
		/* Only a hard_shutdown is let past another operation; a clone waits; and
		 * whatever may wait does so where the VM's record is being put right. */
		if (verb != vm_verbs[kind])
			return rv_error_set(e, RV_EBUSY,
				"VM %s: what its host found out about it is being "
				"recorded; try again soon",
				row_name(vm));
		rc = wait_for_vm(o, kind, args, task, accepted, arg, e);
		if (rc || clones_queue(kind, o))
			return rc;
		if (o->begun)
			op_cancel(&o->op);
		else
			o->cancel_due = true;
		return 0;
	}
	rc = vm_op_new(m, verb, kind, args, task, vm, &o, e);
	if (rc)
		return rc;
	o->accepted = accepted;
	o->accepted_arg = arg;
	o->extra = extra;
	return op_run(o, e);
}

int vm_op_start(struct vm_manager *m, enum vm_operation kind,
	const struct vm_op_args *args, struct uuid task, vm_accepted_fn *accepted,
	void *arg, struct rv_error *e)
{
	return vm_op_start_verb(m, kind < VM_OP_COUNT ? vm_verbs[kind] : NULL, kind, args,
		NULL, task, accepted, arg, e);
}

/* Nobody's start, the pool's own neither, goes beside a ghost. */
static int refuse_beside_ghost(struct vm_manager *m, enum vm_operation kind,
	const struct row *vm, struct rv_error *e)
{
	struct vm_condition c;

	if (!makes_domain(kind))
		return 0;
	vm_condition(m, vm, &c);
	return c.has_domain ? vm_refuse(&c, kind, RV_ESTATE, row_name(vm), NULL, e) : 0;
}

int vm_op_start_internal(struct vm_manager *m, enum vm_operation kind,
	const struct vm_op_args *args, struct uuid task, const char *note_name,
	const char *note, struct rv_error *e)
{
	const struct row *vm = db_row(pool_db(m->pool), CLASS_VM, args->vm);
	struct vm_op *o;
	int rc;

	if (!vm)
		return rv_error_set(e, RV_ENOENT, "the VM is gone");
	if (vm_op_of(m, &args->vm))
		return rv_error_set(e, RV_EBUSY, "VM %s is busy", row_name(vm));
	rc = refuse_beside_ghost(m, kind, vm, e);
	if (rc)
		return rc;
	rc = vm_op_new(m, vm_verbs[kind], kind, args,
		uuid_is_none(&task) ? vm_uuid(m) : task, vm, &o, e);
	if (rc)
		return rc;
	o->internal = true;
	o->rerun = !uuid_is_none(&task);
	if (note) {
		o->note_name = note_name;
		snprintf(o->note, sizeof o->note, "%s", note);
	}
	return op_run(o, e);
}

int vm_op_cancel(struct vm_manager *m, const struct uuid *task, struct rv_error *e)
{
	struct vm_op *o = map_get(&m->by_task, task, sizeof *task);

	if (!o)
		return rv_error_set(e, RV_ENOENT,
			"that task is not at work any more: see its status (task-list)");
	if (o->begun && !o->verb->cancellable(o))
		return rv_error_set(e, RV_ENOTALLOWED,
			"VM %s: %s is too far to be undone; wait for it", o->name,
			vm_operation_verb(o->kind));
	if (o->begun)
		op_cancel(&o->op);
	else
		o->cancel_due = true;
	return 0;
}

/* --- the end of the daemon --- */

void vm_ops_stop(struct vm_manager *m)
{
	LIST_FOR_EACH (node, &m->ops) {
		struct vm_op *o = CONTAINER_OF(node, struct vm_op, node);

		vm_entry_stop(&o->entry);
		if (!o->begun)
			continue;
		vm_op_halt(&o->op);
		if (o->verb->stop)
			o->verb->stop(o);
	}
	LIST_FOR_EACH (node, &m->waiting)
		defer_stop(&CONTAINER_OF(node, struct vm_wait, node)->tell);
}

void vm_ops_free(struct vm_manager *m)
{
	LIST_FOR_EACH_SAFE (node, &m->ops) {
		struct vm_op *o = CONTAINER_OF(node, struct vm_op, node);

		op_unlist(o);
		op_free(o);
	}
	LIST_FOR_EACH_SAFE (node, &m->waiting) {
		list_remove(node);
		wait_free(CONTAINER_OF(node, struct vm_wait, node));
	}
}
