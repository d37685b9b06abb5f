/*
 *	plug:   UP ─► ATTACH ─► END          unplug: DETACH ─► DOWN ─► END
 *	         │      ╰─► DETACH ─► DOWN ─► END (undo; the same way)
 *	         ╰────────────────► DOWN
 *
 * Every step may be repeated, so one that a dead daemon had begun is simply done again.
 */
#include <stdio.h>

#include "base/log.h"
#include "vm/vm_devices.h"
#include "vm/vm_op.h"

enum { UP, ATTACH, SETTLING, DETACH, DOWN, END, ENDED };

enum { HOTPLUG_TRIES = 4, HOTPLUG_RETRY_MS = 500 };

static const struct op_state states[] = {
	[UP] = {"up", OP_TO(ATTACH) | OP_TO(DETACH) | OP_TO(DOWN) | OP_TO(END)},
	[ATTACH] = {"attach", OP_TO(SETTLING) | OP_TO(DETACH) | OP_TO(END)},
	[SETTLING] = {"settling", OP_TO(DETACH) | OP_TO(DOWN) | OP_TO(END)},
	[DETACH] = {"detach", OP_TO(DETACH) | OP_TO(SETTLING) | OP_TO(DOWN) | OP_TO(END)},
	[DOWN] = {"down", OP_TO(END)},
	[END] = {"end", OP_TO(ENDED)},
	[ENDED] = {"ended", 0},
};

static const struct op_table table = {"vm.hotplug", states, 7, UP};

struct hotplug {
	struct vm_op vm; /* first */
	struct vm_devices devices;
	struct hyper_domain_id id;
	bool asked, resting, attached;
	int tries;
};

static struct hotplug *hotplug_of(struct op *op)
{
	return CONTAINER_OF(op, struct hotplug, vm.op);
}

static void hotplug_step(struct op *op);

static bool is_plug(const struct hotplug *s)
{
	return s->vm.kind == VM_OP_VBD_PLUG || s->vm.kind == VM_OP_VIF_PLUG;
}

static bool is_vbd(const struct hotplug *s)
{
	return s->vm.kind == VM_OP_VBD_PLUG || s->vm.kind == VM_OP_VBD_UNPLUG;
}

static void finish(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct hotplug *s = hotplug_of(&o->op);
	enum schema_class_id cls = is_vbd(s) ? CLASS_VBD : CLASS_VIF;
	char text[UUID_TEXT_SIZE];

	if (!db_row(db, cls, o->args.device))
		return;
	txn_set_bool(t, o->args.device,
		is_vbd(s) ? VBD_CURRENTLY_ATTACHED : VIF_CURRENTLY_ATTACHED, s->attached);
	txn_map_remove(t, o->args.device,
		is_vbd(s) ? VBD_CURRENT_OPERATIONS : VIF_CURRENT_OPERATIONS,
		uuid_format(&o->task, text));
}

static void hotplug_answered(void *arg, uint64_t token, int rc)
{
	struct hotplug *s = arg;

	(void)rc;
	if (op_resume(&s->vm.op, token))
		hotplug_step(&s->vm.op);
}

static void hotplug_end(struct hotplug *s)
{
	s->vm.finish = finish;
	vm_op_end(&s->vm, END);
}

static void enter_down(struct hotplug *s)
{
	op_move(&s->vm.op, DOWN);
	vm_devices_down(&s->devices, s->id.generation, true, hotplug_answered, s,
		op_await(&s->vm.op, 0));
}

static void enter_attach(struct hotplug *s)
{
	struct vm_op *o = &s->vm;
	const struct vm_device *v = &s->devices.list[0];
	struct hyper_vbd_spec vbd;
	struct hyper_vif_spec vif;
	struct hyper_req *req;

	op_move(&o->op, ATTACH);
	req = vm_op_call(o, o->mgr->config.answer_ms);
	if (is_vbd(s)) {
		vm_device_vbd(v, &vbd);
		hyper_attach_vbd(o->host->hyper, req, &s->id, &vbd);
	} else {
		vm_device_vif(v, &vif);
		hyper_attach_vif(o->host->hyper, req, &s->id, &vif);
	}
}

static void enter_detach(struct hotplug *s)
{
	struct vm_op *o = &s->vm;
	struct hyper_req *req;
	uint32_t devid = s->devices.list[0].devid;

	op_move(&o->op, DETACH);
	req = vm_op_call(o, o->mgr->config.answer_ms);
	if (is_vbd(s))
		hyper_detach_vbd(o->host->hyper, req, &s->id, devid);
	else
		hyper_detach_vif(o->host->hyper, req, &s->id, devid);
}

static void in_up(struct hotplug *s)
{
	struct vm_op *o = &s->vm;

	if (o->op.error.code || s->devices.count == 0) {
		op_fail(&o->op, RV_ENOENT, "VM %s: the drive is empty", o->name);
		hotplug_end(s);
		return;
	}
	if (!is_plug(s)) {
		enter_detach(s);
		return;
	}
	if (!s->asked) {
		s->asked = true;
		vm_devices_up(&s->devices, s->id.generation, hotplug_answered, s,
			op_await(&o->op, 0));
		return;
	}
	if (s->devices.rc)
		op_fail_with(&o->op, &s->devices.error);
	else if (o->op.cancelled)
		vm_op_cancelled(o);
	if (o->op.error.code)
		enter_down(s);
	else
		enter_attach(s);
}

static void in_attach(struct hotplug *s)
{
	struct vm_op *o = &s->vm;

	if (vm_point(o, "hotplug.attached"))
		return;
	if (o->hyper.rc == 0 && !o->op.error.code) {
		s->attached = true;
		hotplug_end(s);
		return;
	}
	if (o->hyper.rc)
		op_fail(&o->op, o->hyper.rc, "VM %s: %s", o->name, o->hyper.error.detail);
	enter_detach(s);
}

static void in_detach(struct hotplug *s)
{
	struct vm_op *o = &s->vm;
	int rc = o->hyper.rc;

	if (vm_point(o, "hotplug.detached"))
		return;
	if (rc == 0 || rc == RV_ENOENT || rc == RV_ESTALE) {
		enter_down(s);
	} else if (++s->tries < HOTPLUG_TRIES && rc != RV_EBUSY) {
		s->resting = true;
		op_move(&o->op, DETACH);
		op_await(&o->op, HOTPLUG_RETRY_MS);
	} else {
		/* The guest holds on to it. */
		op_fail(&o->op, rc, "VM %s: %s", o->name, o->hyper.error.detail);
		s->attached = true;
		hotplug_end(s);
	}
}

static void hotplug_step(struct op *op)
{
	struct hotplug *s = hotplug_of(op);

	if (op->awaiting) {
		if (op->cancelled && op->state == UP)
			vm_devices_cancel(&s->devices);
		return;
	}
	switch (op->state) {
	case UP:
		in_up(s);
		return;
	case ATTACH:
		in_attach(s);
		return;
	case SETTLING:
		enter_detach(s);
		return;
	case DETACH:
		in_detach(s);
		return;
	case DOWN:
		if (s->devices.rc) {
			/* Still held: to be unplugged again, or with the VM. */
			op_fail_with(op, &s->devices.error);
			s->attached = true;
		}
		hotplug_end(s);
		return;
	case END:
		vm_op_ended(&s->vm, ENDED);
		return;
	default:
		vm_op_lost(op);
	}
}

static void hotplug_deadline(struct op *op)
{
	struct hotplug *s = hotplug_of(op);

	if (s->resting) {
		s->resting = false;
		enter_detach(s);
		return;
	}
	op_fail(op, RV_ETIMEDOUT, "VM %s: no answer from the hypervisor in time",
		s->vm.name);
	op_settle(op, SETTLING, 0);
	hyper_cancel(&s->vm.hyper);
}

/* --- the verb --- */

static const struct row *find_again(struct hotplug *s, const struct db *db)
{
	enum schema_field_id of = is_vbd(s) ? VBD_VM : VIF_VM;
	enum schema_field_id current =
		is_vbd(s) ? VBD_CURRENT_OPERATIONS : VIF_CURRENT_OPERATIONS;
	const struct row *r = NULL;
	char text[UUID_TEXT_SIZE];

	uuid_format(&s->vm.task, text);
	while ((r = db_next_ref(db, of, s->vm.vm, r)))
		if (db_map_get(r, current, text))
			return r;
	return NULL;
}

static int hotplug_admit(struct vm_op *o, const struct db *db, struct rv_error *e)
{
	struct hotplug *s = hotplug_of(&o->op);
	const struct row *device;
	bool attached;

	if (o->rerun) {
		device = find_again(s, db);
		o->args.device = device ? row_uuid(device) : UUID_NONE;
	}
	device = db_row(db, is_vbd(s) ? CLASS_VBD : CLASS_VIF, o->args.device);
	if (!o->host || (!device && !o->rerun))
		return rv_error_set(e, RV_ESTATE, "VM %s is on no host", o->name);
	if (o->rerun)
		return 0;
	attached = db_bool(
		device, is_vbd(s) ? VBD_CURRENTLY_ATTACHED : VIF_CURRENTLY_ATTACHED);
	if (attached == is_plug(s))
		return rv_error_set(e, RV_ESTATE, "VM %s: the device is %s already",
			o->name, attached ? "attached" : "detached");
	if (is_vbd(s) && !is_plug(s) && !db_bool(device, VBD_UNPLUGGABLE))
		return rv_error_set(e, RV_ENOTALLOWED,
			"VM %s: its drive %s is marked as not unpluggable", o->name,
			db_string(device, VBD_USERDEVICE));
	return 0;
}

static void hotplug_intend(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct hotplug *s = hotplug_of(&o->op);
	char text[UUID_TEXT_SIZE];

	(void)db;
	txn_map_put(t, o->args.device,
		is_vbd(s) ? VBD_CURRENT_OPERATIONS : VIF_CURRENT_OPERATIONS,
		uuid_format(&o->task, text), vm_operation_name(o->kind));
}

static void hotplug_begin(struct vm_op *o)
{
	struct hotplug *s = hotplug_of(&o->op);
	struct rv_error e;

	vm_recorded(o->row, &s->id);
	vm_devices_init(&s->devices, o->mgr->loop, o->host->storage, o->host->net);
	o->op.on_deadline = hotplug_deadline;
	op_start(&o->op, o->mgr->loop, &table, hotplug_step, vm_op_done, o->subject);
	if (uuid_is_none(&o->args.device))
		op_fail(&o->op, RV_ENOENT, "VM %s: the device is gone", o->name);
	else if (vm_devices_load(
			 &s->devices, pool_db(o->mgr->pool), o->row, o->args.device, &e))
		op_fail_with(&o->op, &e);
}

static bool hotplug_cancellable(const struct vm_op *o)
{
	return o->op.state == UP;
}

static void hotplug_stop(struct vm_op *o)
{
	vm_devices_stop(&hotplug_of(&o->op)->devices);
}

static void hotplug_fini(struct vm_op *o)
{
	vm_devices_fini(&hotplug_of(&o->op)->devices);
}

const struct vm_verb vm_verb_hotplug = {
	.intent = VM_INTENT_NONE,
	.size = sizeof(struct hotplug),
	.resident = true,
	.admit = hotplug_admit,
	.intend = hotplug_intend,
	.begin = hotplug_begin,
	.cancellable = hotplug_cancellable,
	.stop = hotplug_stop,
	.fini = hotplug_fini,
};
