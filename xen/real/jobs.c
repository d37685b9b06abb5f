/*
 * The other calls that a helper does: save, resume, destroy, devices.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "xen/real/driver.h"

static void look(struct real *r)
{
	struct rv_error e = {0};

	if (real_rescan(r, &e) != 0)
		log_error("xen.real", "msg=\"%s\"", e.detail);
}

static int start(struct real_call *call, const struct xen_job_spec *spec,
	xen_job_done_fn *done, struct rv_error *e)
{
	struct xen_job_spec whole = *spec;
	struct real *r = call->real;
	int rc;

	whole.helpers = &r->helpers;
	whole.scripts = r->scripts[0] != '\0' ? r->scripts : NULL;
	rc = r->jobs->start(&call->job, r->hyper.loop, &whole, done, call, e);
	if (rc != 0)
		call->job = NULL;
	return rc;
}

/* --- save, resume, devices --- */

static void job_done(void *arg, const struct xen_job_result *result)
{
	struct real_call *call = arg;

	call->job = NULL;
	/* Before the answer: its end, or its going, as events. */
	look(call->real);
	if (result->rc != 0)
		call->req->error = *result->error;
	real_end(call, result->rc);
}

static int check_live(const struct real_domain *d, struct rv_error *e)
{
	uint32_t caps = d->real->host.caps;

	if (d->type == HYPER_PV && !(caps & HYPER_CAP_LIVE_PV))
		return rv_error_set(e, RV_EUNSUPPORTED,
			"%s (domain %u) is a PV guest and this hypervisor is built "
			"without shadow paging: it can't be migrated while it runs; "
			"migrate it with suspend",
			d->name, d->info.domid);
	if (d->type != HYPER_PV && !(caps & HYPER_CAP_LIVE_HVM))
		return rv_error_set(e, RV_EUNSUPPORTED,
			"%s (domain %u) can't be migrated while it runs on this "
			"hypervisor; migrate it with suspend",
			d->name, d->info.domid);
	return 0;
}

static bool is_suspended(const struct real_domain *d)
{
	return real_state(d) == HYPER_SHUTDOWN && d->info.reason == HYPER_REASON_SUSPEND;
}

static int check_save(
	const struct real_call *call, const struct real_domain *d, struct rv_error *e)
{
	int rc = call->req->save.live ? check_live(d, e) : 0;

	if (rc == 0 && real_state(d) != HYPER_RUNNING && !is_suspended(d))
		rc = real_wrong_state(
			d, "only a running or suspended one can be saved", e);
	if (rc == 0 && d->pod_kib > 0)
		rc = rv_error_set(e, RV_ESTATE,
			"%s (domain %u) still has %" PRIu64
			" KiB of its memory to be populated on demand: wait until its "
			"balloon driver runs",
			d->name, d->info.domid, d->pod_kib);
	return rc;
}

/* 0 with *at_once: nothing to do. */
static int check(const struct real_call *call, const struct real_domain *d, bool *at_once,
	struct rv_error *e)
{
	enum hyper_state state = real_state(d);

	*at_once = false;
	switch (call->req->call) {
	case HYPER_CALL_SAVE:
		return check_save(call, d, e);
	case HYPER_CALL_RESUME:
		*at_once = state == HYPER_RUNNING;
		if (*at_once || is_suspended(d))
			return 0;
		return real_wrong_state(d, "only a suspended one can be resumed", e);
	case HYPER_CALL_ATTACH_VBD:
	case HYPER_CALL_ATTACH_VIF:
		if (state == HYPER_RUNNING || state == HYPER_PAUSED)
			return 0;
		return real_wrong_state(d, "no device can be attached", e);
	default:
		if (state != HYPER_BUILDING)
			return 0;
		return real_wrong_state(d, "its devices are being made", e);
	}
}

static int start_one(struct real_call *call, struct real_domain *d, struct rv_error *e)
{
	struct hyper_req *req = call->req;
	struct hyper_domain now;
	struct xen_job_spec spec = {
		.call = req->call,
		.domid = d->info.domid,
		.handle = d->info.handle,
		.name = d->name,
		.vm = d->label.vm,
		.type = d->type,
		.save = req->save,
	};

	real_describe(d, &now);
	/* Its balloon may still be moving. */
	spec.actual_kib =
		now.actual_kib > now.target_kib ? now.actual_kib : now.target_kib;
	spec.extra_kib = (uint32_t)d->label.extra_kib;
	spec.save.sink.file.path = call->staged.file;
	if (req->call == HYPER_CALL_ATTACH_VBD)
		spec.vbd = &call->staged.vbd;
	else if (req->call == HYPER_CALL_ATTACH_VIF)
		spec.vif = &call->staged.vif;
	else if (req->call == HYPER_CALL_DETACH_VBD || req->call == HYPER_CALL_DETACH_VIF)
		spec.devid = req->in.devid;
	/* All of them change the domain: they exclude each other, not only what the port
	 * promises. */
	real_hold(call, d);
	call->phase = REAL_JOB;
	return start(call, &spec, job_done, e);
}

void real_job_begin(struct real_call *call)
{
	struct hyper_req *req = call->req;
	struct rv_error *e = &req->error;
	struct real *r = call->real;
	struct real_domain *d;
	bool at_once = false;
	int rc = real_rescan(r, e);

	if (rc == 0)
		rc = real_find(r, &req->id, &d, e);
	if (rc == 0)
		rc = real_need_idle(d, e);
	if (rc == 0) {
		call->domain = d;
		rc = check(call, d, &at_once, e);
	}
	if (rc == 0 && !at_once)
		rc = real_need_stored(r, hyper_call_name(req->call), e);
	if (rc == RV_EAGAIN) {
		real_wait(call);
		return;
	}
	if (rc == 0 && !at_once)
		rc = start_one(call, d, e);
	if (rc != 0 || at_once)
		real_end(call, rc);
}

/* --- destroy --- */

static void wait_gone(void *arg)
{
	struct real_call *call = arg;
	struct hyper_req *req = call->req;
	struct real *r = call->real;
	struct real_domain *d;

	call->phase = REAL_GONE;
	look(r);
	d = real_by_handle(r, &req->id.handle);
	if (d == NULL) {
		call->domain = NULL;
		real_end(call, 0);
		return;
	}
	if (call->cancelled) {
		real_end(call,
			rv_error_set(&req->error, RV_ECANCELLED,
				"%s (domain %u) is dying and still holds %" PRIu64
				" KiB: something maps its memory (a backend that hangs?)",
				d->name, d->info.domid, d->info.pages * REAL_PAGE_KIB));
		return;
	}
	timer_init(&call->timer, r->hyper.loop, "xen.real.gone", wait_gone, call);
	timer_start_ms(&call->timer, REAL_GONE_MS);
}

static void destroyed(void *arg, const struct xen_job_result *result)
{
	struct real_call *call = arg;
	int rc = result->rc;

	call->job = NULL;
	/* It went by itself, or another one has its number by now. */
	if (rc == RV_ENOENT || (rc == RV_ESTALE && call->domain == NULL))
		rc = 0;
	if (rc == 0) {
		wait_gone(call);
		return;
	}
	look(call->real);
	call->req->error = *result->error;
	real_end(call, rc);
}

int real_destroy_job(struct real_call *call, xen_job_done_fn *done, struct rv_error *e)
{
	bool making = call->req->call != HYPER_CALL_DESTROY;
	struct xen_job_spec spec = {
		.call = HYPER_CALL_DESTROY,
		.domid =
			call->domain != NULL ? call->domain->info.domid : HYPER_DOMID_ANY,
		.handle = making ? call->staged.spec.handle : call->req->id.handle,
		.name = call->domain != NULL ? call->domain->name : NULL,
	};

	return start(call, &spec, done, e);
}

/* By its own rules: what is gone is no error. *nothing: another boot, or the domid has
 * another domain now. *out NULL: it is gone, but what the last one who destroyed it left
 * may be there. */
static int destroy_find(struct real_call *call, struct real_domain **out, bool *nothing,
	struct rv_error *e)
{
	struct hyper_domain_id id = call->req->id;
	struct real *r = call->real;
	struct real_domain *d = real_by_handle(r, &id.handle), *other;
	int rc;

	*out = NULL;
	*nothing = !uuid_eq(&id.boot_id, &r->boot_id);
	if (*nothing)
		return 0;
	if (d == NULL) {
		other = id.domid != HYPER_DOMID_ANY ? real_by_domid(r, id.domid) : NULL;
		*nothing = other != NULL;
		if (real_maker(r, &id.handle) != NULL)
			return rv_error_set(e, RV_EBUSY,
				"this domain is being made; cancel that first");
		return 0;
	}
	*nothing = id.domid != HYPER_DOMID_ANY && d->info.domid != id.domid;
	if (*nothing)
		return 0;
	rc = real_find(r, &id, out, e);
	return rc != 0 ? rc : real_need_idle(d, e);
}

void real_destroy_begin(struct real_call *call)
{
	struct rv_error *e = &call->req->error;
	struct real_domain *d = NULL;
	bool nothing = false;
	int rc = real_rescan(call->real, e);

	if (rc == 0)
		rc = destroy_find(call, &d, &nothing, e);
	if (rc == 0 && !nothing)
		rc = real_need_stored(call->real, "destroy", e);
	if (rc == RV_EAGAIN) {
		real_wait(call);
		return;
	}
	if (rc == 0 && !nothing) {
		if (d != NULL)
			real_hold(call, d);
		call->phase = REAL_JOB;
		rc = real_destroy_job(call, destroyed, e);
	}
	if (rc != 0 || nothing)
		real_end(call, rc);
}
