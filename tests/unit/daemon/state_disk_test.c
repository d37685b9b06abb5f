/* When the disk of the state directory counts as nearly full. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "daemon/state_disk.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small),
		cmocka_unit_test(test_large),
		cmocka_unit_test(test_stays),
		cmocka_unit_test(test_unknown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
