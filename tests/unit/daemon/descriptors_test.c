/* How many clients an open-files limit is good for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/limits.h"
#include "daemon/descriptors.h"

/* What the RPC server may hold at most of a bound, root's included: rpc/server.h. */
static uint64_t held(uint64_t limit)
{
	uint64_t most = (uint64_t)descriptors_for_rpc(limit);

	return most + most / 64 + 4;
}

static void the_daemon_keeps_its_share(void **state)
{
	(void)state;
	for (uint64_t limit = 256; limit < 100000; limit += 7) {
		assert_true(held(limit) + DESCRIPTORS_RESERVE <= limit);
		assert_true(held(limit) + limit / 4 <= limit);
	}
	assert_int_equal(descriptors_for_rpc(0), DESCRIPTORS_RPC_LEAST);
	assert_int_equal(descriptors_for_rpc(128), DESCRIPTORS_RPC_LEAST);
}

static void clients_get_the_rest(void **state)
{
	int last = 0;

	(void)state;
	assert_true(descriptors_for_rpc(300) > 150);
	assert_true(descriptors_for_rpc(1024) > 740);
	assert_true(descriptors_for_rpc(16384) > 12000);
	/* reeved.service has this one. */
	assert_int_equal(descriptors_for_rpc(65536), RV_MAX_RPC_CONNECTIONS);
	assert_int_equal(descriptors_for_rpc(UINT64_MAX), RV_MAX_RPC_CONNECTIONS);
	for (uint64_t limit = 0; limit < 100000; limit += 3) {
		assert_true(descriptors_for_rpc(limit) >= last);
		last = descriptors_for_rpc(limit);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_daemon_keeps_its_share),
		cmocka_unit_test(clients_get_the_rest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
