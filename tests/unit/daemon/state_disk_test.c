/* When the disk of the state directory counts as nearly full, and for which VMs that is a
 * danger. */
#include "daemon/state_disk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "applied.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

/* A tenth of a small disk. */
static void test_small(void **state)
{
	(void)state;
	assert_false(state_disk_is_low(false, 10 * MIB, 100 * MIB));
	assert_true(state_disk_is_low(false, 10 * MIB - 1, 100 * MIB));
	assert_true(state_disk_is_low(false, 0, 100 * MIB));
}

/* A GiB of a large one, however large. */
static void test_large(void **state)
{
	(void)state;
	assert_false(state_disk_is_low(false, GIB, 10 * GIB));
	assert_false(state_disk_is_low(false, GIB, 100 * GIB));
	assert_true(state_disk_is_low(false, GIB - 1, 100 * GIB));
	assert_true(state_disk_is_low(false, GIB - 1, UINT64_MAX));
}

/* It is not told again and again of a disk that is just about there. */
static void test_stays(void **state)
{
	(void)state;
	assert_true(state_disk_is_low(true, GIB + GIB / 4 - 1, 100 * GIB));
	assert_false(state_disk_is_low(true, GIB + GIB / 4, 100 * GIB));
	assert_true(state_disk_is_low(true, 12 * MIB, 100 * MIB));
	assert_false(state_disk_is_low(true, 13 * MIB, 100 * MIB));
}

/* A file system that tells no size. */
static void test_unknown(void **state)
{
	(void)state;
	assert_false(state_disk_is_low(false, 0, 0));
}

/* --- what is in danger --- */

static struct uuid make_host(struct txn *t, uint8_t n, enum host_kind kind)
{
	struct uuid host = {.b = {n}};

	txn_create(t, CLASS_HOST, host);
	txn_set_enum(t, host, HOST_KIND, (int)kind);
	return host;
}

static void make_vm(
	struct txn *t, uint8_t n, struct uuid host, enum vm_restart_priority priority)
{
	struct uuid vm = {.b = {n}};

	txn_create(t, CLASS_VM, vm);
	txn_set_ref(t, vm, VM_RESIDENT_ON, host);
	txn_set_enum(t, vm, VM_HA_RESTART_PRIORITY, (int)priority);
}

/* Only protected VMs that are there, and only where another host can start them: a
 * witness can't. */
static void test_endangers(void **state)
{
	struct uuid a, b, witness;
	struct db *db = db_new(1);
	struct txn t;

	(void)state;
	assert_non_null(db);
	txn_init(&t, db, 0);
	a = make_host(&t, 1, HOST_KIND_HOST);
	witness = make_host(&t, 2, HOST_KIND_WITNESS);
	make_vm(&t, 10, a, VM_RESTART_PRIORITY_NONE);
	make_vm(&t, 11, a, VM_RESTART_PRIORITY_RESTART);
	must_apply(db, &t);
	assert_false(state_disk_endangers_vms(db, a));
	assert_false(state_disk_endangers_vms(db, witness));
	txn_init(&t, db, 0);
	b = make_host(&t, 3, HOST_KIND_HOST);
	make_vm(&t, 12, b, VM_RESTART_PRIORITY_NONE);
	must_apply(db, &t);
	assert_true(state_disk_endangers_vms(db, a));
	assert_false(state_disk_endangers_vms(db, b));
	assert_false(state_disk_endangers_vms(db, witness));
	db_free(db);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small),
		cmocka_unit_test(test_large),
		cmocka_unit_test(test_stays),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_endangers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
