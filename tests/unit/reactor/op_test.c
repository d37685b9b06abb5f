#include "reactor/op.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"

enum walk_state { PLACE, RUN, SETTLING, DONE, FAILED };

static const struct op_state walk_states[] = {
	[PLACE] = {"place", OP_TO(RUN) | OP_TO(FAILED)},
	[RUN] = {"run", OP_TO(DONE) | OP_TO(SETTLING) | OP_TO(FAILED)},
	[SETTLING] = {"settling", OP_TO(FAILED)},
	[DONE] = {"done", 0},
	[FAILED] = {"failed", 0},
};

static const struct op_table walk_table = {"test.walk", walk_states, 5, PLACE};

struct walk {
	struct op op;
	uint64_t token;
	int64_t deadline_ms;
	int steps, dones, deadlines;
};

static int setup(void **state)
{
	log_set_level(LOG_WARN);
	return loop_new_sim((struct loop **)state, 1);
}

static int teardown(void **state)
{
	loop_free(*state);
	return 0;
}

static void walk_end(struct walk *w, int state)
{
	op_move(&w->op, state);
	op_finish(&w->op);
}

static void walk_step(struct op *op)
{
	struct walk *w = CONTAINER_OF(op, struct walk, op);

	w->steps++;
	switch ((enum walk_state)op->state) {
	case PLACE:
		if (op->cancelled)
			break;
		op_move(op, RUN);
		w->token = op_await(op, w->deadline_ms);
		return;
	case RUN:
		if (op->cancelled && op->awaiting) {
			op_settle(op, SETTLING, 0);
			return;
		}
		if (op->error.code)
			break;
		walk_end(w, DONE);
		return;
	case SETTLING:
		if (op->awaiting)
			return;
		break;
	default:
		fail();
	}
	if (op->cancelled)
		op_fail(op, RV_ECANCELLED, "%s: cancelled", op->subject);
	walk_end(w, FAILED);
}

static void walk_done(struct op *op)
{
	struct walk *w = CONTAINER_OF(op, struct walk, op);

	w->dones++;
}

static void walk_start(struct walk *w, struct loop *l)
{
	op_start(&w->op, l, &walk_table, walk_step, walk_done, "vm=web1");
}

static void test_happy_end(void **state)
{
	struct loop *l = *state;
	struct walk w = {0};

	op_cancel(&w.op);
	op_kick(&w.op);
	walk_start(&w, l);
	assert_int_equal(w.steps, 0);
	loop_run(l);
	assert_int_equal(w.steps, 1);
	assert_string_equal(op_state_name(&w.op), "run");
	assert_ptr_equal(op_next(l, NULL), &w.op);
	assert_null(op_next(l, &w.op));

	assert_false(op_resume(&w.op, w.token + 1));
	assert_true(op_resume(&w.op, w.token));
	assert_false(op_resume(&w.op, w.token));
	walk_step(&w.op);
	assert_int_equal(w.dones, 0);
	loop_run(l);
	assert_int_equal(w.dones, 1);
	assert_int_equal(w.op.error.code, 0);
	assert_null(op_next(l, NULL));

	op_cancel(&w.op);
	op_kick(&w.op);
	loop_run(l);
	assert_int_equal(w.dones, 1);
	assert_false(op_resume(&w.op, w.token));
	walk_start(&w, l);
	loop_run(l);
	assert_int_equal(w.op.state, RUN);
	assert_true(op_resume(&w.op, w.token));
	walk_step(&w.op);
	loop_run(l);
	assert_int_equal(w.dones, 2);
}

static void test_late_answer_is_dropped(void **state)
{
	struct loop *l = *state;
	struct walk w = {.deadline_ms = 20};
	uint64_t late;

	walk_start(&w, l);
	loop_run(l); /* the deadline passes: no answer came */
	late = w.token;
	assert_int_equal(loop_now_us(l), 1020000);
	assert_int_equal(w.dones, 1);
	assert_int_equal(w.op.state, FAILED);
	assert_int_equal(w.op.error.code, RV_ETIMEDOUT);
	assert_non_null(strstr(w.op.error.detail, "vm=web1"));
	assert_non_null(strstr(w.op.error.detail, "run"));
	assert_false(op_resume(&w.op, late));
	/* Nor does the answer to an earlier life count in the next one. */
	w.deadline_ms = 0;
	walk_start(&w, l);
	loop_run(l);
	assert_int_not_equal(w.token, late);
	assert_false(op_resume(&w.op, late));
	assert_true(op_resume(&w.op, w.token));
	walk_step(&w.op);
	loop_run(l);
	assert_int_equal(w.op.state, DONE);
}

static void settle_on_deadline(struct op *op)
{
	struct walk *w = CONTAINER_OF(op, struct walk, op);

	w->deadlines++;
	assert_true(op->awaiting);
	op_fail(op, RV_ETIMEDOUT, "%s: slow", op->subject);
	op_settle(op, SETTLING, 0);
}

/* A deadline is not an ending: the late answer still ends the settling. */
static void test_deadline_settles(void **state)
{
	struct loop *l = *state;
	struct walk w = {.deadline_ms = 20};

	w.op.on_deadline = settle_on_deadline;
	walk_start(&w, l);
	loop_run(l);
	assert_int_equal(w.deadlines, 1);
	assert_int_equal(w.dones, 0);
	assert_int_equal(w.op.state, SETTLING);
	assert_true(op_resume(&w.op, w.token));
	walk_step(&w.op);
	loop_run(l);
	assert_int_equal(w.dones, 1);
	assert_int_equal(w.op.error.code, RV_ETIMEDOUT);
}

static void test_answer_stops_deadline(void **state)
{
	struct loop *l = *state;
	struct walk w = {.deadline_ms = 20};

	walk_start(&w, l);
	loop_sim_run_until(l, 1010000);
	assert_true(op_resume(&w.op, w.token));
	loop_run(l); /* not even when the step comes later */
	assert_int_equal(loop_now_us(l), 1010000);
	walk_step(&w.op);
	loop_run(l);
	assert_int_equal(w.op.error.code, 0);
	assert_int_equal(w.op.state, DONE);
}

static void test_cancel(void **state)
{
	struct loop *l = *state;
	struct walk early = {0}, late = {0};

	walk_start(&early, l);
	op_cancel(&early.op);
	op_cancel(&early.op);
	loop_run(l);
	assert_int_equal(early.dones, 1);
	assert_int_equal(early.op.error.code, RV_ECANCELLED);

	walk_start(&late, l);
	loop_run(l);
	op_cancel(&late.op);
	op_cancel(&late.op);
	loop_run(l);
	assert_int_equal(late.op.state, SETTLING);
	assert_int_equal(late.dones, 0);
	assert_true(op_resume(&late.op, late.token));
	walk_step(&late.op);
	loop_run(l);
	assert_int_equal(late.dones, 1);
	assert_int_equal(late.steps, 3);
}

static void test_first_failure_counts(void **state)
{
	struct loop *l = *state;
	struct walk w = {0};
	struct rv_error second = {RV_EIO, "undo failed too"};

	walk_start(&w, l);
	loop_run(l);
	assert_int_equal(op_fail(&w.op, RV_ESPACE, "sr=%s is full", "sr1"), RV_ESPACE);
	assert_int_equal(op_fail_with(&w.op, &second), RV_ESPACE);
	assert_string_equal(w.op.error.detail, "sr=sr1 is full");
	assert_true(op_resume(&w.op, w.token));
	walk_step(&w.op);
	loop_run(l);
	assert_int_equal(w.op.state, FAILED);
}

static void freeing_done(struct op *op)
{
	free(CONTAINER_OF(op, struct walk, op));
}

static void test_done_may_free(void **state)
{
	struct loop *l = *state;
	struct walk *w = calloc(1, sizeof *w);

	op_start(&w->op, l, &walk_table, walk_step, freeing_done, "vm=web1");
	op_cancel(&w->op);
	loop_run(l);
	assert_null(op_next(l, NULL));
}

/* Runs fn in a child of its own; true when an assertion ended it. */
static bool aborts(struct loop *l, void (*fn)(struct loop *l))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		signal(SIGABRT, SIG_DFL); /* cmocka catches it */
		close(STDERR_FILENO);
		fn(l);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

/* The owner ends: nothing may be left in the loop, which teardown frees. */
static void test_drop(void **state)
{
	struct walk w = {.deadline_ms = 1000}, never = {0};

	walk_start(&w, *state);
	loop_sim_run_until(*state, loop_now_us(*state) + 1000);
	assert_true(w.op.awaiting);
	op_drop(&w.op);
	op_drop(&w.op);
	op_drop(&never.op);
	assert_null(op_next(*state, NULL));
	assert_false(op_resume(&w.op, w.token));
	assert_int_equal(w.dones, 0);
}

static void legal_move(struct loop *l)
{
	struct walk w = {0};

	walk_start(&w, l);
	op_move(&w.op, RUN);
}

static void illegal_move(struct loop *l)
{
	struct walk w = {0};

	walk_start(&w, l);
	op_move(&w.op, DONE);
}

static void finish_midway(struct loop *l)
{
	struct walk w = {0};

	walk_start(&w, l);
	op_finish(&w.op);
}

static void finish_twice(struct loop *l)
{
	struct walk w = {0};

	walk_start(&w, l);
	walk_end(&w, FAILED);
	op_finish(&w.op);
}

static void start_twice(struct loop *l)
{
	struct walk w = {0};

	walk_start(&w, l);
	walk_start(&w, l);
}

static void test_misuse_asserts(void **state)
{
	assert_false(aborts(*state, legal_move));
	assert_true(aborts(*state, illegal_move));
	assert_true(aborts(*state, finish_midway));
	assert_true(aborts(*state, finish_twice));
	assert_true(aborts(*state, start_twice));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_happy_end, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_late_answer_is_dropped, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deadline_settles, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_answer_stops_deadline, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_first_failure_counts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_done_may_free, setup, teardown),
		cmocka_unit_test_setup_teardown(test_drop, setup, teardown),
		cmocka_unit_test_setup_teardown(test_misuse_asserts, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
