#include "cli/records.h"

#include <stdlib.h>
#include <string.h>

void records_init(struct records *r, const struct schema_class *cls)
{
	*r = (struct records){.cls = cls};
}

void records_fini(struct records *r)
{
	for (size_t i = 0; i < r->value_count; i++)
		value_fini(&r->values[i]);
	free(r->values);
	free(r->list);
	r->values = NULL;
	r->list = NULL;
	r->value_count = 0;
	r->count = 0;
}

int records_want(struct records *r, const struct schema_field *f)
{
	for (int i = 0; i < r->field_count; i++)
		if (r->fields[i] == f)
			return i;
	if (r->field_count == RECORDS_MAX_FIELDS)
		return RECORDS_MAX_FIELDS - 1;
	r->fields[r->field_count] = f;
	return r->field_count++;
}

/* Records mostly come in the order of the schema: the next key is tried first. */
static const msgpack_object *record_get(
	const msgpack_object *record, const struct schema_field *f, uint32_t *cursor)
{
	const msgpack_object_map *m = &record->via.map;

	for (uint32_t i = 0; i < m->size; i++) {
		uint32_t at = (*cursor + i) % m->size;
		const msgpack_object *key = &m->ptr[at].key;

		if (key->type != MSGPACK_OBJECT_STR || key->via.str.size != f->name_len ||
			memcmp(key->via.str.ptr, f->name, f->name_len) != 0)
			continue;
		*cursor = at + 1;
		return &m->ptr[at].val;
	}
	return NULL;
}

static int record_take(struct records *r, struct record *to, const msgpack_object *record,
	struct rv_error *e)
{
	uint32_t cursor = 0;

	if (record->type != MSGPACK_OBJECT_MAP)
		return rv_error_set(
			e, RV_EPROTO, "a record of class %s is no map", r->cls->name);
	for (int i = 0; i < r->field_count; i++) {
		const struct schema_field *f = r->fields[i];
		const msgpack_object *o;
		int rc;

		if (f->key) {
			to->values[i] = value_ref(to->uuid);
			continue;
		}
		o = record_get(record, f, &cursor);
		/* A daemon of an older level does not know every field. */
		if (!o) {
			to->values[i] = value_zero(f->type);
			continue;
		}
		rc = value_unpack(&to->values[i], f->type, o, e);
		if (rc) {
			rv_error_prefix(e, "%s.%s", r->cls->name, f->name);
			return rc;
		}
	}
	return 0;
}

static int records_room(struct records *r, uint32_t count, struct rv_error *e)
{
	size_t values = (size_t)count * (size_t)r->field_count;

	r->list = calloc(count + 1, sizeof *r->list);
	r->values = calloc(values + 1, sizeof *r->values);
	if (!r->list || !r->values)
		return rv_error_set(
			e, RV_ENOMEM, "%u records do not fit in memory", count);
	r->count = (int)count;
	r->value_count = values;
	for (uint32_t i = 0; i < count; i++)
		r->list[i].values = r->values + (size_t)i * (size_t)r->field_count;
	return 0;
}

int records_take(struct records *r, const msgpack_object *value, struct rv_error *e)
{
	int rc;

	if (value->type != MSGPACK_OBJECT_MAP)
		return rv_error_set(
			e, RV_EPROTO, "%s.get_all_records answered no map", r->cls->name);
	rc = records_room(r, value->via.map.size, e);
	for (uint32_t i = 0; i < value->via.map.size && rc == 0; i++) {
		const msgpack_object_kv *kv = &value->via.map.ptr[i];

		if (kv->key.type != MSGPACK_OBJECT_STR ||
			uuid_parse(&r->list[i].uuid, kv->key.via.str.ptr,
				kv->key.via.str.size))
			return rv_error_set(e, RV_EPROTO,
				"%s.get_all_records answered a record without a UUID",
				r->cls->name);
		rc = record_take(r, &r->list[i], &kv->val, e);
	}
	return rc;
}

int records_take_one(struct records *r, struct uuid uuid, const msgpack_object *record,
	struct rv_error *e)
{
	int rc = records_room(r, 1, e);

	if (rc)
		return rc;
	r->list[0].uuid = uuid;
	return record_take(r, &r->list[0], record, e);
}

/* --- filters --- */

static const char *map_at(const struct value *map, const char *key, size_t len)
{
	for (size_t i = 0; i < value_count(map); i++) {
		const char *k = value_key_at(map, i);

		if (strncmp(k, key, len) == 0 && k[len] == '\0')
			return value_at(map, i);
	}
	return NULL;
}

bool filter_matches(const struct filter *f, const struct value *v)
{
	if (f->key) {
		const char *text = map_at(v, f->key, f->key_len);

		return text && strcmp(text, value_get_string(&f->value)) == 0;
	}
	if (v->type == VALUE_STRING_SET)
		return value_set_has(v, value_get_string(&f->value));
	if (v->type == VALUE_REF_SET)
		return value_refs_have(v, value_get_ref(&f->value));
	return value_eq(v, &f->value);
}

void records_filter(struct records *r, const struct filter *filters, int count)
{
	int kept = 0;

	for (int i = 0; i < r->count; i++) {
		bool keep = true;

		for (int j = 0; j < count && keep; j++) {
			int at = records_want(r, filters[j].field);

			keep = filter_matches(&filters[j], &r->list[i].values[at]);
		}
		if (keep)
			r->list[kept++] = r->list[i];
	}
	r->count = kept;
}

/* --- order --- */

static int compare(const void *a, const void *b, void *arg)
{
	const struct record *x = a, *y = b;
	int by = *(int *)arg, order = 0;

	if (by >= 0 && x->values[by].type == VALUE_TIME) {
		int64_t p = value_get_int(&x->values[by]),
			q = value_get_int(&y->values[by]);

		order = (p > q) - (p < q);
	} else if (by >= 0)
		order = strverscmp(value_get_string(&x->values[by]),
			value_get_string(&y->values[by]));
	return order ? order : uuid_cmp(&x->uuid, &y->uuid);
}

const struct schema_field *records_order(const struct schema_class *cls)
{
	return cls->id == CLASS_MESSAGE ? schema_field(MESSAGE_TIMESTAMP)
					: schema_name_field(cls);
}

void records_sort(struct records *r)
{
	const struct schema_field *order = records_order(r->cls);
	int by = -1;

	for (int i = 0; i < r->field_count; i++)
		if (r->fields[i] == order && order)
			by = i;
	if (r->count > 1)
		qsort_r(r->list, (size_t)r->count, sizeof *r->list, compare, &by);
}
