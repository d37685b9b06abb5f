/* The pool's level: what the least of its living hosts understands. */
#include "daemon/level.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "applied.h"

static const struct uuid pool = {{9}}, host1 = {{1}}, host2 = {{2}};

static struct db *world(int level1, int level2)
{
	struct db *db = db_new(1);
	struct txn t;

	txn_init(&t, NULL, 1000);
	txn_create(&t, CLASS_POOL, pool);
	txn_create(&t, CLASS_HOST, host1);
	txn_set_int(&t, host1, HOST_LEVEL, level1);
	txn_create(&t, CLASS_HOST, host2);
	if (level2)
		txn_set_int(&t, host2, HOST_LEVEL, level2);
	must_apply(db, &t);
	return db;
}

static void is_due(int level1, int level2, int own, int due)
{
	struct db *db = world(level1, level2);

	assert_int_equal(level_due(db, own), due);
	db_free(db);
}

static void the_least_counts(void **state)
{
	(void)state;
	is_due(1, 1, 1, 0);
	is_due(2, 1, 2, 0);
	is_due(1, 2, 2, 0);
	is_due(2, 0, 2, 0); /* it has joined, and not said it yet */
	is_due(2, 2, 2, 2);
	is_due(3, 2, 3, 2);
	is_due(3, 3, 2, 2); /* the master itself knows no more */
}

static void the_dead_do_not(void **state)
{
	struct db *db = world(2, 1);
	struct txn t;

	(void)state;
	txn_init(&t, db, 1000);
	txn_set_bool(&t, host2, HOST_DECLARED_DEAD, true);
	must_apply(db, &t);
	assert_int_equal(level_due(db, 2), 2);
	db_free(db);
}

static void before_there_is_a_pool(void **state)
{
	struct db *db = db_new(1);

	(void)state;
	assert_int_equal(level_due(db, 2), 0);
	db_free(db);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_least_counts),
		cmocka_unit_test(the_dead_do_not),
		cmocka_unit_test(before_there_is_a_pool),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
