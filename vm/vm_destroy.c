/*
 *	DISK (each, where asked for) ─► END ─► ENDED
 *	  ╰─ one that can't be deleted: the VM stays, without those that are gone
 */
#include <stdio.h>
#include <string.h>

#include "vm/vm_op.h"
#include "vm/vm_request.h"

enum { DISK, END, ENDED };

enum { DESTROY_TRIES = 4 };

static const struct op_state states[] = {
	[DISK] = {"disk", OP_TO(END)},
	[END] = {"end", OP_TO(ENDED)},
	[ENDED] = {"ended", 0},
};

static const struct op_table table = {"vm.destroy", states, 3, DISK};

struct destroy {
	struct vm_op vm; /* first */
	struct uuid vdi[HYPER_MAX_VBDS], sr[HYPER_MAX_VBDS];
	size_t count, next; /* those before `next` are gone */
	bool asked;
	char left[120]; /* names of disks that were never released; empty: none */
	struct vm_request request;
};

static struct destroy *destroy_of(struct op *op)
{
	return CONTAINER_OF(op, struct destroy, vm.op);
}

static void destroy_step(struct op *op);

static bool is_gone(const struct destroy *s, struct uuid vdi)
{
	for (size_t i = 0; i < s->next; i++)
		if (uuid_eq(&s->vdi[i], &vdi))
			return true;
	return false;
}

/* The disks that are gone, with their drives. */
static void finish_disks(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct destroy *s = destroy_of(&o->op);

	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VM, o->vm, r));)
		if (is_gone(s, db_ref(r, VBD_VDI)))
			txn_delete(t, CLASS_VBD, row_uuid(r));
	for (size_t i = 0; i < s->next; i++)
		if (db_row(db, CLASS_VDI, s->vdi[i]))
			txn_delete(t, CLASS_VDI, s->vdi[i]);
}

static void finish_all(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct destroy *s = destroy_of(&o->op);
	const struct row *vm = db_row(db, CLASS_VM, o->vm);
	const struct row *metrics = db_follow(db, vm, VM_METRICS);
	const struct row *guest = db_follow(db, vm, VM_GUEST_METRICS);

	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VM, o->vm, r));)
		txn_delete(t, CLASS_VBD, row_uuid(r));
	for (const struct row *r = NULL; (r = db_next_ref(db, VIF_VM, o->vm, r));)
		txn_delete(t, CLASS_VIF, row_uuid(r));
	for (const struct row *r = NULL; (r = db_next_ref(db, CONSOLE_VM, o->vm, r));)
		txn_delete(t, CLASS_CONSOLE, row_uuid(r));
	for (size_t i = 0; i < s->next; i++)
		if (db_row(db, CLASS_VDI, s->vdi[i]))
			txn_delete(t, CLASS_VDI, s->vdi[i]);
	txn_delete(t, CLASS_VM, o->vm);
	if (metrics)
		txn_delete(t, CLASS_VM_METRICS, row_uuid(metrics));
	if (guest)
		txn_delete(t, CLASS_VM_GUEST_METRICS, row_uuid(guest));
}

static void destroy_answered(void *arg, uint64_t token, int rc)
{
	struct destroy *s = arg;

	(void)rc;
	if (op_resume(&s->vm.op, token))
		destroy_step(&s->vm.op);
}

static void destroy_end(struct destroy *s)
{
	struct vm_op *o = &s->vm;

	o->finish = o->op.error.code ? finish_disks : finish_all;
	if (*s->left && !o->op.error.code) {
		o->note_name = "VM_DISKS_LEFT";
		snprintf(o->note, sizeof o->note,
			"VM %.36s is gone; out of reach were its disks %.80s. If they "
			"come back, so do their bytes",
			o->name, s->left);
	}
	vm_op_end(&s->vm, END);
}

static void destroy_next(struct destroy *s)
{
	struct storage_call call = {
		.verb = STORAGE_VDI_DESTROY,
		.sr = s->sr[s->next],
		.vdi = s->vdi[s->next],
	};

	if (s->next == s->count) {
		destroy_end(s);
		return;
	}
	s->asked = true;
	vm_request_start(&s->request, s->vm.mgr->loop, s->vm.host->storage, &call,
		DESTROY_TRIES, destroy_answered, NULL, s, op_await(&s->vm.op, 0));
}

static void destroy_step(struct op *op)
{
	struct destroy *s = destroy_of(op);

	if (op->awaiting)
		return;
	switch (op->state) {
	case DISK:
		if (s->asked && vm_point(&s->vm, "destroy.disk"))
			return;
		if (s->asked && s->request.rc) {
			op_fail(op, s->request.rc, "VM %s was not destroyed: %s",
				s->vm.name, s->request.error.detail);
			destroy_end(s);
			return;
		}
		s->next += s->asked;
		destroy_next(s);
		return;
	case END:
		vm_op_ended(&s->vm, ENDED);
		return;
	default:
		vm_op_lost(op);
	}
}

/* --- the verb --- */

/* Only this VM's drives hold it. */
static bool is_own(const struct db *db, const struct row *vdi, struct uuid vm)
{
	for (const struct row *r = NULL;
		(r = db_next_ref(db, VBD_VDI, row_uuid(vdi), r));) {
		struct uuid of = db_ref(r, VBD_VM);

		if (!uuid_eq(&of, &vm))
			return false;
	}
	return true;
}

/* A drive that was not released, of a VM without a domain. Where no host has its SR any
 * more, it never will be, and its record may go. */
static int unreleased(
	struct destroy *s, const struct db *db, const struct row *vbd, struct rv_error *e)
{
	const struct row *vdi = db_follow(db, vbd, VBD_VDI);
	size_t len = strlen(s->left);

	if (!vm_drive_out_of_reach(db, vbd))
		return rv_error_set(e, RV_EBUSY,
			"VM %s: its drive %s is not released yet, which is tried again "
			"by itself; see the messages. Where its SR is lost, pbd-unplug "
			"it everywhere, then ask again",
			s->vm.name, db_string(vbd, VBD_USERDEVICE));
	snprintf(s->left + len, sizeof s->left - len, "%s%s", len ? ", " : "",
		row_name(vdi));
	return 0;
}

static int out_of_reach(const struct vm_op *o, const struct db *db, const struct row *vdi,
	struct rv_error *e)
{
	return rv_error_set(e, RV_ENOTATTACHED,
		"VM %s: its disk %s is in SR %s, which no host has attached; pbd-plug "
		"it. "
		"Where the SR is lost, vm-destroy the VM without its disks, then "
		"sr-forget the SR",
		o->name, row_name(vdi), row_name(db_follow(db, vdi, VDI_SR)));
}

static int destroy_admit(struct vm_op *o, const struct db *db, struct rv_error *e)
{
	struct destroy *s = destroy_of(&o->op);
	bool disks = o->args.with_disks ||
		     (o->rerun && db_map_get(o->row, VM_INTENT_DATA, "disks"));

	o->host = o->mgr->hosts[0];
	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VM, o->vm, r));) {
		const struct row *vdi = db_follow(db, r, VBD_VDI);

		int rc = o->rerun || !db_bool(r, VBD_CURRENTLY_ATTACHED)
				 ? 0
				 : unreleased(s, db, r, e);

		if (rc)
			return rc;
		if (!disks || !vdi || db_enum(r, VBD_TYPE) == VBD_TYPE_CD ||
			!is_own(db, vdi, o->vm) || s->count == HYPER_MAX_VBDS)
			continue;
		if (!o->rerun && vm_drive_out_of_reach(db, r))
			return out_of_reach(o, db, vdi, e);
		s->vdi[s->count] = row_uuid(vdi);
		s->sr[s->count++] = db_ref(vdi, VDI_SR);
	}
	return 0;
}

static void destroy_intend(struct vm_op *o, const struct db *db, struct txn *t)
{
	(void)db;
	if (o->args.with_disks)
		txn_map_put(t, o->vm, VM_INTENT_DATA, "disks", "true");
}

static void destroy_begin(struct vm_op *o)
{
	op_start(&o->op, o->mgr->loop, &table, destroy_step, vm_op_done, o->subject);
}

/* What is deleted is deleted. */
static bool destroy_cancellable(const struct vm_op *o)
{
	(void)o;
	return false;
}

static void destroy_stop(struct vm_op *o)
{
	vm_request_stop(&destroy_of(&o->op)->request);
}

const struct vm_verb vm_verb_destroy = {
	.intent = VM_INTENT_DESTROY,
	.size = sizeof(struct destroy),
	.admit = destroy_admit,
	.intend = destroy_intend,
	.begin = destroy_begin,
	.cancellable = destroy_cancellable,
	.stop = destroy_stop,
};
