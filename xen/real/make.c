/*
 * Create and restore.
 *
 *	begin: same handle there? memory? -> LABEL: written, not `made`
 *	-> JOB: the helper builds -> FIT: limit, target, label `made` -> answer
 *	anything fails or is cancelled -> UNDO: destroy what there is -> answer
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "xen/real/driver.h"

static void undo(struct real_call *call);

/* --- ending --- */

static void label_remove(struct real_call *call)
{
	char path[XEN_LABEL_PATH_SIZE];

	stored_remove(call->real->stored, xen_label_path(&call->staged.spec.handle, path),
		NULL, NULL);
}

/* Nothing of it is there any more. */
static void end_undone(struct real_call *call)
{
	struct hyper_req *req = call->req;

	label_remove(call);
	/* "Who knows" was true of the helper; by now it is known. */
	if (call->undone.code == RV_EOUTCOME)
		call->undone.code = RV_ECHILD;
	req->error = call->undone;
	real_end(call, call->undone.code);
}

static void undo_again(void *arg)
{
	undo(arg);
}

static void undo_failed(struct real_call *call, const struct rv_error *why)
{
	struct hyper_req *req = call->req;

	if (++call->tries < REAL_UNDO_TRIES) {
		timer_init(&call->timer, call->real->hyper.loop, "xen.real.undo",
			undo_again, call);
		timer_start_ms(&call->timer, 500);
		return;
	}
	if (call->domain != NULL)
		req->id = real_id(call->domain);
	real_end(call, rv_error_set(&req->error, RV_EOUTCOME,
			       "%s: what was begun could not be undone (%s); it failed "
			       "for: %s. Destroy it",
			       call->staged.spec.name != NULL ? call->staged.spec.name
							      : "domain",
			       why->detail, call->undone.detail));
}

static void undo_done(void *arg, const struct xen_job_result *result)
{
	struct real_call *call = arg;
	struct real *r = call->real;
	struct rv_error e = {0};

	call->job = NULL;
	timer_stop(&call->timer);
	if (real_rescan(r, &e) != 0)
		log_error("xen.real", "msg=\"%s\"", e.detail);
	if (real_by_handle(r, &call->staged.spec.handle) == NULL &&
		(result->rc == 0 || result->rc == RV_ENOENT))
		end_undone(call);
	else
		undo_failed(call, result->error);
}

/* Something holds the helper, such as a stopped xenstored: the caller gets to know. */
static void undo_late(void *arg)
{
	struct real_call *call = arg;

	call->tries = REAL_UNDO_TRIES;
	call->real->jobs->cancel(call->job);
}

static void undo(struct real_call *call)
{
	struct rv_error e = {0};

	call->phase = REAL_UNDO;
	if (real_destroy_job(call, undo_done, &e) != 0) {
		undo_failed(call, &e);
		return;
	}
	timer_init(
		&call->timer, call->real->hyper.loop, "xen.real.undo", undo_late, call);
	timer_start_ms(&call->timer, REAL_UNDO_MS);
}

static void fail(struct real_call *call, const struct rv_error *why)
{
	call->undone = *why;
	if (call->cancelled)
		rv_error_set(&call->undone, RV_ECANCELLED, "%s was cancelled",
			hyper_call_name(call->req->call));
	undo(call);
}

/* --- FIT --- */

static void fitted(void *arg, int rc, const char *data, size_t len)
{
	struct real_call *call = arg;
	struct real_domain *d = call->domain;
	struct hyper_req *req = call->req;

	(void)len;
	call->waits_stored = false;
	rc = real_stored_error(call, rc, data);
	if (rc == 0 && d == NULL)
		rc = rv_error_set(&req->error, RV_EHYPERVISOR,
			"%s was destroyed while it was made; try it again",
			call->staged.spec.name);
	if (rc != 0 || call->cancelled) {
		fail(call, &req->error);
		return;
	}
	d->label = call->label;
	d->labelled = d->loaded = d->in_store = true;
	d->static_max_kib = call->label.static_max_kib;
	d->target_kib = call->staged.spec.target_kib / REAL_PAGE_KIB * REAL_PAGE_KIB;
	d->holder = NULL;
	req->id = real_id(d);
	real_moving(d);
	real_introduce(d);
	real_end(call, 0);
}

static uint64_t held_kib(const struct real_domain *d)
{
	return d->info.pages * REAL_PAGE_KIB;
}

/* What Xen counts for it beyond its own memory: pages that libxenguest adds for the
 * start of PVH and HVM guests. For PV ones there is none: their balloon driver brings
 * tot_pages itself to the target. */
static uint64_t extra_of(const struct real_call *call, const struct real_domain *d)
{
	if (call->staged.spec.type == HYPER_PV || held_kib(d) <= call->made_kib ||
		held_kib(d) - call->made_kib > REAL_EXTRA_MAX_KIB)
		return 0;
	return held_kib(d) - call->made_kib;
}

static void fit(struct real_call *call)
{
	char path[STORED_PATH_MAX], text[XEN_LABEL_TEXT_SIZE];
	const struct hyper_domain_spec *spec = &call->staged.spec;
	struct real_domain *d = call->domain;
	struct real *r = call->real;
	struct rv_error e = {0};
	size_t len;

	call->phase = REAL_FIT;
	call->label.made = true;
	if (r->calls->set_max_kib(r->calls_arg, d->info.domid,
		    call->made_kib + call->label.extra_kib, &e) != 0) {
		fail(call, &e);
		return;
	}
	/* What it balloons to once it has booted. */
	snprintf(path, sizeof path, "/local/domain/%u/memory/target", d->info.domid);
	snprintf(text, sizeof text, "%" PRIu64,
		spec->target_kib / REAL_PAGE_KIB * REAL_PAGE_KIB);
	stored_write(r->stored, path, text, strlen(text), NULL, NULL);
	len = xen_label_format(&call->label, text);
	call->waits_stored = true;
	stored_write(
		r->stored, xen_label_path(&spec->handle, path), text, len, fitted, call);
}

/* --- JOB --- */

static void made(void *arg, const struct xen_job_result *result)
{
	struct real_call *call = arg;
	struct real *r = call->real;
	struct rv_error e = {0};
	int rc = result->rc;

	call->job = NULL;
	if (rc == 0)
		rc = real_rescan(r, &e);
	else
		e = *result->error;
	if (rc == 0 && call->domain == NULL) {
		struct real_domain *d = real_by_handle(r, &call->staged.spec.handle);

		if (d != NULL)
			real_hold(call, d);
		else
			rc = rv_error_set(&e, RV_EHYPERVISOR,
				"%s was destroyed while it was made; try it again",
				call->staged.spec.name);
	}
	if (rc == 0 && result->extra_kib > held_kib(call->domain))
		rc = rv_error_set(&e, RV_ECORRUPT,
			"%s: the saved stream tells of more special pages than there "
			"are pages",
			call->staged.spec.name);
	if (rc != 0 || call->cancelled) {
		fail(call, &e);
		return;
	}
	call->made_kib = call->boot_kib;
	if (call->req->call == HYPER_CALL_RESTORE) {
		call->label.extra_kib = result->extra_kib;
		call->made_kib = held_kib(call->domain) - result->extra_kib;
		if (call->made_kib < call->staged.spec.target_kib)
			call->made_kib = call->staged.spec.target_kib;
	} else {
		call->label.extra_kib = extra_of(call, call->domain);
	}
	fit(call);
}

static void build(struct real_call *call)
{
	struct hyper_req *req = call->req;
	struct real *r = call->real;
	struct xen_job_spec spec = {
		.helpers = &r->helpers,
		.scripts = r->scripts[0] != '\0' ? r->scripts : NULL,
		.call = req->call,
		.spec = &call->staged.spec,
		.domid = HYPER_DOMID_ANY,
		.handle = call->staged.spec.handle,
		.name = call->staged.spec.name,
		.vm = call->staged.spec.vm,
		.type = call->staged.spec.type,
		.source = req->source,
	};
	int rc;

	call->phase = REAL_JOB;
	spec.source.file.path = call->staged.file;
	rc = r->jobs->start(&call->job, r->hyper.loop, &spec, made, call, &req->error);
	if (rc != 0) {
		call->job = NULL;
		label_remove(call);
		real_end(call, rc);
	}
}

/* --- LABEL --- */

static void labelled(void *arg, int rc, const char *data, size_t len)
{
	struct real_call *call = arg;
	struct hyper_req *req = call->req;

	(void)len;
	call->waits_stored = false;
	rc = real_stored_error(call, rc, data);
	if (rc != 0) {
		label_remove(call);
		real_end(call, rc);
	} else if (call->cancelled) {
		label_remove(call);
		real_end(call, rv_error_set(&req->error, RV_ECANCELLED,
				       "%s was cancelled", hyper_call_name(req->call)));
	} else {
		build(call);
	}
}

static void label_write(struct real_call *call)
{
	char path[XEN_LABEL_PATH_SIZE], text[XEN_LABEL_TEXT_SIZE];
	const struct hyper_domain_spec *spec = &call->staged.spec;
	size_t len;

	call->label = (struct xen_label){
		.vm = spec->vm,
		.generation = spec->generation,
		.type = spec->type,
		.vcpus_max = spec->vcpus_max,
		.static_max_kib =
			(spec->static_max_kib + 3) / REAL_PAGE_KIB * REAL_PAGE_KIB,
		.overhead_kib = hyper_xen_overhead_kib(
			spec->type, spec->vcpus_max, spec->static_max_kib),
	};
	len = xen_label_format(&call->label, text);
	call->phase = REAL_LABEL;
	call->waits_stored = true;
	stored_write(call->real->stored, xen_label_path(&spec->handle, path), text, len,
		labelled, call);
}

/* --- beginning --- */

/* A repeated create: 0 with *again when the domain is there already. RV_EAGAIN: it is
 * there, and not known yet. */
static int look_again(struct real_call *call, bool *again, struct rv_error *e)
{
	const struct hyper_domain_spec *spec = &call->staged.spec;
	struct real_domain *d = real_by_handle(call->real, &spec->handle);
	struct real_call *maker = real_maker(call->real, &spec->handle);
	int rc;

	*again = false;
	if (maker != NULL)
		return rv_error_set(e, RV_EBUSY,
			"%s is being made by another call; wait for that", spec->name);
	if (d == NULL)
		return 0;
	rc = real_need_idle(d, e);
	if (rc != 0)
		return rc;
	if (!d->loaded)
		return RV_EAGAIN;
	if (real_state(d) == HYPER_BUILDING || real_state(d) == HYPER_DYING)
		return rv_error_set(e, RV_ESTATE,
			"%s (domain %u) is half-made; destroy it first", d->name,
			d->info.domid);
	if (!uuid_eq(&d->label.vm, &spec->vm) || d->label.generation != spec->generation)
		return rv_error_set(e, RV_EEXIST,
			"the handle belongs to %s (domain %u) of another VM or owner "
			"generation",
			d->name, d->info.domid);
	call->domain = d;
	*again = true;
	return 0;
}

static int check_type(
	struct real *r, const struct hyper_domain_spec *s, struct rv_error *e)
{
	static const uint32_t cap_of[] = {
		[HYPER_PV] = HYPER_CAP_PV,
		[HYPER_PVH] = HYPER_CAP_PVH,
		[HYPER_HVM] = HYPER_CAP_HVM,
	};

	if (r->host.caps & cap_of[s->type])
		return 0;
	return rv_error_set(e, RV_EUNSUPPORTED,
		"%s: this host can't run this type of guest%s", s->name,
		s->type != HYPER_PV ? "; switch on virtualisation (VT-x, AMD-V) in its "
				      "firmware"
				    : "");
}

/* Other calls at work have claimed what Xen shows as claimed or held by their domain; the
 * rest of what they were admitted with is still to come. */
static uint64_t admitted_kib(const struct real_call *self)
{
	uint64_t kib = 0;

	REAL_FOR_EACH(real_call, call, &self->real->at_work)
	{
		const struct real_domain *d = call->domain;
		uint64_t need_kib = call->boot_kib, has_kib = 0;

		if (call == self || need_kib == 0 || call->phase > REAL_JOB)
			continue;
		if (d != NULL)
			has_kib = (d->info.pages + d->info.claimed_pages) * REAL_PAGE_KIB;
		need_kib += call->label.overhead_kib;
		kib += need_kib > has_kib ? need_kib - has_kib : 0;
	}
	return kib;
}

/* Free memory is free pages less claims; dying domains still hold theirs. */
static int admit(struct real_call *call, struct rv_error *e)
{
	const struct hyper_domain_spec *s = &call->staged.spec;
	uint64_t overhead_kib =
		hyper_xen_overhead_kib(s->type, s->vcpus_max, s->static_max_kib);
	bool at_target = s->type == HYPER_PV || s->populate_on_demand ||
			 call->req->call == HYPER_CALL_RESTORE;
	uint64_t boot_kib = at_target ? s->target_kib : s->static_max_kib;
	uint64_t need_kib = boot_kib + overhead_kib, free_kib, promised_kib;
	struct xen_hostinfo host;
	int rc = call->real->calls->host(call->real->calls_arg, &host, e);

	if (rc != 0)
		return rc;
	free_kib = host.free_pages * REAL_PAGE_KIB;
	promised_kib = host.claimed_pages * REAL_PAGE_KIB + admitted_kib(call);
	if (promised_kib > free_kib || need_kib > free_kib - promised_kib)
		return rv_error_set(e, RV_EMEMORY,
			"%s needs %" PRIu64 " KiB (%" PRIu64
			" of it overhead), the host has %" PRIu64 " KiB free, %" PRIu64
			" of it claimed; make room or use another host",
			s->name, need_kib, overhead_kib, free_kib, promised_kib);
	call->boot_kib = boot_kib / REAL_PAGE_KIB * REAL_PAGE_KIB;
	return 0;
}

void real_make_begin(struct real_call *call)
{
	const struct hyper_domain_spec *spec = &call->staged.spec;
	struct rv_error *e = &call->req->error;
	struct real *r = call->real;
	bool again = false;
	int rc = real_rescan(r, e);

	if (rc == 0)
		rc = look_again(call, &again, e);
	if (rc == 0 && again) {
		call->req->id = real_id(call->domain);
		real_end(call, 0);
		return;
	}
	if (rc == 0)
		rc = check_type(r, spec, e);
	if (rc == 0 && spec->cpu_policy != NULL) {
		rc = real_cpu_check(&r->hyper, r->host.cpu_policy, r->host.cpu_policy_len,
			spec->cpu_policy, spec->cpu_policy_len, e);
		if (rc != 0)
			rv_error_prefix(e, "%s", spec->name);
	}
	if (rc == 0 && r->domain_count >= HYPER_MAX_DOMAINS)
		rc = rv_error_set(e, RV_ELIMIT,
			"%s: this host has its %d domains already; stop one or use "
			"another host",
			spec->name, HYPER_MAX_DOMAINS);
	if (rc == 0)
		rc = real_need_stored(r, hyper_call_name(call->req->call), e);
	if (rc == 0)
		rc = admit(call, e);
	if (rc == RV_EAGAIN)
		real_wait(call);
	else if (rc != 0)
		real_end(call, rc);
	else
		label_write(call);
}
