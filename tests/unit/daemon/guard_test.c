/* What forbids that VMs are started on a host. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/guard.h"

static void test_guard(void **state)
{
	char root[] = "/tmp/reeve-guard-XXXXXX", path[128], why[400], command[64];
	static const char *const parts[] = {
		"var", "var/lib", "var/lib/xen", "var/lib/xen/save"};
	FILE *f;

	(void)state;
	assert_non_null(mkdtemp(root));
	guard_look(root, true, why, sizeof why);
	assert_string_equal(why, "");
	guard_look(root, false, why, sizeof why);
	assert_non_null(strstr(why, "not fixed"));
	assert_non_null(strstr(why, "dom0_mem="));
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		snprintf(path, sizeof path, "%s/%s", root, parts[i]);
		assert_int_equal(mkdir(path, 0700), 0);
	}
	guard_look(root, true, why, sizeof why);
	assert_string_equal(why, "");
	snprintf(path, sizeof path, "%s/var/lib/xen/save/web1", root);
	f = fopen(path, "w");
	assert_non_null(f);
	fclose(f);
	guard_look(root, true, why, sizeof why);
	assert_non_null(strstr(why, "web1"));
	snprintf(command, sizeof command, "rm -rf %s", root);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_guard)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
