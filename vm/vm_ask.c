/*
 *	ASK ─► WAIT ─(event)─► OVER
 *	  │      ╰─(deadline, cancelled: it runs on)─► OVER
 *	  ╰─► LOOK: the request was refused or its answer left it open
 */
#include "vm/vm_ask.h"

enum { ASK, LOOK, WAIT, OVER };

static const struct op_state states[] = {
	[ASK] = {"ask", OP_TO(LOOK) | OP_TO(WAIT) | OP_TO(OVER)},
	[LOOK] = {"look", OP_TO(WAIT) | OP_TO(OVER)},
	[WAIT] = {"wait", OP_TO(OVER)},
	[OVER] = {"over", 0},
};

static const struct op_table table = {"vm.ask", states, 4, ASK};

static void ask_step(struct op *op);

static struct vm_ask *ask_of(struct op *op)
{
	return CONTAINER_OF(op, struct vm_ask, op);
}

static void ask_answered(void *arg, struct hyper_req *req)
{
	struct vm_ask *a = arg;

	if (op_resume(&a->op, req->token))
		ask_step(&a->op);
}

static void ask_over(struct vm_ask *a)
{
	op_move(&a->op, OVER);
	op_finish(&a->op);
}

static void ask_wait(struct vm_ask *a)
{
	vm_op_progress(a->owner, 0.2, "waiting for the guest");
	op_move(&a->op, WAIT);
	op_await(&a->op, a->timeout_ms);
}

static void ask_look(struct vm_ask *a)
{
	op_move(&a->op, LOOK);
	a->req.token = op_await(&a->op, a->owner->mgr->config.answer_ms);
	hyper_info(a->owner->host->hyper, &a->req, &a->id);
}

static void in_look(struct vm_ask *a)
{
	int rc = a->req.rc;

	if (rc == RV_ENOENT || rc == RV_ESTALE || a->ended ||
		(rc == 0 && (a->req.domain.state == HYPER_SHUTDOWN ||
				    a->req.domain.state == HYPER_DYING))) {
		ask_over(a);
	} else if (rc) {
		op_fail(&a->op, rc, "VM %s: %s", a->owner->name, a->req.error.detail);
		ask_over(a);
	} else if (a->req.domain.state == HYPER_RUNNING) {
		ask_wait(a); /* the answer may have been lost, not the request */
	} else {
		op_fail(&a->op, RV_ESTATE,
			"VM %s: its domain is %s, so its guest can't be asked; use "
			"vm-shutdown --force",
			a->owner->name, hyper_state_name(a->req.domain.state));
		ask_over(a);
	}
}

static void ask_step(struct op *op)
{
	struct vm_ask *a = ask_of(op);

	if (op->awaiting) {
		if (op->state != WAIT || !op->cancelled)
			return;
		op_fail(op, RV_ECANCELLED,
			"VM %s: cancelled; its guest was asked to end and may still do "
			"so",
			a->owner->name);
		ask_over(a);
		return;
	}
	switch (op->state) {
	case ASK:
		if (!a->looking) {
			a->looking = true;
			a->req.token = op_await(op, a->owner->mgr->config.answer_ms);
			hyper_request_shutdown(
				a->owner->host->hyper, &a->req, &a->id, a->reason);
		} else if (a->ended) {
			ask_over(a);
		} else if (a->req.rc) {
			ask_look(a);
		} else if (op->cancelled) {
			op_fail(op, RV_ECANCELLED, "VM %s: cancelled", a->owner->name);
			ask_over(a);
		} else {
			ask_wait(a);
		}
		return;
	case LOOK:
		in_look(a);
		return;
	case WAIT:
		ask_over(a);
		return;
	default:
		vm_op_lost(op);
	}
}

static void ask_deadline(struct op *op)
{
	struct vm_ask *a = ask_of(op);

	if (op->state != WAIT) {
		/* Goes on waiting: it is answered once it is surely over (hyper.h). */
		a->req.token = op_await(op, 0);
		hyper_cancel(&a->req);
		return;
	}
	op_fail(op, RV_ETIMEDOUT,
		"VM %s: its guest did not end within %lld s; it may hang, or not know "
		"how. "
		"Wait longer, or pull the plug (vm-shutdown --force)",
		a->owner->name, (long long)(a->timeout_ms / 1000));
	ask_over(a);
}

static void ask_done(struct op *op)
{
	struct vm_ask *a = ask_of(op);
	struct op *owner = &a->owner->op;

	a->at_work = false;
	if (op_resume(owner, owner->token))
		a->step(owner);
}

bool vm_ask_guest(struct vm_ask *a, int end)
{
	struct vm_op *o = a->owner;

	if (a->op.table && a->op.error.code == 0)
		return true;
	if (a->op.table) {
		op_fail_with(&o->op, &a->op.error);
		vm_op_end(o, end);
		return false;
	}
	if (a->timeout_ms <= 0)
		a->timeout_ms = VM_SHUTDOWN_TIMEOUT_MS;
	a->at_work = true;
	op_await(&o->op, 0);
	hyper_req_init(&a->req, ask_answered, a);
	a->op.on_deadline = ask_deadline;
	op_start(&a->op, o->mgr->loop, &table, ask_step, ask_done, o->subject);
	return false;
}

void vm_ask_heed_cancel(struct vm_ask *a)
{
	if (a->at_work && a->owner->op.cancelled)
		op_cancel(&a->op);
}

void vm_ask_ended(struct vm_ask *a)
{
	a->ended = true;
	if (a->op.table && !a->op.finished && a->op.state == WAIT &&
		op_resume(&a->op, a->op.token))
		ask_step(&a->op);
}
