/* Squeezing, sharing, stuck drivers and reservations in virtual time. */
#include "host.h"

#include <stdlib.h>

static const int64_t second = 1000000;

static void gives_idle_memory_up_to_dynamic_max(void **state)
{
	struct host h;

	(void)state;
	host_init(&h, 10 * GiB, 1);
	host_add(&h, IDEAL, 1000, 1 * GiB, 4 * GiB, 1 * GiB, true);
	host_add(&h, IDEAL, 1000, 1 * GiB, 2 * GiB, 1 * GiB, true);
	host_step(&h);
	host_run(&h, 20 * second);
	assert_int_equal(h.g[0].actual, 4 * GiB);
	assert_int_equal(h.g[1].actual, 2 * GiB);
	host_fini(&h);
}

static void shares_in_proportion_to_the_ranges(void **state)
{
	struct host h;

	(void)state;
	/* 3 GiB beyond the minimums for ranges of 4 and 2 GiB: each at half. */
	host_init(&h, 5 * GiB, 1);
	host_add(&h, IDEAL, 1000, 1 * GiB, 5 * GiB, 1 * GiB, true);
	host_add(&h, IDEAL, 1000, 1 * GiB, 3 * GiB, 1 * GiB, true);
	host_step(&h);
	host_run(&h, 20 * second);
	assert_in_range(h.g[0].actual, 3 * GiB - 16 * MiB, 3 * GiB);
	assert_in_range(h.g[1].actual, 2 * GiB - 16 * MiB, 2 * GiB);
	host_fini(&h);
}

static void squeezes_for_a_reservation_and_gives_back(void **state)
{
	struct host h;

	(void)state;
	host_init(&h, 8 * GiB, 1);
	host_add(&h, IDEAL, 1000, 1 * GiB, 4 * GiB, 4 * GiB, true);
	host_add(&h, IDEAL, 1000, 1 * GiB, 4 * GiB, 4 * GiB, true);
	host_step(&h);
	host_reserve(&h, 1, 2 * GiB, 60 * second);
	host_run(&h, h.now + 3 * second);
	assert_int_equal(h.answer[1], ANSWER_GRANT);
	host_run(&h, h.now + 5 * second);
	assert_in_range(h.g[0].actual, 3 * GiB - 16 * MiB, 3 * GiB + 1 * MiB);
	assert_in_range(h.g[1].actual, 3 * GiB - 16 * MiB, 3 * GiB + 1 * MiB);
	host_release(&h, 1);
	host_run(&h, h.now + 10 * second);
	assert_int_equal(h.g[0].actual, 4 * GiB);
	assert_int_equal(h.g[1].actual, 4 * GiB);
	host_fini(&h);
}

static void takes_no_longer_than_the_drivers(void **state)
{
	struct host h;
	int64_t limit;

	(void)state;
	/* Different speeds and ranges: all together free 1 + 2 + 3 + 4 GiB/s. */
	host_init(&h, 16 * GiB, 1);
	for (unsigned i = 0; i < 4; i++)
		host_add(&h, IDEAL, (i + 1) * 1049, 1 * GiB, 4 * GiB, 4 * GiB, true);
	host_step(&h);
	/* Learn their speeds once. */
	host_reserve(&h, 1, 2 * GiB, 60 * second);
	host_run(&h, h.now + 5 * second);
	host_release(&h, 1);
	host_run(&h, h.now + 20 * second);
	limit = (int64_t)(5 * GiB) * 1000 / (10 * 1049);
	int64_t began = h.now;
	host_reserve(&h, 2, 5 * GiB, 60 * second);
	host_run(&h, h.now + 10 * second);
	assert_int_equal(h.answer[2], ANSWER_GRANT);
	assert_in_range(h.answered_at[2] - began, limit, limit * 105 / 100 + 5000);
	host_fini(&h);
}

static void a_stuck_guest_costs_nothing_where_others_can_give(void **state)
{
	struct host h;
	int64_t limit, began;

	(void)state;
	host_init(&h, 40 * GiB, 1);
	for (unsigned i = 0; i < 10; i++)
		host_add(
			&h, i < 2 ? STUCK : IDEAL, 1000, 1 * GiB, 4 * GiB, 4 * GiB, true);
	host_step(&h);
	began = h.now;
	host_reserve(&h, 1, 10 * GiB, 60 * second);
	host_run(&h, h.now + 20 * second);
	assert_int_equal(h.answer[1], ANSWER_GRANT);
	limit = (int64_t)(10 * GiB) * 1000 / 8000;
	assert_in_range(h.answered_at[1] - began, limit, limit * 105 / 100 + 30000);
	assert_true(h.g[0].declared_stuck && h.g[1].declared_stuck);
	assert_false(h.g[2].declared_stuck);
	/* Recovers when it moves again. */
	h.g[0].driver = IDEAL;
	host_run(&h, h.now + 20 * second);
	assert_false(h.g[0].declared_stuck);
	host_fini(&h);
}

/* Its speed was known, so it is counted on until it lags: not until it is declared stuck.
 */
static void a_guest_that_gets_stuck_is_made_up_for_at_once(void **state)
{
	struct host h;
	int64_t limit, began;

	(void)state;
	host_init(&h, 16 * GiB, 1);
	for (unsigned i = 0; i < 4; i++)
		host_add(&h, IDEAL, 8000, 1 * GiB, 4 * GiB, 4 * GiB, true);
	host_step(&h);
	host_reserve(&h, 1, 4 * GiB, 60 * second);
	host_run(&h, h.now + 5 * second);
	host_release(&h, 1);
	host_run(&h, h.now + 20 * second);
	h.g[0].driver = h.g[1].driver = STUCK;
	began = h.now;
	host_reserve(&h, 2, 4 * GiB, 60 * second);
	host_run(&h, h.now + 20 * second);
	assert_int_equal(h.answer[2], ANSWER_GRANT);
	limit = (int64_t)(4 * GiB) * 1000 / 16000;
	assert_in_range(h.answered_at[2] - began, limit, limit * 105 / 100 + 5000);
	host_fini(&h);
}

static void reservations_progress_together(void **state)
{
	struct host h;
	int64_t small;

	(void)state;
	host_init(&h, 40 * GiB, 1);
	for (unsigned i = 0; i < 10; i++)
		host_add(&h, IDEAL, 100, 1 * GiB, 4 * GiB, 4 * GiB, true);
	host_step(&h);
	/* The small one comes second and still ends long before the large one. */
	host_reserve(&h, 1, 20 * GiB, 600 * second);
	host_reserve(&h, 2, 1 * GiB, 600 * second);
	host_run(&h, h.now + 100 * second);
	assert_int_equal(h.answer[1], ANSWER_GRANT);
	assert_int_equal(h.answer[2], ANSWER_GRANT);
	small = h.answered_at[2];
	assert_true(small * 4 < h.answered_at[1]);
	host_fini(&h);
}

static void no_reservation_starves_another(void **state)
{
	struct host h;

	(void)state;
	host_init(&h, 40 * GiB, 1);
	for (unsigned i = 0; i < 10; i++)
		host_add(&h, IDEAL, 100, 1 * GiB, 4 * GiB, 4 * GiB, true);
	host_step(&h);
	host_reserve(&h, 1, 4 * GiB, 600 * second);
	host_reserve(&h, 2, 5 * GiB, 600 * second);
	host_run(&h, h.now + 4 * second);
	assert_in_range(memctl_reservation_at(h.m, 0).held_kib, 1 * GiB, 2 * GiB);
	assert_in_range(memctl_reservation_at(h.m, 1).held_kib, 1 * GiB, 2 * GiB);
	host_fini(&h);
}

static void refuses_at_once_what_can_not_work_out(void **state)
{
	struct host h;

	(void)state;
	host_init(&h, 8 * GiB, 1);
	host_add(&h, IDEAL, 1000, 2 * GiB, 4 * GiB, 4 * GiB, true);
	host_add(&h, IDEAL, 1000, 1 * GiB, 4 * GiB, 4 * GiB, false); /* unproven */
	host_step(&h);
	host_reserve(&h, 1, 3 * GiB, 60 * second);
	assert_int_equal(h.answer[1], ANSWER_REFUSE);
	assert_int_equal(h.answered_at[1], h.now);
	assert_int_equal(h.g[0].target, 4 * GiB);
	/* What is waited for by one can't be waited for by another. */
	host_reserve(&h, 2, 3 * GiB / 2, 60 * second);
	host_reserve(&h, 3, 1 * GiB, 60 * second);
	assert_int_equal(h.answer[2], ANSWER_NONE);
	assert_int_equal(h.answer[3], ANSWER_REFUSE);
	host_fini(&h);
}

static void a_reservation_ends_at_its_deadline(void **state)
{
	struct host h;

	(void)state;
	host_init(&h, 8 * GiB, 1);
	host_add(&h, SLOW, 10, 2 * GiB, 8 * GiB, 8 * GiB, true);
	host_step(&h);
	host_reserve(&h, 1, 3 * GiB, 2 * second);
	host_run(&h, 10 * second);
	assert_int_equal(h.answer[1], ANSWER_EXPIRE);
	assert_int_equal(memctl_totals(h.m).reserved_kib, 0);
	host_fini(&h);
}

static void a_reservation_passes_to_the_new_domain(void **state)
{
	struct host h;
	struct uuid owner = host_owner(1);
	struct memctl_domain d = {.domid = 50,
		.static_max_kib = 2 * GiB,
		.dynamic_min_kib = 2 * GiB,
		.dynamic_max_kib = 2 * GiB,
		.maxmem_kib = 1 * GiB,
		.mode = MEMCTL_BUILDING};

	(void)state;
	host_init(&h, 8 * GiB, 1);
	host_add(&h, IDEAL, 1000, 1 * GiB, 2 * GiB, 2 * GiB, true);
	host_reserve(&h, 1, 2 * GiB, 60 * second);
	assert_int_equal(h.answer[1], ANSWER_GRANT);
	assert_int_equal(memctl_totals(h.m).unpromised_kib, 4 * GiB);
	assert_int_equal(memctl_domain_add(h.m, &d, &owner, NULL), 0);
	assert_int_equal(memctl_reservation_count(h.m), 0);
	/* Counts as reserved until it runs, then as its maxmem. */
	assert_int_equal(memctl_totals(h.m).unpromised_kib, 4 * GiB);
	assert_int_equal(memctl_domain_mode(h.m, h.now, 50, MEMCTL_RUNNING), 0);
	assert_int_equal(memctl_totals(h.m).unpromised_kib, 5 * GiB);
	host_fini(&h);
}

static void frozen_and_paused_guests_are_left_alone(void **state)
{
	struct host h;

	(void)state;
	host_init(&h, 8 * GiB, 1);
	host_add(&h, IDEAL, 1000, 1 * GiB, 4 * GiB, 4 * GiB, true);
	host_add(&h, IDEAL, 1000, 1 * GiB, 4 * GiB, 4 * GiB, true);
	assert_int_equal(memctl_domain_mode(h.m, h.now, 1, MEMCTL_FROZEN), 0);
	host_step(&h);
	host_reserve(&h, 1, 3 * GiB, 60 * second);
	host_run(&h, 10 * second);
	assert_int_equal(h.answer[1], ANSWER_GRANT);
	assert_int_equal(h.g[0].target, 4 * GiB);
	assert_int_equal(h.g[0].maxmem, 4 * GiB);
	assert_in_range(h.g[1].actual, 1 * GiB, 1 * GiB + 2 * MiB);
	host_fini(&h);
}

static void ballooning_is_proven_by_a_reversible_probe(void **state)
{
	struct host h;
	struct memctl_view v;

	(void)state;
	host_init(&h, 12 * GiB, 1);
	host_add(&h, IDEAL, 1000, 1 * GiB, 4 * GiB, 4 * GiB, false);
	host_add(&h, STUCK, 1000, 1 * GiB, 4 * GiB, 4 * GiB, false);
	/* Started at its minimum: probed upwards. */
	host_add(&h, IDEAL, 1000, 1 * GiB, 4 * GiB, 1 * GiB, false);
	host_step(&h);
	host_run(&h, 10 * second);
	assert_false(h.g[0].declared_proven);
	assert_int_equal(h.g[0].target, 4 * GiB);
	host_run(&h, 40 * second);
	assert_true(h.g[0].declared_proven);
	assert_true(h.g[2].declared_proven);
	assert_false(h.g[1].declared_proven);
	assert_int_equal(h.g[0].target, 4 * GiB);
	assert_int_equal(h.g[1].target, 4 * GiB);
	assert_int_equal(memctl_domain_get(h.m, 2, &v), 0);
	assert_int_equal(v.balloon, MEMCTL_UNPROVEN);
	/* Tried again later. */
	h.g[1].driver = IDEAL;
	host_run(&h, 120 * second);
	assert_true(h.g[1].declared_proven);
	host_fini(&h);
}

static void a_slow_driver_is_not_stuck(void **state)
{
	struct host h;

	(void)state;
	host_init(&h, 8 * GiB, 1);
	host_add(&h, SLOW, 1, 1 * GiB, 8 * GiB, 8 * GiB, true); /* 1 MiB/s */
	host_step(&h);
	host_reserve(&h, 1, 50 * MiB, 600 * second);
	host_run(&h, 60 * second);
	assert_false(h.g[0].declared_stuck);
	assert_int_equal(h.answer[1], ANSWER_GRANT);
	host_fini(&h);
}

/* After a long rest it gets as long as any other to make good what it took. */
static void who_leaves_its_target_is_not_stuck_at_once(void **state)
{
	struct host h;

	(void)state;
	host_init(&h, 8 * GiB, 1);
	host_add(&h, IDEAL, 1000, 1 * GiB, 2 * GiB, 2 * GiB, true);
	host_step(&h);
	host_run(&h, 60 * second);
	h.g[0].actual = 3 * GiB;
	host_step(&h);
	assert_false(h.g[0].declared_stuck);
	host_run(&h, h.now + 10 * second);
	assert_int_equal(h.g[0].actual, 2 * GiB);
	/* One that does nothing is, a little later. */
	h.g[0].driver = STUCK;
	h.g[0].actual = 3 * GiB;
	host_step(&h);
	assert_false(h.g[0].declared_stuck);
	host_run(&h, h.now + 10 * second);
	assert_true(h.g[0].declared_stuck);
	host_fini(&h);
}

static void targets_rest_when_nothing_happens(void **state)
{
	struct host h;
	unsigned long orders;

	(void)state;
	host_init(&h, 10 * GiB, 1);
	for (unsigned i = 0; i < 6; i++)
		host_add(&h, i == 3 ? OFFSET : IDEAL, 500, 1 * GiB, 3 * GiB, 1 * GiB,
			true);
	host_step(&h);
	host_run(&h, 60 * second);
	orders = h.orders;
	/* A guest that wobbles by a MiB moves nobody. */
	for (unsigned i = 0; i < 200; i++) {
		h.g[0].actual -= 900;
		host_step(&h);
		host_run(&h, h.now + second / 4);
	}
	assert_in_range(h.orders - orders, 0, 2);
	host_fini(&h);
}

static void a_foreign_target_is_put_right(void **state)
{
	struct host h;

	(void)state;
	host_init(&h, 8 * GiB, 1);
	host_add(&h, IDEAL, 1000, 1 * GiB, 4 * GiB, 4 * GiB, true);
	host_step(&h);
	h.g[0].target = 2 * GiB;
	assert_int_equal(memctl_domain_found(h.m, 1, 2 * GiB, 4 * GiB), 0);
	host_step(&h);
	host_run(&h, 5 * second);
	assert_int_equal(h.g[0].target, 4 * GiB);
	host_fini(&h);
}

static void bad_input_is_named(void **state)
{
	struct host h;
	struct rv_error e = {0};
	struct uuid u = host_owner(1);
	struct memctl_domain d = {.domid = 1, .static_max_kib = 1, .dynamic_max_kib = 2};

	(void)state;
	host_init(&h, 8 * GiB, 1);
	assert_int_equal(memctl_domain_add(h.m, &d, NULL, &e), RV_EPARAM);
	assert_non_null(strstr(e.detail, "dynamic-max (2 KiB) is above static-max"));
	d.dynamic_max_kib = 1;
	assert_int_equal(memctl_domain_add(h.m, &d, &u, &e), RV_ENOENT);
	assert_int_equal(memctl_domain_add(h.m, &d, NULL, &e), 0);
	assert_int_equal(memctl_domain_add(h.m, &d, NULL, &e), RV_EEXIST);
	assert_int_equal(memctl_reserve(h.m, &u, 0, MEMCTL_NEVER, &e), RV_EPARAM);
	assert_int_equal(memctl_reserve(h.m, &u, 100 * GiB, MEMCTL_NEVER, &e), 0);
	assert_int_equal(memctl_reserve(h.m, &u, 1 * GiB, MEMCTL_NEVER, &e), RV_EEXIST);
	assert_int_equal(memctl_domain_actual(h.m, 0, 9, 1), RV_ENOENT);
	/* Absurd sizes can't make memory out of nothing. */
	assert_int_equal(memctl_domain_actual(h.m, 0, 1, UINT64_MAX), 0);
	memctl_host_free(h.m, UINT64_MAX);
	memctl_step(h.m, 0);
	host_fini(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gives_idle_memory_up_to_dynamic_max),
		cmocka_unit_test(shares_in_proportion_to_the_ranges),
		cmocka_unit_test(squeezes_for_a_reservation_and_gives_back),
		cmocka_unit_test(takes_no_longer_than_the_drivers),
		cmocka_unit_test(a_stuck_guest_costs_nothing_where_others_can_give),
		cmocka_unit_test(a_guest_that_gets_stuck_is_made_up_for_at_once),
		cmocka_unit_test(reservations_progress_together),
		cmocka_unit_test(no_reservation_starves_another),
		cmocka_unit_test(refuses_at_once_what_can_not_work_out),
		cmocka_unit_test(a_reservation_ends_at_its_deadline),
		cmocka_unit_test(a_reservation_passes_to_the_new_domain),
		cmocka_unit_test(frozen_and_paused_guests_are_left_alone),
		cmocka_unit_test(ballooning_is_proven_by_a_reversible_probe),
		cmocka_unit_test(a_slow_driver_is_not_stuck),
		cmocka_unit_test(who_leaves_its_target_is_not_stuck_at_once),
		cmocka_unit_test(targets_rest_when_nothing_happens),
		cmocka_unit_test(a_foreign_target_is_put_right),
		cmocka_unit_test(bad_input_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
