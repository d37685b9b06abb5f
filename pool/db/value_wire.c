/* Values as msgpack. */
#include "pool/db/value.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/limits.h"
#include "pool/db/value_parts.h"

static void pack_str(msgpack_packer *pk, const char *text, size_t len)
{
	msgpack_pack_str(pk, len);
	msgpack_pack_str_body(pk, text, len);
}

static void pack_text(msgpack_packer *pk, const struct value_text *t)
{
	pack_str(pk, t ? t->bytes : "", t ? t->len : 0);
}

static void pack_ref(msgpack_packer *pk, const struct uuid *ref, enum value_wire wire)
{
	bool none = uuid_is_none(ref);
	char text[UUID_TEXT_SIZE];

	if (wire == VALUE_WIRE_STORE) {
		msgpack_pack_bin(pk, none ? 0 : sizeof ref->b);
		if (!none)
			msgpack_pack_bin_body(pk, ref->b, sizeof ref->b);
		return;
	}
	pack_str(pk, uuid_format(ref, text), none ? 0 : UUID_TEXT_LEN);
}

void value_pack(const struct value *v, msgpack_packer *pk, enum value_wire wire)
{
	size_t count;

	switch (v->type) {
	case VALUE_NULL:
		msgpack_pack_nil(pk);
		return;
	case VALUE_BOOL:
		if (v->u.b)
			msgpack_pack_true(pk);
		else
			msgpack_pack_false(pk);
		return;
	case VALUE_INT:
	case VALUE_TIME:
		msgpack_pack_int64(pk, v->u.i);
		return;
	case VALUE_FLOAT:
		msgpack_pack_double(pk, v->u.f);
		return;
	case VALUE_STRING:
		pack_text(pk, v->u.text);
		return;
	case VALUE_REF:
		pack_ref(pk, &v->u.ref, wire);
		return;
	case VALUE_STRING_SET:
	case VALUE_STRING_MAP:
		count = value_count(v);
		if (v->type == VALUE_STRING_SET)
			msgpack_pack_array(pk, count);
		else
			msgpack_pack_map(pk, count);
		for (size_t i = 0; v->u.list && i < v->u.list->count; i++)
			pack_text(pk, v->u.list->items[i]);
		return;
	case VALUE_REF_SET:
		count = value_count(v);
		msgpack_pack_array(pk, count);
		for (size_t i = 0; i < count; i++)
			pack_ref(pk, &v->u.refs->items[i], wire);
		return;
	case VALUE_TYPES:
		break;
	}
	assert(!"a value type");
}

int value_sink_write(void *sink, const char *data, size_t len)
{
	struct value_sink *s = sink;

	if (s->rc == 0)
		s->rc = buf_append(s->out, data, len);
	return s->rc;
}

int value_pack_buf(const struct value *v, struct buf *out, enum value_wire wire)
{
	struct value_sink sink = {.out = out};
	size_t before = buf_len(out);
	msgpack_packer pk;

	msgpack_packer_init(&pk, &sink, value_sink_write);
	value_pack(v, &pk, wire);
	if (sink.rc)
		out->end = out->start + before;
	return sink.rc;
}

/* ---- decoding ---- */

static const char *object_name(const msgpack_object *o)
{
	switch (o->type) {
	case MSGPACK_OBJECT_NIL:
		return "nil";
	case MSGPACK_OBJECT_BOOLEAN:
		return "a boolean";
	case MSGPACK_OBJECT_POSITIVE_INTEGER:
	case MSGPACK_OBJECT_NEGATIVE_INTEGER:
		return "an integer";
	case MSGPACK_OBJECT_FLOAT32:
	case MSGPACK_OBJECT_FLOAT64:
		return "a float";
	case MSGPACK_OBJECT_STR:
		return "a string";
	case MSGPACK_OBJECT_ARRAY:
		return "an array";
	case MSGPACK_OBJECT_MAP:
		return "a map";
	case MSGPACK_OBJECT_BIN:
		return "bytes";
	default:
		return "an extension";
	}
}

static int mismatch(enum value_type type, const msgpack_object *o, struct rv_error *e)
{
	const char *wanted = value_type_name(type);

	return rv_error_set(e, RV_EPARAM, "expected %s %s, got %s",
		strchr("aeiou", wanted[0]) ? "an" : "a", wanted, object_name(o));
}

static int text_error(int rc, size_t len, struct rv_error *e)
{
	if (rc == RV_ETOOBIG)
		return rv_error_set(e, rc, "a string of %zu bytes; at most %d are taken",
			len, RV_MAX_STRING_BYTES);
	if (rc == RV_EINVAL)
		return rv_error_set(
			e, RV_EPARAM, "a string that is not UTF-8, or holds NUL");
	return rv_error_set(e, rc, "%s", rv_error_text(rc));
}

static int unpack_int(int64_t *out, const msgpack_object *o)
{
	if (o->type == MSGPACK_OBJECT_POSITIVE_INTEGER) {
		if (o->via.u64 > INT64_MAX)
			return RV_EPARAM;
		*out = (int64_t)o->via.u64;
		return 0;
	}
	if (o->type != MSGPACK_OBJECT_NEGATIVE_INTEGER)
		return RV_EPARAM;
	*out = o->via.i64;
	return 0;
}

static int unpack_ref(struct uuid *out, const msgpack_object *o, struct rv_error *e)
{
	*out = UUID_NONE;
	switch (o->type) {
	case MSGPACK_OBJECT_NIL:
		return 0;
	case MSGPACK_OBJECT_BIN:
		if (o->via.bin.size == 0)
			return 0;
		if (o->via.bin.size != sizeof out->b)
			return rv_error_set(e, RV_EPARAM, "a UUID of %u bytes, not 16",
				o->via.bin.size);
		memcpy(out->b, o->via.bin.ptr, sizeof out->b);
		return 0;
	case MSGPACK_OBJECT_STR:
		if (o->via.str.size == 0)
			return 0;
		if (uuid_parse(out, o->via.str.ptr, o->via.str.size))
			return rv_error_set(e, RV_EPARAM, "\"%.*s\" is not a UUID",
				o->via.str.size > 64 ? 64 : (int)o->via.str.size,
				o->via.str.ptr);
		return 0;
	default:
		return mismatch(VALUE_REF, o, e);
	}
}

static int unpack_set(struct value *out, const msgpack_object *o, struct rv_error *e)
{
	for (uint32_t i = 0; i < o->via.array.size; i++) {
		const msgpack_object *item = &o->via.array.ptr[i];
		int rc;

		if (item->type != MSGPACK_OBJECT_STR)
			return mismatch(VALUE_STRING, item, e);
		rc = value_set_add(out, item->via.str.ptr, item->via.str.size);
		if (rc)
			return text_error(rc, item->via.str.size, e);
	}
	return 0;
}

static int unpack_refs(struct value *out, const msgpack_object *o, struct rv_error *e)
{
	for (uint32_t i = 0; i < o->via.array.size; i++) {
		struct uuid ref;
		int rc = unpack_ref(&ref, &o->via.array.ptr[i], e);

		if (rc)
			return rc;
		if (uuid_is_none(&ref))
			return rv_error_set(
				e, RV_EPARAM, "a set of refs holds an empty one");
		rc = value_refs_add(out, ref);
		if (rc)
			return rv_error_set(e, rc, "%s", rv_error_text(rc));
	}
	return 0;
}

static int unpack_map(struct value *out, const msgpack_object *o, struct rv_error *e)
{
	for (uint32_t i = 0; i < o->via.map.size; i++) {
		const msgpack_object *key = &o->via.map.ptr[i].key;
		const msgpack_object *val = &o->via.map.ptr[i].val;
		int rc;

		if (key->type != MSGPACK_OBJECT_STR)
			return mismatch(VALUE_STRING, key, e);
		if (val->type != MSGPACK_OBJECT_STR)
			return mismatch(VALUE_STRING, val, e);
		rc = value_map_put(out, key->via.str.ptr, key->via.str.size,
			val->via.str.ptr, val->via.str.size);
		if (rc)
			return text_error(rc,
				key->via.str.size > val->via.str.size ? key->via.str.size
								      : val->via.str.size,
				e);
	}
	return 0;
}

/* Sets and maps: the number of elements is checked before any is looked at. */
static int unpack_many(struct value *out, enum value_type type, const msgpack_object *o,
	struct rv_error *e)
{
	bool map = type == VALUE_STRING_MAP;
	uint32_t count;
	int rc;

	if (o->type != (map ? MSGPACK_OBJECT_MAP : MSGPACK_OBJECT_ARRAY))
		return mismatch(type, o, e);
	count = map ? o->via.map.size : o->via.array.size;
	if (count > RV_MAX_SET_ELEMENTS)
		return rv_error_set(e, RV_ETOOBIG,
			"a %s of %u elements; at most %d are taken",
			value_type_name(type), count, RV_MAX_SET_ELEMENTS);
	*out = value_zero(type);
	rc = map			? unpack_map(out, o, e)
	     : type == VALUE_STRING_SET ? unpack_set(out, o, e)
					: unpack_refs(out, o, e);
	if (rc)
		value_fini(out);
	return rc;
}

static int unpack_float(double *out, const msgpack_object *o)
{
	int64_t i;

	if (o->type == MSGPACK_OBJECT_FLOAT32 || o->type == MSGPACK_OBJECT_FLOAT64) {
		*out = o->via.f64;
		return isfinite(*out) ? 0 : RV_EPARAM;
	}
	if (unpack_int(&i, o))
		return RV_EPARAM;
	*out = (double)i;
	return 0;
}

int value_unpack(struct value *out, enum value_type type, const msgpack_object *o,
	struct rv_error *e)
{
	struct uuid ref;
	int64_t i;
	double f;
	int rc;

	*out = (struct value){0};
	switch (type) {
	case VALUE_BOOL:
		if (o->type != MSGPACK_OBJECT_BOOLEAN)
			return mismatch(type, o, e);
		*out = value_bool(o->via.boolean);
		return 0;
	case VALUE_INT:
	case VALUE_TIME:
		if (unpack_int(&i, o))
			return mismatch(type, o, e);
		*out = (struct value){.type = type, .u.i = i};
		return 0;
	case VALUE_FLOAT:
		if (unpack_float(&f, o))
			return mismatch(type, o, e);
		*out = value_float(f);
		return 0;
	case VALUE_STRING:
		if (o->type != MSGPACK_OBJECT_STR)
			return mismatch(type, o, e);
		rc = value_from_text(out, o->via.str.ptr, o->via.str.size);
		return rc ? text_error(rc, o->via.str.size, e) : 0;
	case VALUE_REF:
		rc = unpack_ref(&ref, o, e);
		if (rc == 0)
			*out = value_ref(ref);
		return rc;
	case VALUE_STRING_SET:
	case VALUE_REF_SET:
	case VALUE_STRING_MAP:
		return unpack_many(out, type, o, e);
	case VALUE_NULL:
	case VALUE_TYPES:
		break;
	}
	return rv_error_set(e, RV_EPARAM, "a %s can't be given", value_type_name(type));
}
