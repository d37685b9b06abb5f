/* What follows from the schema: where links lie, what the defaults are. */
#include "pool/db/layout.h"

#include <assert.h>
#include <stdlib.h>

static void layout_place_link(struct layout *l, const struct schema_field *f)
{
	enum schema_class_id target = f->ref_class;

	assert(target != CLASS_NONE);
	assert(l->link_count[f->cls] < STORE_MAX_LINKS);
	assert(l->head_count[target] < STORE_MAX_HEADS);
	l->link_of[f->id] = (uint8_t)l->link_count[f->cls];
	l->links[f->cls][l->link_count[f->cls]++] = f->id;
	l->head_of[f->id] = (uint8_t)l->head_count[target];
	l->heads[target][l->head_count[target]++] = f->id;
}

static int layout_fill_defaults(struct layout *l, enum schema_class_id cls)
{
	const struct schema_class *c = schema_class(cls);

	l->defaults[cls] = calloc((size_t)c->field_count, sizeof(struct value));
	if (!l->defaults[cls])
		return RV_ENOMEM;
	for (int i = 0; i < c->field_count; i++) {
		int rc = schema_initial(&c->fields[i], &l->defaults[cls][i]);

		if (rc == RV_ENOMEM)
			return rc;
		assert(rc == 0); /* the schema's own text; a unit test reads them all */
	}
	return 0;
}

struct layout *layout_new(void)
{
	struct layout *l = calloc(1, sizeof *l);

	if (!l)
		return NULL;
	for (int id = FIELD_NONE + 1; id < FIELD_COUNT; id++) {
		const struct schema_field *f = schema_field(id);

		if (field_is_linked(f))
			layout_place_link(l, f);
		if (f->ref == REF_BACK)
			l->back_of[f->backref] = f->id;
	}
	for (int cls = CLASS_NONE + 1; cls < CLASS_COUNT; cls++) {
		if (layout_fill_defaults(l, cls)) {
			layout_free(l);
			return NULL;
		}
	}
	return l;
}

void layout_free(struct layout *l)
{
	if (!l)
		return;
	for (int cls = CLASS_NONE + 1; cls < CLASS_COUNT; cls++) {
		for (int i = 0; l->defaults[cls] && i < schema_class(cls)->field_count;
			i++)
			value_fini(&l->defaults[cls][i]);
		free(l->defaults[cls]);
	}
	free(l);
}
