/*
 * Clone and provision: VMs whose disks are made.
 *
 *	MAKE (each disk) ─────────────► END ─► ENDED
 *	  │                             ▲ │
 *	  │ failed, cancelled, or       │ │ a ghost of the VM may have
 *	  │ begun by a dead daemon      │ ▼ written to what was copied
 *	  ╰───────────────────────────► UNDO (each disk)
 *
 * The rows of the new VM, its drives and disks are part of the intent, so that whatever
 * is made is known beforehand. They appear with the operation as current, and vanish with
 * it when it is undone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vm/vm_disks.h"
#include "vm/vm_ghost_marks.h"
#include "vm/vm_op.h"
#include "vm/vm_request.h"

enum { MAKE, UNDO, END, ENDED };

enum { MAKE_UNDO_TRIES = 4 };

static const struct op_state states[] = {
	[MAKE] = {"make", OP_TO(UNDO) | OP_TO(END)},
	[UNDO] = {"undo", OP_TO(END)},
	[END] = {"end", OP_TO(ENDED) | OP_TO(UNDO)},
	[ENDED] = {"ended", 0},
};

static const struct op_table table = {"vm.make", states, 4, MAKE};

struct make_disk {
	struct uuid sr, vdi;
	struct uuid source_sr, source; /* none: an empty one */
	struct uuid source_vbd;
	uint64_t size;
	enum storage_format format;
	struct vm_disk want; /* provision */
	bool left;	     /* undo could not delete it */
};

struct make {
	struct vm_op vm; /* first */
	struct make_disk disks[HYPER_MAX_VBDS];
	size_t count, next;
	struct uuid target; /* the VM that gets them */
	struct vm_request request;
	bool asked;
};

static struct make *make_of(struct op *op)
{
	return CONTAINER_OF(op, struct make, vm.op);
}

static void make_step(struct op *op);

static bool is_clone(const struct make *s)
{
	return s->vm.kind == VM_OP_CLONE;
}

/* --- what is to be made --- */

static int need_sr(
	struct vm_op *o, const struct db *db, struct uuid sr, struct rv_error *e)
{
	const struct row *row = db_row(db, CLASS_SR, sr);
	char text[UUID_TEXT_SIZE];

	if (!row)
		return rv_error_set(e, RV_ENOENT,
			"VM %s: no SR is named for its disks, and the pool has no "
			"default "
			"(pool-param-set default-SR=...)%s%s",
			o->name, uuid_is_none(&sr) ? "" : ": no SR ",
			uuid_is_none(&sr) ? "" : uuid_format(&sr, text));
	if (!storage_sr_attached(o->host->storage, &sr))
		return rv_error_set(e, RV_ENOTATTACHED,
			"VM %s: SR %s is not attached to this host; plug its PBD "
			"(pbd-plug)",
			o->name, row_name(row));
	return 0;
}

static int clone_admit(struct vm_op *o, const struct db *db, struct rv_error *e)
{
	struct make *s = make_of(&o->op);
	int rc;

	o->host = o->mgr->hosts[0];
	s->target = vm_uuid(o->mgr);
	if (!o->new_name || !*o->new_name)
		return rv_error_set(
			e, RV_EPARAM, "VM %s: the clone needs a name", o->name);
	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VM, o->vm, r));) {
		const struct row *vdi = db_follow(db, r, VBD_VDI);
		struct make_disk *d = &s->disks[s->count];

		if (!vdi || db_enum(r, VBD_TYPE) == VBD_TYPE_CD)
			continue;
		if (s->count == HYPER_MAX_VBDS)
			return rv_error_set(e, RV_ELIMIT, "VM %s has more than %d drives",
				o->name, HYPER_MAX_VBDS);
		d->source = row_uuid(vdi);
		d->source_sr = db_ref(vdi, VDI_SR);
		d->source_vbd = row_uuid(r);
		d->sr = uuid_is_none(&o->args.sr) ? d->source_sr : o->args.sr;
		d->vdi = vm_uuid(o->mgr);
		d->size = (uint64_t)db_int(vdi, VDI_VIRTUAL_SIZE);
		rc = need_sr(o, db, d->source_sr, e);
		if (!rc)
			rc = need_sr(o, db, d->sr, e);
		if (rc)
			return rc;
		s->count++;
	}
	return 0;
}

static int provision_admit(struct vm_op *o, const struct db *db, struct rv_error *e)
{
	struct make *s = make_of(&o->op);
	const char *text = db_map_get(o->row, VM_OTHER_CONFIG, "disks");
	const struct row *pool = db_pool(db);
	struct vm_disk want[VM_DISKS_MAX];
	int rc;

	o->host = o->mgr->hosts[0];
	s->target = o->vm;
	rc = vm_disks_parse(text ? text : "", want, &s->count, e);
	if (rc)
		return rv_error_prefix(e, "VM %s", o->name);
	for (size_t i = 0; i < s->count; i++) {
		struct make_disk *d = &s->disks[i];

		d->want = want[i];
		d->vdi = vm_uuid(o->mgr);
		d->size = (want[i].size + STORAGE_SIZE_ALIGN - 1) / STORAGE_SIZE_ALIGN *
			  STORAGE_SIZE_ALIGN;
		d->format = want[i].format == VDI_FORMAT_QCOW2 ? STORAGE_FORMAT_QCOW2
							       : STORAGE_FORMAT_RAW;
		d->sr = want[i].sr;
		if (uuid_is_none(&d->sr))
			d->sr = o->args.sr;
		if (uuid_is_none(&d->sr) && pool)
			d->sr = db_ref(pool, POOL_DEFAULT_SR);
		rc = need_sr(o, db, d->sr, e);
		if (rc)
			return rc;
	}
	return 0;
}

/* --- the intent --- */

/* Copies what people and tools may set, but for `skip`. */
static void txn_copy_row(struct txn *t, const struct row *from, struct uuid to,
	const enum schema_field_id *skip, size_t skip_count)
{
	const struct schema_class *cls = schema_class(row_class(from));

	for (int i = 0; i < cls->field_count; i++) {
		const struct schema_field *f = &cls->fields[i];
		bool skipped = f->live || f->key || f->ref == REF_BACK ||
			       f->writer == WRITER_SYSTEM;

		for (size_t n = 0; n < skip_count; n++)
			skipped = skipped || skip[n] == f->id;
		if (!skipped)
			txn_set_value(t, to, f->id, row_value(from, f->id));
	}
}

static void txn_making(struct txn *t, struct uuid vdi, struct uuid task)
{
	char text[UUID_TEXT_SIZE];

	txn_set_string(t, vdi, VDI_INTENT, VM_VDI_MAKE);
	txn_map_put(t, vdi, VDI_INTENT_DATA, "task", uuid_format(&task, text));
}

static void txn_clone_vm(struct make *s, struct txn *t)
{
	static const enum schema_field_id skip[] = {VM_NAME_LABEL, VM_SUSPEND_SR};
	struct vm_op *o = &s->vm;
	struct uuid metrics = vm_uuid(o->mgr);
	char text[UUID_TEXT_SIZE];

	txn_expect_name_free(t, CLASS_VM, o->new_name);
	txn_create(t, CLASS_VM_METRICS, metrics);
	txn_set_time(t, metrics, VM_METRICS_INSTALL_TIME, loop_wall_ms(o->mgr->loop));
	txn_create(t, CLASS_VM, s->target);
	txn_copy_row(t, o->row, s->target, skip, 2);
	txn_set_string(t, s->target, VM_NAME_LABEL, o->new_name);
	txn_set_ref(t, s->target, VM_PARENT, o->vm);
	txn_set_ref(t, s->target, VM_METRICS, metrics);
	txn_map_put(t, s->target, VM_CURRENT_OPERATIONS, uuid_format(&o->task, text),
		vm_operation_name(o->kind));
	txn_set_enum(t, s->target, VM_INTENT, VM_INTENT_PROVISION);
	txn_set_ref(t, s->target, VM_INTENT_TASK, o->task);
	txn_set_ref(t, s->target, VM_INTENT_HOST, o->host->uuid);
}

static struct make_disk *disk_of_vbd(struct make *s, struct uuid vbd)
{
	for (size_t i = 0; i < s->count; i++)
		if (uuid_eq(&s->disks[i].source_vbd, &vbd))
			return &s->disks[i];
	return NULL;
}

static void clone_intend(struct vm_op *o, const struct db *db, struct txn *t)
{
	static const enum schema_field_id vbd_skip[] = {VBD_VM, VBD_VDI};
	static const enum schema_field_id vif_skip[] = {VIF_VM, VIF_MAC};
	static const enum schema_field_id vdi_skip[] = {VDI_SR};
	struct make *s = make_of(&o->op);
	char mac[NET_MAC_SIZE];

	txn_clone_vm(s, t);
	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VM, o->vm, r));) {
		struct make_disk *d = disk_of_vbd(s, row_uuid(r));
		struct uuid vbd = vm_uuid(o->mgr);

		if (d) {
			txn_create(t, CLASS_VDI, d->vdi);
			txn_set_ref(t, d->vdi, VDI_SR, d->sr);
			txn_copy_row(t, db_follow(db, r, VBD_VDI), d->vdi, vdi_skip, 1);
			txn_making(t, d->vdi, o->task);
		}
		txn_create(t, CLASS_VBD, vbd);
		txn_set_ref(t, vbd, VBD_VM, s->target);
		txn_set_ref(t, vbd, VBD_VDI, d ? d->vdi : db_ref(r, VBD_VDI));
		txn_copy_row(t, r, vbd, vbd_skip, 2);
	}
	for (const struct row *r = NULL; (r = db_next_ref(db, VIF_VM, o->vm, r));) {
		struct uuid vif = vm_uuid(o->mgr);

		txn_create(t, CLASS_VIF, vif);
		txn_set_ref(t, vif, VIF_VM, s->target);
		txn_copy_row(t, r, vif, vif_skip, 2);
		txn_set_string(
			t, vif, VIF_MAC, net_mac_random(loop_prng(o->mgr->loop), mac));
		txn_set_bool(t, vif, VIF_MAC_AUTOGENERATED, true);
	}
}

static void provision_intend(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct make *s = make_of(&o->op);
	char text[VM_NAME_SIZE + 16];

	(void)db;
	for (size_t i = 0; i < s->count; i++) {
		struct make_disk *d = &s->disks[i];
		struct uuid vbd = vm_uuid(o->mgr);

		snprintf(text, sizeof text, "%s disk %d", o->name, d->want.place);
		txn_create(t, CLASS_VDI, d->vdi);
		txn_set_string(
			t, d->vdi, VDI_NAME_LABEL, d->want.name[0] ? d->want.name : text);
		txn_set_ref(t, d->vdi, VDI_SR, d->sr);
		txn_set_int(t, d->vdi, VDI_VIRTUAL_SIZE, (int64_t)d->size);
		txn_set_enum(t, d->vdi, VDI_FORMAT, d->want.format);
		txn_set_enum(t, d->vdi, VDI_TYPE, d->want.type);
		txn_making(t, d->vdi, o->task);
		snprintf(text, sizeof text, "%d", d->want.place);
		txn_create(t, CLASS_VBD, vbd);
		txn_set_ref(t, vbd, VBD_VM, o->vm);
		txn_set_ref(t, vbd, VBD_VDI, d->vdi);
		txn_set_string(t, vbd, VBD_USERDEVICE, text);
		txn_set_bool(t, vbd, VBD_BOOTABLE, d->want.bootable);
	}
}

/* --- the ending --- */

static void finish_made(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct make *s = make_of(&o->op);
	struct value none = value_zero(VALUE_STRING_MAP);
	char text[UUID_TEXT_SIZE];

	for (size_t i = 0; i < s->count; i++) {
		txn_set_string(t, s->disks[i].vdi, VDI_INTENT, "");
		txn_set_value(t, s->disks[i].vdi, VDI_INTENT_DATA, &none);
	}
	if (!is_clone(s)) {
		txn_set_bool(t, o->vm, VM_IS_A_TEMPLATE, false);
		txn_map_remove(t, o->vm, VM_OTHER_CONFIG, "disks");
		return;
	}
	/* One that is found only now has been writing all along. */
	vm_ghost_expect(db, o->row, t);
	txn_map_remove(t, s->target, VM_CURRENT_OPERATIONS, uuid_format(&o->task, text));
	txn_set_enum(t, s->target, VM_INTENT, VM_INTENT_NONE);
	txn_set_ref(t, s->target, VM_INTENT_TASK, UUID_NONE);
	txn_set_ref(t, s->target, VM_INTENT_HOST, UUID_NONE);
}

static const struct make_disk *disk_of(const struct make *s, struct uuid vdi)
{
	for (size_t i = 0; i < s->count; i++)
		if (uuid_eq(&s->disks[i].vdi, &vdi))
			return &s->disks[i];
	return NULL;
}

static void finish_undone(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct make *s = make_of(&o->op);
	const struct row *target = db_row(db, CLASS_VM, s->target);
	const struct row *metrics = target ? db_follow(db, target, VM_METRICS) : NULL;

	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VM, s->target, r));)
		if (is_clone(s) || disk_of(s, db_ref(r, VBD_VDI)))
			txn_delete(t, CLASS_VBD, row_uuid(r));
	for (size_t i = 0; i < s->count; i++) {
		if (!db_row(db, CLASS_VDI, s->disks[i].vdi))
			continue;
		if (s->disks[i].left)
			txn_set_string(t, s->disks[i].vdi, VDI_INTENT, "");
		else
			txn_delete(t, CLASS_VDI, s->disks[i].vdi);
	}
	if (!is_clone(s) || !target)
		return;
	for (const struct row *r = NULL; (r = db_next_ref(db, VIF_VM, s->target, r));)
		txn_delete(t, CLASS_VIF, row_uuid(r));
	txn_delete(t, CLASS_VM, s->target);
	if (metrics)
		txn_delete(t, CLASS_VM_METRICS, row_uuid(metrics));
}

/* --- steps --- */

static void make_answered(void *arg, uint64_t token, int rc)
{
	struct make *s = arg;

	(void)rc;
	if (op_resume(&s->vm.op, token))
		make_step(&s->vm.op);
}

static void make_progress(void *arg, uint64_t token, uint64_t bytes, uint64_t total)
{
	struct make *s = arg;

	(void)token;
	if (total)
		vm_op_progress(&s->vm,
			((double)s->next + (double)bytes / (double)total) /
				(double)s->count,
			"copying disks");
}

static void make_ask(struct make *s, const struct storage_call *call, int tries)
{
	s->asked = true;
	vm_request_start(&s->request, s->vm.mgr->loop, s->vm.host->storage, call, tries,
		make_answered, make_progress, s, op_await(&s->vm.op, 0));
}

static void make_end(struct make *s)
{
	struct vm_op *o = &s->vm;

	o->finish = o->op.error.code ? finish_undone : finish_made;
	if (!o->op.error.code && is_clone(s))
		o->result = s->target;
	vm_op_end(o, END);
}

/* A ghost of the VM was reported since the intent; it may be gone again by now. */
static void fail_beside_ghost(struct make *s, const struct row *vm)
{
	struct vm_op *o = &s->vm;
	struct vm_ghost_mark ghost;

	if (vm_ghost_marked(pool_db(o->mgr->pool), vm, &ghost))
		op_fail(&o->op, RV_ESTATE,
			"VM %s: host %.64s has just reported domain %u (%.64s) of it, "
			"which may have been writing to its disks while they were "
			"copied: the copy was undone. End that domain "
			"(host-ghost-destroy) or take it as the VM (vm-adopt) first",
			o->name, row_name(ghost.host), ghost.domid, ghost.name);
	else
		op_fail(&o->op, RV_ESTATE,
			"VM %s: a host has reported a domain of it, gone by now, which "
			"may have been writing to its disks while they were copied: the "
			"copy was undone; try again",
			o->name);
}

/* True: the copy was not taken for one, because of a ghost. Any other reason is that
 * somebody else has ended the operation. */
static bool refused_beside_ghost(struct make *s)
{
	struct vm_op *o = &s->vm;
	const struct db *db = pool_db(o->mgr->pool);
	const struct row *task = db_row(db, CLASS_TASK, o->task);
	const struct row *vm = db_row(db, CLASS_VM, o->vm);

	if (o->entry.rc != RV_ECONFLICT || o->op.error.code || !is_clone(s) || !vm ||
		!task || !vm_task_open(task))
		return false;
	fail_beside_ghost(s, vm);
	return true;
}

static void undo_next(struct make *s)
{
	struct make_disk *d = &s->disks[s->next];
	struct storage_call call = {
		.verb = STORAGE_VDI_DESTROY, .sr = d->sr, .vdi = d->vdi};

	if (s->next == s->count)
		make_end(s);
	else
		make_ask(s, &call, MAKE_UNDO_TRIES);
}

static void enter_undo(struct make *s)
{
	op_move(&s->vm.op, UNDO);
	s->next = 0;
	undo_next(s);
}

static void make_next(struct make *s)
{
	struct make_disk *d = &s->disks[s->next];
	struct storage_call call = {.sr = d->sr, .vdi = d->vdi};

	if (s->next == s->count) {
		make_end(s);
		return;
	}
	if (uuid_is_none(&d->source)) {
		call.verb = STORAGE_VDI_CREATE;
		call.size = d->size;
		call.format = d->format;
	} else {
		call.verb = STORAGE_VDI_COPY;
		call.sr = d->source_sr;
		call.vdi = d->source;
		call.target_sr = d->sr;
		call.target_vdi = d->vdi;
	}
	make_ask(s, &call, 1);
}

static void in_make(struct make *s)
{
	struct vm_op *o = &s->vm;

	if (o->rerun) {
		op_fail(&o->op, RV_EAGAIN,
			"VM %s: the daemon was restarted in the middle of %s; it was "
			"undone",
			o->name, vm_operation_verb(o->kind));
		enter_undo(s);
		return;
	}
	if (s->asked) {
		if (vm_point(o, "make.disk"))
			return;
		if (s->request.rc && s->request.rc != RV_ECANCELLED)
			op_fail(&o->op, s->request.rc, "VM %s: %s", o->name,
				s->request.error.detail);
		else if (s->request.rc || o->op.cancelled)
			vm_op_cancelled(o);
		s->next++;
	} else if (o->op.cancelled) {
		vm_op_cancelled(o);
	}
	if (o->op.error.code)
		enter_undo(s);
	else
		make_next(s);
}

static void make_step(struct op *op)
{
	struct make *s = make_of(op);

	if (op->awaiting) {
		if (op->cancelled && op->state == MAKE)
			vm_request_cancel(&s->request);
		return;
	}
	switch (op->state) {
	case MAKE:
		in_make(s);
		return;
	case UNDO:
		if (s->request.rc) {
			s->disks[s->next].left = true;
			vm_note(s->vm.mgr, "DISK_LEFT", 3, s->vm.vm,
				"VM %s: a disk that was made for it could not be deleted "
				"again: %s. Delete it with vdi-destroy",
				s->vm.name, s->request.error.detail);
		}
		s->next++;
		undo_next(s);
		return;
	case END:
		if (refused_beside_ghost(s))
			enter_undo(s);
		else
			vm_op_ended(&s->vm, ENDED);
		return;
	default:
		vm_op_lost(op);
	}
}

/* --- the verbs --- */

/* What a former daemon had begun: its disks say so themselves. */
static void find_again(struct make *s, const struct db *db)
{
	struct vm_op *o = &s->vm;

	s->count = 0;
	s->target = is_clone(s) ? UUID_NONE : o->vm;
	for (const struct row *r = NULL;
		is_clone(s) && (r = db_next_ref(db, VM_INTENT_TASK, o->task, r));)
		s->target = row_uuid(r);
	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VM, s->target, r));) {
		const struct row *vdi = db_follow(db, r, VBD_VDI);

		if (!vdi || strcmp(db_string(vdi, VDI_INTENT), VM_VDI_MAKE) != 0 ||
			s->count == HYPER_MAX_VBDS)
			continue;
		s->disks[s->count].vdi = row_uuid(vdi);
		s->disks[s->count++].sr = db_ref(vdi, VDI_SR);
	}
}

static int make_admit(struct vm_op *o, const struct db *db, struct rv_error *e)
{
	if (o->rerun) {
		o->host = o->mgr->hosts[0];
		find_again(make_of(&o->op), db);
		return 0;
	}
	return o->kind == VM_OP_CLONE ? clone_admit(o, db, e) : provision_admit(o, db, e);
}

static void make_begin(struct vm_op *o)
{
	op_start(&o->op, o->mgr->loop, &table, make_step, vm_op_done, o->subject);
}

static bool make_cancellable(const struct vm_op *o)
{
	return o->op.state == MAKE;
}

static void make_stop(struct vm_op *o)
{
	vm_request_stop(&make_of(&o->op)->request);
}

const struct vm_verb vm_verb_clone = {
	/* The target carries the intent; of the source nothing changes. */
	.intent = VM_INTENT_NONE,
	.size = sizeof(struct make),
	.admit = make_admit,
	.intend = clone_intend,
	.begin = make_begin,
	.cancellable = make_cancellable,
	.stop = make_stop,
};

const struct vm_verb vm_verb_provision = {
	.intent = VM_INTENT_PROVISION,
	.size = sizeof(struct make),
	.admit = make_admit,
	.intend = provision_intend,
	.begin = make_begin,
	.cancellable = make_cancellable,
	.stop = make_stop,
};
