#include "vm/vm_op.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "pool/db/message.h"

/* --- steps --- */

void vm_op_lost(const struct op *op)
{
	log_error("vm.op", "op=%s %s state=%s msg=\"stepped in a state without a step\"",
		op->table->name, op->subject, op_state_name(op));
	abort();
}

void vm_op_halt(struct op *op)
{
	if (!op->table)
		return;
	timer_stop(&op->deadline);
	defer_stop(&op->kick);
	defer_stop(&op->finish);
	list_remove(&op->node);
	op->awaiting = false;
	op->finished = true;
}

bool vm_point(struct vm_op *o, const char *point)
{
	const struct vm_manager_config *c = &o->mgr->config;

	return c->point && c->point(c->point_arg, point, &o->vm);
}

void vm_op_cancelled(struct vm_op *o)
{
	op_fail(&o->op, RV_ECANCELLED, "VM %s: %s was cancelled", o->name,
		vm_operation_verb(o->kind));
}

static void op_answered(void *arg, struct hyper_req *req)
{
	struct vm_op *o = arg;

	if (op_resume(&o->op, req->token))
		o->op.step(&o->op);
}

struct hyper_req *vm_op_call(struct vm_op *o, int64_t deadline_ms)
{
	hyper_req_init(&o->hyper, op_answered, o);
	o->hyper.token = op_await(&o->op, deadline_ms);
	return &o->hyper;
}

static void op_recorded(void *arg, uint64_t token, int rc)
{
	struct vm_op *o = arg;

	(void)rc;
	if (op_resume(&o->op, token))
		o->op.step(&o->op);
}

void vm_op_record(struct vm_op *o, vm_entry_build_fn *build, vm_entry_holds_fn *holds,
	bool persistent)
{
	vm_entry_commit(
		&o->entry, build, holds, persistent, op_recorded, o, op_await(&o->op, 0));
}

void vm_op_progress(struct vm_op *o, double progress, const char *note)
{
	struct value v = value_float(progress);
	struct rv_error e;

	if (pool_set_live(o->mgr->pool, o->task, TASK_PROGRESS, &v, &e))
		return; /* the task's row is not there any more: nobody looks */
	if (!note || value_from_cstr(&v, note))
		return;
	if (pool_set_live(o->mgr->pool, o->task, TASK_PROGRESS_NOTE, &v, &e))
		log_debug("vm.op", "msg=\"%s\"", e.detail);
	value_fini(&v);
}

/* --- the ending --- */

bool vm_task_open(const struct row *task)
{
	int status = db_enum(task, TASK_STATUS);

	return status == TASK_STATUS_PENDING || status == TASK_STATUS_CANCELLING;
}

static void txn_task_end(struct vm_op *o, struct txn *t)
{
	const struct rv_error *err = &o->op.error;
	enum task_status status = TASK_STATUS_SUCCESS;
	char text[UUID_TEXT_SIZE];

	if (err->code)
		status = err->code == RV_ECANCELLED && o->op.cancelled
				 ? TASK_STATUS_CANCELLED
				 : TASK_STATUS_FAILURE;
	txn_set_enum(t, o->task, TASK_STATUS, status);
	txn_set_time(t, o->task, TASK_FINISHED, loop_wall_ms(o->mgr->loop));
	if (err->code) {
		txn_set_string(t, o->task, TASK_ERROR_CODE, rv_error_xenapi(err->code));
		txn_set_string(t, o->task, TASK_ERROR_DETAIL, err->detail);
		txn_set_int(t, o->task, TASK_ERROR_NUMBER, -err->code);
	} else if (!uuid_is_none(&o->result)) {
		txn_set_string(t, o->task, TASK_RESULT, uuid_format(&o->result, text));
	}
}

static void txn_end(void *arg, const struct db *db, struct txn *t)
{
	struct vm_op *o = arg;
	char text[UUID_TEXT_SIZE];
	struct value none = value_zero(VALUE_STRING_MAP);

	uuid_format(&o->task, text);
	if (uuid_is_none(&o->task)) {
		/* A correction: what it was decided on must still be so. */
		txn_expect_unset(t, o->vm, VM_CURRENT_OPERATIONS);
		txn_expect_int(t, o->vm, VM_OWNER_GENERATION,
			db_int(o->row, VM_OWNER_GENERATION));
	} else {
		/* Whoever ends it first has ended it. */
		txn_expect_key(t, o->vm, VM_CURRENT_OPERATIONS, text, NULL);
		txn_map_remove(t, o->vm, VM_CURRENT_OPERATIONS, text);
	}
	if (o->verb->intent != VM_INTENT_NONE) {
		txn_set_enum(t, o->vm, VM_INTENT, VM_INTENT_NONE);
		txn_set_ref(t, o->vm, VM_INTENT_TASK, UUID_NONE);
		txn_set_ref(t, o->vm, VM_INTENT_HOST, UUID_NONE);
		txn_set_value(t, o->vm, VM_INTENT_DATA, &none);
	}
	if (o->finish)
		o->finish(o, db, t);
	if (!uuid_is_none(&o->task))
		txn_task_end(o, t);
	if (o->note[0])
		vm_txn_message(t, o->mgr, o->note_name, 3, o->vm, o->note);
}

static bool end_holds(void *arg, const struct db *db)
{
	struct vm_op *o = arg;
	const struct row *task = db_row(db, CLASS_TASK, o->task);

	/* A correction that is lost is made again at the next look. */
	return !task || !vm_task_open(task);
}

void vm_op_end(struct vm_op *o, int end)
{
	op_move(&o->op, end);
	if (vm_point(o, "op.ending"))
		return;
	vm_op_record(o, txn_end, end_holds, true);
}

void vm_op_ended(struct vm_op *o, int ended)
{
	int rc = o->entry.rc;

	if (rc && rc != RV_ECONFLICT && rc != RV_ENOTMASTER && o->finish) {
		/* The ending itself could not be: end as a failure, with the VM's state
		 * as it is; the reconciler looks at it again. */
		op_fail(&o->op, rc, "VM %s: its new state could not be recorded: %s",
			o->name, o->entry.error.detail);
		o->finish = NULL;
		vm_op_record(o, txn_end, end_holds, true);
		return;
	}
	if (rc)
		log_warn("vm.op", "op=%s %s rc=%s msg=\"not ended by this host: %s\"",
			o->op.table->name, o->op.subject, rv_error_symbol(rc),
			o->entry.error.detail);
	op_move(&o->op, ended);
	op_finish(&o->op);
}

/* --- parts of entries --- */

static bool device_left(const struct vm_devices *d, struct uuid uuid)
{
	for (size_t i = 0; d && i < d->count; i++)
		if (uuid_eq(&d->list[i].uuid, &uuid))
			return d->list[i].left;
	return false;
}

/* Of one that had been left before: it was not brought down now. */
static bool device_stays(const struct vm_devices *d, struct uuid uuid)
{
	if (!d->list)
		return true; /* none was looked at */
	for (size_t i = 0; i < d->count; i++)
		if (uuid_eq(&d->list[i].uuid, &uuid))
			return !d->list[i].released;
	return false;
}

void vm_txn_attached(const struct db *db, struct txn *t, struct uuid vm)
{
	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VM, vm, r));) {
		struct uuid vdi = db_ref(r, VBD_VDI);
		bool is = !uuid_is_none(&vdi);

		if (db_bool(r, VBD_CURRENTLY_ATTACHED) != is)
			txn_set_bool(t, row_uuid(r), VBD_CURRENTLY_ATTACHED, is);
	}
	for (const struct row *r = NULL; (r = db_next_ref(db, VIF_VM, vm, r));)
		if (!db_bool(r, VIF_CURRENTLY_ATTACHED))
			txn_set_bool(t, row_uuid(r), VIF_CURRENTLY_ATTACHED, true);
}

const struct row *vm_left_on(const struct db *db, const struct row *vm)
{
	const struct row *host = db_follow(db, vm, VM_DEVICES_LEFT_ON);

	return host && !db_bool(host, HOST_DECLARED_DEAD) ? host : NULL;
}

/* Of all VBDs or VIFs of the VM; whether any stays attached. */
static bool txn_released(const struct db *db, struct txn *t, struct uuid vm,
	enum schema_field_id of, enum schema_field_id attached, bool again,
	const struct vm_devices *d)
{
	bool any = false;

	for (const struct row *r = NULL; (r = db_next_ref(db, of, vm, r));) {
		struct uuid uuid = row_uuid(r);
		bool was = db_bool(r, attached);
		bool is = device_left(d, uuid) || (again && was && device_stays(d, uuid));

		if (was != is)
			txn_set_bool(t, uuid, attached, is);
		any |= is;
	}
	return any;
}

static void txn_left(const struct db *db, struct txn *t, struct uuid vm, struct uuid host,
	const struct vm_devices *d)
{
	const struct row *row = db_row(db, CLASS_VM, vm);
	const struct row *on = row ? vm_left_on(db, row) : NULL;
	struct uuid before = row ? db_ref(row, VM_DEVICES_LEFT_ON) : UUID_NONE;
	bool left;

	if (on && !uuid_eq(&before, &host))
		return;
	left = txn_released(db, t, vm, VBD_VM, VBD_CURRENTLY_ATTACHED, on != NULL, d);
	left |= txn_released(db, t, vm, VIF_VM, VIF_CURRENTLY_ATTACHED, on != NULL, d);
	if (!left)
		host = UUID_NONE;
	if (!uuid_eq(&before, &host))
		txn_set_ref(t, vm, VM_DEVICES_LEFT_ON, host);
}

/* Whoever wanted it down has it so, or it begins anew. */
static void txn_not_ending(const struct row *vm, struct txn *t)
{
	if (vm && db_bool(vm, VM_ENDING))
		txn_set_bool(t, row_uuid(vm), VM_ENDING, false);
}

void vm_txn_no_domain(const struct db *db, struct txn *t, struct uuid vm,
	struct uuid host, enum vm_power_state state, const struct vm_devices *d)
{
	txn_not_ending(db_row(db, CLASS_VM, vm), t);
	txn_set_enum(t, vm, VM_POWER_STATE, state);
	txn_set_ref(t, vm, VM_RESIDENT_ON, UUID_NONE);
	txn_set_int(t, vm, VM_DOMID, -1);
	txn_set_ref(t, vm, VM_DOMAIN_HANDLE, UUID_NONE);
	txn_set_ref(t, vm, VM_HOST_BOOT_ID, UUID_NONE);
	txn_left(db, t, vm, host, d);
}

void vm_txn_image_done(const struct db *db, struct txn *t, struct uuid image, bool gone)
{
	if (!db_row(db, CLASS_VDI, image))
		return;
	if (gone)
		txn_delete(t, CLASS_VDI, image);
	else
		txn_set_string(t, image, VDI_INTENT, VM_VDI_DISCARD);
}

void vm_txn_domain(const struct db *db, struct txn *t, struct uuid vm,
	const struct hyper_domain_id *id, struct uuid host)
{
	const struct row *row = db_row(db, CLASS_VM, vm);

	txn_not_ending(row, t);
	if (row && db_follow(db, row, VM_DEVICES_LEFT_ON))
		txn_set_ref(t, vm, VM_DEVICES_LEFT_ON, UUID_NONE);
	txn_set_ref(t, vm, VM_RESIDENT_ON, host);
	txn_set_int(
		t, vm, VM_DOMID, id->domid == HYPER_DOMID_ANY ? -1 : (int64_t)id->domid);
	txn_set_ref(t, vm, VM_DOMAIN_HANDLE, id->handle);
	txn_set_ref(t, vm, VM_HOST_BOOT_ID, id->boot_id);
	txn_set_int(t, vm, VM_OWNER_GENERATION, (int64_t)id->generation);
}

void vm_txn_message(struct txn *t, struct vm_manager *m, const char *name, int priority,
	struct uuid vm, const char *body)
{
	struct uuid uuid = vm_uuid(m);

	message_add(t, uuid,
		&(struct message){.name = name,
			.priority = priority,
			.cls = "VM",
			.obj = vm,
			.body = body});
}

/* --- messages by themselves --- */

struct vm_note {
	struct list node;
	struct vm_manager *mgr;
	struct vm_entry entry;
	const char *name;
	int priority;
	struct uuid vm, handle;
	char body[512];
};

static void txn_note(void *arg, const struct db *db, struct txn *t)
{
	struct vm_note *n = arg;

	(void)db;
	vm_txn_message(t, n->mgr, n->name, n->priority, n->vm, n->body);
}

/* A message that comes twice harms nobody; one that is lost would. */
static bool note_holds(void *arg, const struct db *db)
{
	(void)arg;
	(void)db;
	return false;
}

static void note_done(void *arg, uint64_t token, int rc)
{
	struct vm_note *n = arg;

	(void)token;
	if (rc)
		log_warn("vm.message", "rc=%s msg=\"%s\"", rv_error_symbol(rc), n->body);
	list_remove(&n->node);
	free(n);
}

void vm_note(struct vm_manager *m, const char *name, int priority, struct uuid vm,
	const char *fmt, ...)
{
	struct vm_note *n = calloc(1, sizeof *n);
	va_list ap;

	if (!n)
		return;
	va_start(ap, fmt);
	vsnprintf(n->body, sizeof n->body, fmt, ap);
	va_end(ap);
	log_warn("vm.message", "name=%s msg=\"%s\"", name, n->body);
	n->mgr = m;
	n->name = name;
	n->priority = priority;
	n->vm = vm;
	list_push_back(&m->notes, &n->node);
	vm_entry_init(&n->entry, m->loop, m->pool);
	vm_entry_commit(&n->entry, txn_note, note_holds, true, note_done, n, 0);
}

static void txn_proven(void *arg, const struct db *db, struct txn *t)
{
	struct vm_note *n = arg;

	(void)db;
	txn_expect_ref(t, n->vm, VM_DOMAIN_HANDLE, n->handle);
	txn_set_bool(t, n->vm, VM_BALLOON_PROVEN, true);
}

static bool proven_holds(void *arg, const struct db *db)
{
	const struct row *vm = db_row(db, CLASS_VM, ((struct vm_note *)arg)->vm);

	return vm && db_bool(vm, VM_BALLOON_PROVEN);
}

/* Not waited for: where it can't be recorded the driver is tried out once more. */
void vm_note_proven(struct vm_manager *m, struct uuid vm, struct uuid handle)
{
	struct vm_note *n = calloc(1, sizeof *n);

	if (!n)
		return;
	snprintf(n->body, sizeof n->body,
		"that its balloon driver works is not on record");
	n->mgr = m;
	n->vm = vm;
	n->handle = handle;
	list_push_back(&m->notes, &n->node);
	vm_entry_init(&n->entry, m->loop, m->pool);
	vm_entry_commit(&n->entry, txn_proven, proven_holds, false, note_done, n, 0);
}

void vm_notes_stop(struct vm_manager *m)
{
	LIST_FOR_EACH (node, &m->notes)
		vm_entry_stop(&CONTAINER_OF(node, struct vm_note, node)->entry);
}

void vm_notes_free(struct vm_manager *m)
{
	LIST_FOR_EACH_SAFE (node, &m->notes)
		free(CONTAINER_OF(node, struct vm_note, node));
	list_init(&m->notes);
}
