#include "fence/sim.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "xen/sim_machine.h"

enum { SIM_DEATH_MS = 2000 }; /* so long may a killed process take to be gone */

struct sim {
	struct fence_port port;
	char machine[PATH_MAX];
	int peer;	/* pidfd of reeved; -1: none */
	pid_t watchdog; /* 0: none */
	int quiet;	/* to the watchdog; -1 */
};

static struct sim *sim_of(struct fence_port *p)
{
	return (struct sim *)p;
}

/* --- the simulated host ------------------------------------------------------------ */

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
	struct hyper_sim_machine *m;
	struct sim_record r;
	int rc = open_machine(sim_of(p), &m, e);

	if (rc)
		return rc;
	*out = (struct fence_found){.there = slot_of(m, domid, &r) >= 0,
		.stopped = true,
		.ended = true}; /* with its simulator */
	if (out->there)
		out->handle = r.handle;
	hyper_sim_machine_free(m);
	return 0;
}

static int sim_pause(struct fence_port *p, uint32_t domid, struct rv_error *e)
{
	(void)domid;
	return end_peer(sim_of(p)->peer, e);
}

static int sim_destroy(struct fence_port *p, uint32_t domid, struct rv_error *e)
{
	static const struct sim_record empty;
	struct hyper_sim_machine *m;
	struct sim_record r;
	int rc = open_machine(sim_of(p), &m, e), slot;

	if (rc)
		return rc;
	slot = slot_of(m, domid, &r);
	if (slot >= 0)
		sim_machine_store(m, (uint32_t)slot, &empty);
	hyper_sim_machine_free(m);
	return 0;
}

/* --- the watchdog ------------------------------------------------------------------ */

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

_Noreturn static void watchdog_run(struct sim *s, int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char some[64];

	for (;;) {
		int r = poll(&p, 1, FENCE_WATCHDOG_MS);

		if (r < 0 && errno == EINTR)
			continue;
		if (r > 0 && read(fd, some, sizeof some) > 0)
			continue;
		if (r > 0) { /* reeve-fenced has died: nobody keeps it quiet */
			poll(NULL, 0, FENCE_WATCHDOG_MS);
		}
		watchdog_bite(s);
		_exit(0);
	}
}

static int sim_off(struct fence_port *p, struct rv_error *e)
{
	struct sim *s = sim_of(p);

	(void)e;
	if (s->watchdog > 0) {
		kill(s->watchdog, SIGKILL);
		waitpid(s->watchdog, NULL, 0);
	}
	if (s->quiet >= 0)
		close(s->quiet);
	s->watchdog = 0;
	s->quiet = -1;
	return 0;
}

static int watchdog_start(struct sim *s, struct rv_error *e)
{
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK))
		return rv_error_set(
			e, rv_error_from_errno(errno), "pipe: %s", strerror(errno));
	pid = fork();
	if (pid == 0) {
		close(fds[1]);
		watchdog_run(s, fds[0]);
	}
	close(fds[0]);
	if (pid < 0) {
		close(fds[1]);
		return rv_error_set(
			e, rv_error_from_errno(errno), "fork: %s", strerror(errno));
	}
	s->watchdog = pid;
	s->quiet = fds[1];
	return 0;
}

static int sim_quiet(struct fence_port *p, struct rv_error *e)
{
	struct sim *s = sim_of(p);
	int rc = s->watchdog > 0 ? 0 : watchdog_start(s, e);

	if (rc)
		return rc;
	if (write(s->quiet, "", 1) != 1 && errno != EAGAIN) {
		(void)sim_off(p, NULL);
		return rv_error_set(e, RV_EIO, "the watchdog has ended");
	}
	return 0;
}

static void sim_peer(struct fence_port *p, pid_t pid)
{
	struct sim *s = sim_of(p);
	struct rv_error e;
	bool watched = s->watchdog > 0;

	(void)sim_off(p, &e); /* it would bite the former one */
	if (s->peer >= 0)
		close(s->peer);
	s->peer = (int)syscall(SYS_pidfd_open, pid, 0);
	if (watched && sim_quiet(p, &e))
		log_error("fence.watchdog", "msg=\"%s\"", e.detail);
}

static void sim_close(struct fence_port *p)
{
	struct sim *s = sim_of(p);

	(void)sim_off(p, NULL);
	if (s->peer >= 0)
		close(s->peer);
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
	s->port.ops = &sim_ops;
	s->peer = s->quiet = -1;
	*out = &s->port;
	return 0;
}
