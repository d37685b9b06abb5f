/*
 *	clean: ASK (vm_ask) ─► TEARDOWN ─► BUILD ─► END ─► ENDED
 *	        ╰─ the guest did not, or cancelled: it runs on ─► END
 *	hard:                  TEARDOWN ─► BUILD ─► END
 *
 * The new domain takes over the old one's memory (vm_memory_succeed), so that nobody gets
 * in between. What fails after TEARDOWN leaves the VM Halted; if it is protected, the
 * pool's master is to start it.
 */
#include "vm/vm_ask.h"
#include "vm/vm_build.h"
#include "vm/vm_domain.h"
#include "vm/vm_protect.h"

enum { ASK, TEARDOWN, BUILD, END, ENDED };

static const struct op_state states[] = {
	[ASK] = {"ask", OP_TO(TEARDOWN) | OP_TO(END)},
	[TEARDOWN] = {"teardown", OP_TO(BUILD) | OP_TO(END)},
	[BUILD] = {"build", OP_TO(END)},
	[END] = {"end", OP_TO(ENDED)},
	[ENDED] = {"ended", 0},
};

static const struct op_table table = {"vm.reboot", states, 5, ASK};

struct reboot {
	struct vm_op vm; /* first */
	struct vm_ask ask;
	struct vm_devices devices;
	struct vm_teardown teardown;
	struct vm_build build;
	struct hyper_domain_id id;
	bool has_domain;
};

static struct reboot *reboot_of(struct op *op)
{
	return CONTAINER_OF(op, struct reboot, vm.op);
}

static void reboot_step(struct op *op);

static void finish_running(struct vm_op *o, const struct db *db, struct txn *t)
{
	const struct row *vm = db_row(db, CLASS_VM, o->vm);
	const struct row *metrics = vm ? db_follow(db, vm, VM_METRICS) : NULL;

	txn_set_enum(t, o->vm, VM_POWER_STATE, VM_POWER_STATE_RUNNING);
	if (metrics)
		txn_set_time(t, row_uuid(metrics), VM_METRICS_START_TIME,
			loop_wall_ms(o->mgr->loop));
}

/* It was to run on: what is protected is started by the master. */
static void finish_halted(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct reboot *s = reboot_of(&o->op);
	const struct row *vm = db_row(db, CLASS_VM, o->vm);

	vm_txn_no_domain(
		db, t, o->vm, o->host->uuid, VM_POWER_STATE_HALTED, &s->build.devices);
	txn_set_int(t, o->vm, VM_OWNER_GENERATION, (int64_t)s->build.generation);
	if (vm)
		vm_restart_due_txn(vm, vm_uuid(o->mgr), t);
}

static void finish_left(struct vm_op *o, const struct db *db, struct txn *t)
{
	struct reboot *s = reboot_of(&o->op);

	vm_txn_domain(db, t, o->vm, &s->build.id, o->host->uuid);
	txn_set_enum(t, o->vm, VM_POWER_STATE, VM_POWER_STATE_PAUSED);
	txn_set_string(t, o->vm, VM_PAUSED_BY, "a reboot that failed");
}

static void reboot_torn_down(struct vm_teardown *t)
{
	struct reboot *s = CONTAINER_OF(t, struct reboot, teardown);

	if (op_resume(&s->vm.op, s->vm.op.token))
		reboot_step(&s->vm.op);
}

static void reboot_built(struct vm_build *b)
{
	struct reboot *s = CONTAINER_OF(b, struct reboot, build);

	if (op_resume(&s->vm.op, s->vm.op.token))
		reboot_step(&s->vm.op);
}

static void enter_teardown(struct reboot *s)
{
	struct vm_op *o = &s->vm;
	struct rv_error e;

	if (vm_point(o, "reboot.ended"))
		return;
	vm_op_progress(o, 0.4, "removing the old domain");
	op_move(&o->op, TEARDOWN);
	op_await(&o->op, 0);
	if (vm_devices_load(&s->devices, pool_db(o->mgr->pool), o->row, UUID_NONE, &e))
		vm_note(o->mgr, "VM_DEVICES_WRONG", 3, o->vm, "%s", e.detail);
	vm_memory_keep(o->host->memory, &s->id);
	s->teardown = (struct vm_teardown){
		.owner = o,
		.host = o->host,
		.id = s->id,
		.has_domain = s->has_domain,
		.devices = &s->devices,
		.generation = s->id.generation,
		.all_devices = true,
		.memory_domid = UINT32_MAX, /* the new domain's */
	};
	vm_teardown_start(&s->teardown, reboot_torn_down);
}

static void in_teardown(struct reboot *s)
{
	struct vm_op *o = &s->vm;

	if (vm_point(o, "reboot.gone"))
		return;
	if (s->teardown.domain_left) {
		op_fail_with(&o->op, &s->teardown.op.error);
		vm_op_end(o, END);
		return;
	}
	if (s->teardown.devices_left)
		vm_note(o->mgr, "VM_DEVICES_LEFT", 3, o->vm,
			"VM %s is rebooting, not all of its devices could be released "
			"meanwhile: %s",
			o->name, s->teardown.op.error.detail);
	op_move(&o->op, BUILD);
	op_await(&o->op, 0);
	s->build = (struct vm_build){
		.owner = o,
		.host = o->host,
		.generation = s->id.generation + 1,
		.has_predecessor = true,
		.predecessor = s->id,
	};
	vm_build_start(&s->build, reboot_built);
}

static void in_build(struct reboot *s)
{
	struct vm_op *o = &s->vm;

	/* In case the build ended before it came to ask for the memory. */
	vm_memory_gone(o->host->memory, &s->id);
	if (!s->build.op.error.code) {
		o->finish = finish_running;
	} else {
		op_fail_with(&o->op, &s->build.op.error);
		o->finish = s->build.domain_left ? finish_left : finish_halted;
		vm_note(o->mgr, "VM_REBOOT_FAILED", 2, o->vm,
			"VM %s ended for a reboot and could not be started again: %s",
			o->name, s->build.op.error.detail);
	}
	vm_op_end(o, END);
}

static void in_ask(struct reboot *s)
{
	struct vm_op *o = &s->vm;

	if (o->kind == VM_OP_HARD_REBOOT) {
		enter_teardown(s);
		return;
	}
	if (vm_ask_guest(&s->ask, END))
		enter_teardown(s);
}

static void reboot_step(struct op *op)
{
	struct reboot *s = reboot_of(op);

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
	case BUILD:
		in_build(s);
		return;
	case END:
		vm_op_ended(&s->vm, ENDED);
		return;
	default:
		vm_op_lost(op);
	}
}

/* --- the verb --- */

static int reboot_admit(struct vm_op *o, const struct db *db, struct rv_error *e)
{
	(void)db;
	if (!o->host)
		return rv_error_set(e, RV_ESTATE, "VM %s is on no host", o->name);
	return o->internal ? 0 : vm_check(o->row, e);
}

static void reboot_begin(struct vm_op *o)
{
	struct reboot *s = reboot_of(&o->op);

	s->has_domain = vm_recorded(o->row, &s->id);
	vm_devices_init(&s->devices, o->mgr->loop, o->host->storage, o->host->net);
	s->ask = (struct vm_ask){
		.owner = o,
		.id = s->id,
		.reason = HYPER_REASON_REBOOT,
		.timeout_ms = o->args.timeout_ms,
		.step = reboot_step,
	};
	op_start(&o->op, o->mgr->loop, &table, reboot_step, vm_op_done, o->subject);
}

/* Once the old domain is gone there is nothing to go back to. */
static bool reboot_cancellable(const struct vm_op *o)
{
	return o->op.state == ASK && o->kind == VM_OP_CLEAN_REBOOT;
}

static bool same_domain(const struct hyper_domain *d, const struct hyper_domain_id *id)
{
	return d->id.domid == id->domid && uuid_eq(&d->id.handle, &id->handle);
}

static void reboot_guest_ended(struct vm_op *o, const struct hyper_event *event)
{
	struct reboot *s = reboot_of(&o->op);

	if (!vm_ask_is_end(event))
		return;
	if (same_domain(&event->domain, &s->id)) {
		if (s->ask.at_work)
			vm_ask_ended(&s->ask);
		else if (o->op.state == END && s->ask.op.error.code)
			goto later;
		return;
	}
	/* The new one, already. */
later:
	o->guest_event = *event;
	o->guest_event_due = true;
}

static void reboot_stop(struct vm_op *o)
{
	struct reboot *s = reboot_of(&o->op);

	vm_op_halt(&s->ask.op);
	vm_teardown_stop(&s->teardown);
	vm_devices_stop(&s->devices);
	if (s->build.owner)
		vm_build_stop(&s->build);
}

static void reboot_fini(struct vm_op *o)
{
	struct reboot *s = reboot_of(&o->op);

	vm_devices_fini(&s->devices);
	vm_build_fini(&s->build);
}

const struct vm_verb vm_verb_reboot = {
	.intent = VM_INTENT_REBOOT,
	.size = sizeof(struct reboot),
	.resident = true,
	.admit = reboot_admit,
	.intend = vm_domain_txn_boot,
	.begin = reboot_begin,
	.cancellable = reboot_cancellable,
	.guest_ended = reboot_guest_ended,
	.stop = reboot_stop,
	.fini = reboot_fini,
};
