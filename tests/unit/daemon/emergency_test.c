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
	static const struct emergency_standing s[] = {{0, 0, 0, false}, {1, 3, 900, true},
		{1, 4, 100, false}, {1, 4, 101, false}, {2, 1, 1, false}};

	(void)state;
	for (size_t i = 0; i < sizeof s / sizeof s[0]; i++)
		for (size_t j = 0; j < sizeof s / sizeof s[0]; j++)
			assert_int_equal(
				emergency_compare(&s[i], &s[j]), i < j ? -1 : i > j);
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
		cmocka_unit_test(test_plan),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
