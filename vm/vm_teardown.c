/*
 *	DESTROY ──► DOWN ──► GONE
 *	  │  ▲ ╲
 *	  ▼  │  ╰─► (deadline) SETTLING ─► as answered
 *	 BACKOFF ──► LEFT     tries are spent: the caller records what is there
 */
#include "vm/vm_teardown.h"

#include "base/log.h"

enum { DESTROY, SETTLING, BACKOFF, DOWN, GONE, LEFT };

enum { TEARDOWN_TRIES = 7, TEARDOWN_BACKOFF_MS = 100 }; /* 100 ms doubling: 6 s in all */

static const struct op_state states[] = {
	[DESTROY] = {"destroy", OP_TO(DESTROY) | OP_TO(SETTLING) | OP_TO(BACKOFF) |
					OP_TO(DOWN) | OP_TO(LEFT)},
	[SETTLING] = {"settling", OP_TO(BACKOFF) | OP_TO(DOWN) | OP_TO(LEFT)},
	[BACKOFF] = {"backoff", OP_TO(DESTROY)},
	[DOWN] = {"down", OP_TO(GONE)},
	[GONE] = {"gone", 0},
	[LEFT] = {"left", 0},
};

static const struct op_table table = {"vm.teardown", states, 6, DESTROY};

static void teardown_step(struct op *op);

static struct vm_teardown *teardown_of(struct op *op)
{
	return CONTAINER_OF(op, struct vm_teardown, op);
}

static void destroyed(void *arg, struct hyper_req *req)
{
	struct vm_teardown *t = arg;

	if (op_resume(&t->op, req->token))
		teardown_step(&t->op);
}

static void devices_down(void *arg, uint64_t token, int rc)
{
	struct vm_teardown *t = arg;

	(void)rc;
	if (op_resume(&t->op, token))
		teardown_step(&t->op);
}

static void enter_destroy(struct vm_teardown *t)
{
	t->tries++;
	t->req.token = op_await(&t->op, t->owner->mgr->config.answer_ms);
	hyper_destroy(t->host->hyper, &t->req, &t->id);
}

static void enter_down(struct vm_teardown *t)
{
	op_move(&t->op, DOWN);
	if (t->memory_domid != UINT32_MAX)
		vm_memory_gone(t->host->memory, &t->id);
	vm_devices_down(t->devices, t->generation, t->all_devices, devices_down, t,
		op_await(&t->op, 0));
}

static void in_destroy(struct vm_teardown *t)
{
	if (!t->has_domain) {
		enter_down(t);
		return;
	}
	if (t->tries == 0) {
		enter_destroy(t);
		return;
	}
	if (t->req.rc == 0 || t->req.rc == RV_ENOENT) {
		enter_down(t);
		return;
	}
	/* An identity that differs is another domain: it is not ours to destroy. */
	if (t->req.rc == RV_ESTALE || t->tries >= TEARDOWN_TRIES) {
		op_fail(&t->op, t->req.rc,
			"VM %s: its domain could not be destroyed: %s. Try "
			"vm-shutdown --force again",
			t->owner->name, t->req.error.detail);
		t->domain_left = true;
		op_move(&t->op, LEFT);
		op_finish(&t->op);
		return;
	}
	op_move(&t->op, BACKOFF);
	op_await(&t->op, TEARDOWN_BACKOFF_MS << (t->tries - 1));
}

static void in_down(struct vm_teardown *t)
{
	if (t->devices->rc) {
		t->devices_left = true;
		vm_claims_due(t->host);
		op_fail_with(&t->op, &t->devices->error);
	}
	op_move(&t->op, GONE);
	op_finish(&t->op);
}

static void teardown_step(struct op *op)
{
	struct vm_teardown *t = teardown_of(op);

	if (op->awaiting)
		return;
	switch (op->state) {
	case DESTROY:
	case SETTLING:
		in_destroy(t);
		return;
	case DOWN:
		in_down(t);
		return;
	default:
		vm_op_lost(op);
	}
}

static void teardown_deadline(struct op *op)
{
	struct vm_teardown *t = teardown_of(op);

	if (op->state == BACKOFF) {
		op_move(op, DESTROY);
		enter_destroy(t);
		return;
	}
	op_settle(op, SETTLING, 0);
	hyper_cancel(&t->req);
}

static void teardown_done(struct op *op)
{
	struct vm_teardown *t = teardown_of(op);

	t->done(t);
}

void vm_teardown_start(struct vm_teardown *t, void (*done)(struct vm_teardown *t))
{
	t->done = done;
	t->tries = 0;
	t->domain_left = t->devices_left = false;
	hyper_req_init(&t->req, destroyed, t);
	t->op.on_deadline = teardown_deadline;
	op_start(&t->op, t->owner->mgr->loop, &table, teardown_step, teardown_done,
		t->owner->subject);
}

void vm_teardown_stop(struct vm_teardown *t)
{
	vm_op_halt(&t->op);
}
