#include "vm/vm_lost.h"

#include <string.h>

#include "vm/vm.h"
#include "vm/vm_op.h"

static void end_task(const struct db *db, struct uuid task, const char *why,
	int64_t wall_ms, struct txn *t)
{
	const struct row *row = db_row(db, CLASS_TASK, task);

	if (!row || !vm_task_open(row))
		return;
	txn_expect_enum(t, task, TASK_STATUS, db_enum(row, TASK_STATUS));
	txn_set_time(t, task, TASK_FINISHED, wall_ms);
	txn_set_enum(t, task, TASK_STATUS, TASK_STATUS_FAILURE);
	txn_set_string(t, task, TASK_ERROR_CODE, rv_error_xenapi(RV_ECLOSED));
	txn_set_string(t, task, TASK_ERROR_DETAIL, why);
	txn_set_int(t, task, TASK_ERROR_NUMBER, -RV_ECLOSED);
}

static void end_operations(const struct db *db, const struct row *vm, const char *why,
	int64_t wall_ms, struct txn *t)
{
	const struct value *current = row_value(vm, VM_CURRENT_OPERATIONS);

	for (size_t i = 0; i < value_count(current); i++) {
		const char *key = value_key_at(current, i);
		struct uuid task;

		if (!uuid_parse(&task, key, strlen(key)))
			end_task(db, task, why, wall_ms, t);
		txn_map_remove(t, row_uuid(vm), VM_CURRENT_OPERATIONS, key);
	}
}

/* What stood in for the domain's devices and disks. */
static void let_go(const struct db *db, struct uuid vm, struct uuid host, struct txn *t)
{
	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VM, vm, r));) {
		const struct row *vdi = db_follow(db, r, VBD_VDI);
		struct uuid writer = vdi ? db_ref(vdi, VDI_WRITER) : UUID_NONE;

		if (db_bool(r, VBD_CURRENTLY_ATTACHED))
			txn_set_bool(t, row_uuid(r), VBD_CURRENTLY_ATTACHED, false);
		if (!uuid_is_none(&writer) && uuid_eq(&writer, &host))
			txn_set_ref(t, row_uuid(vdi), VDI_WRITER, UUID_NONE);
	}
	for (const struct row *r = NULL; (r = db_next_ref(db, VIF_VM, vm, r));)
		if (db_bool(r, VIF_CURRENTLY_ATTACHED))
			txn_set_bool(t, row_uuid(r), VIF_CURRENTLY_ATTACHED, false);
}

/* It was half written, or the guest may have run on: the VM needs its SR no more. One
 * that is whole, of a guest that had just been suspended, goes as well: whether all that
 * the guest had written was on its disks before its host died is not known, and memory
 * never meets disks of another moment. */
static void drop_image(const struct db *db, const struct row *vm, struct txn *t)
{
	struct uuid image = db_ref(vm, VM_SUSPEND_VDI);

	if (uuid_is_none(&image))
		return;
	txn_set_ref(t, row_uuid(vm), VM_SUSPEND_VDI, UUID_NONE);
	vm_txn_image_done(db, t, image, false);
}

/* --- what was being made there --- */

/* Images that nobody completes: they are no drive's, and deleted by whoever has their SR
 * (vm/). `drives`: all drives go, those with whole disks, too. */
static void undo_disks(const struct db *db, struct uuid vm, bool drives, struct txn *t)
{
	struct value none = value_zero(VALUE_STRING_MAP);

	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VM, vm, r));) {
		const struct row *vdi = db_follow(db, r, VBD_VDI);
		bool half = vdi && strcmp(db_string(vdi, VDI_INTENT), VM_VDI_MAKE) == 0;

		if (half) {
			txn_expect_string(t, row_uuid(vdi), VDI_INTENT, VM_VDI_MAKE);
			txn_set_string(t, row_uuid(vdi), VDI_INTENT, VM_VDI_DISCARD);
			txn_set_value(t, row_uuid(vdi), VDI_INTENT_DATA, &none);
		}
		if (half || drives)
			txn_delete(t, CLASS_VBD, row_uuid(r));
	}
}

static bool is_half_clone(const struct row *vm)
{
	const struct value *current = row_value(vm, VM_CURRENT_OPERATIONS);

	return db_enum(vm, VM_INTENT) == VM_INTENT_PROVISION &&
	       value_count(current) > 0 &&
	       vm_operation_by_name(value_at(current, 0)) == VM_OP_CLONE;
}

/* It never was a VM: it goes, with all it has, and its origin is free again. */
static void undo_clone(const struct db *db, const struct row *vm, const char *why,
	int64_t wall_ms, struct txn *t)
{
	const struct row *origin = db_follow(db, vm, VM_PARENT);
	const struct row *metrics = db_follow(db, vm, VM_METRICS);
	const char *key = value_key_at(row_value(vm, VM_CURRENT_OPERATIONS), 0);
	struct uuid uuid = row_uuid(vm), task;

	txn_expect_key(t, uuid, VM_CURRENT_OPERATIONS, key, NULL);
	if (!uuid_parse(&task, key, strlen(key)))
		end_task(db, task, why, wall_ms, t);
	if (origin && db_map_get(origin, VM_CURRENT_OPERATIONS, key))
		txn_map_remove(t, row_uuid(origin), VM_CURRENT_OPERATIONS, key);
	undo_disks(db, uuid, true, t);
	for (const struct row *r = NULL; (r = db_next_ref(db, VIF_VM, uuid, r));)
		txn_delete(t, CLASS_VIF, row_uuid(r));
	txn_delete(t, CLASS_VM, uuid);
	if (metrics)
		txn_delete(t, CLASS_VM_METRICS, row_uuid(metrics));
}

bool vm_lost_txn(const struct db *db, const struct row *vm, const char *why,
	int64_t wall_ms, struct txn *t)
{
	struct uuid uuid = row_uuid(vm), on = db_ref(vm, VM_RESIDENT_ON);
	struct uuid left = db_ref(vm, VM_DEVICES_LEFT_ON);
	struct value none = value_zero(VALUE_STRING_MAP);
	int64_t generation = db_int(vm, VM_OWNER_GENERATION);
	/* One that was being resumed is still suspended: its memory is on disk. */
	bool suspended = uuid_is_none(&on) &&
			 db_enum(vm, VM_POWER_STATE) == VM_POWER_STATE_SUSPENDED;

	txn_expect_ref(t, uuid, VM_RESIDENT_ON, on);
	txn_expect_int(t, uuid, VM_OWNER_GENERATION, generation);
	txn_expect_ref(t, uuid, VM_INTENT_HOST, db_ref(vm, VM_INTENT_HOST));
	if (is_half_clone(vm)) {
		undo_clone(db, vm, why, wall_ms, t);
		return false;
	}
	end_operations(db, vm, why, wall_ms, t);
	if (db_enum(vm, VM_INTENT) == VM_INTENT_PROVISION)
		undo_disks(db, uuid, false, t);
	if (uuid_is_none(&on))
		on = db_ref(vm, VM_INTENT_HOST);
	if (uuid_is_none(&left) || uuid_eq(&left, &on)) {
		let_go(db, uuid, on, t);
		txn_set_ref(t, uuid, VM_DEVICES_LEFT_ON, UUID_NONE);
	}
	if (!suspended) {
		txn_set_enum(t, uuid, VM_POWER_STATE, VM_POWER_STATE_HALTED);
		drop_image(db, vm, t);
	}
	txn_set_ref(t, uuid, VM_RESIDENT_ON, UUID_NONE);
	txn_set_int(t, uuid, VM_DOMID, -1);
	txn_set_ref(t, uuid, VM_DOMAIN_HANDLE, UUID_NONE);
	txn_set_ref(t, uuid, VM_HOST_BOOT_ID, UUID_NONE);
	txn_set_string(t, uuid, VM_PAUSED_BY, "");
	txn_set_bool(t, uuid, VM_ENDING, false);
	/* A domain of the next generation may have been half made there, and may have
	 * claimed disks. */
	txn_set_int(t, uuid, VM_OWNER_GENERATION, generation + 2);
	txn_set_int(t, uuid, VM_CLAIMS_VOID, generation + 1);
	txn_set_enum(t, uuid, VM_INTENT, VM_INTENT_NONE);
	txn_set_ref(t, uuid, VM_INTENT_TASK, UUID_NONE);
	txn_set_ref(t, uuid, VM_INTENT_HOST, UUID_NONE);
	txn_set_value(t, uuid, VM_INTENT_DATA, &none);
	txn_set_ref(t, uuid, VM_MIGRATION, UUID_NONE);
	txn_set_enum(t, uuid, VM_MIGRATION_PHASE, VM_MIGRATION_PHASE_NONE);
	txn_set_ref(t, uuid, VM_MIGRATION_TARGET, UUID_NONE);
	return true;
}

void vm_left_txn(const struct db *db, const struct row *vm, struct txn *t)
{
	struct uuid uuid = row_uuid(vm), host = db_ref(vm, VM_DEVICES_LEFT_ON);

	txn_expect_ref(t, uuid, VM_DEVICES_LEFT_ON, host);
	let_go(db, uuid, host, t);
	txn_set_ref(t, uuid, VM_DEVICES_LEFT_ON, UUID_NONE);
	txn_set_int(t, uuid, VM_CLAIMS_VOID, db_int(vm, VM_OWNER_GENERATION));
}
