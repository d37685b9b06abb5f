#include "daemon/vm_methods.h"

#include <stdio.h>
#include <string.h>

#include "base/units.h"
#include "daemon/daemon.h"
#include "daemon/methods.h"
#include "daemon/tasks.h"
#include "rpc/message.h"
#include "vm/vm_op.h"

/* --- operations of vm/ --- */

static void on_accepted(void *arg, int rc, const struct rv_error *e)
{
	struct call *c = arg;

	if (rc)
		call_fail(c, e);
	else
		tasks_follow(c, c->request);
}

enum { BUSY_LOOK_MS = 20, BUSY_PATIENCE_MS = 20 * 1000 };

static void busy_look(void *arg)
{
	struct call *c = arg;

	methods_find(c->method->id)(c);
}

bool vm_busy_wait(struct call *c, const struct uuid *vm, int rc)
{
	struct daemon *d = c->daemon;
	const struct vm_op *other = rc == RV_EBUSY ? vm_op_of(d->vms, vm) : NULL;
	const struct row *task =
		other ? db_row(pool_db(d->pool), CLASS_TASK, other->task) : NULL;

	if (!task || vm_task_open(task) || c->busy_ms >= BUSY_PATIENCE_MS || call_keep(c))
		return false;
	c->busy_ms += BUSY_LOOK_MS;
	timer_init(&c->timer, d->loop, "rpc.vm.busy", busy_look, c);
	timer_start_ms(&c->timer, BUSY_LOOK_MS);
	return true;
}

/* The operation that a method starts; the names are the schema's and XenAPI's. */
static enum vm_operation operation_of(const struct schema_method *m)
{
	char name[64];
	int kind = 0;

	snprintf(name, sizeof name, "%s.%s", m->group, m->name);
	while (kind < VM_OP_COUNT &&
		strcmp(vm_operation_method((enum vm_operation)kind), name) != 0)
		kind++;
	return (enum vm_operation)kind;
}

static bool takes(const struct call *c, const char *name)
{
	return schema_arg_by_name(c->method, name, strlen(name)) != NULL;
}

void vm_operation(struct call *c)
{
	const struct row *row = call_row(c, "self");
	struct vm_op_args args = {.user = c->who.user};
	struct rv_error e = {0};
	int rc;

	if (!row)
		return;
	if (c->method->cls == CLASS_VM)
		args.vm = row_uuid(row);
	else
		args.device = row_uuid(row);
	args.origin = c->origin;
	if (takes(c, "on"))
		args.on = call_ref(c, "on");
	if (!uuid_is_none(&c->placed))
		args.on = c->placed;
	if (takes(c, "host"))
		args.on = call_ref(c, "host");
	if (takes(c, "sr"))
		args.sr = call_ref(c, "sr");
	if (takes(c, "start_paused"))
		args.start_paused = call_bool(c, "start_paused", false);
	if (takes(c, "disks"))
		args.with_disks = call_bool(c, "disks", false);
	if (takes(c, "timeout_ms"))
		args.timeout_ms = call_int(c, "timeout_ms", 0);
	if (takes(c, "new_name")) {
		args.new_name = call_text(c, "new_name");
		if (call_name_check(CLASS_VM, args.new_name, &e)) {
			call_fail(c, &e);
			return;
		}
	}
	rc = vm_op_start(c->daemon->vms, operation_of(c->method), &args, tasks_uuid(c),
		on_accepted, c, &e);
	if (rc && !vm_busy_wait(c, &args.vm, rc))
		call_fail(c, &e);
}

/* --- memory and CPUs --- */

/* The four limits, in bytes; static_min ≤ dynamic_min ≤ dynamic_max ≤ static_max. */
struct limits {
	int64_t static_min, dynamic_min, dynamic_max, static_max;
};

enum { MEMORY_MIN_BYTES = 16 << 20, VCPUS_LIMIT = 512 };
#define MEMORY_MAX_BYTES (INT64_C(64) << 40)

static struct limits limits_of(const struct row *vm)
{
	return (struct limits){db_int(vm, VM_MEMORY_STATIC_MIN),
		db_int(vm, VM_MEMORY_DYNAMIC_MIN), db_int(vm, VM_MEMORY_DYNAMIC_MAX),
		db_int(vm, VM_MEMORY_STATIC_MAX)};
}

/* Says which two limits contradict each other. */
static int limits_check(const struct limits *l, const char *name, struct rv_error *e)
{
	const struct {
		const char *name;
		int64_t bytes;
	} order[] = {{"", MEMORY_MIN_BYTES}, {"static-min", l->static_min},
		{"dynamic-min", l->dynamic_min}, {"dynamic-max", l->dynamic_max},
		{"static-max", l->static_max}, {"", MEMORY_MAX_BYTES}};
	char low[16], high[16];

	for (size_t i = 0; i + 1 < sizeof order / sizeof order[0]; i++) {
		if (order[i].bytes >= 0 && order[i].bytes <= order[i + 1].bytes)
			continue;
		if (order[i].bytes < 0 || order[i + 1].bytes < 0)
			return rv_error_set(
				e, RV_EINVAL, "VM %s: a memory limit is negative", name);
		units_format_bytes((uint64_t)order[i].bytes, low, sizeof low);
		units_format_bytes((uint64_t)order[i + 1].bytes, high, sizeof high);
		if (i == 0)
			return rv_error_set(e, RV_EINVAL,
				"VM %s: static-min (%s) is less than %s, the least that "
				"Xen can boot",
				name, high, low);
		if (i + 2 == sizeof order / sizeof order[0])
			return rv_error_set(e, RV_EINVAL,
				"VM %s: static-max (%s) is more than %s, the most that "
				"Xen can map",
				name, low, high);
		return rv_error_set(e, RV_EINVAL,
			"VM %s: %s (%s) is more than %s (%s); change them together: "
			"vm-memory-limits-set sets all four",
			name, order[i].name, low, order[i + 1].name, high);
	}
	return 0;
}

/* Halted, and nothing under way: a VM that is being started is still Halted, but its
 * domain is made of what it had before. */
static bool is_halted(struct call *c, const struct row *vm, const char *what)
{
	const struct value *current = row_value(vm, VM_CURRENT_OPERATIONS);

	if (db_enum(vm, VM_POWER_STATE) == VM_POWER_STATE_HALTED &&
		value_count(current)) {
		call_failf(c, RV_EBUSY,
			"VM %s: %s is in progress; change %s when that has ended",
			row_name(vm), value_at(current, 0), what);
		return false;
	}
	if (db_enum(vm, VM_POWER_STATE) == VM_POWER_STATE_HALTED)
		return true;
	call_failf(c, RV_ESTATE, "VM %s is %s: %s can be changed only while it is Halted",
		row_name(vm),
		schema_enum_text(schema_field(VM_POWER_STATE)->enum_texts,
			db_enum(vm, VM_POWER_STATE)),
		what);
	return false;
}

static void txn_expect_halted(struct txn *t, struct uuid vm)
{
	txn_expect_enum(t, vm, VM_POWER_STATE, VM_POWER_STATE_HALTED);
	txn_expect_unset(t, vm, VM_CURRENT_OPERATIONS);
}

static void on_limits_committed(struct call *c)
{
	struct uuid vm = call_ref(c, "self");

	vm_memory_changed(c->daemon->vms, &vm);
}

static void limits_commit(
	struct call *c, const struct row *vm, const struct limits *l, bool halted)
{
	struct rv_error e = {0};
	struct uuid uuid = row_uuid(vm);
	struct txn t;

	if (limits_check(l, row_name(vm), &e)) {
		call_fail(c, &e);
		return;
	}
	txn_init(&t, pool_db(c->daemon->pool), loop_wall_ms(c->daemon->loop));
	if (halted)
		txn_expect_halted(&t, uuid);
	else /* what was checked above must still be so */
		txn_expect_int(&t, uuid, VM_MEMORY_STATIC_MAX, l->static_max);
	txn_set_int(&t, uuid, VM_MEMORY_STATIC_MIN, l->static_min);
	txn_set_int(&t, uuid, VM_MEMORY_DYNAMIC_MIN, l->dynamic_min);
	txn_set_int(&t, uuid, VM_MEMORY_DYNAMIC_MAX, l->dynamic_max);
	txn_set_int(&t, uuid, VM_MEMORY_STATIC_MAX, l->static_max);
	c->committed = on_limits_committed;
	call_commit(c, &t, (struct value){.type = VALUE_NULL}, uuid);
}

void vm_set_memory_dynamic_range(struct call *c)
{
	const struct row *vm = call_row(c, "self");
	struct limits l;

	if (!vm)
		return;
	l = limits_of(vm);
	l.dynamic_min = call_int(c, "min", 0);
	l.dynamic_max = call_int(c, "max", 0);
	limits_commit(c, vm, &l, false);
}

void vm_set_memory_static_range(struct call *c)
{
	const struct row *vm = call_row(c, "self");
	struct limits l;

	if (!vm || !is_halted(c, vm, "its static memory range"))
		return;
	l = limits_of(vm);
	l.static_min = call_int(c, "min", 0);
	l.static_max = call_int(c, "max", 0);
	limits_commit(c, vm, &l, true);
}

void vm_set_memory_limits(struct call *c)
{
	const struct row *vm = call_row(c, "self");
	struct limits l;

	if (!vm || !is_halted(c, vm, "its memory limits"))
		return;
	l = (struct limits){call_int(c, "static_min", 0), call_int(c, "dynamic_min", 0),
		call_int(c, "dynamic_max", 0), call_int(c, "static_max", 0)};
	limits_commit(c, vm, &l, true);
}

static int vcpus_check(
	int64_t at_startup, int64_t max, const char *name, struct rv_error *e)
{
	if (at_startup >= 1 && at_startup <= max && max <= VCPUS_LIMIT)
		return 0;
	return rv_error_set(e, RV_EINVAL,
		"VM %s: VCPUs-at-startup (%lld) must be 1 to VCPUs-max (%lld), and that "
		"at most %d",
		name, (long long)at_startup, (long long)max, VCPUS_LIMIT);
}

void vm_set_vcpus(struct call *c)
{
	const struct row *vm = call_row(c, "self");
	int64_t max, at_startup;
	struct rv_error e = {0};
	struct txn t;

	if (!vm || !is_halted(c, vm, "its number of virtual CPUs"))
		return;
	max = call_int(c, "max", db_int(vm, VM_VCPUS_MAX));
	at_startup = call_int(c, "at_startup", db_int(vm, VM_VCPUS_AT_STARTUP));
	if (vcpus_check(at_startup, max, row_name(vm), &e)) {
		call_fail(c, &e);
		return;
	}
	txn_init(&t, pool_db(c->daemon->pool), loop_wall_ms(c->daemon->loop));
	txn_expect_halted(&t, row_uuid(vm));
	txn_set_int(&t, row_uuid(vm), VM_VCPUS_MAX, max);
	txn_set_int(&t, row_uuid(vm), VM_VCPUS_AT_STARTUP, at_startup);
	call_commit(c, &t, (struct value){.type = VALUE_NULL}, row_uuid(vm));
}

/* --- VM.create --- */

/* A field of the record, or `missing`. The type was checked by call_fields_to_txn. */
static int64_t record_int(const msgpack_object *record, const char *name, int64_t missing)
{
	const msgpack_object *o = rpc_map_get(record, name);

	if (!o || (o->type != MSGPACK_OBJECT_POSITIVE_INTEGER &&
			  o->type != MSGPACK_OBJECT_NEGATIVE_INTEGER))
		return missing;
	return o->via.i64;
}

/* Limits that the record leaves out follow from those it gives: static-max is the anchor;
 * dynamic-min and dynamic-max default to it (DMC is what an admin asks for). */
static struct limits record_limits(const msgpack_object *record)
{
	struct limits l;

	l.static_max = record_int(record, "memory_static_max",
		record_int(record, "memory_dynamic_max", (int64_t)(256 * MIB)));
	l.dynamic_max = record_int(record, "memory_dynamic_max", l.static_max);
	l.dynamic_min = record_int(record, "memory_dynamic_min", l.dynamic_max);
	l.static_min = record_int(record, "memory_static_min",
		l.dynamic_min < (int64_t)(16 * MIB) ? l.dynamic_min
						    : (int64_t)(16 * MIB));
	return l;
}

/* The name that a record must have. NULL: the call has been failed. */
static const char *record_name(
	struct call *c, const msgpack_object *record, char *name, size_t size)
{
	const msgpack_object *o = rpc_map_get(record, "name_label");

	if (!o || o->type != MSGPACK_OBJECT_STR || o->via.str.size == 0 ||
		o->via.str.size > RV_MAX_NAME_BYTES) {
		call_failf(c, RV_EPARAM,
			"record: name_label is needed, a text of 1 to %d bytes",
			RV_MAX_NAME_BYTES);
		return NULL;
	}
	snprintf(name, size, "%.*s", (int)o->via.str.size, o->via.str.ptr);
	return name;
}

void vm_create(struct call *c)
{
	const msgpack_object *record = call_record(c, "record");
	struct uuid uuid = uuid_random(loop_prng(c->daemon->loop));
	char name[RV_MAX_NAME_BYTES + 1];
	struct limits l = record_limits(record);
	struct rv_error e = {0};
	int64_t vcpus_max;
	struct txn t;

	if (!record_name(c, record, name, sizeof name))
		return;
	vcpus_max = record_int(
		record, "VCPUs_max", record_int(record, "VCPUs_at_startup", 1));
	if (limits_check(&l, name, &e) ||
		vcpus_check(record_int(record, "VCPUs_at_startup", vcpus_max), vcpus_max,
			name, &e)) {
		call_fail(c, &e);
		return;
	}
	txn_init(&t, pool_db(c->daemon->pool), loop_wall_ms(c->daemon->loop));
	txn_expect_name_free(&t, CLASS_VM, name);
	txn_create(&t, CLASS_VM, uuid);
	if (!call_fields_to_txn(c, &t, record, CLASS_VM, uuid, true)) {
		txn_fini(&t);
		return;
	}
	txn_set_int(&t, uuid, VM_MEMORY_STATIC_MIN, l.static_min);
	txn_set_int(&t, uuid, VM_MEMORY_DYNAMIC_MIN, l.dynamic_min);
	txn_set_int(&t, uuid, VM_MEMORY_DYNAMIC_MAX, l.dynamic_max);
	txn_set_int(&t, uuid, VM_MEMORY_STATIC_MAX, l.static_max);
	txn_set_int(&t, uuid, VM_VCPUS_MAX, vcpus_max);
	txn_set_int(&t, uuid, VM_VCPUS_AT_STARTUP,
		record_int(record, "VCPUs_at_startup", vcpus_max));
	call_commit(c, &t, value_ref(uuid), uuid);
}
