/*
 * Which numbers make sense: the bounds of fields and parameters that users may set and
 * that no method checks by itself. Pure.
 */
#ifndef REEVE_DAEMON_RANGES_H
#define REEVE_DAEMON_RANGES_H

#include "base/error.h"
#include "pool/db/schema.h"
#include "pool/db/value.h"

/* RV_EINVAL says the bounds. 0 for what has none here, and for what is no number. */
int range_field(const struct schema_field *f, const struct value *v,
	struct rv_error *e) RV_MUST_CHECK;
int range_arg(const struct schema_method *m, const struct schema_arg *arg,
	const struct value *v, struct rv_error *e) RV_MUST_CHECK;

#endif
