/* Who knows more of the pool's history. */
#include "daemon/emergency.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "daemon/files.h"

static void test_order(void **state)
{
	/* Rising: generation before term before index. */
	static const struct emergency_standing s[] = {{.generation = 0},
		{.generation = 1, .term = 3, .index = 900, .has_master = true},
		{.generation = 1, .term = 4, .index = 100},
		{.generation = 1, .term = 4, .index = 101},
		{.generation = 2, .term = 1, .index = 1}};

	(void)state;
	for (size_t i = 0; i < sizeof s / sizeof s[0]; i++)
		for (size_t j = 0; j < sizeof s / sizeof s[0]; j++)
			assert_int_equal(
				emergency_compare(&s[i], &s[j]), i < j ? -1 : i > j);
}

static void test_other_life(void **state)
{
	struct emergency_standing a = {.generation = 2, .generation_id = {{7}}}, b = a;

	(void)state;
	b.term = 9;
	assert_false(emergency_other_life(&a, &b));
	b.generation_id.b[15] = 1;
	assert_true(emergency_other_life(&a, &b));
	b.generation = 3;
	assert_false(emergency_other_life(&a, &b));
	a.generation = b.generation = 0; /* no database yet */
	assert_false(emergency_other_life(&a, &b));
}

static void test_plan(void **state)
{
	static const char *const bad[] = {"", "x", "2", "2 0 ann", "0 5 ann"};
	char dir[] = "/tmp/reeve-emergency-XXXXXX", path[64];
	struct emergency_plan plan;
	struct rv_error e;

	(void)state;
	log_setup(LOG_ERROR + 1, NULL, NULL);
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/emergency", dir);
	assert_false(emergency_planned(dir, &plan));
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_int_equal(files_write(path, bad[i], strlen(bad[i]), &e), 0);
		assert_false(emergency_planned(dir, &plan));
	}
	assert_int_equal(files_write(path, "2 5 ann lee\n", 12, &e), 0);
	assert_true(emergency_planned(dir, &plan));
	assert_int_equal(plan.generation, 2);
	assert_int_equal(plan.raft_id, 5);
	assert_string_equal(plan.user, "ann lee");
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_other_life),
		cmocka_unit_test(test_plan),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
