/* Finding domains, and small things in xenstore. */
#include "xen/helper/work.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	FIND_BATCH = 64,
	CONSOLE_TRIES = 100, /* each waits CONSOLE_WAIT_US for xenconsoled */
	CONSOLE_WAIT_US = 100 * 1000,
};

int64_t work_now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static bool has_handle(const xc_domaininfo_t *info, const struct uuid *handle)
{
	return memcmp(info->handle, handle->b, sizeof handle->b) == 0;
}

int work_find(
	struct work *w, const struct uuid *handle, uint32_t domid, xc_domaininfo_t *out)
{
	xc_domaininfo_t infos[FIND_BATCH];
	uint32_t first = domid == HYPER_DOMID_ANY ? 1 : domid;
	unsigned int max = domid == HYPER_DOMID_ANY ? FIND_BATCH : 1;

	for (;;) {
		int n = xc_domain_getinfolist(w->xc, first, max, infos);

		if (n < 0)
			return work_fail(w, RV_EHYPERVISOR, "can't list the domains: %s",
				strerror(errno));
		for (int i = 0; i < n; i++) {
			if (!has_handle(&infos[i], handle) ||
				(domid != HYPER_DOMID_ANY && infos[i].domain != domid))
				continue;
			*out = infos[i];
			return 0;
		}
		if (n < FIND_BATCH)
			return RV_ENOENT;
		first = infos[n - 1].domain + 1u;
	}
}

int work_domain(struct work *w, xc_domaininfo_t *out)
{
	uint32_t domid = w->req->domid;
	xc_domaininfo_t info;
	int rc = work_find(w, &w->req->handle, domid, out);

	if (rc != RV_ENOENT)
		return rc;
	if (domid != HYPER_DOMID_ANY &&
		xc_domain_getinfolist(w->xc, domid, 1, &info) == 1 &&
		info.domain == domid)
		return work_fail(w, RV_ESTALE,
			"domain %u is another one by now: look which domain the VM has",
			domid);
	if (domid == HYPER_DOMID_ANY)
		return work_fail(w, RV_ENOENT, "no domain of this host bears the handle");
	return work_fail(w, RV_ENOENT, "there is no domain %u on this host", domid);
}

bool work_is_suspended(const xc_domaininfo_t *info)
{
	return (info->flags & XEN_DOMINF_shutdown) &&
	       (info->flags >> XEN_DOMINF_shutdownshift & XEN_DOMINF_shutdownmask) ==
		       SHUTDOWN_suspend;
}

char *work_read(struct work *w, const char *fmt, ...)
{
	char path[512];
	va_list al;

	va_start(al, fmt);
	vsnprintf(path, sizeof path, fmt, al);
	va_end(al);
	return xs_read(w->xs, XBT_NULL, path, NULL);
}

bool work_write(struct work *w, const char *value, const char *fmt, ...)
{
	char path[512];
	va_list al;

	va_start(al, fmt);
	vsnprintf(path, sizeof path, fmt, al);
	va_end(al);
	return xs_write(w->xs, XBT_NULL, path, value, (unsigned int)strlen(value));
}

int work_console(struct work *w)
{
	xc_domaininfo_t info;
	int rc = work_domain(w, &info);

	for (int i = 0; !rc && i < CONSOLE_TRIES; i++) {
		char *tty = work_read(w, "/local/domain/%u/console/tty", info.domain);
		bool good = tty && strncmp(tty, "/dev/", 5) == 0;

		if (good)
			snprintf(w->result.console, sizeof w->result.console, "%s", tty);
		free(tty);
		if (good)
			return 0;
		usleep(CONSOLE_WAIT_US);
	}
	if (!rc)
		rc = work_fail(w, RV_EUNSUPPORTED,
			"domain %u has no console terminal: is xenconsoled running?",
			info.domain);
	return rc;
}
