/*
 * Builds one log entry: what must hold, and what then happens, all or nothing.
 *
 * Calls never fail one by one: the first error sticks and txn_finish returns it. All
 * values are copied at once. Expectations are checked against the database as it is when
 * the entry is applied, before any effect; effects follow in the order given.
 *
 *	struct txn t;
 *
 *	txn_init(&t, db, loop_wall_ms(loop));
 *	txn_expect_enum(&t, vm, VM_POWER_STATE, VM_POWER_STATE_HALTED);
 *	txn_expect_int(&t, vm, VM_OWNER_GENERATION, generation);
 *	txn_set_ref(&t, vm, VM_RESIDENT_ON, host);
 *	rc = txn_finish(&t, &bytes, &len, e);
 *	...
 *	txn_fini(&t);
 */
#ifndef REEVE_POOL_DB_TXN_H
#define REEVE_POOL_DB_TXN_H

#include "base/buf.h"
#include "pool/db/db.h"

struct txn {
	unsigned level; /* the pool's, when the transaction was begun */
	unsigned needs; /* level that a host needs to understand the entry */
	int64_t wall_ms;
	uint32_t expects, effects;
	struct buf expect_bytes, effect_bytes, entry;
	uint64_t hash_seq; /* 0: no hash */
	struct db_hash hash;
	/* The object being created or set, until another effect: its new values by index,
	 * VALUE_NULL where there is none. */
	enum schema_class_id pending;
	bool creating;
	struct uuid pending_uuid;
	struct value *fields;
	struct rv_error error; /* the first, sticks */
};

/* `db` is read for the pool's level only and not kept; NULL: level 1. */
void txn_init(struct txn *t, const struct db *db, int64_t wall_ms);
void txn_fini(struct txn *t);

/* The number of expectations so far: what db_result.failed_expect counts in. */
unsigned txn_expect_count(const struct txn *t);
bool txn_is_empty(const struct txn *t); /* no effect yet */

/* From now on it may grow far beyond an entry, so that txn_size can tell how large it
 * got; txn_finish refuses it as ever. */
void txn_measure(struct txn *t);
/* Bytes that the entry would have. */
size_t txn_size(struct txn *t);

/* Makes the bytes, borrowed until txn_fini. Returns the first error of any call before,
 * RV_ETOOBIG beyond RV_MAX_ENTRY_BYTES. */
int txn_finish(struct txn *t, const uint8_t **entry, size_t *len,
	struct rv_error *e) RV_MUST_CHECK;

/* Adds the database's hash as it is now at the proposer, for every host to compare with
 * its own of the same seq: db_result.differs. */
void txn_check_hash(struct txn *t, const struct db *db);

/* ---- expectations ---- */
void txn_expect_exists(struct txn *t, enum schema_class_id cls, struct uuid uuid);
void txn_expect_absent(struct txn *t, enum schema_class_id cls, struct uuid uuid);
/* No object of the class bears the name. */
void txn_expect_name_free(struct txn *t, enum schema_class_id cls, const char *name);
void txn_expect_value(struct txn *t, struct uuid uuid, enum schema_field_id field,
	const struct value *v);
void txn_expect_not(struct txn *t, struct uuid uuid, enum schema_field_id field,
	const struct value *v);
void txn_expect_bool(struct txn *t, struct uuid uuid, enum schema_field_id field, bool b);
void txn_expect_int(
	struct txn *t, struct uuid uuid, enum schema_field_id field, int64_t i);
void txn_expect_string(
	struct txn *t, struct uuid uuid, enum schema_field_id field, const char *text);
void txn_expect_enum(
	struct txn *t, struct uuid uuid, enum schema_field_id field, int value);
void txn_expect_ref(
	struct txn *t, struct uuid uuid, enum schema_field_id field, struct uuid ref);
/* The field has its type's zero: no ref, "", 0, empty set or map. */
void txn_expect_unset(struct txn *t, struct uuid uuid, enum schema_field_id field);
/* A key (or element) is not in the map (or set). */
void txn_expect_key_absent(
	struct txn *t, struct uuid uuid, enum schema_field_id field, const char *key);
void txn_expect_key(struct txn *t, struct uuid uuid, enum schema_field_id field,
	const char *key, const char *value); /* value NULL: only that the key is there */

/* ---- effects ---- */

/* Makes an object with every field at its default; txn_set_* of the same uuid right after
 * it give it others. */
void txn_create(struct txn *t, enum schema_class_id cls, struct uuid uuid);
/* Refused when the entry is applied if others still refer to it (schema_ref) after the
 * whole entry. */
void txn_delete(struct txn *t, enum schema_class_id cls, struct uuid uuid);

/* The value's type must be the field's. Live, key and back fields are refused. */
void txn_set_value(struct txn *t, struct uuid uuid, enum schema_field_id field,
	const struct value *v);
void txn_set_bool(struct txn *t, struct uuid uuid, enum schema_field_id field, bool b);
void txn_set_int(struct txn *t, struct uuid uuid, enum schema_field_id field, int64_t i);
void txn_set_float(struct txn *t, struct uuid uuid, enum schema_field_id field, double f);
void txn_set_time(
	struct txn *t, struct uuid uuid, enum schema_field_id field, int64_t ms);
void txn_set_string(
	struct txn *t, struct uuid uuid, enum schema_field_id field, const char *text);
void txn_set_enum(struct txn *t, struct uuid uuid, enum schema_field_id field, int value);
void txn_set_ref(
	struct txn *t, struct uuid uuid, enum schema_field_id field, struct uuid ref);
/* One element of a set, or one pair of a map. */
void txn_set_add(
	struct txn *t, struct uuid uuid, enum schema_field_id field, const char *element);
void txn_set_remove(
	struct txn *t, struct uuid uuid, enum schema_field_id field, const char *element);
void txn_map_put(struct txn *t, struct uuid uuid, enum schema_field_id field,
	const char *key, const char *value);
void txn_map_remove(
	struct txn *t, struct uuid uuid, enum schema_field_id field, const char *key);

#endif
