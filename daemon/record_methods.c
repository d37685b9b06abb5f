/* Objects that are records and nothing else: messages, secrets, networks, PBDs. */
#include "daemon/methods.h"

#include <stdio.h>
#include <string.h>

#include "daemon/daemon.h"
#include "net/net.h"
#include "pool/db/message.h"
#include "rpc/message.h"

/* Deletes the object; what still refers to it is named by the database. */
static void record_delete(struct call *c)
{
	const struct row *row = call_row(c, "self");
	struct txn t;

	if (!row)
		return;
	txn_init(&t, pool_db(c->daemon->pool), loop_wall_ms(c->daemon->loop));
	txn_delete(&t, c->method->cls, row_uuid(row));
	call_commit(c, &t, (struct value){.type = VALUE_NULL}, row_uuid(row));
}

void message_create(struct call *c)
{
	struct uuid uuid = uuid_random(loop_prng(c->daemon->loop));
	int64_t priority = call_int(c, "priority", 3);
	struct txn t;

	if (priority < 1 || priority > 5) {
		call_failf(c, RV_EINVAL, "priority: 1 (act now) to 5 (for the record)");
		return;
	}
	txn_init(&t, pool_db(c->daemon->pool), loop_wall_ms(c->daemon->loop));
	message_add(&t, uuid,
		&(struct message){.name = call_text(c, "name"),
			.priority = priority,
			.cls = call_text(c, "cls"),
			.obj = call_ref(c, "obj_uuid"),
			.body = call_text(c, "body")});
	call_commit(c, &t, value_ref(uuid), uuid);
}

void message_destroy(struct call *c)
{
	record_delete(c);
}

void secret_create(struct call *c)
{
	struct uuid uuid = uuid_random(loop_prng(c->daemon->loop));
	struct txn t;

	txn_init(&t, pool_db(c->daemon->pool), loop_wall_ms(c->daemon->loop));
	txn_create(&t, CLASS_SECRET, uuid);
	txn_set_string(&t, uuid, SECRET_VALUE, call_text(c, "value"));
	call_commit(c, &t, value_ref(uuid), uuid);
}

void secret_destroy(struct call *c)
{
	record_delete(c);
}

void network_create(struct call *c)
{
	const msgpack_object *record = call_record(c, "record");
	const msgpack_object *bridge = rpc_map_get(record, "bridge");
	const msgpack_object *name = rpc_map_get(record, "name_label");
	struct uuid uuid = uuid_random(loop_prng(c->daemon->loop));
	char label[RV_MAX_NAME_BYTES + 1], text[64];
	struct rv_error e = {0};
	struct txn t;

	if (!name || name->type != MSGPACK_OBJECT_STR || name->via.str.size == 0 ||
		name->via.str.size > RV_MAX_NAME_BYTES) {
		call_failf(c, RV_EPARAM,
			"record: name_label is needed, a text of 1 to %d bytes",
			RV_MAX_NAME_BYTES);
		return;
	}
	snprintf(label, sizeof label, "%.*s", (int)name->via.str.size, name->via.str.ptr);
	if (bridge && bridge->type == MSGPACK_OBJECT_STR && bridge->via.str.size) {
		snprintf(text, sizeof text, "%.*s", (int)bridge->via.str.size,
			bridge->via.str.ptr);
		if (net_name_check(text, "bridge", &e)) {
			call_fail(c, &e);
			return;
		}
	} else {
		net_bridge_name(&uuid, text);
	}
	txn_init(&t, pool_db(c->daemon->pool), loop_wall_ms(c->daemon->loop));
	txn_expect_name_free(&t, CLASS_NETWORK, label);
	txn_create(&t, CLASS_NETWORK, uuid);
	if (!call_fields_to_txn(c, &t, record, CLASS_NETWORK, uuid, true)) {
		txn_fini(&t);
		return;
	}
	txn_set_string(&t, uuid, NETWORK_BRIDGE, text);
	call_commit(c, &t, value_ref(uuid), uuid);
}

static bool record_ref(
	struct call *c, const char *name, enum schema_class_id cls, struct uuid *out)
{
	const msgpack_object *o = rpc_map_get(call_record(c, "record"), name);

	if (o && o->type == MSGPACK_OBJECT_STR &&
		!uuid_parse(out, o->via.str.ptr, o->via.str.size) &&
		db_row(pool_db(c->daemon->pool), cls, *out))
		return true;
	call_failf(c, RV_EPARAM, "record: %s is needed, the UUID of a %s", name,
		schema_class(cls)->name);
	return false;
}

void pbd_create(struct call *c)
{
	const struct db *db = pool_db(c->daemon->pool);
	struct uuid uuid = uuid_random(loop_prng(c->daemon->loop)), host, sr;
	struct txn t;

	if (!record_ref(c, "host", CLASS_HOST, &host) ||
		!record_ref(c, "SR", CLASS_SR, &sr))
		return;
	for (const struct row *pbd = db_next_ref(db, PBD_SR, sr, NULL); pbd;
		pbd = db_next_ref(db, PBD_SR, sr, pbd)) {
		struct uuid other = db_ref(pbd, PBD_HOST);

		if (!uuid_eq(&other, &host))
			continue;
		call_failf(c, RV_EEXIST, "host %s has a PBD to SR %s already: %s",
			row_name(db_row(db, CLASS_HOST, host)),
			row_name(db_row(db, CLASS_SR, sr)), row_name(pbd));
		return;
	}
	txn_init(&t, db, loop_wall_ms(c->daemon->loop));
	txn_create(&t, CLASS_PBD, uuid);
	if (!call_fields_to_txn(c, &t, call_record(c, "record"), CLASS_PBD, uuid, true)) {
		txn_fini(&t);
		return;
	}
	call_commit(c, &t, value_ref(uuid), uuid);
}

void pbd_destroy(struct call *c)
{
	const struct row *pbd = call_row(c, "self");

	if (!pbd)
		return;
	if (db_bool(pbd, PBD_CURRENTLY_ATTACHED)) {
		call_failf(
			c, RV_EBUSY, "PBD %s is plugged; unplug it first", row_name(pbd));
		return;
	}
	record_delete(c);
}
