/*
 * A guest's console: xenconsoled's pty, handed on through a socket pair, so that a second
 * opening can end the first: two readers of one pty would each get half.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "reactor/io.h"
#include "xen/real/driver.h"
#include "xen/real/value.h"

enum { CHUNK = 4096 };

/* Bytes read from one side that the other has not taken yet. */
struct half {
	uint8_t bytes[CHUNK];
	size_t at, len;
};

struct real_console {
	struct real_domain *domain;
	int tty, user;
	struct io tty_io, user_io;
	struct half to_user, to_tty;
};

void real_console_close(struct real_domain *d)
{
	struct real_console *c = d->console;

	if (c == NULL)
		return;
	d->console = NULL;
	io_fini(&c->tty_io);
	io_fini(&c->user_io);
	close(c->tty);
	close(c->user);
	free(c);
}

static bool would_block(void)
{
	return errno == EAGAIN || errno == EINTR;
}

/* false: an end, or gone. */
static bool fill(struct half *h, int fd)
{
	ssize_t r;

	if (h->len > 0)
		return true;
	r = read(fd, h->bytes, sizeof h->bytes);
	if (r == 0 || (r < 0 && !would_block()))
		return false;
	h->at = 0;
	h->len = r > 0 ? (size_t)r : 0;
	return true;
}

static bool drain(struct half *h, int fd)
{
	ssize_t r;

	if (h->len == 0)
		return true;
	r = write(fd, h->bytes + h->at, h->len);
	if (r < 0)
		return would_block();
	h->at += (size_t)r;
	h->len -= (size_t)r;
	return true;
}

static void want(struct real_console *c)
{
	io_want(&c->tty_io,
		(c->to_user.len == 0 ? IO_READ : 0) | (c->to_tty.len > 0 ? IO_WRITE : 0));
	io_want(&c->user_io,
		(c->to_tty.len == 0 ? IO_READ : 0) | (c->to_user.len > 0 ? IO_WRITE : 0));
}

static void relay(struct real_console *c, bool tty_readable, bool user_readable)
{
	bool good = true;

	if (tty_readable)
		good = fill(&c->to_user, c->tty);
	if (good && user_readable)
		good = fill(&c->to_tty, c->user);
	good = good && drain(&c->to_user, c->user) && drain(&c->to_tty, c->tty);
	if (good)
		want(c);
	else
		real_console_close(c->domain);
}

static void on_tty(void *arg, int events)
{
	relay(arg, events & IO_READ, false);
}

static void on_user(void *arg, int events)
{
	relay(arg, false, events & IO_READ);
}

static int open_tty(const char *path, struct rv_error *e)
{
	int fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	struct termios t;

	if (fd < 0) {
		rv_error_set(e, rv_error_from_errno(errno), "console %s: %s", path,
			strerror(errno));
		return -1;
	}
	/* xenconsoled makes it raw; one that it has just made may not be yet. */
	if (tcgetattr(fd, &t) == 0) {
		cfmakeraw(&t);
		(void)tcsetattr(fd, TCSANOW, &t);
	}
	return fd;
}

static int console_new(struct real_domain *d, int tty, int *fd, struct rv_error *e)
{
	struct loop *l = d->real->hyper.loop;
	struct real_console *c = calloc(1, sizeof *c);
	int pair[2], rc;

	if (c == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
				 0, pair) != 0) {
		rc = rv_error_set(e, c == NULL ? RV_ENOMEM : rv_error_from_errno(errno),
			"no socket pair for a console");
		free(c);
		close(tty);
		return rc;
	}
	c->domain = d;
	c->tty = tty;
	c->user = pair[0];
	rc = io_init(&c->tty_io, l, "xen.real.console", tty, on_tty, c);
	if (rc == 0)
		rc = io_init(&c->user_io, l, "xen.real.console", c->user, on_user, c);
	d->console = c;
	if (rc != 0) {
		real_console_close(d);
		close(pair[1]);
		return rv_error_set(e, rc, "no memory for a console");
	}
	want(c);
	*fd = pair[1];
	return 0;
}

static void on_path(void *arg, int rc, const char *data, size_t len)
{
	struct real_call *call = arg;
	struct real_domain *d = call->domain;
	struct rv_error *e = &call->req->error;
	char path[32];
	int tty;

	call->waits_stored = false;
	if (rc != RV_ENOENT)
		rc = real_stored_error(call, rc, data);
	if (rc == 0 && d == NULL)
		rc = rv_error_set(e, RV_ENOENT, "the domain ended");
	if (rc == 0)
		rc = xen_value_tty(data, len, path, sizeof path);
	if (rc == RV_ENOENT && d != NULL)
		rc = rv_error_set(e, RV_EAGAIN,
			"%s (domain %u) has no console yet; is xenconsoled running?",
			d->name, d->info.domid);
	else if (rc == RV_EINVAL)
		rc = rv_error_set(e, RV_EHYPERVISOR,
			"%s (domain %u): what xenstore names as its console is no pty",
			d->name, d->info.domid);
	if (rc != 0) {
		real_end(call, rc);
		return;
	}
	real_console_close(d);
	tty = open_tty(path, e);
	rc = tty < 0 ? e->code : console_new(d, tty, &call->req->fd, e);
	real_end(call, rc);
}

void real_console_begin(struct real_call *call)
{
	struct hyper_req *req = call->req;
	char path[STORED_PATH_MAX];
	struct real_domain *d;
	int rc = real_rescan(call->real, &req->error);

	if (rc == 0)
		rc = real_find(call->real, &req->id, &d, &req->error);
	if (rc == 0)
		rc = real_need_stored(call->real, "console", &req->error);
	if (rc == RV_EAGAIN) {
		real_wait(call);
		return;
	}
	if (rc != 0) {
		real_end(call, rc);
		return;
	}
	call->domain = d;
	call->phase = REAL_STORED;
	call->waits_stored = true;
	snprintf(path, sizeof path, "/local/domain/%u/console/tty", d->info.domid);
	stored_read(call->real->stored, path, on_path, call);
}
