/*
 * Long operations: an explicit state machine that ends exactly once.
 *
 * An operation is one struct with an embedded `struct op`, a `static const` table of
 * states and allowed moves, and one step function that switches on the state. A callback
 * checks its token with op_resume, stores the result and calls the step; the step moves
 * the state first and submits afterwards. See STYLE in docs/ARCHITECTURE.md and
 * vm/vm_start.c.
 *
 *	static const struct op_state states[] = {
 *		[PLACE]  = {"place",  OP_TO(RESERVE) | OP_TO(FAILED)},
 *		...
 *	};
 */
#ifndef REEVE_REACTOR_OP_H
#define REEVE_REACTOR_OP_H

#include "base/uuid.h"
#include "reactor/loop.h"

enum { OP_MAX_STATES = 32, OP_SUBJECT_MAX = 128 };
#define OP_TO(state) (1u << (state))

struct op_state {
	const char *name;
	uint32_t next; /* OP_TO() of each state that may follow; 0: terminal */
};

struct op_table {
	const char *name; /* "vm.start" */
	const struct op_state *states;
	int count;
	int initial;
};

struct op;
typedef void op_fn(struct op *op);

struct op {
	const struct op_table *table;
	struct loop *loop;
	int state;
	uint64_t token; /* what the operation awaits now; each op_await draws a new one */
	bool awaiting;
	bool cancelled; /* asked for; the step decides when it can obey */
	bool finished;
	struct rv_error error;	      /* the first failure; code 0 so far so good */
	char subject[OP_SUBJECT_MAX]; /* "vm=web1 host=h2": for logs and op-list */
	struct uuid id;		      /* the task's UUID, or none */
	int64_t started_us, state_since_us;
	op_fn *step;
	/* May be NULL: then a deadline ends the waiting, fails with RV_ETIMEDOUT and
	 * steps. Otherwise `awaiting` is still true inside it; see op_settle. */
	op_fn *on_deadline;
	op_fn *done; /* exactly once, last; may free the memory */
	struct timer deadline;
	struct defer finish, kick;
	struct list node; /* all operations of the loop */
};

/* `op` must be zeroed before its first start; `id` and `on_deadline` may be set before or
 * after and are kept. `done` may be NULL; an ended operation may be started anew. Enters
 * table->initial; the first step comes from the loop, soon. `subject` is copied. */
void op_start(struct op *op, struct loop *l, const struct op_table *table, op_fn *step,
	op_fn *done, const char *subject);

/* Moves to a state; asserts that the table allows it; logs; ends any waiting and
 * deadline. */
void op_move(struct op *op, int state);

/* As op_move, but goes on waiting for the same answer, with a new deadline (0: none): for
 * on_deadline and cancellation, where a call is late but not yet known to be over. Only
 * while awaiting. */
void op_settle(struct op *op, int state, int64_t deadline_ms);

/* Begins to wait for one completion, `deadline_ms` at most (0: no deadline). The token
 * goes into the request and comes back with its answer; no other operation of this loop
 * ever draws the same. A kick or op_cancel runs the step while `awaiting` is still true.
 */
uint64_t op_await(struct op *op, int64_t deadline_ms);

/* True when `token` is what the operation awaits; it then no longer waits. False for a
 * late or doubled answer: drop it. */
bool op_resume(struct op *op, uint64_t token);

/* Has the step run from the loop, soon. Harmless before the start and after the end. */
void op_kick(struct op *op);

/* Records the first failure (later ones are only logged); returns the recorded code. */
int op_fail(struct op *op, int code, const char *fmt, ...) RV_PRINTF(3, 4);
int op_fail_with(struct op *op, const struct rv_error *e);

/* Asks it to end early and kicks it. Idempotent; harmless before start and after the end.
 */
void op_cancel(struct op *op);

/* Ends the operation in a terminal state (op_move there first): `done` is called from the
 * loop, once. */
void op_finish(struct op *op);

const char *op_state_name(const struct op *op);

/* For the owner's own end: nothing of it is left in the loop, no callback follows, `done`
 * is not called. Harmless before the start and after the end. */
void op_drop(struct op *op);

/* Visits the loop's operations, oldest first, for op-list. Start with NULL. */
struct op *op_next(struct loop *l, struct op *previous);

#endif
