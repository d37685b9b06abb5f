/* A small pool for the database's tests, and entries drawn at random. */
#ifndef REEVE_TESTS_UNIT_DB_WORLD_H
#define REEVE_TESTS_UNIT_DB_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "pool/db/db.h"
#include "pool/db/txn.h"

/* The nth UUID of a fixed series. */
static inline struct uuid nth(unsigned n)
{
	struct prng p;

	prng_seed(&p, n);
	return uuid_random(&p);
}

/* Finishes and applies; returns the verdict's code. Ends the transaction. */
static inline int run(struct db *db, struct txn *t, struct db_result *r)
{
	struct rv_error e = {0};
	struct db_result own;
	const uint8_t *entry;
	size_t len;
	int rc = txn_finish(t, &entry, &len, &e);

	if (rc) {
		txn_fini(t);
		return rc;
	}
	r = r ? r : &own;
	assert_int_equal(db_apply(db, entry, len, r), 0);
	txn_fini(t);
	return r->verdict.code;
}

static inline struct uuid make(
	struct db *db, enum schema_class_id cls, unsigned n, const char *name)
{
	struct txn t;

	txn_init(&t, db, 1000);
	txn_create(&t, cls, nth(n));
	if (name)
		txn_set_string(
			&t, nth(n), schema_name_field(schema_class(cls))->id, name);
	assert_int_equal(run(db, &t, NULL), 0);
	return nth(n);
}

enum { DRAW_OBJECTS = 24 };

/* A field of the class that entries may set, of any kind. */
static inline const struct schema_field *draw_field(
	struct prng *p, const struct schema_class *c)
{
	for (;;) {
		const struct schema_field *f =
			&c->fields[prng_below(p, (uint64_t)c->field_count)];

		if (!f->live && !f->key && f->ref != REF_BACK && f->id != POOL_LEVEL)
			return f;
	}
}

static inline struct value draw_value(struct prng *p, const struct schema_field *f)
{
	static const char *const words[] = {"", "a", "b", "name", "another; one", "ä"};
	const char *word = words[prng_below(p, 6)];
	struct value v = value_zero(f->type);
	int texts = 0, rc = 0;

	switch (f->type) {
	case VALUE_BOOL:
		return value_bool(prng_below(p, 2));
	case VALUE_INT:
	case VALUE_TIME:
		v.u.i = prng_range(p, -3, 3) * 1000003;
		return v;
	case VALUE_FLOAT:
		return value_float((double)prng_range(p, -8, 8) / 4);
	case VALUE_REF:
		return value_ref(prng_below(p, 3) ? nth(prng_below(p, DRAW_OBJECTS) + 1)
						  : UUID_NONE);
	case VALUE_STRING:
		while (f->enum_texts && f->enum_texts[texts])
			texts++;
		if (texts && prng_below(p, 20))
			word = f->enum_texts[prng_below(p, (uint64_t)texts)];
		rc = value_from_cstr(&v, word);
		break;
	case VALUE_STRING_SET:
		rc = value_set_add(&v, word, strlen(word));
		break;
	case VALUE_STRING_MAP:
		rc = value_map_put(&v, word, strlen(word), "value", 5);
		break;
	default:
		break;
	}
	assert_int_equal(rc, 0);
	return v;
}

/* An entry over a small number of objects, so that it often means something. Refs of new
 * objects are filled with what is there, where there is something. */
static inline void draw_create(struct prng *p, struct txn *t, const struct db *db)
{
	const struct schema_class *c =
		schema_class((enum schema_class_id)(1 + prng_below(p, CLASS_COUNT - 1)));
	struct uuid uuid = nth(prng_below(p, DRAW_OBJECTS) + 1);

	txn_create(t, c->id, uuid);
	for (int i = 0; i < c->field_count; i++) {
		const struct schema_field *f = &c->fields[i];
		const struct row *target;

		if (f->ref != REF_OWNER && (f->ref == REF_FREE || prng_below(p, 3)))
			continue;
		if (f->ref == REF_BACK)
			continue;
		target = db_next(db, f->ref_class, NULL);
		for (uint64_t n = prng_below(p, 3); target && n > 0; n--)
			target = db_next(db, f->ref_class, target)
					 ? db_next(db, f->ref_class, target)
					 : target;
		if (target)
			txn_set_ref(t, uuid, f->id, row_uuid(target));
	}
}

static inline void draw_change(struct prng *p, struct txn *t, const struct db *db)
{
	const struct row *row = NULL;
	const struct schema_field *f;
	struct value v;

	for (int tries = 0; !row && tries < 50; tries++)
		row = db_row_any(db, nth(prng_below(p, DRAW_OBJECTS) + 1));
	if (!row)
		return;
	f = draw_field(p, schema_class(row_class(row)));
	if (prng_below(p, 4) == 0) {
		txn_delete(t, row_class(row), row_uuid(row));
		return;
	}
	if (f->type == VALUE_STRING_SET && prng_below(p, 2))
		txn_set_add(t, row_uuid(row), f->id, "element");
	else if (f->type == VALUE_STRING_MAP && prng_below(p, 2))
		txn_map_put(t, row_uuid(row), f->id, "key", "value");
	else if (f->type == VALUE_STRING_MAP && prng_below(p, 2))
		txn_map_remove(t, row_uuid(row), f->id, "key");
	else {
		v = draw_value(p, f);
		txn_set_value(t, row_uuid(row), f->id, &v);
		value_fini(&v);
	}
	if (prng_below(p, 4) == 0) {
		v = draw_value(p, f);
		txn_expect_value(t, row_uuid(row), f->id, &v);
		value_fini(&v);
	}
}

static inline void draw_txn(struct prng *p, struct txn *t, const struct db *db)
{
	txn_init(t, db, (int64_t)prng_below(p, 1000000));
	for (uint64_t n = prng_below(p, 4); n > 0; n--) {
		if (prng_below(p, 3) == 0)
			draw_create(p, t, db);
		else
			draw_change(p, t, db);
	}
}

#endif
