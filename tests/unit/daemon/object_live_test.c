/* What the disks of a large SR come to: summed up some at a time, and right at rest. */
#include "daemon/object_live.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "applied.h"
#include "tests/unit/reactor/run_ms.h"

enum { DISKS = 6000, IN_ONE_ENTRY = 500, SIZE = 1000 };

static struct {
	struct daemon d;
	struct db *db;
	bool leads;
	int told;
} w;

const struct db *__wrap_pool_db(const struct pool *pool);
bool __wrap_pool_is_master(const struct pool *pool);
int __wrap_pool_set_live(struct pool *pool, struct uuid uuid, enum schema_field_id field,
	const struct value *v, struct rv_error *e);

const struct db *__wrap_pool_db(const struct pool *pool)
{
	(void)pool;
	return w.db;
}

bool __wrap_pool_is_master(const struct pool *pool)
{
	(void)pool;
	return w.leads;
}

int __wrap_pool_set_live(struct pool *pool, struct uuid uuid, enum schema_field_id field,
	const struct value *v, struct rv_error *e)
{
	(void)pool;
	w.told++;
	return db_set_live(w.db, uuid, field, v, e);
}

static struct uuid uuid_of(uint8_t kind, uint32_t n)
{
	struct uuid u = {{kind}};

	bytes_put_le32(u.b + 4, n);
	return u;
}

static struct uuid sr_of(uint32_t n)
{
	return uuid_of(3, n);
}

static struct uuid disk_of(uint32_t n)
{
	return uuid_of(4, n);
}

static void make(uint32_t from, uint32_t count, struct uuid sr)
{
	struct txn t;

	txn_init(&t, w.db, 1000);
	for (uint32_t i = from; i < from + count; i++) {
		txn_create(&t, CLASS_VDI, disk_of(i));
		txn_set_ref(&t, disk_of(i), VDI_SR, sr);
		txn_set_int(&t, disk_of(i), VDI_VIRTUAL_SIZE, SIZE);
	}
	must_apply(w.db, &t);
}

static int setup(void **state)
{
	struct rv_error e;
	struct txn t;

	(void)state;
	memset(&w, 0, sizeof w);
	w.leads = true;
	assert_int_equal(loop_new(&w.d.loop, &e), 0);
	w.db = db_new(1);
	txn_init(&t, NULL, 1000);
	txn_create(&t, CLASS_POOL, (struct uuid){{9}});
	for (uint32_t i = 0; i < 3; i++)
		txn_create(&t, CLASS_SR, sr_of(i));
	must_apply(w.db, &t);
	for (uint32_t n = 0; n < DISKS; n += IN_ONE_ENTRY)
		make(n, IN_ONE_ENTRY, sr_of(1));
	make(DISKS, 7, sr_of(2));
	object_live_init(&w.d);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	object_live_stop(&w.d);
	loop_free(w.d.loop);
	db_free(w.db);
	return 0;
}

static void turn(void)
{
	run_ms(w.d.loop, 0);
}

static void rest(void)
{
	for (int i = 0; timer_active(&w.d.object_live_turn); i++) {
		assert_in_range(i, 0, 10000);
		turn();
	}
}

static int64_t sum_of(uint32_t sr)
{
	return db_int(db_row(w.db, CLASS_SR, sr_of(sr)), SR_VIRTUAL_ALLOCATION);
}

/* All is told, and one disk changes: until it is in the middle of the large SR again. */
static void begin(void)
{
	struct txn t;

	object_live_look(&w.d);
	rest();
	txn_init(&t, w.db, 1500);
	txn_set_string(&t, disk_of(1), VDI_NAME_LABEL, "new");
	must_apply(w.db, &t);
	object_live_look(&w.d);
	for (int i = 0; w.d.sums.sum < DISKS / 4 * SIZE; i++) {
		assert_in_range(i, 0, 1000);
		turn();
	}
	assert_in_range(w.d.sums.sum, 1, (DISKS - 1) * SIZE);
}

static void each_is_told_its_own(void **state)
{
	(void)state;
	object_live_look(&w.d);
	assert_int_equal(sum_of(1), 0); /* not at once */
	rest();
	assert_int_equal(sum_of(0), 0);
	assert_int_equal(sum_of(1), DISKS * SIZE);
	assert_int_equal(sum_of(2), 7 * SIZE);
	w.told = 0;
	object_live_look(&w.d);
	rest();
	assert_int_equal(w.told, 0);
}

/* Before the place where it is, behind it, and that itself. */
static void changes_meanwhile_count(void **state)
{
	struct txn t;

	(void)state;
	begin();
	txn_init(&t, w.db, 2000);
	txn_set_int(&t, disk_of(0), VDI_VIRTUAL_SIZE, 5 * SIZE);
	txn_set_int(&t, disk_of(DISKS - 1), VDI_VIRTUAL_SIZE, 3 * SIZE);
	txn_delete(&t, CLASS_VDI, w.d.sums.vdi);
	must_apply(w.db, &t);
	object_live_look(&w.d);
	rest();
	assert_int_equal(sum_of(1), (DISKS + 5) * SIZE);
	assert_int_equal(sum_of(2), 7 * SIZE);
}

static void an_sr_that_goes(void **state)
{
	struct txn t;

	(void)state;
	begin();
	for (uint32_t n = 0; n < DISKS; n += IN_ONE_ENTRY) {
		txn_init(&t, w.db, 2000);
		for (uint32_t i = n; i < n + IN_ONE_ENTRY; i++)
			txn_delete(&t, CLASS_VDI, disk_of(i));
		must_apply(w.db, &t);
	}
	txn_init(&t, w.db, 2000);
	txn_delete(&t, CLASS_SR, sr_of(1));
	must_apply(w.db, &t);
	object_live_look(&w.d);
	rest();
	assert_int_equal(sum_of(2), 7 * SIZE);
}

/* Who leads no more tells nothing; who leads later does, with the next change. */
static void the_master_alone(void **state)
{
	(void)state;
	begin();
	w.leads = false;
	w.told = 0;
	rest();
	assert_int_equal(w.told, 0);
	w.leads = true;
	make(DISKS + 7, 1, sr_of(2));
	object_live_look(&w.d);
	rest();
	assert_int_equal(sum_of(1), DISKS * SIZE);
	assert_int_equal(sum_of(2), 8 * SIZE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_is_told_its_own, setup, teardown),
		cmocka_unit_test_setup_teardown(changes_meanwhile_count, setup, teardown),
		cmocka_unit_test_setup_teardown(an_sr_that_goes, setup, teardown),
		cmocka_unit_test_setup_teardown(the_master_alone, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
