#include "xen/real/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"

enum { CONTROL_BYTES = 2 * HELPER_WIRE_MAX };

/* --- one process --- */

static void fd_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void process_free(struct xen_process *p)
{
	list_remove(&p->node);
	fd_close(&p->control_fd);
	fd_close(&p->life_fd);
	free(p);
}

/* A job is over. */
static void spare_later(struct xen_helpers *h)
{
	timer_start_ms(&h->later, XEN_HELPERS_SPARE_MS);
}

static void process_ended(void *arg, const struct child_result *result)
{
	struct xen_process *p = arg;

	p->child = NULL;
	if (p->ended) {
		spare_later(p->helpers);
		p->ended(p->arg, result);
	}
	process_free(p);
}

/* Both ends of the control channel and of the life line; data comes with the request. */
static int channels_open(struct xen_process *p, int fds[static 3])
{
	int control[2], life[2], size = CONTROL_BYTES;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0)
		return -1;
	p->control_fd = control[0];
	fds[0] = control[1];
	fds[1] = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (fds[1] < 0 || pipe2(life, O_CLOEXEC) < 0)
		return -1;
	fds[2] = life[0];
	p->life_fd = life[1];
	/* A small one serves too, slower. */
	(void)setsockopt(p->control_fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	return 0;
}

static int process_spawn(struct xen_process *p, struct rv_error *e)
{
	const char *argv[] = {p->helpers->program, "--job", NULL};
	struct child_spec spec = {.argv = argv, .fds = {-1, -1, -1}, .fd_count = 3};
	int rc;

	if (channels_open(p, spec.fds) < 0)
		rc = rv_error_set(e, rv_error_from_errno(errno),
			"can't make a channel to the Xen helper: %s", strerror(errno));
	else
		rc = child_start(&p->child, p->helpers->loop, "xen.process.child", &spec,
			process_ended, p, e);
	for (int i = 0; i < 3; i++)
		fd_close(&spec.fds[i]);
	if (rc == RV_ENOENT) /* of the program; for the port it would be the domain */
		rc = e->code = RV_ECHILD;
	return rc;
}

static int process_start(
	struct xen_process **out, struct xen_helpers *h, struct rv_error *e)
{
	struct xen_process *p = calloc(1, sizeof *p);
	int rc;

	if (!p)
		return rv_error_set(e, RV_ENOMEM, "no memory for a Xen helper");
	p->helpers = h;
	p->control_fd = p->life_fd = -1;
	list_push_back(&h->all, &p->node);
	rc = process_spawn(p, e);
	if (rc)
		process_free(p);
	else
		*out = p;
	return rc;
}

void xen_process_let_go(struct xen_process *p)
{
	p->ended = NULL;
	spare_later(p->helpers);
}

void xen_process_cut(struct xen_process *p)
{
	fd_close(&p->life_fd);
}

void xen_process_abandon(struct xen_process *p)
{
	if (p->child)
		child_abandon(p->child);
	process_free(p);
}

/* --- those that wait --- */

static struct xen_process *process_at(const struct list *node)
{
	return CONTAINER_OF(node, struct xen_process, node);
}

/* It may have died a moment ago, and that not been told yet. */
static bool is_well(const struct xen_process *p)
{
	struct pollfd at = {.fd = p->control_fd, .events = POLLIN};

	return poll(&at, 1, 0) == 0;
}

/* Another one is at work: its end comes here, too. */
static bool is_busy(const struct xen_helpers *h)
{
	for (const struct list *at = h->all.next; at != &h->all; at = at->next)
		if (process_at(at)->ended)
			return true;
	return false;
}

unsigned xen_helpers_waiting(const struct xen_helpers *h)
{
	unsigned n = 0;

	for (const struct list *at = h->all.next; at != &h->all; at = at->next)
		n += process_at(at)->waits;
	return n;
}

/* NULL: none does, and is well. */
static struct xen_process *one_that_waits(struct xen_helpers *h)
{
	struct list *at = h->all.next;

	while (at != &h->all) {
		struct xen_process *p = process_at(at);

		at = at->next;
		if (p->waits && is_well(p))
			return p;
		if (p->waits)
			xen_process_abandon(p);
	}
	return NULL;
}

/* One at a time: to fork is already much for one turn of the loop. */
static void spare_due(void *arg)
{
	struct xen_helpers *h = arg;
	struct xen_process *p = NULL;
	struct rv_error e = {0};

	if (is_busy(h) || xen_helpers_waiting(h) >= XEN_HELPERS_SPARES)
		return;
	/* The next job starts its own, and tells what is wrong. */
	if (process_start(&p, h, &e) != 0) {
		log_warn("xen.process", "msg=\"%s\"", e.detail);
		return;
	}
	p->waits = true;
	if (xen_helpers_waiting(h) < XEN_HELPERS_SPARES)
		timer_start_ms(&h->later, XEN_HELPERS_STEP_MS);
}

void xen_helpers_init(struct xen_helpers *h, struct loop *l, const char *program)
{
	*h = (struct xen_helpers){.loop = l, .program = program};
	list_init(&h->all);
	timer_init(&h->later, l, "xen.process.spare", spare_due, h);
}

void xen_helpers_fini(struct xen_helpers *h)
{
	timer_stop(&h->later);
	while (!list_empty(&h->all))
		xen_process_abandon(process_at(h->all.next));
}

int xen_process_get(struct xen_process **out, struct xen_helpers *h, child_done_fn *ended,
	void *arg, struct rv_error *e)
{
	int rc = 0;

	*out = one_that_waits(h);
	if (!*out)
		rc = process_start(out, h, e);
	if (rc)
		return rc;
	(*out)->waits = false;
	(*out)->ended = ended;
	(*out)->arg = arg;
	return 0;
}
