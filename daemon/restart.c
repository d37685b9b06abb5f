#include "daemon/restart.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/call.h"
#include "daemon/fencing.h"
#include "daemon/lease.h"
#include "daemon/lost_vms.h"
#include "daemon/names.h"
#include "daemon/served.h"
#include "daemon/tasks.h"
#include "daemon/witness.h"
#include "pool/db/message.h"
#include "rpc/message.h"

enum {
	RESTART_LOOK_MS = 1000,
	RESTART_AGAIN_MS = 10 * 1000, /* after a start that failed */
	RESTART_AT_ONCE = 8,	      /* starts under way */
	RESTART_RELEASED = 32,	      /* VMs in one entry */
	RESTART_TOLD = 64,	      /* hosts told of, and starts that were refused */
	RESTART_ANSWER_BYTES = 4096,
	RESTART_WORDS = 500,
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

static bool is_protected(const struct row *vm)
{
	return db_enum(vm, VM_HA_RESTART_PRIORITY) != VM_RESTART_PRIORITY_NONE;
}

/* One UUID for each VM of an entry, from the one that was drawn. */
void restart_due_txn(const struct row *vm, struct uuid entry, struct txn *t)
{
	struct uuid task = row_uuid(vm);

	if (!is_protected(vm))
		return;
	for (size_t i = 0; i < sizeof task.b; i++)
		task.b[i] ^= entry.b[i];
	txn_set_ref(t, row_uuid(vm), VM_HA_RESTART_TASK, task);
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

/* --- letting go of a silent host's VMs --------------------------------------------- */

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

/* VMs whose start was under way there: no domain of theirs was recorded, so none was let
 * run, and once this is committed none can be. */
static void release_starts(struct restarts *r, struct uuid host, const char *why,
	struct uuid entry, int64_t wall_ms, struct names *freed, struct txn *t)
{
	const struct db *db = db_of(r);

	for (const struct row *vm = NULL;
		(vm = db_next_ref(db, VM_INTENT_HOST, host, vm));) {
		struct uuid on = db_ref(vm, VM_RESIDENT_ON);

		if (!is_protected(vm) || !uuid_is_none(&on) ||
			db_enum(vm, VM_INTENT) != VM_INTENT_START ||
			freed->count == RESTART_RELEASED ||
			!lost_vm_txn(db, vm, why, wall_ms, t))
			continue;
		restart_due_txn(vm, entry, t);
		names_add(freed, row_name(vm));
	}
}

/* Its lease and all that reeve-fenced has promised are over. */
static void release_host(struct restarts *r, const struct row *host)
{
	const struct db *db = db_of(r);
	struct names freed = {.show = NAMES_SHOWN}, left = {.show = NAMES_SHOWN};
	struct uuid uuid = row_uuid(host),
		    entry = uuid_random(loop_prng(r->daemon->loop));
	int64_t wall_ms = loop_wall_ms(r->daemon->loop);
	char why[160], body[1200];
	struct txn t;

	snprintf(why, sizeof why,
		"host %.64s, where it was at work, was lost, and the VM was fenced",
		row_name(host));
	txn_init(&t, db, wall_ms);
	for (const struct row *vm = NULL;
		(vm = db_next_ref(db, VM_RESIDENT_ON, uuid, vm));) {
		if (!is_protected(vm))
			continue;
		if (!fencing_is_armed(db, vm)) {
			names_add(&left, row_name(vm));
			continue;
		}
		if (freed.count == RESTART_RELEASED)
			continue; /* with the next entry */
		txn_expect_string(
			&t, row_uuid(vm), VM_HA_ARMED, db_string(vm, VM_HA_ARMED));
		if (!lost_vm_txn(db, vm, why, wall_ms, &t))
			continue;
		restart_due_txn(vm, entry, &t);
		names_add(&freed, row_name(vm));
	}
	release_starts(r, uuid, why, entry, wall_ms, &freed, &t);
	if ((!freed.count && (!left.count || was_told(r, uuid))) ||
		!lease_expect(r->daemon->lease, &t)) {
		txn_fini(&t);
		return;
	}
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

/* --- asking for a start ------------------------------------------------------------ */

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

static void ask_start(struct restarts *r, const struct row *vm, struct uuid task)
{
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
	log_info("restart.start", "vm=%s task=%s", row_name(vm), a->task_text);
	rc = call_begin_forwarded(
		r->daemon, &asked_port, a, &who, "VM.start", strlen("VM.start"), &a->map);
	if (rc)
		a->owner = NULL; /* too many calls: the next look asks again */
}

/* --- what came of it --------------------------------------------------------------- */

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
	txn_expect_ref(
		&t, row_uuid(vm), VM_HA_RESTART_TASK, db_ref(vm, VM_HA_RESTART_TASK));
	txn_set_ref(&t, row_uuid(vm), VM_HA_RESTART_TASK, task);
	if (name) {
		log_warn("restart.end", "vm=%s msg=\"%s\"", row_name(vm), body);
		tell(r, &t, name, priority, "VM", row_uuid(vm), body);
	}
	memset(&r->settle, 0, sizeof r->settle);
	r->settling = true;
	if (pool_commit(r->daemon->pool, &r->settle, &t, on_settled, &e))
		r->settling = false;
}

static void started(struct restarts *r, const struct row *vm)
{
	const struct row *host = db_follow(db_of(r), vm, VM_RESIDENT_ON);
	char body[300];

	snprintf(body, sizeof body,
		"VM %.64s was started on host %.64s after its host was lost",
		row_name(vm), host ? row_name(host) : "?");
	settle(r, vm, UUID_NONE, "VM_RESTARTED", 2, body);
}

/* Told once in a while, not with each attempt. */
static bool told_of_failure(const struct restarts *r, const struct row *vm)
{
	const struct db *db = db_of(r);
	int64_t since_ms = loop_wall_ms(r->daemon->loop) - 10 * 60 * 1000;
	struct uuid uuid = row_uuid(vm), obj;

	for (const struct row *m = NULL; (m = db_next(db, CLASS_MESSAGE, m));) {
		obj = db_ref(m, MESSAGE_OBJ_UUID);
		if (uuid_eq(&obj, &uuid) && db_int(m, MESSAGE_TIMESTAMP) >= since_ms &&
			strcmp(db_string(m, MESSAGE_NAME), "VM_RESTART_FAILED") == 0)
			return true;
	}
	return false;
}

static void failed(struct restarts *r, const struct row *vm, const char *why)
{
	bool again = db_enum(vm, VM_HA_RESTART_PRIORITY) == VM_RESTART_PRIORITY_RESTART;
	char body[RESTART_WORDS + 300];

	snprintf(body, sizeof body,
		"VM %.64s could not be started after its host was lost: %.*s. %s",
		row_name(vm), RESTART_WORDS - 1, why,
		again ? "It is tried again (ha-restart-priority=restart)"
		      : "It is not tried again (ha-restart-priority=best-effort): start "
			"it "
			"by vm-start");
	settle(r, vm, again ? uuid_random(loop_prng(r->daemon->loop)) : UUID_NONE,
		again && told_of_failure(r, vm) ? NULL : "VM_RESTART_FAILED", 2, body);
}

/* Whether the start is to be asked for. Otherwise what came of it was looked after. */
static bool look_at(struct restarts *r, const struct row *vm)
{
	struct uuid task = db_ref(vm, VM_HA_RESTART_TASK),
		    on = db_ref(vm, VM_RESIDENT_ON);
	const struct row *row = db_row(db_of(r), CLASS_TASK, task);
	bool ended = row && tasks_ended(row), halted, success;
	struct refused *refused;

	halted =
		uuid_is_none(&on) && db_enum(vm, VM_POWER_STATE) == VM_POWER_STATE_HALTED;
	success = ended && db_enum(row, TASK_STATUS) == TASK_STATUS_SUCCESS;
	if (row && !ended)
		return false; /* at work */
	if (r->settling)
		return false;
	if (success && !halted)
		started(r, vm);
	else if (!halted || success || !is_protected(vm))
		settle(r, vm, UUID_NONE, NULL, 0,
			NULL); /* somebody else looked after it */
	if (success || !halted || !is_protected(vm))
		return false;
	if (ended) {
		if (loop_wall_ms(r->daemon->loop) >=
			db_int(row, TASK_FINISHED) + RESTART_AGAIN_MS)
			failed(r, vm, db_string(row, TASK_ERROR_DETAIL));
		return false;
	}
	refused = refusal_of(r, vm, &task);
	if (!refused)
		return true;
	if (loop_now_us(r->daemon->loop) / 1000 < refused->at_ms + RESTART_AGAIN_MS)
		return false;
	failed(r, vm, refused->why);
	return false;
}

static void start(struct restarts *r)
{
	static const enum vm_restart_priority order[] = {VM_RESTART_PRIORITY_RESTART,
		VM_RESTART_PRIORITY_BEST_EFFORT, VM_RESTART_PRIORITY_NONE};
	const struct db *db = db_of(r);

	for (unsigned i = 0; i < 3; i++) {
		for (const struct row *vm = NULL; (vm = db_next(db, CLASS_VM, vm));) {
			struct uuid task = db_ref(vm, VM_HA_RESTART_TASK);

			if (!uuid_is_none(&task) &&
				db_enum(vm, VM_HA_RESTART_PRIORITY) == (int)order[i] &&
				look_at(r, vm))
				ask_start(r, vm, task);
		}
	}
}

static void on_look(void *arg)
{
	struct restarts *r = arg;
	struct daemon *d = r->daemon;

	timer_start_ms(&r->look, RESTART_LOOK_MS);
	/* A witness starts nothing: it leads until a host has caught up. */
	if (!d->recorded || witness_is_here(d) || !pool_is_master(d->pool) ||
		!db_pool(db_of(r)))
		return;
	release(r);
	start(r);
}

/* --- beginning and ending ---------------------------------------------------------- */

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
	timer_start_ms(&r->look, RESTART_LOOK_MS);
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
