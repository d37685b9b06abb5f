/*
 * What an entry is about to do: the new versions of the rows it touches, beside the
 * database until everything has been checked. For pool/db only.
 *
 * Functions return 0, RV_ENOMEM (stop applying), or a verdict with its words in
 * stage.verdict; stage_fini then forgets all of it. stage_commit can't fail.
 */
#ifndef REEVE_POOL_DB_STAGE_H
#define REEVE_POOL_DB_STAGE_H

#include "base/map.h"
#include "pool/db/store.h"

struct staged {
	struct list node; /* stage.all */
	struct uuid uuid;
	enum schema_class_id cls;
	struct object *object; /* of the database; a created one is in no table yet */
	struct row *row;       /* the new version; NULL: deleted */
	bool created;
};

struct stage {
	struct db *db;
	struct list all; /* in the order of first touch */
	struct map by_uuid;
	unsigned creates, deletes, pools;
	struct buf scratch;
	struct rv_error *verdict; /* borrowed */
};

void stage_init(struct stage *s, struct db *db, struct rv_error *verdict);
void stage_fini(struct stage *s);

int stage_create(struct stage *s, const struct schema_class *c, struct uuid uuid,
	struct staged **out) RV_MUST_CHECK;
/* The object's staged version, a copy at first. RV_ENOENT. */
int stage_edit(struct stage *s, const struct schema_class *c, struct uuid uuid,
	struct staged **out) RV_MUST_CHECK;
int stage_delete(
	struct stage *s, const struct schema_class *c, struct uuid uuid) RV_MUST_CHECK;

/* Checks what the schema promises of the state after the entry, seals the rows and
 * reserves what committing needs. Clears weak references to what is deleted. */
int stage_check(struct stage *s) RV_MUST_CHECK;

/* Puts everything in place under db->seq, already raised; returns how many rows changed.
 */
unsigned stage_commit(struct stage *s);

#endif
