/*
 * Saving: libxl's stream (docs/specs/libxl-migration-stream of Xen, version 2) around
 * libxenguest's, so that the pre-copy policy is ours and libxl can restore it;
 * suspending, and taking that back.
 */
#include "xen/helper/work.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xenguest.h>

/* The stream's header is big-endian, its records little-endian; records are padded to 8
 * bytes, and these have no body. */
#define STREAM_IDENT UINT64_C(0x4c6962786c466d74)
enum {
	STREAM_VERSION = 2,
	RECORD_END = 0,
	RECORD_LIBXC_CONTEXT = 1,
	LOOK_AGAIN_MS = 1000, /* beside the watch: a lost event costs no more */
	/* From reading the request to suspending; a guest that takes longer counts as
	 * running. */
	ACKNOWLEDGED_MS = 10 * 1000,
	POLL_US = 50 * 1000,
};

struct save {
	struct work *w;
	uint32_t domid;
	bool live, told;
	int64_t round_from_us;
	uint64_t pages; /* that the guest has */
	uint64_t total_before;
	uint64_t unreal; /* of libxenguest's total: see on_precopy */
};

/* --- suspending --- */

static int look(struct work *w, uint32_t domid, xc_domaininfo_t *info)
{
	int rc = work_find(w, &w->req->handle, domid, info);

	if (rc == RV_ENOENT)
		return work_fail(w, RV_ESTATE, "domain %u is gone", domid);
	if (rc)
		return rc;
	if ((info->flags & XEN_DOMINF_shutdown) && !work_is_suspended(info))
		return work_fail(w, RV_ESTATE,
			"the guest ended by itself before it could be suspended");
	return 0;
}

static void drain_watches(struct work *w)
{
	struct pollfd p = {.fd = xs_fileno(w->xs), .events = POLLIN};
	char **event;

	(void)poll(&p, 1, LOOK_AGAIN_MS);
	while ((event = xs_check_watch(w->xs)))
		free(event);
}

/* Asks the guest and waits, for as long as the daemon lets us. */
static int suspend(struct work *w, uint32_t domid)
{
	xc_domaininfo_t info;
	int rc = look(w, domid, &info);

	if (rc || work_is_suspended(&info))
		return rc;
	work_asked(w);
	/* xenstored fires it when a domain shuts down, too. */
	if (!xs_watch(w->xs, "@releaseDomain", "suspend") ||
		!work_write(w, "suspend", "/local/domain/%u/control/shutdown", domid))
		return work_fail(w, RV_EHYPERVISOR,
			"can't ask the guest through xenstore to suspend: %s",
			strerror(errno));
	for (;;) {
		rc = look(w, domid, &info);
		if (rc || work_is_suspended(&info))
			break;
		drain_watches(w);
	}
	(void)xs_unwatch(w->xs, "@releaseDomain", "suspend");
	return rc;
}

static void tell_suspended(struct save *s)
{
	struct helper_message m = {.kind = HELPER_SUSPENDED};

	if (!s->told)
		work_send(s->w, &m);
	s->told = true;
}

/* --- what libxenguest asks --- */

static int on_suspend(void *arg)
{
	struct save *s = arg;

	if (suspend(s->w, s->domid) != 0)
		return 0;
	tell_suspended(s);
	return 1;
}

/* Called before a round with the number of dirty pages, and after it with -1. The first
 * round sends everything; from then on the daemon decides before each. For the first,
 * libxenguest counts all page numbers up to the highest, which for PVH lies near 4 GiB
 * however small the guest is. */
static int on_precopy(struct precopy_stats stats, void *arg)
{
	struct save *s = arg;
	struct helper_message m = {.kind = HELPER_PRECOPY};
	int64_t now = work_now_us();

	if (stats.iteration == 0 || stats.dirty_count < 0) {
		if (stats.iteration == 0)
			s->round_from_us = now;
		return XGS_POLICY_CONTINUE_PRECOPY;
	}
	if (stats.iteration == 1 && stats.total_written > s->pages)
		s->unreal = stats.total_written - s->pages;
	m.precopy = (struct helper_precopy){
		.iteration = stats.iteration,
		.total_pages = stats.total_written - s->unreal,
		.dirty_pages = (uint64_t)stats.dirty_count,
		.round_pages = stats.total_written - s->unreal - s->total_before,
		.round_us = now - s->round_from_us,
	};
	s->round_from_us = now;
	s->total_before = m.precopy.total_pages;
	work_send(s->w, &m);
	if (work_receive(s->w, &m) != 0)
		return XGS_POLICY_ABORT;
	if (m.verdict == HYPER_PRECOPY_STOP)
		return XGS_POLICY_STOP_AND_COPY;
	return m.verdict == HYPER_PRECOPY_CONTINUE ? XGS_POLICY_CONTINUE_PRECOPY
						   : XGS_POLICY_ABORT;
}

/* libxenguest insists on it for PVH too, which has no QEMU that writes to its memory. */
static int on_qemu_logdirty(uint32_t domid, unsigned int enable, void *arg)
{
	(void)domid;
	(void)enable;
	(void)arg;
	return 0;
}

/* --- the stream --- */

static int stream_write(struct work *w, const void *data, size_t len)
{
	const char *at = data;

	while (len > 0) {
		ssize_t r = write(w->data_fd, at, len);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return work_fail(w, RV_ECLOSED,
				"the saved domain's bytes are no longer taken: %s",
				strerror(errno));
		at += r;
		len -= (size_t)r;
	}
	return 0;
}

static int stream_begin(struct work *w)
{
	struct {
		uint64_t ident;
		uint32_t version, options;
		uint32_t type, length;
	} head = {
		.ident = htobe64(STREAM_IDENT),
		.version = htobe32(STREAM_VERSION),
		.type = htole32(RECORD_LIBXC_CONTEXT),
	};

	return stream_write(w, &head, sizeof head);
}

static int stream_end(struct work *w)
{
	const uint32_t record[2] = {htole32(RECORD_END), 0};

	return stream_write(w, record, sizeof record);
}

static int stream_body(struct save *s)
{
	struct work *w = s->w;
	struct save_callbacks callbacks = {
		.suspend = on_suspend,
		.precopy_policy = on_precopy,
		.switch_qemu_logdirty = on_qemu_logdirty,
		.data = s,
	};

	if (xc_domain_save(w->xc, w->data_fd, s->domid, s->live ? XCFLAGS_LIVE : 0,
		    &callbacks, XC_STREAM_PLAIN, -1) == 0)
		return 0;
	/* A callback's own words say more. */
	if (w->error.code)
		return w->error.code;
	return work_fail(
		w, RV_EHYPERVISOR, "the guest can't be saved: %s", strerror(errno));
}

int work_save(struct work *w)
{
	struct save s = {.w = w, .live = w->req->live};
	xc_domaininfo_t info;
	int rc = work_domain(w, &info);

	if (!rc)
		rc = look(w, info.domain, &info);
	if (rc)
		return rc;
	s.domid = info.domain;
	s.pages = info.tot_pages;
	if (work_is_suspended(&info))
		s.live = false;
	rc = work_saved_begin(w);
	if (rc)
		return rc;
	work_begun(w);
	rc = stream_begin(w);
	if (!rc)
		rc = stream_body(&s);
	if (!rc)
		rc = stream_end(w);
	rc = work_saved_end(w, rc);
	if (work_find(w, &w->req->handle, s.domid, &info) == 0)
		w->result.suspended = work_is_suspended(&info);
	return rc;
}

/* --- taking it back --- */

/* Empties control/shutdown if "suspend" still stands there; false: the guest has read it
 * and is on its way. */
static bool request_withdraw(struct work *w, uint32_t domid)
{
	char path[64];

	snprintf(path, sizeof path, "/local/domain/%u/control/shutdown", domid);
	for (;;) {
		xs_transaction_t t = xs_transaction_start(w->xs);
		unsigned int len = 0;
		char *now = xs_read(w->xs, t, path, &len);
		bool stands = now && strcmp(now, "suspend") == 0;

		free(now);
		if (stands)
			(void)xs_write(w->xs, t, path, "", 0);
		if (xs_transaction_end(w->xs, t, !stands))
			return stands;
		if (errno != EAGAIN)
			return stands;
	}
}

/* A save that was killed: the guest goes on as it was, unless it is suspended by now. */
int work_undo_save(struct work *w)
{
	xc_domaininfo_t info;
	int64_t until = work_now_us() + ACKNOWLEDGED_MS * INT64_C(1000);
	int rc = work_find(w, &w->req->handle, w->req->domid, &info);

	if (rc)
		return rc == RV_ENOENT ? 0 : rc; /* gone: nothing to take back */
	(void)xc_shadow_control(w->xc, info.domain, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0);
	if (w->asked && !request_withdraw(w, info.domain)) {
		while (!work_is_suspended(&info) && work_now_us() < until) {
			usleep(POLL_US);
			if (work_find(w, &w->req->handle, info.domain, &info) != 0)
				return 0;
		}
	}
	w->result.suspended = work_is_suspended(&info);
	return 0;
}

int work_resume(struct work *w)
{
	xc_domaininfo_t info;
	int rc = work_domain(w, &info);

	if (rc)
		return rc;
	if (!(info.flags & XEN_DOMINF_shutdown))
		return 0;
	if (!work_is_suspended(&info))
		return work_fail(w, RV_ESTATE,
			"domain %u has ended and can't be resumed: destroy it",
			info.domain);
	(void)request_withdraw(w, info.domain);
	/* 1: the guest sees that its suspending was cancelled and keeps its devices. */
	if (xc_domain_resume(w->xc, info.domain, 1) != 0)
		return work_fail(w, RV_EHYPERVISOR, "domain %u can't be resumed: %s",
			info.domain, strerror(errno));
	if (!xs_resume_domain(w->xs, info.domain))
		return work_fail(w, RV_EOUTCOME,
			"domain %u runs again, but xenstored did not take note: %s; "
			"resume it once more",
			info.domain, strerror(errno));
	return 0;
}
