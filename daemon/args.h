/* Checks an RPC call's params against the schema and turns them into values. */
#ifndef REEVE_DAEMON_ARGS_H
#define REEVE_DAEMON_ARGS_H

#include "daemon/call.h"

/* Fills c->args, records, request, async, min_seq, consistent from c->req->params.
 * RV_EPARAM names the parameter and what the method takes. */
int args_read(struct call *c, struct rv_error *e) RV_MUST_CHECK;

/* One field's value from a client: known text for enums, an existing object for refs. */
int args_field_value(const struct db *db, const struct schema_field *f,
	const msgpack_object *o, struct value *out, struct rv_error *e) RV_MUST_CHECK;

#endif
