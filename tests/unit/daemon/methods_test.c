/* The schema promises nothing that the daemon does not serve. */
#include "daemon/methods.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void every_method_is_served(void **state)
{
	(void)state;
	for (int id = METHOD_NONE + 1; id < METHOD_COUNT; id++) {
		const struct schema_method *m = schema_method((enum schema_method_id)id);

		if (strcmp(m->group, "session") == 0)
			continue; /* rpc/session.c */
		if (!methods_find((enum schema_method_id)id))
			fail_msg("%s.%s is in the schema but not served", m->group,
				m->name);
	}
}

static void every_method_fits_a_call(void **state)
{
	(void)state;
	for (int id = METHOD_NONE + 1; id < METHOD_COUNT; id++)
		assert_true(schema_method((enum schema_method_id)id)->arg_count <=
			    CALL_MAX_ARGS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_method_is_served),
		cmocka_unit_test(every_method_fits_a_call),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
