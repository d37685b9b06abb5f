/* Staging an entry, and the checks on the whole of it. */
#include "pool/db/stage.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "pool/db/changes_log.h"

void stage_init(struct stage *s, struct db *db, struct rv_error *verdict)
{
	*s = (struct stage){.db = db, .verdict = verdict};
	list_init(&s->all);
	map_init(&s->by_uuid, db->seed);
	buf_init(&s->scratch, 2 * RV_MAX_ENTRY_BYTES);
}

void stage_fini(struct stage *s)
{
	LIST_FOR_EACH_SAFE (node, &s->all) {
		struct staged *t = CONTAINER_OF(node, struct staged, node);

		if (t->created)
			object_free(t->object);
		row_release(t->row);
		free(t);
	}
	list_init(&s->all);
	map_fini(&s->by_uuid);
	buf_fini(&s->scratch);
}

static struct staged *stage_get(const struct stage *s, struct uuid uuid)
{
	return map_get(&s->by_uuid, uuid.b, sizeof uuid.b);
}

static int stage_put(struct stage *s, struct object *o, struct row *row, bool created,
	struct staged **out)
{
	struct staged *t = calloc(1, sizeof *t);

	if (!t)
		return RV_ENOMEM;
	t->uuid = o->uuid;
	t->cls = o->cls;
	if (map_add(&s->by_uuid, t->uuid.b, sizeof t->uuid.b, t)) {
		free(t);
		return RV_ENOMEM;
	}
	t->object = o;
	t->row = row;
	t->created = created;
	list_push_back(&s->all, &t->node);
	*out = t;
	return 0;
}

int stage_create(struct stage *s, const struct schema_class *c, struct uuid uuid,
	struct staged **out)
{
	char text[UUID_TEXT_SIZE];
	struct object *o;
	struct row *row;
	int rc;

	if (uuid_is_none(&uuid))
		return rv_error_set(s->verdict, RV_EPARAM, "a %s needs a UUID", c->name);
	if (stage_get(s, uuid) || store_find(s->db, uuid))
		return rv_error_set(s->verdict, RV_EEXIST,
			"there is an object with UUID %s already",
			uuid_format(&uuid, text));
	if (c->id == CLASS_POOL && (db_pool(s->db) || s->pools++))
		return rv_error_set(s->verdict, RV_EEXIST, "there is a pool already");
	o = object_new(s->db, c->id, uuid);
	if (!o)
		return RV_ENOMEM;
	row = row_new(s->db, c->id, uuid);
	rc = row ? stage_put(s, o, row, true, out) : RV_ENOMEM;
	if (rc) {
		object_free(o);
		row_release(row);
		return rc;
	}
	s->creates++;
	return 0;
}

static int stage_copy(struct stage *s, struct object *o, struct staged **out)
{
	struct row *row = row_copy(o->row);
	int rc = row ? stage_put(s, o, row, false, out) : RV_ENOMEM;

	if (rc)
		row_release(row);
	return rc;
}

int stage_edit(struct stage *s, const struct schema_class *c, struct uuid uuid,
	struct staged **out)
{
	char text[UUID_TEXT_SIZE];
	struct object *o;

	*out = stage_get(s, uuid);
	if (*out && (*out)->row && (*out)->cls == c->id)
		return 0;
	o = *out ? NULL : store_find(s->db, uuid);
	if (!o || o->cls != c->id)
		return rv_error_set(s->verdict, RV_ENOENT, "there is no %s %s", c->name,
			uuid_format(&uuid, text));
	return stage_copy(s, o, out);
}

int stage_delete(struct stage *s, const struct schema_class *c, struct uuid uuid)
{
	struct staged *t;
	int rc = stage_edit(s, c, uuid, &t);

	if (rc)
		return rc;
	if (t->created)
		return rv_error_set(s->verdict, RV_EPARAM,
			"%s %s is created and deleted by the same entry", c->name,
			row_name(t->row));
	row_release(t->row);
	t->row = NULL;
	s->deletes++;
	return 0;
}

/* ---- checks ---- */

/* The row as it will be, or NULL when there will be none. */
static const struct row *row_after(const struct stage *s, struct uuid uuid)
{
	const struct staged *t = stage_get(s, uuid);

	return t ? t->row : db_row_any(s->db, uuid);
}

static int check_ref(
	struct stage *s, const struct staged *t, const struct schema_field *f)
{
	struct uuid ref = value_get_ref(&t->row->values[f->index]);
	const char *cls = schema_class(f->cls)->name;
	const struct row *target;
	char text[UUID_TEXT_SIZE];

	if (uuid_is_none(&ref)) {
		if (f->ref != REF_OWNER)
			return 0;
		return rv_error_set(s->verdict, RV_EPARAM,
			"%s %s needs a %s: its field %s is empty", cls, row_name(t->row),
			schema_class(f->ref_class)->name, f->name);
	}
	target = row_after(s, ref);
	if (target && target->cls == f->ref_class)
		return 0;
	return rv_error_set(s->verdict, RV_ENOENT, "there is no %s %s for %s of %s %s",
		schema_class(f->ref_class)->name, uuid_format(&ref, text), f->name, cls,
		row_name(t->row));
}

static int check_refs(struct stage *s, const struct staged *t)
{
	const struct layout *l = s->db->layout;

	for (unsigned i = 0; i < l->link_count[t->cls]; i++) {
		const struct schema_field *f = schema_field(l->links[t->cls][i]);
		int rc;

		if (!t->created &&
			value_eq(&t->row->values[f->index],
				&t->object->row->values[f->index]) &&
			s->deletes == 0)
			continue;
		rc = check_ref(s, t, f);
		if (rc)
			return rc;
	}
	return 0;
}

/* One object that names the deleted `t` by field `f`: clears a weak ref. */
static int release_one(struct stage *s, const struct staged *t,
	const struct schema_field *f, struct object *user)
{
	const struct schema_class *c = schema_class(user->cls);
	struct staged *u = stage_get(s, user->uuid);
	int rc;

	if (u && !u->row)
		return 0;
	if (u && !uuid_eq(&t->uuid, &u->row->values[f->index].u.ref))
		return 0;
	if (f->ref != REF_WEAK)
		return rv_error_set(s->verdict, RV_EBUSY,
			"%s %s is in use: %s %s has it as %s", schema_class(t->cls)->name,
			row_name(t->object->row), c->name, row_name(user->row), f->name);
	if (!u) {
		rc = stage_copy(s, user, &u);
		if (rc)
			return rc;
	}
	*row_slot(u->row, f) = value_ref(UUID_NONE);
	return 0;
}

/* Rows staged here that name it are not in its lists yet: check_refs finds those. */
static int release_all(struct stage *s, const struct staged *t)
{
	const struct layout *l = s->db->layout;

	for (unsigned i = 0; i < l->head_count[t->cls]; i++) {
		const struct schema_field *f = schema_field(l->heads[t->cls][i]);

		LIST_FOR_EACH (node, &t->object->heads[i]) {
			int rc = release_one(s, t, f, link_owner(node));

			if (rc)
				return rc;
		}
	}
	return 0;
}

/* A level that this build does not know ends applying; one may not go down. */
static int check_level(struct stage *s, const struct staged *t)
{
	int64_t level, before = 1;

	if (t->cls != CLASS_POOL)
		return 0;
	level = db_int(t->row, POOL_LEVEL);
	if (!t->created)
		before = db_int(t->object->row, POOL_LEVEL);
	if (level > SCHEMA_LEVEL)
		return rv_error_set(s->verdict, RV_EUNSUPPORTED,
			"the pool was raised to level %lld, this host understands %d: "
			"update its software",
			(long long)level, SCHEMA_LEVEL);
	if (level < before)
		return rv_error_set(s->verdict, RV_EPARAM,
			"the pool's level can't go down from %lld to %lld",
			(long long)before, (long long)level);
	return 0;
}

static int check_one(struct stage *s, struct staged *t)
{
	int rc = check_refs(s, t);

	if (rc == 0)
		rc = check_level(s, t);
	if (rc)
		return rc;
	rc = row_seal(s->db, t->row, &s->scratch);
	if (rc == RV_ETOOBIG)
		return rv_error_set(s->verdict, rc, "%s %s would be larger than %d bytes",
			schema_class(t->cls)->name, row_name(t->row), DB_MAX_ROW_BYTES);
	return rc;
}

/* Whatever committing needs that could be missing. */
static int stage_reserve(struct stage *s)
{
	int rc = pages_reserve(&s->db->pages, s->creates);

	if (rc == 0)
		rc = changes_reserve(s->db, s->deletes);
	LIST_FOR_EACH (node, &s->all) {
		struct staged *t = CONTAINER_OF(node, struct staged, node);

		if (rc == 0 && !t->created)
			rc = pages_own(t->object->place);
	}
	return rc;
}

int stage_check(struct stage *s)
{
	int rc;

	if (s->db->objects + s->creates > RV_MAX_OBJECTS)
		return rv_error_set(s->verdict, RV_ELIMIT,
			"the pool holds %u objects, at most %d are possible: delete "
			"tasks, messages or snapshots",
			s->db->objects, RV_MAX_OBJECTS);
	/* May stage more rows, at the end of the list: those are visited too. */
	LIST_FOR_EACH (node, &s->all) {
		struct staged *t = CONTAINER_OF(node, struct staged, node);

		rc = t->row ? 0 : release_all(s, t);
		if (rc)
			return rc;
	}
	LIST_FOR_EACH (node, &s->all) {
		struct staged *t = CONTAINER_OF(node, struct staged, node);

		rc = t->row ? check_one(s, t) : 0;
		if (rc)
			return rc;
	}
	return stage_reserve(s);
}

/* ---- commit ---- */

static bool ref_changed(const struct staged *t, enum schema_field_id f)
{
	return !t->row || !value_eq(row_value(t->row, f), row_value(t->object->row, f));
}

/* Before the rows change: out of the lists of those that are no longer named. */
static void commit_unlink(struct stage *s, struct staged *t)
{
	const struct layout *l = s->db->layout;

	for (unsigned i = 0; i < l->link_count[t->cls]; i++)
		if (ref_changed(t, l->links[t->cls][i]))
			store_unlink(s->db, t->object, l->links[t->cls][i]);
}

/* After: into the lists of those that are named now. */
static void commit_link(struct stage *s, struct staged *t)
{
	const struct layout *l = s->db->layout;

	for (unsigned i = 0; i < l->link_count[t->cls]; i++)
		if (list_empty(&t->object->links[i].node))
			store_link(s->db, t->object, l->links[t->cls][i]);
}

static void commit_delete(struct stage *s, struct staged *t)
{
	changes_bury(s->db, t->object);
	store_remove(s->db, t->object);
	t->object = NULL;
}

unsigned stage_commit(struct stage *s)
{
	struct db *db = s->db;
	unsigned changed = 0;

	LIST_FOR_EACH_SAFE (node, &s->all) {
		struct staged *t = CONTAINER_OF(node, struct staged, node);

		/* An effect that changes nothing is no change. */
		if (!t->created && t->row && row_same(t->row, t->object->row)) {
			list_remove(&t->node);
			row_release(t->row);
			free(t);
			continue;
		}
		if (!t->created)
			commit_unlink(s, t);
		changed++;
	}
	LIST_FOR_EACH (node, &s->all) {
		struct staged *t = CONTAINER_OF(node, struct staged, node);

		if (!t->row)
			continue;
		t->row->seq = db->seq;
		if (t->created)
			t->row->created_seq = db->seq;
		if (t->created)
			store_add(db, t->object, t->row);
		else
			store_replace(db, t->object, t->row);
	}
	LIST_FOR_EACH (node, &s->all) {
		struct staged *t = CONTAINER_OF(node, struct staged, node);

		if (t->row)
			commit_link(s, t);
	}
	LIST_FOR_EACH (node, &s->all) {
		struct staged *t = CONTAINER_OF(node, struct staged, node);

		if (!t->row)
			commit_delete(s, t);
		t->row = NULL; /* the database has it */
		t->created = false;
	}
	return changed;
}
