/* Migrations that go as they should, and refusals. */
#include "world.h"

static struct world *moved(uint64_t seed, uint64_t dirty)
{
	struct world *w = world_new(seed, dirty, VM_DOMAIN_TYPE_PVH);

	if (world_migrate(w, 1))
		fail_msg("%s", w->error.detail);
	if (!world_settle(w, 300 * 1000))
		fail_msg("does not come to rest: %s", world_why(w));
	return w;
}

static void test_idle(void **state)
{
	struct world *w = moved(1, 0);
	unsigned downtime = 0, total = 0, rounds = 0;
	unsigned long long bytes = 0;

	(void)state;
	if (world_status(w) != TASK_STATUS_SUCCESS)
		fail_msg("%s", world_why(w));
	assert_int_equal(world_where(w), 1);
	world_check_end(w);
	assert_int_equal(
		sscanf(world_result(w), "downtime_ms=%u total_ms=%u bytes=%llu rounds=%u",
			&downtime, &total, &bytes, &rounds),
		4);
	print_message("%s\n", world_result(w));
	assert_true(downtime < 150 && total >= downtime && bytes > (12 << 20));
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_idle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
