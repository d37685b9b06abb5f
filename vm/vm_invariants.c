#include "vm/vm_invariants.h"

#include <string.h>
#include "vm/vm_op.h"

static bool judged(const struct vm_observed *o, const struct row *vm)
{
	return o->seq == UINT64_MAX || row_seq(vm) <= o->seq;
}

static bool is_owner(
	const struct row *vm, const struct vm_observed *o, const struct hyper_domain *d)
{
	struct uuid on = db_ref(vm, VM_RESIDENT_ON),
		    handle = db_ref(vm, VM_DOMAIN_HANDLE);

	return uuid_eq(&on, &o->host) && uuid_eq(&handle, &d->id.handle) &&
	       db_int(vm, VM_OWNER_GENERATION) == (int64_t)d->id.generation;
}

static int say_stray(const struct db *db, const struct vm_observed *o,
	const struct row *vm, const struct hyper_domain *d, struct rv_error *e)
{
	const struct row *on = db_follow(db, vm, VM_RESIDENT_ON),
			 *here = db_row(db, CLASS_HOST, o->host);
	bool dead = here && db_bool(here, HOST_DECLARED_DEAD);

	return rv_error_set(e, RV_EINTERNAL,
		"VM %s runs on host %s as domain %u (generation %llu), but the database "
		"says it is %s%s (generation %lld)%s. Its disks may be another domain's "
		"by now: look at both, and end the one that is not wanted (here: "
		"host-ghost-destroy host=%s domid=%u)",
		row_name(vm), here ? row_name(here) : "this one", d->id.domid,
		(unsigned long long)d->id.generation, on ? "on host " : "on no host",
		on ? row_name(on) : "", (long long)db_int(vm, VM_OWNER_GENERATION),
		dead ? ": this host was declared dead, and its VMs let go" : "",
		here ? row_name(here) : "NAME", d->id.domid);
}

/* 1: a VM runs on at most one host, and that is the owner the database names; two that
 * run can't both be that. */
static int check_owner(const struct db *db, const struct vm_observed *o,
	const struct hyper_domain *d, struct rv_error *e)
{
	const struct row *vm = db_row(db, CLASS_VM, d->vm);

	if (d->state != HYPER_RUNNING || !vm || !judged(o, vm))
		return 0;
	return is_owner(vm, o, d) ? 0 : say_stray(db, o, vm, d, e);
}

/* Whether `owner` builds for this VM: its task, or its migration to this host. */
static bool builds_for(const struct db *db, const struct uuid *owner, struct uuid uuid)
{
	const struct row *vm = db_row(db, CLASS_VM, uuid);
	struct uuid task = vm ? db_ref(vm, VM_INTENT_TASK) : UUID_NONE;
	struct uuid migration = vm ? db_ref(vm, VM_MIGRATION) : UUID_NONE;

	return uuid_eq(owner, &task) || uuid_eq(owner, &migration);
}

/* What reservations are being built into already: counted as used, too. */
static uint64_t building_kib(
	const struct db *db, const struct vm_observed *o, const struct uuid *owner)
{
	uint64_t sum = 0;
	struct memctl_view view;

	for (size_t i = 0; i < o->domain_count; i++)
		if (builds_for(db, owner, o->domains[i].vm) &&
			memctl_domain_get(o->memory, o->domains[i].id.domid, &view))
			sum += o->domains[i].actual_kib + o->domains[i].overhead_kib;
	return sum;
}

/* 2: promised and used fit into the host; targets are within their limits. */
static int check_memory(
	const struct db *db, const struct vm_observed *o, struct rv_error *e)
{
	uint64_t sum_kib = o->dom0_kib;
	int rc;

	for (size_t i = 0; i < o->domain_count; i++)
		sum_kib += o->domains[i].actual_kib + o->domains[i].overhead_kib;
	for (size_t i = 0; o->memory && i < memctl_reservation_count(o->memory); i++) {
		struct memctl_reservation r = memctl_reservation_at(o->memory, i);
		uint64_t built_kib = building_kib(db, o, &r.owner);

		if (r.granted && r.kib > built_kib)
			sum_kib += r.kib - built_kib;
	}
	if (o->total_kib && sum_kib > o->total_kib)
		return rv_error_set(e, RV_EINTERNAL,
			"memory used and promised is %llu KiB, the host has %llu",
			(unsigned long long)sum_kib, (unsigned long long)o->total_kib);
	if (!o->memory)
		return 0;
	for (size_t i = 0; i < memctl_domain_count(o->memory); i++) {
		struct memctl_view v = memctl_domain_at(o->memory, i);

		/* Below dynamic-min: memctl_check knows when that is owed, since an admin
		 * raised the limit and the memory is not there yet. */
		if (v.d.mode == MEMCTL_RUNNING && v.d.target_kib > v.d.static_max_kib)
			return rv_error_set(e, RV_EINTERNAL,
				"domain %u has the memory target %llu KiB, above its "
				"static-max %llu",
				v.d.domid, (unsigned long long)v.d.target_kib,
				(unsigned long long)v.d.static_max_kib);
	}
	rc = memctl_check(o->memory, e);
	return rc;
}

static bool task_pending(const struct db *db, struct uuid uuid)
{
	const struct row *task = db_row(db, CLASS_TASK, uuid);

	return task && vm_task_open(task);
}

/* 3: who holds memory is at work. What never was a task is an incoming migration, whose
 * end on this host is not in the database. */
static int check_reservations(
	const struct db *db, const struct vm_observed *o, struct rv_error *e)
{
	char text[UUID_TEXT_SIZE];

	for (size_t i = 0; o->memory && i < memctl_reservation_count(o->memory); i++) {
		struct memctl_reservation r = memctl_reservation_at(o->memory, i);

		if (db_row(db, CLASS_TASK, r.owner) && !task_pending(db, r.owner))
			return rv_error_set(e, RV_EINTERNAL,
				"operation %s has ended and still holds %llu KiB of "
				"memory",
				uuid_format(&r.owner, text), (unsigned long long)r.kib);
	}
	return 0;
}

/* 6: an operation that is current is pending, one that has ended is nobody's. */
static int check_operations(const struct db *db, const struct row *vm, struct rv_error *e)
{
	const struct value *current = row_value(vm, VM_CURRENT_OPERATIONS);
	struct uuid intent = db_ref(vm, VM_INTENT_TASK), task;

	for (size_t i = 0; i < value_count(current); i++) {
		const char *key = value_key_at(current, i);

		if (uuid_parse(&task, key, strlen(key)) || !task_pending(db, task))
			return rv_error_set(e, RV_EINTERNAL,
				"VM %s: its operation %s (%s) has ended but is still "
				"listed",
				row_name(vm), value_at(current, i), key);
	}
	if (!uuid_is_none(&intent) && !task_pending(db, intent))
		return rv_error_set(e, RV_EINTERNAL, "VM %s: its intent's task has ended",
			row_name(vm));
	if (db_enum(vm, VM_INTENT) != VM_INTENT_NONE && value_count(current) == 0)
		return rv_error_set(e, RV_EINTERNAL,
			"VM %s has an intent, but no operation", row_name(vm));
	return 0;
}

int vm_invariants_operations(const struct db *db, struct rv_error *e)
{
	for (const struct row *vm = NULL; (vm = db_next(db, CLASS_VM, vm));)
		if (check_operations(db, vm, e))
			return e->code;
	return 0;
}

int vm_invariants_hosts(const struct db *db, const struct vm_observed *hosts,
	size_t count, struct rv_error *e)
{
	for (size_t h = 0; h < count; h++) {
		for (size_t i = 0; i < hosts[h].domain_count; i++)
			if (check_owner(db, &hosts[h], &hosts[h].domains[i], e))
				return e->code;
		if (check_memory(db, &hosts[h], e) ||
			check_reservations(db, &hosts[h], e))
			return e->code;
	}
	return 0;
}

int vm_invariants_check(const struct db *db, const struct vm_observed *hosts,
	size_t count, struct rv_error *e)
{
	int rc = vm_invariants_hosts(db, hosts, count, e);

	return rc ? rc : vm_invariants_operations(db, e);
}
