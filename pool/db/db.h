/*
 * The pool's database in memory: a pure state machine.
 *
 * Every host applies the same entries in the same order and holds the same rows. db_apply
 * is the only way to change what is logged; db_set_live changes live fields, which each
 * host has for itself. There is no input, output, clock or random number in here: time
 * and UUIDs come with the entries.
 *
 * Rows are immutable versions, shared by reference count. A `const struct row *` is
 * borrowed: it is valid until the next db_apply, or longer after row_hold; it then still
 * reads as it was. Live fields are the exception: they change in place.
 *
 * One thread only.
 */
#ifndef REEVE_POOL_DB_DB_H
#define REEVE_POOL_DB_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"
#include "pool/db/schema.h"
#include "pool/db/value.h"

struct db;
struct row;

enum {
	DB_ENTRY_VERSION = 1,
	DB_MAX_ROW_BYTES = 1 << 20, /* one row as stored: bounds a slice's work */
};

struct db_hash {
	uint64_t hi, lo;
};

/* What an entry came to. */
struct db_result {
	uint64_t seq;	 /* the entry's number */
	int64_t wall_ms; /* when it was proposed, by the proposer's clock */
	/* code 0: the effects took place. Otherwise nothing changed, on every host alike,
	 * and the detail names the expectation, object or rule: RV_ECONFLICT (an
	 * expectation did not hold), RV_ENOENT, RV_EEXIST, RV_EBUSY (still referred to),
	 * RV_EPROTO (malformed), RV_EPARAM (wrong value), RV_ETOOBIG, RV_ELIMIT. */
	struct rv_error verdict;
	/* The entry carried the database's hash as it was at `checked_seq` on the host
	 * that proposed it (0: it carried none, or none that can be checked any more),
	 * and this host's was another one: say so and take a snapshot. */
	uint64_t checked_seq;
	bool differs;
	int failed_expect; /* which txn_expect_* did not hold, counted from 0; or -1 */
	unsigned changed;  /* rows created, changed and deleted */
};

/* `seed` seeds hash tables and names this instance in tokens: draw it at random, once per
 * start of the daemon. Returns NULL when out of memory. */
struct db *db_new(uint64_t seed);
void db_free(struct db *db);

/* Frees up to `rows` rows; true when everything, `db` included, is gone. For large
 * databases: a slice of 2,000 rows stays well under the callback budget. Meanwhile `db`
 * can't be used for anything else. */
bool db_free_some(struct db *db, unsigned rows);

/* Exchanges the contents of two databases, so that pointers to `db` stay good when a
 * snapshot replaces what it holds. Snapshot encoders keep their view. */
void db_swap(struct db *a, struct db *b);

/* Applies one entry made by txn_finish. Returns 0 when the entry was counted (look at
 * r->verdict for what it did), or a reason to stop applying, with nothing changed and not
 * counted: RV_EUNSUPPORTED (made by a newer level; keep VMs running, update this host),
 * RV_ECORRUPT (checksum; fetch it again), RV_ENOMEM. `r` must not be NULL; the detail of
 * a stop is in r->verdict too. */
int db_apply(
	struct db *db, const void *entry, size_t len, struct db_result *r) RV_MUST_CHECK;

/* Entries applied since the pool was made; snapshots carry it on. */
uint64_t db_seq(const struct db *db);
int64_t db_wall_ms(const struct db *db); /* of the last entry */

/* The sum of all rows' hashes, live fields left out: equal on hosts that hold the same.
 */
struct db_hash db_hash(const struct db *db);

/* The pool's level (pool.level), 1 before there is a pool. */
unsigned db_level(const struct db *db);

/* The one pool row, or NULL before it was made. */
const struct row *db_pool(const struct db *db);

/* ---- finding rows ---- */

/* NULL: no such object in this class. */
const struct row *db_row(const struct db *db, enum schema_class_id cls, struct uuid uuid);
const struct row *db_row_any(const struct db *db, struct uuid uuid); /* of any class */

/* A row of that name; *count (may be NULL) says how many bear it, and the caller must
 * refuse when it is not 1. "" names nothing. */
const struct row *db_by_name(
	const struct db *db, enum schema_class_id cls, const char *name, unsigned *count);
/* Another row of the same class and name, in no order; NULL after the last. */
const struct row *db_next_name(const struct db *db, const struct row *row);

/* Rows of a class in order of creation: start with NULL; NULL ends. `row` must be a
 * current version. */
const struct row *db_next(
	const struct db *db, enum schema_class_id cls, const struct row *row);
unsigned db_count(const struct db *db, enum schema_class_id cls);

/* Rows whose ref field `field` names `target`, in order of creation: all VBDs of a VM are
 * db_next_ref(db, VBD_VM, vm, NULL) and so on. Not for REF_FREE fields. */
const struct row *db_next_ref(const struct db *db, enum schema_field_id field,
	struct uuid target, const struct row *row);

/* The row that a ref field names, or NULL for none. */
const struct row *db_follow(
	const struct db *db, const struct row *row, enum schema_field_id field);

/* ---- reading rows: each asserts that the field is of the row's class and type ---- */

struct uuid row_uuid(const struct row *row);
enum schema_class_id row_class(const struct row *row);
/* name_label, or the UUID's text where the class has none or it is empty. */
const char *row_name(const struct row *row);

const struct value *row_value(const struct row *row, enum schema_field_id field);
bool db_bool(const struct row *row, enum schema_field_id field);
int64_t db_int(const struct row *row, enum schema_field_id field); /* ints and times */
double db_float(const struct row *row, enum schema_field_id field);
const char *db_string(const struct row *row, enum schema_field_id field);
struct uuid db_ref(const struct row *row, enum schema_field_id field);
/* As in enum vm_power_state etc.; what db_apply let in is always one of them. */
int db_enum(const struct row *row, enum schema_field_id field);
/* NULL: the map has no such key. */
const char *db_map_get(
	const struct row *row, enum schema_field_id field, const char *key);

/* Keeps a version beyond the next db_apply. */
const struct row *row_hold(const struct row *row);
void row_release(const struct row *row); /* NULL-safe */

/* The entry that made this version, and the one that made the object. */
uint64_t row_seq(const struct row *row);

/* The whole record as RPC sends it, packed: a map from field names to values, backrefs
 * and live fields included, secrets left out. Borrowed until the next db_apply or
 * db_set_live. Made on first use and kept with the row. NULL when out of memory. `row`
 * must be the current version. */
const uint8_t *db_record(const struct db *db, const struct row *row, size_t *len);

/* One field as it stands in the record, secret ones too. Appends to `out`. */
int db_pack_field(const struct db *db, const struct row *row, enum schema_field_id field,
	struct buf *out) RV_MUST_CHECK;

/* The text of one field as value_format gives it, backrefs included. Appends to `out`. */
int db_format_field(const struct db *db, const struct row *row,
	enum schema_field_id field, struct buf *out) RV_MUST_CHECK;

/* The objects that name this one, for a REF_BACK field (VM.VBDs), sorted by UUID. Free it
 * with value_fini. */
int db_backrefs(const struct db *db, const struct row *row, enum schema_field_id field,
	struct value *out) RV_MUST_CHECK;

/* ---- live fields ---- */

/* Sets a live field, if the value differs. The value is copied. RV_ENOENT, RV_EPARAM. */
int db_set_live(struct db *db, struct uuid uuid, enum schema_field_id field,
	const struct value *v, struct rv_error *e) RV_MUST_CHECK;
int db_set_live_int(struct db *db, struct uuid uuid, enum schema_field_id field,
	int64_t i) RV_MUST_CHECK; /* ints and times */
int db_set_live_float(struct db *db, struct uuid uuid, enum schema_field_id field,
	double f) RV_MUST_CHECK;
int db_set_live_bool(struct db *db, struct uuid uuid, enum schema_field_id field,
	bool b) RV_MUST_CHECK;

#endif
