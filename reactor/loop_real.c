/*
 * The real twin: libev waits for descriptors; timers and defers are the loop's own, so
 * that both twins order them alike.
 */
#include "reactor/loop.h"

#include <errno.h>
#include <ev.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/log.h"
#include "reactor/loop_ev.h"
#include "reactor/loop_internal.h"

struct loop_signal {
	ev_signal watcher;
	struct loop *loop;
	timer_fn *fn;
	void *arg;
};

/* The alarm only ends the wait; due timers run at the top of the next round. */
static void alarm_fired(struct ev_loop *ev, ev_timer *w, int events)
{
	struct loop *l = w->data;

	(void)ev;
	(void)events;
	l->alarm_due_us = INT64_MAX;
}

/* OpenSSL writes with write(2): a peer that is gone must give EPIPE, not a signal. */
static void ignore_sigpipe(void)
{
	struct sigaction old, ignore = {.sa_handler = SIG_IGN};

	if (sigaction(SIGPIPE, NULL, &old) == 0 && old.sa_handler == SIG_DFL)
		sigaction(SIGPIPE, &ignore, NULL);
}

int loop_new(struct loop **out, struct rv_error *e)
{
	struct loop *l = calloc(1, sizeof *l);
	uint64_t seed;

	*out = NULL;
	if (!l)
		goto no_memory;
	list_init(&l->defers);
	list_init(&l->children);
	list_init(&l->ops);
	l->next_token = 1;
	l->alarm_due_us = INT64_MAX;
	l->alarm = malloc(sizeof *l->alarm);
	l->scratch = malloc(LOOP_SCRATCH_BYTES);
	l->signals = calloc(LOOP_MAX_SIGNALS, sizeof *l->signals);
	if (!l->alarm || !l->scratch || !l->signals)
		goto no_memory;
	if (getrandom(&seed, sizeof seed, 0) != sizeof seed) {
		rv_error_set(e, RV_EIO, "event loop: no random seed from the kernel: %s",
			strerror(errno));
		goto fail;
	}
	prng_seed(&l->prng, seed);
	/* Hosts need not all act at the same moment. */
	l->about_us = (int64_t)(seed % (LOOP_ABOUT_MS * 1000));
	l->ev = ev_loop_new(EVFLAG_NOENV | EVBACKEND_EPOLL);
	if (!l->ev) {
		rv_error_set(e, RV_ELIMIT,
			"event loop: the kernel gives no epoll instance (%s); "
			"check the limit of open files",
			strerror(errno));
		goto fail;
	}
	/* Counted as one watcher, so that a loop with only timers still waits. */
	ev_ref(l->ev);
	ev_timer_init(l->alarm, alarm_fired, 0., 0.);
	l->alarm->data = l;
	ignore_sigpipe();
	*out = l;
	return 0;
no_memory:
	rv_error_set(e, RV_ENOMEM, "event loop: out of memory");
fail:
	if (l) {
		free(l->alarm);
		free(l->scratch);
		free(l->signals);
		free(l);
	}
	return e ? e->code : RV_ENOMEM;
}

void loop_real_fini(struct loop *l)
{
	for (int i = 0; i < l->signal_count; i++)
		ev_signal_stop(l->ev, &l->signals[i].watcher);
	ev_timer_stop(l->ev, l->alarm);
	ev_loop_destroy(l->ev);
	free(l->alarm);
	free(l->signals);
}

struct ev_loop *loop_ev(struct loop *l)
{
	return l->ev;
}

/* Timers that are started by timers of this round wait for the next one, so that sockets
 * have their turn. */
static void run_timers(struct loop *l)
{
	uint64_t order_end = l->next_order;
	struct timer *t = loop_timer_first(l);
	int64_t now_us;

	if (!t)
		return;
	if (!l->watchdog.fresh) {
		l->watchdog.wall_ns = loop_clock_ns();
		l->watchdog.fresh = true;
	}
	now_us = l->watchdog.wall_ns / 1000;
	for (int i = 0; i < LOOP_ROUND_MAX && !l->stopped; i++) {
		t = loop_timer_first(l);
		if (!t || t->due_us > now_us || t->order >= order_end)
			return;
		loop_timer_fire(l, t);
	}
}

static void run_defers(struct loop *l)
{
	for (int i = 0; i < LOOP_ROUND_MAX && !l->stopped; i++) {
		if (list_empty(&l->defers))
			return;
		loop_defer_fire(l, CONTAINER_OF(l->defers.next, struct defer, node));
	}
}

/* True when there is something to run already, so nothing to wait for. */
static bool set_alarm(struct loop *l)
{
	const struct timer *t = loop_timer_first(l);
	int64_t after_us;

	if (!list_empty(&l->defers))
		return true;
	if (!t || t->due_us == l->alarm_due_us)
		return false;
	after_us = t->due_us - loop_clock_ns() / 1000;
	if (after_us <= 0)
		return true;
	/* An alarm that is too early costs one wake-up, moving it costs more. */
	if (l->alarm_due_us < t->due_us)
		return false;
	ev_timer_stop(l->ev, l->alarm);
	/* libev counts from when it woke up, which would be too early. */
	ev_now_update(l->ev);
	ev_timer_set(l->alarm, (double)after_us * 1e-6, 0.);
	ev_timer_start(l->ev, l->alarm);
	l->alarm_due_us = t->due_us;
	return false;
}

void loop_real_run(struct loop *l)
{
	while (!l->stopped) {
		bool busy;

		run_timers(l);
		run_defers(l);
		if (l->stopped)
			break;
		busy = set_alarm(l);
		l->watchdog.fresh = false;
		ev_run(l->ev, busy ? EVRUN_NOWAIT : EVRUN_ONCE);
	}
}

static void signal_arrived(struct ev_loop *ev, ev_signal *w, int events)
{
	struct loop_signal *s = w->data;

	(void)ev;
	(void)events;
	loop_call(s->loop, "signal", s->fn, s->arg);
}

int loop_on_signal(struct loop *l, int signum, timer_fn *fn, void *arg)
{
	struct loop_signal *s;

	if (!l->ev)
		return RV_EUNSUPPORTED;
	if (l->signal_count == LOOP_MAX_SIGNALS)
		return RV_ELIMIT;
	s = &l->signals[l->signal_count++];
	s->loop = l;
	s->fn = fn;
	s->arg = arg;
	ev_signal_init(&s->watcher, signal_arrived, signum);
	s->watcher.data = s;
	ev_signal_start(l->ev, &s->watcher);
	return 0;
}
