#include "reactor/op.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "reactor/loop_internal.h"

static void op_kicked(void *arg)
{
	struct op *op = arg;

	op->step(op);
}

static void op_deadline_passed(void *arg)
{
	struct op *op = arg;

	if (op->on_deadline) {
		/* Still awaiting: the answer may come yet, see op_settle. */
		op->on_deadline(op);
		return;
	}
	op->awaiting = false;
	op_fail(op, RV_ETIMEDOUT, "%s: no answer in time in state %s", op->subject,
		op_state_name(op));
	op->step(op);
}

static void op_finished(void *arg)
{
	struct op *op = arg;

	list_remove(&op->node);
	log_debug("op.end", "op=%s %s state=%s rc=%s us=%lld", op->table->name,
		op->subject, op_state_name(op), rv_error_symbol(op->error.code),
		(long long)(loop_now_us(op->loop) - op->started_us));
	if (op->done)
		op->done(op);
}

void op_start(struct op *op, struct loop *l, const struct op_table *table, op_fn *step,
	op_fn *done, const char *subject)
{
	op_fn *on_deadline = op->on_deadline;
	struct uuid id = op->id;

	assert(!op->table || op->finished);
	assert(table->count <= OP_MAX_STATES && table->initial < table->count);
	*op = (struct op){.table = table,
		.loop = l,
		.state = table->initial,
		.id = id,
		.step = step,
		.done = done,
		.on_deadline = on_deadline};
	snprintf(op->subject, sizeof op->subject, "%s", subject);
	op->started_us = op->state_since_us = loop_now_us(l);
	timer_init(&op->deadline, l, table->name, op_deadline_passed, op);
	defer_init(&op->kick, l, table->name, op_kicked, op);
	defer_init(&op->finish, l, table->name, op_finished, op);
	list_push_back(&l->ops, &op->node);
	defer_start(&op->kick);
}

static void op_enter(struct op *op, int state)
{
	const struct op_state *from = &op->table->states[op->state];

	assert(!op->finished);
	assert(state >= 0 && state < op->table->count);
	if (!(from->next & OP_TO(state))) {
		log_error("op.move", "op=%s %s from=%s to=%s msg=\"move not allowed\"",
			op->table->name, op->subject, from->name,
			op->table->states[state].name);
		assert(!"op_move: the table does not allow this move");
	}
	log_debug("op.move", "op=%s %s from=%s to=%s", op->table->name, op->subject,
		from->name, op->table->states[state].name);
	op->state = state;
	op->state_since_us = loop_now_us(op->loop);
	timer_stop(&op->deadline);
}

void op_move(struct op *op, int state)
{
	op_enter(op, state);
	op->awaiting = false;
}

void op_settle(struct op *op, int state, int64_t deadline_ms)
{
	assert(op->awaiting);
	op_enter(op, state);
	if (deadline_ms > 0)
		timer_start_ms(&op->deadline, deadline_ms);
}

uint64_t op_await(struct op *op, int64_t deadline_ms)
{
	assert(!op->finished);
	op->token = op->loop->next_token++;
	op->awaiting = true;
	timer_stop(&op->deadline);
	if (deadline_ms > 0)
		timer_start_ms(&op->deadline, deadline_ms);
	return op->token;
}

bool op_resume(struct op *op, uint64_t token)
{
	if (!op->awaiting || op->token != token)
		return false;
	op->awaiting = false;
	timer_stop(&op->deadline);
	return true;
}

void op_kick(struct op *op)
{
	if (op->table && !op->finished)
		defer_start(&op->kick);
}

/* The first failure is the cause; what fails after it is usually its consequence. */
static int op_record(struct op *op, int code, const char *detail)
{
	if (op->error.code) {
		log_info("op.fail", "op=%s %s state=%s rc=%s also=1 msg=\"%s\"",
			op->table->name, op->subject, op_state_name(op),
			rv_error_symbol(code), detail);
		return op->error.code;
	}
	return rv_error_set(&op->error, code, "%s", detail);
}

int op_fail(struct op *op, int code, const char *fmt, ...)
{
	char detail[RV_ERROR_DETAIL_MAX];
	va_list ap;

	assert(code < 0);
	va_start(ap, fmt);
	vsnprintf(detail, sizeof detail, fmt, ap);
	va_end(ap);
	return op_record(op, code, detail);
}

int op_fail_with(struct op *op, const struct rv_error *e)
{
	assert(e->code < 0);
	return op_record(op, e->code, e->detail);
}

void op_cancel(struct op *op)
{
	if (!op->table || op->finished || op->cancelled)
		return;
	op->cancelled = true;
	op_kick(op);
}

void op_finish(struct op *op)
{
	assert(!op->finished);
	assert(op->table->states[op->state].next == 0);
	op->finished = true;
	op->awaiting = false;
	timer_stop(&op->deadline);
	defer_stop(&op->kick);
	defer_start(&op->finish);
}

const char *op_state_name(const struct op *op)
{
	return op->table->states[op->state].name;
}

void op_drop(struct op *op)
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

struct op *op_next(struct loop *l, struct op *previous)
{
	struct list *node = previous ? previous->node.next : l->ops.next;

	return node == &l->ops ? NULL : CONTAINER_OF(node, struct op, node);
}
