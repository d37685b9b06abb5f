#include "base/error.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void every_code_has_its_words(void **state)
{
	(void)state;
#define X(symbol, wire, retryable, xenapi, text)                                         \
	assert_string_equal(rv_error_symbol(RV_##symbol), #symbol);                      \
	assert_string_equal(rv_error_xenapi(RV_##symbol), xenapi);                       \
	assert_int_equal(rv_error_retryable(RV_##symbol), retryable);
	RV_ERRORS(X)
#undef X
}

static void unknown_codes_read_as_internal(void **state)
{
	(void)state;
	assert_string_equal(rv_error_symbol(1), "EINTERNAL");
	assert_string_equal(rv_error_symbol(-100000), "EINTERNAL");
	assert_string_equal(rv_error_symbol(INT32_MIN), "EINTERNAL");
	assert_string_equal(rv_error_symbol(0), "OK");
}

static void detail_is_cut_not_overrun(void **state)
{
	char big[RV_ERROR_DETAIL_MAX * 2];
	struct rv_error e;

	(void)state;
	memset(big, 'x', sizeof big - 1);
	big[sizeof big - 1] = '\0';
	assert_int_equal(rv_error_set(&e, RV_EINVAL, "%s", big), RV_EINVAL);
	assert_int_equal(strlen(e.detail), RV_ERROR_DETAIL_MAX - 1);
	assert_int_equal(rv_error_prefix(&e, "vm %s", "web1"), RV_EINVAL);
	assert_int_equal(strncmp(e.detail, "vm web1: xxx", 12), 0);
	assert_int_equal(strlen(e.detail), RV_ERROR_DETAIL_MAX - 1);
	assert_int_equal(rv_error_set(NULL, RV_EIO, "lost"), RV_EIO);
}

static void errno_becomes_a_code(void **state)
{
	(void)state;
	assert_int_equal(rv_error_from_errno(0), 0);
	assert_int_equal(rv_error_from_errno(ENOSPC), RV_ESPACE);
	assert_int_equal(rv_error_from_errno(ENOENT), RV_ENOENT);
	assert_int_equal(rv_error_from_errno(9999), RV_EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_code_has_its_words),
		cmocka_unit_test(unknown_codes_read_as_internal),
		cmocka_unit_test(detail_is_cut_not_overrun),
		cmocka_unit_test(errno_becomes_a_code),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
