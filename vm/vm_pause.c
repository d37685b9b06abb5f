/*
 *	CALL ─► END ─► ENDED
 *	  │ ╲     ▲
 *	  ▼  ╲    │
 *	SETTLING ─► LOOK: the answer left it open; what is there decides
 */
#include "vm/vm_op.h"

enum { CALL, SETTLING, LOOK, END, ENDED };

enum { PAUSE_LOOKS = 20, PAUSE_LOOK_MS = 500 };

static const struct op_state states[] = {
	[CALL] = {"call", OP_TO(SETTLING) | OP_TO(LOOK) | OP_TO(END)},
	[SETTLING] = {"settling", OP_TO(LOOK) | OP_TO(END)},
	[LOOK] = {"look", OP_TO(LOOK) | OP_TO(END)},
	[END] = {"end", OP_TO(ENDED)},
	[ENDED] = {"ended", 0},
};

static const struct op_table table = {"vm.pause", states, 5, CALL};

struct pause {
	struct vm_op vm; /* first */
	struct hyper_domain_id id;
	bool called, resting;
	int looks;
};

static struct pause *pause_of(struct op *op)
{
	return CONTAINER_OF(op, struct pause, vm.op);
}

static bool wants_paused(const struct pause *s)
{
	return s->vm.kind == VM_OP_PAUSE;
}

static void finish_done(struct vm_op *o, const struct db *db, struct txn *t)
{
	(void)db;
	txn_set_enum(t, o->vm, VM_POWER_STATE,
		wants_paused(pause_of(&o->op)) ? VM_POWER_STATE_PAUSED
					       : VM_POWER_STATE_RUNNING);
	txn_set_string(t, o->vm, VM_PAUSED_BY, "");
}

static void pause_done(struct pause *s)
{
	vm_memory_mode(s->vm.host->memory, &s->id,
		wants_paused(s) ? MEMCTL_PAUSED : MEMCTL_RUNNING);
	s->vm.finish = finish_done;
	vm_op_end(&s->vm, END);
}

static void pause_failed(struct pause *s)
{
	struct vm_op *o = &s->vm;

	op_fail(&o->op, o->hyper.rc ? o->hyper.rc : RV_ESTATE, "VM %s: %s", o->name,
		o->hyper.rc ? o->hyper.error.detail
			    : "its domain is not in the state that was asked for");
	vm_op_end(o, END);
}

static void enter_look(struct pause *s)
{
	op_move(&s->vm.op, LOOK);
	hyper_info(s->vm.host->hyper, vm_op_call(&s->vm, s->vm.mgr->config.answer_ms),
		&s->id);
}

static void in_call(struct pause *s)
{
	struct vm_op *o = &s->vm;
	struct rv_error e;

	if (!s->called && !wants_paused(s) && vm_may_run(o, &e)) {
		op_fail_with(&o->op, &e);
		vm_op_end(o, END);
		return;
	}
	if (!s->called) {
		struct hyper_req *req = vm_op_call(o, o->mgr->config.answer_ms);

		s->called = true;
		if (wants_paused(s))
			hyper_pause(o->host->hyper, req, &s->id);
		else
			vm_unpause(o, req, &s->id);
		return;
	}
	if (vm_point(o, "pause.called"))
		return;
	switch (o->hyper.rc) {
	case 0:
		pause_done(s);
		return;
	case RV_EAGAIN:
	case RV_EINVAL:
	case RV_ENOENT:
	case RV_ESTATE:
	case RV_ESTALE:
	case RV_EBUSY:
	case RV_EUNSUPPORTED:
		pause_failed(s);
		return;
	default:
		enter_look(s);
	}
}

static void in_look(struct pause *s)
{
	struct vm_op *o = &s->vm;
	enum hyper_state wanted = wants_paused(s) ? HYPER_PAUSED : HYPER_RUNNING;

	if (o->hyper.rc == 0 && o->hyper.domain.state == wanted) {
		pause_done(s);
	} else if (o->hyper.rc == 0 || o->hyper.rc == RV_ENOENT ||
		   o->hyper.rc == RV_ESTALE || ++s->looks > PAUSE_LOOKS) {
		pause_failed(s);
	} else {
		s->resting = true;
		op_move(&o->op, LOOK);
		op_await(&o->op, PAUSE_LOOK_MS);
	}
}

static void pause_step(struct op *op)
{
	struct pause *s = pause_of(op);

	if (op->awaiting)
		return;
	switch (op->state) {
	case CALL:
	case SETTLING:
		in_call(s);
		return;
	case LOOK:
		in_look(s);
		return;
	case END:
		vm_op_ended(&s->vm, ENDED);
		return;
	default:
		vm_op_lost(op);
	}
}

static void pause_deadline(struct op *op)
{
	struct pause *s = pause_of(op);

	if (s->resting) {
		s->resting = false;
		enter_look(s);
		return;
	}
	if (op->state == LOOK)
		s->vm.hyper.token = op_await(op, 0);
	else
		op_settle(op, SETTLING, 0);
	hyper_cancel(&s->vm.hyper);
}

static void pause_begin(struct vm_op *o)
{
	struct pause *s = pause_of(&o->op);

	vm_recorded(o->row, &s->id);
	o->op.on_deadline = pause_deadline;
	op_start(&o->op, o->mgr->loop, &table, pause_step, vm_op_done, o->subject);
}

static int pause_admit(struct vm_op *o, const struct db *db, struct rv_error *e)
{
	(void)db;
	if (!o->host)
		return rv_error_set(e, RV_ESTATE, "VM %s is on no host", o->name);
	return 0;
}

/* One short call: over before anybody could have cancelled it. */
static bool pause_cancellable(const struct vm_op *o)
{
	(void)o;
	return false;
}

const struct vm_verb vm_verb_pause = {
	.intent = VM_INTENT_PAUSE,
	.size = sizeof(struct pause),
	.resident = true,
	.admit = pause_admit,
	.begin = pause_begin,
	.cancellable = pause_cancellable,
};

const struct vm_verb vm_verb_unpause = {
	.intent = VM_INTENT_UNPAUSE,
	.size = sizeof(struct pause),
	.resident = true,
	.admit = pause_admit,
	.begin = pause_begin,
	.cancellable = pause_cancellable,
};
