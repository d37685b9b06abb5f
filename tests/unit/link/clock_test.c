/* The pool's time, and which clocks are off: pure. What probes say: link_test.c. */
#include "link/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { MS = 1000 };

static void test_pool_time(void **state)
{
	int64_t two[] = {900 * MS, 0}, three[] = {0, 900 * MS, 3 * MS};
	int64_t self[] = {5000 * MS, 0, 5002 * MS, 4999 * MS, 5001 * MS};
	int64_t four[] = {4 * MS, -2 * MS, 0, 10000 * MS};

	(void)state;
	assert_int_equal(clock_pool_offset_us(NULL, 0), 0);
	/* Nobody can tell which of two is right. */
	assert_int_equal(clock_pool_offset_us(two, 2), 0);
	assert_int_equal(clock_pool_offset_us(three, 3), 3 * MS);
	/* This host's clock is the one that is wrong. */
	assert_int_equal(clock_pool_offset_us(self, 5), 5000 * MS);
	assert_int_equal(clock_pool_offset_us(four, 4), 2 * MS);
}

static void test_off(void **state)
{
	(void)state;
	assert_false(clock_is_off(false, 0, MS, 500 * MS));
	assert_false(clock_is_off(false, 500 * MS, 0, 500 * MS));
	assert_true(clock_is_off(false, 502 * MS, MS, 500 * MS));
	assert_true(clock_is_off(false, -502 * MS, MS, 500 * MS));
	/* A slow way there proves nothing. */
	assert_false(clock_is_off(false, 600 * MS, 200 * MS, 500 * MS));
	/* Once off, it must come clearly back. */
	assert_true(clock_is_off(true, 400 * MS, MS, 500 * MS));
	assert_true(clock_is_off(true, -376 * MS, MS, 500 * MS));
	assert_false(clock_is_off(true, 375 * MS, MS, 500 * MS));
	assert_false(clock_is_off(true, -10 * MS, 900 * MS, 500 * MS));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pool_time),
		cmocka_unit_test(test_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
