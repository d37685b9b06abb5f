/* How many log lines one client, and many, can cause. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "rpc/blame.h"

#define SECOND (INT64_C(1000) * 1000)
#define START  (1000 * SECOND)

static int lines(struct blame *b, const char *source, int64_t now_us, int tries)
{
	uint32_t held;
	int n = 0;

	for (int i = 0; i < tries; i++)
		n += blame_may_log(b, source, now_us, &held);
	return n;
}

static void one_source_is_bounded(void **state)
{
	struct blame b = {0};
	uint32_t held;

	(void)state;
	assert_int_equal(lines(&b, "10.0.0.1", START, 1000), BLAME_LINES);
	/* It hides nobody else. */
	assert_true(blame_may_log(&b, "10.0.0.2", START, &held));
	assert_int_equal(held, 0);
	assert_int_equal(lines(&b, "10.0.0.1", START + 29 * SECOND, 5), 0);
	assert_true(blame_may_log(&b, "10.0.0.1", START + 30 * SECOND, &held));
	assert_int_equal(held, 1000 - BLAME_LINES + 5);
	assert_false(blame_may_log(&b, "10.0.0.1", START + 31 * SECOND, &held));
	/* A day of it. */
	int n = 0;
	for (int s = 40; s < 40 + 86400; s++)
		n += lines(&b, "10.0.0.1", START + s * SECOND, 10);
	assert_in_range(n, 86400 / 30 - 2, 86400 / 30 + 2);
	/* After a quiet time it is as new. */
	assert_int_equal(
		lines(&b, "10.0.0.1", INT64_C(200000) * SECOND, 1000), BLAME_LINES);
}

static void all_together_are_bounded(void **state)
{
	struct blame b = {0};
	char name[32];
	int n = 0;

	(void)state;
	for (int i = 0; i < 10000; i++) {
		snprintf(name, sizeof name, "10.1.%d.%d", i / 256, i % 256);
		n += lines(&b, name, START + i, 1);
	}
	assert_int_equal(n, BLAME_LINES_ALL);
	assert_int_equal(lines(&b, "10.2.0.0", START + 2 * SECOND, 5), 2);
}

static void a_peer_is_its_address(void **state)
{
	struct rpc_peer peer = {.transport = RPC_TCP};
	struct blame b = {0};
	uint32_t held;
	int n = 0;

	(void)state;
	for (int port = 1000; port < 2000; port++) {
		snprintf(peer.name, sizeof peer.name, "tcp:10.0.0.1:%d", port);
		n += blame_peer(&b, &peer, START, &held);
	}
	assert_int_equal(n, BLAME_LINES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_source_is_bounded),
		cmocka_unit_test(all_together_are_bounded),
		cmocka_unit_test(a_peer_is_its_address),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
