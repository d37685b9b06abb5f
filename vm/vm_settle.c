/*
 *	LEFTOVERS (each) ─► DOMAIN ─► GUEST ─► IMAGE ─► END ─► ENDED
 *	   half-made          gone     goes on  dropped, one entry
 *	                                        or closed
 */
#include "vm/vm_settle.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "vm/vm_image.h"
#include "vm/vm_protect.h"
#include "vm/vm_teardown.h"

enum { LEFTOVERS, DOMAIN, GUEST, IMAGE, END, ENDED };

static const struct op_state states[] = {
	[LEFTOVERS] = {"leftovers", OP_TO(LEFTOVERS) | OP_TO(DOMAIN) | OP_TO(END)},
	[DOMAIN] = {"domain", OP_TO(GUEST) | OP_TO(END)},
	[GUEST] = {"guest", OP_TO(IMAGE) | OP_TO(END)},
	[IMAGE] = {"image", OP_TO(END)},
	[END] = {"end", OP_TO(ENDED)},
	[ENDED] = {"ended", 0},
};

static const struct op_table table = {"vm.settle", states, 6, LEFTOVERS};

struct settle {
	struct vm_op vm; /* first */
	struct vm_verdict verdict;
	char why[200], paused_by[200]; /* the verdict's own words */
	struct vm_leftovers left;
	size_t next;
	struct vm_teardown teardown;
	struct vm_devices devices;
	struct vm_image image;
	struct hyper_domain_id id;
	bool recorded, discarded, stuck;
	bool protected; /* the master starts it again; in the entry's last attempt */
	bool waiting;	/* for the host's lease, to resume the guest */
};

static struct settle *settle_of(struct op *op)
{
	return CONTAINER_OF(op, struct settle, vm.op);
}

static void settle_step(struct op *op);

/* --- the ending --- */

static void finish_settled(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct settle *s = settle_of(&o->op);
	const struct vm_verdict *v = &s->verdict;
	const struct row *vm = db_row(db, CLASS_VM, o->vm);
	struct uuid image = vm ? db_ref(vm, VM_SUSPEND_VDI) : UUID_NONE;

	if (v->keep_domain) {
		txn_set_enum(t, o->vm, VM_POWER_STATE, v->power_state);
		txn_set_string(t, o->vm, VM_PAUSED_BY, v->paused_by ? v->paused_by : "");
	} else {
		vm_txn_no_domain(
			db, t, o->vm, o->host->uuid, v->power_state, &s->devices);
		/* Spent, so that what might turn up later is known as stale. */
		txn_set_int(t, o->vm, VM_OWNER_GENERATION, (int64_t)s->id.generation + 1);
	}
	if (vm && v->lost)
		s->protected = vm_restart_due_txn(vm, vm_uuid(o->mgr), t);
	if (v->drop_image && !uuid_is_none(&image)) {
		txn_set_ref(t, o->vm, VM_SUSPEND_VDI, UUID_NONE);
		vm_txn_image_done(db, t, image, s->discarded);
	}
}

/* Devices that this host had left before are still left: no entry with each try. */
static bool nothing_came_of_it(const struct settle *s)
{
	const struct vm_op *o = &s->vm;
	struct uuid on = db_ref(o->row, VM_DEVICES_LEFT_ON);

	return uuid_is_none(&o->task) && db_enum(o->row, VM_INTENT) == VM_INTENT_NONE &&
	       s->teardown.devices_left && !s->recorded && s->left.count == 0 &&
	       !s->verdict.drop_image && uuid_eq(&on, &o->host->uuid);
}

static void settle_end(struct settle *s)
{
	struct vm_op *o = &s->vm;

	if (nothing_came_of_it(s)) {
		log_info("vm.settle", "%s msg=\"%s\" next=\"tried again by itself\"",
			o->subject, s->devices.error.detail);
		op_move(&o->op, END);
		op_move(&o->op, ENDED);
		op_finish(&o->op);
		return;
	}
	if (s->verdict.rc && !s->stuck)
		op_fail(&o->op, s->verdict.rc, "VM %s: %s", o->name, s->verdict.why);
	if (!s->stuck) {
		vm_told_over(&o->mgr->told, o->vm);
		o->finish = finish_settled;
		if (s->verdict.note) {
			o->note_name = s->verdict.note;
			snprintf(o->note, sizeof o->note, "VM %.100s: %s", o->name,
				s->verdict.why);
		}
	}
	vm_op_end(o, END);
}

/* --- steps --- */

static void settle_torn_down(struct vm_teardown *t)
{
	struct settle *s = CONTAINER_OF(t, struct settle, teardown);

	if (op_resume(&s->vm.op, s->vm.op.token))
		settle_step(&s->vm.op);
}

static void settle_answered(void *arg, uint64_t token, int rc)
{
	struct settle *s = arg;

	(void)rc;
	if (op_resume(&s->vm.op, token))
		settle_step(&s->vm.op);
}

static void teardown(struct settle *s, const struct hyper_domain_id *id, bool has_domain,
	bool all_devices)
{
	op_await(&s->vm.op, 0);
	s->teardown = (struct vm_teardown){
		.owner = &s->vm,
		.host = s->vm.host,
		.id = *id,
		.has_domain = has_domain,
		.devices = &s->devices,
		/* A start that was interrupted has signed with the next one. */
		.generation = s->id.generation + 1,
		.all_devices = all_devices,
		.memory_domid = has_domain ? id->domid : UINT32_MAX,
	};
	vm_teardown_start(&s->teardown, settle_torn_down);
}

/* Something could not be removed: leave the database as it is, and look again later. */
static bool settle_stuck(struct settle *s)
{
	struct vm_op *o = &s->vm;

	if (!s->teardown.domain_left)
		return false;
	s->stuck = true;
	op_fail_with(&o->op, &s->teardown.op.error);
	/* It is tried again at each look. */
	if (vm_told_new(&o->mgr->told, o->vm, s->teardown.op.error.detail))
		vm_note(o->mgr, "VM_NOT_SETTLED", 2, o->vm, "%s",
			s->teardown.op.error.detail);
	settle_end(s);
	return true;
}

static void enter_image(struct settle *s)
{
	struct vm_op *o = &s->vm;
	const struct row *vdi = db_follow(pool_db(o->mgr->pool), o->row, VM_SUSPEND_VDI);
	struct rv_error e;
	/* A resume that was interrupted may have it open; a host that has not would be
	 * refused it. */
	bool close = db_enum(o->row, VM_INTENT) == VM_INTENT_RESUME;

	if (!vdi || !(s->verdict.drop_image || close) ||
		vm_image_init(&s->image, o->mgr->loop, o->host->storage,
			db_ref(vdi, VDI_SR), row_uuid(vdi), o->vm, s->id.generation + 1,
			&e)) {
		settle_end(s);
		return;
	}
	op_move(&o->op, IMAGE);
	if (s->verdict.drop_image)
		vm_image_discard(&s->image, settle_answered, s, op_await(&o->op, 0));
	else
		vm_image_close(&s->image, settle_answered, s, op_await(&o->op, 0));
}

static void resume_guest(struct settle *s)
{
	struct rv_error e;

	s->waiting = vm_may_resume(&s->vm, &e) != 0;
	if (s->waiting)
		op_await(&s->vm.op, VM_RESUME_LOOK_MS);
	else
		hyper_resume(s->vm.host->hyper,
			vm_op_call(&s->vm, s->vm.mgr->config.answer_ms), &s->id);
}

static void enter_guest(struct settle *s)
{
	op_move(&s->vm.op, GUEST);
	if (s->verdict.resume_guest)
		resume_guest(s);
	else
		enter_image(s);
}

static void enter_domain(struct settle *s)
{
	struct rv_error e;

	op_move(&s->vm.op, DOMAIN);
	if (!s->verdict.destroy) {
		enter_guest(s);
		return;
	}
	if (vm_devices_load(
		    &s->devices, pool_db(s->vm.mgr->pool), s->vm.row, UUID_NONE, &e))
		log_warn("vm.settle", "%s msg=\"%s\"", s->vm.subject, e.detail);
	teardown(s, &s->id, s->recorded, true);
}

static void in_leftovers(struct settle *s)
{
	if (s->next > 0 && settle_stuck(s))
		return;
	if (s->next < s->left.count) {
		if (s->next > 0)
			op_move(&s->vm.op, LEFTOVERS);
		teardown(s, &s->left.id[s->next++], true, false);
		return;
	}
	enter_domain(s);
}

static void settle_step(struct op *op)
{
	struct settle *s = settle_of(op);

	if (op->awaiting)
		return;
	switch (op->state) {
	case LEFTOVERS:
		in_leftovers(s);
		return;
	case DOMAIN:
		if (!settle_stuck(s))
			enter_guest(s);
		return;
	case GUEST:
		if (s->vm.hyper.rc && s->vm.hyper.rc != RV_ENOENT) {
			/* Seen again, and tried again, at the next look. */
			log_warn("vm.settle", "%s rc=%s msg=\"%s\"", s->vm.subject,
				rv_error_symbol(s->vm.hyper.rc),
				s->vm.hyper.error.detail);
		} else {
			vm_memory_mode(s->vm.host->memory, &s->id, MEMCTL_RUNNING);
		}
		enter_image(s);
		return;
	case IMAGE:
		s->discarded = s->verdict.drop_image && s->image.rc == 0;
		settle_end(s);
		return;
	case END:
		vm_op_ended(&s->vm, ENDED);
		return;
	default:
		vm_op_lost(op);
	}
}

static void settle_deadline(struct op *op)
{
	struct settle *s = settle_of(op);

	if (s->waiting) {
		resume_guest(s);
		return;
	}
	s->vm.hyper.token = op_await(op, 0);
	hyper_cancel(&s->vm.hyper);
}

static void settle_done(struct op *op)
{
	struct settle *s = settle_of(op);
	struct vm_manager *m = s->vm.mgr;
	struct vm_op_args args = {.vm = s->vm.vm};
	bool restart =
		s->verdict.restart && !s->protected && s->vm.finish && !s->vm.entry.rc;
	struct rv_error e;

	vm_op_done(op);
	if (!restart)
		return;
	if (vm_op_start_internal(m, VM_OP_START, &args, UUID_NONE, "VM_RESTARTED",
		    "its domain vanished; it was started again", &e))
		vm_note(m, "VM_RESTART_FAILED", 2, args.vm, "%s", e.detail);
}

/* --- the verb --- */

static void settle_begin(struct vm_op *o)
{
	struct settle *s = settle_of(&o->op);

	s->recorded = vm_recorded(o->row, &s->id);
	vm_devices_init(&s->devices, o->mgr->loop, o->host->storage, o->host->net);
	o->op.on_deadline = settle_deadline;
	op_start(&o->op, o->mgr->loop, &table, settle_step, settle_done, o->subject);
}

static bool settle_cancellable(const struct vm_op *o)
{
	(void)o;
	return false;
}

static void settle_stop(struct vm_op *o)
{
	struct settle *s = settle_of(&o->op);

	vm_teardown_stop(&s->teardown);
	vm_devices_stop(&s->devices);
	vm_image_stop(&s->image);
}

static void settle_fini(struct vm_op *o)
{
	struct settle *s = settle_of(&o->op);

	vm_devices_fini(&s->devices);
	vm_image_fini(&s->image);
}

static const struct vm_verb settle_verb = {
	.intent = VM_INTENT_START, /* any: the ending clears it */
	.size = sizeof(struct settle),
	.begin = settle_begin,
	.cancellable = settle_cancellable,
	.stop = settle_stop,
	.fini = settle_fini,
};

int vm_settle(struct vm_host *h, const struct row *vm, enum vm_operation kind,
	const struct vm_verdict *v, const struct vm_leftovers *left, struct rv_error *e)
{
	struct vm_op_args args = {.vm = row_uuid(vm)};
	struct uuid task = db_ref(vm, VM_INTENT_TASK);
	struct settle *s;
	struct vm_op *o;
	int rc = vm_op_new(h->mgr, &settle_verb, kind, &args, task, vm, &o, e);

	if (rc)
		return rc;
	o->host = h;
	o->internal = o->rerun = true;
	s = settle_of(&o->op);
	s->verdict = *v;
	s->left = *left;
	if (v->why) {
		snprintf(s->why, sizeof s->why, "%s", v->why);
		s->verdict.why = s->why;
	}
	if (v->paused_by) {
		snprintf(s->paused_by, sizeof s->paused_by, "%s", v->paused_by);
		s->verdict.paused_by = s->paused_by;
	}
	vm_op_go(o);
	return 0;
}
