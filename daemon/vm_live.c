#include "daemon/vm_live.h"

#include <string.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/log.h"

/* Of one turn: a new master looks at all VMs of the pool. */
enum { VM_LIVE_BATCH = 256 };

/* The set of names for a set of bits. */
static int allowed_value(uint32_t bits, struct value *out)
{
	*out = value_zero(VALUE_STRING_SET);
	for (int op = 0; op < VM_OP_COUNT; op++) {
		const char *name = vm_operation_name((enum vm_operation)op);

		if ((bits & (1u << op)) && value_set_add(out, name, strlen(name))) {
			value_fini(out);
			return RV_ENOMEM;
		}
	}
	return 0;
}

/* Setting what it is already is no change, so this comes to rest. */
static void set_live(struct daemon *d, const struct row *vm, enum schema_field_id field,
	const struct value *v)
{
	struct rv_error e = {0};

	if (pool_set_live(d->pool, row_uuid(vm), field, v, &e))
		log_warn("daemon.vm-live", "vm=%s error=\"%s\"", row_name(vm), e.detail);
}

/* The walk must not change what it walks over: it only collects. */
static int vm_live_collect(void *arg, const struct change *c)
{
	return c->row ? buf_append(arg, &c->uuid, sizeof c->uuid) : 0;
}

/* The host that has the VM tells; the master, of a VM that is nowhere. */
static bool is_ours_to_tell(struct daemon *d, const struct row *vm)
{
	struct uuid on = db_ref(vm, VM_RESIDENT_ON);

	return uuid_is_none(&on) ? pool_is_master(d->pool) : uuid_eq(&on, &d->host);
}

static void vm_live_one(struct daemon *d, struct uuid uuid)
{
	const struct row *vm = db_row(pool_db(d->pool), CLASS_VM, uuid);
	struct value v;

	if (!vm || !is_ours_to_tell(d, vm) ||
		allowed_value(vm_allowed_now(d->vms, vm), &v))
		return;
	set_live(d, vm, VM_ALLOWED_OPERATIONS, &v);
	value_fini(&v);
	if (db_follow(pool_db(d->pool), vm, VM_RESIDENT_ON))
		return;
	v = value_int(0);
	set_live(d, vm, VM_MEMORY_ACTUAL, &v);
	set_live(d, vm, VM_MEMORY_TARGET, &v);
	v = value_float(0);
	set_live(d, vm, VM_CPU_UTILISATION, &v);
	v = value_zero(VALUE_STRING);
	set_live(d, vm, VM_MEMORY_STATE, &v);
}

/* Of what was collected, VM_LIVE_BATCH at most. */
static void vm_live_some(struct daemon *d)
{
	for (int i = 0; i < VM_LIVE_BATCH && buf_len(&d->vm_live_due); i++) {
		struct uuid uuid;

		memcpy(&uuid, buf_data(&d->vm_live_due), sizeof uuid);
		buf_consume(&d->vm_live_due, sizeof uuid);
		vm_live_one(d, uuid);
	}
}

/* Each VM is looked at as it is when its turn comes; one that changes after that is
 * collected again. */
static void vm_live_turn(void *arg)
{
	struct daemon *d = arg;
	enum changes_status status = CHANGES_NONE;
	int rc = 0;

	if (!buf_len(&d->vm_live_due))
		rc = changes_since(pool_db(d->pool), &d->vm_live_token,
			CHANGES_CLASS(CLASS_VM), VM_LIVE_BATCH, vm_live_collect,
			&d->vm_live_due, &status);
	if (rc) /* what was collected is looked at; the rest with the next change */
		log_warn("daemon.vm-live", "error=%s", rv_error_symbol(rc));
	vm_live_some(d);
	if (buf_len(&d->vm_live_due) || status == CHANGES_SOME || status == CHANGES_FRESH)
		timer_start_ms(&d->vm_live_turn, 0);
}

void vm_live_look(struct daemon *d)
{
	if (!timer_active(&d->vm_live_turn))
		vm_live_turn(d);
}

void vm_live_init(struct daemon *d)
{
	d->vm_live_token = (struct changes_token){0};
	buf_init(&d->vm_live_due, RV_MAX_OBJECTS * sizeof(struct uuid));
	timer_init(&d->vm_live_turn, d->loop, "daemon.vm-live", vm_live_turn, d);
}

void vm_live_fini(struct daemon *d)
{
	timer_stop(&d->vm_live_turn);
	buf_fini(&d->vm_live_due);
}
