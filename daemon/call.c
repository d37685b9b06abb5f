#include "daemon/call.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/log.h"
#include "daemon/args.h"
#include "daemon/daemon.h"
#include "daemon/forward.h"
#include "daemon/large.h"
#include "daemon/methods.h"
#include "daemon/policy.h"
#include "daemon/quorum.h"
#include "daemon/ranges.h"
#include "daemon/tasks.h"
#include "daemon/witness.h"
#include "rpc/message.h"

/* How long a read waits to see the write it names. */
enum { CALL_SEQ_WAIT_MS = 10000 };

static struct call *call_new(struct daemon *d, const struct call_port *port, void *source)
{
	struct call *c;

	if (list_empty(&d->free_calls)) {
		c = malloc(sizeof *c);
		if (!c)
			return NULL;
	} else {
		c = CONTAINER_OF(d->free_calls.next, struct call, node);
		list_remove(&c->node);
	}
	memset(c, 0, offsetof(struct call, args));
	c->daemon = d;
	c->port = port;
	c->source = source;
	list_init(&c->waiting);
	timer_init(&c->timer, d->loop, "rpc.call.timer", NULL, c);
	list_push_back(&d->calls, &c->node);
	d->call_count++;
	return c;
}

/* After the reply. The struct is kept for the next call. */
static void call_free(struct call *c)
{
	struct daemon *d = c->daemon;

	assert(!c->port);
	timer_stop(&c->timer);
	list_remove(&c->waiting);
	for (int i = 0; c->method && i < c->method->arg_count; i++)
		value_fini(&c->args[i]);
	value_fini(&c->result);
	read_slices_drop(c);
	list_remove(&c->node);
	list_push_front(&d->free_calls, &c->node);
	d->call_count--;
}

void calls_free(struct daemon *d)
{
	LIST_FOR_EACH_SAFE (node, &d->calls) {
		struct call *c = CONTAINER_OF(node, struct call, node);

		/* Its client was told that the daemon ends by the closed connection. */
		if (c->port)
			call_failf(c, RV_ECLOSED, "the daemon ends");
	}
	LIST_FOR_EACH_SAFE (node, &d->free_calls) {
		list_remove(node);
		free(CONTAINER_OF(node, struct call, node));
	}
}

/* --- beginning --- */

static void call_run(struct call *c)
{
	struct rv_error e;

	rv_error_clear(&e);
	if (daemon_refuses(c->daemon, c->method, &e) || witness_refuses(c, &e)) {
		call_fail(c, &e);
		return;
	}
	/* A repeat of a request that already has a task joins it. */
	if (!uuid_is_none(&c->request)) {
		struct uuid task = pool_request_lookup(c->daemon->pool, &c->request);

		if (!uuid_is_none(&task)) {
			tasks_join(c, task);
			return;
		}
	}
	if (c->daemon->members && forward_call(c))
		return;
	if (!methods_find(c->method->id)) {
		rv_error_set(&e, RV_EMETHOD, "%s.%s is in the schema but not served",
			c->method->group, c->method->name);
		call_fail(c, &e);
		return;
	}
	if (large_read_is(c))
		large_read_later(c);
	else
		methods_find(c->method->id)(c);
}

/* By name: a forwarded call is answered to somebody who asked another host, which may
 * well have seen it. */
static void call_behind(struct call *c)
{
	const struct daemon *d = c->daemon;
	const struct row *self = db_row(pool_db(d->pool), CLASS_HOST, d->host);

	call_failf(c, RV_ESTALE,
		"host %s has not yet seen change %llu of the pool's database (it is at "
		"%llu); ask again%s",
		self ? row_name(self) : "that was asked", (unsigned long long)c->min_seq,
		(unsigned long long)pool_seq(d->pool),
		c->forwarded ? " when it has caught up (`reeve pool-status` shows how "
			       "far it is behind), or use another host"
			     : ", or another host");
}

static void call_on_seq(struct pool_wait *w, int rc)
{
	struct call *c = CONTAINER_OF(w, struct call, wait);

	if (rc)
		call_behind(c);
	else
		call_run(c);
}

static void call_on_barrier(struct pool_barrier *b, int rc)
{
	struct call *c = CONTAINER_OF(b, struct call, barrier);

	if (rc) {
		call_failf(c, rc, "a consistent read is not possible now: %s",
			rv_error_text(rc));
		return;
	}
	call_run(c);
}

/* --- clients of this host --- */

static msgpack_packer *client_begin(struct call *c)
{
	return rpc_reply_begin(c->source);
}

static void client_end(struct call *c)
{
	rpc_reply_end(c->source);
}

static void client_fail(struct call *c, const struct rv_error *e)
{
	rpc_reply_failure(c->source, e);
}

static int client_keep(struct call *c)
{
	return rpc_request_keep(c->source);
}

static void client_on_gone(struct call *c, timer_fn *fn)
{
	rpc_request_on_gone(c->source, fn, c);
}

static const struct call_port client_port = {
	client_begin, client_end, client_fail, client_keep, client_on_gone};

void call_on_gone(struct call *c, timer_fn *fn)
{
	c->port->on_gone(c, fn);
}

void call_again(struct call *c)
{
	call_run(c);
}

int call_keep(struct call *c)
{
	if (c->kept)
		return 0;
	if (c->port->keep(c))
		return RV_ENOMEM;
	c->kept = true;
	/* The params moved: what points into them is read again. */
	for (int i = 0; i < c->method->arg_count; i++)
		if (c->records[i])
			c->records[i] = rpc_map_get(c->params, c->method->args[i].name);
	return 0;
}

/* Lets the database reach what the caller wants to see, then runs the method. */
static int call_wait_then_run(struct call *c, struct rv_error *e)
{
	struct pool *pool = c->daemon->pool;
	int rc;

	if (c->consistent || c->min_seq > pool_seq(pool)) {
		rc = call_keep(c);
		if (rc)
			return rv_error_set(e, rc, "out of memory; ask again later");
	}
	if (c->consistent) {
		memset(&c->barrier, 0, sizeof c->barrier);
		rc = pool_read_barrier(pool, &c->barrier, call_on_barrier);
		return rc ? rv_error_set(e, rc,
				    "a consistent read is not possible now: %s",
				    rv_error_text(rc))
			  : 0;
	}
	if (c->min_seq > pool_seq(pool)) {
		pool_wait_seq(pool, &c->wait, c->min_seq, CALL_SEQ_WAIT_MS, call_on_seq);
		return 0;
	}
	call_run(c);
	return 0;
}

/* The table is walked once for each of the methods that clients use. */
static const struct schema_method *method_find(
	struct daemon *d, const char *name, size_t len)
{
	size_t slot = len ? (len * 31 + (uint8_t)name[len - 1] * 7 +
				    (uint8_t)name[len / 2] + (uint8_t)name[0]) %
				      DAEMON_METHODS_KNOWN
			  : 0;
	struct known_method *k = &d->methods_known[slot];

	if (k->method && k->len == len && memcmp(k->name, name, len) == 0)
		return k->method;
	if (len > sizeof k->name)
		return schema_method_by_name(name, len);
	k->method = schema_method_by_name(name, len);
	k->len = len;
	memcpy(k->name, name, len);
	return k->method;
}

/* Is there such a method, may the caller call it, are the parameters right? */
static void call_check(struct call *c, const char *method, size_t method_len)
{
	struct rv_error e;
	int rc = 0;

	rv_error_clear(&e);
	c->method = method_find(c->daemon, method, method_len);
	if (!c->method) {
		call_failf(c, RV_EMETHOD,
			"there is no method '%.*s'; docs/API.md lists all",
			(int)(method_len < 64 ? method_len : 64), method);
		return;
	}
	memset(c->args, 0, (size_t)c->method->arg_count * sizeof c->args[0]);
	memset(c->records, 0, (size_t)c->method->arg_count * sizeof c->records[0]);
	if (c->who.role == ROLE_NONE || c->who.role < c->method->role) {
		char name[RPC_MAX_METHOD_BYTES + 1];

		snprintf(name, sizeof name, "%s.%s", c->method->group, c->method->name);
		rc = session_check_role(&c->who, c->method->role, name, &e);
	}
	if (!rc)
		rc = args_read(c, &e);
	if (!rc)
		rc = call_wait_then_run(c, &e);
	if (rc)
		call_fail(c, &e);
}

void call_begin(void *arg, struct rpc_request *req)
{
	struct daemon *d = arg;
	struct rv_error e;
	struct call *c;
	int rc;

	rv_error_clear(&e);
	if (sessions_handle(d->sessions, req))
		return;
	if (d->call_count >= RV_MAX_CALLS) {
		rpc_reply_error(req, RV_ELIMIT,
			"too many calls wait for something here already; ask again later",
			true);
		return;
	}
	c = call_new(d, &client_port, req);
	if (!c) {
		rpc_reply_error(req, RV_ENOMEM, "out of memory; ask again later", true);
		return;
	}
	c->params = &req->params;
	c->origin = req->peer->name;
	rc = sessions_identify(
		d->sessions, req->peer, req->session, req->session_len, &c->who, &e);
	if (rc)
		call_fail(c, &e);
	else
		call_check(c, req->method, req->method_len);
}

int call_begin_forwarded(struct daemon *d, const struct call_port *port, void *source,
	const struct session_identity *who, const char *method, size_t method_len,
	const msgpack_object *params)
{
	struct call *c;

	if (d->call_count >= RV_MAX_CALLS)
		return RV_ELIMIT;
	c = call_new(d, port, source);
	if (!c)
		return RV_ENOMEM;
	c->who = *who;
	c->params = params;
	c->origin = "another host";
	c->forwarded = true;
	call_check(c, method, method_len);
	return 0;
}

/* --- arguments --- */

static int call_arg_index(const struct call *c, const char *name)
{
	for (int i = 0; i < c->method->arg_count; i++)
		if (strcmp(c->method->args[i].name, name) == 0)
			return i;
	assert(!"the method has no such argument");
	return 0;
}

const struct value *call_arg(const struct call *c, const char *name)
{
	const struct value *v = &c->args[call_arg_index(c, name)];

	return v->type == VALUE_NULL ? NULL : v;
}

struct uuid call_ref(const struct call *c, const char *name)
{
	const struct value *v = call_arg(c, name);

	return v ? value_get_ref(v) : UUID_NONE;
}

const char *call_text(const struct call *c, const char *name)
{
	const struct value *v = call_arg(c, name);

	return v ? value_get_string(v) : "";
}

int64_t call_int(const struct call *c, const char *name, int64_t missing)
{
	const struct value *v = call_arg(c, name);

	return v ? value_get_int(v) : missing;
}

bool call_bool(const struct call *c, const char *name, bool missing)
{
	const struct value *v = call_arg(c, name);

	return v ? value_get_bool(v) : missing;
}

const msgpack_object *call_record(const struct call *c, const char *name)
{
	return c->records[call_arg_index(c, name)];
}

const struct row *call_row(struct call *c, const char *name)
{
	const struct schema_arg *arg = &c->method->args[call_arg_index(c, name)];
	struct uuid uuid = call_ref(c, name);
	const struct row *row = db_row(pool_db(c->daemon->pool), arg->ref_class, uuid);
	char text[UUID_TEXT_SIZE];

	if (!row)
		call_failf(c, RV_ENOENT, "there is no %s %s",
			schema_class(arg->ref_class)->name, uuid_format(&uuid, text));
	return row;
}

/* --- replying --- */

static inline uint8_t *put_literal(uint8_t *at, const char *bytes, size_t len)
{
	memcpy(at, bytes, len);
	return at + len;
}

msgpack_packer *call_reply_begin(struct call *c)
{
	int64_t age_ms = pool_age_ms(c->daemon->pool);
	bool stale = c->daemon->members && (age_ms < 0 || age_ms > POOL_STALE_MS);
	msgpack_packer *pk = c->port->begin(c);
	uint8_t head[32 + 2 * RPC_UINT_BYTES], *at = head;

	/* What rpc_pack_key and its like would write, in one piece. */
	*at++ = stale ? 0x84 : 0x83;
	at = put_literal(at, "\xa3seq", 4);
	at = rpc_put_uint(at, c->seq ? c->seq : pool_seq(c->daemon->pool));
	at = put_literal(at,
		"\xa6"
		"age_ms",
		7);
	if (age_ms < 0)
		*at++ = 0xff; /* -1: not known */
	else
		at = rpc_put_uint(at, (uint64_t)age_ms);
	if (stale)
		at = put_literal(at, "\xa5stale\xc3", 7);
	at = put_literal(at, "\xa5value", 6);
	pk->callback(pk->data, (const char *)head, (size_t)(at - head));
	return pk;
}

void call_reply_end(struct call *c)
{
	c->port->end(c);
	c->port = NULL;
	call_free(c);
}

void call_reply(struct call *c, const struct value *v)
{
	msgpack_packer *pk = call_reply_begin(c);

	if (v->type == VALUE_NULL)
		msgpack_pack_nil(pk);
	else
		value_pack(v, pk, VALUE_WIRE_RPC);
	call_reply_end(c);
}

void call_reply_nil(struct call *c)
{
	struct value nothing = {.type = VALUE_NULL};

	call_reply(c, &nothing);
}

void call_fail(struct call *c, const struct rv_error *e)
{
	struct rv_error why = *e;

	if (!c->forwarded) /* who asked this host adds what it sees */
		quorum_explain(c->daemon, &why);
	c->port->fail(c, &why);
	c->port = NULL;
	call_free(c);
}

void call_failf(struct call *c, int code, const char *fmt, ...)
{
	struct rv_error e = {.code = code};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(e.detail, sizeof e.detail, fmt, ap);
	va_end(ap);
	call_fail(c, &e);
}

/* --- changing --- */

static void call_on_commit(struct pool_commit *commit)
{
	struct call *c = CONTAINER_OF(commit, struct call, commit);

	if (commit->rc) {
		if (tasks_join_first(c))
			return;
		if (commit->rc == RV_ECONFLICT && c->again) {
			c->again(c);
			return;
		}
		witness_advise(pool_db(c->daemon->pool), &commit->error);
		call_fail(c, &commit->error);
		return;
	}
	/* Perhaps a repeat of the request made it. */
	if (commit->found && tasks_join_first(c))
		return;
	if (c->committed)
		c->committed(c);
	call_reply(c, &c->result);
}

void call_commit(struct call *c, struct txn *t, struct value result, struct uuid subject)
{
	char text[UUID_TEXT_SIZE];
	struct rv_error e = {0};

	c->result = result;
	if (!uuid_is_none(&c->request))
		tasks_add_finished(c, t, subject, &c->result);
	log_info("rpc.change", "method=%s.%s user=\"%s\" subject=%s", c->method->group,
		c->method->name, c->who.user, uuid_format(&subject, text));
	memset(&c->commit, 0, sizeof c->commit);
	c->commit.proof = c->request; /* its task, made by this entry */
	if (pool_commit(c->daemon->pool, &c->commit, t, call_on_commit, &e))
		call_fail(c, &e);
}

/* --- records --- */

/* Classes whose objects are made with a name that no other of them has. */
static bool names_are_unique(enum schema_class_id cls)
{
	return cls == CLASS_VM || cls == CLASS_SR || cls == CLASS_NETWORK ||
	       cls == CLASS_HOST || cls == CLASS_USER;
}

/* Spaces of all kinds, and what takes none: what one sees must be a name. */
static bool is_seen(const char *name)
{
	static const char *const blanks[] = {" ", "\u00a0", "\u00ad", "\u2000", "\u2001",
		"\u2002", "\u2003", "\u2004", "\u2005", "\u2006", "\u2007", "\u2008",
		"\u2009", "\u200a", "\u200b", "\u200c", "\u200d", "\u200e", "\u200f",
		"\u2028", "\u2029", "\u202f", "\u205f", "\u2060", "\u3000", "\ufeff"};

	while (*name) {
		size_t i = 0, len = 0;

		for (; i < sizeof blanks / sizeof blanks[0] && !len; i++)
			if (strncmp(name, blanks[i], strlen(blanks[i])) == 0)
				len = strlen(blanks[i]);
		if (!len)
			return true;
		name += len;
	}
	return false;
}

int call_name_check(enum schema_class_id cls, const char *name, struct rv_error *e)
{
	struct uuid uuid;

	if (!*name && names_are_unique(cls))
		return rv_error_set(e, RV_EPARAM,
			"name_label: a %s needs a name, a text of 1 to %d bytes",
			schema_class(cls)->name, RV_MAX_NAME_BYTES);
	if (strlen(name) > RV_MAX_NAME_BYTES)
		return rv_error_set(e, RV_EPARAM,
			"name_label: a name has at most %d bytes, this one %zu",
			RV_MAX_NAME_BYTES, strlen(name));
	/* Where an object may be named by either, its UUID would hide it. */
	if (names_are_unique(cls) && !uuid_parse(&uuid, name, strlen(name)))
		return rv_error_set(e, RV_EPARAM,
			"name_label: '%s' reads as a UUID, and objects are found by name "
			"or UUID; choose another",
			name);
	if (names_are_unique(cls) && !is_seen(name))
		return rv_error_set(e, RV_EPARAM,
			"name_label: '%s' has nothing that one can see; choose a name",
			name);
	/* "<not in database>": in lists and filters it says that there is none. */
	if (names_are_unique(cls) && name[0] == '<' && name[strlen(name) - 1] == '>')
		return rv_error_set(e, RV_EPARAM,
			"name_label: '%s' looks like what stands for an object that is "
			"not there; leave out < and >",
			name);
	for (const unsigned char *p = (const unsigned char *)name; *p; p++)
		if (*p < 0x20 || *p == 0x7f)
			return rv_error_set(e, RV_EPARAM,
				"name_label: it has the control character 0x%02x; leave "
				"line breaks and the like out",
				*p);
	return 0;
}

/* A name that changes: the new one must be free, as at creation. */
static int name_to_txn(struct call *c, struct txn *t, const struct schema_field *f,
	struct uuid uuid, const char *name, bool creating, struct rv_error *e)
{
	const struct row *row = db_row(pool_db(c->daemon->pool), f->cls, uuid);
	int rc = call_name_check(f->cls, name, e);

	if (!rc && !creating && names_are_unique(f->cls) &&
		!(row && strcmp(row_name(row), name) == 0))
		txn_expect_name_free(t, f->cls, name);
	return rc;
}

/* A key or an element that nobody could name. */
static int keys_check(
	const struct schema_field *f, const struct value *v, struct rv_error *e)
{
	for (size_t i = 0; f->type == VALUE_STRING_MAP && i < value_count(v); i++)
		if (value_key_at(v, i)[0] == '\0')
			return rv_error_set(e, RV_EPARAM,
				"%s: a key is empty, before the value '%.64s'; give it a "
				"name (KEY=VALUE)",
				f->name, value_at(v, i));
	if (f->type == VALUE_STRING_SET && value_set_has(v, ""))
		return rv_error_set(e, RV_EPARAM,
			"%s: an element is empty; leave out the comma that is too many",
			f->name);
	return 0;
}

/* What must name an object and names none: a script's variable was not set. Left out it
 * may well have a default. */
static int owner_check(
	const struct schema_field *f, const struct value *v, struct rv_error *e)
{
	if (f->type != VALUE_REF || f->ref != REF_OWNER || !value_is_zero(v))
		return 0;
	return rv_error_set(e, RV_EPARAM, "%s.%s is empty: give the UUID of a %s",
		schema_class(f->cls)->name, f->name, schema_class(f->ref_class)->name);
}

static int field_to_txn(struct call *c, struct txn *t, const msgpack_object_kv *kv,
	const struct schema_class *cls, struct uuid uuid, bool creating,
	struct rv_error *e)
{
	const struct schema_field *f;
	struct value v;
	int rc;

	if (kv->key.type != MSGPACK_OBJECT_STR)
		return rv_error_set(e, RV_EPARAM, "field names must be strings");
	f = schema_field_by_name(cls, kv->key.via.str.ptr, kv->key.via.str.size);
	if (!f)
		return rv_error_set(e, RV_EFIELD,
			"class %s has no field '%.*s'; `reeve help %s` lists them",
			cls->name,
			(int)(kv->key.via.str.size < 64 ? kv->key.via.str.size : 64),
			kv->key.via.str.ptr, cls->name);
	if (f->writer != WRITER_USER && !(creating && f->writer == WRITER_CREATE))
		return rv_error_set(e, RV_EREADONLY, "%s.%s is %s", cls->name, f->name,
			f->writer == WRITER_CREATE
				? "set when the object is made and stays"
				: "kept by the pool itself");
	rc = args_field_value(pool_db(c->daemon->pool), f, &kv->val, &v, e);
	if (rc)
		return rc;
	rc = f->id == POOL_SCHEDULER ? policy_check(c->daemon, value_get_string(&v), e)
				     : range_field(f, &v, e);
	if (!rc)
		rc = keys_check(f, &v, e);
	if (!rc && creating)
		rc = owner_check(f, &v, e);
	if (!rc && strcmp(f->name, "name_label") == 0)
		rc = name_to_txn(c, t, f, uuid, value_get_string(&v), creating, e);
	if (!rc)
		txn_set_value(t, uuid, f->id, &v);
	value_fini(&v);
	return rc;
}

/* Puts the object before the words: "network lan: ". */
static void name_object(struct call *c, const msgpack_object *record,
	enum schema_class_id cls, struct uuid uuid, struct rv_error *e)
{
	const struct row *row = db_row(pool_db(c->daemon->pool), cls, uuid);
	const msgpack_object *name = rpc_map_get(record, "name_label");

	if (row)
		rv_error_prefix(e, "%s %s", schema_class(cls)->name, row_name(row));
	else if (name && name->type == MSGPACK_OBJECT_STR &&
		 name->via.str.size <= RV_MAX_NAME_BYTES)
		rv_error_prefix(e, "%s %.*s", schema_class(cls)->name,
			(int)name->via.str.size, name->via.str.ptr);
}

bool call_fields_to_txn(struct call *c, struct txn *t, const msgpack_object *record,
	enum schema_class_id cls, struct uuid uuid, bool creating)
{
	struct rv_error e = {0};

	for (uint32_t i = 0; record && i < record->via.map.size; i++) {
		if (field_to_txn(c, t, &record->via.map.ptr[i], schema_class(cls), uuid,
			    creating, &e)) {
			if (e.code == RV_EINVAL)
				name_object(c, record, cls, uuid, &e);
			call_fail(c, &e);
			return false;
		}
	}
	return true;
}
