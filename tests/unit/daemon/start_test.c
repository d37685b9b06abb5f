/* A daemon that comes up although the pool does not take its host's record at once. */
#include "daemon/daemon.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"

/* The pool's own pool_commit is asked through here (--wrap). */
static int refusals, refused_with;

int __real_pool_commit(struct pool *pool, struct pool_commit *c, struct txn *t,
	void (*fn)(struct pool_commit *c), struct rv_error *e);
int __wrap_pool_commit(struct pool *pool, struct pool_commit *c, struct txn *t,
	void (*fn)(struct pool_commit *c), struct rv_error *e);

int __wrap_pool_commit(struct pool *pool, struct pool_commit *c, struct txn *t,
	void (*fn)(struct pool_commit *c), struct rv_error *e)
{
	if (refusals == 0)
		return __real_pool_commit(pool, c, t, fn, e);
	refusals--;
	txn_fini(t);
	return rv_error_set(e, refused_with, "not now");
}

static struct daemon daemon_; /* large */

/* How the daemon is ended. */
static void stop(void)
{
	daemon_stop(&daemon_);
}

static void restart(void)
{
	daemon_restart(&daemon_);
}

static void stop_then_restart(void)
{
	daemon_stop(&daemon_);
	daemon_restart(&daemon_);
}

static void restart_then_stop(void)
{
	daemon_restart(&daemon_);
	daemon_stop(&daemon_);
}

static void (*end)(void);

static void on_tick(void *arg)
{
	struct timer *tick = arg;

	if (daemon_.serving && daemon_.start.finished)
		end();
	else
		timer_start_ms(tick, 20);
}

static void on_late(void *arg)
{
	loop_stop(arg);
}

/* Refuses the daemon with `rc` at first, ends it with `how` once it serves. */
static void check_comes_up(int rc, void (*how)(void), bool starts_again)
{
	char directory[] = "/tmp/reeve-start-XXXXXX", command[64];
	struct timer tick, late;
	struct config config;
	struct rv_error e;
	struct loop *loop;
	int status = 0;
	bool served, again;

	log_setup(LOG_ERROR + 1, NULL, NULL);
	assert_non_null(mkdtemp(directory));
	config_defaults(&config);
	snprintf(config.state_dir, sizeof config.state_dir, "%s/state", directory);
	snprintf(config.run_dir, sizeof config.run_dir, "%s/run", directory);
	snprintf(config.hypervisor, sizeof config.hypervisor, "simulated");
	snprintf(config.network, sizeof config.network, "simulated");
	config.rpc_group[0] = '\0';
	assert_int_equal(loop_new(&loop, &e), 0);
	refusals = 2;
	refused_with = rc;
	end = how;
	if (daemon_start(&daemon_, loop, &config, &status, &e))
		fail_msg("%s", e.detail);
	timer_init(&tick, loop, "test.tick", on_tick, &tick);
	timer_init(&late, loop, "test.late", on_late, loop);
	timer_start_ms(&tick, 20);
	timer_start_ms(&late, 60000);
	loop_run(loop);
	served = daemon_.start.finished && status == 0;
	again = daemon_starts_again(&daemon_);
	timer_stop(&tick);
	timer_stop(&late);
	daemon_fini(&daemon_);
	loop_free(loop);
	snprintf(command, sizeof command, "rm -r %s", directory);
	assert_int_equal(system(command), 0);
	assert_true(served);
	assert_true(again == starts_again);
	assert_int_equal(refusals, 0);
}

static void test_leadership_wavers(void **state)
{
	(void)state;
	check_comes_up(RV_ENOTMASTER, stop, false);
}

static void test_not_just_now(void **state)
{
	(void)state;
	check_comes_up(RV_EAGAIN, stop, false);
}

/* Who ends a host that is about to start anew as a pool's member gets an end. */
static void test_end_beats_restart(void **state)
{
	(void)state;
	check_comes_up(RV_EAGAIN, restart, true);
	check_comes_up(RV_EAGAIN, stop_then_restart, false);
	check_comes_up(RV_EAGAIN, restart_then_stop, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_leadership_wavers),
		cmocka_unit_test(test_not_just_now),
		cmocka_unit_test(test_end_beats_restart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
