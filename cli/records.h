/* Records of one class, fetched in one call and kept: filtered, sorted, printed. */
#ifndef REEVE_CLI_RECORDS_H
#define REEVE_CLI_RECORDS_H

#include "cli/cli.h"
#include "pool/db/schema.h"

enum { RECORDS_MAX_FIELDS = 128 };

struct record {
	struct uuid uuid;
	struct value *values; /* in the order of the fields */
};

struct records {
	const struct schema_class *cls;
	const struct schema_field *fields[RECORDS_MAX_FIELDS];
	int field_count;
	int shown; /* the first so many are printed; the rest is for filters and order */
	struct record *list;
	int count;
	struct value *values; /* of all, also of those filtered away */
	size_t value_count;
};

/* A condition typed as field=value or field:key=value. */
struct filter {
	const struct schema_field *field;
	const char *key; /* of a map, or NULL */
	size_t key_len;
	struct value value; /* of the field's type; of a set: a string to be in it */
};

void records_init(struct records *r, const struct schema_class *cls);
void records_fini(struct records *r);

/* The position of the field, which is added if it is not there. */
int records_want(struct records *r, const struct schema_field *f);

/* Takes what get_all_records returned. RV_EPROTO if it is something else. */
int records_take(
	struct records *r, const msgpack_object *value, struct rv_error *e) RV_MUST_CHECK;
/* Takes one record. */
int records_take_one(struct records *r, struct uuid uuid, const msgpack_object *record,
	struct rv_error *e) RV_MUST_CHECK;

bool filter_matches(const struct filter *f, const struct value *v);
void records_filter(struct records *r, const struct filter *filters, int count);

/* What they are sorted by, where it was wanted; NULL: nothing but the UUID. */
const struct schema_field *records_order(const struct schema_class *cls);
/* By name as people count (vm2 before vm10), messages by time; then by UUID. */
void records_sort(struct records *r);

#endif
