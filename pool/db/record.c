/* Rows as clients see them, and live fields. */
#include "pool/db/db.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "pool/db/store.h"

enum { RECORD_MAX_BYTES = 64 << 20 };

/* Whoever names the row by field `f`->backref, collected and sorted. */
static int collect_back(const struct db *db, const struct row *row,
	const struct schema_field *f, struct value *out)
{
	const struct list *head;
	int rc = 0;

	*out = value_zero(VALUE_REF_SET);
	assert(row->object); /* only what is there now is named */
	head = store_head(db, row->object, f->backref);
	for (struct list *node = head->next; rc == 0 && node != head; node = node->next)
		rc = value_refs_add(out, link_owner(node)->uuid);
	if (rc)
		value_fini(out);
	return rc;
}

int db_backrefs(const struct db *db, const struct row *row, enum schema_field_id field,
	struct value *out)
{
	const struct schema_field *f = schema_field(field);

	assert(f->ref == REF_BACK && f->cls == row->cls);
	return collect_back(db, row, f, out);
}

static void pack_field(const struct db *db, const struct row *row,
	const struct schema_field *f, msgpack_packer *pk, struct value_sink *sink)
{
	struct value back;
	int rc;

	if (f->ref != REF_BACK) {
		value_pack(&row->values[f->index], pk, VALUE_WIRE_RPC);
		return;
	}
	rc = collect_back(db, row, f, &back);
	if (rc) {
		sink->rc = sink->rc ? sink->rc : rc;
		return;
	}
	value_pack(&back, pk, VALUE_WIRE_RPC);
	value_fini(&back);
}

int db_pack_field(const struct db *db, const struct row *row, enum schema_field_id field,
	struct buf *out)
{
	const struct schema_field *f = schema_field(field);
	struct value_sink sink = {.out = out};
	size_t before = buf_len(out);
	msgpack_packer pk;

	assert(f->cls == row->cls);
	msgpack_packer_init(&pk, &sink, value_sink_write);
	pack_field(db, row, f, &pk, &sink);
	if (sink.rc)
		out->end = out->start + before;
	return sink.rc;
}

static int pack_record(const struct db *db, const struct row *row, struct buf *out)
{
	const struct schema_class *c = schema_class(row->cls);
	struct value_sink sink = {.out = out};
	msgpack_packer pk;
	uint32_t count = 0;

	for (int i = 0; i < c->field_count; i++)
		count += !c->fields[i].secret;
	msgpack_packer_init(&pk, &sink, value_sink_write);
	msgpack_pack_map(&pk, count);
	for (int i = 0; i < c->field_count; i++) {
		const struct schema_field *f = &c->fields[i];

		if (f->secret)
			continue;
		msgpack_pack_str(&pk, f->name_len);
		msgpack_pack_str_body(&pk, f->name, f->name_len);
		pack_field(db, row, f, &pk, &sink);
	}
	return sink.rc;
}

const uint8_t *db_record(const struct db *db, const struct row *borrowed, size_t *len)
{
	struct row *row = (struct row *)borrowed; /* the cache is no part of the value */
	struct buf b;

	assert(row->object);
	if (!row->record) {
		buf_init(&b, RECORD_MAX_BYTES);
		if (pack_record(db, row, &b) == 0)
			row->record = malloc(buf_len(&b));
		if (row->record) {
			memcpy(row->record, buf_data(&b), buf_len(&b));
			row->record_len = buf_len(&b);
		}
		buf_fini(&b);
	}
	*len = row->record_len;
	return row->record;
}

int db_format_field(const struct db *db, const struct row *row,
	enum schema_field_id field, struct buf *out)
{
	const struct schema_field *f = schema_field(field);
	struct value back;
	int rc;

	assert(f->cls == row->cls);
	if (f->ref != REF_BACK)
		return value_format(&row->values[f->index], out);
	rc = collect_back(db, row, f, &back);
	if (rc)
		return rc;
	rc = value_format(&back, out);
	value_fini(&back);
	return rc;
}

/* ---- live fields ---- */

int db_set_live(struct db *db, struct uuid uuid, enum schema_field_id field,
	const struct value *v, struct rv_error *e)
{
	const struct schema_field *f = schema_field(field);
	char text[UUID_TEXT_SIZE];
	struct object *o;
	struct value *at;
	int rc;

	assert(f->live);
	o = store_find(db, uuid);
	if (!o || o->cls != f->cls)
		return rv_error_set(e, RV_ENOENT, "there is no %s %s",
			schema_class(f->cls)->name, uuid_format(&uuid, text));
	rc = schema_check_value(f, v, e);
	if (rc)
		return rc;
	at = &o->row->values[f->index];
	if (value_eq(at, v))
		return 0;
	value_fini(at);
	*at = value_copy(v);
	row_drop_record(o->row);
	o->live_count = ++db->live_count;
	list_remove(&o->in_live);
	list_push_back(&db->recent[1], &o->in_live);
	return 0;
}

int db_set_live_int(
	struct db *db, struct uuid uuid, enum schema_field_id field, int64_t i)
{
	struct value v = {.type = schema_field(field)->type, .u.i = i};

	assert(v.type == VALUE_INT || v.type == VALUE_TIME);
	return db_set_live(db, uuid, field, &v, NULL);
}

int db_set_live_float(
	struct db *db, struct uuid uuid, enum schema_field_id field, double d)
{
	struct value v = value_float(d);

	return db_set_live(db, uuid, field, &v, NULL);
}

int db_set_live_bool(struct db *db, struct uuid uuid, enum schema_field_id field, bool b)
{
	struct value v = value_bool(b);

	return db_set_live(db, uuid, field, &v, NULL);
}
