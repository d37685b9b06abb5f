/* What follows from the schema, worked out once per database: for pool/db only. */
#ifndef REEVE_POOL_DB_LAYOUT_H
#define REEVE_POOL_DB_LAYOUT_H

#include "pool/db/schema.h"

enum {
	STORE_MAX_LINKS = 16, /* indexed ref fields of one class */
	STORE_MAX_HEADS = 16, /* ref fields that name one class */
};

struct layout {
	uint8_t link_of[FIELD_COUNT]; /* of a ref field: index in object.links */
	uint8_t head_of[FIELD_COUNT]; /* of a ref field: index in the target's heads */
	enum schema_field_id back_of[FIELD_COUNT]; /* the REF_BACK field that shows it */
	enum schema_field_id links[CLASS_COUNT][STORE_MAX_LINKS];
	enum schema_field_id heads[CLASS_COUNT][STORE_MAX_HEADS];
	unsigned link_count[CLASS_COUNT], head_count[CLASS_COUNT];
	struct value *defaults[CLASS_COUNT]; /* by schema_field.index */
};

struct layout *layout_new(void);    /* NULL: out of memory */
void layout_free(struct layout *l); /* NULL-safe */

/* Fields that stand in the log. */
static inline bool field_is_stored(const struct schema_field *f)
{
	return !f->live && !f->key && f->ref != REF_BACK;
}

/* Ref fields whose targets are checked and indexed. */
static inline bool field_is_linked(const struct schema_field *f)
{
	return f->ref == REF_OWNER || f->ref == REF_HARD || f->ref == REF_WEAK;
}

#endif
