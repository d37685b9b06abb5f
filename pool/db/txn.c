#include "pool/db/txn.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/limits.h"
#include "pool/db/entry.h"
#include "pool/db/layout.h"

enum {
	TXN_MEASURE_BYTES = 1 << 30,
	TXN_HEAD_BYTES = 64, /* at most, of what stands around the clauses */
};

void txn_init(struct txn *t, const struct db *db, int64_t wall_ms)
{
	*t = (struct txn){.level = db ? db_level(db) : 1, .needs = 1, .wall_ms = wall_ms};
	buf_init(&t->expect_bytes, RV_MAX_ENTRY_BYTES);
	buf_init(&t->effect_bytes, RV_MAX_ENTRY_BYTES);
	buf_init(&t->entry, RV_MAX_ENTRY_BYTES);
}

void txn_measure(struct txn *t)
{
	t->expect_bytes.cap = t->effect_bytes.cap = TXN_MEASURE_BYTES;
}

static void txn_drop_pending(struct txn *t)
{
	for (int i = 0; t->fields && i < schema_class(t->pending)->field_count; i++)
		value_fini(&t->fields[i]);
	free(t->fields);
	t->fields = NULL;
	t->pending = CLASS_NONE;
	t->creating = false;
}

void txn_fini(struct txn *t)
{
	txn_drop_pending(t);
	buf_fini(&t->expect_bytes);
	buf_fini(&t->effect_bytes);
	buf_fini(&t->entry);
}

unsigned txn_expect_count(const struct txn *t)
{
	return t->expects;
}

bool txn_is_empty(const struct txn *t)
{
	return t->effects == 0 && !t->fields;
}

static void txn_fail(struct txn *t, int rc, const char *what)
{
	if (t->error.code)
		return;
	if (rc == RV_ETOOBIG)
		rv_error_set(&t->error, rc,
			"a transaction of more than %d bytes: do it in several",
			RV_MAX_ENTRY_BYTES);
	else
		rv_error_set(&t->error, rc, "%s", what);
}

/* ---- packing ---- */

struct clause_out {
	struct value_sink sink;
	msgpack_packer pk;
};

static void clause_begin(struct clause_out *c, struct txn *t, struct buf *b, int kind,
	uint32_t parts, enum schema_class_id cls)
{
	c->sink = (struct value_sink){.out = b, .rc = t->error.code};
	msgpack_packer_init(&c->pk, &c->sink, value_sink_write);
	msgpack_pack_array(&c->pk, parts);
	msgpack_pack_int(&c->pk, kind);
	msgpack_pack_uint16(&c->pk, schema_class(cls)->tag);
	if (schema_class(cls)->since > t->needs)
		t->needs = schema_class(cls)->since;
}

static void clause_uuid(struct clause_out *c, struct uuid uuid)
{
	msgpack_pack_bin(&c->pk, sizeof uuid.b);
	msgpack_pack_bin_body(&c->pk, uuid.b, sizeof uuid.b);
}

static void clause_text(struct clause_out *c, const char *text)
{
	size_t len = strlen(text);

	msgpack_pack_str(&c->pk, len);
	msgpack_pack_str_body(&c->pk, text, len);
}

static void clause_end(struct clause_out *c, struct txn *t, uint32_t *count)
{
	if (c->sink.rc)
		txn_fail(t, c->sink.rc, rv_error_text(c->sink.rc));
	else
		++*count;
}

/* Whether the field may stand in an entry of the pool's present level. */
static bool txn_takes(struct txn *t, const struct schema_field *f)
{
	if (!field_is_stored(f)) {
		if (!t->error.code)
			rv_error_set(&t->error, RV_EPARAM, "%s.%s is not kept in the log",
				schema_class(f->cls)->name, f->name);
		return false;
	}
	if (f->since > t->level) {
		if (!t->error.code)
			rv_error_set(&t->error, RV_EUNSUPPORTED,
				"%s.%s needs pool level %u, the pool has %u: update all "
				"hosts",
				schema_class(f->cls)->name, f->name, f->since, t->level);
		return false;
	}
	if (f->since > t->needs)
		t->needs = f->since;
	return true;
}

/* ---- the pending object ---- */

static void txn_flush(struct txn *t)
{
	const struct schema_class *c;
	struct clause_out out;
	uint32_t count = 0;

	if (!t->fields)
		return;
	c = schema_class(t->pending);
	for (int i = 0; i < c->field_count; i++)
		count += t->fields[i].type != VALUE_NULL;
	clause_begin(&out, t, &t->effect_bytes, t->creating ? EFFECT_CREATE : EFFECT_SET,
		4, t->pending);
	clause_uuid(&out, t->pending_uuid);
	msgpack_pack_map(&out.pk, count);
	for (int i = 0; i < c->field_count; i++) {
		if (t->fields[i].type == VALUE_NULL)
			continue;
		msgpack_pack_uint16(&out.pk, c->fields[i].tag);
		value_pack(&t->fields[i], &out.pk, VALUE_WIRE_STORE);
	}
	clause_end(&out, t, &t->effects);
	txn_drop_pending(t);
}

static bool txn_open(struct txn *t, enum schema_class_id cls, struct uuid uuid)
{
	txn_flush(t);
	t->fields = calloc((size_t)schema_class(cls)->field_count, sizeof t->fields[0]);
	if (!t->fields) {
		txn_fail(t, RV_ENOMEM, "out of memory");
		return false;
	}
	t->pending = cls;
	t->pending_uuid = uuid;
	return true;
}

void txn_create(struct txn *t, enum schema_class_id cls, struct uuid uuid)
{
	const struct schema_class *c = schema_class(cls);

	if (t->error.code || !txn_open(t, cls, uuid))
		return;
	t->creating = true;
	for (int i = 0; i < c->field_count; i++) {
		const struct schema_field *f = &c->fields[i];

		if (!field_is_stored(f) || f->since > t->level)
			continue;
		if (f->since > t->needs)
			t->needs = f->since;
		if (schema_initial(f, &t->fields[i]))
			txn_fail(t, RV_ENOMEM, "out of memory");
	}
}

void txn_set_value(struct txn *t, struct uuid uuid, enum schema_field_id field,
	const struct value *v)
{
	const struct schema_field *f = schema_field(field);
	struct rv_error e;

	if (t->error.code || !txn_takes(t, f))
		return;
	rv_error_clear(&e);
	if (schema_check_value(f, v, &e)) {
		t->error = e;
		return;
	}
	/* The entry that raises the level is understood by hosts of that level only. */
	if (field == POOL_LEVEL && value_get_int(v) > t->needs)
		t->needs = (unsigned)value_get_int(v);
	if (!t->fields || t->pending != f->cls || !uuid_eq(&t->pending_uuid, &uuid)) {
		if (!txn_open(t, f->cls, uuid))
			return;
	}
	value_fini(&t->fields[f->index]);
	t->fields[f->index] = value_copy(v);
}

void txn_delete(struct txn *t, enum schema_class_id cls, struct uuid uuid)
{
	struct clause_out out;

	txn_flush(t);
	clause_begin(&out, t, &t->effect_bytes, EFFECT_DELETE, 3, cls);
	clause_uuid(&out, uuid);
	clause_end(&out, t, &t->effects);
}

/* ---- effects by type ---- */

void txn_set_bool(struct txn *t, struct uuid uuid, enum schema_field_id field, bool b)
{
	struct value v = value_bool(b);

	txn_set_value(t, uuid, field, &v);
}

void txn_set_int(struct txn *t, struct uuid uuid, enum schema_field_id field, int64_t i)
{
	struct value v = value_int(i);

	txn_set_value(t, uuid, field, &v);
}

void txn_set_float(struct txn *t, struct uuid uuid, enum schema_field_id field, double f)
{
	struct value v = value_float(f);

	txn_set_value(t, uuid, field, &v);
}

void txn_set_time(struct txn *t, struct uuid uuid, enum schema_field_id field, int64_t ms)
{
	struct value v = value_time(ms);

	txn_set_value(t, uuid, field, &v);
}

void txn_set_ref(
	struct txn *t, struct uuid uuid, enum schema_field_id field, struct uuid ref)
{
	struct value v = value_ref(ref);

	txn_set_value(t, uuid, field, &v);
}

/* A text as a value; false: the transaction has failed. */
static bool txn_text(
	struct txn *t, enum schema_field_id field, const char *text, struct value *v)
{
	const struct schema_field *f = schema_field(field);
	int rc;

	if (t->error.code)
		return false;
	rc = value_from_cstr(v, text);
	if (rc == 0)
		return true;
	rv_error_set(&t->error, rc == RV_EINVAL ? RV_EPARAM : rc, "%s.%s: %s",
		schema_class(f->cls)->name, f->name,
		rc == RV_EINVAL	   ? "the text is not UTF-8"
		: rc == RV_ETOOBIG ? "the text is longer than 64 KiB"
				   : rv_error_text(rc));
	return false;
}

void txn_set_string(
	struct txn *t, struct uuid uuid, enum schema_field_id field, const char *text)
{
	struct value v;

	if (!txn_text(t, field, text, &v))
		return;
	txn_set_value(t, uuid, field, &v);
	value_fini(&v);
}

static const char *enum_text(enum schema_field_id field, int value)
{
	assert(schema_field(field)->enum_texts);
	return schema_enum_text(schema_field(field)->enum_texts, value);
}

void txn_set_enum(struct txn *t, struct uuid uuid, enum schema_field_id field, int value)
{
	txn_set_string(t, uuid, field, enum_text(field, value));
}

/* [kind, class, uuid, tag, text(, text)] for one element of a set or map. */
static void txn_element(struct txn *t, struct uuid uuid, enum schema_field_id field,
	enum value_type type, int kind, const char *first, const char *second)
{
	const struct schema_field *f = schema_field(field);
	struct value v = {0}, w = {0};
	struct clause_out out;

	assert(f->type == type);
	if (t->error.code || !txn_takes(t, f))
		return;
	txn_flush(t);
	if (!txn_text(t, field, first, &v))
		return;
	if (!second || txn_text(t, field, second, &w)) {
		clause_begin(&out, t, &t->effect_bytes, kind, second ? 6 : 5, f->cls);
		clause_uuid(&out, uuid);
		msgpack_pack_uint16(&out.pk, f->tag);
		value_pack(&v, &out.pk, VALUE_WIRE_STORE);
		if (second)
			value_pack(&w, &out.pk, VALUE_WIRE_STORE);
		clause_end(&out, t, &t->effects);
	}
	value_fini(&v);
	value_fini(&w);
}

void txn_set_add(
	struct txn *t, struct uuid uuid, enum schema_field_id field, const char *element)
{
	txn_element(t, uuid, field, VALUE_STRING_SET, EFFECT_ADD, element, NULL);
}

void txn_set_remove(
	struct txn *t, struct uuid uuid, enum schema_field_id field, const char *element)
{
	txn_element(t, uuid, field, VALUE_STRING_SET, EFFECT_REMOVE, element, NULL);
}

void txn_map_put(struct txn *t, struct uuid uuid, enum schema_field_id field,
	const char *key, const char *value)
{
	txn_element(t, uuid, field, VALUE_STRING_MAP, EFFECT_PUT, key, value);
}

void txn_map_remove(
	struct txn *t, struct uuid uuid, enum schema_field_id field, const char *key)
{
	txn_element(t, uuid, field, VALUE_STRING_MAP, EFFECT_REMOVE, key, NULL);
}

/* ---- expectations ---- */

static void txn_expect_object(
	struct txn *t, int kind, enum schema_class_id cls, struct uuid uuid)
{
	struct clause_out out;

	clause_begin(&out, t, &t->expect_bytes, kind, 3, cls);
	clause_uuid(&out, uuid);
	clause_end(&out, t, &t->expects);
}

void txn_expect_exists(struct txn *t, enum schema_class_id cls, struct uuid uuid)
{
	txn_expect_object(t, EXPECT_EXISTS, cls, uuid);
}

void txn_expect_absent(struct txn *t, enum schema_class_id cls, struct uuid uuid)
{
	txn_expect_object(t, EXPECT_ABSENT, cls, uuid);
}

void txn_expect_name_free(struct txn *t, enum schema_class_id cls, const char *name)
{
	struct clause_out out;
	struct value v;

	if (!txn_text(t, schema_class(cls)->fields[0].id, name, &v))
		return;
	value_fini(&v);
	clause_begin(&out, t, &t->expect_bytes, EXPECT_NAME_FREE, 3, cls);
	clause_text(&out, name);
	clause_end(&out, t, &t->expects);
}

static void txn_expect_field(struct txn *t, int kind, struct uuid uuid,
	enum schema_field_id field, const struct value *v)
{
	const struct schema_field *f = schema_field(field);
	struct clause_out out;

	assert(v->type == f->type);
	if (t->error.code || !txn_takes(t, f))
		return;
	clause_begin(&out, t, &t->expect_bytes, kind, 5, f->cls);
	clause_uuid(&out, uuid);
	msgpack_pack_uint16(&out.pk, f->tag);
	value_pack(v, &out.pk, VALUE_WIRE_STORE);
	clause_end(&out, t, &t->expects);
}

void txn_expect_value(struct txn *t, struct uuid uuid, enum schema_field_id field,
	const struct value *v)
{
	txn_expect_field(t, EXPECT_VALUE, uuid, field, v);
}

void txn_expect_not(struct txn *t, struct uuid uuid, enum schema_field_id field,
	const struct value *v)
{
	txn_expect_field(t, EXPECT_NOT, uuid, field, v);
}

void txn_expect_bool(struct txn *t, struct uuid uuid, enum schema_field_id field, bool b)
{
	struct value v = value_bool(b);

	txn_expect_value(t, uuid, field, &v);
}

void txn_expect_int(
	struct txn *t, struct uuid uuid, enum schema_field_id field, int64_t i)
{
	struct value v = value_int(i);

	txn_expect_value(t, uuid, field, &v);
}

void txn_expect_string(
	struct txn *t, struct uuid uuid, enum schema_field_id field, const char *text)
{
	struct value v;

	if (!txn_text(t, field, text, &v))
		return;
	txn_expect_value(t, uuid, field, &v);
	value_fini(&v);
}

void txn_expect_enum(
	struct txn *t, struct uuid uuid, enum schema_field_id field, int value)
{
	txn_expect_string(t, uuid, field, enum_text(field, value));
}

void txn_expect_ref(
	struct txn *t, struct uuid uuid, enum schema_field_id field, struct uuid ref)
{
	struct value v = value_ref(ref);

	txn_expect_value(t, uuid, field, &v);
}

void txn_expect_unset(struct txn *t, struct uuid uuid, enum schema_field_id field)
{
	struct value v = value_zero(schema_field(field)->type);

	txn_expect_value(t, uuid, field, &v);
}

void txn_expect_key_absent(
	struct txn *t, struct uuid uuid, enum schema_field_id field, const char *key)
{
	const struct schema_field *f = schema_field(field);
	struct clause_out out;
	struct value v;

	if (t->error.code || !txn_takes(t, f) || !txn_text(t, field, key, &v))
		return;
	value_fini(&v);
	clause_begin(&out, t, &t->expect_bytes, EXPECT_KEY_ABSENT, 5, f->cls);
	clause_uuid(&out, uuid);
	msgpack_pack_uint16(&out.pk, f->tag);
	clause_text(&out, key);
	clause_end(&out, t, &t->expects);
}

void txn_expect_key(struct txn *t, struct uuid uuid, enum schema_field_id field,
	const char *key, const char *value)
{
	const struct schema_field *f = schema_field(field);
	struct clause_out out;
	struct value v;

	if (t->error.code || !txn_takes(t, f) || !txn_text(t, field, key, &v))
		return;
	value_fini(&v);
	if (value && !txn_text(t, field, value, &v))
		return;
	clause_begin(&out, t, &t->expect_bytes, EXPECT_KEY, 6, f->cls);
	clause_uuid(&out, uuid);
	msgpack_pack_uint16(&out.pk, f->tag);
	clause_text(&out, key);
	if (value)
		value_pack(&v, &out.pk, VALUE_WIRE_STORE);
	else
		msgpack_pack_nil(&out.pk);
	clause_end(&out, t, &t->expects);
	if (value)
		value_fini(&v);
}

void txn_check_hash(struct txn *t, const struct db *db)
{
	t->hash_seq = db_seq(db);
	t->hash = db_hash(db);
}

/* ---- the entry ---- */

static int txn_assemble(struct txn *t)
{
	struct value_sink sink = {.out = &t->entry};
	uint8_t head[ENTRY_HEAD_BYTES] = {0};
	msgpack_packer pk;
	uint64_t sum;

	buf_consume(&t->entry, buf_len(&t->entry));
	sink.rc = buf_append(&t->entry, head, sizeof head);
	msgpack_packer_init(&pk, &sink, value_sink_write);
	msgpack_pack_array(&pk, ENTRY_PARTS);
	msgpack_pack_int(&pk, DB_ENTRY_VERSION);
	msgpack_pack_unsigned_int(&pk, t->needs);
	msgpack_pack_int64(&pk, t->wall_ms < 0 ? 0 : t->wall_ms);
	msgpack_pack_array(&pk, t->expects);
	value_sink_write(&sink, (const char *)buf_data(&t->expect_bytes),
		buf_len(&t->expect_bytes));
	msgpack_pack_array(&pk, t->effects);
	value_sink_write(&sink, (const char *)buf_data(&t->effect_bytes),
		buf_len(&t->effect_bytes));
	msgpack_pack_array(&pk, t->hash_seq ? 3 : 0);
	if (t->hash_seq) {
		msgpack_pack_uint64(&pk, t->hash_seq);
		msgpack_pack_uint64(&pk, t->hash.hi);
		msgpack_pack_uint64(&pk, t->hash.lo);
	}
	if (sink.rc)
		return sink.rc;
	sum = XXH3_64bits(
		buf_data(&t->entry) + sizeof head, buf_len(&t->entry) - sizeof head);
	for (size_t i = 0; i < sizeof head; i++)
		buf_data(&t->entry)[i] = (uint8_t)(sum >> 8 * i);
	return 0;
}

size_t txn_size(struct txn *t)
{
	txn_flush(t);
	return buf_len(&t->expect_bytes) + buf_len(&t->effect_bytes) + TXN_HEAD_BYTES;
}

int txn_finish(struct txn *t, const uint8_t **entry, size_t *len, struct rv_error *e)
{
	int rc;

	txn_flush(t);
	rc = t->error.code ? 0 : txn_assemble(t);
	if (rc)
		txn_fail(t, rc, rv_error_text(rc));
	if (t->error.code) {
		if (e)
			*e = t->error;
		return t->error.code;
	}
	*entry = buf_data(&t->entry);
	*len = buf_len(&t->entry);
	return 0;
}
