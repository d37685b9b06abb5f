/* event.from's source: once per object, nothing lost, across pages, instances and
 * generations. */
#include "world.h"

#include "base/limits.h"
#include "pool/db/changes.h"
#include "pool/db/snapshot.h"

enum { SEEN_MAX = 4000 };

struct seen {
	struct change changes[SEEN_MAX];
	unsigned count;
	int stop_at; /* -1: never */
};

static int see(void *arg, const struct change *c)
{
	struct seen *s = arg;

	assert_true(s->count < SEEN_MAX);
	assert_true((c->kind == CHANGE_DEL) == (c->row == NULL));
	if ((int)s->count == s->stop_at)
		return RV_ELIMIT;
	s->changes[s->count++] = *c;
	return 0;
}

static struct seen seen;

static enum changes_status ask(
	const struct db *db, struct changes_token *t, uint64_t classes, unsigned max)
{
	enum changes_status status;

	seen.count = 0;
	seen.stop_at = -1;
	assert_int_equal(changes_since(db, t, classes, max, see, &seen, &status), 0);
	return status;
}

static void rename_vm(struct db *db, unsigned n, const char *name)
{
	struct txn t;

	txn_init(&t, db, 0);
	txn_set_string(&t, nth(n), VM_NAME_LABEL, name);
	assert_int_equal(run(db, &t, NULL), 0);
}

static void delete_vm(struct db *db, unsigned n)
{
	struct txn t;

	txn_init(&t, db, 0);
	txn_delete(&t, CLASS_VM, nth(n));
	assert_int_equal(run(db, &t, NULL), 0);
}

static bool saw(unsigned i, enum change_kind kind, unsigned n)
{
	struct uuid uuid = nth(n);

	return i < seen.count && seen.changes[i].kind == kind &&
	       uuid_eq(&seen.changes[i].uuid, &uuid);
}

static void each_object_once_with_its_latest_state(void **state)
{
	struct db *db = db_new(1);
	struct changes_token t = changes_now(db);

	(void)state;
	make(db, CLASS_VM, 1, "a");
	make(db, CLASS_VM, 2, "b");
	rename_vm(db, 1, "a2");
	assert_true(changes_pending(db, &t));
	assert_int_equal(ask(db, &t, CHANGES_ALL, 100), CHANGES_SOME);
	assert_int_equal(seen.count, 2);
	assert_true(saw(0, CHANGE_ADD, 2));
	assert_true(saw(1, CHANGE_ADD, 1));
	assert_string_equal(row_name(seen.changes[1].row), "a2");
	assert_false(changes_pending(db, &t));
	assert_int_equal(ask(db, &t, CHANGES_ALL, 100), CHANGES_NONE);
	rename_vm(db, 1, "a3");
	delete_vm(db, 2);
	make(db, CLASS_VM, 3, "c");
	delete_vm(db, 3); /* came and went between two calls: no news */
	assert_int_equal(ask(db, &t, CHANGES_ALL, 100), CHANGES_SOME);
	assert_int_equal(seen.count, 2);
	assert_true(saw(0, CHANGE_MOD, 1));
	assert_true(saw(1, CHANGE_DEL, 2));
	rename_vm(db, 1, "a3"); /* nothing changed */
	assert_int_equal(ask(db, &t, CHANGES_ALL, 100), CHANGES_NONE);
	db_free(db);
}

static void classes_are_chosen(void **state)
{
	struct db *db = db_new(1);
	struct changes_token t = changes_now(db);

	(void)state;
	make(db, CLASS_VM, 1, "a");
	make(db, CLASS_HOST, 2, "h");
	assert_int_equal(ask(db, &t, CHANGES_CLASS(CLASS_HOST), 100), CHANGES_SOME);
	assert_int_equal(seen.count, 1);
	assert_true(saw(0, CHANGE_ADD, 2));
	rename_vm(db, 1, "b");
	assert_int_equal(ask(db, &t, CHANGES_CLASS(CLASS_HOST), 100), CHANGES_NONE);
	assert_int_equal(t.seq, db_seq(db));
	db_free(db);
}

static void owners_change_with_what_they_own(void **state)
{
	struct db *db = db_new(1);
	struct changes_token t;
	struct txn txn;

	(void)state;
	make(db, CLASS_VM, 1, "a");
	t = changes_now(db);
	txn_init(&txn, db, 0);
	txn_create(&txn, CLASS_VBD, nth(2));
	txn_set_ref(&txn, nth(2), VBD_VM, nth(1));
	assert_int_equal(run(db, &txn, NULL), 0);
	assert_int_equal(ask(db, &t, CHANGES_CLASS(CLASS_VM), 100), CHANGES_SOME);
	assert_true(saw(0, CHANGE_MOD, 1));
	db_free(db);
}

static void live_changes_come_after(void **state)
{
	struct db *db = db_new(1), *other = db_new(2);
	struct changes_token t, elsewhere;

	(void)state;
	make(db, CLASS_VM, 1, "a");
	make(other, CLASS_VM, 1, "a");
	t = changes_now(db);
	assert_int_equal(db_set_live_int(db, nth(1), VM_MEMORY_TARGET, 1), 0);
	assert_int_equal(db_set_live_int(db, nth(1), VM_MEMORY_TARGET, 2), 0);
	assert_true(changes_pending(db, &t));
	assert_int_equal(ask(db, &t, CHANGES_ALL, 100), CHANGES_SOME);
	assert_int_equal(seen.count, 1);
	assert_int_equal(db_int(seen.changes[0].row, VM_MEMORY_TARGET), 2);
	assert_int_equal(db_set_live_int(db, nth(1), VM_MEMORY_TARGET, 2), 0);
	assert_int_equal(ask(db, &t, CHANGES_ALL, 100), CHANGES_NONE);
	/* The same token at another host: what is live there is news. */
	assert_int_equal(db_set_live_int(other, nth(1), VM_MEMORY_TARGET, 3), 0);
	elsewhere = t;
	assert_int_equal(ask(other, &elsewhere, CHANGES_ALL, 100), CHANGES_SOME);
	assert_int_equal(seen.count, 1);
	assert_int_equal(ask(other, &elsewhere, CHANGES_ALL, 100), CHANGES_NONE);
	db_free(db);
	db_free(other);
}

static void tokens_ahead_wait(void **state)
{
	struct db *db = db_new(1), *behind = db_new(2);
	struct changes_token t;

	(void)state;
	make(db, CLASS_VM, 1, "a");
	make(db, CLASS_VM, 2, "b");
	make(behind, CLASS_VM, 1, "a");
	t = changes_now(db);
	assert_false(changes_pending(behind, &t));
	assert_int_equal(ask(behind, &t, CHANGES_ALL, 100), CHANGES_AHEAD);
	assert_int_equal(seen.count, 0);
	make(behind, CLASS_VM, 2, "b");
	assert_int_equal(ask(behind, &t, CHANGES_ALL, 100), CHANGES_NONE);
	db_free(db);
	db_free(behind);
}

static void other_generations_start_anew(void **state)
{
	struct db *db = db_new(1);
	struct changes_token t;
	struct txn txn;

	(void)state;
	make(db, CLASS_POOL, 1, "p");
	t = changes_now(db);
	txn_init(&txn, db, 0);
	txn_set_ref(&txn, nth(1), POOL_GENERATION_ID, nth(77));
	assert_int_equal(run(db, &txn, NULL), 0);
	assert_int_equal(ask(db, &t, CHANGES_ALL, 100), CHANGES_FRESH);
	assert_true(saw(0, CHANGE_ADD, 1));
	assert_int_equal(ask(db, &t, CHANGES_ALL, 100), CHANGES_NONE);
	db_free(db);
}

static void too_old_tokens_start_anew(void **state)
{
	struct db *db = db_new(1);
	struct changes_token t = changes_now(db), young;
	struct txn txn;
	unsigned n = 0;

	(void)state;
	make(db, CLASS_VM, 1, "stays");
	young = t;
	while (n < RV_MAX_CHANGE_HISTORY + 500) {
		txn_init(&txn, db, 0);
		for (unsigned i = 0; i < 500; i++)
			txn_create(&txn, CLASS_MESSAGE, nth(10 + i));
		assert_int_equal(run(db, &txn, NULL), 0);
		txn_init(&txn, db, 0);
		for (unsigned i = 0; i < 500; i++, n++)
			txn_delete(&txn, CLASS_MESSAGE, nth(10 + i));
		if (n <= 500)
			young = changes_now(db);
		assert_int_equal(run(db, &txn, NULL), 0);
	}
	t.instance = 99;
	assert_int_equal(ask(db, &t, CHANGES_ALL, 100), CHANGES_FRESH);
	assert_int_equal(seen.count, 1);
	assert_true(saw(0, CHANGE_ADD, 1));
	assert_int_equal(ask(db, &young, CHANGES_ALL, 100), CHANGES_FRESH);
	db_free(db);
}

/* Pages of a fresh start and of a backlog, with changes between them: a client that
 * follows knows in the end exactly what is there. */
static void clients_that_follow_know_all(void **state)
{
	struct db *db = db_new(1);
	struct changes_token t = {0};
	static bool known[1200];
	struct prng p;

	(void)state;
	prng_seed(&p, 5);
	memset(known, 0, sizeof known);
	for (unsigned i = 1; i < 1000; i++)
		make(db, CLASS_VM, i, "vm");
	for (int step = 0; step < 3000; step++) {
		unsigned n = (unsigned)prng_below(&p, 1199) + 1;

		if (step < 2500 && !db_row_any(db, nth(n)))
			make(db, CLASS_VM, n, "vm");
		else if (step < 2500 && prng_below(&p, 2))
			delete_vm(db, n);
		else if (step < 2500)
			rename_vm(db, n, step % 2 ? "x" : "y");
		ask(db, &t, CHANGES_ALL, 1 + (unsigned)prng_below(&p, 5));
		for (unsigned i = 0; i < seen.count; i++)
			for (unsigned k = 1; k < 1200; k++)
				if (saw(i, CHANGE_DEL, k))
					known[k] = false;
				else if (saw(i, CHANGE_ADD, k) || saw(i, CHANGE_MOD, k))
					known[k] = true;
	}
	assert_int_equal(ask(db, &t, CHANGES_ALL, 5), CHANGES_NONE);
	for (unsigned k = 1; k < 1200; k++)
		assert_int_equal(known[k], db_row_any(db, nth(k)) != NULL);
	db_free(db);
}

static void entries_are_not_torn_apart(void **state)
{
	struct db *db = db_new(1);
	struct changes_token t = changes_now(db);
	struct txn txn;

	(void)state;
	txn_init(&txn, db, 0);
	for (unsigned i = 1; i <= 5; i++)
		txn_create(&txn, CLASS_VM, nth(i));
	assert_int_equal(run(db, &txn, NULL), 0);
	make(db, CLASS_VM, 6, "next");
	assert_int_equal(ask(db, &t, CHANGES_ALL, 2), CHANGES_SOME);
	assert_int_equal(seen.count, 5);
	assert_int_equal(ask(db, &t, CHANGES_ALL, 2), CHANGES_SOME);
	assert_int_equal(seen.count, 1);
	/* Pages of a fresh start: each object once, in order. */
	t = (struct changes_token){0};
	assert_int_equal(ask(db, &t, CHANGES_ALL, 4), CHANGES_FRESH);
	assert_int_equal(seen.count, 4);
	assert_int_equal(ask(db, &t, CHANGES_ALL, 4), CHANGES_SOME);
	assert_int_equal(seen.count, 2);
	assert_true(saw(0, CHANGE_ADD, 5));
	assert_true(saw(1, CHANGE_ADD, 6));
	assert_int_equal(ask(db, &t, CHANGES_ALL, 4), CHANGES_NONE);
	db_free(db);
}

static void a_stopped_walk_keeps_the_token(void **state)
{
	struct db *db = db_new(1);
	struct changes_token t = changes_now(db), before = t;
	enum changes_status status;

	(void)state;
	make(db, CLASS_VM, 1, "a");
	make(db, CLASS_VM, 2, "b");
	seen.count = 0;
	seen.stop_at = 1;
	assert_int_equal(
		changes_since(db, &t, CHANGES_ALL, 9, see, &seen, &status), RV_ELIMIT);
	assert_memory_equal(&t, &before, sizeof t);
	db_free(db);
}

static void tokens_are_text(void **state)
{
	static const char *const bad[] = {"x", "1:2:3:4",
		"00000000-0000-0000-0000-000000000000",
		"00000000-0000-0000-0000-000000000000:",
		"00000000-0000-0000-0000-000000000000:1:2:",
		"00000000-0000-0000-0000-000000000000:1:2:3:",
		"00000000-0000-0000-0000-000000000000:1:2:3:4:5",
		"00000000-0000-0000-0000-000000000000:-1:2:3",
		"00000000-0000-0000-0000-000000000000:1:g:3",
		"00000000-0000-0000-0000-000000000000:18446744073709551616:2:3"};
	struct changes_token t = {.generation = nth(1),
				     .seq = UINT64_MAX,
				     .instance = UINT64_MAX,
				     .live = UINT64_MAX,
				     .resume = UINT64_MAX},
			     back;
	char text[CHANGES_TOKEN_SIZE];
	struct rv_error e;

	(void)state;
	for (int i = 0; i < 2; i++, t.resume = 0) {
		assert_int_equal(
			changes_token_parse(&back, changes_token_format(&t, text), &e),
			0);
		assert_memory_equal(&back, &t, sizeof t);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(changes_token_parse(&back, bad[i], &e), RV_EPARAM);
	assert_int_equal(changes_token_parse(&back, "", &e), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_object_once_with_its_latest_state),
		cmocka_unit_test(classes_are_chosen),
		cmocka_unit_test(owners_change_with_what_they_own),
		cmocka_unit_test(live_changes_come_after),
		cmocka_unit_test(tokens_ahead_wait),
		cmocka_unit_test(other_generations_start_anew),
		cmocka_unit_test(too_old_tokens_start_anew),
		cmocka_unit_test(clients_that_follow_know_all),
		cmocka_unit_test(entries_are_not_torn_apart),
		cmocka_unit_test(a_stopped_walk_keeps_the_token),
		cmocka_unit_test(tokens_are_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
