#include "fence/ender.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { ENDER_STACK_BYTES = 256 << 10 }; /* all of it is locked in memory */

enum ender_state { ENDER_IDLE, ENDER_ASKED, ENDER_OVER };

struct fence_ender {
	struct fence_port *port;
	pthread_t thread;
	int ended; /* eventfd */
	pthread_mutex_t lock;
	pthread_cond_t asked;
	/* under the lock */
	enum ender_state state;
	struct fence_domain domain;
	int rc;
	struct rv_error error;
	bool quit;
};

static void *ender_run(void *arg)
{
	struct fence_ender *n = arg;

	pthread_mutex_lock(&n->lock);
	for (;;) {
		struct fence_domain d;
		struct rv_error e = {0};
		uint64_t one = 1;
		int rc;

		while (n->state != ENDER_ASKED && !n->quit)
			pthread_cond_wait(&n->asked, &n->lock);
		if (n->quit)
			break;
		d = n->domain;
		pthread_mutex_unlock(&n->lock);
		rc = n->port->ops->destroy(n->port, &d, &e);
		pthread_mutex_lock(&n->lock);
		n->rc = rc;
		n->error = e;
		n->state = ENDER_OVER;
		if (write(n->ended, &one, sizeof one) != sizeof one)
			continue; /* the loop looks again within a second */
	}
	pthread_mutex_unlock(&n->lock);
	return NULL;
}

static int thread_start(struct fence_ender *n)
{
	sigset_t all, before;
	pthread_attr_t attr;
	int r = pthread_attr_init(&attr);

	if (r)
		return r;
	pthread_attr_setstacksize(&attr, ENDER_STACK_BYTES);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&n->thread, &attr, ender_run, n);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return r;
}

int fence_ender_new(struct fence_ender **out, struct fence_port *port, struct rv_error *e)
{
	struct fence_ender *n = calloc(1, sizeof *n);
	int r;

	*out = NULL;
	if (!n)
		return rv_error_set(e, RV_ENOMEM, "out of memory");
	n->port = port;
	pthread_mutex_init(&n->lock, NULL);
	pthread_cond_init(&n->asked, NULL);
	n->ended = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = n->ended < 0 ? errno : thread_start(n);
	if (r) {
		if (n->ended >= 0)
			close(n->ended);
		pthread_cond_destroy(&n->asked);
		pthread_mutex_destroy(&n->lock);
		free(n);
		return rv_error_set(e, rv_error_from_errno(r),
			"no thread to destroy domains: %s", strerror(r));
	}
	*out = n;
	return 0;
}

void fence_ender_free(struct fence_ender *n)
{
	if (!n)
		return;
	pthread_mutex_lock(&n->lock);
	n->quit = true;
	pthread_cond_signal(&n->asked);
	pthread_mutex_unlock(&n->lock);
	pthread_join(n->thread, NULL);
	close(n->ended);
	pthread_cond_destroy(&n->asked);
	pthread_mutex_destroy(&n->lock);
	free(n);
}

int fence_ender_fd(const struct fence_ender *n)
{
	return n->ended;
}

void fence_ender_begin(struct fence_ender *n, const struct fence_domain *d)
{
	pthread_mutex_lock(&n->lock);
	assert(n->state == ENDER_IDLE);
	n->state = ENDER_ASKED;
	n->domain = *d;
	pthread_cond_signal(&n->asked);
	pthread_mutex_unlock(&n->lock);
}

bool fence_ender_take(
	struct fence_ender *n, struct fence_domain *d, int *rc, struct rv_error *e)
{
	uint64_t count;
	bool over;

	/* First: one that ends after this is seen the next time. */
	if (read(n->ended, &count, sizeof count) < 0 && errno != EAGAIN)
		return false;
	pthread_mutex_lock(&n->lock);
	over = n->state == ENDER_OVER;
	if (over) {
		n->state = ENDER_IDLE;
		*d = n->domain;
		*rc = n->rc;
		*e = n->error;
	}
	pthread_mutex_unlock(&n->lock);
	return over;
}
