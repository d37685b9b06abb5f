/* A real loop that runs for some time. After cmocka.h. */
#ifndef REEVE_TESTS_UNIT_REACTOR_RUN_MS_H
#define REEVE_TESTS_UNIT_REACTOR_RUN_MS_H

#include "reactor/loop.h"

static inline void run_ms_over(void *arg)
{
	loop_stop(arg);
}

static inline void run_ms(struct loop *l, int64_t ms)
{
	struct timer t;

	timer_init(&t, l, "test.stop", run_ms_over, l);
	timer_start_ms(&t, ms);
	loop_run(l);
	timer_stop(&t);
}

#endif
