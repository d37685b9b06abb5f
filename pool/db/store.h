/*
 * The inside of struct db and struct row: for the database's own files only.
 *
 * An object is what keeps its identity: its places in tables, lists and pages. Its row is
 * the present version of its fields. Indexes point to objects and are made of nodes
 * within them, so that committing a staged entry allocates nothing and can't fail.
 */
#ifndef REEVE_POOL_DB_STORE_H
#define REEVE_POOL_DB_STORE_H

#include "base/list.h"
#include "pool/db/db.h"
#include "pool/db/layout.h"
#include "pool/db/pages.h"
#include "pool/db/table.h"

enum { STORE_HASHES = 8192 }; /* past hashes kept: more than commits can be queued */

/* Fields with tags that this build does not know: (tag, value) pairs in rising order of
 * tags, packed. */
struct row_extra {
	unsigned refs;
	uint32_t count;
	size_t len;
	uint8_t bytes[];
};

struct row {
	unsigned refs;
	enum schema_class_id cls;
	struct uuid uuid;
	struct object *object; /* NULL: no longer, or not yet, the present version */
	uint64_t seq, created_seq;
	struct db_hash hash;
	char uuid_text[UUID_TEXT_SIZE];
	uint8_t *record; /* the packed record, made when first asked for */
	size_t record_len;
	struct row_extra *extra; /* NULL: none */
	struct value values[];	 /* by schema_field.index; those of REF_BACK are unused */
};

/* One ref field of an object, in the list of those that name the same target. */
struct ref_link {
	struct list node;
	struct object *owner;
};

struct object {
	enum schema_class_id cls;
	struct uuid uuid;
	uint64_t serial; /* order of creation in this memory */
	uint64_t changed_seq, live_count;
	struct row *row; /* the reference is the page's */
	struct list in_class, in_changed, in_live;
	struct table_node by_uuid, by_name;
	struct page_place *place;
	unsigned slot;
	struct list *heads;	 /* those that name this: layout.head_count of them */
	struct ref_link links[]; /* layout.link_count of them */
};

struct tombstone {
	uint64_t seq, created_seq;
	enum schema_class_id cls;
	struct uuid uuid;
};

struct db {
	uint64_t seed;
	struct layout *layout;
	uint64_t seq;
	int64_t wall_ms;
	struct db_hash hash;
	uint64_t serial;
	uint64_t live_count;
	struct table by_uuid, by_name;
	struct pages pages;
	struct list *of_class; /* [CLASS_COUNT] */
	unsigned count[CLASS_COUNT];
	unsigned objects;
	struct list
		*recent; /* [2]: all objects by changed_seq, those with live by count */
	/* Deletions, a ring: the oldest at tomb_first. */
	struct tombstone *tombs;
	size_t tomb_size, tomb_first, tomb_count;
	uint64_t horizon; /* deletions up to here are forgotten */
	/* hashes[seq % STORE_HASHES], for seq > hash_from. */
	struct db_hash *hashes;
	uint64_t hash_from;
};

/* ---- objects (store.c) ---- */

/* An object in no table, or NULL. */
struct object *object_new(
	const struct db *db, enum schema_class_id cls, struct uuid uuid);
void object_free(struct object *o); /* must be in no table */
struct object *store_find(const struct db *db, struct uuid uuid);
/* The object that a link stands in, and whom field `f` of the object names. */
struct object *link_owner(struct list *node);
struct list *store_head(
	const struct db *db, struct object *target, enum schema_field_id f);

/* Puts a complete object in tables, class list and pages; its refs are linked by
 * store_link afterwards. Room must have been reserved. Takes the row. */
void store_add(struct db *db, struct object *o, struct row *row);
/* Takes it out of everything and frees it; it must be named by nobody. */
void store_remove(struct db *db, struct object *o);
/* Puts a new version in place of the old one. Takes the row; the page must be owned. */
void store_replace(struct db *db, struct object *o, struct row *row);

/* Enters field `f` into the target's list, in order of serials, or takes it out.
 * Touches the target where it shows the link in a field of its own. */
void store_link(struct db *db, struct object *o, enum schema_field_id f);
void store_unlink(struct db *db, struct object *o, enum schema_field_id f);

/* Makes the object the one that changed last, and its record to be made anew. */
void store_touch(struct db *db, struct object *o);

/* ---- rows (row.c) ---- */

/* A row with one reference and every field at its default; NULL: out of memory. */
struct row *row_new(const struct db *db, enum schema_class_id cls, struct uuid uuid);
struct row *row_copy(const struct row *row);

/* The row as stored, without live fields and those at their defaults: a map from tags to
 * values. Appends. RV_ETOOBIG beyond DB_MAX_ROW_BYTES. */
int row_pack(const struct db *db, const struct row *row, struct buf *out) RV_MUST_CHECK;

/* Computes row->hash; `scratch` is overwritten. Same errors. */
int row_seal(const struct db *db, struct row *row, struct buf *scratch) RV_MUST_CHECK;

/* Keeps an unknown field: the bytes of one msgpack object, borrowed. RV_ENOMEM. */
int row_set_extra(
	struct row *row, uint64_t tag, const uint8_t *bytes, size_t len) RV_MUST_CHECK;
bool row_same(const struct row *a, const struct row *b); /* logged fields only */

void row_drop_record(struct row *row);

static inline struct value *row_slot(struct row *row, const struct schema_field *f)
{
	return &row->values[f->index];
}

struct db_hash hash_add(struct db_hash a, struct db_hash b);
struct db_hash hash_sub(struct db_hash a, struct db_hash b);

#endif
