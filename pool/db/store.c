/* Objects in tables, lists and pages. Nothing here allocates except object_new. */
#include "pool/db/store.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct object *object_new(const struct db *db, enum schema_class_id cls, struct uuid uuid)
{
	const struct layout *l = db->layout;
	size_t links = l->link_count[cls] * sizeof(struct ref_link);
	size_t heads = l->head_count[cls] * sizeof(struct list);
	struct object *o = calloc(1, sizeof *o + links + heads);

	if (!o)
		return NULL;
	o->cls = cls;
	o->uuid = uuid;
	o->heads = (struct list *)((char *)o->links + links);
	list_init(&o->in_class);
	list_init(&o->in_changed);
	list_init(&o->in_live);
	for (unsigned i = 0; i < l->link_count[cls]; i++) {
		list_init(&o->links[i].node);
		o->links[i].owner = o;
	}
	for (unsigned i = 0; i < l->head_count[cls]; i++)
		list_init(&o->heads[i]);
	return o;
}

void object_free(struct object *o)
{
	free(o);
}

struct object *store_find(const struct db *db, struct uuid uuid)
{
	uint64_t hash = table_hash(&db->by_uuid, uuid.b, sizeof uuid.b);

	for (struct table_node *n = table_first(&db->by_uuid, hash); n;
		n = table_next(n)) {
		struct object *o = CONTAINER_OF(n, struct object, by_uuid);

		if (uuid_eq(&o->uuid, &uuid))
			return o;
	}
	return NULL;
}

struct object *link_owner(struct list *node)
{
	return CONTAINER_OF(node, struct ref_link, node)->owner;
}

struct list *store_head(
	const struct db *db, struct object *target, enum schema_field_id f)
{
	assert(schema_field(f)->ref_class == target->cls);
	return &target->heads[db->layout->head_of[f]];
}

/* Classes differ in the hash only by chance: whoever looks up compares them. */
static void store_name(struct db *db, struct object *o)
{
	const struct schema_field *f = schema_name_field(schema_class(o->cls));
	const struct value *v;

	if (!f)
		return;
	v = &o->row->values[f->index];
	if (value_string_len(v) > 0)
		table_add(&db->by_name, &o->by_name,
			table_hash(
				&db->by_name, value_get_string(v), value_string_len(v)) +
				o->cls);
}

void store_touch(struct db *db, struct object *o)
{
	row_drop_record(o->row);
	o->changed_seq = db->seq;
	list_remove(&o->in_changed);
	list_push_back(&db->recent[0], &o->in_changed);
}

void store_add(struct db *db, struct object *o, struct row *row)
{
	o->serial = ++db->serial;
	o->row = row;
	row->object = o;
	table_add(&db->by_uuid, &o->by_uuid,
		table_hash(&db->by_uuid, o->uuid.b, sizeof o->uuid.b));
	store_name(db, o);
	list_push_back(&db->of_class[o->cls], &o->in_class);
	pages_add(&db->pages, row, &o->place, &o->slot);
	db->count[o->cls]++;
	db->objects++;
	db->hash = hash_add(db->hash, row->hash);
	store_touch(db, o);
}

void store_remove(struct db *db, struct object *o)
{
	for (unsigned i = 0; i < db->layout->link_count[o->cls]; i++)
		list_remove(&o->links[i].node);
	for (unsigned i = 0; i < db->layout->head_count[o->cls]; i++)
		assert(list_empty(&o->heads[i]));
	table_remove(&db->by_uuid, &o->by_uuid);
	table_remove(&db->by_name, &o->by_name);
	list_remove(&o->in_class);
	list_remove(&o->in_changed);
	list_remove(&o->in_live);
	db->count[o->cls]--;
	db->objects--;
	db->hash = hash_sub(db->hash, o->row->hash);
	o->row->object = NULL;
	row_drop_record(o->row);
	pages_remove(&db->pages, o->place, o->slot);
	object_free(o);
}

void store_replace(struct db *db, struct object *o, struct row *row)
{
	db->hash = hash_add(hash_sub(db->hash, o->row->hash), row->hash);
	table_remove(&db->by_name, &o->by_name);
	o->row->object = NULL;
	row_drop_record(o->row); /* held versions are read field by field */
	pages_replace(o->place, o->slot, row);
	o->row = row;
	row->object = o;
	store_name(db, o);
	store_touch(db, o);
}

static struct object *link_target(
	const struct db *db, const struct object *o, enum schema_field_id f)
{
	struct uuid uuid = db_ref(o->row, f);
	struct object *target;

	if (uuid_is_none(&uuid))
		return NULL;
	target = store_find(db, uuid);
	assert(target && target->cls == schema_field(f)->ref_class);
	return target;
}

void store_link(struct db *db, struct object *o, enum schema_field_id f)
{
	struct object *target = link_target(db, o, f);
	struct list *at, *head;

	if (!target)
		return;
	head = store_head(db, target, f);
	/* Nearly always the youngest: created with the ref. */
	for (at = head->prev; at != head && link_owner(at)->serial > o->serial;)
		at = at->prev;
	list_insert_before(at->next, &o->links[db->layout->link_of[f]].node);
	if (db->layout->back_of[f])
		store_touch(db, target);
}

void store_unlink(struct db *db, struct object *o, enum schema_field_id f)
{
	struct object *target = link_target(db, o, f);

	list_remove(&o->links[db->layout->link_of[f]].node);
	if (target && db->layout->back_of[f])
		store_touch(db, target);
}
