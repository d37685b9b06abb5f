/* Rows: immutable versions of an object's fields. */
#include "pool/db/store.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/limits.h"
#include "base/mpcheck.h"

static struct row *row_alloc(enum schema_class_id cls, struct uuid uuid)
{
	size_t count = (size_t)schema_class(cls)->field_count;
	struct row *row = calloc(1, sizeof *row + count * sizeof row->values[0]);

	if (row) {
		row->refs = 1;
		row->cls = cls;
		row->uuid = uuid;
		uuid_format(&uuid, row->uuid_text);
	}
	return row;
}

struct row *row_new(const struct db *db, enum schema_class_id cls, struct uuid uuid)
{
	const struct schema_class *c = schema_class(cls);
	struct row *row = row_alloc(cls, uuid);

	if (!row)
		return NULL;
	for (int i = 0; i < c->field_count; i++)
		row->values[i] = value_copy(&db->layout->defaults[cls][i]);
	row->values[0] = value_ref(uuid);
	return row;
}

struct row *row_copy(const struct row *old)
{
	int count = schema_class(old->cls)->field_count;
	struct row *row = row_alloc(old->cls, old->uuid);

	if (!row)
		return NULL;
	for (int i = 0; i < count; i++)
		row->values[i] = value_copy(&old->values[i]);
	row->seq = old->seq;
	row->created_seq = old->created_seq;
	row->hash = old->hash;
	row->extra = old->extra;
	if (row->extra)
		row->extra->refs++;
	return row;
}

const struct row *row_hold(const struct row *row)
{
	((struct row *)row)->refs++;
	return row;
}

static void extra_release(struct row_extra *extra)
{
	if (extra && --extra->refs == 0)
		free(extra);
}

void row_release(const struct row *borrowed)
{
	struct row *row = (struct row *)borrowed;

	if (!row || --row->refs > 0)
		return;
	for (int i = 0; i < schema_class(row->cls)->field_count; i++)
		value_fini(&row->values[i]);
	extra_release(row->extra);
	free(row->record);
	free(row);
}

void row_drop_record(struct row *row)
{
	free(row->record);
	row->record = NULL;
	row->record_len = 0;
}

bool row_same(const struct row *a, const struct row *b)
{
	const struct schema_class *c = schema_class(a->cls);

	assert(a->cls == b->cls);
	if (a->hash.lo != b->hash.lo || a->hash.hi != b->hash.hi)
		return false;
	for (int i = 0; i < c->field_count; i++)
		if (field_is_stored(&c->fields[i]) &&
			!value_eq(&a->values[i], &b->values[i]))
			return false;
	return true;
}

/* ---- the stored form ---- */

/* One (tag, value) pair of the unknown fields at `at`; returns where the next begins. */
static size_t extra_next(
	const struct row_extra *x, size_t at, uint64_t *tag, size_t *value_at)
{
	msgpack_object key;
	msgpack_zone zone;
	size_t used, off = 0;

	/* Bytes of our own making: they have been checked when they came in. */
	used = 0;
	if (mpcheck_prefix(x->bytes + at, x->len - at, &used, NULL))
		assert(!"extra fields are well-formed");
	if (!msgpack_zone_init(&zone, 64))
		return x->len;
	*tag = 0;
	if (msgpack_unpack((const char *)x->bytes + at, used, &off, &zone, &key) >= 0 &&
		key.type == MSGPACK_OBJECT_POSITIVE_INTEGER)
		*tag = key.via.u64;
	msgpack_zone_destroy(&zone);
	*value_at = at + used;
	if (mpcheck_prefix(x->bytes + *value_at, x->len - *value_at, &used, NULL))
		assert(!"extra fields are well-formed");
	return *value_at + used;
}

/* Whether the field's value is put down: absent means default. */
static bool field_counts(
	const struct db *db, const struct row *row, const struct schema_field *f)
{
	return field_is_stored(f) && !value_eq(&row->values[f->index],
					     &db->layout->defaults[row->cls][f->index]);
}

static void pack_extras_below(msgpack_packer *pk, struct value_sink *sink,
	const struct row_extra *x, size_t *at, uint64_t limit)
{
	while (x && *at < x->len) {
		uint64_t tag;
		size_t value_at, next = extra_next(x, *at, &tag, &value_at);

		if (tag >= limit)
			return;
		msgpack_pack_uint64(pk, tag);
		if (sink->rc == 0)
			sink->rc = buf_append(
				sink->out, x->bytes + value_at, next - value_at);
		*at = next;
	}
}

int row_pack(const struct db *db, const struct row *row, struct buf *out)
{
	const struct schema_class *c = schema_class(row->cls);
	struct value_sink sink = {.out = out};
	size_t before = buf_len(out), extra_at = 0;
	uint32_t count = row->extra ? row->extra->count : 0;
	msgpack_packer pk;

	for (int i = 0; i < c->field_count; i++)
		count += field_counts(db, row, &c->fields[i]);
	msgpack_packer_init(&pk, &sink, value_sink_write);
	msgpack_pack_map(&pk, count);
	for (int i = 0; i < c->field_count; i++) {
		if (!field_counts(db, row, &c->fields[i]))
			continue;
		pack_extras_below(&pk, &sink, row->extra, &extra_at, c->fields[i].tag);
		msgpack_pack_uint16(&pk, c->fields[i].tag);
		value_pack(&row->values[i], &pk, VALUE_WIRE_STORE);
	}
	pack_extras_below(&pk, &sink, row->extra, &extra_at, UINT64_MAX);
	if (sink.rc == 0 && buf_len(out) - before > DB_MAX_ROW_BYTES)
		sink.rc = RV_ETOOBIG;
	if (sink.rc)
		out->end = out->start + before;
	return sink.rc;
}

int row_seal(const struct db *db, struct row *row, struct buf *scratch)
{
	XXH128_hash_t hash;
	uint64_t seed;
	int rc;

	buf_consume(scratch, buf_len(scratch));
	rc = buf_append(scratch, row->uuid.b, sizeof row->uuid.b);
	if (rc == 0)
		rc = row_pack(db, row, scratch);
	if (rc)
		return rc;
	seed = schema_class(row->cls)->tag;
	hash = XXH3_128bits_withSeed(buf_data(scratch), buf_len(scratch), seed);
	row->hash = (struct db_hash){.hi = hash.high64, .lo = hash.low64};
	return 0;
}

/* Copies the pairs of `x` whose tag is not `tag`, the new pair in its place. */
static int extra_merge(struct buf *b, const struct row_extra *x, uint64_t tag,
	const uint8_t *bytes, size_t len, uint32_t *count)
{
	struct value_sink sink = {.out = b};
	msgpack_packer pk;
	size_t at = 0;

	msgpack_packer_init(&pk, &sink, value_sink_write);
	pack_extras_below(&pk, &sink, x, &at, tag);
	msgpack_pack_uint64(&pk, tag);
	if (sink.rc == 0)
		sink.rc = buf_append(b, bytes, len);
	*count = (x ? x->count : 0) + 1;
	if (x && at < x->len) {
		uint64_t there;
		size_t value_at, next = extra_next(x, at, &there, &value_at);

		if (there == tag) {
			at = next;
			(*count)--;
		}
	}
	pack_extras_below(&pk, &sink, x, &at, UINT64_MAX);
	return sink.rc;
}

int row_set_extra(struct row *row, uint64_t tag, const uint8_t *bytes, size_t len)
{
	struct row_extra *x;
	struct buf b;
	uint32_t count;
	int rc;

	buf_init(&b, 2 * DB_MAX_ROW_BYTES + RV_MAX_ENTRY_BYTES);
	rc = extra_merge(&b, row->extra, tag, bytes, len, &count);
	if (rc)
		goto out;
	rc = RV_ENOMEM;
	x = malloc(sizeof *x + buf_len(&b));
	if (!x)
		goto out;
	x->refs = 1;
	x->count = count;
	x->len = buf_len(&b);
	memcpy(x->bytes, buf_data(&b), x->len);
	extra_release(row->extra);
	row->extra = x;
	rc = 0;
out:
	buf_fini(&b);
	return rc;
}

struct db_hash hash_add(struct db_hash a, struct db_hash b)
{
	struct db_hash sum = {.lo = a.lo + b.lo};

	sum.hi = a.hi + b.hi + (sum.lo < a.lo);
	return sum;
}

struct db_hash hash_sub(struct db_hash a, struct db_hash b)
{
	struct db_hash rest = {.lo = a.lo - b.lo};

	rest.hi = a.hi - b.hi - (a.lo < b.lo);
	return rest;
}

/* ---- reading ---- */

struct uuid row_uuid(const struct row *row)
{
	return row->uuid;
}

enum schema_class_id row_class(const struct row *row)
{
	return row->cls;
}

const char *row_name(const struct row *row)
{
	const struct schema_field *f = schema_name_field(schema_class(row->cls));

	if (f && value_string_len(&row->values[f->index]) > 0)
		return value_get_string(&row->values[f->index]);
	return row->uuid_text;
}

uint64_t row_seq(const struct row *row)
{
	return row->seq;
}

const struct value *row_value(const struct row *row, enum schema_field_id field)
{
	const struct schema_field *f = schema_field(field);

	assert(f->cls == row->cls && f->ref != REF_BACK);
	return &row->values[f->index];
}

bool db_bool(const struct row *row, enum schema_field_id field)
{
	return value_get_bool(row_value(row, field));
}

int64_t db_int(const struct row *row, enum schema_field_id field)
{
	return value_get_int(row_value(row, field));
}

double db_float(const struct row *row, enum schema_field_id field)
{
	return value_get_float(row_value(row, field));
}

const char *db_string(const struct row *row, enum schema_field_id field)
{
	return value_get_string(row_value(row, field));
}

struct uuid db_ref(const struct row *row, enum schema_field_id field)
{
	return value_get_ref(row_value(row, field));
}

int db_enum(const struct row *row, enum schema_field_id field)
{
	const struct schema_field *f = schema_field(field);
	int value;

	assert(f->enum_texts);
	value = schema_enum_value(f->enum_texts, db_string(row, field));
	assert(value >= 0);
	return value;
}

const char *db_map_get(const struct row *row, enum schema_field_id field, const char *key)
{
	return value_map_get(row_value(row, field), key);
}
