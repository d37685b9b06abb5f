#include "migrate/journal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vm/vm_op.h"

/* Keys of VM.intent_data; "generation" is vm/'s own. */
#define KEY_SOURCE    "source"
#define KEY_DOMID     "domid"
#define KEY_HANDLE    "handle"
#define KEY_BOOT_ID   "boot_id"
#define KEY_RETURNING "returning"

/* --- reading --- */

static struct uuid read_uuid(const struct row *vm, const char *key)
{
	const char *text = db_map_get(vm, VM_INTENT_DATA, key);
	struct uuid uuid = UUID_NONE;

	if (text && uuid_parse(&uuid, text, strlen(text)))
		return UUID_NONE;
	return uuid;
}

static uint64_t read_int(const struct row *vm, const char *key, uint64_t otherwise)
{
	const char *text = db_map_get(vm, VM_INTENT_DATA, key);

	return text ? strtoull(text, NULL, 10) : otherwise;
}

bool journal_read(const struct row *vm, struct journal *j)
{
	*j = (struct journal){
		.vm = row_uuid(vm),
		.migration = db_ref(vm, VM_MIGRATION),
		.task = db_ref(vm, VM_INTENT_TASK),
		.source = read_uuid(vm, KEY_SOURCE),
		.target = db_ref(vm, VM_MIGRATION_TARGET),
		.generation = read_int(vm, "generation", 0),
		.phase = (enum vm_migration_phase)db_enum(vm, VM_MIGRATION_PHASE),
		.returning = db_map_get(vm, VM_INTENT_DATA, KEY_RETURNING) != NULL,
	};
	j->domain = (struct hyper_domain_id){
		.boot_id = read_uuid(vm, KEY_BOOT_ID),
		.domid = (uint32_t)read_int(vm, KEY_DOMID, HYPER_DOMID_ANY),
		.handle = read_uuid(vm, KEY_HANDLE),
		.generation = j->generation,
	};
	return !uuid_is_none(&j->migration);
}

enum journal_standing journal_standing(
	const struct db *db, const struct uuid *vm, const struct uuid *mine)
{
	const struct row *row = db_row(db, CLASS_VM, *vm);
	struct journal j;

	if (!row || !journal_read(row, &j) || !uuid_eq(&j.migration, mine))
		return JOURNAL_GONE;
	switch (j.phase) {
	case VM_MIGRATION_PHASE_PREPARE:
	case VM_MIGRATION_PHASE_STREAM:
		return JOURNAL_OPEN;
	case VM_MIGRATION_PHASE_FINAL:
		return JOURNAL_FINAL;
	case VM_MIGRATION_PHASE_COMMITTED:
		return JOURNAL_COMMITTED;
	case VM_MIGRATION_PHASE_ABORTED:
		return JOURNAL_ABORTED;
	case VM_MIGRATION_PHASE_NONE:
	case VM_MIGRATION_PHASE_COUNT:
		break;
	}
	return JOURNAL_GONE;
}

/* --- entries --- */

static void expect(struct txn *t, const struct journal *j, enum vm_migration_phase phase,
	uint64_t generation)
{
	txn_expect_ref(t, j->vm, VM_MIGRATION, j->migration);
	txn_expect_enum(t, j->vm, VM_MIGRATION_PHASE, (int)phase);
	txn_expect_int(t, j->vm, VM_OWNER_GENERATION, (int64_t)generation);
}

static void put_uuid(
	struct txn *t, const struct journal *j, const char *key, const struct uuid *u)
{
	char text[UUID_TEXT_SIZE];

	txn_map_put(t, j->vm, VM_INTENT_DATA, key, uuid_format(u, text));
}

void journal_txn_begin(struct txn *t, const struct journal *j)
{
	char text[24];

	txn_expect_unset(t, j->vm, VM_MIGRATION);
	txn_expect_ref(t, j->vm, VM_RESIDENT_ON, j->source);
	txn_set_ref(t, j->vm, VM_MIGRATION, j->migration);
	txn_set_enum(t, j->vm, VM_MIGRATION_PHASE, VM_MIGRATION_PHASE_PREPARE);
	txn_set_ref(t, j->vm, VM_MIGRATION_TARGET, j->target);
	put_uuid(t, j, KEY_SOURCE, &j->source);
	put_uuid(t, j, KEY_HANDLE, &j->domain.handle);
	put_uuid(t, j, KEY_BOOT_ID, &j->domain.boot_id);
	snprintf(text, sizeof text, "%u", j->domain.domid);
	txn_map_put(t, j->vm, VM_INTENT_DATA, KEY_DOMID, text);
}

void journal_txn_stream(struct txn *t, const struct journal *j)
{
	expect(t, j, VM_MIGRATION_PHASE_PREPARE, j->generation);
	txn_set_enum(t, j->vm, VM_MIGRATION_PHASE, VM_MIGRATION_PHASE_STREAM);
}

void journal_txn_final(struct txn *t, const struct journal *j)
{
	expect(t, j, VM_MIGRATION_PHASE_STREAM, j->generation);
	txn_set_enum(t, j->vm, VM_MIGRATION_PHASE, VM_MIGRATION_PHASE_FINAL);
}

void journal_txn_commit(const struct db *db, struct txn *t, const struct journal *j,
	const struct hyper_domain_id *id)
{
	expect(t, j, VM_MIGRATION_PHASE_FINAL, j->generation);
	txn_expect_ref(t, j->vm, VM_RESIDENT_ON, j->source);
	vm_txn_domain(db, t, j->vm, id, j->target);
	txn_set_enum(t, j->vm, VM_MIGRATION_PHASE, VM_MIGRATION_PHASE_COMMITTED);
	txn_set_ref(t, j->vm, VM_INTENT_HOST, j->target);
}

/* In whatever phase it is before the hand-over: the phase seen is expected, so that none
 * can slip in between. */
void journal_txn_abort(const struct db *db, struct txn *t, const struct journal *j)
{
	const struct row *vm = db_row(db, CLASS_VM, j->vm);
	enum vm_migration_phase phase = VM_MIGRATION_PHASE_FINAL;

	if (vm && journal_standing(db, &j->vm, &j->migration) == JOURNAL_OPEN)
		phase = (enum vm_migration_phase)db_enum(vm, VM_MIGRATION_PHASE);
	expect(t, j, phase, j->generation);
	txn_set_enum(t, j->vm, VM_MIGRATION_PHASE, VM_MIGRATION_PHASE_ABORTED);
}

void journal_txn_returning(struct txn *t, const struct journal *j)
{
	expect(t, j, VM_MIGRATION_PHASE_COMMITTED, j->generation + 1);
	txn_map_put(t, j->vm, VM_INTENT_DATA, KEY_RETURNING, "true");
}

void journal_txn_return(const struct db *db, struct txn *t, const struct journal *j)
{
	struct hyper_domain_id id = j->domain;

	id.generation = j->generation + 2;
	expect(t, j, VM_MIGRATION_PHASE_COMMITTED, j->generation + 1);
	vm_txn_domain(db, t, j->vm, &id, j->source);
	txn_set_enum(t, j->vm, VM_MIGRATION_PHASE, VM_MIGRATION_PHASE_ABORTED);
	txn_set_ref(t, j->vm, VM_INTENT_HOST, j->source);
}

void journal_txn_end(struct txn *t, const struct journal *j)
{
	txn_expect_ref(t, j->vm, VM_MIGRATION, j->migration);
	txn_set_ref(t, j->vm, VM_MIGRATION, UUID_NONE);
	txn_set_enum(t, j->vm, VM_MIGRATION_PHASE, VM_MIGRATION_PHASE_NONE);
	txn_set_ref(t, j->vm, VM_MIGRATION_TARGET, UUID_NONE);
}
