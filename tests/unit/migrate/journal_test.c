/*
 * The entries of a migration against a model of its phases: every sequence of up to five
 * of them, each applied as it comes. What the model forbids must change nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "migrate/journal.h"
#include "migrate/settle.h"

enum entry { STREAM, FINAL, COMMIT, ABORT, RETURNING, RETURN, END, ENTRIES };

static const struct uuid vm = {{1}}, source = {{2}}, target = {{3}}, task = {{4}};
static const struct hyper_domain_id theirs = {
	.boot_id = {{7}}, .domid = 9, .handle = {{8}}, .generation = 6};

struct model {
	enum vm_migration_phase phase; /* NONE: over */
	uint64_t generation;
	struct uuid owner;
};

/* What the entry makes of it; false: nothing. */
static bool model_apply(struct model *m, enum entry entry)
{
	bool open = m->phase == VM_MIGRATION_PHASE_PREPARE ||
		    m->phase == VM_MIGRATION_PHASE_STREAM;

	switch (entry) {
	case STREAM:
		if (m->phase != VM_MIGRATION_PHASE_PREPARE)
			return false;
		m->phase = VM_MIGRATION_PHASE_STREAM;
		return true;
	case FINAL:
		if (m->phase != VM_MIGRATION_PHASE_STREAM)
			return false;
		m->phase = VM_MIGRATION_PHASE_FINAL;
		return true;
	case COMMIT:
		if (m->phase != VM_MIGRATION_PHASE_FINAL)
			return false;
		m->phase = VM_MIGRATION_PHASE_COMMITTED;
		m->owner = target;
		m->generation = 6;
		return true;
	case ABORT:
		if (!open && m->phase != VM_MIGRATION_PHASE_FINAL)
			return false;
		m->phase = VM_MIGRATION_PHASE_ABORTED;
		return true;
	case RETURNING:
		return m->phase == VM_MIGRATION_PHASE_COMMITTED;
	case RETURN:
		if (m->phase != VM_MIGRATION_PHASE_COMMITTED)
			return false;
		m->phase = VM_MIGRATION_PHASE_ABORTED;
		m->owner = source;
		m->generation = 7;
		return true;
	default:
		if (m->phase == VM_MIGRATION_PHASE_NONE)
			return false;
		m->phase = VM_MIGRATION_PHASE_NONE;
		return true;
	}
}

static int apply(struct db *db, struct txn *t)
{
	struct db_result r;
	const uint8_t *bytes;
	struct rv_error e;
	size_t len;

	if (txn_finish(t, &bytes, &len, &e))
		fail_msg("%s", e.detail);
	assert_int_equal(db_apply(db, bytes, len, &r), 0);
	txn_fini(t);
	return r.verdict.code;
}

static void journal(struct journal *j)
{
	*j = (struct journal){.vm = vm,
		.migration = {{5}},
		.task = task,
		.source = source,
		.target = target,
		.generation = 5,
		.domain = {
			.boot_id = {{6}}, .domid = 4, .handle = {{7}}, .generation = 5}};
}

static struct db *begun(const struct journal *j)
{
	struct db *db = db_new(1);
	struct txn t;

	txn_init(&t, db, 0);
	txn_create(&t, CLASS_HOST, source);
	txn_create(&t, CLASS_HOST, target);
	txn_create(&t, CLASS_VM, vm);
	txn_set_ref(&t, vm, VM_RESIDENT_ON, source);
	txn_set_int(&t, vm, VM_OWNER_GENERATION, 5);
	txn_set_ref(&t, vm, VM_DOMAIN_HANDLE, j->domain.handle);
	assert_int_equal(apply(db, &t), 0);
	txn_init(&t, db, 0);
	txn_map_put(&t, vm, VM_INTENT_DATA, "generation", "5");
	journal_txn_begin(&t, j);
	assert_int_equal(apply(db, &t), 0);
	return db;
}

static int propose(struct db *db, const struct journal *j, enum entry entry)
{
	struct txn t;

	txn_init(&t, db, 0);
	switch (entry) {
	case STREAM:
		journal_txn_stream(&t, j);
		break;
	case FINAL:
		journal_txn_final(&t, j);
		break;
	case COMMIT:
		journal_txn_commit(db, &t, j, &theirs);
		break;
	case ABORT:
		journal_txn_abort(db, &t, j);
		break;
	case RETURNING:
		journal_txn_returning(&t, j);
		break;
	case RETURN:
		journal_txn_return(db, &t, j);
		break;
	default:
		journal_txn_end(&t, j);
	}
	return apply(db, &t);
}

static void compare(const struct db *db, const struct model *m, unsigned sequence)
{
	const struct row *row = db_row(db, CLASS_VM, vm);
	struct uuid on = db_ref(row, VM_RESIDENT_ON);

	if (db_enum(row, VM_MIGRATION_PHASE) != (int)m->phase ||
		(uint64_t)db_int(row, VM_OWNER_GENERATION) != m->generation ||
		!uuid_eq(&on, &m->owner))
		fail_msg("sequence %u: phase %d, generation %lld", sequence,
			db_enum(row, VM_MIGRATION_PHASE),
			(long long)db_int(row, VM_OWNER_GENERATION));
}

static void test_sequences(void **state)
{
	struct journal j;

	(void)state;
	journal(&j);
	for (unsigned sequence = 0; sequence < 7 * 7 * 7 * 7 * 7; sequence++) {
		struct db *db = begun(&j);
		struct model m = {VM_MIGRATION_PHASE_PREPARE, 5, source};

		for (unsigned left = sequence, n = 0; n < 5; n++, left /= ENTRIES) {
			bool may = model_apply(&m, left % ENTRIES);
			int rc = propose(db, &j, left % ENTRIES);

			if ((rc == 0) != may || (rc && rc != RV_ECONFLICT))
				fail_msg("sequence %u, entry %u: %s", sequence, n,
					rv_error_symbol(rc));
			compare(db, &m, sequence);
		}
		db_free(db);
	}
}

/* One that is proposed before another is applied loses to it: its expectations are of
 * then. Another migration's entries never count. */
static void test_races(void **state)
{
	static const enum entry pairs[][2] = {
		{COMMIT, ABORT}, {ABORT, COMMIT}, {ABORT, ABORT}, {COMMIT, COMMIT}};
	struct journal j, other;

	(void)state;
	journal(&j);
	other = j;
	other.migration.b[3] = 9;
	for (size_t i = 0; i < 4; i++) {
		struct db *db = begun(&j);
		struct txn first, second;

		assert_int_equal(propose(db, &j, STREAM), 0);
		assert_int_equal(propose(db, &j, FINAL), 0);
		for (int entry = 0; entry < ENTRIES; entry++)
			assert_int_equal(propose(db, &other, entry), RV_ECONFLICT);
		txn_init(&first, db, 0);
		txn_init(&second, db, 0);
		for (int n = 0; n < 2; n++) {
			struct txn *t = n ? &second : &first;

			if (pairs[i][n] == COMMIT)
				journal_txn_commit(db, t, &j, &theirs);
			else
				journal_txn_abort(db, t, &j);
		}
		assert_int_equal(apply(db, &first), 0);
		assert_int_equal(apply(db, &second), RV_ECONFLICT);
		db_free(db);
	}
}

/* Who takes up what, after each phase. */
static void test_settle(void **state)
{
	static const struct uuid third = {{99}};
	struct hyper_domain d = {.vm = vm, .state = HYPER_PAUSED};
	struct journal j;
	struct db *db;

	(void)state;
	journal(&j);
	db = begun(&j);
	for (int step = 0; step < 4; step++) {
		const struct row *row = db_row(db, CLASS_VM, vm);
		bool final = step == 2, committed = step == 3;

		assert_int_equal(settle_vm(row, &source), SETTLE_SOURCE);
		assert_int_equal(settle_vm(row, &target),
			committed ? SETTLE_TARGET : SETTLE_NOTHING);
		assert_int_equal(settle_vm(row, &third), SETTLE_NOTHING);
		d.id = j.domain;
		assert_int_equal(settle_domain(row, &source, &d), SETTLE_NOTHING);
		d.id = theirs;
		assert_int_equal(
			settle_domain(row, &target, &d), final	     ? SETTLE_TARGET
							 : committed ? SETTLE_NOTHING
								     : SETTLE_DESTROY);
		d.state = HYPER_RUNNING;
		assert_int_equal(settle_domain(row, &target, &d), SETTLE_NOTHING);
		d.state = HYPER_PAUSED;
		if (step < 3)
			assert_int_equal(propose(db, &j, (enum entry)step), 0);
	}
	assert_int_equal(propose(db, &j, END), 0);
	/* It runs at the target: what the source kept is stale. */
	d.id = j.domain;
	d.state = HYPER_SHUTDOWN;
	assert_int_equal(
		settle_domain(db_row(db, CLASS_VM, vm), &source, &d), SETTLE_DESTROY);
	db_free(db);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sequences),
		cmocka_unit_test(test_races),
		cmocka_unit_test(test_settle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
