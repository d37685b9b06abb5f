/* How values keep their long parts: for value*.c only. */
#ifndef REEVE_POOL_DB_VALUE_PARTS_H
#define REEVE_POOL_DB_VALUE_PARTS_H

#include "pool/db/value.h"

struct value_text {
	uint32_t refs, len;
	char bytes[]; /* and a NUL; never of length 0: that is a NULL pointer */
};

struct value_list {
	size_t refs, count; /* of items; never 0: that is a NULL pointer */
	struct value_text *items[];
};

struct value_refs {
	size_t refs, count;
	struct uuid items[];
};

/* All items empty texts; one reference. NULL: out of memory. */
struct value_list *value_list_new(size_t count);
void value_list_release(struct value_list *l); /* NULL-safe */

#endif
