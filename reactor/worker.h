/*
 * A worker thread with a mailbox: for what must block (fsync, xenstore requests, scrypt,
 * name look-ups). Jobs of one worker run in order, one at a time, and share no state with
 * the loop: everything `run` touches is in the job's own struct, which the owner leaves
 * alone until `done`.
 *
 * On a simulated loop `run` is called by the loop itself after a seeded delay.
 */
#ifndef REEVE_REACTOR_WORKER_H
#define REEVE_REACTOR_WORKER_H

#include "reactor/loop.h"

struct worker;

/* Embed it in the struct that carries the arguments and the result. */
struct job {
	struct list node;
	void (*run)(struct job *job); /* on the worker's thread */
	void (*done)(
		struct job *job, int rc); /* on the loop; 0 or RV_ECANCELLED: never ran */
	const char *name;
};

/* Returned owned. `name` (a literal) names thread and watchdog entry. */
int worker_new(struct worker **out, struct loop *l, const char *name) RV_MUST_CHECK;

/* Waits for the job at work, cancels those waiting (their done runs inside this call, the
 * one exception to the rule), ends the thread. NULL-safe. */
void worker_free(struct worker *w);

/* Queues a job; fill in run, done and name first. RV_ELIMIT when RV_MAX_WORKER_JOBS wait.
 */
int worker_submit(struct worker *w, struct job *job) RV_MUST_CHECK;

/* On a simulated loop: each job's delay is drawn from [min_us, max_us]. Default 50..500.
 */
void worker_sim_set_delay(struct worker *w, int64_t min_us, int64_t max_us);

#endif
