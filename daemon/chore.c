#include "daemon/chore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/call.h"
#include "daemon/name_uuids.h"
#include "daemon/tasks.h"

enum chore_state { JOURNAL, STEP, RECORD, UNDO, GIVE_UP, DONE, FAILED, STATE_COUNT };

static const struct op_state states[STATE_COUNT] = {
	[JOURNAL] = {"journal", OP_TO(STEP) | OP_TO(FAILED)},
	[STEP] = {"step", OP_TO(STEP) | OP_TO(RECORD) | OP_TO(UNDO) | OP_TO(GIVE_UP)},
	[RECORD] = {"record", OP_TO(DONE) | OP_TO(UNDO) | OP_TO(GIVE_UP)},
	[UNDO] = {"undo", OP_TO(GIVE_UP)},
	[GIVE_UP] = {"give-up", OP_TO(FAILED)},
	[DONE] = {"done", 0},
	[FAILED] = {"failed", 0},
};

static const struct op_table table = {"chore", states, STATE_COUNT, JOURNAL};

/* How long to wait before an entry that must be written is tried again. */
enum { CHORE_RETRY_MS = 500 };

static struct chore *chore_of(struct op *op)
{
	return CONTAINER_OF(op, struct chore, op);
}

static void chore_free(struct chore *c)
{
	list_remove(&c->node);
	free(c->vdis);
	free(c->interfaces);
	free(c);
}

static void chore_done(struct op *op)
{
	struct chore *c = chore_of(op);
	timer_fn *after = c->after;
	void *arg = c->after_arg;

	/* Refused before its task was there. */
	if (c->call && !tasks_join_first(c->call))
		call_fail(c->call, &op->error);
	chore_free(c);
	if (after)
		after(arg);
}

static bool chore_has_task(const struct chore *c)
{
	return !uuid_is_none(&c->task);
}

/* --- entries --- */

static void chore_journalled(struct chore *c)
{
	struct call *call = c->call;

	c->call = NULL;
	op_move(&c->op, STEP);
	op_kick(&c->op);
	tasks_follow(call, c->task);
}

static void chore_fail(struct chore *c)
{
	op_move(&c->op, FAILED);
	op_finish(&c->op);
}

static void chore_recorded(struct chore *c)
{
	op_move(&c->op, DONE);
	op_finish(&c->op);
}

/* Whether the last entry, whose outcome was not told, is in the database: the journal
 * makes the task, the others end it. */
static bool chore_took_effect(const struct chore *c)
{
	const struct row *task = db_row(pool_db(c->daemon->pool), CLASS_TASK, c->task);
	struct uuid subject = task ? db_ref(task, TASK_SUBJECT) : UUID_NONE;

	if (!chore_has_task(c))
		return false; /* its entries do no harm twice */
	if (c->op.state == JOURNAL)
		return task && uuid_eq(&subject, &c->self);
	return !task || tasks_ended(task);
}

static void on_barrier(struct pool_barrier *b, int rc)
{
	struct chore *c = CONTAINER_OF(b, struct chore, barrier);

	if (!op_resume(&c->op, c->token))
		return;
	if (rc) {
		c->token = op_await(&c->op, CHORE_RETRY_MS);
		return;
	}
	c->unknown = false;
	if (!chore_took_effect(c)) {
		if (c->op.state != JOURNAL) {
			op_kick(&c->op); /* the entry once more */
			return;
		}
		op_fail(&c->op, RV_EAGAIN,
			"the change was lost when the pool's master changed; ask again");
		chore_fail(c);
	} else if (c->op.state == JOURNAL) {
		chore_journalled(c);
	} else if (c->op.state == RECORD) {
		chore_recorded(c);
	} else {
		chore_fail(c);
	}
}

static void chore_find_out(struct chore *c)
{
	c->unknown = true;
	c->token = op_await(&c->op, 0);
	if (!pool_read_barrier(c->daemon->pool, &c->barrier, on_barrier) ||
		!op_resume(&c->op, c->token))
		return;
	c->token = op_await(&c->op, CHORE_RETRY_MS);
}

/* What waited to be tried again is. */
static void on_deadline(struct op *op)
{
	if (op_resume(op, chore_of(op)->token))
		op_kick(op);
}

static void on_journal(struct pool_commit *commit)
{
	struct chore *c = CONTAINER_OF(commit, struct chore, commit);

	if (!op_resume(&c->op, c->token))
		return;
	if (commit->rc == RV_EOUTCOME) {
		chore_find_out(c);
	} else if (commit->rc) {
		op_fail_with(&c->op, &commit->error);
		chore_fail(c);
	} else {
		chore_journalled(c);
	}
}

static void on_record(struct pool_commit *commit)
{
	struct chore *c = CONTAINER_OF(commit, struct chore, commit);

	if (!op_resume(&c->op, c->token))
		return;
	if (!commit->rc) {
		chore_recorded(c);
		return;
	}
	if (commit->rc == RV_EOUTCOME) {
		chore_find_out(c);
		return;
	}
	op_fail_with(&c->op, &commit->error);
	op_move(&c->op, c->kind->undo ? UNDO : GIVE_UP);
	op_kick(&c->op);
}

static void on_give_up(struct pool_commit *commit)
{
	struct chore *c = CONTAINER_OF(commit, struct chore, commit);

	if (!op_resume(&c->op, c->token))
		return;
	if (commit->rc == RV_EOUTCOME) {
		chore_find_out(c);
		return;
	}
	if (commit->rc && rv_error_retryable(commit->rc)) {
		log_warn("chore.give-up", "chore=%s %s error=\"%s\"", c->kind->name,
			c->op.subject, commit->error.detail);
		c->token = op_await(&c->op, CHORE_RETRY_MS);
		return;
	}
	if (commit->rc && c->kind->give_up && !c->kept) {
		/* What it journalled can't be taken back: the task ends all the same. */
		log_error("chore.give-up", "chore=%s %s error=\"%s\"", c->kind->name,
			c->op.subject, commit->error.detail);
		c->kept = true;
		op_kick(&c->op);
		return;
	}
	chore_fail(c);
}

/* Proposes; where the pool can't take it just now, the step runs again later. */
static void chore_commit(struct chore *c, struct txn *t, void (*fn)(struct pool_commit *))
{
	struct rv_error e = {0};

	c->token = op_await(&c->op, 0);
	c->commit.essential = c->op.state != JOURNAL;
	if (!pool_commit(c->daemon->pool, &c->commit, t, fn, &e))
		return;
	c->commit.rc = e.code;
	c->commit.error = e;
	fn(&c->commit);
}

static void chore_journal(struct chore *c)
{
	struct txn t;

	txn_init(&t, pool_db(c->daemon->pool), loop_wall_ms(c->daemon->loop));
	tasks_add_pending(c->call, &t, c->task, c->self);
	if (c->kind->journal)
		c->kind->journal(c, &t);
	chore_commit(c, &t, on_journal);
}

static void chore_record(struct chore *c)
{
	struct txn t;

	txn_init(&t, pool_db(c->daemon->pool), loop_wall_ms(c->daemon->loop));
	if (chore_has_task(c))
		tasks_end(&t, c->task, loop_wall_ms(c->daemon->loop), c->result, NULL);
	if (c->kind->record)
		c->kind->record(c, &t);
	chore_commit(c, &t, on_record);
}

static void chore_give_up(struct chore *c)
{
	struct txn t;

	txn_init(&t, pool_db(c->daemon->pool), loop_wall_ms(c->daemon->loop));
	if (chore_has_task(c))
		tasks_end(&t, c->task, loop_wall_ms(c->daemon->loop), NULL, &c->op.error);
	if (c->kind->give_up && !c->kept)
		c->kind->give_up(c, &t);
	if (txn_is_empty(&t)) {
		txn_fini(&t);
		chore_fail(c);
		return;
	}
	chore_commit(c, &t, on_give_up);
}

/* --- steps --- */

static void chore_turn_back(struct chore *c)
{
	op_move(&c->op, c->kind->undo && c->step > 0 ? UNDO : GIVE_UP);
	op_kick(&c->op);
}

static void chore_next_step(struct chore *c)
{
	struct rv_error e = {0};
	chore_step_fn *step;

	if (c->op.cancelled) {
		op_fail(&c->op, RV_ECANCELLED, "cancelled");
		chore_turn_back(c);
		return;
	}
	step = c->kind->steps[c->step];
	if (!step) {
		op_move(&c->op, RECORD);
		op_kick(&c->op);
		return;
	}
	c->step++;
	c->token = op_await(&c->op, 0); /* the ports keep the deadlines */
	if (step(c, c->token, &e))
		chore_answer(c, c->token, e.code, &e);
}

static void chore_undo(struct chore *c)
{
	struct rv_error e = {0};

	c->token = op_await(&c->op, 0);
	if (c->kind->undo(c, c->token, &e))
		chore_answer(c, c->token, e.code, &e);
}

void chore_answer(struct chore *c, uint64_t token, int rc, const struct rv_error *e)
{
	if (!op_resume(&c->op, token))
		return;
	c->storage_request = NULL;
	c->net_request = NULL;
	if (c->op.state == UNDO) {
		if (rc)
			log_error("chore.undo", "chore=%s %s error=\"%s\"", c->kind->name,
				c->op.subject, e ? e->detail : rv_error_text(rc));
		op_move(&c->op, GIVE_UP);
		op_kick(&c->op);
		return;
	}
	if (rc) {
		op_fail(&c->op, rc, "%s", e ? e->detail : rv_error_text(rc));
		chore_turn_back(c);
		return;
	}
	op_kick(&c->op);
}

static void chore_step(struct op *op)
{
	struct chore *c = chore_of(op);

	if (op->awaiting) {
		/* Kicked by a cancel while a request is out: ask the port to end it. */
		if (op->cancelled && op->state == STEP && c->storage_request)
			storage_cancel(c->storage_request);
		return;
	}
	if (c->unknown) {
		chore_find_out(c);
		return;
	}
	switch ((enum chore_state)op->state) {
	case JOURNAL:
		if (c->call) {
			chore_journal(c);
			break;
		}
		op_move(op, STEP);
		chore_next_step(c);
		break;
	case STEP:
		chore_next_step(c);
		break;
	case RECORD:
		chore_record(c);
		break;
	case UNDO:
		chore_undo(c);
		break;
	case GIVE_UP:
		chore_give_up(c);
		break;
	case DONE:
	case FAILED:
	case STATE_COUNT:
		break;
	}
}

/* --- the ports --- */

static void on_storage(void *arg, uint64_t token, const struct storage_result *r)
{
	struct chore *c = arg;
	struct rv_error e;

	c->sr_info = r->sr_info;
	c->vdi_info = r->vdi_info;
	c->probe_is_sr = r->probe.is_sr && uuid_eq(&r->probe.sr, &c->sr);
	if (!r->rc && r->vdi_count) {
		free(c->vdis);
		c->vdis = malloc(r->vdi_count * sizeof *c->vdis);
		c->vdi_count = c->vdis ? r->vdi_count : 0;
		if (c->vdis)
			memcpy(c->vdis, r->vdis, r->vdi_count * sizeof *c->vdis);
	}
	e = r->error;
	if (r->rc)
		name_uuids(pool_db(c->daemon->pool), &e);
	chore_answer(c, token, r->rc, &e);
}

static void on_progress(void *arg, uint64_t token, uint64_t bytes, uint64_t total)
{
	struct chore *c = arg;
	struct value v = value_float(total ? (double)bytes / (double)total : 0);

	(void)token;
	if (chore_has_task(c) &&
		pool_set_live(c->daemon->pool, c->task, TASK_PROGRESS, &v, NULL))
		log_debug("chore.progress", "chore=%s", c->kind->name);
}

int chore_storage(
	struct chore *c, uint64_t token, struct storage_call *call, struct rv_error *e)
{
	call->done = on_storage;
	call->progress = on_progress;
	call->arg = c;
	call->token = token;
	return storage_start(c->daemon->storage, call, &c->storage_request, e);
}

static void on_net(void *arg, uint64_t token, const struct net_result *r)
{
	struct chore *c = arg;

	if (!r->rc && r->interface_count) {
		free(c->interfaces);
		c->interfaces = malloc(r->interface_count * sizeof *c->interfaces);
		c->interface_count = c->interfaces ? r->interface_count : 0;
		if (c->interfaces)
			memcpy(c->interfaces, r->interfaces,
				r->interface_count * sizeof *c->interfaces);
	}
	chore_answer(c, token, r->rc, &r->error);
}

int chore_net(struct chore *c, uint64_t token, struct net_call *call, struct rv_error *e)
{
	call->done = on_net;
	call->arg = c;
	call->token = token;
	return net_start(c->daemon->net, call, &c->net_request, e);
}

/* --- beginning and ending --- */

struct chore *chore_new_own(
	struct daemon *d, const struct chore_kind *kind, timer_fn *after, void *arg)
{
	struct chore *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->daemon = d;
	c->kind = kind;
	c->after = after;
	c->after_arg = arg;
	list_init(&c->node);
	return c;
}

struct chore *chore_new(struct call *call, const struct chore_kind *kind)
{
	struct chore *c = chore_new_own(call->daemon, kind, NULL, NULL);

	if (!c || call_keep(call)) {
		free(c);
		call_failf(call, RV_ENOMEM, "out of memory; ask again later");
		return NULL;
	}
	c->call = call;
	c->task = tasks_uuid(call);
	return c;
}

void chore_start(struct chore *c)
{
	char subject[OP_SUBJECT_MAX], text[UUID_TEXT_SIZE];

	snprintf(subject, sizeof subject, "chore=%s self=%s", c->kind->name,
		uuid_format(&c->self, text));
	list_push_back(&c->daemon->chores, &c->node);
	c->op.on_deadline = on_deadline;
	op_start(&c->op, c->daemon->loop, &table, chore_step, chore_done, subject);
	c->op.id = c->task;
}

int chore_cancel(struct daemon *d, struct uuid task, struct rv_error *e)
{
	LIST_FOR_EACH (node, &d->chores) {
		struct chore *c = CONTAINER_OF(node, struct chore, node);

		if (!uuid_eq(&c->task, &task))
			continue;
		if (!c->kind->cancellable || c->op.state >= RECORD)
			return rv_error_set(e, RV_ENOTALLOWED,
				"%s can't be cancelled now", c->kind->name);
		op_cancel(&c->op);
		return 0;
	}
	return RV_ENOENT;
}

void chores_free(struct daemon *d)
{
	LIST_FOR_EACH_SAFE (node, &d->chores) {
		struct chore *c = CONTAINER_OF(node, struct chore, node);

		op_drop(&c->op);
		chore_free(c);
	}
}
