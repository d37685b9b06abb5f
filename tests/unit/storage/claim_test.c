#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "storage/claim.h"

static struct uuid id(uint8_t n)
{
	struct uuid u = {{0}};
	u.b[3] = n;
	return u;
}

static struct claim claim(enum claim_mode mode, uint8_t holder, uint8_t host, uint64_t g)
{
	return (struct claim){mode, id(holder), id(host), g};
}

static int add(struct claims *c, struct claim want, uint64_t void_generation)
{
	struct claim who;
	return claims_add(c, &want, void_generation, &who);
}

static void test_rules(void **state)
{
	struct claims c = {.count = 0};
	(void)state;
	assert_int_equal(add(&c, claim(CLAIM_READ, 1, 1, 1), 0), 0);
	assert_int_equal(add(&c, claim(CLAIM_READ, 1, 2, 1), 0), 0);
	assert_int_equal(add(&c, claim(CLAIM_COPY, 9, 2, 0), 0), 0);
	assert_int_equal(add(&c, claim(CLAIM_WRITE, 1, 1, 1), 0), RV_EBUSY);
	struct uuid host2 = id(2), holder1 = id(1), host1 = id(1);
	assert_true(claims_drop_copies(&c, &host2));
	assert_false(claims_drop_copies(&c, &host2));
	struct claim who;
	struct rv_error e;
	int rc;
	assert_true(claims_drop(&c, &holder1, &host2, 1, &rc, &who));
	/* Alone now: its reader may become the writer. */
	assert_int_equal(add(&c, claim(CLAIM_WRITE, 1, 1, 2), 0), 0);
	assert_int_equal(c.count, 1);
	assert_non_null(claims_writer(&c));
	assert_int_equal(add(&c, claim(CLAIM_WRITE, 1, 1, 1), 0), RV_ESTALE);
	/* The words say what to do, also where the number is nobody's. */
	who = c.list[0];
	assert_int_equal(
		claims_describe(RV_ESTALE, &who.host, &who.holder, &who, &e), RV_ESTALE);
	assert_non_null(strstr(e.detail, "owner-generation"));
	assert_non_null(strstr(e.detail, ".claim from"));
	assert_false(claims_drop(&c, &holder1, &host1, 1, &rc, &who));
	assert_int_equal(rc, RV_ESTALE);
	assert_int_equal(add(&c, claim(CLAIM_WRITE, 1, 2, 9), 0), RV_EBUSY);
	assert_int_equal(add(&c, claim(CLAIM_READ, 1, 2, 9), 0), RV_EBUSY);
	assert_int_equal(add(&c, claim(CLAIM_COPY, 9, 1, 0), 0), RV_EBUSY);
	/* Void up to a generation, and for the same holder. */
	assert_int_equal(add(&c, claim(CLAIM_WRITE, 1, 2, 9), 1), RV_EBUSY);
	assert_int_equal(add(&c, claim(CLAIM_WRITE, 2, 2, 9), 2), RV_EBUSY);
	assert_int_equal(add(&c, claim(CLAIM_WRITE, 1, 2, 9), 2), 0);
	assert_int_equal(c.count, 1);
	assert_null(claims_of_host(&c, &host1));
}

static void test_limit(void **state)
{
	struct claims c = {.count = 0};
	(void)state;
	for (int i = 0; i < CLAIMS_MAX; i++)
		assert_int_equal(add(&c, claim(CLAIM_READ, (uint8_t)i, 1, 1), 0), 0);
	assert_int_equal(add(&c, claim(CLAIM_READ, 1, 2, 1), 0), RV_ELIMIT);
}

static void test_text(void **state)
{
	struct claims c = {.count = 0}, again;
	char text[3 * CLAIM_LINE_MAX + 1];
	(void)state;
	assert_int_equal(add(&c, claim(CLAIM_READ, 1, 1, 0), 0), 0);
	assert_int_equal(add(&c, claim(CLAIM_READ, 2, 1, UINT64_MAX), 0), 0);
	assert_int_equal(add(&c, claim(CLAIM_COPY, 3, 1, 7), 0), 0);
	claims_format(&c, text);
	assert_int_equal(claims_parse(&again, text, strlen(text)), 0);
	assert_int_equal(again.count, 3);
	assert_memory_equal(again.list, c.list, 3 * sizeof c.list[0]);
	/* Cut anywhere but at a line's end, it is refused. */
	for (size_t n = 1; n < strlen(text); n++)
		assert_int_equal(claims_parse(&again, text, n),
			text[n - 1] == '\n' ? 0 : RV_ECORRUPT);
	assert_int_equal(claims_parse(&again, "", 0), 0);
	assert_int_equal(claims_parse(&again, "\0\0", 2), 0);
	static const char *const bad[] = {"\n", "write\n", "x\n", " \n",
		"own 00000001-0000-0000-0000-000000000000 "
		"00000001-0000-0000-0000-000000000000 1\n",
		"read 00000001-0000-0000-0000-000000000000 "
		"00000001-0000-0000-0000-000000000000 99999999999999999999\n",
		"read 00000001-0000-0000-0000-000000000000 "
		"00000001-0000-0000-0000-000000000000 1 2\n",
		"read 00000001-0000-0000-0000-000000000000 "
		"00000001-0000-0000-0000-000000000000 -1\n"};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(
			claims_parse(&again, bad[i], strlen(bad[i])), RV_ECORRUPT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_text),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
