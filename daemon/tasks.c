#include "daemon/tasks.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "daemon/daemon.h"
#include "rpc/message.h"
#include "vm/vm.h"

enum {
	TASK_WAIT_MAX_MS = 60000,
	TASK_WAIT_DEFAULT_MS = 30000,
	TASK_TURN = 64, /* waiters looked at in one callback */
};

struct uuid tasks_uuid(struct call *c)
{
	if (uuid_is_none(&c->request))
		c->request = uuid_random(loop_prng(c->daemon->loop));
	return c->request;
}

/* What the call asks for, as text: tells a repeated request from another one that bears
 * the same UUID by mistake. */
static void tasks_hash(struct call *c, char text[static 17])
{
	struct buf bytes;
	msgpack_packer pk;

	/* Once: the arguments may be gone when it is asked for again. */
	if (c->arguments_hash[0]) {
		memcpy(text, c->arguments_hash, 17);
		return;
	}
	buf_init(&bytes, RV_MAX_RPC_MESSAGE_BYTES);
	msgpack_packer_init(&pk, &bytes, rpc_pack_to_buf);
	for (int i = 0; i < c->method->arg_count; i++) {
		if (c->records[i])
			msgpack_pack_object(&pk, *c->records[i]);
		else if (c->args[i].type == VALUE_NULL)
			msgpack_pack_nil(&pk);
		else
			value_pack(&c->args[i], &pk, VALUE_WIRE_RPC);
	}
	snprintf(text, 17, "%016llx",
		(unsigned long long)XXH3_64bits_withSeed(
			buf_len(&bytes) ? buf_data(&bytes) : NULL, buf_len(&bytes),
			c->method->id));
	memcpy(c->arguments_hash, text, 17);
	buf_fini(&bytes);
}

void tasks_add_pending(
	struct call *c, struct txn *t, struct uuid task, struct uuid subject)
{
	char method[RPC_MAX_METHOD_BYTES + 1], hash[17];

	snprintf(method, sizeof method, "%s.%s", c->method->group, c->method->name);
	tasks_hash(c, hash);
	txn_expect_absent(t, CLASS_TASK, task);
	txn_create(t, CLASS_TASK, task);
	txn_set_string(t, task, TASK_NAME_LABEL, method);
	txn_set_string(t, task, TASK_METHOD, method);
	txn_set_ref(t, task, TASK_SUBJECT, subject);
	txn_set_string(t, task, TASK_USER, c->who.user);
	txn_set_string(t, task, TASK_ORIGIN, c->origin);
	txn_set_time(t, task, TASK_CREATED, loop_wall_ms(c->daemon->loop));
	txn_set_ref(t, task, TASK_RESIDENT_ON, c->daemon->host);
	txn_set_string(t, task, TASK_ARGUMENTS_HASH, hash);
}

void tasks_end(struct txn *t, struct uuid task, int64_t wall_ms, const char *result,
	const struct rv_error *e)
{
	txn_set_time(t, task, TASK_FINISHED, wall_ms);
	if (!e || !e->code) {
		txn_set_enum(t, task, TASK_STATUS, TASK_STATUS_SUCCESS);
		txn_set_string(t, task, TASK_RESULT, result ? result : "");
		return;
	}
	txn_set_enum(t, task, TASK_STATUS,
		e->code == RV_ECANCELLED ? TASK_STATUS_CANCELLED : TASK_STATUS_FAILURE);
	txn_set_string(t, task, TASK_ERROR_CODE, rv_error_xenapi(e->code));
	txn_set_string(t, task, TASK_ERROR_DETAIL, e->detail);
	txn_set_int(t, task, TASK_ERROR_NUMBER, -e->code);
}

void tasks_add_finished(
	struct call *c, struct txn *t, struct uuid subject, const struct value *result)
{
	struct uuid task = tasks_uuid(c);
	char text[UUID_TEXT_SIZE] = "";

	if (result && result->type == VALUE_REF) {
		struct uuid ref = value_get_ref(result);

		uuid_format(&ref, text);
	}
	tasks_add_pending(c, t, task, subject);
	tasks_end(t, task, loop_wall_ms(c->daemon->loop), text, NULL);
}

void tasks_abandon(
	struct txn *t, const struct row *task, int64_t wall_ms, const struct rv_error *e)
{
	if (tasks_ended(task))
		return;
	txn_expect_enum(t, row_uuid(task), TASK_STATUS, db_enum(task, TASK_STATUS));
	tasks_end(t, row_uuid(task), wall_ms, NULL, e);
}

bool tasks_ended(const struct row *task)
{
	int status = db_enum(task, TASK_STATUS);

	return status != TASK_STATUS_PENDING && status != TASK_STATUS_CANCELLING;
}

/* --- a call that shares its task's fate --- */

static void tasks_reply(struct call *c, const struct row *task)
{
	const char *result = db_string(task, TASK_RESULT);

	if (db_enum(task, TASK_STATUS) != TASK_STATUS_SUCCESS) {
		call_failf(c, -(int)db_int(task, TASK_ERROR_NUMBER), "%s",
			db_string(task, TASK_ERROR_DETAIL));
		return;
	}
	if (!*result) {
		call_reply_nil(c);
		return;
	}
	rpc_pack_text(call_reply_begin(c), result);
	call_reply_end(c);
}

/* True when the call is over. */
static bool tasks_try(struct call *c)
{
	const struct row *task = db_row(pool_db(c->daemon->pool), CLASS_TASK, c->task);
	char text[UUID_TEXT_SIZE];

	if (!task) {
		call_failf(c, RV_ENOENT,
			"task %s has been removed; its outcome is not known here",
			uuid_format(&c->task, text));
		return true;
	}
	if (!tasks_ended(task))
		return false;
	tasks_reply(c, task);
	return true;
}

static void tasks_on_gone(void *arg)
{
	call_failf(arg, RV_ECLOSED, "the client has gone");
}

void tasks_follow(struct call *c, struct uuid task)
{
	char text[UUID_TEXT_SIZE];

	c->task = task;
	if (c->async) {
		rpc_pack_key(call_reply_begin(c), uuid_format(&task, text));
		call_reply_end(c);
		return;
	}
	if (tasks_try(c))
		return;
	call_on_gone(c, tasks_on_gone);
	list_push_back(&c->daemon->task_waiters, &c->waiting);
}

/* Whether the call asks for what the task did. The tasks of vm/ bear no hash of their
 * arguments: those are told apart by their VM. */
static bool tasks_same(struct call *c, const struct row *task, const char *method)
{
	const struct db *db = pool_db(c->daemon->pool);
	const char *then = db_string(task, TASK_ARGUMENTS_HASH);
	struct uuid subject = db_ref(task, TASK_SUBJECT), self;
	const struct row *device;
	char hash[17];

	if (strcmp(db_string(task, TASK_METHOD), method) != 0)
		return false;
	if (*then) {
		tasks_hash(c, hash);
		return strcmp(then, hash) == 0;
	}
	self = call_ref(c, "self");
	device = db_row(db, c->method->cls, self);
	if (device && c->method->cls == CLASS_VBD)
		self = db_ref(device, VBD_VM);
	else if (device && c->method->cls == CLASS_VIF)
		self = db_ref(device, VIF_VM);
	return uuid_eq(&self, &subject) || (!device && c->method->cls != CLASS_VM);
}

void tasks_join(struct call *c, struct uuid task)
{
	const struct row *row = db_row(pool_db(c->daemon->pool), CLASS_TASK, task);
	char text[UUID_TEXT_SIZE], method[RPC_MAX_METHOD_BYTES + 1];

	snprintf(method, sizeof method, "%s.%s", c->method->group, c->method->name);
	if (row && !tasks_same(c, row, method)) {
		call_failf(c, RV_EPARAM,
			"request %s was used before, for %s with other parameters; make "
			"a new UUID for each call",
			uuid_format(&task, text), db_string(row, TASK_METHOD));
		return;
	}
	tasks_follow(c, task);
}

bool tasks_join_first(struct call *c)
{
	struct uuid task = uuid_is_none(&c->request)
				   ? UUID_NONE
				   : pool_request_lookup(c->daemon->pool, &c->request);

	if (uuid_is_none(&task))
		return false;
	tasks_join(c, task);
	return true;
}

/* --- task.wait --- */

static void task_reply_record(struct call *c, const struct row *task)
{
	size_t len;
	const uint8_t *record = db_record(pool_db(c->daemon->pool), task, &len);
	msgpack_packer *pk;

	if (!record) {
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return;
	}
	pk = call_reply_begin(c);
	pk->callback(pk->data, (const char *)record, len);
	call_reply_end(c);
}

/* True when the call is over. */
static bool task_wait_try(struct call *c, bool at_once)
{
	const struct row *task = db_row(pool_db(c->daemon->pool), CLASS_TASK, c->task);
	char text[UUID_TEXT_SIZE];

	if (!task) {
		call_failf(c, RV_ENOENT, "there is no task %s any more",
			uuid_format(&c->task, text));
		return true;
	}
	if (!at_once && !tasks_ended(task) &&
		(c->progress_seen < 0 ||
			db_float(task, TASK_PROGRESS) == c->progress_seen))
		return false;
	task_reply_record(c, task);
	return true;
}

static void task_wait_on_timeout(void *arg)
{
	task_wait_try(arg, true);
}

void task_wait(struct call *c)
{
	int64_t timeout_ms = call_int(c, "timeout_ms", TASK_WAIT_DEFAULT_MS);
	const struct value *progress = call_arg(c, "progress");

	if (timeout_ms < 0 || timeout_ms > TASK_WAIT_MAX_MS) {
		call_failf(c, RV_EPARAM, "timeout_ms: 0 to %d", TASK_WAIT_MAX_MS);
		return;
	}
	c->task = call_ref(c, "self");
	c->progress_seen = progress ? value_get_float(progress) : -1;
	if (task_wait_try(c, timeout_ms == 0))
		return;
	timer_init(
		&c->timer, c->daemon->loop, "rpc.task.timeout", task_wait_on_timeout, c);
	timer_start_ms(&c->timer, timeout_ms);
	call_on_gone(c, tasks_on_gone);
	list_push_back(&c->daemon->task_waiters, &c->waiting);
}

/* A bounded part of them: with thousands of waiters, other callbacks come between. */
static void tasks_turn(void *arg)
{
	struct daemon *d = arg;

	for (int i = 0; i < TASK_TURN && !list_empty(&d->task_due); i++) {
		struct call *c = CONTAINER_OF(d->task_due.next, struct call, waiting);

		/* It waits on from here, or is over and in no list. */
		list_remove(&c->waiting);
		list_push_back(&d->task_waiters, &c->waiting);
		if (c->method->id == METHOD_TASK_WAIT)
			task_wait_try(c, false);
		else
			tasks_try(c);
	}
	if (!list_empty(&d->task_due))
		timer_start_ms(&d->task_turn, 0);
}

/* Every waiter is due again: those left over from the last change first. */
void tasks_look(struct daemon *d)
{
	list_append_all(&d->task_due, &d->task_waiters);
	if (!timer_active(&d->task_turn))
		tasks_turn(d);
}

void tasks_init(struct daemon *d)
{
	list_init(&d->task_waiters);
	list_init(&d->task_due);
	timer_init(&d->task_turn, d->loop, "rpc.tasks", tasks_turn, d);
}

void tasks_stop(struct daemon *d)
{
	timer_stop(&d->task_turn);
}

/* --- task.cancel, task.destroy --- */

static void task_cancel_told(struct pool_commit *commit)
{
	call_reply_nil(CONTAINER_OF(commit, struct call, commit));
}

void task_cancel(struct call *c)
{
	const struct row *task = call_row(c, "self");
	struct rv_error e = {0};
	struct txn t;

	if (!task)
		return;
	if (tasks_ended(task)) {
		call_failf(c, RV_ENOTALLOWED, "task %s has ended already: %s",
			row_name(task),
			schema_enum_text(schema_field(TASK_STATUS)->enum_texts,
				db_enum(task, TASK_STATUS)));
		return;
	}
	if (daemon_cancel(c->daemon, row_uuid(task), &e)) {
		call_fail(c, &e);
		return;
	}
	/* Unless it has ended by then: what counts is that it was asked to end. */
	txn_init(&t, pool_db(c->daemon->pool), loop_wall_ms(c->daemon->loop));
	txn_expect_enum(&t, row_uuid(task), TASK_STATUS, TASK_STATUS_PENDING);
	txn_set_enum(&t, row_uuid(task), TASK_STATUS, TASK_STATUS_CANCELLING);
	memset(&c->commit, 0, sizeof c->commit);
	if (pool_commit(c->daemon->pool, &c->commit, &t, task_cancel_told, &e))
		call_reply_nil(c);
}

void task_destroy(struct call *c)
{
	const struct row *task = call_row(c, "self");
	struct txn t;

	if (!task)
		return;
	if (!tasks_ended(task)) {
		call_failf(c, RV_EBUSY, "task %s is still at work; cancel it first",
			row_name(task));
		return;
	}
	txn_init(&t, pool_db(c->daemon->pool), loop_wall_ms(c->daemon->loop));
	txn_delete(&t, CLASS_TASK, row_uuid(task));
	call_commit(c, &t, (struct value){.type = VALUE_NULL}, row_uuid(task));
}
