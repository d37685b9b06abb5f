/*
 * A simulated guest's console: a shell of four words at the far end of a socket pair, so
 * that `reeve console` has somebody to talk to.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "reactor/io.h"
#include "xen/sim_driver.h"

enum { LINE_MAX_BYTES = 128 };

struct sim_console {
	struct sim_domain *domain;
	struct io io;
	int fd;
	char line[LINE_MAX_BYTES];
	size_t len;
};

/* What the reader has no room for is lost, as on a serial line. */
static void say(struct sim_console *c, const char *text, size_t len)
{
	ssize_t r = send(c->fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);

	(void)r;
}

static void say_text(struct sim_console *c, const char *text)
{
	say(c, text, strlen(text));
}

static void prompt(struct sim_console *c)
{
	char text[HYPER_NAME_SIZE + 8];

	snprintf(text, sizeof text, "\r\n%s# ", c->domain->r.name);
	say_text(c, text);
}

static void obey(struct sim_console *c)
{
	struct sim_domain *d = c->domain;
	int64_t now_us = loop_now_us(d->sim->hyper.loop);
	char text[160];

	c->line[c->len] = '\0';
	if (d->r.state != HYPER_RUNNING)
		return; /* nobody reads what was typed */
	if (strcmp(c->line, "uptime") == 0) {
		snprintf(text, sizeof text, "\r\nup %" PRIu64 " ms, %" PRIu64 " MiB",
			sim_ran_us(&d->r, now_us) / 1000, d->r.actual_kib / 1024);
		say_text(c, text);
	} else if (strcmp(c->line, "poweroff") == 0) {
		sim_ask(&d->r, HYPER_REASON_POWEROFF, now_us);
	} else if (strcmp(c->line, "reboot") == 0) {
		sim_ask(&d->r, HYPER_REASON_REBOOT, now_us);
	} else if (c->len > 0) {
		say_text(c, "\r\nthis guest is simulated; it knows uptime, poweroff, "
			    "reboot");
	}
	sim_domain_store(d);
	sim_domain_schedule(d);
	prompt(c);
}

static void readable(void *arg, int events)
{
	struct sim_console *c = arg;
	char bytes[512];
	ssize_t r = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT);

	(void)events;
	if (r < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (r <= 0) {
		sim_console_close(c->domain);
		return;
	}
	for (ssize_t i = 0; i < r; i++) {
		if (bytes[i] == '\r' || bytes[i] == '\n') {
			obey(c);
			c->len = 0;
		} else if (c->len < sizeof c->line - 1) {
			c->line[c->len++] = bytes[i];
			say(c, &bytes[i], 1);
		}
	}
}

int sim_console_open(struct sim_domain *d, int *fd, struct rv_error *e)
{
	struct sim_console *c;
	int pair[2], rc;

	*fd = -1;
	if (!d->r.has_console)
		return rv_error_set(e, RV_EUNSUPPORTED,
			"%s (domain %u) was made without a console", d->r.name,
			d->r.domid);
	if (loop_is_sim(d->sim->hyper.loop))
		return rv_error_set(
			e, RV_EUNSUPPORTED, "no consoles under a simulated clock");
	sim_console_close(d);
	c = calloc(1, sizeof *c);
	if (c == NULL)
		return rv_error_set(e, RV_ENOMEM, "no memory for a console");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) !=
		0) {
		rc = rv_error_set(
			e, rv_error_from_errno(errno), "socketpair: %s", strerror(errno));
		free(c);
		return rc;
	}
	c->domain = d;
	c->fd = pair[0];
	rc = io_init(&c->io, d->sim->hyper.loop, "xen.sim.console", c->fd, readable, c);
	if (rc != 0) {
		close(pair[0]);
		close(pair[1]);
		free(c);
		return rv_error_set(e, rc, "no memory for a console");
	}
	io_want(&c->io, IO_READ);
	d->console = c;
	*fd = pair[1];
	say_text(c, "\r\nsimulated guest");
	prompt(c);
	return 0;
}

void sim_console_close(struct sim_domain *d)
{
	struct sim_console *c = d->console;

	if (c == NULL)
		return;
	d->console = NULL;
	io_fini(&c->io);
	close(c->fd);
	free(c);
}
