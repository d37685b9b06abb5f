/* Changing fields: the same three functions for every class. */
#include "daemon/methods.h"

#include <string.h>

#include "daemon/args.h"
#include "daemon/daemon.h"
#include "daemon/fencing.h"
#include "rpc/message.h"

/* A template has no operations but cloning: one that runs could not be stopped. False:
 * the call has been failed. */
static bool write_may_template(struct call *c, const struct row *vm, struct txn *t)
{
	if (!rpc_map_get(call_record(c, "fields"), "is_a_template"))
		return true;
	if (db_enum(vm, VM_POWER_STATE) != VM_POWER_STATE_HALTED ||
		value_count(row_value(vm, VM_CURRENT_OPERATIONS))) {
		call_failf(c, RV_ESTATE,
			"VM %s is not Halted, or at work: only a halted VM can become a "
			"template; shut it down first",
			row_name(vm));
		return false;
	}
	txn_expect_enum(t, row_uuid(vm), VM_POWER_STATE, VM_POWER_STATE_HALTED);
	txn_expect_unset(t, row_uuid(vm), VM_CURRENT_OPERATIONS);
	return true;
}

/* To protect a VM that would never be started elsewhere is a promise that nobody keeps.
 * False: the call has been failed. */
static bool write_may_protect(struct call *c, const struct row *vm)
{
	const msgpack_object *o =
		rpc_map_get(call_record(c, "fields"), "ha_restart_priority");
	struct rv_error e;

	if (!o || o->type != MSGPACK_OBJECT_STR || o->via.str.size == 0 ||
		db_enum(vm, VM_HA_RESTART_PRIORITY) != VM_RESTART_PRIORITY_NONE ||
		!fencing_check(c->daemon, vm, &e))
		return true;
	call_fail(c, &e);
	return false;
}

void write_set_fields(struct call *c)
{
	const struct row *row = call_row(c, "self");
	struct txn t;

	if (!row || (c->method->cls == CLASS_VM && !write_may_protect(c, row)))
		return;
	txn_init(&t, pool_db(c->daemon->pool), loop_wall_ms(c->daemon->loop));
	txn_expect_exists(&t, c->method->cls, row_uuid(row));
	if (c->method->cls == CLASS_VM && !write_may_template(c, row, &t)) {
		txn_fini(&t);
		return;
	}
	if (!call_fields_to_txn(c, &t, call_record(c, "fields"), c->method->cls,
		    row_uuid(row), false)) {
		txn_fini(&t);
		return;
	}
	call_commit(c, &t, (struct value){.type = VALUE_NULL}, row_uuid(row));
}

/* The field of a set or map that the call names; NULL: the call has been failed. */
static const struct schema_field *write_collection(struct call *c)
{
	const struct schema_class *cls = schema_class(c->method->cls);
	const char *name = call_text(c, "field");
	const struct schema_field *f = schema_field_by_name(cls, name, strlen(name));

	if (!f) {
		call_failf(c, RV_EFIELD,
			"class %s has no field '%s'; `reeve help %s` lists them",
			cls->name, name, cls->name);
		return NULL;
	}
	if (f->writer != WRITER_USER) {
		call_failf(c, RV_EREADONLY, "%s.%s is kept by the pool itself", cls->name,
			name);
		return NULL;
	}
	if (f->type != VALUE_STRING_SET && f->type != VALUE_STRING_MAP) {
		call_failf(c, RV_EPARAM,
			"%s.%s is no set or map of strings, but %s; set it whole",
			cls->name, name, value_type_name(f->type));
		return NULL;
	}
	return f;
}

static void write_element(struct call *c, bool add)
{
	const struct row *row = call_row(c, "self");
	const struct schema_field *f;
	struct txn t;

	if (!row)
		return;
	f = write_collection(c);
	if (!f)
		return;
	txn_init(&t, pool_db(c->daemon->pool), loop_wall_ms(c->daemon->loop));
	txn_expect_exists(&t, c->method->cls, row_uuid(row));
	if (add && !*call_text(c, "key")) {
		txn_fini(&t);
		call_failf(c, RV_EPARAM, "%s %s: %s: the %s is empty; give it a name",
			schema_class(c->method->cls)->name, row_name(row), f->name,
			f->type == VALUE_STRING_MAP ? "key" : "element");
		return;
	}
	if (f->type == VALUE_STRING_MAP && add)
		txn_map_put(&t, row_uuid(row), f->id, call_text(c, "key"),
			call_text(c, "value"));
	else if (f->type == VALUE_STRING_MAP)
		txn_map_remove(&t, row_uuid(row), f->id, call_text(c, "key"));
	else if (add)
		txn_set_add(&t, row_uuid(row), f->id, call_text(c, "key"));
	else
		txn_set_remove(&t, row_uuid(row), f->id, call_text(c, "key"));
	call_commit(c, &t, (struct value){.type = VALUE_NULL}, row_uuid(row));
}

void write_add_to(struct call *c)
{
	write_element(c, true);
}

void write_remove_from(struct call *c)
{
	write_element(c, false);
}
