/* Names in a sentence, in any script: what is cut stays text that the database takes. */
#include "daemon/names.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/mpcheck.h"
#include "pool/db/message.h"

/* 17 characters of three bytes: the 40th byte is in the middle of one. */
#define LONG_NAME                                                                        \
	"\xe6\xa9\x9f\xe6\xa9\x9f\xe6\xa9\x9f\xe6\xa9\x9f\xe6\xa9\x9f\xe6\xa9\x9f"       \
	"\xe6\xa9\x9f\xe6\xa9\x9f\xe6\xa9\x9f\xe6\xa9\x9f\xe6\xa9\x9f\xe6\xa9\x9f"       \
	"\xe6\xa9\x9f\xe6\xa9\x9f\xe6\xa9\x9f\xe6\xa9\x9f\xe6\xa9\x9f"

static void test_many(void **state)
{
	struct names n = {.show = 2};

	(void)state;
	names_add(&n, "a");
	names_add(&n, "b");
	names_add(&n, "c");
	assert_string_equal(names_end(&n), "a, b and 1 more");
}

static void test_cut_between_characters(void **state)
{
	struct names n = {.show = NAMES_SHOWN};
	const char *text;

	(void)state;
	for (int i = 0; i < NAMES_SHOWN + 3; i++)
		names_add(&n, LONG_NAME);
	text = names_end(&n);
	assert_int_equal(mpcheck_utf8((const uint8_t *)text, strlen(text)), strlen(text));
	assert_non_null(strstr(text, " and 3 more"));
}

/* A message whose body was cut anywhere is taken. */
static void test_message(void **state)
{
	struct uuid uuid = {.b = {1}};
	struct rv_error e = {0};
	const uint8_t *bytes;
	struct txn t;
	size_t len;

	(void)state;
	txn_init(&t, NULL, 5);
	message_add(&t, uuid,
		&(struct message){.name = "X_Y",
			.priority = 3,
			.cls = "VM",
			.body = "cut \xe6\xa9"});
	assert_int_equal(txn_finish(&t, &bytes, &len, &e), 0);
	txn_fini(&t);
	assert_int_equal(
		rv_error_set(&e, RV_EINVAL, "%.5s", "cut \xe6\xa9\x9f"), RV_EINVAL);
	assert_string_equal(e.detail, "cut ?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_cut_between_characters),
		cmocka_unit_test(test_message),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
