#include "cli/task.h"

#include <string.h>
#include <time.h>

#include "cli/interrupt.h"
#include "cli/master.h"
#include "cli/name.h"
#include "cli/progress.h"
#include "rpc/message.h"

enum {
	/* Of one task.wait: how stale Ctrl-C may be, and the bar, where there is one. */
	WAIT_MS = 1000,
	WAIT_BAR_MS = 200,
	ANSWER_MS = 3000, /* beyond that: the connection is held to be broken */
};

struct await {
	struct cli *cli;
	struct uuid task;
	struct progress progress;
	char title[128];
	int64_t contact_ms; /* when the daemon answered last */
	bool cancelling;    /* asked for by us */
	double share;
	char note[128];
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* --- the task's record --- */

/* A text of the record, cut at the end of `out`. */
static const char *record_text(
	const msgpack_object *record, const char *key, char *out, size_t size)
{
	const msgpack_object *o = rpc_map_get(record, key);

	if (o && o->type == MSGPACK_OBJECT_STR)
		snprintf(out, size, "%.*s", (int)o->via.str.size, o->via.str.ptr);
	else
		out[0] = '\0';
	return out;
}

static int record_status(const msgpack_object *record)
{
	char text[32];

	return schema_enum_value(schema_field(TASK_STATUS)->enum_texts,
		record_text(record, "status", text, sizeof text));
}

static void record_error(const msgpack_object *record, struct rv_error *e)
{
	const msgpack_object *number = rpc_map_get(record, "error_number");

	e->code = number && number->type == MSGPACK_OBJECT_POSITIVE_INTEGER
			  ? -(int)number->via.u64
			  : RV_EINTERNAL;
	record_text(record, "error_detail", e->detail, sizeof e->detail);
}

/* --- how it ended --- */

static int await_succeeded(
	struct await *a, const msgpack_object *record, struct buf *result)
{
	const msgpack_object *o = rpc_map_get(record, "result");
	struct rv_error e = {0};

	if (a->cancelling)
		fputs("reeve: too late to cancel: it has been done\n", a->cli->err);
	if (o && o->type == MSGPACK_OBJECT_STR && o->via.str.size &&
		buf_append(result, o->via.str.ptr, o->via.str.size)) {
		rv_error_set(&e, RV_ENOMEM, "out of memory");
		return cli_refused(a->cli, &e);
	}
	return CLI_OK;
}

static int await_failed(struct await *a, const msgpack_object *record)
{
	struct rv_error e = {0};

	record_error(record, &e);
	if (record_status(record) == TASK_STATUS_CANCELLED)
		e.code = RV_ECANCELLED;
	cli_refused(a->cli, &e);
	return e.code == RV_ECANCELLED && a->cancelling ? CLI_INTERRUPTED : CLI_REFUSED;
}

/* True when it has ended; *status is then the exit status. */
static bool await_look(
	struct await *a, const msgpack_object *record, struct buf *result, int *status)
{
	const msgpack_object *share = rpc_map_get(record, "progress");
	int state = record_status(record);

	if (share && (share->type == MSGPACK_OBJECT_FLOAT64 ||
			     share->type == MSGPACK_OBJECT_FLOAT32))
		a->share = share->via.f64;
	record_text(record, "progress_note", a->note, sizeof a->note);
	if (state == TASK_STATUS_PENDING || state == TASK_STATUS_CANCELLING) {
		progress_show(&a->progress, a->share,
			state == TASK_STATUS_CANCELLING ? "cancelling" : a->note,
			now_ms());
		return false;
	}
	progress_clear(&a->progress);
	*status = state == TASK_STATUS_SUCCESS ? await_succeeded(a, record, result)
					       : await_failed(a, record);
	return true;
}

/* --- waiting --- */

static void await_cancel(struct await *a)
{
	struct rv_error e = {0};
	struct uuid request = connect_request(&a->cli->connect);
	struct params p;

	progress_clear(&a->progress);
	fputs("reeve: cancelling; Ctrl-C again leaves it alone\n", a->cli->err);
	params_init(&p);
	params_uuid(&p, "self", &a->task);
	params_uuid(&p, "request", &request);
	if (connect_call(&a->cli->connect, "task.cancel", &p, ANSWER_MS, NULL, &e))
		fprintf(a->cli->err, "reeve: it can't be cancelled: %s\n", e.detail);
	else
		a->cancelling = true;
	params_fini(&p);
}

static int await_ask(struct await *a, const msgpack_object **record, struct rv_error *e)
{
	int64_t wait_ms = a->progress.out ? WAIT_BAR_MS : WAIT_MS;
	const struct value wait = value_int(wait_ms);
	struct params p;
	int rc;

	params_init(&p);
	params_uuid(&p, "self", &a->task);
	params_value(&p, "timeout_ms", &wait);
	rc = connect_call(
		&a->cli->connect, "task.wait", &p, wait_ms + ANSWER_MS, record, e);
	params_fini(&p);
	if (!rc && (*record)->type != MSGPACK_OBJECT_MAP) {
		a->cli->connect.remote = true;
		rc = rv_error_set(e, RV_EPROTO, "task.wait answered no record");
	}
	return rc;
}

/* Without contact for longer than a call may take. */
static int await_lost(struct await *a, struct rv_error *e)
{
	char text[UUID_TEXT_SIZE];

	progress_clear(&a->progress);
	cli_call_failed(a->cli, e);
	fprintf(a->cli->err, "reeve: what became of it: reeve task-wait task=%s\n",
		uuid_format(&a->task, text));
	return CLI_UNREACHABLE;
}

static void await_tell(struct await *a)
{
	if (!master_may_wait(a->cli, now_ms() - a->contact_ms))
		return;
	progress_clear(&a->progress);
	master_tell_waiting(a->cli);
}

static int await_run(struct await *a, struct buf *result)
{
	const msgpack_object *record;
	struct rv_error e = {0};
	int status = CLI_OK, rc;

	for (;;) {
		if (interrupt_seen())
			await_cancel(a);
		rc = await_ask(a, &record, &e);
		if (rc && a->cli->connect.remote) {
			progress_clear(&a->progress);
			return cli_refused(a->cli, &e);
		}
		if (rc) {
			/* A daemon that is restarted finds the task in its database. */
			if (now_ms() - a->contact_ms > a->cli->connect.timeout_ms)
				return await_lost(a, &e);
			await_tell(a);
			progress_show(&a->progress, a->share,
				"no answer; waiting for reeved", now_ms());
			continue;
		}
		a->contact_ms = now_ms();
		if (await_look(a, record, result, &status))
			return status;
		await_tell(a);
	}
}

static void await_init(
	struct await *a, struct cli *cli, const struct uuid *task, const char *what)
{
	const struct words *w = &cli->words;

	*a = (struct await){.cli = cli, .task = *task, .contact_ms = now_ms()};
	/* "vm-suspend big" */
	snprintf(a->title, sizeof a->title, "%s%s%s", what,
		w->count && w->list[0].key ? " " : "",
		w->count && w->list[0].key ? w->list[0].value : "");
	progress_init(&a->progress, cli->err_tty ? cli->err : NULL, a->title, now_ms());
}

static void interrupt_prepare(const struct uuid *task)
{
	char text[UUID_TEXT_SIZE], farewell[160];

	snprintf(farewell, sizeof farewell,
		"\nreeve: left alone; what became of it: reeve task-wait task=%s\n",
		uuid_format(task, text));
	interrupt_begin(farewell);
}

int task_await(
	struct cli *cli, const struct uuid *task, const char *what, struct buf *result)
{
	struct await a;
	int rc = cli_connect(cli);

	if (rc)
		return rc;
	await_init(&a, cli, task, what);
	interrupt_prepare(task);
	rc = await_run(&a, result);
	interrupt_end();
	return rc;
}

int task_run(struct cli *cli, const struct schema_method *m, struct params *p,
	struct buf *result)
{
	const struct value yes = value_bool(true);
	struct uuid task = connect_request(&cli->connect);
	char method[NAME_TYPED_MAX], text[UUID_TEXT_SIZE];
	struct rv_error e = {0};
	struct await a;
	int rc = cli_connect(cli);

	if (rc)
		return rc;
	cli_bind(cli, p);
	params_uuid(p, "request", &task);
	params_value(p, "async", &yes);
	snprintf(method, sizeof method, "%s.%s", m->group, m->name);
	await_init(&a, cli, &task, cli->words.command);
	interrupt_prepare(&task);
	rc = connect_call(&cli->connect, method, p, 0, NULL, &e);
	if (rc) {
		rc = cli_call_failed(cli, &e);
	} else if (cli->words.async) {
		rc = buf_append(result, uuid_format(&task, text), UUID_TEXT_LEN)
			     ? CLI_REFUSED
			     : CLI_OK;
	} else {
		/* The request's UUID is the task's. */
		a.contact_ms = now_ms();
		rc = await_run(&a, result);
	}
	interrupt_end();
	return rc;
}
