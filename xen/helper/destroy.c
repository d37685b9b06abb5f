/*
 * Ending a domain until nothing of it is left: the domain, its memory, what libxl and the
 * backends keep in xenstore, its loop devices, its QEMU. Each step may be repeated.
 */
#include "xen/helper/work.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	/* So long its memory may be held by what is still mapping it. The daemon asks
	 * again. */
	DYING_MS = 60 * 1000,
	DYING_AGAIN_MS = 5 * 1000, /* then libxl is asked once more */
	LOOK_AGAIN_MS = 250,
};

/* --- what is left in xenstore --- */

static void remove_path(struct work *w, const char *before, uint32_t domid)
{
	char path[128];

	snprintf(path, sizeof path, "%s/%u", before, domid);
	(void)xs_rm(w->xs, XBT_NULL, path);
}

static char **list(struct work *w, const char *path, unsigned int *count)
{
	char **names = xs_directory(w->xs, XBT_NULL, path, count);

	if (!names)
		*count = 0;
	return names;
}

static void release_disks(struct work *w, uint32_t domid)
{
	char path[128], backend[256];
	unsigned int count;
	char **names;

	snprintf(path, sizeof path, "/local/domain/0/backend/vbd/%u", domid);
	names = list(w, path, &count);
	for (unsigned int i = 0; i < count; i++) {
		snprintf(backend, sizeof backend, "%s/%s", path, names[i]);
		hotplug_block_release(w->xs, backend);
	}
	free(names);
}

static void remove_backends(struct work *w, uint32_t domid)
{
	unsigned int count;
	char path[256], **kinds = list(w, "/local/domain/0/backend", &count);

	release_disks(w, domid);
	for (unsigned int i = 0; i < count; i++) {
		snprintf(path, sizeof path, "/local/domain/0/backend/%s/%u", kinds[i],
			domid);
		(void)xs_rm(w->xs, XBT_NULL, path);
	}
	free(kinds);
}

/* Does this process's command line hold "-xen-domid DOMID"? */
static bool is_qemu_of(const char *pid, uint32_t domid)
{
	char path[64], cmdline[4096], number[16];
	ssize_t n;
	int fd;

	snprintf(path, sizeof path, "/proc/%.20s/cmdline", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, cmdline, sizeof cmdline - 1);
	close(fd);
	if (n <= 0)
		return false;
	cmdline[n] = '\0';
	snprintf(number, sizeof number, "%u", domid);
	for (char *at = cmdline; at < cmdline + n; at += strlen(at) + 1) {
		char *next = at + strlen(at) + 1;

		if (strcmp(at, "-xen-domid") == 0 && next < cmdline + n &&
			strcmp(next, number) == 0)
			return true;
	}
	return false;
}

/* Asks the processes rather than xenstore: one that was begun just before its starter was
 * killed stands nowhere. */
static void end_qemu(uint32_t domid)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;

	while (proc && (entry = readdir(proc)))
		if (isdigit((unsigned char)entry->d_name[0]) &&
			is_qemu_of(entry->d_name, domid))
			(void)kill((pid_t)strtol(entry->d_name, NULL, 10), SIGKILL);
	if (proc)
		closedir(proc);
}

void work_leftovers(struct work *w, uint32_t domid)
{
	xc_domaininfo_t info;

	if (domid == 0 || domid >= DOMID_FIRST_RESERVED)
		return;
	if (xc_domain_getinfolist(w->xc, domid, 1, &info) == 1 && info.domain == domid)
		return; /* another's by now */
	end_qemu(domid);
	remove_backends(w, domid);
	remove_path(w, "/local/domain/0/device-model", domid);
	remove_path(w, "/libxl", domid);
	remove_path(w, "/local/domain", domid);
}

/* The domid under which xenstore still knows a handle that Xen no longer has. */
static void forgotten(struct work *w)
{
	char handle[UUID_TEXT_SIZE], vm[64];
	unsigned int count;
	char **ids = list(w, "/local/domain", &count);

	snprintf(vm, sizeof vm, "/vm/%s", uuid_format(&w->req->handle, handle));
	for (unsigned int i = 0; i < count; i++) {
		char *of = work_read(w, "/local/domain/%s/vm", ids[i]);

		if (of && strcmp(of, vm) == 0)
			work_leftovers(w, (uint32_t)strtoul(ids[i], NULL, 10));
		free(of);
	}
	free(ids);
	(void)xs_rm(w->xs, XBT_NULL, vm);
}

/* --- the domain --- */

static void wait_release(struct work *w)
{
	struct pollfd p = {.fd = xs_fileno(w->xs), .events = POLLIN};
	char **event;

	(void)poll(&p, 1, LOOK_AGAIN_MS);
	while ((event = xs_check_watch(w->xs)))
		free(event);
}

static int destroy(struct work *w, xc_domaininfo_t *info)
{
	int64_t begin = work_now_us(), again = begin;
	uint32_t domid = info->domain;
	int rc = 0, r = 0;

	(void)xs_watch(w->xs, "@releaseDomain", "destroy");
	while (rc == 0) {
		int64_t now = work_now_us();

		if (now - begin > DYING_MS * INT64_C(1000))
			return work_fail(w, RV_EOUTCOME,
				"domain %u is being destroyed, but %" PRIu64
				" KiB of its memory are still held by its backends (%d): "
				"ask again",
				domid, (uint64_t)info->tot_pages * (XC_PAGE_SIZE / 1024),
				r);
		if (now >= again) {
			r = libxl_domain_destroy(w->ctx, domid, NULL);
			again = work_now_us() + DYING_AGAIN_MS * INT64_C(1000);
		} else {
			wait_release(w);
		}
		rc = work_find(w, &w->req->handle, domid, info);
	}
	return rc == RV_ENOENT ? 0 : rc;
}

int work_destroy(struct work *w)
{
	xc_domaininfo_t info;
	uint32_t domid = w->req->domid;
	int rc = work_find(w, &w->req->handle, domid, &info);

	w->result.left = true;
	if (rc == 0) {
		domid = info.domain;
		rc = work_libxl(w);
		if (!rc)
			rc = destroy(w, &info);
	} else if (rc == RV_ENOENT) {
		rc = 0; /* gone, or the domid is another's */
	}
	if (rc)
		return rc;
	if (domid != HYPER_DOMID_ANY)
		work_leftovers(w, domid);
	forgotten(w);
	w->result.left = false;
	rv_error_clear(&w->error);
	return 0;
}
