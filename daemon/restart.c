#include "daemon/restart.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/call.h"
#include "daemon/lease.h"
#include "daemon/names.h"
#include "daemon/served.h"
#include "daemon/witness.h"
#include "pool/db/message.h"
#include "rpc/message.h"
#include "vm/vm_protect.h"

enum {
	RESTART_LOOK_MS = 1000,
	RESTART_AT_ONCE = 8, /* starts under way */
	RESTART_TOLD = 64,   /* hosts told of, and starts that were refused */
	RESTART_ANSWER_BYTES = 4096,
	RESTART_WORDS = 500,
	FAILED_TOLD_MS = 10 * 60 * 1000, /* between two messages of one VM */
	SAME_TIME_MS = 10 * 60 * 1000,	 /* of messages of what may be one event */
};

/* A start that this master has asked for, until it is answered. */
struct asked {
	struct restarts *owner; /* NULL: free */
	struct uuid vm;
	struct packing result;
	msgpack_object_kv params[3];
	msgpack_object map;
	char vm_text[UUID_TEXT_SIZE], task_text[UUID_TEXT_SIZE];
};

/* A start that was refused before it had a task. */
struct refused {
	struct uuid vm, task;
	int64_t at_ms;
	char why[RESTART_WORDS];
};

struct restarts {
	struct daemon *daemon;
	struct timer look;
	bool stopped;
	bool releasing, settling; /* `release`, `settle` are at work */
	struct pool_commit release, settle;
	struct asked asked[RESTART_AT_ONCE];
	struct refused refused[RESTART_TOLD];
	unsigned next_refused;
	struct uuid told[RESTART_TOLD]; /* hosts whose unguarded VMs were told of */
	unsigned told_count;
};

static const struct db *db_of(const struct restarts *r)
{
	return pool_db(r->daemon->pool);
}

static void tell(struct restarts *r, struct txn *t, const char *name, int priority,
	const char *cls, struct uuid obj, const char *body)
{
	message_add(t, uuid_random(loop_prng(r->daemon->loop)),
		&(struct message){.name = name,
			.priority = priority,
			.cls = cls,
			.obj = obj,
			.body = body});
}

/* --- letting go of a silent host's VMs --- */

static void on_released(struct pool_commit *c)
{
	struct restarts *r = CONTAINER_OF(c, struct restarts, release);

	r->releasing = false; /* refused or not, the next look sees what is so */
	if (c->rc)
		log_info("restart.release", "error=\"%s\"", c->error.detail);
}

static bool was_told(struct restarts *r, struct uuid host)
{
	for (unsigned i = 0; i < r->told_count && i < RESTART_TOLD; i++)
		if (uuid_eq(&r->told[i], &host))
			return true;
	r->told[r->told_count++ % RESTART_TOLD] = host;
	return false;
}

static void forget_told(struct restarts *r, struct uuid host)
{
	for (unsigned i = 0; i < RESTART_TOLD; i++)
		if (uuid_eq(&r->told[i], &host))
			r->told[i] = UUID_NONE;
}

static void commit_release(struct restarts *r, struct txn *t)
{
	struct rv_error e;

	memset(&r->release, 0, sizeof r->release);
	r->release.essential = true;
	r->releasing = true;
	if (pool_commit(r->daemon->pool, &r->release, t, on_released, &e)) {
		r->releasing = false;
		log_info("restart.release", "error=\"%s\"", e.detail);
	}
}

/* Its lease and all that reeve-fenced has promised are over. */
static void release_host(struct restarts *r, const struct row *host)
{
	const struct db *db = db_of(r);
	struct names freed = {.show = NAMES_SHOWN}, left = {.show = NAMES_SHOWN};
	struct uuid uuid = row_uuid(host);
	struct vm_release v;
	char body[1200];
	struct txn t;

	txn_init(&t, db, loop_wall_ms(r->daemon->loop));
	vm_release_txn(db, host, uuid_random(loop_prng(r->daemon->loop)),
		loop_wall_ms(r->daemon->loop), &v, &t);
	if ((!v.freed_count && (!v.left_count || was_told(r, uuid))) ||
		!lease_expect(r->daemon->lease, &t)) {
		txn_fini(&t);
		return;
	}
	for (unsigned i = 0; i < v.freed_count; i++)
		names_add(&freed, row_name(v.freed[i]));
	for (unsigned i = 0; i < v.left_count; i++)
		names_add(&left, i < VM_RELEASE_LEFT ? row_name(v.left[i]) : "");
	snprintf(body, sizeof body,
		"Host %.64s was not heard from for longer than its lease and its "
		"watchdog "
		"last. %s%s%s%s%s Its other VMs stay where they are until it is back, or "
		"host-declare-dead says that it is off",
		row_name(host),
		freed.count ? "Its protected VMs have ended there, or never begun, and "
			      "are started on other hosts: "
			    : "",
		freed.count ? names_end(&freed) : "", freed.count ? "." : "",
		left.count ? " Not started elsewhere, since its reeve-fenced had not "
			     "promised to end them: "
			   : "",
		left.count ? names_end(&left) : "");
	log_warn("restart.release", "host=%s msg=\"%s\"", row_name(host), body);
	tell(r, &t, freed.count ? "HOST_FENCED" : "HOST_NOT_FENCED", 1, "host", uuid,
		body);
	commit_release(r, &t);
}

static void release(struct restarts *r)
{
	const struct db *db = db_of(r);

	for (const struct row *h = NULL;
		!r->releasing && (h = db_next(db, CLASS_HOST, h));) {
		struct uuid uuid = row_uuid(h);

		if (uuid_eq(&uuid, &r->daemon->host))
			continue;
		if (lease_is_over(r->daemon->lease, &uuid))
			release_host(r, h);
		else if (lease_over_in_ms(r->daemon->lease, &uuid) >= 0)
			forget_told(r, uuid);
	}
}

/* --- asking for a start --- */

static struct refused *refusal_of(
	struct restarts *r, const struct row *vm, const struct uuid *task)
{
	struct uuid uuid = row_uuid(vm);

	for (unsigned i = 0; i < RESTART_TOLD; i++)
		if (uuid_eq(&r->refused[i].vm, &uuid) &&
			uuid_eq(&r->refused[i].task, task))
			return &r->refused[i];
	return NULL;
}

static void note_refusal(struct asked *a, const struct rv_error *e)
{
	struct restarts *r = a->owner;
	const struct row *vm = db_row(db_of(r), CLASS_VM, a->vm);
	struct uuid task;
	struct refused *f;

	if (!vm || uuid_parse(&task, a->task_text, UUID_TEXT_LEN))
		return;
	log_warn("restart.start", "vm=%s error=\"%s\"", row_name(vm), e->detail);
	f = refusal_of(r, vm, &task);
	if (!f)
		f = &r->refused[r->next_refused++ % RESTART_TOLD];
	*f = (struct refused){
		.vm = a->vm, .task = task, .at_ms = loop_now_us(r->daemon->loop) / 1000};
	snprintf(f->why, sizeof f->why, "%.*s", RESTART_WORDS - 1, e->detail);
}

static msgpack_packer *asked_begin(struct call *c)
{
	struct asked *a = c->source;

	packing_init(&a->result, RESTART_ANSWER_BYTES);
	return &a->result.pk;
}

/* What came of it, its task tells. */
static void asked_end(struct call *c)
{
	struct asked *a = c->source;

	buf_fini(&a->result.buf);
	a->owner = NULL;
}

static void asked_fail(struct call *c, const struct rv_error *e)
{
	struct asked *a = c->source;

	if (!a->owner->stopped)
		note_refusal(a, e);
	a->owner = NULL;
}

static int asked_keep(struct call *c)
{
	(void)c;
	return 0; /* params lie in struct asked */
}

static void asked_on_gone(struct call *c, timer_fn *fn)
{
	(void)c;
	(void)fn;
}

static const struct call_port asked_port = {
	asked_begin, asked_end, asked_fail, asked_keep, asked_on_gone};

static msgpack_object text_object(const char *text)
{
	msgpack_object o = {.type = MSGPACK_OBJECT_STR};

	o.via.str.ptr = text;
	o.via.str.size = (uint32_t)strlen(text);
	return o;
}

static void ask_start(
	struct restarts *r, const struct row *vm, struct uuid task, bool resume)
{
	const char *method = resume ? "VM.resume" : "VM.start";
	static const struct session_identity who = {
		.role = ROLE_POOL_ADMIN, .user = "pool", .via = "fencing"};
	struct uuid uuid = row_uuid(vm);
	struct asked *a = NULL;
	int rc;

	for (unsigned i = 0; i < RESTART_AT_ONCE; i++) {
		if (r->asked[i].owner && uuid_eq(&r->asked[i].vm, &uuid))
			return; /* it is under way */
		if (!r->asked[i].owner)
			a = &r->asked[i];
	}
	if (!a)
		return;
	*a = (struct asked){.owner = r, .vm = uuid};
	uuid_format(&uuid, a->vm_text);
	uuid_format(&task, a->task_text);
	a->params[0] = (msgpack_object_kv){text_object("self"), text_object(a->vm_text)};
	a->params[1] =
		(msgpack_object_kv){text_object("request"), text_object(a->task_text)};
	a->params[2] = (msgpack_object_kv){
		text_object("async"), {.type = MSGPACK_OBJECT_BOOLEAN}};
	a->params[2].val.via.boolean = true;
	a->map = (msgpack_object){.type = MSGPACK_OBJECT_MAP};
	a->map.via.map.ptr = a->params;
	a->map.via.map.size = 3;
	log_info("restart.start", "vm=%s task=%s method=%s", row_name(vm), a->task_text,
		method);
	rc = call_begin_forwarded(
		r->daemon, &asked_port, a, &who, method, strlen(method), &a->map);
	if (rc)
		a->owner = NULL; /* too many calls: the next look asks again */
}

/* --- what came of it --- */

static void on_settled(struct pool_commit *c)
{
	struct restarts *r = CONTAINER_OF(c, struct restarts, settle);

	r->settling = false;
}

/* The field becomes `task`; none: it is over. */
static void settle(struct restarts *r, const struct row *vm, struct uuid task,
	const char *name, int priority, const char *body)
{
	struct rv_error e;
	struct txn t;

	txn_init(&t, db_of(r), loop_wall_ms(r->daemon->loop));
	vm_restart_txn(vm, task, &t);
	if (name) {
		log_warn("restart.end", "vm=%s msg=\"%s\"", row_name(vm), body);
		tell(r, &t, name, priority, "VM", row_uuid(vm), body);
	}
	memset(&r->settle, 0, sizeof r->settle);
	r->settling = true;
	if (pool_commit(r->daemon->pool, &r->settle, &t, on_settled, &e))
		r->settling = false;
}

/* What the messages tell of a VM that is to run again. */
struct past {
	const char *why;   /* it went down */
	int64_t failed_ms; /* when a start that failed was told; INT64_MIN: never */
};

/* How a VM came to be down, by a message about it; NULL: it tells of something else. */
static const char *why_down(const char *name)
{
	static const struct {
		const char *name, *why;
	} told[] = {
		{"VM_FENCED", "after it had been fenced: its host's lease had run out"},
		{"VM_CRASHED", "after its domain had vanished"},
		{"VM_REBOOT_FAILED", "after a reboot that failed"},
		{"VM_HALF_MADE", "after a domain of it had been found half made"},
	};

	for (size_t i = 0; i < sizeof told / sizeof *told; i++)
		if (strcmp(name, told[i].name) == 0)
			return told[i].why;
	return NULL;
}

static bool tells_of_lost_host(const char *name)
{
	return strcmp(name, "HOST_FENCED") == 0 ||
	       strcmp(name, "HOST_DECLARED_DEAD") == 0;
}

/* One walk, since there may be many; they come in order of creation. What was told before
 * it was last started again is of another time. Of what was told at about the same time,
 * that of the VM itself is surer than that of some host. One of long ago may have been
 * mended without a message: a guest that crashed is rebooted where it is. */
static struct past past_of(const struct restarts *r, const struct row *vm)
{
	struct past past = {.failed_ms = INT64_MIN};
	struct uuid uuid = row_uuid(vm);
	int64_t why_ms = 0;
	bool lost_host = false;

	for (const struct row *m = NULL; (m = db_next(db_of(r), CLASS_MESSAGE, m));) {
		struct uuid obj = db_ref(m, MESSAGE_OBJ_UUID);
		const char *name = db_string(m, MESSAGE_NAME), *why;
		int64_t ms = db_int(m, MESSAGE_TIMESTAMP);

		if (!uuid_eq(&obj, &uuid) && tells_of_lost_host(name)) {
			lost_host = true;
			if (ms - why_ms > SAME_TIME_MS)
				past.why = NULL;
		} else if (!uuid_eq(&obj, &uuid)) {
			continue;
		} else if (strcmp(name, "VM_RESTARTED") == 0) {
			past.why = NULL;
			lost_host = false;
		} else if (strcmp(name, "VM_RESTART_FAILED") == 0) {
			past.failed_ms = ms;
		} else if ((why = why_down(name))) {
			past.why = why;
			why_ms = ms;
		}
	}
	if (!past.why)
		past.why = lost_host ? "after its host was lost"
				     : "after it had gone down by itself";
	return past;
}

static void started(struct restarts *r, const struct row *vm)
{
	const struct row *host = db_follow(db_of(r), vm, VM_RESIDENT_ON);
	char body[300];

	snprintf(body, sizeof body, "VM %.64s was started on host %.64s %s", row_name(vm),
		host ? row_name(host) : "?", past_of(r, vm).why);
	settle(r, vm, UUID_NONE, "VM_RESTARTED", 2, body);
}

static void failed(
	struct restarts *r, const struct row *vm, const struct vm_restart_step *step)
{
	struct past past = past_of(r, vm);
	/* Told once in a while, not with each attempt. */
	bool told = past.failed_ms >= loop_wall_ms(r->daemon->loop) - FAILED_TOLD_MS;
	char body[RESTART_WORDS + 300];

	snprintf(body, sizeof body, "VM %.64s could not be started %s: %.*s. %s",
		row_name(vm), past.why, RESTART_WORDS - 1, step->why,
		step->again ? "It is tried again (ha-restart-priority=restart)"
			    : "It is not tried again (ha-restart-priority=best-effort): "
			      "start "
			      "it by vm-start");
	settle(r, vm, step->again ? uuid_random(loop_prng(r->daemon->loop)) : UUID_NONE,
		step->again && told ? NULL : "VM_RESTART_FAILED", 2, body);
}

static void look_at(struct restarts *r, const struct row *vm)
{
	struct uuid task = db_ref(vm, VM_HA_RESTART_TASK);
	const struct refused *refused = refusal_of(r, vm, &task);
	struct vm_restart_refusal refusal;
	struct vm_restart_step step;

	if (refused)
		refusal = (struct vm_restart_refusal){
			loop_now_us(r->daemon->loop) / 1000 - refused->at_ms,
			refused->why};
	step = vm_restart_look(
		db_of(r), vm, refused ? &refusal : NULL, loop_wall_ms(r->daemon->loop));
	if (step.what == VM_RESTART_ASK)
		ask_start(r, vm, task, step.resume);
	else if (r->settling)
		return;
	else if (step.what == VM_RESTART_STARTED)
		started(r, vm);
	else if (step.what == VM_RESTART_OVER)
		settle(r, vm, UUID_NONE, NULL, 0, NULL);
	else if (step.what == VM_RESTART_FAILED)
		failed(r, vm, &step);
}

static bool anything_due(const struct restarts *r)
{
	const struct db *db = db_of(r);

	for (const struct row *vm = NULL; (vm = db_next(db, CLASS_VM, vm));) {
		struct uuid task = db_ref(vm, VM_HA_RESTART_TASK);

		if (!uuid_is_none(&task))
			return true;
	}
	return false;
}

static void start(struct restarts *r)
{
	static const enum vm_restart_priority order[] = {VM_RESTART_PRIORITY_RESTART,
		VM_RESTART_PRIORITY_BEST_EFFORT, VM_RESTART_PRIORITY_NONE};
	const struct db *db = db_of(r);

	for (unsigned i = 0; i < 3 && anything_due(r); i++) {
		for (const struct row *vm = NULL; (vm = db_next(db, CLASS_VM, vm));) {
			struct uuid task = db_ref(vm, VM_HA_RESTART_TASK);

			if (!uuid_is_none(&task) &&
				db_enum(vm, VM_HA_RESTART_PRIORITY) == (int)order[i])
				look_at(r, vm);
		}
	}
}

static void on_look(void *arg)
{
	struct restarts *r = arg;
	struct daemon *d = r->daemon;

	timer_start_about_ms(&r->look, RESTART_LOOK_MS);
	/* A witness starts nothing: it leads until a host has caught up. */
	if (!d->recorded || witness_is_here(d) || !pool_is_master(d->pool) ||
		!db_pool(db_of(r)))
		return;
	release(r);
	start(r);
}

/* --- beginning and ending --- */

int restarts_new(struct restarts **out, struct daemon *d)
{
	struct restarts *r = calloc(1, sizeof *r);

	*out = r;
	if (!r)
		return RV_ENOMEM;
	r->daemon = d;
	timer_init(&r->look, d->loop, "restart.look", on_look, r);
	return 0;
}

void restarts_start(struct restarts *r)
{
	timer_start_about_ms(&r->look, RESTART_LOOK_MS);
}

void restarts_stop(struct restarts *r)
{
	if (!r)
		return;
	r->stopped = true;
	timer_stop(&r->look);
}

void restarts_free(struct restarts *r)
{
	restarts_stop(r);
	free(r);
}
