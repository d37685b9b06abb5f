/* When reeve-fenced does what, on a clock of the test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "fence/guard.h"

static struct guard_book book;
static struct fence_message list;

static void set_up(bool watching)
{
	guard_book_init(&book, watching);
	memset(&list, 0, sizeof list);
	list.type = FENCE_GUARD;
}

static int guard(uint32_t count, int64_t now_ms)
{
	struct rv_error e;

	list.seq++;
	list.count = count;
	for (uint32_t i = 0; i < count; i++)
		list.domains[i] = (struct fence_domain){
			.domid = i + 1, .handle = {{(uint8_t)(i + 1), 9}}};
	return guard_book_list(&book, &list, now_ms, &e);
}

static void lease(int64_t until_ms, int64_t now_ms)
{
	struct rv_error e;

	assert_int_equal(guard_book_lease(&book, until_ms, now_ms, &e), 0);
}

static void expect(int64_t now_ms, enum guard_act act, uint32_t index)
{
	uint32_t i = 0;
	int64_t at;

	assert_int_equal(guard_book_next(&book, now_ms, &i, &at), act);
	if (act == GUARD_STOP || act == GUARD_DESTROY)
		assert_int_equal(i, index);
}

static void expect_wait(int64_t now_ms, int64_t until_ms)
{
	uint32_t i;
	int64_t at;

	assert_int_equal(guard_book_next(&book, now_ms, &i, &at), GUARD_WAIT);
	assert_int_equal(at, until_ms);
}

static void did(enum guard_act act, uint32_t index, bool done, int64_t now_ms)
{
	guard_book_did(&book, act, index, done, now_ms);
}

static void destroyed(uint32_t domid, bool gone, int64_t now_ms)
{
	struct fence_domain d = {.domid = domid, .handle = {{(uint8_t)domid, 9}}};

	guard_book_destroyed(&book, &d, gone, now_ms);
}

static void test_guards_and_ends(void **state)
{
	(void)state;
	set_up(false);
	expect_wait(0, INT64_MAX);
	lease(10000, 0);
	assert_int_equal(guard(2, 0), 0);
	expect(0, GUARD_QUIET, 0);
	did(GUARD_QUIET, 0, true, 0);
	expect_wait(10, GUARD_QUIET_MS);
	expect(GUARD_QUIET_MS, GUARD_QUIET, 0);
	did(GUARD_QUIET, 0, true, 9500);
	expect_wait(9600, 10000); /* the lease's end comes first */
	/* From its end on the watchdog is not kept quiet while one runs. */
	expect(10000, GUARD_STOP, 0);
	did(GUARD_STOP, 0, true, 10000);
	expect(10000, GUARD_STOP, 1);
	did(GUARD_STOP, 1, false, 10001);
	expect_wait(10002, 10001 + GUARD_AGAIN_MS);
	expect(10201, GUARD_STOP, 1);
	did(GUARD_STOP, 1, true, 10201);
	/* Nothing runs any more: destroying may take its time. */
	expect(10202, GUARD_OFF, 0);
	did(GUARD_OFF, 0, true, 10202);
	expect(10203, GUARD_DESTROY, 0);
	did(GUARD_DESTROY, 0, true, 10203);
	expect_wait(10203, INT64_MAX); /* one at a time */
	destroyed(1, true, 10204);
	assert_int_equal(book.count, 1);
	expect(10204, GUARD_DESTROY, 0);
	did(GUARD_DESTROY, 0, true, 10204);
	destroyed(2, false, 10205);
	expect_wait(10206, 10205 + GUARD_AGAIN_MS);
	expect(10405, GUARD_DESTROY, 0);
	did(GUARD_DESTROY, 0, true, 10405);
	destroyed(2, true, 10406);
	expect_wait(10407, INT64_MAX);
	assert_int_equal(book.count, 0);
}

/* A destroy that hangs: the watchdog is kept quiet for the others while the lease lasts,
 * and they are stopped when it ends. */
static void test_a_destroy_hangs(void **state)
{
	int64_t now = 5002;

	(void)state;
	set_up(false);
	lease(5000, 0);
	assert_int_equal(guard(1, 0), 0);
	did(GUARD_QUIET, 0, true, 4900);
	did(GUARD_STOP, 0, true, 5000);
	expect(5000, GUARD_OFF, 0);
	did(GUARD_OFF, 0, true, 5000);
	expect(5001, GUARD_DESTROY, 0);
	did(GUARD_DESTROY, 0, true, 5001);
	lease(60000, 5002);
	assert_int_equal(guard(3, 5002), 0); /* it is still listed, and stays stopped */
	assert_int_equal(book.count, 3);
	for (; now < 60000; now += GUARD_QUIET_MS) {
		expect(now, GUARD_QUIET, 0);
		did(GUARD_QUIET, 0, true, now);
		expect_wait(
			now, now + GUARD_QUIET_MS < 60000 ? now + GUARD_QUIET_MS : 60000);
	}
	/* The one that hangs, too: somebody may have let it go on meanwhile. */
	for (uint32_t i = 0; i < 3; i++) {
		expect(60000, GUARD_STOP, i);
		did(GUARD_STOP, i, true, 60000);
	}
	expect(60001, GUARD_OFF, 0);
	did(GUARD_OFF, 0, true, 60001);
	expect_wait(60002, INT64_MAX);
	destroyed(1, true, 70000);
	assert_int_equal(book.count, 2);
	expect(70000, GUARD_DESTROY, 0);
}

static void test_can_not_stop(void **state)
{
	(void)state;
	set_up(false);
	lease(5000, 0);
	assert_int_equal(guard(1, 0), 0);
	did(GUARD_QUIET, 0, true, 4999);
	/* Never quiet again, for as long as one may run. */
	for (int64_t now = 5000; now < 5000 + FENCE_WATCHDOG_MS; now += GUARD_AGAIN_MS) {
		expect(now, GUARD_STOP, 0);
		did(GUARD_STOP, 0, false, now);
	}
}

static void test_a_lease_comes_back(void **state)
{
	(void)state;
	set_up(false);
	lease(5000, 0);
	assert_int_equal(guard(2, 0), 0);
	did(GUARD_QUIET, 0, true, 4900);
	expect(5000, GUARD_STOP, 0);
	did(GUARD_STOP, 0, true, 5000);
	lease(15000, 5001);
	/* What was stopped is not let go of, whatever reeved lists. */
	assert_int_equal(guard(0, 5001), 0);
	assert_int_equal(book.count, 1);
	/* Until it is gone somebody may let it go on: the watchdog stays. */
	expect(5001, GUARD_DESTROY, 0);
	did(GUARD_DESTROY, 0, true, 5001);
	expect_wait(5002, 4900 + GUARD_QUIET_MS);
	expect(5900, GUARD_QUIET, 0);
	did(GUARD_QUIET, 0, true, 5900);
	destroyed(1, true, 6000);
	expect(6000, GUARD_OFF, 0);
}

static void test_without_a_lease(void **state)
{
	struct rv_error e;

	(void)state;
	set_up(false);
	assert_int_equal(guard(1, 0), RV_ESTATE);
	assert_int_equal(book.count, 0);
	expect_wait(0, INT64_MAX);
	lease(5000, 0);
	assert_int_equal(guard(1, 4000), 0);
	/* The same list again is no news; one more is. */
	assert_int_equal(guard(1, 5000), 0);
	assert_int_equal(guard(2, 5000), RV_ESTATE);
	assert_int_equal(book.count, 1);
	assert_int_equal(guard_book_lease(&book, -1, 0, &e), RV_EPARAM);
	assert_int_equal(
		guard_book_lease(&book, GUARD_LEASE_MAX_MS + 1, 0, &e), RV_EPARAM);
	assert_int_equal(guard_book_lease(&book, INT64_MAX, 0, &e), RV_EPARAM);
	assert_int_equal(book.until_ms, 5000);
}

static void test_watchdog_off(void **state)
{
	(void)state;
	set_up(false);
	lease(10000, 0);
	assert_int_equal(guard(1, 0), 0);
	expect(0, GUARD_QUIET, 0);
	did(GUARD_QUIET, 0, true, 0);
	assert_int_equal(guard(0, 100), 0); /* nothing is protected any more */
	expect(100, GUARD_OFF, 0);
	did(GUARD_OFF, 0, true, 100);
	expect_wait(101, INT64_MAX);
}

static void test_a_former_one_died(void **state)
{
	(void)state;
	/* It left its watchdog on: nobody knows yet what it guarded. */
	set_up(true);
	expect_wait(0, INT64_MAX);
	lease(10000, 0);
	expect_wait(0, INT64_MAX);
	assert_int_equal(guard(1, 1), 0);
	expect(1, GUARD_QUIET, 0);
	set_up(true);
	assert_int_equal(guard(0, 1), 0);
	expect(1, GUARD_OFF, 0);
}

/* A list that has no room changes nothing: what was acknowledged stays guarded. */
static void test_full(void **state)
{
	static struct guard_book before;
	struct rv_error e;

	(void)state;
	set_up(false);
	lease(10000, 0);
	assert_int_equal(guard(FENCE_MAX_DOMAINS, 0), 0);
	did(GUARD_STOP, 0, true, 0);
	before = book;
	/* The one that was stopped is named no more, and has no room beside the others.
	 */
	list.seq++;
	for (uint32_t i = 0; i < list.count; i++)
		list.domains[i].handle.b[5] = i % 2;
	list.domains[0].handle.b[5] = 1;
	assert_int_equal(guard_book_list(&book, &list, 0, &e), RV_ELIMIT);
	assert_memory_equal(&book, &before, sizeof book);
	/* The same ones in another order are no more than before, nor is one named twice.
	 */
	list.seq++;
	for (uint32_t i = 0; i < list.count; i++)
		list.domains[i] =
			before.domains[FENCE_MAX_DOMAINS - 1 - i / 2 * 2].domain;
	assert_int_equal(guard_book_list(&book, &list, 0, &e), 0);
	assert_int_equal(book.count, FENCE_MAX_DOMAINS / 2 + 1);
	assert_int_equal(guard(FENCE_MAX_DOMAINS, 0), 0);
	assert_int_equal(book.count, FENCE_MAX_DOMAINS);
	assert_true(book.domains[0].stopped);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_guards_and_ends),
		cmocka_unit_test(test_a_destroy_hangs),
		cmocka_unit_test(test_can_not_stop),
		cmocka_unit_test(test_a_lease_comes_back),
		cmocka_unit_test(test_without_a_lease),
		cmocka_unit_test(test_watchdog_off),
		cmocka_unit_test(test_a_former_one_died),
		cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
