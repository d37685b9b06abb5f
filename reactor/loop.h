/*
 * The event loop: one thread, callbacks that never block.
 *
 * Two twins behind one interface. `loop_new` is libev with epoll and the real clocks;
 * `loop_new_sim` is a virtual clock that jumps to the next event, seeded, for tests. What
 * is built on timers, defers, workers and streams runs unchanged on both. Descriptors
 * (reactor/io.h) and child processes exist on the real loop only; a simulation gives
 * fakes.
 *
 * Rules every user relies on:
 * - A completion is never delivered inside the call that asked for it.
 * - A callback has RV_CALLBACK_BUDGET_US of thread CPU time; the watchdog counts and
 * names the callback that takes longer (see loop_stats).
 * - All calls come from the loop's thread, except worker jobs' `run`.
 */
#ifndef REEVE_REACTOR_LOOP_H
#define REEVE_REACTOR_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/list.h"
#include "base/prng.h"

struct loop;

/* Returned owned. The real loop seeds its generator from the kernel, and ignores SIGPIPE
 * in the process where that still has its default action. */
int loop_new(struct loop **out, struct rv_error *e) RV_MUST_CHECK;
int loop_new_sim(struct loop **out, uint64_t seed) RV_MUST_CHECK;
void loop_free(struct loop *l); /* everything registered must be gone; NULL-safe */

bool loop_is_sim(const struct loop *l);

/* Runs callbacks until loop_stop, or (simulation) until no event is left. */
void loop_run(struct loop *l);
void loop_stop(struct loop *l); /* also before loop_run, which then returns at once */

/* Monotonic microseconds, suspend included (CLOCK_BOOTTIME), as of the running callback's
 * start. The simulation's clock starts at 1 s. */
int64_t loop_now_us(const struct loop *l);
/* UTC milliseconds since 1970. For records and certificates, never for intervals. */
int64_t loop_wall_ms(const struct loop *l);

/* For tests of real daemons: from now on the wall clock above reads so much more (or
 * less). The real loop's; a simulation has loop_sim_set_wall_ms. */
void loop_set_wall_ahead_ms(struct loop *l, int64_t ahead_ms);

/* Borrowed. */
struct prng *loop_prng(struct loop *l);

/* --- timers --- */

typedef void timer_fn(void *arg);

/* Embed it; `name` must be a literal (the watchdog prints it, e.g. "vm.start.deadline").
 */
struct timer {
	struct loop *loop;
	const char *name;
	timer_fn *fn;
	void *arg;
	int64_t due_us;
	uint64_t order;	  /* ties fire in the order they were started */
	size_t heap_slot; /* SIZE_MAX: not started */
	int who;	  /* simulations: loop_sim_as */
};

void timer_init(
	struct timer *t, struct loop *l, const char *name, timer_fn *fn, void *arg);
/* Fires once, `after_us` from now, never early, on the real loop up to 1 ms late; a
 * running timer is started anew. Can't fail: a process that has no memory left for 8 more
 * bytes aborts here. */
void timer_start_us(struct timer *t, int64_t after_us);
void timer_start_ms(struct timer *t, int64_t after_ms);
/* Fires once, about so much later, together with others that were started so: an idle
 * process then wakes up once for all of them. On the real loop up to half of
 * LOOP_ABOUT_MS early or late; exact where after_ms is shorter than that, and on a
 * simulated one. For what is done again and again, and needs no certain moment. */
enum { LOOP_ABOUT_MS = 50 };
void timer_start_about_ms(struct timer *t, int64_t after_ms);
void timer_stop(struct timer *t); /* idempotent; must be called before the memory goes */
bool timer_active(const struct timer *t);

/* --- defers --- */

/* Runs fn once, soon, from the loop rather than from the caller. Embed it. */
struct defer {
	struct loop *loop;
	const char *name;
	timer_fn *fn;
	void *arg;
	struct list node;
	int who; /* simulations: loop_sim_as */
};

void defer_init(
	struct defer *d, struct loop *l, const char *name, timer_fn *fn, void *arg);
void defer_start(struct defer *d); /* no effect while it is already due */
void defer_stop(struct defer *d);  /* idempotent */

/* --- signals (real loop) --- */

/* Calls fn(arg) from the loop each time `signum` arrives. At most 8 signals. */
int loop_on_signal(struct loop *l, int signum, timer_fn *fn, void *arg) RV_MUST_CHECK;

/* --- watchdog --- */

enum { LOOP_MAX_STATS = 256 };

/* Per callback name, since start. Times are thread CPU microseconds where a callback took
 * more than 1 ms (and may then be up to 1 ms short), wall microseconds otherwise. */
struct loop_stat {
	const char *name;
	uint64_t calls, total_us, max_us;
	uint64_t over_budget; /* calls beyond RV_CALLBACK_BUDGET_US */
};

/* Fills up to `max` entries, worst max_us first; returns how many. */
size_t loop_stats(const struct loop *l, struct loop_stat *out, size_t max);

/* For code inside reactor/ that calls out: runs fn(arg) under the watchdog, named. */
void loop_call(struct loop *l, const char *name, timer_fn *fn, void *arg);

/* --- simulation --- */

/* Runs the next event, moving the clock to it; false when there is none. */
bool loop_sim_step(struct loop *l);
/* Runs all events due up to `until_us`, then sets the clock there. */
void loop_sim_run_until(struct loop *l, int64_t until_us);
/* A hash over (time, callback name) of all events so far: same seed, same trace. */
uint64_t loop_sim_trace_hash(const struct loop *l);
uint64_t loop_sim_event_count(const struct loop *l);
/* Called after every event, for invariants. */
void loop_sim_on_event(struct loop *l, timer_fn *fn, void *arg);
/* Mixes bytes of the test's own into the trace hash (a message sent, a state reached). */
void loop_sim_trace(struct loop *l, const void *data, size_t len);
void loop_sim_set_wall_ms(struct loop *l, int64_t wall_ms); /* clock jumps */

/* Several processes on one simulated loop, LOOP_SIM_WHO at most: timers and defers belong
 * to whoever initialises them, and what they run is his doing in turn. Says who acts from
 * now on until the callback ends (0, nobody: as it is at first), and returns who did. */
enum { LOOP_SIM_WHO = 64 };
int loop_sim_as(struct loop *l, int who);
/* SIGSTOP: nothing of his happens before until_us; then all that was due, in order. A
 * time that has passed ends it. A timer of somebody else's has to bring the clock there.
 */
void loop_sim_freeze(struct loop *l, int who, int64_t until_us);

#endif
