/*
 *	clean: ASK (vm_ask) ─► TEARDOWN ─► END ─► ENDED
 *	        ╰─ the guest did not, or cancelled: it runs on ─► END
 *	hard:                  TEARDOWN ─► [DISCARD a suspended state] ─► END
 */
#include "vm/vm_ask.h"
#include "vm/vm_image.h"
#include "vm/vm_protect.h"
#include "vm/vm_teardown.h"

enum { ASK, TEARDOWN, DISCARD, END, ENDED };

static const struct op_state states[] = {
	[ASK] = {"ask", OP_TO(TEARDOWN) | OP_TO(END)},
	[TEARDOWN] = {"teardown", OP_TO(DISCARD) | OP_TO(END)},
	[DISCARD] = {"discard", OP_TO(END)},
	[END] = {"end", OP_TO(ENDED)},
	[ENDED] = {"ended", 0},
};

static const struct op_table table = {"vm.shutdown", states, 5, ASK};

struct shutdown {
	struct vm_op vm; /* first */
	struct vm_ask ask;
	struct vm_devices devices;
	struct vm_teardown teardown;
	struct vm_image image;
	struct hyper_domain_id id;
	bool has_domain, discarded;
};

static struct shutdown *shutdown_of(struct op *op)
{
	return CONTAINER_OF(op, struct shutdown, vm.op);
}

static void shutdown_step(struct op *op);

/* A suspended VM is on none: then it is done here. */
static struct vm_host *shutdown_host(const struct vm_op *o)
{
	return o->host ? o->host : o->mgr->hosts[0];
}

static void finish_halted(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct shutdown *s = shutdown_of(&o->op);
	const struct row *vm = db_row(db, CLASS_VM, o->vm);
	struct uuid image = vm ? db_ref(vm, VM_SUSPEND_VDI) : UUID_NONE;

	vm_txn_no_domain(
		db, t, o->vm, shutdown_host(o)->uuid, VM_POWER_STATE_HALTED, &s->devices);
	txn_set_string(t, o->vm, VM_PAUSED_BY, "");
	/* What was shut down, or whose memory is thrown away, is not to be started or
	 * resumed by the pool either. */
	if (vm)
		vm_restart_drop_txn(vm, t);
	if (uuid_is_none(&image))
		return;
	txn_set_ref(t, o->vm, VM_SUSPEND_VDI, UUID_NONE);
	vm_txn_image_done(db, t, image, s->discarded);
}

/* Its domain could not be removed. When that is gone at last nobody starts it again. */
static void finish_left(struct vm_op *o, const struct db *db, struct txn *t)
{
	const struct row *vm = db_row(db, CLASS_VM, o->vm);

	txn_set_bool(t, o->vm, VM_ENDING, true);
	if (vm)
		vm_restart_drop_txn(vm, t);
}

static void shutdown_answered(void *arg, uint64_t token, int rc)
{
	struct shutdown *s = arg;

	(void)rc;
	if (op_resume(&s->vm.op, token))
		shutdown_step(&s->vm.op);
}

static void shutdown_torn_down(struct vm_teardown *t)
{
	struct shutdown *s = CONTAINER_OF(t, struct shutdown, teardown);

	if (op_resume(&s->vm.op, s->vm.op.token))
		shutdown_step(&s->vm.op);
}

static void enter_teardown(struct shutdown *s)
{
	struct vm_op *o = &s->vm;
	struct rv_error e;

	if (vm_point(o, "shutdown.ended"))
		return;
	vm_op_progress(o, 0.6, "removing the domain");
	op_move(&o->op, TEARDOWN);
	op_await(&o->op, 0);
	if (vm_devices_load(&s->devices, pool_db(o->mgr->pool), o->row, UUID_NONE, &e))
		vm_note(o->mgr, "VM_DEVICES_WRONG", 3, o->vm, "%s", e.detail);
	s->teardown = (struct vm_teardown){
		.owner = o,
		.host = shutdown_host(o),
		.id = s->id,
		.has_domain = s->has_domain,
		.devices = &s->devices,
		.generation = s->id.generation,
		.all_devices = true,
		.memory_domid = s->id.domid,
	};
	vm_teardown_start(&s->teardown, shutdown_torn_down);
}

static void enter_discard(struct shutdown *s)
{
	struct vm_op *o = &s->vm;
	const struct db *db = pool_db(o->mgr->pool);
	const struct row *vdi = db_follow(db, o->row, VM_SUSPEND_VDI);
	struct vm_host *h = shutdown_host(o);
	struct rv_error e;

	o->finish = finish_halted;
	if (!vdi ||
		vm_image_init(&s->image, o->mgr->loop, h->storage, db_ref(vdi, VDI_SR),
			row_uuid(vdi), o->vm, s->id.generation + 1, &e)) {
		vm_op_end(o, END);
		return;
	}
	op_move(&o->op, DISCARD);
	vm_image_discard(&s->image, shutdown_answered, s, op_await(&o->op, 0));
}

static void in_teardown(struct shutdown *s)
{
	struct vm_op *o = &s->vm;

	if (vm_point(o, "shutdown.gone"))
		return;
	if (s->teardown.domain_left) {
		op_fail_with(&o->op, &s->teardown.op.error);
		o->finish = finish_left;
		vm_op_end(o, END);
		return;
	}
	if (s->teardown.devices_left)
		vm_note(o->mgr, "VM_DEVICES_LEFT", 2, o->vm,
			"VM %s is halted, but not all of its devices could be released: "
			"%s. It is tried again by itself",
			o->name, s->teardown.op.error.detail);
	enter_discard(s);
}

static void in_ask(struct shutdown *s)
{
	struct vm_op *o = &s->vm;

	if (o->kind == VM_OP_HARD_SHUTDOWN || !s->has_domain) {
		enter_teardown(s);
		return;
	}
	if (vm_ask_guest(&s->ask, END))
		enter_teardown(s);
}

static void shutdown_step(struct op *op)
{
	struct shutdown *s = shutdown_of(op);

	if (op->awaiting) {
		vm_ask_heed_cancel(&s->ask);
		return;
	}
	switch (op->state) {
	case ASK:
		in_ask(s);
		return;
	case TEARDOWN:
		in_teardown(s);
		return;
	case DISCARD:
		s->discarded = s->image.rc == 0;
		if (!s->discarded)
			vm_note(s->vm.mgr, "SUSPEND_IMAGE_LEFT", 4, s->vm.vm,
				"VM %s: its suspend image could not be deleted: %s. "
				"It is tried again by itself",
				s->vm.name, s->image.error.detail);
		vm_op_end(&s->vm, END);
		return;
	case END:
		vm_op_ended(&s->vm, ENDED);
		return;
	default:
		vm_op_lost(op);
	}
}

/* --- the verb --- */

static void shutdown_begin(struct vm_op *o)
{
	struct shutdown *s = shutdown_of(&o->op);
	struct vm_host *h = shutdown_host(o);

	s->has_domain = vm_recorded(o->row, &s->id) && o->host;
	vm_devices_init(&s->devices, o->mgr->loop, h->storage, h->net);
	s->ask = (struct vm_ask){
		.owner = o,
		.id = s->id,
		.reason = HYPER_REASON_POWEROFF,
		.timeout_ms = o->args.timeout_ms,
		.step = shutdown_step,
	};
	op_start(&o->op, o->mgr->loop, &table, shutdown_step, vm_op_done, o->subject);
}

static bool shutdown_cancellable(const struct vm_op *o)
{
	return o->op.state == ASK && o->kind == VM_OP_CLEAN_SHUTDOWN;
}

/* However it ended: it was asked to. But a suspension for a save is none. */
static void shutdown_guest_ended(struct vm_op *o, const struct hyper_event *event)
{
	struct shutdown *s = shutdown_of(&o->op);

	if (!vm_ask_is_end(event))
		return;
	if (s->ask.at_work) {
		vm_ask_ended(&s->ask);
	} else if (o->op.state == ASK || o->op.state == END) {
		o->guest_event = *event;
		o->guest_event_due = o->finish == NULL;
	}
}

static void shutdown_stop(struct vm_op *o)
{
	struct shutdown *s = shutdown_of(&o->op);

	vm_op_halt(&s->ask.op);
	vm_teardown_stop(&s->teardown);
	vm_devices_stop(&s->devices);
	vm_image_stop(&s->image);
}

static void shutdown_fini(struct vm_op *o)
{
	struct shutdown *s = shutdown_of(&o->op);

	vm_devices_fini(&s->devices);
	vm_image_fini(&s->image);
}

const struct vm_verb vm_verb_shutdown = {
	.intent = VM_INTENT_SHUTDOWN,
	.size = sizeof(struct shutdown),
	.resident = true,
	.begin = shutdown_begin,
	.cancellable = shutdown_cancellable,
	.guest_ended = shutdown_guest_ended,
	.stop = shutdown_stop,
	.fini = shutdown_fini,
};
