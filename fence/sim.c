#include "fence/sim.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "xen/sim_machine.h"

enum { SIM_DEATH_MS = 2000 }; /* so long may a killed process take to be gone */

struct sim {
	struct fence_port port;
	char machine[PATH_MAX];
	char fifo[PATH_MAX + 16]; /* what the watchdog listens to */
	pthread_mutex_t lock;	  /* the machine's file and `peer`, of two threads */
	int peer;		  /* pidfd of reeved; -1: none */
	pid_t watchdog;		  /* 0: none, or a former reeve-fenced's */
	int quiet;		  /* to the watchdog; -1 */
};

static struct sim *sim_of(struct fence_port *p)
{
	return (struct sim *)p;
}

/* --- the simulated host --- */

static bool is_dead(int pidfd, int wait_ms)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	return pidfd < 0 || poll(&p, 1, wait_ms) == 1;
}

/* Nothing runs there once it is dead. */
static int end_peer(int pidfd, struct rv_error *e)
{
	if (is_dead(pidfd, 0))
		return 0;
	log_warn("fence.sim", "msg=\"reeved, which simulates the host, is killed\"");
	if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) && errno != ESRCH)
		return rv_error_set(e, rv_error_from_errno(errno),
			"reeved can't be killed: %s", strerror(errno));
	if (!is_dead(pidfd, SIM_DEATH_MS))
		return rv_error_set(e, RV_ETIMEDOUT, "reeved was killed, and is there");
	return 0;
}

static int open_machine(struct sim *s, struct hyper_sim_machine **out, struct rv_error *e)
{
	struct uuid kernel;
	int rc = end_peer(s->peer, e);

	if (!rc)
		rc = sim_kernel_boot_id(&kernel, e);
	if (!rc)
		rc = sim_machine_open(out, s->machine, 1, &kernel, e);
	return rc;
}

static int slot_of(struct hyper_sim_machine *m, uint32_t domid, struct sim_record *r)
{
	for (uint32_t slot = 0; slot < HYPER_MAX_DOMAINS; slot++)
		if (sim_machine_load(m, slot, r) && r->domid == domid)
			return (int)slot;
	return -1;
}

static int sim_find(
	struct fence_port *p, uint32_t domid, struct fence_found *out, struct rv_error *e)
{
	struct sim *s = sim_of(p);
	struct hyper_sim_machine *m;
	struct sim_record r;
	int rc;

	pthread_mutex_lock(&s->lock);
	rc = open_machine(s, &m, e);
	if (rc)
		goto out;
	*out = (struct fence_found){.there = slot_of(m, domid, &r) >= 0,
		.stopped = true,
		.ended = true}; /* with its simulator */
	if (out->there)
		out->handle = r.handle;
	hyper_sim_machine_free(m);
out:
	pthread_mutex_unlock(&s->lock);
	return rc;
}

static int sim_pause(struct fence_port *p, uint32_t domid, struct rv_error *e)
{
	struct sim *s = sim_of(p);
	int rc;

	(void)domid;
	pthread_mutex_lock(&s->lock);
	rc = end_peer(s->peer, e);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

static int sim_destroy(
	struct fence_port *p, const struct fence_domain *d, struct rv_error *e)
{
	static const struct sim_record empty;
	struct sim *s = sim_of(p);
	struct hyper_sim_machine *m;
	struct sim_record r;
	int rc, slot;

	pthread_mutex_lock(&s->lock);
	rc = open_machine(s, &m, e);
	if (rc)
		goto out;
	slot = slot_of(m, d->domid, &r);
	if (slot >= 0 && uuid_eq(&r.handle, &d->handle))
		sim_machine_store(m, (uint32_t)slot, &empty);
	hyper_sim_machine_free(m);
out:
	pthread_mutex_unlock(&s->lock);
	return rc;
}

/* --- the watchdog --- */

/* What reeve-fenced, or the one after it, tells the watchdog through its FIFO. */
enum order_kind { ORDER_QUIET = 1, ORDER_OFF, ORDER_PEER };

struct order {
	int32_t kind;
	int32_t pid; /* ORDER_PEER: reeved is this process */
};

static int64_t clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void watchdog_bite(struct sim *s)
{
	struct hyper_sim_machine *m;
	struct rv_error e;

	log_error("fence.watchdog", "msg=\"the simulated host restarts\"");
	if (open_machine(s, &m, &e)) {
		log_error("fence.watchdog", "msg=\"%s\"", e.detail);
		return;
	}
	hyper_sim_machine_reboot(m);
	hyper_sim_machine_free(m);
}

static void take_peer(struct sim *s, pid_t pid)
{
	if (s->peer >= 0)
		close(s->peer);
	s->peer = (int)syscall(SYS_pidfd_open, pid, 0);
}

/* All but these two and the standard ones: what reeve-fenced listens on must not live on
 * in a watchdog that outlives it. */
static void keep_only(int a, int b)
{
	int low = a < b ? a : b, high = a < b ? b : a;

	if (low > STDERR_FILENO + 1)
		close_range(STDERR_FILENO + 1, (unsigned)low - 1, 0);
	if (low > STDERR_FILENO && high > low + 1)
		close_range((unsigned)low + 1, (unsigned)high - 1, 0);
	if (low <= STDERR_FILENO && high > STDERR_FILENO + 1)
		close_range(STDERR_FILENO + 1, (unsigned)high - 1, 0);
	close_range((unsigned)high + 1, ~0U, 0);
}

/* Whoever opens the FIFO next may go on keeping it quiet: a reeve-fenced that was killed
 * changes nothing about the time. */
_Noreturn static void watchdog_run(struct sim *s, int fd)
{
	int64_t end_ms = clock_ms() + FENCE_WATCHDOG_MS;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct order o;

	keep_only(fd, s->peer);
	for (;;) {
		int64_t left_ms = end_ms - clock_ms();

		if (left_ms <= 0)
			break;
		if (poll(&p, 1, (int)left_ms) <= 0 || read(fd, &o, sizeof o) != sizeof o)
			continue;
		if (o.kind == ORDER_OFF)
			goto out;
		if (o.kind == ORDER_QUIET)
			end_ms = clock_ms() + FENCE_WATCHDOG_MS;
		else
			take_peer(s, o.pid);
	}
	watchdog_bite(s);
out:
	(void)unlink(s->fifo);
	_exit(0);
}

static int watchdog_order(struct sim *s, enum order_kind kind, pid_t pid)
{
	struct order o = {kind, pid};

	/* Full: it has more than enough to read. */
	return write(s->quiet, &o, sizeof o) == sizeof o || errno == EAGAIN ? 0 : RV_EIO;
}

static int sim_off(struct fence_port *p, struct rv_error *e)
{
	struct sim *s = sim_of(p);

	(void)e;
	if (s->watchdog > 0) {
		kill(s->watchdog, SIGKILL);
		waitpid(s->watchdog, NULL, 0);
		(void)unlink(s->fifo);
	} else if (s->quiet >= 0) { /* a former reeve-fenced's */
		(void)watchdog_order(s, ORDER_OFF, 0);
	}
	if (s->quiet >= 0)
		close(s->quiet);
	s->watchdog = 0;
	s->quiet = -1;
	return 0;
}

/* It reads the FIFO, and holds its other end too, so that it never sees that end. */
static int watchdog_fork(struct sim *s, struct rv_error *e)
{
	int fd;
	pid_t pid;

	(void)unlink(s->fifo);
	if (mkfifo(s->fifo, 0600))
		return rv_error_set(e, rv_error_from_errno(errno), "%s: %s", s->fifo,
			strerror(errno));
	fd = open(s->fifo, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	s->quiet = fd < 0 ? -1 : open(s->fifo, O_WRONLY | O_CLOEXEC | O_NONBLOCK);
	pid = s->quiet < 0 ? -1 : fork();
	if (pid == 0)
		watchdog_run(s, fd);
	if (pid < 0)
		rv_error_set(e, rv_error_from_errno(errno), "no watchdog on %s: %s",
			s->fifo, strerror(errno));
	if (fd >= 0)
		close(fd);
	if (pid < 0)
		return e->code;
	s->watchdog = pid;
	return 0;
}

static int sim_quiet(struct fence_port *p, struct rv_error *e)
{
	struct sim *s = sim_of(p);
	int rc = s->quiet >= 0 ? 0 : watchdog_fork(s, e);

	if (!rc)
		rc = watchdog_order(s, ORDER_QUIET, 0)
			     ? rv_error_set(e, RV_EIO, "the watchdog has ended")
			     : 0;
	if (rc)
		(void)sim_off(p, NULL);
	return rc;
}

static void sim_peer(struct fence_port *p, pid_t pid)
{
	struct sim *s = sim_of(p);

	pthread_mutex_lock(&s->lock);
	take_peer(s, pid);
	pthread_mutex_unlock(&s->lock);
	if (s->quiet >= 0 && watchdog_order(s, ORDER_PEER, pid))
		log_error("fence.watchdog", "msg=\"it has ended\"");
}

static void sim_close(struct fence_port *p)
{
	struct sim *s = sim_of(p);

	(void)sim_off(p, NULL);
	if (s->peer >= 0)
		close(s->peer);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static const struct fence_port_ops sim_ops = {.name = "simulated",
	.find = sim_find,
	.pause = sim_pause,
	.destroy = sim_destroy,
	.quiet = sim_quiet,
	.off = sim_off,
	.peer = sim_peer,
	.close = sim_close};

int fence_sim_open(struct fence_port **out, const char *machine, struct rv_error *e)
{
	struct sim *s = calloc(1, sizeof *s);

	*out = NULL;
	if (!s || strlen(machine) >= sizeof s->machine) {
		free(s);
		return rv_error_set(e, RV_ENOMEM, "out of memory");
	}
	memcpy(s->machine, machine, strlen(machine) + 1);
	snprintf(s->fifo, sizeof s->fifo, "%s.watchdog", machine);
	pthread_mutex_init(&s->lock, NULL);
	s->port.ops = &sim_ops;
	s->peer = -1;
	/* Somebody reads it: a former reeve-fenced's watchdog is on. */
	s->quiet = open(s->fifo, O_WRONLY | O_CLOEXEC | O_NONBLOCK);
	s->port.watching = s->quiet >= 0;
	*out = &s->port;
	return 0;
}
