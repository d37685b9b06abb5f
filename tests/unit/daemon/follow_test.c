/* Who looks when the database has changed: all do, in order, and none of them holds the
 * reactor for long together with the others. */
#include "daemon/follow.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "tests/unit/reactor/run_ms.h"

enum { LOOKS = 13, STEPS = 64 };

static struct {
	struct daemon d;
	void (*fn)(struct pool_subscriber *s, const struct db_result *r);
	int trail[STEPS], steps;
	uint64_t callback[STEPS]; /* of daemon.look, in which it looked */
	int slow;		  /* who takes longer than a slice */
	int more;		  /* so often the members aren't through */
	int changing;		  /* the database changes while this one looks */
} w;

/* As the daemon's own time counts: whatever else the machine does. */
static void spend(void)
{
	struct timespec t, begun;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begun);
	do
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	while ((t.tv_sec - begun.tv_sec) * 1000000 + (t.tv_nsec - begun.tv_nsec) / 1000 <
		2 * FOLLOW_SLICE_US);
}

/* Those that have ended. */
static uint64_t callbacks(void)
{
	struct loop_stat stats[16];
	size_t n = loop_stats(w.d.loop, stats, 16);

	for (size_t i = 0; i < n; i++)
		if (strcmp(stats[i].name, "daemon.look") == 0)
			return stats[i].calls;
	return 0;
}

static void note(int who)
{
	assert_in_range(w.steps, 0, STEPS - 1);
	w.callback[w.steps] = callbacks();
	w.trail[w.steps++] = who;
	if (w.slow == who)
		spend();
	if (w.changing == who) {
		w.changing = -1;
		w.fn(&w.d.follow.subscriber, NULL);
	}
}

#define LOOK(name, type, who)                                                            \
	void __wrap_##name(type x);                                                      \
	void __wrap_##name(type x)                                                       \
	{                                                                                \
		(void)x;                                                                 \
		note(who);                                                               \
	}

struct rotation;
LOOK(start_look, struct daemon *, 0)
LOOK(ejection_look, struct daemon *, 2)
LOOK(rotation_look, struct rotation *, 3)
LOOK(declare_look, struct daemon *, 4)
LOOK(level_look, struct daemon *, 5)
LOOK(fencing_look, struct fencing *, 6)
LOOK(policy_follow, struct daemon *, 7)
LOOK(vm_live_look, struct daemon *, 8)
LOOK(object_live_look, struct daemon *, 9)
LOOK(tasks_look, struct daemon *, 10)
LOOK(events_look, struct daemon *, 11)
LOOK(listen_publish, struct daemon *, 12)

void __wrap_members_follow(struct members *m);
void __wrap_members_follow(struct members *m)
{
	(void)m;
	note(1);
	if (w.more-- > 0)
		follow_once_more(&w.d);
}

void __wrap_pool_subscribe(struct pool *pool, struct pool_subscriber *s,
	void (*fn)(struct pool_subscriber *s, const struct db_result *r));
void __wrap_pool_subscribe(struct pool *pool, struct pool_subscriber *s,
	void (*fn)(struct pool_subscriber *s, const struct db_result *r))
{
	(void)pool;
	(void)s;
	w.fn = fn;
}

static int setup(void **state)
{
	struct rv_error e;

	(void)state;
	memset(&w, 0, sizeof w);
	w.slow = w.changing = -1;
	assert_int_equal(loop_new(&w.d.loop, &e), 0);
	w.d.members = (struct members *)&w;
	follow_init(&w.d);
	follow_begin(&w.d);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	follow_stop(&w.d);
	loop_free(w.d.loop);
	return 0;
}

static void change(void)
{
	w.fn(&w.d.follow.subscriber, NULL);
}

static bool at_rest(void)
{
	const struct follow *f = &w.d.follow;

	return !f->looking && !timer_active(&f->turn) && list_empty(&f->look.node);
}

static void rest(void)
{
	for (int i = 0; !at_rest(); i++) {
		assert_in_range(i, 0, 10000);
		run_ms(w.d.loop, 1);
	}
}

static void all_look_once(void **state)
{
	(void)state;
	change();
	change();
	change();
	rest();
	assert_int_equal(w.steps, LOOKS);
	for (int i = 0; i < LOOKS; i++)
		assert_int_equal(w.trail[i], i);
}

static void a_slow_one_ends_the_callback(void **state)
{
	(void)state;
	w.slow = 3;
	change();
	rest();
	assert_int_equal(w.steps, LOOKS);
	assert_true(w.callback[4] > w.callback[3]);
	for (int i = 0; i < LOOKS; i++)
		assert_int_equal(w.trail[i], i);
}

/* Whoever looks at the moment, whether the rest comes at once or later. */
static void a_change_meanwhile_counts(void **state)
{
	(void)state;
	for (int at = 0; at < LOOKS; at++)
		for (int slow = -1; slow < 3; slow++) {
			w.steps = 0;
			w.slow = slow;
			w.changing = at;
			change();
			rest();
			assert_int_equal(w.steps, 2 * LOOKS);
			for (int i = 0; i < 2 * LOOKS; i++)
				assert_int_equal(w.trail[i], i % LOOKS);
		}
}

static void who_is_not_through_comes_again(void **state)
{
	(void)state;
	w.more = 2;
	change();
	rest();
	assert_int_equal(w.steps, LOOKS + 2);
	for (int i = 0; i < LOOKS + 2; i++)
		assert_int_equal(w.trail[i], i < 1 ? 0 : i < 4 ? 1 : i - 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(all_look_once, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_slow_one_ends_the_callback, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_change_meanwhile_counts, setup, teardown),
		cmocka_unit_test_setup_teardown(
			who_is_not_through_comes_again, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
