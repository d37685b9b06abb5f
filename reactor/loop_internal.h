/*
 * What the files of reactor/ share about a loop. Private to reactor/.
 *
 * The queues of timers and defers, the statistics and the registry of operations are the
 * same for both twins; `ev` tells them apart.
 */
#ifndef REEVE_REACTOR_LOOP_INTERNAL_H
#define REEVE_REACTOR_LOOP_INTERNAL_H

#include "reactor/child.h"
#include "reactor/loop.h"

enum {
	LOOP_MAX_SIGNALS = 8,
	LOOP_SCRATCH_BYTES = 128 << 10,
	/* Timers or defers run before sockets are looked at again. */
	LOOP_ROUND_MAX = 128,
};

struct ev_loop;
struct ev_timer;
struct loop_signal;

/* One slot of the statistics: a table probed by the address of the name. */
struct watch_slot {
	const char *name; /* NULL: free */
	uint64_t calls, over_budget;
	int64_t total_ns, max_ns;
};

enum { WATCH_SLOTS = 2 * LOOP_MAX_STATS };

struct watchdog {
	struct watch_slot slots[WATCH_SLOTS];
	struct watch_slot others; /* beyond LOOP_MAX_STATS names */
	int count;
	int depth;	     /* callbacks running, one inside another */
	bool fresh;	     /* wall_ns is the end of the last callback, just now */
	int64_t wall_ns;     /* CLOCK_BOOTTIME as last read */
	int64_t cpu_ns;	     /* thread CPU clock as last read ... */
	int64_t cpu_wall_ns; /* ... and when that was */
};

/* A callback at work. */
struct watch_frame {
	const char *name;
	int64_t start_ns;
	int64_t cpu_base_ns; /* CPU clock at most WATCH_QUANTUM_NS before the start */
	int64_t gap_ns;	     /* that long before */
};

struct loop_sim {
	uint64_t hash, events;
	int64_t wall_offset_ms;
	timer_fn *on_event;
	void *on_event_arg;
	child_sim_fn *child;
	void *child_arg;
	int who; /* acts now */
	int64_t frozen_us[LOOP_SIM_WHO];
};

struct loop {
	struct ev_loop *ev; /* NULL: simulated */
	struct ev_timer *alarm;
	int64_t alarm_due_us; /* what `alarm` is set to; INT64_MAX: not set */
	bool stopped;
	int64_t now_us;
	int64_t wall_ahead_ms; /* loop_set_wall_ahead_ms */
	struct prng prng;

	struct timer **heap;
	size_t heap_count, heap_size;
	uint64_t next_order;
	int64_t about_us; /* timers "about" a time are due at so much beyond the grid */
	struct list defers;

	struct loop_signal *signals;
	int signal_count;
	struct list children; /* those watched by SIGCHLD */
	bool sigchld_watched, no_pidfd;

	struct list ops;
	uint64_t next_token;
	uint8_t *scratch; /* LOOP_SCRATCH_BYTES, for the callback that runs now */

	struct watchdog watchdog;
	struct loop_sim sim;
};

/* loop.c */
int64_t loop_clock_ns(void);
struct timer *loop_timer_first(const struct loop *l); /* NULL: none */
void loop_timer_fire(struct loop *l, struct timer *t);
void loop_defer_fire(struct loop *l, struct defer *d);

/* watchdog.c: around each callback; frames nest. */
void watch_enter(struct loop *l, struct watch_frame *f, const char *name);
void watch_leave(struct loop *l, struct watch_frame *f);

/* loop_real.c */
void loop_real_run(struct loop *l);
void loop_real_fini(struct loop *l);

/* loop_sim.c */
void loop_sim_run(struct loop *l);
void loop_sim_event_begin(struct loop *l, const char *name);
void loop_sim_event_end(struct loop *l);

#endif
