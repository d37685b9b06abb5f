/*
 * The calls of one step: a hypercall, or a write that xenstored answers.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "xen/real/driver.h"

static bool needs_stored(enum hyper_call call)
{
	return call == HYPER_CALL_REQUEST_SHUTDOWN || call == HYPER_CALL_SET_TARGET ||
	       call == HYPER_CALL_RELABEL;
}

/* --- hypercalls --- */

static int do_pause(struct real_domain *d, struct rv_error *e)
{
	struct real *r = d->real;

	if (real_state(d) == HYPER_PAUSED)
		return 0;
	if (real_state(d) != HYPER_RUNNING)
		return real_wrong_state(d, "only a running one can be paused", e);
	return r->calls->pause(r->calls_arg, d->info.domid, e);
}

static int may_run(const struct hyper_req *req, struct rv_error *e)
{
	return req->in.may_run.fn ? req->in.may_run.fn(req->in.may_run.arg, e) : 0;
}

/* Pauses are counted: another tool may have added some. One that is added after the
 * question, by who fences, outlasts the one unpause that follows it. */
static int do_unpause(
	struct real_domain *d, const struct hyper_req *req, struct rv_error *e)
{
	uint32_t domid = d->info.domid;
	struct real *r = d->real;
	int rc = 0;

	if (real_state(d) == HYPER_RUNNING)
		return 0;
	if (real_state(d) != HYPER_PAUSED)
		return real_wrong_state(d, "only a paused one can be unpaused", e);
	for (int i = 0; rc == 0 && i < 256; i++) {
		rc = may_run(req, e);
		if (rc == 0)
			rc = r->calls->unpause(r->calls_arg, domid, e);
		if (rc == 0)
			rc = real_rescan(r, e);
		d = real_by_domid(r, domid);
		if (rc == 0 && d == NULL)
			return rv_error_set(e, RV_ENOENT,
				"domain %u has gone while it was unpaused", domid);
		if (rc == 0 && !d->info.paused)
			return 0;
	}
	if (rc == 0)
		rc = rv_error_set(e, RV_EHYPERVISOR,
			"domain %u is still paused though it was unpaused again and "
			"again: another tool pauses it",
			domid);
	return rc;
}

static int do_maxmem(struct real_domain *d, uint64_t kib, struct rv_error *e)
{
	enum hyper_state state = real_state(d);
	struct real *r = d->real;

	if (state == HYPER_BUILDING || state == HYPER_DYING)
		return real_wrong_state(d, "its memory limit can't be set", e);
	if (kib < REAL_PAGE_KIB || kib > UINT64_C(16) << 30)
		return rv_error_set(e, RV_EINVAL,
			"%s (domain %u): a memory limit of %" PRIu64 " KiB", d->name,
			d->info.domid, kib);
	return r->calls->set_max_kib(
		r->calls_arg, d->info.domid, kib + d->label.extra_kib, e);
}

/* --- xenstore --- */

static void stored_done(void *arg, int rc, const char *data, size_t len)
{
	struct real_call *call = arg;
	struct real_domain *d = call->domain;
	struct hyper_req *req = call->req;
	struct rv_error e;

	(void)len;
	call->waits_stored = false;
	rc = real_stored_error(call, rc, data);
	if (rc == 0 && d == NULL)
		rc = rv_error_set(&req->error, RV_ENOENT,
			"the domain ended before %s took effect",
			hyper_call_name(req->call));
	if (rc == 0 && req->call == HYPER_CALL_SET_TARGET) {
		d->target_kib = req->in.kib / REAL_PAGE_KIB * REAL_PAGE_KIB;
		real_moving(d);
	}
	if (rc == 0 && req->call == HYPER_CALL_RELABEL) {
		d->labelled = true;
		d->label = call->label;
		req->id = real_id(d);
	}
	if (rc == 0 && real_rescan(d->real, &e) != 0)
		rc = 0; /* the answer is a moment old */
	real_end(call, rc);
}

static void write_node(struct real_call *call, const char *what, const char *value)
{
	char path[STORED_PATH_MAX];

	snprintf(
		path, sizeof path, "/local/domain/%u/%s", call->domain->info.domid, what);
	call->phase = REAL_STORED;
	stored_write(call->real->stored, path, value, strlen(value), stored_done, call);
}

/* The guest's driver empties the node when it has read it; a newer request overwrites. */
static int do_shutdown(struct real_call *call, struct rv_error *e)
{
	enum hyper_reason reason = call->req->in.reason;
	struct real_domain *d = call->domain;

	if (reason != HYPER_REASON_POWEROFF && reason != HYPER_REASON_REBOOT &&
		reason != HYPER_REASON_SUSPEND)
		return rv_error_set(e, RV_EINVAL, "%s: a guest can't be asked for '%s'",
			d->name, hyper_reason_name(reason));
	if (real_state(d) != HYPER_RUNNING)
		return real_wrong_state(d, "only a running one can be asked to end", e);
	write_node(call, "control/shutdown", hyper_reason_name(reason));
	return 0;
}

/* memory/target is in KiB of the guest's own memory: a Linux guest takes the difference
 * to memory/static-max off it that it saw when it booted (drivers/xen/xen-balloon.c).
 * While pages are still to be populated on demand Xen's own target moves too, as
 * libxl_set_memory_target does. */
static int do_target(struct real_call *call, struct rv_error *e)
{
	uint64_t kib = call->req->in.kib / REAL_PAGE_KIB * REAL_PAGE_KIB;
	struct real_domain *d = call->domain;
	struct real *r = call->real;
	char text[24];
	int rc = 0;

	if (real_state(d) == HYPER_BUILDING || real_state(d) == HYPER_DYING)
		return real_wrong_state(d, "its memory target can't be set", e);
	if (kib < REAL_PAGE_KIB || call->req->in.kib > d->static_max_kib)
		return rv_error_set(e, RV_EINVAL,
			"%s (domain %u): a target of %" PRIu64
			" KiB is not between 4 KiB and its static maximum of %" PRIu64
			" KiB",
			d->name, d->info.domid, call->req->in.kib, d->static_max_kib);
	if (d->pod_kib > 0)
		rc = r->calls->set_pod_target(r->calls_arg, d->info.domid,
			(kib + d->label.extra_kib) / REAL_PAGE_KIB, e);
	if (rc != 0)
		return rc;
	snprintf(text, sizeof text, "%" PRIu64, kib);
	write_node(call, "memory/target", text);
	return 0;
}

static int do_relabel(struct real_call *call)
{
	struct real_domain *d = call->domain;
	char path[XEN_LABEL_PATH_SIZE], text[XEN_LABEL_TEXT_SIZE];
	size_t len;

	call->label = d->label;
	call->label.vm = call->req->in.label.vm;
	call->label.generation = call->req->in.label.generation;
	if (!d->labelled) { /* adopted: made by another tool, and complete */
		call->label.made = true;
		call->label.type = d->type;
		call->label.vcpus_max = d->info.vcpus_online;
		call->label.static_max_kib = d->static_max_kib;
		call->label.overhead_kib = hyper_xen_overhead_kib(
			d->type, d->info.vcpus_online, d->static_max_kib);
	}
	len = xen_label_format(&call->label, text);
	call->phase = REAL_STORED;
	stored_write(call->real->stored, xen_label_path(&d->info.handle, path), text, len,
		stored_done, call);
	return 0;
}

/* --- beginning --- */

static int begin_one(struct real_call *call, struct rv_error *e)
{
	struct hyper_req *req = call->req;
	struct real_domain *d = call->domain;

	switch (req->call) {
	case HYPER_CALL_PAUSE:
		return do_pause(d, e);
	case HYPER_CALL_UNPAUSE:
		return do_unpause(d, req, e);
	case HYPER_CALL_SET_MAXMEM:
		return do_maxmem(d, req->in.kib, e);
	case HYPER_CALL_REQUEST_SHUTDOWN:
		return do_shutdown(call, e);
	case HYPER_CALL_SET_TARGET:
		return do_target(call, e);
	case HYPER_CALL_RELABEL:
		return do_relabel(call);
	default:
		return rv_error_set(e, RV_EUNSUPPORTED, "the Xen driver has no '%s'",
			hyper_call_name(req->call));
	}
}

/* What a create, restore, save or destroy at work does not bear. */
static bool disturbs(enum hyper_call call)
{
	return call != HYPER_CALL_SET_MAXMEM && call != HYPER_CALL_RELABEL;
}

void real_short_begin(struct real_call *call)
{
	struct hyper_req *req = call->req;
	struct rv_error *e = &req->error, later;
	struct real *r = call->real;
	struct real_domain *d;
	int rc = real_rescan(r, e);

	if (rc == 0)
		rc = real_find(r, &req->id, &d, e);
	if (rc == 0 && disturbs(req->call))
		rc = real_need_idle(d, e);
	if (rc == 0 && needs_stored(req->call))
		rc = real_need_stored(r, hyper_call_name(req->call), e);
	if (rc == RV_EAGAIN) {
		real_wait(call);
		return;
	}
	if (rc == 0) {
		call->domain = d;
		rc = begin_one(call, e);
	}
	if (rc == 0 && call->phase == REAL_STORED)
		return;
	/* So that events and the answer tell what it did. */
	if (rc == 0)
		(void)!real_rescan(r, &later);
	real_end(call, rc);
}
