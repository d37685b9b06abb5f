/* What a new master says of every VM of a large pool: some at a time, and nothing lost
 * that changes meanwhile. */
#include "daemon/vm_live.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "applied.h"
#include "tests/unit/reactor/run_ms.h"

enum { VMS = 20000, IN_ONE_ENTRY = 5000, AT_ONCE = 600 };

static struct {
	struct daemon d;
	struct db *db;
	int looked, most, turns;
	uint8_t allowed[VMS]; /* how often each VM was looked at */
} w;

const struct db *__wrap_pool_db(const struct pool *pool);
bool __wrap_pool_is_master(const struct pool *pool);
uint32_t __wrap_vm_allowed_now(const struct vm_manager *m, const struct row *vm);
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
	return true;
}

static struct uuid uuid_of(uint32_t n)
{
	struct uuid u = {{7}};

	bytes_put_le32(u.b + 4, n);
	return u;
}

uint32_t __wrap_vm_allowed_now(const struct vm_manager *m, const struct row *vm)
{
	struct uuid uuid = row_uuid(vm);

	(void)m;
	w.looked++;
	w.allowed[bytes_get_le32(uuid.b + 4)]++;
	return 1u << VM_OP_START;
}

int __wrap_pool_set_live(struct pool *pool, struct uuid uuid, enum schema_field_id field,
	const struct value *v, struct rv_error *e)
{
	(void)pool;
	return db_set_live(w.db, uuid, field, v, e);
}

static void apply(struct txn *t)
{
	must_apply(w.db, t);
}

static int setup(void **state)
{
	struct rv_error e;

	(void)state;
	memset(&w, 0, sizeof w);
	assert_int_equal(loop_new(&w.d.loop, &e), 0);
	w.db = db_new(1);
	for (uint32_t n = 0; n < VMS; n += IN_ONE_ENTRY) {
		struct txn t;

		txn_init(&t, n ? w.db : NULL, 1000);
		if (!n)
			txn_create(&t, CLASS_POOL, (struct uuid){{9}});
		for (uint32_t i = n; i < n + IN_ONE_ENTRY; i++) {
			char name[32];

			snprintf(name, sizeof name, "vm%u", i);
			txn_create(&t, CLASS_VM, uuid_of(i));
			txn_set_string(&t, uuid_of(i), VM_NAME_LABEL, name);
		}
		apply(&t);
	}
	vm_live_init(&w.d);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	vm_live_fini(&w.d);
	loop_free(w.d.loop);
	db_free(w.db);
	return 0;
}

static void look(void)
{
	int before = w.looked;

	vm_live_look(&w.d);
	if (w.looked - before > w.most)
		w.most = w.looked - before;
}

/* One turn of the loop; what it looked at counts. */
static void turn(void)
{
	int before = w.looked;

	assert_true(timer_active(&w.d.vm_live_turn));
	run_ms(w.d.loop, 0);
	w.turns++;
	if (w.looked - before > w.most)
		w.most = w.looked - before;
}

static void rest(void)
{
	while (timer_active(&w.d.vm_live_turn))
		turn();
}

static void all_are_told_some_at_a_time(void **state)
{
	(void)state;
	look();
	assert_true(timer_active(&w.d.vm_live_turn));
	rest();
	assert_in_range(w.most, 1, AT_ONCE);
	assert_true(w.turns >= VMS / AT_ONCE);
	for (uint32_t i = 0; i < VMS; i++) {
		const struct row *vm = db_row(w.db, CLASS_VM, uuid_of(i));

		assert_true(w.allowed[i] > 0);
		assert_true(value_set_has(row_value(vm, VM_ALLOWED_OPERATIONS), "start"));
	}
	w.looked = 0; /* at rest: setting what it is already is no change */
	look();
	rest();
	assert_int_equal(w.looked, 0);
}

/* Meanwhile one changes that was looked at, one that was not, and one goes. */
static void changes_in_between_count(void **state)
{
	uint32_t seen = 0, unseen = VMS - 1, gone = VMS - 2;
	struct txn t;

	(void)state;
	look();
	for (int i = 0; i < 3; i++)
		turn();
	while (!w.allowed[seen])
		seen++;
	while (w.allowed[unseen])
		unseen--;
	for (gone = unseen - 1; w.allowed[gone];)
		gone--;
	w.allowed[seen] = 0;
	txn_init(&t, w.db, 2000);
	txn_set_string(&t, uuid_of(seen), VM_NAME_DESCRIPTION, "new");
	txn_set_string(&t, uuid_of(unseen), VM_NAME_DESCRIPTION, "new");
	txn_delete(&t, CLASS_VM, uuid_of(gone));
	apply(&t);
	look(); /* as the database tells of it */
	rest();
	assert_in_range(w.most, 1, AT_ONCE);
	assert_true(w.allowed[seen] > 0);
	assert_true(w.allowed[unseen] > 0);
	assert_int_equal(w.allowed[gone], 0);
	for (uint32_t i = 0; i < VMS; i++)
		assert_true(w.allowed[i] > 0 || i == gone);
}

/* The changes of one entry come all at once. */
static void a_large_entry(void **state)
{
	struct txn t;

	(void)state;
	look();
	rest();
	memset(w.allowed, 0, sizeof w.allowed);
	txn_init(&t, w.db, 2000);
	for (uint32_t i = 0; i < IN_ONE_ENTRY; i++)
		txn_set_string(&t, uuid_of(i), VM_NAME_DESCRIPTION, "new");
	apply(&t);
	look();
	rest();
	assert_in_range(w.most, 1, AT_ONCE);
	for (uint32_t i = 0; i < IN_ONE_ENTRY; i++)
		assert_true(w.allowed[i] > 0);
}

/* The role goes and comes again in the middle: from the start. */
static void begun_anew(void **state)
{
	(void)state;
	look();
	for (int i = 0; i < 5; i++)
		turn();
	memset(w.allowed, 0, sizeof w.allowed);
	w.d.vm_live_token = (struct changes_token){0};
	look();
	rest();
	assert_in_range(w.most, 1, AT_ONCE);
	for (uint32_t i = 0; i < VMS; i++)
		assert_true(w.allowed[i] > 0);
}

#define WITH_POOL(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_POOL(all_are_told_some_at_a_time),
		WITH_POOL(changes_in_between_count),
		WITH_POOL(a_large_entry),
		WITH_POOL(begun_anew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
