/*
 * db_apply: entry in, new state out.
 *
 *	checksum, msgpack ─► level ─► expectations ─► effects staged ─► checks ─► commit
 *	     │                 │           └──────────────┴───────────────┴─► a verdict:
 *	RV_ECORRUPT    RV_EUNSUPPORTED                                        a no-op
 */
#include "pool/db/db.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/limits.h"
#include "base/mpcheck.h"
#include "pool/db/entry.h"
#include "pool/db/stage.h"

/* One expectation or effect being read. */
struct clause {
	const msgpack_object *items;
	uint32_t count;
	uint64_t kind;
	const struct schema_class *cls;
	struct uuid uuid;
};

static int malformed(struct rv_error *e, const char *what)
{
	return rv_error_set(e, RV_EPROTO, "malformed entry: %s", what);
}

static bool get_number(const msgpack_object *o, uint64_t *out)
{
	if (o->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
		return false;
	*out = o->via.u64;
	return true;
}

static bool get_uuid(const msgpack_object *o, struct uuid *out)
{
	if (o->type != MSGPACK_OBJECT_BIN || o->via.bin.size != sizeof out->b)
		return false;
	memcpy(out->b, o->via.bin.ptr, sizeof out->b);
	return true;
}

/* kind, class and (except for EXPECT_NAME_FREE) uuid; `counts` gives each kind's length.
 */
static int read_clause(struct clause *c, const msgpack_object *o, const uint8_t *counts,
	uint64_t kinds, struct rv_error *e)
{
	uint64_t tag;

	if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size < 3)
		return malformed(e, "a clause is no array");
	*c = (struct clause){.items = o->via.array.ptr, .count = o->via.array.size};
	if (!get_number(&c->items[0], &c->kind) || !get_number(&c->items[1], &tag))
		return malformed(e, "a clause without kind or class");
	if (c->kind == 0 || c->kind >= kinds)
		return malformed(e, "a clause of unknown kind");
	if (c->count != counts[c->kind])
		return malformed(e, "a clause of wrong length");
	c->cls = schema_class_by_tag(tag);
	if (!c->cls)
		return rv_error_set(e, RV_EPROTO,
			"malformed entry: no class has tag %llu",
			(unsigned long long)tag);
	if (c->items[2].type == MSGPACK_OBJECT_BIN && !get_uuid(&c->items[2], &c->uuid))
		return malformed(e, "a UUID of wrong size");
	return 0;
}

/* The stored field of a tag; NULL: not known here. */
static int read_tag(const struct clause *c, const msgpack_object *o, uint64_t *tag,
	const struct schema_field **field, struct rv_error *e)
{
	if (!get_number(o, tag) || *tag == 0 || *tag > UINT16_MAX)
		return malformed(e, "a field's tag");
	*field = schema_field_by_tag(c->cls, *tag);
	if (*field && !field_is_stored(*field))
		return rv_error_set(e, RV_EPARAM, "%s.%s is not changed by entries",
			c->cls->name, (*field)->name);
	return 0;
}

/* ---- expectations ---- */

static void value_words(const struct value *v, char words[static 96])
{
	struct buf b;
	size_t len;

	buf_init(&b, RV_MAX_ENTRY_BYTES);
	if (value_format(v, &b))
		buf_consume(&b, buf_len(&b));
	len = buf_len(&b) < 95 ? buf_len(&b) : 95;
	if (len)
		memcpy(words, buf_data(&b), len);
	words[len] = '\0';
	buf_fini(&b);
}

/* Whoever asked is told, and the log: what it is stays untold. */
static int unmet_secret(
	const struct row *row, const struct schema_field *f, struct rv_error *e)
{
	return rv_error_set(e, RV_ECONFLICT, "%s %s: %s is not as expected any more",
		schema_class(f->cls)->name, row_name(row), f->name);
}

static int unmet_value(const struct row *row, const struct schema_field *f,
	const struct value *expected, bool negated, struct rv_error *e)
{
	char is[96], wanted[96];

	if (f->secret)
		return unmet_secret(row, f, e);
	value_words(&row->values[f->index], is);
	value_words(expected, wanted);
	return rv_error_set(e, RV_ECONFLICT, "%s %s: %s is \"%s\", expected %s\"%s\"",
		schema_class(f->cls)->name, row_name(row), f->name, is,
		negated ? "other than " : "", wanted);
}

static bool has_key(const struct value *v, const char *key)
{
	struct uuid ref;

	switch (v->type) {
	case VALUE_STRING_SET:
		return value_set_has(v, key);
	case VALUE_STRING_MAP:
		return value_map_get(v, key);
	case VALUE_REF_SET:
		return uuid_parse(&ref, key, strlen(key)) == 0 && value_refs_have(v, ref);
	default:
		return false;
	}
}

static int expect_key(const struct clause *c, const struct row *row,
	const struct schema_field *f, struct rv_error *e)
{
	const struct value *v = &row->values[f->index];
	struct value key, wanted = {0};
	const char *is;
	int rc;

	rc = value_unpack(&key, VALUE_STRING, &c->items[4], e);
	if (rc)
		return rc;
	if (c->kind == EXPECT_KEY && c->items[5].type != MSGPACK_OBJECT_NIL) {
		rc = value_unpack(&wanted, VALUE_STRING, &c->items[5], e);
		if (rc)
			goto out;
	}
	if (has_key(v, value_get_string(&key)) != (c->kind == EXPECT_KEY)) {
		rc = f->secret ? unmet_secret(row, f, e)
			       : rv_error_set(e, RV_ECONFLICT, "%s %s: %s %s \"%.64s\"",
					 c->cls->name, row_name(row), f->name,
					 c->kind == EXPECT_KEY ? "does not have"
							       : "already has",
					 value_get_string(&key));
		goto out;
	}
	if (wanted.type == VALUE_NULL)
		goto out;
	is = v->type == VALUE_STRING_MAP ? value_map_get(v, value_get_string(&key))
					 : NULL;
	if (!is || strcmp(is, value_get_string(&wanted)) != 0)
		rc = f->secret
			     ? unmet_secret(row, f, e)
			     : rv_error_set(e, RV_ECONFLICT,
				       "%s %s: %s has \"%.64s\" for \"%.64s\", expected "
				       "\"%.64s\"",
				       c->cls->name, row_name(row), f->name, is ? is : "",
				       value_get_string(&key), value_get_string(&wanted));
out:
	value_fini(&key);
	value_fini(&wanted);
	return rc;
}

static int expect_field(const struct db *db, const struct clause *c, struct rv_error *e)
{
	const struct row *row = db_row(db, c->cls->id, c->uuid);
	const struct schema_field *f;
	char text[UUID_TEXT_SIZE];
	struct value expected;
	uint64_t tag;
	bool same;
	int rc;

	rc = read_tag(c, &c->items[3], &tag, &f, e);
	if (rc)
		return rc;
	if (!f)
		return malformed(e, "an expectation of an unknown field");
	if (!row)
		return rv_error_set(e, RV_ECONFLICT, "there is no %s %s (any more)",
			c->cls->name, uuid_format(&c->uuid, text));
	if (c->kind == EXPECT_KEY_ABSENT || c->kind == EXPECT_KEY)
		return expect_key(c, row, f, e);
	rc = value_unpack(&expected, f->type, &c->items[4], e);
	if (rc)
		return rc;
	same = value_eq(&expected, &row->values[f->index]);
	if (same != (c->kind == EXPECT_VALUE))
		rc = unmet_value(row, f, &expected, c->kind == EXPECT_NOT, e);
	value_fini(&expected);
	return rc;
}

static int expect_name_free(
	const struct db *db, const struct clause *c, struct rv_error *e)
{
	const struct row *row;
	struct value name;
	int rc = value_unpack(&name, VALUE_STRING, &c->items[2], e);

	if (rc)
		return rc;
	row = db_by_name(db, c->cls->id, value_get_string(&name), NULL);
	if (row)
		rc = rv_error_set(e, RV_EEXIST,
			"there is a %s named \"%.255s\" already; names are unique: "
			"choose "
			"another",
			c->cls->name, value_get_string(&name));
	value_fini(&name);
	return rc;
}

static int check_expectation(
	const struct db *db, const msgpack_object *o, struct rv_error *e)
{
	static const uint8_t counts[] = {0, 3, 3, 3, 5, 5, 5, 6};
	char text[UUID_TEXT_SIZE];
	struct clause c;
	int rc = read_clause(&c, o, counts, sizeof counts, e);

	if (rc)
		return rc;
	if (c.kind == EXPECT_NAME_FREE)
		return expect_name_free(db, &c, e);
	if (c.items[2].type != MSGPACK_OBJECT_BIN)
		return malformed(e, "an expectation without UUID");
	if (c.kind == EXPECT_EXISTS || c.kind == EXPECT_ABSENT) {
		bool there = db_row(db, c.cls->id, c.uuid);

		if (there == (c.kind == EXPECT_EXISTS))
			return 0;
		return rv_error_set(e, RV_ECONFLICT, "there is %s %s %s",
			there ? "already a" : "no", c.cls->name,
			uuid_format(&c.uuid, text));
	}
	return expect_field(db, &c, e);
}

/* ---- effects ---- */

/* Keeps a field that only newer software knows. */
static int keep_unknown(struct row *row, uint64_t tag, const msgpack_object *o)
{
	msgpack_sbuffer packed;
	msgpack_packer pk;
	int rc = RV_ENOMEM;

	msgpack_sbuffer_init(&packed);
	msgpack_packer_init(&pk, &packed, msgpack_sbuffer_write);
	if (msgpack_pack_object(&pk, *o) == 0)
		rc = row_set_extra(row, tag, (const uint8_t *)packed.data, packed.size);
	msgpack_sbuffer_destroy(&packed);
	return rc;
}

static int set_fields(struct stage *s, const struct clause *c, struct staged *t)
{
	const msgpack_object *map = &c->items[3];

	if (map->type != MSGPACK_OBJECT_MAP)
		return malformed(s->verdict, "fields are no map");
	for (uint32_t i = 0; i < map->via.map.size; i++) {
		const msgpack_object_kv *kv = &map->via.map.ptr[i];
		const struct schema_field *f;
		struct value v;
		uint64_t tag;
		int rc = read_tag(c, &kv->key, &tag, &f, s->verdict);

		if (rc)
			return rc;
		if (!f) {
			rc = keep_unknown(t->row, tag, &kv->val);
			if (rc)
				return rc;
			continue;
		}
		rc = value_unpack(&v, f->type, &kv->val, s->verdict);
		if (rc) {
			rv_error_prefix(s->verdict, "%s.%s", c->cls->name, f->name);
			return rc;
		}
		rc = schema_check_value(f, &v, s->verdict);
		if (rc) {
			value_fini(&v);
			return rc;
		}
		value_fini(row_slot(t->row, f));
		*row_slot(t->row, f) = v;
	}
	return 0;
}

static int too_many(
	struct stage *s, int rc, const struct staged *t, const struct schema_field *f)
{
	if (rc == RV_ETOOBIG)
		return rv_error_set(s->verdict, rc,
			"%s %s: %s is full, or what was added is too long",
			schema_class(f->cls)->name, row_name(t->row), f->name);
	return rc;
}

static int change_refs(struct stage *s, const struct clause *c, struct staged *t,
	const struct schema_field *f, struct value *v)
{
	struct value ref;
	int rc = value_unpack(&ref, VALUE_REF, &c->items[4], s->verdict);

	if (rc)
		return rc;
	if (uuid_is_none(&ref.u.ref))
		return malformed(s->verdict, "an empty reference in a set");
	if (c->kind == EFFECT_REMOVE)
		return value_refs_remove(v, ref.u.ref);
	if (value_count(v) >= RV_MAX_SET_ELEMENTS)
		return too_many(s, RV_ETOOBIG, t, f);
	return value_refs_add(v, ref.u.ref);
}

/* EFFECT_ADD, EFFECT_REMOVE, EFFECT_PUT: one element of a set or map. */
static int change_element(struct stage *s, const struct clause *c, struct staged *t)
{
	const struct schema_field *f;
	struct value key, text = {0}, *v;
	uint64_t tag;
	int rc = read_tag(c, &c->items[3], &tag, &f, s->verdict);

	if (rc)
		return rc;
	if (!f)
		return malformed(s->verdict, "an element of an unknown field");
	v = row_slot(t->row, f);
	if (f->type == VALUE_REF_SET && c->kind != EFFECT_PUT)
		return change_refs(s, c, t, f, v);
	if ((c->kind == EFFECT_ADD && f->type != VALUE_STRING_SET) ||
		(c->kind == EFFECT_PUT && f->type != VALUE_STRING_MAP) ||
		(f->type != VALUE_STRING_SET && f->type != VALUE_STRING_MAP))
		return rv_error_set(s->verdict, RV_EPARAM, "%s.%s is a %s", c->cls->name,
			f->name, value_type_name(f->type));
	rc = value_unpack(&key, VALUE_STRING, &c->items[4], s->verdict);
	if (rc)
		return rc;
	if (c->kind == EFFECT_PUT)
		rc = value_unpack(&text, VALUE_STRING, &c->items[5], s->verdict);
	if (rc)
		goto out;
	if (c->kind == EFFECT_PUT)
		rc = value_map_put(v, value_get_string(&key), value_string_len(&key),
			value_get_string(&text), value_string_len(&text));
	else if (c->kind == EFFECT_ADD)
		rc = value_set_add(v, value_get_string(&key), value_string_len(&key));
	else if (f->type == VALUE_STRING_SET)
		rc = value_set_remove(v, value_get_string(&key), value_string_len(&key));
	else
		rc = value_map_remove(v, value_get_string(&key), value_string_len(&key));
	if (rc == RV_ETOOBIG)
		rc = too_many(s, rc, t, f);
out:
	value_fini(&key);
	value_fini(&text);
	return rc;
}

static int stage_effect(struct stage *s, const msgpack_object *o)
{
	static const uint8_t counts[] = {0, 4, 4, 3, 5, 5, 6};
	struct staged *t;
	struct clause c;
	int rc = read_clause(&c, o, counts, sizeof counts, s->verdict);

	if (rc)
		return rc;
	if (c.items[2].type != MSGPACK_OBJECT_BIN)
		return malformed(s->verdict, "an effect without UUID");
	switch ((enum entry_effect)c.kind) {
	case EFFECT_CREATE:
		rc = stage_create(s, c.cls, c.uuid, &t);
		return rc ? rc : set_fields(s, &c, t);
	case EFFECT_SET:
		rc = stage_edit(s, c.cls, c.uuid, &t);
		return rc ? rc : set_fields(s, &c, t);
	case EFFECT_DELETE:
		return stage_delete(s, c.cls, c.uuid);
	case EFFECT_ADD:
	case EFFECT_REMOVE:
	case EFFECT_PUT:
		rc = stage_edit(s, c.cls, c.uuid, &t);
		return rc ? rc : change_element(s, &c, t);
	}
	return malformed(s->verdict, "an effect of unknown kind");
}

/* ---- the entry ---- */

/* Compares the hash that the entry carries with this host's of the same seq. */
static int check_hash(const struct db *db, const msgpack_object *o, struct db_result *r)
{
	const struct db_hash *own;
	struct db_hash hash;
	uint64_t seq;

	if (o->type != MSGPACK_OBJECT_ARRAY)
		return malformed(&r->verdict, "the hash is no array");
	if (o->via.array.size == 0)
		return 0;
	if (o->via.array.size != 3 || !get_number(&o->via.array.ptr[0], &seq) ||
		!get_number(&o->via.array.ptr[1], &hash.hi) ||
		!get_number(&o->via.array.ptr[2], &hash.lo))
		return malformed(&r->verdict, "the hash");
	if (seq > db->seq || seq < db->hash_from || db->seq - seq >= STORE_HASHES ||
		seq == 0)
		return 0;
	own = &db->hashes[seq % STORE_HASHES];
	r->checked_seq = seq;
	r->differs = own->hi != hash.hi || own->lo != hash.lo;
	return 0;
}

static int run_entry(struct stage *s, const msgpack_object *parts, struct db_result *r)
{
	const msgpack_object_array *expects = &parts[3].via.array;
	const msgpack_object_array *effects = &parts[4].via.array;
	int rc;

	if (parts[3].type != MSGPACK_OBJECT_ARRAY ||
		parts[4].type != MSGPACK_OBJECT_ARRAY)
		return malformed(&r->verdict, "expectations or effects are no array");
	rc = check_hash(s->db, &parts[5], r);
	for (uint32_t i = 0; rc == 0 && i < expects->size; i++) {
		rc = check_expectation(s->db, &expects->ptr[i], &r->verdict);
		if (rc == RV_ECONFLICT || rc == RV_EEXIST)
			r->failed_expect = (int)i;
	}
	for (uint32_t i = 0; rc == 0 && i < effects->size; i++)
		rc = stage_effect(s, &effects->ptr[i]);
	return rc ? rc : stage_check(s);
}

/* The array's head: 0, or a stop, or a verdict. */
static int read_head(const msgpack_object *o, struct db_result *r)
{
	const msgpack_object *parts = o->via.array.ptr;
	uint64_t version, level, wall;

	if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size < 2 ||
		!get_number(&parts[0], &version) || !get_number(&parts[1], &level))
		return malformed(&r->verdict, "no version");
	if (version > DB_ENTRY_VERSION || level > SCHEMA_LEVEL)
		return rv_error_set(&r->verdict, RV_EUNSUPPORTED,
			"the entry is of version %llu and level %llu, this host "
			"understands "
			"%d and %d: update its software",
			(unsigned long long)version, (unsigned long long)level,
			DB_ENTRY_VERSION, SCHEMA_LEVEL);
	if (o->via.array.size != ENTRY_PARTS || !get_number(&parts[2], &wall) ||
		wall > INT64_MAX)
		return malformed(&r->verdict, "its parts");
	r->wall_ms = (int64_t)wall;
	return 0;
}

static bool is_stop(int rc)
{
	return rc == RV_ENOMEM || rc == RV_EUNSUPPORTED || rc == RV_ECORRUPT;
}

/* Counts the entry; its effects are in place or are not to be. */
static void count_entry(struct db *db, struct db_result *r)
{
	r->seq = db->seq;
	if (r->wall_ms)
		db->wall_ms = r->wall_ms;
	db->hashes[db->seq % STORE_HASHES] = db->hash;
}

static int apply_body(struct db *db, const uint8_t *body, size_t len, struct db_result *r)
{
	struct stage s;
	msgpack_zone *zone;
	msgpack_object o;
	size_t off = 0;
	int rc = mpcheck(body, len, &r->verdict);

	zone = msgpack_zone_new(MSGPACK_ZONE_CHUNK_SIZE);
	if (!zone)
		return RV_ENOMEM;
	stage_init(&s, db, &r->verdict);
	if (rc == 0 && msgpack_unpack((const char *)body, len, &off, zone, &o) < 0)
		rc = RV_ENOMEM;
	if (rc == 0)
		rc = read_head(&o, r);
	if (rc == 0)
		rc = run_entry(&s, o.via.array.ptr, r);
	if (!is_stop(rc)) {
		db->seq++;
		if (rc == 0)
			r->changed = stage_commit(&s);
		count_entry(db, r);
		r->verdict.code = rc;
		rc = 0;
	}
	stage_fini(&s);
	msgpack_zone_free(zone);
	return rc;
}

int db_apply(struct db *db, const void *entry, size_t len, struct db_result *r)
{
	const uint8_t *bytes = entry;
	uint64_t sum;
	int rc;

	*r = (struct db_result){.failed_expect = -1};
	if (len < ENTRY_HEAD_BYTES || len > RV_MAX_ENTRY_BYTES)
		return rv_error_set(&r->verdict, RV_ECORRUPT,
			"a log entry of %zu bytes can't be", len);
	sum = XXH3_64bits(bytes + ENTRY_HEAD_BYTES, len - ENTRY_HEAD_BYTES);
	for (int i = 0; i < ENTRY_HEAD_BYTES; i++)
		if (bytes[i] != (uint8_t)(sum >> 8 * i))
			return rv_error_set(&r->verdict, RV_ECORRUPT,
				"the checksum of log entry %llu is wrong",
				(unsigned long long)db->seq + 1);
	rc = apply_body(db, bytes + ENTRY_HEAD_BYTES, len - ENTRY_HEAD_BYTES, r);
	if (rc == RV_ENOMEM)
		rv_error_set(&r->verdict, rc, "out of memory while applying an entry");
	return rc;
}
