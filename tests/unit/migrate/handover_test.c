#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "migrate/handover.h"

static struct uuid named(unsigned n)
{
	struct uuid u = {.b = {1}};

	memcpy(u.b + 4, &n, sizeof n);
	return u;
}

static void test_learns(void **state)
{
	struct handover h = {0};
	struct uuid a = named(1), b = named(2);

	(void)state;
	assert_int_equal(handover_expect(&h, &a, 15000), 15000);
	handover_learn(&h, &a, 80000);
	assert_int_equal(handover_expect(&h, &a, 15000), 80000);
	assert_int_equal(handover_expect(&h, &b, 15000), 15000);
	handover_learn(&h, &a, 40000);
	assert_int_equal(handover_expect(&h, &a, 15000), 60000);
	handover_learn(&h, &a, -5);
	assert_int_equal(handover_expect(&h, &a, 15000), 30000);
}

/* A hand-over that took seconds is not held against a host for ever. */
static void test_doubts(void **state)
{
	struct handover h = {0};
	struct uuid a = named(1), b = named(2);

	(void)state;
	handover_learn(&h, &a, 1400000);
	handover_learn(&h, &b, 900000);
	handover_doubt(&h, &a, 40000);
	assert_int_equal(handover_expect(&h, &a, 40000), 720000);
	for (int refused = 0; refused < 4; refused++)
		handover_doubt(&h, &a, 40000);
	assert_true(handover_expect(&h, &a, 40000) < 100000);
	handover_doubt(&h, &a, 2000000); /* a guess does not make it worse */
	assert_true(handover_expect(&h, &a, 40000) < 100000);
	assert_int_equal(handover_expect(&h, &b, 40000), 900000);
}

/* More hosts than there is room for: who was heard of lately stays. */
static void test_gives_way(void **state)
{
	struct handover h = {0};
	struct uuid first = named(1), second = named(2);

	(void)state;
	for (unsigned i = 1; i <= HANDOVER_HOSTS; i++) {
		struct uuid host = named(i);

		handover_learn(&h, &host, 1000 * i);
	}
	handover_learn(&h, &first, 1000);
	for (unsigned i = 1; i < HANDOVER_HOSTS; i++) {
		struct uuid host = named(1000 + i);

		handover_learn(&h, &host, 7);
	}
	assert_int_equal(handover_expect(&h, &first, -1), 1000);
	assert_int_equal(handover_expect(&h, &second, -1), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_learns),
		cmocka_unit_test(test_doubts),
		cmocka_unit_test(test_gives_way),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
