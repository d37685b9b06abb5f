/* Fencing on real Xen: a few short hypercalls. Bound to the Xen whose libraries it links.
 */
#include "fence/port.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xenctrl.h>

struct xen {
	struct fence_port port;
	xc_interface *xc;
	xc_interface *ender; /* for `destroy`, which has a thread of its own */
	uint32_t watchdog;   /* Xen's number of it; 0: none is on */
	char note[PATH_MAX];
};

static struct xen *xen_of(struct fence_port *p)
{
	return (struct xen *)p;
}

static int failed(struct rv_error *e, const char *what, uint32_t domid)
{
	return rv_error_set(e, RV_EHYPERVISOR, "%s %u: %s", what, domid, strerror(errno));
}

static int find_by(
	xc_interface *xc, uint32_t domid, struct fence_found *out, struct rv_error *e)
{
	xc_domaininfo_t info;
	int r;

	memset(out, 0, sizeof *out);
	/* The first one from `domid` on: none means that there is none of that domid. */
	r = xc_domain_getinfolist(xc, domid, 1, &info);
	if (r < 0 && errno != ESRCH)
		return failed(e, "looking for domain", domid);
	if (r != 1 || info.domain != domid)
		return 0;
	out->there = true;
	memcpy(out->handle.b, info.handle, sizeof out->handle.b);
	out->ended = info.flags & XEN_DOMINF_dying;
	out->stopped = info.flags & (XEN_DOMINF_dying | XEN_DOMINF_paused);
	return 0;
}

static int xen_find(
	struct fence_port *p, uint32_t domid, struct fence_found *out, struct rv_error *e)
{
	return find_by(xen_of(p)->xc, domid, out, e);
}

static int xen_pause(struct fence_port *p, uint32_t domid, struct rv_error *e)
{
	return xc_domain_pause(xen_of(p)->xc, domid) ? failed(e, "pausing domain", domid)
						     : 0;
}

static int xen_destroy(
	struct fence_port *p, const struct fence_domain *d, struct rv_error *e)
{
	xc_interface *xc = xen_of(p)->ender;
	struct fence_found found;
	int rc = find_by(xc, d->domid, &found, e);

	if (rc || !fence_found_it(&found, d) || !xc_domain_destroy(xc, d->domid))
		return rc;
	return failed(e, "destroying domain", d->domid);
}

/* --- the watchdog --- */

/* A later reeve-fenced must know its number, or it would restart the host. In memory: the
 * file is in /run. */
static void note_write(const struct xen *x)
{
	int fd = open(x->note, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		return;
	if (dprintf(fd, "%u\n", x->watchdog) < 0)
		(void)unlink(x->note);
	close(fd);
}

static void note_read(struct xen *x)
{
	char text[16] = "";
	int fd = open(x->note, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (read(fd, text, sizeof text - 1) > 0)
		x->watchdog = (uint32_t)strtoul(text, NULL, 10);
	close(fd);
	x->port.watching = x->watchdog != 0;
}

static int xen_quiet(struct fence_port *p, struct rv_error *e)
{
	struct xen *x = xen_of(p);
	int r = xc_watchdog(x->xc, x->watchdog, FENCE_WATCHDOG_MS / 1000);

	/* One taken over that is off by now: the host was not restarted by it. */
	if (r < 0 && x->watchdog && errno == EINVAL) {
		x->watchdog = 0;
		r = xc_watchdog(x->xc, 0, FENCE_WATCHDOG_MS / 1000);
	}
	if (r < 0)
		return failed(e, "keeping Xen's watchdog quiet", x->watchdog);
	if (!x->watchdog) {
		x->watchdog = (uint32_t)r;
		note_write(x);
	}
	return 0;
}

static int xen_off(struct fence_port *p, struct rv_error *e)
{
	struct xen *x = xen_of(p);

	if (x->watchdog && xc_watchdog(x->xc, x->watchdog, 0) < 0 && errno != EINVAL)
		return failed(e, "switching off Xen's watchdog", x->watchdog);
	x->watchdog = 0;
	(void)unlink(x->note);
	return 0;
}

static void xen_close(struct fence_port *p)
{
	struct xen *x = xen_of(p);

	if (x->ender)
		xc_interface_close(x->ender);
	if (x->xc)
		xc_interface_close(x->xc);
	free(x);
}

static const struct fence_port_ops xen_ops = {.name = "xen",
	.find = xen_find,
	.pause = xen_pause,
	.destroy = xen_destroy,
	.quiet = xen_quiet,
	.off = xen_off,
	.close = xen_close};

static int xen_open(struct fence_port **out, const char *note, struct rv_error *e)
{
	struct xen *x = calloc(1, sizeof *x);
	struct fence_found found;
	int rc;

	*out = NULL;
	if (!x)
		return rv_error_set(e, RV_ENOMEM, "out of memory");
	x->port.ops = &xen_ops;
	snprintf(x->note, sizeof x->note, "%s", note);
	x->xc = xc_interface_open(NULL, NULL, 0);
	x->ender = xc_interface_open(NULL, NULL, 0);
	if (!x->xc || !x->ender) {
		int err = errno;

		xen_close(&x->port);
		return rv_error_set(e, RV_EHYPERVISOR,
			"Xen doesn't talk to us: %s; is /dev/xen/privcmd there, and is "
			"this root?",
			strerror(err));
	}
	/* All that will be needed is in memory from now on. */
	rc = xen_find(&x->port, 0, &found, e);
	if (rc) {
		xen_close(&x->port);
		return rc;
	}
	note_read(x);
	*out = &x->port;
	return 0;
}

const struct fence_xen_module reeve_fence_xen_module = {
	.abi = FENCE_XEN_ABI,
	.version_major = REEVE_XEN_MAJOR,
	.version_minor = REEVE_XEN_MINOR,
	.reeve_version = REEVE_VERSION,
	.open = xen_open,
};
