#include "reactor/worker.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/limits.h"
#include "reactor/io.h"
#include "reactor/loop_internal.h"

enum {
	WORKER_DELIVER_MAX = 64,
	LINGER_NS = 60 * 1000,
	LINGER_GAP_NS = 120 * 1000,
};

struct worker {
	struct loop *loop;
	const char *name;
	int waiting; /* submitted and not yet delivered */
	bool delivering;
	bool freed; /* by a done callback: the memory goes when it has returned */

	/* real loop */
	pthread_t thread;
	pthread_mutex_t lock; /* guards queue, ran, ending */
	pthread_cond_t wake;
	struct list queue, ran;
	bool ending;
	atomic_bool wanted; /* something was queued, or it is ending: seen unlocked */
	int64_t idle_ns;    /* the thread's own: since when it has had nothing to do */
	bool lingers;	    /* and whether the next job is likely to follow at once */
	int event_fd;
	struct io io;

	/* simulated loop: uses queue too */
	struct timer timer;
	int64_t sim_min_us, sim_max_us;
};

/* --- the worker's thread --- */

static void worker_ring(struct worker *w)
{
	uint64_t one = 1;
	ssize_t r;

	do
		r = write(w->event_fd, &one, sizeof one);
	while (r < 0 && errno == EINTR);
}

static void worker_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

/* Where one job follows right upon another, as entries of a log do that are written one
 * by one, putting the thread to sleep and waking it up again costs as much as a fast disk
 * takes. So there it looks out for the next one for a moment. With the lock held. */
static void worker_await(struct worker *w)
{
	w->idle_ns = loop_clock_ns();
	if (w->lingers) {
		pthread_mutex_unlock(&w->lock);
		while (!atomic_load_explicit(&w->wanted, memory_order_acquire) &&
			loop_clock_ns() - w->idle_ns < LINGER_NS)
			worker_relax();
		pthread_mutex_lock(&w->lock);
	}
	while (list_empty(&w->queue) && !w->ending)
		pthread_cond_wait(&w->wake, &w->lock);
	w->lingers = loop_clock_ns() - w->idle_ns < LINGER_GAP_NS;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	char thread_name[16];
	size_t i;

	for (i = 0; i < sizeof thread_name - 1 && w->name[i]; i++)
		thread_name[i] = w->name[i];
	thread_name[i] = '\0';
	pthread_setname_np(pthread_self(), thread_name);
	pthread_mutex_lock(&w->lock);
	for (;;) {
		struct job *job;
		bool first;

		if (list_empty(&w->queue) && !w->ending)
			worker_await(w);
		if (w->ending)
			break;
		job = CONTAINER_OF(w->queue.next, struct job, node);
		list_remove(&job->node);
		atomic_store_explicit(&w->wanted, false, memory_order_relaxed);
		pthread_mutex_unlock(&w->lock);
		job->run(job);
		pthread_mutex_lock(&w->lock);
		first = list_empty(&w->ran);
		list_push_back(&w->ran, &job->node);
		if (!first)
			continue;
		/* Whoever wakes up from it wants the lock. */
		pthread_mutex_unlock(&w->lock);
		worker_ring(w);
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

/* --- the loop's side --- */

struct delivery {
	struct job *job;
	int rc;
};

static void worker_deliver(void *arg)
{
	struct delivery *d = arg;

	d->job->done(d->job, d->rc);
}

static void worker_done(struct worker *w, struct job *job, int rc)
{
	struct delivery d = {job, rc};

	w->waiting--;
	loop_call(w->loop, job->name ? job->name : w->name, worker_deliver, &d);
}

static struct job *worker_take(struct worker *w, struct list *from)
{
	struct job *job = NULL;

	pthread_mutex_lock(&w->lock);
	if (!list_empty(from)) {
		job = CONTAINER_OF(from->next, struct job, node);
		list_remove(&job->node);
	}
	pthread_mutex_unlock(&w->lock);
	return job;
}

static void worker_release(struct worker *w)
{
	if (!loop_is_sim(w->loop)) {
		pthread_cond_destroy(&w->wake);
		pthread_mutex_destroy(&w->lock);
	}
	free(w);
}

static void worker_rang(void *arg, int events)
{
	struct worker *w = arg;
	struct job *job;
	uint64_t count;

	(void)events;
	/* Emptied first: a job that ends meanwhile rings again. */
	if (read(w->event_fd, &count, sizeof count) < 0 && errno != EAGAIN)
		return;
	w->delivering = true;
	for (int i = 0; !w->freed; i++) {
		if (i == WORKER_DELIVER_MAX) {
			worker_ring(w);
			break;
		}
		job = worker_take(w, &w->ran);
		if (!job)
			break;
		worker_done(w, job, 0);
	}
	w->delivering = false;
	if (w->freed)
		worker_release(w);
}

static void worker_sim_next(struct worker *w)
{
	if (w->freed || list_empty(&w->queue) || timer_active(&w->timer))
		return;
	timer_start_us(
		&w->timer, prng_range(loop_prng(w->loop), w->sim_min_us, w->sim_max_us));
}

static void worker_sim_fire(void *arg)
{
	struct worker *w = arg;
	struct job *job = CONTAINER_OF(w->queue.next, struct job, node);

	list_remove(&job->node);
	w->delivering = true;
	job->run(job);
	worker_done(w, job, 0);
	w->delivering = false;
	worker_sim_next(w);
	if (w->freed)
		worker_release(w);
}

/* Signals belong to the loop's thread. */
static int worker_start_thread(struct worker *w)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&w->thread, NULL, worker_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rv_error_from_errno(r);
}

static int worker_init_real(struct worker *w)
{
	int rc;

	w->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->event_fd < 0)
		return rv_error_from_errno(errno);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->wake, NULL);
	rc = io_init(&w->io, w->loop, w->name, w->event_fd, worker_rang, w);
	if (rc)
		goto fail;
	rc = worker_start_thread(w);
	if (rc)
		goto fail;
	io_want(&w->io, IO_READ);
	return 0;
fail:
	io_fini(&w->io);
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
	close(w->event_fd);
	return rc;
}

int worker_new(struct worker **out, struct loop *l, const char *name)
{
	struct worker *w = calloc(1, sizeof *w);
	int rc;

	*out = NULL;
	if (!w)
		return RV_ENOMEM;
	w->loop = l;
	w->name = name;
	list_init(&w->queue);
	list_init(&w->ran);
	if (loop_is_sim(l)) {
		w->sim_min_us = 50;
		w->sim_max_us = 500;
		timer_init(&w->timer, l, name, worker_sim_fire, w);
	} else {
		rc = worker_init_real(w);
		if (rc) {
			free(w);
			return rc;
		}
	}
	*out = w;
	return 0;
}

static void worker_end_real(struct worker *w)
{
	struct job *job;

	pthread_mutex_lock(&w->lock);
	w->ending = true;
	atomic_store_explicit(&w->wanted, true, memory_order_release);
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	io_fini(&w->io);
	close(w->event_fd);
	while ((job = worker_take(w, &w->ran)))
		worker_done(w, job, 0);
}

void worker_free(struct worker *w)
{
	if (!w)
		return;
	assert(!w->freed);
	w->freed = true;
	if (loop_is_sim(w->loop))
		timer_stop(&w->timer);
	else
		worker_end_real(w);
	/* No thread is left: the lock is not needed. */
	while (!list_empty(&w->queue)) {
		struct job *job = CONTAINER_OF(w->queue.next, struct job, node);

		list_remove(&job->node);
		worker_done(w, job, RV_ECANCELLED);
	}
	if (!w->delivering)
		worker_release(w);
}

int worker_submit(struct worker *w, struct job *job)
{
	assert(job->run && job->done);
	if (w->freed)
		return RV_ECLOSED;
	if (w->waiting >= RV_MAX_WORKER_JOBS)
		return RV_ELIMIT;
	w->waiting++;
	if (loop_is_sim(w->loop)) {
		list_push_back(&w->queue, &job->node);
		worker_sim_next(w);
		return 0;
	}
	pthread_mutex_lock(&w->lock);
	list_push_back(&w->queue, &job->node);
	atomic_store_explicit(&w->wanted, true, memory_order_release);
	pthread_mutex_unlock(&w->lock);
	pthread_cond_signal(&w->wake);
	return 0;
}

void worker_sim_set_delay(struct worker *w, int64_t min_us, int64_t max_us)
{
	assert(min_us >= 0 && min_us <= max_us);
	w->sim_min_us = min_us;
	w->sim_max_us = max_us;
}
