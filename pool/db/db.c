/* The database as a whole, and finding rows in it. */
#include "pool/db/db.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "pool/db/store.h"

struct db *db_new(uint64_t seed)
{
	struct db *db = calloc(1, sizeof *db);

	if (!db)
		return NULL;
	db->seed = seed;
	db->layout = layout_new();
	db->of_class = calloc(CLASS_COUNT, sizeof db->of_class[0]);
	db->recent = calloc(2, sizeof db->recent[0]);
	db->hashes = calloc(STORE_HASHES, sizeof db->hashes[0]);
	if (!db->layout || !db->of_class || !db->recent || !db->hashes)
		goto fail;
	for (int i = 0; i < CLASS_COUNT; i++)
		list_init(&db->of_class[i]);
	list_init(&db->recent[0]);
	list_init(&db->recent[1]);
	if (table_init(&db->by_uuid, seed) || table_init(&db->by_name, seed + 1))
		goto fail;
	return db;
fail:
	db_free(db);
	return NULL;
}

/* Frees objects without their rows, which are the pages'. Everything that could be asked
 * for them goes at the end. */
static bool free_objects(struct db *db, unsigned *budget)
{
	struct list *all = &db->recent[0];

	if (!db->recent || !all->next) /* db_new failed half-way */
		return true;
	while (!list_empty(all) && *budget > 0) {
		struct object *o = CONTAINER_OF(all->next, struct object, in_changed);

		list_remove(&o->in_changed);
		o->row->object = NULL;
		object_free(o);
		--*budget;
	}
	return list_empty(all);
}

static bool free_pages(struct db *db, unsigned *budget)
{
	struct pages *p = &db->pages;

	while (p->count > 0 && *budget > 0) {
		struct page_place *place = p->places[--p->count];

		page_release(place->page);
		free(place);
		*budget -= *budget < PAGE_ROWS ? *budget : PAGE_ROWS;
	}
	return p->count == 0;
}

bool db_free_some(struct db *db, unsigned rows)
{
	if (!db)
		return true;
	if (!free_objects(db, &rows) || !free_pages(db, &rows))
		return false;
	pages_fini(&db->pages);
	table_fini(&db->by_uuid);
	table_fini(&db->by_name);
	layout_free(db->layout);
	free(db->of_class);
	free(db->recent);
	free(db->hashes);
	free(db->tombs);
	free(db);
	return true;
}

void db_free(struct db *db)
{
	while (!db_free_some(db, ~0u))
		;
}

void db_swap(struct db *a, struct db *b)
{
	struct db old = *a;

	*a = *b;
	*b = old;
}

uint64_t db_seq(const struct db *db)
{
	return db->seq;
}

int64_t db_wall_ms(const struct db *db)
{
	return db->wall_ms;
}

struct db_hash db_hash(const struct db *db)
{
	return db->hash;
}

const struct row *db_pool(const struct db *db)
{
	return db_next(db, CLASS_POOL, NULL);
}

unsigned db_level(const struct db *db)
{
	const struct row *pool = db_pool(db);

	return pool ? (unsigned)db_int(pool, POOL_LEVEL) : 1;
}

/* ---- finding rows ---- */

const struct row *db_row_any(const struct db *db, struct uuid uuid)
{
	const struct object *o = store_find(db, uuid);

	return o ? o->row : NULL;
}

const struct row *db_row(const struct db *db, enum schema_class_id cls, struct uuid uuid)
{
	const struct object *o = store_find(db, uuid);

	return o && o->cls == cls ? o->row : NULL;
}

/* The first of `node` and those after it that has the class and the name. */
static const struct row *name_match(
	struct table_node *node, enum schema_class_id cls, const char *name)
{
	for (; node; node = table_next(node)) {
		struct object *o = CONTAINER_OF(node, struct object, by_name);

		if (o->cls == cls && strcmp(row_name(o->row), name) == 0)
			return o->row;
	}
	return NULL;
}

const struct row *db_by_name(
	const struct db *db, enum schema_class_id cls, const char *name, unsigned *count)
{
	uint64_t hash = table_hash(&db->by_name, name, strlen(name)) + cls;
	const struct row *first, *row;

	first = name[0] ? name_match(table_first(&db->by_name, hash), cls, name) : NULL;
	if (!count)
		return first;
	*count = 0;
	for (row = first; row; row = db_next_name(db, row))
		++*count;
	return first;
}

const struct row *db_next_name(const struct db *db, const struct row *row)
{
	(void)db;
	assert(row->object);
	return name_match(table_next(&row->object->by_name), row->cls, row_name(row));
}

const struct row *db_next(
	const struct db *db, enum schema_class_id cls, const struct row *row)
{
	const struct list *head, *node;

	assert(cls > CLASS_NONE && cls < CLASS_COUNT);
	assert(!row || (row->cls == cls && row->object));
	head = &db->of_class[cls];
	node = row ? row->object->in_class.next : head->next;
	if (node == head)
		return NULL;
	return CONTAINER_OF(node, struct object, in_class)->row;
}

unsigned db_count(const struct db *db, enum schema_class_id cls)
{
	assert(cls > CLASS_NONE && cls < CLASS_COUNT);
	return db->count[cls];
}

const struct row *db_next_ref(const struct db *db, enum schema_field_id field,
	struct uuid target, const struct row *row)
{
	const struct schema_field *f = schema_field(field);
	struct list *head, *node;
	struct object *o;

	assert(field_is_linked(f));
	o = store_find(db, target);
	if (!o || o->cls != f->ref_class)
		return NULL;
	head = store_head(db, o, field);
	if (row) {
		assert(row->object && row->cls == f->cls);
		node = row->object->links[db->layout->link_of[field]].node.next;
	} else {
		node = head->next;
	}
	return node == head ? NULL : link_owner(node)->row;
}

const struct row *db_follow(
	const struct db *db, const struct row *row, enum schema_field_id field)
{
	struct uuid target = db_ref(row, field);

	return uuid_is_none(&target) ? NULL : db_row_any(db, target);
}
