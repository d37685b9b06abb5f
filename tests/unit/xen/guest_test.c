/* What a simulated guest is at a moment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/units.h"
#include "xen/sim_guest.h"

enum { SECOND = 1000000 };

static void guest_init(struct sim_record *r, const char *platform)
{
	struct rv_error e;

	memset(r, 0, sizeof *r);
	r->vcpus_max = r->vcpus_online = 2;
	r->static_max_kib = r->actual_kib = r->target_kib = r->maxmem_kib = 102400;
	r->lowest_kib = r->actual_kib;
	r->asked.at_ran_us = r->script.at_ran_us = SIM_NEVER;
	hyper_sim_guest_init(&r->guest);
	r->guest.boot_us = 0;
	r->guest.balloon_kib_per_s = 10240;
	if (hyper_sim_guest_parse(&r->guest, platform, &e) != 0)
		fail_msg("%s", e.detail);
	sim_set_model(r, &r->guest, SECOND);
	sim_run(r, SECOND);
}

static void ideal_balloon_keeps_its_rate(void **state)
{
	struct sim_record r;

	(void)state;
	guest_init(&r, NULL);
	sim_balloon_target(&r, 51200);
	assert_int_equal(sim_balloon_left_us(&r, SECOND), 5 * SECOND);
	/* However often it is looked at. */
	for (int64_t us = 0; us <= 3 * SECOND; us += 333)
		sim_balloon(&r, SECOND + us, 0);
	assert_in_range(r.actual_kib, 102400 - 30720, 102400 - 30720 + 12);
	assert_true(sim_balloon(&r, 7 * SECOND, 0));
	assert_int_equal(r.actual_kib, 51200);
	assert_false(sim_balloon(&r, 8 * SECOND, 0));
	assert_int_equal(sim_balloon_left_us(&r, 8 * SECOND), -1);
	/* Up again: no further than memory, maxmem and target allow. */
	sim_balloon_target(&r, 102400);
	assert_false(sim_balloon(&r, 10 * SECOND, 0));
	assert_true(sim_balloon(&r, 12 * SECOND, 4000));
	assert_int_equal(r.actual_kib, 55200);
	r.maxmem_kib = 60000;
	assert_true(sim_balloon(&r, 30 * SECOND, 1000000));
	assert_int_equal(r.actual_kib, 60000);
	assert_int_equal(r.lowest_kib, 51200);
}

static uint64_t after(const char *platform, uint64_t target_kib, int64_t us)
{
	struct sim_record r;

	guest_init(&r, platform);
	sim_balloon_target(&r, target_kib);
	for (int64_t at = 0; at <= us; at += 10000)
		sim_balloon(&r, SECOND + at, 1000000);
	return r.actual_kib;
}

static void other_balloons(void **state)
{
	(void)state;
	assert_int_equal(after("sim.balloon=stuck", 51200, 100 * SECOND), 102400);
	assert_in_range(after("sim.balloon=slow", 51200, 8 * SECOND), 102400 - 5120,
		102400 - 5100);
	assert_int_equal(
		after("sim.balloon=limited sim.balloon_floor=80MiB", 51200, 100 * SECOND),
		81920);
	assert_int_equal(after("sim.balloon=limited sim.balloon_floor=200MiB", 51200,
				 100 * SECOND),
		102400);
	/* One second moving, one standing still: after 3 s two seconds' worth. */
	assert_in_range(after("sim.balloon=intermittent sim.stuck_period=2s "
			      "sim.stuck_for=1s",
				51200, 3 * SECOND),
		102400 - 20480, 102400 - 20400);
	assert_int_equal(after("sim.balloon=overshoot sim.balloon_overshoot=10MiB", 51200,
				 100 * SECOND),
		51200);
	assert_true(after("sim.balloon=overshoot sim.balloon_overshoot=10MiB", 51200,
			    5500000) < 51200);
	/* Not before it has booted. */
	assert_int_equal(after("sim.boot=10s", 51200, 9 * SECOND), 102400);
	assert_in_range(after("sim.boot=10s", 51200, 11 * SECOND), 102400 - 10240,
		102400 - 10200);
}

static void clock_stops_while_paused(void **state)
{
	struct sim_record r;

	(void)state;
	guest_init(&r, "sim.boot=2s");
	assert_false(sim_booted(&r, 2 * SECOND));
	sim_stop(&r, 2 * SECOND);
	r.state = HYPER_PAUSED;
	assert_int_equal(sim_ran_us(&r, 50 * SECOND), SECOND);
	sim_run(&r, 10 * SECOND);
	assert_int_equal(r.last_gap_us, 8 * SECOND);
	assert_int_equal(r.longest_gap_us, 8 * SECOND);
	assert_int_equal(sim_ran_us(&r, 11 * SECOND), 2 * SECOND);
	assert_true(sim_booted(&r, 11 * SECOND));
}

static void endings(void **state)
{
	struct sim_record r;

	(void)state;
	guest_init(&r, "sim.boot=2s sim.shutdown=1s sim.suspend=50ms");
	sim_ask(&r, HYPER_REASON_POWEROFF, 1500000); /* waits for the boot */
	assert_false(sim_end_if_due(&r, 3900000));
	assert_true(sim_end_if_due(&r, 9 * SECOND));
	assert_int_equal(r.reason, HYPER_REASON_POWEROFF);
	assert_int_equal(r.stopped_us, 4 * SECOND); /* then, not when looked at */
	assert_int_equal(r.ran_us, 3 * SECOND);
	assert_false(sim_end_if_due(&r, 10 * SECOND));

	guest_init(&r, "sim.ignores_shutdown=true sim.ends_by=crash sim.ends_after=5s");
	sim_ask(&r, HYPER_REASON_POWEROFF, 2 * SECOND);
	assert_false(sim_end_if_due(&r, 5900000));
	assert_true(sim_end_if_due(&r, 6 * SECOND));
	assert_int_equal(r.reason, HYPER_REASON_CRASH);
}

static void pages_tell_what_they_are(void **state)
{
	uint8_t *block = malloc(SIM_BLOCK), page[SIM_PAGE], other[SIM_PAGE];
	uint32_t stamp, used = 0;
	struct sim_record r;

	(void)state;
	sim_block_fill(block);
	sim_page_fill(block, 9, 77, 3, page);
	assert_int_equal(sim_page_read(block, 9, 77, page, &stamp), 0);
	assert_int_equal(stamp, 3);
	assert_int_equal(sim_page_read(block, 9, 78, page, &stamp), RV_ECORRUPT);
	assert_int_equal(sim_page_read(block, 8, 77, page, &stamp), RV_ECORRUPT);
	sim_page_fill(block, 9, 77, 4, other);
	assert_memory_not_equal(page, other, SIM_PAGE);
	page[4095] ^= 1;
	assert_int_equal(sim_page_read(block, 9, 77, page, &stamp), RV_ECORRUPT);
	sim_page_fill(block, 9, 77, 0, page);
	assert_int_equal(sim_page_read(block, 9, 77, page, &stamp), 0);
	assert_int_equal(stamp, 0);
	free(block);

	guest_init(&r, "sim.working_set=40KiB sim.dirty_pages_per_s=10 "
		       "sim.used_ppm=250000");
	for (uint64_t pfn = 0; pfn < r.actual_kib / SIM_PAGE_KIB; pfn++)
		used += sim_stamp(&r, pfn, 0);
	assert_in_range(used, 6000, 6800); /* a quarter of 25,600 */
	assert_int_equal(sim_writes(&r, 3500000), 25);
	assert_int_equal(sim_stamp(&r, 0, 25), 4); /* writes 1, 11 and 21 */
	assert_int_equal(sim_stamp(&r, 4, 25), 4);
	assert_int_equal(sim_stamp(&r, 5, 25), 3);
	/* What a balloon took came back empty. */
	r.lowest_kib = 0;
	assert_int_equal(sim_stamp(&r, 20, 25), 0);
}

static void load_adds_up(void **state)
{
	struct sim_record r;

	(void)state;
	guest_init(&r, "sim.load_ppm=250000");
	assert_int_equal(sim_cpu_ns(&r, 3 * SECOND), INT64_C(1000000000));
	guest_init(&r, "sim.load=wave sim.load_ppm=250000 sim.load_period=4s");
	assert_in_range(sim_cpu_ns(&r, 5 * SECOND), 1999999000, 2000001000);
	assert_in_range(sim_cpu_ns(&r, 2 * SECOND), 249990000, 250010000);
}

static void platform_keys(void **state)
{
	struct hyper_sim_guest g;
	struct rv_error e;

	(void)state;
	hyper_sim_guest_init(&g);
	assert_int_equal(hyper_sim_guest_parse(&g,
				 "nx=true sim.balloon=overshoot sim.later=1 sim.boot=2s "
				 "sim.working_set=1GiB sim.ignores_suspend=true",
				 &e),
		0);
	assert_int_equal(g.balloon, HYPER_SIM_BALLOON_OVERSHOOT);
	assert_int_equal(g.boot_us, 2 * SECOND);
	assert_int_equal(g.working_set_kib, 1 << 20);
	assert_true(g.ignores_suspend);
	assert_int_equal(hyper_sim_guest_parse(&g, "sim.balloon=blue", &e), RV_EINVAL);
	assert_non_null(strstr(e.detail, "sim.balloon can't be 'blue'"));
	assert_int_equal(
		hyper_sim_guest_parse(&g, "sim.used_ppm=1000001", &e), RV_EINVAL);
	assert_int_equal(hyper_sim_guest_parse(&g, "sim.boot", &e), RV_EINVAL);
	assert_int_equal(hyper_sim_guest_parse(&g, "sim.boot=", &e), RV_EINVAL);
	assert_int_equal(hyper_sim_guest_parse(&g, "sim.boot=90000h", &e), RV_EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ideal_balloon_keeps_its_rate),
		cmocka_unit_test(other_balloons),
		cmocka_unit_test(clock_stops_while_paused),
		cmocka_unit_test(endings),
		cmocka_unit_test(pages_tell_what_they_are),
		cmocka_unit_test(load_adds_up),
		cmocka_unit_test(platform_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
