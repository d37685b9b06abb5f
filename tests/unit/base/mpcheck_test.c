#include "base/mpcheck.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/limits.h"

#define CHECK(expected, ...)                                                             \
	do {                                                                             \
		const uint8_t bytes_[] = {__VA_ARGS__};                                  \
		check_exact(bytes_, sizeof bytes_, expected);                            \
	} while (0)

/* In a heap block of just that size, so that ASan sees a byte read too many. */
static void check_exact(const uint8_t *bytes, size_t len, int expected)
{
	uint8_t *copy = malloc(len ? len : 1);
	struct rv_error e = {0};

	memcpy(copy, bytes, len);
	assert_int_equal(mpcheck(copy, len, &e), expected);
	if (expected)
		assert_true(strlen(e.detail) > 0);
	free(copy);
}

static void accepts_every_kind(void **state)
{
	(void)state;
	CHECK(0, 0x00);
	CHECK(0, 0xff);
	CHECK(0, 0xc0);
	CHECK(0, 0xc3);
	CHECK(0, 0xcc, 200);
	CHECK(0, 0xd3, 1, 2, 3, 4, 5, 6, 7, 8);
	CHECK(0, 0xcb, 1, 2, 3, 4, 5, 6, 7, 8);
	CHECK(0, 0xa2, 'v', 'm');
	CHECK(0, 0xd9, 2, 0xc3, 0xa9);
	CHECK(0, 0xc4, 3, 0, 0, 0);
	CHECK(0, 0xd4, 5, 0);
	CHECK(0, 0xc7, 1, 5, 0);
	CHECK(0, 0x80);
	CHECK(0, 0x81, 0xa1, 'k', 0x92, 1, 2);
	CHECK(0, 0xdc, 0, 1, 7);
	CHECK(0, 0xdf, 0, 0, 0, 1, 1, 2);
}

static void refuses_malformed(void **state)
{
	(void)state;
	check_exact((const uint8_t *)"", 0, RV_EPROTO);
	CHECK(RV_EPROTO, 0xc1);
	CHECK(RV_EPROTO, 0x01, 0x02);			/* two objects */
	CHECK(RV_EPROTO, 0xa5, 'v', 'm');		/* short string */
	CHECK(RV_EPROTO, 0xda, 0);			/* half a length */
	CHECK(RV_EPROTO, 0x81, 0xa1, 'k');		/* map without its value */
	CHECK(RV_EPROTO, 0xa1, 0);			/* NUL */
	CHECK(RV_EPROTO, 0xa1, 0xff);			/* not UTF-8 */
	CHECK(RV_EPROTO, 0xa2, 0xc0, 0x80);		/* overlong */
	CHECK(RV_EPROTO, 0xa3, 0xed, 0xa0, 0x80);	/* surrogate */
	CHECK(RV_EPROTO, 0xa4, 0xf4, 0x90, 0x80, 0x80); /* beyond U+10FFFF */
}

static void refuses_bombs_without_allocating(void **state)
{
	(void)state;
	CHECK(RV_EPROTO, 0xdd, 0x03, 0xff, 0xff, 0xff);
	CHECK(RV_EPROTO, 0xdf, 0xff, 0xff, 0xff, 0xff);
	CHECK(RV_EPROTO, 0xdb, 0xff, 0xff, 0xff, 0xff);
	CHECK(RV_EPROTO, 0xc6, 0xff, 0xff, 0xff, 0xff);
	CHECK(RV_EPROTO, 0xc9, 0xff, 0xff, 0xff, 0xff, 1);
}

static void bounds_the_depth(void **state)
{
	uint8_t deep[RV_MAX_MSGPACK_DEPTH + 2];

	(void)state;
	memset(deep, 0x91, sizeof deep);
	deep[RV_MAX_MSGPACK_DEPTH] = 0x01;
	check_exact(deep, RV_MAX_MSGPACK_DEPTH + 1, 0);
	deep[RV_MAX_MSGPACK_DEPTH] = 0x91;
	deep[RV_MAX_MSGPACK_DEPTH + 1] = 0x01;
	check_exact(deep, RV_MAX_MSGPACK_DEPTH + 2, RV_ETOOBIG);
}

static void bounds_the_elements(void **state)
{
	size_t n = RV_MAX_MSGPACK_ELEMENTS, len = n + 5;
	uint8_t *bytes = calloc(len, 1);

	(void)state;
	bytes[0] = 0xdd;
	bytes[1] = (uint8_t)(n >> 24);
	bytes[2] = (uint8_t)(n >> 16);
	bytes[3] = (uint8_t)(n >> 8);
	bytes[4] = (uint8_t)n;
	assert_int_equal(mpcheck(bytes, len, NULL), RV_ETOOBIG);
	free(bytes);
}

static void prefix_tells_the_length(void **state)
{
	const uint8_t bytes[] = {0x92, 1, 2, 0xc1};
	size_t used = 0;

	(void)state;
	assert_int_equal(mpcheck_prefix(bytes, sizeof bytes, &used, NULL), 0);
	assert_int_equal(used, 3);
}

static void test_mend(void **state)
{
	char cut[] = "web \xe4\xb8", inside[] = "a\xff\xfe b\xc3\xa9", plain[] = "plain";

	(void)state;
	mpcheck_mend_utf8(cut);
	assert_string_equal(cut, "web ??");
	mpcheck_mend_utf8(inside);
	assert_string_equal(inside, "a?? b\xc3\xa9");
	mpcheck_mend_utf8(plain);
	assert_string_equal(plain, "plain");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepts_every_kind),
		cmocka_unit_test(refuses_malformed),
		cmocka_unit_test(refuses_bombs_without_allocating),
		cmocka_unit_test(bounds_the_depth),
		cmocka_unit_test(bounds_the_elements),
		cmocka_unit_test(prefix_tells_the_length),
		cmocka_unit_test(test_mend),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
