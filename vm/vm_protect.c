#include "vm/vm_protect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vm/vm_lost.h"
#include "vm/vm_op.h"

bool vm_is_protected(const struct row *vm)
{
	return db_enum(vm, VM_HA_RESTART_PRIORITY) != VM_RESTART_PRIORITY_NONE;
}

const char *vm_armed_text(
	const struct db *db, const struct row *vm, char text[static VM_ARMED_SIZE])
{
	struct uuid generation = db_ref(db_pool(db), POOL_GENERATION_ID);
	char uuid[UUID_TEXT_SIZE];

	snprintf(text, VM_ARMED_SIZE, "%lld@%s",
		(long long)db_int(vm, VM_OWNER_GENERATION),
		uuid_format(&generation, uuid));
	return text;
}

bool vm_is_armed(const struct db *db, const struct row *vm)
{
	char text[VM_ARMED_SIZE];

	return db_pool(db) &&
	       strcmp(db_string(vm, VM_HA_ARMED), vm_armed_text(db, vm, text)) == 0;
}

/* --- on the host where it runs --- */

bool vm_pool_is_alone(const struct db *db)
{
	unsigned hosts = 0;

	for (const struct row *h = NULL; hosts < 2 && (h = db_next(db, CLASS_HOST, h));)
		hosts += db_enum(h, HOST_KIND) == HOST_KIND_HOST;
	return hosts < 2;
}

bool vm_wants_guard(const struct db *db, const struct row *vm)
{
	return vm_is_protected(vm) && !vm_pool_is_alone(db);
}

bool vm_is_to_be_guarded(const struct db *db, const struct row *vm)
{
	return vm_wants_guard(db, vm) || vm_is_armed(db, vm);
}

bool vm_arm_txn(const struct db *db, const struct row *vm, struct uuid host, bool guarded,
	bool lost, struct txn *t)
{
	bool armed = vm_is_armed(db, vm);
	bool arm = vm_wants_guard(db, vm) && (armed ? !lost : guarded);
	char text[VM_ARMED_SIZE];

	if (arm == armed)
		return false;
	txn_expect_ref(t, row_uuid(vm), VM_RESIDENT_ON, host);
	txn_expect_int(
		t, row_uuid(vm), VM_OWNER_GENERATION, db_int(vm, VM_OWNER_GENERATION));
	txn_expect_enum(t, row_uuid(vm), VM_HA_RESTART_PRIORITY,
		db_enum(vm, VM_HA_RESTART_PRIORITY));
	txn_set_string(
		t, row_uuid(vm), VM_HA_ARMED, arm ? vm_armed_text(db, vm, text) : "");
	return true;
}

/* --- letting go of a silent host's VMs --- */

/* One UUID for each VM of an entry, from the one that was drawn. */
bool vm_restart_due_txn(const struct row *vm, struct uuid entry, struct txn *t)
{
	struct uuid task = row_uuid(vm);

	txn_expect_enum(t, row_uuid(vm), VM_HA_RESTART_PRIORITY,
		db_enum(vm, VM_HA_RESTART_PRIORITY));
	txn_expect_enum(t, row_uuid(vm), VM_INTENT, db_enum(vm, VM_INTENT));
	if (!vm_is_protected(vm) || db_enum(vm, VM_INTENT) == VM_INTENT_SHUTDOWN ||
		db_bool(vm, VM_ENDING))
		return false;
	for (size_t i = 0; i < sizeof task.b; i++)
		task.b[i] ^= entry.b[i];
	txn_set_ref(t, row_uuid(vm), VM_HA_RESTART_TASK, task);
	return true;
}

/* VMs whose start was under way there: no domain of theirs was recorded, so none was let
 * run, and once this is committed none can be. */
static void release_starts(const struct db *db, struct uuid host, const char *why,
	struct uuid entry, int64_t wall_ms, struct vm_release *out, struct txn *t)
{
	for (const struct row *vm = NULL;
		(vm = db_next_ref(db, VM_INTENT_HOST, host, vm));) {
		struct uuid on = db_ref(vm, VM_RESIDENT_ON);
		int intent = db_enum(vm, VM_INTENT);

		if (!vm_is_protected(vm) || !uuid_is_none(&on) ||
			(intent != VM_INTENT_START && intent != VM_INTENT_RESUME) ||
			out->freed_count == VM_RELEASED_MAX ||
			!vm_lost_txn(db, vm, why, wall_ms, t))
			continue;
		vm_restart_due_txn(vm, entry, t);
		out->freed[out->freed_count++] = vm;
	}
}

void vm_release_txn(const struct db *db, const struct row *host, struct uuid entry,
	int64_t wall_ms, struct vm_release *out, struct txn *t)
{
	struct uuid uuid = row_uuid(host);
	char why[160];

	*out = (struct vm_release){.freed_count = 0};
	snprintf(why, sizeof why,
		"host %.64s, where it was at work, was lost, and the VM was fenced",
		row_name(host));
	for (const struct row *vm = NULL;
		(vm = db_next_ref(db, VM_RESIDENT_ON, uuid, vm));) {
		if (!vm_is_protected(vm))
			continue;
		if (!vm_is_armed(db, vm)) {
			if (out->left_count < VM_RELEASE_LEFT)
				out->left[out->left_count] = vm;
			out->left_count++;
			continue;
		}
		if (out->freed_count == VM_RELEASED_MAX)
			continue; /* with the next entry */
		txn_expect_string(
			t, row_uuid(vm), VM_HA_ARMED, db_string(vm, VM_HA_ARMED));
		if (!vm_lost_txn(db, vm, why, wall_ms, t))
			continue;
		vm_restart_due_txn(vm, entry, t);
		out->freed[out->freed_count++] = vm;
	}
	release_starts(db, uuid, why, entry, wall_ms, out, t);
}

/* --- asking for the start --- */

/* It has ended just now. By which clock? Another host's, and either may have been set
 * since: what is farther off than that tells nothing. */
static bool is_fresh(const struct row *task, int64_t wall_ms)
{
	return llabs(wall_ms - db_int(task, TASK_FINISHED)) < VM_RESTART_AGAIN_MS;
}

struct vm_restart_step vm_restart_look(const struct db *db, const struct row *vm,
	const struct vm_restart_refusal *refusal, int64_t wall_ms)
{
	struct uuid task = db_ref(vm, VM_HA_RESTART_TASK),
		    on = db_ref(vm, VM_RESIDENT_ON);
	const struct row *row = db_row(db, CLASS_TASK, task);
	bool suspended = db_enum(vm, VM_POWER_STATE) == VM_POWER_STATE_SUSPENDED;
	bool down = suspended || db_enum(vm, VM_POWER_STATE) == VM_POWER_STATE_HALTED;
	bool waits = uuid_is_none(&on) && down;
	bool ended = row && !vm_task_open(row);
	bool success = ended && db_enum(row, TASK_STATUS) == TASK_STATUS_SUCCESS;
	struct vm_restart_step step = {.what = VM_RESTART_WAIT,
		.resume = suspended,
		.again = db_enum(vm, VM_HA_RESTART_PRIORITY) ==
			 VM_RESTART_PRIORITY_RESTART};

	/* At work: this request, or another's, which may come to nothing. */
	if ((row && !ended) || (down && db_enum(vm, VM_INTENT) != VM_INTENT_NONE))
		return step;
	if (success && !waits)
		step.what = VM_RESTART_STARTED;
	else if (!waits || success || !vm_is_protected(vm))
		step.what = VM_RESTART_OVER;
	else if (!ended && !refusal)
		step.what = VM_RESTART_ASK;
	else if (ended && is_fresh(row, wall_ms))
		return step;
	else if (!ended && refusal->since_ms < VM_RESTART_AGAIN_MS)
		return step;
	else
		step.what = VM_RESTART_FAILED;
	if (step.what == VM_RESTART_FAILED)
		step.why = ended ? db_string(row, TASK_ERROR_DETAIL) : refusal->why;
	return step;
}

void vm_restart_txn(const struct row *vm, struct uuid task, struct txn *t)
{
	txn_expect_ref(
		t, row_uuid(vm), VM_HA_RESTART_TASK, db_ref(vm, VM_HA_RESTART_TASK));
	txn_set_ref(t, row_uuid(vm), VM_HA_RESTART_TASK, task);
}

void vm_restart_drop_txn(const struct row *vm, struct txn *t)
{
	struct uuid task = db_ref(vm, VM_HA_RESTART_TASK);

	if (!uuid_is_none(&task))
		txn_set_ref(t, row_uuid(vm), VM_HA_RESTART_TASK, UUID_NONE);
}
