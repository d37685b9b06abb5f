#include "daemon/args.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "daemon/daemon.h"
#include "daemon/ranges.h"

/* Params that every method takes; docs/protocol.md. */
struct common {
	const char *name;
	enum value_type type;
};

static const struct common commons[] = {
	{"session", VALUE_STRING},
	{"request", VALUE_REF},
	{"async", VALUE_BOOL},
	{"min_seq", VALUE_INT},
	{"consistent", VALUE_BOOL},
	{"pool", VALUE_REF},
};

enum { COMMON_COUNT = sizeof commons / sizeof commons[0] };

static bool key_is(const msgpack_object *key, const char *name)
{
	size_t len = strlen(name);

	return key->via.str.size == len && memcmp(key->via.str.ptr, name, len) == 0;
}

/* "session.login_with_password takes uname, pwd": what the caller should have sent. */
static int args_unknown(
	const struct schema_method *m, const msgpack_object *key, struct rv_error *e)
{
	char names[400] = "no parameters";
	size_t used = 0;

	for (int i = 0; i < m->arg_count && used < sizeof names; i++)
		used += (size_t)snprintf(names + used, sizeof names - used, "%s%s%s",
			i ? ", " : "", m->args[i].name, m->args[i].required ? "" : "?");
	return rv_error_set(e, RV_EPARAM, "%s.%s has no parameter '%.*s'; it takes %s",
		m->group, m->name, (int)(key->via.str.size < 64 ? key->via.str.size : 64),
		key->via.str.ptr, names);
}

/* A host that was ejected, or has joined, is of another pool: what was meant for the
 * former one, and is sent again, must not be done in this one. */
static int args_pool(const struct call *c, struct uuid meant, struct rv_error *e)
{
	const struct row *pool = db_pool(pool_db(c->daemon->pool));
	char text[UUID_TEXT_SIZE], now[UUID_TEXT_SIZE];
	struct uuid uuid = pool ? row_uuid(pool) : UUID_NONE;

	if (!pool || uuid_is_none(&meant) || uuid_eq(&meant, &uuid))
		return 0;
	return rv_error_set(e, RV_ENOTALLOWED,
		"the call is for pool %s, and this host is of pool %.64s (%s) now: it "
		"has "
		"left that pool or joined this one; nothing was done here. Ask a host of "
		"the pool that you mean",
		uuid_format(&meant, text), row_name(pool), uuid_format(&uuid, now));
}

static int args_common(struct call *c, const struct common *common,
	const msgpack_object *o, struct rv_error *e)
{
	struct value v;
	int rc = value_unpack(&v, common->type, o, e);

	if (rc) {
		rv_error_prefix(e, "%s", common->name);
		return rc;
	}
	if (strcmp(common->name, "request") == 0)
		c->request = value_get_ref(&v);
	else if (strcmp(common->name, "async") == 0)
		c->async = value_get_bool(&v);
	else if (strcmp(common->name, "consistent") == 0)
		c->consistent = value_get_bool(&v);
	else if (strcmp(common->name, "pool") == 0)
		rc = args_pool(c, value_get_ref(&v), e);
	else if (strcmp(common->name, "min_seq") == 0)
		c->min_seq = (uint64_t)(value_get_int(&v) > 0 ? value_get_int(&v) : 0);
	value_fini(&v);
	return rc;
}

static int args_one(struct call *c, const struct schema_arg *arg, int i,
	const msgpack_object *o, struct rv_error *e)
{
	int rc;

	if (c->args[i].type != VALUE_NULL || c->records[i])
		return rv_error_set(
			e, RV_EPARAM, "parameter '%s' is given twice", arg->name);
	if (arg->record || arg->type == VALUE_NULL) {
		if (arg->record && o->type != MSGPACK_OBJECT_MAP)
			return rv_error_set(
				e, RV_EPARAM, "%s: expected a map", arg->name);
		c->records[i] = o;
		return 0;
	}
	if (o->type == MSGPACK_OBJECT_NIL && !arg->required)
		return 0;
	rc = value_unpack(&c->args[i], arg->type, o, e);
	if (rc) {
		rv_error_prefix(e, "parameter '%s' of %s.%s", arg->name, c->method->group,
			c->method->name);
		return rc;
	}
	if (arg->enum_texts &&
		schema_enum_value(arg->enum_texts, value_get_string(&c->args[i])) < 0)
		return rv_error_set(e, RV_EPARAM,
			"parameter '%s': '%s' is none of its values", arg->name,
			value_get_string(&c->args[i]));
	/* A script's variable that was not set: not the same as left out. */
	if (arg->type == VALUE_REF && arg->ref_class != CLASS_NONE &&
		value_is_zero(&c->args[i]))
		return rv_error_set(e, RV_EPARAM,
			"parameter '%s' of %s.%s is empty: give the UUID of a %s%s",
			arg->name, c->method->group, c->method->name,
			schema_class(arg->ref_class)->name,
			arg->required ? "" : ", or leave it out");
	return 0;
}

/* Numbers out of bounds, of the object where the call is about one. */
static int args_ranges(const struct call *c, struct rv_error *e)
{
	const struct schema_method *m = c->method;

	for (int i = 0; i < m->arg_count; i++) {
		const struct row *row;
		int rc;

		if (c->args[i].type != VALUE_INT)
			continue;
		rc = range_arg(m, &m->args[i], &c->args[i], e);
		if (!rc)
			continue;
		row = c->args[0].type == VALUE_REF && m->args[0].ref_class != CLASS_NONE
			      ? db_row(pool_db(c->daemon->pool), m->args[0].ref_class,
					value_get_ref(&c->args[0]))
			      : NULL;
		if (row)
			rv_error_prefix(e, "%s %s",
				schema_class(m->args[0].ref_class)->name, row_name(row));
		return rc;
	}
	return 0;
}

static int args_pair(struct call *c, const msgpack_object_kv *kv, struct rv_error *e)
{
	const struct schema_method *m = c->method;

	if (kv->key.type != MSGPACK_OBJECT_STR)
		return rv_error_set(e, RV_EPARAM, "params: keys must be strings");
	for (int i = 0; i < m->arg_count; i++)
		if (key_is(&kv->key, m->args[i].name))
			return args_one(c, &m->args[i], i, &kv->val, e);
	for (size_t i = 0; i < COMMON_COUNT; i++)
		if (key_is(&kv->key, commons[i].name))
			return args_common(c, &commons[i], &kv->val, e);
	return args_unknown(m, &kv->key, e);
}

int args_read(struct call *c, struct rv_error *e)
{
	const msgpack_object_map *params = &c->params->via.map;
	const struct schema_method *m = c->method;

	assert(m->arg_count <= CALL_MAX_ARGS);
	for (uint32_t i = 0; i < params->size; i++) {
		int rc = args_pair(c, &params->ptr[i], e);

		if (rc)
			return rc;
	}
	for (int i = 0; i < m->arg_count; i++)
		if (m->args[i].required && c->args[i].type == VALUE_NULL &&
			!c->records[i])
			return rv_error_set(e, RV_EPARAM,
				"%s.%s needs the parameter '%s': %s", m->group, m->name,
				m->args[i].name, m->args[i].doc);
	return args_ranges(c, e);
}

int args_field_value(const struct db *db, const struct schema_field *f,
	const msgpack_object *o, struct value *out, struct rv_error *e)
{
	int rc = value_unpack(out, f->type, o, e);

	if (rc) {
		rv_error_prefix(e, "%s.%s", schema_class(f->cls)->name, f->name);
		return rc;
	}
	rc = schema_check_value(f, out, e);
	if (rc)
		goto fail;
	if (f->type == VALUE_REF && f->ref != REF_FREE && !value_is_zero(out) &&
		f->ref_class != CLASS_NONE &&
		!db_row(db, f->ref_class, value_get_ref(out))) {
		char text[UUID_TEXT_SIZE];
		struct uuid ref = value_get_ref(out);

		rc = rv_error_set(e, RV_ENOENT, "%s.%s: there is no %s %s",
			schema_class(f->cls)->name, f->name,
			schema_class(f->ref_class)->name, uuid_format(&ref, text));
		goto fail;
	}
	return 0;
fail:
	value_fini(out);
	return rc;
}
