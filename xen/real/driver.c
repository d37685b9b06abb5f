#include "xen/real/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

/* --- answers --- */

static void call_free(struct real_call *call)
{
	list_remove(&call->node);
	defer_stop(&call->begin);
	timer_stop(&call->timer);
	if (call->domain != NULL && call->domain->holder == call)
		call->domain->holder = NULL;
	if (call->job != NULL)
		call->real->jobs->abandon(call->job);
	real_staged_fini(&call->staged);
	free(call);
}

void real_end(struct real_call *call, int rc)
{
	struct hyper_req *req = call->req;

	if (call->domain != NULL)
		real_describe(call->domain, &req->domain);
	req->rc = rc;
	if (rc != 0 && req->error.code != rc)
		rv_error_set(&req->error, rc, "%s %s: %s", hyper_call_name(req->call),
			call->domain != NULL ? call->domain->name : "of a domain",
			rv_error_text(rc));
	call_free(call);
	hyper_finish(req);
}

int real_wrong_state(const struct real_domain *d, const char *what, struct rv_error *e)
{
	enum hyper_state state = real_state(d);

	return rv_error_set(e, RV_ESTATE, "%s (domain %u) is %s%s%s: %s", d->name,
		d->info.domid, hyper_state_name(state),
		state == HYPER_SHUTDOWN ? ", reason " : "",
		state == HYPER_SHUTDOWN ? hyper_reason_name(d->info.reason) : "", what);
}

int real_stored_error(struct real_call *call, int rc, const char *data)
{
	struct rv_error *e = &call->req->error;
	const char *what = hyper_call_name(call->req->call);

	switch (rc) {
	case 0:
		return 0;
	case RV_EAGAIN:
		return stored_is_lost(call->real->stored)
			       ? real_need_stored(call->real, what, e)
			       : rv_error_set(e, RV_EBUSY,
					 "%s: xenstored has too much to do; try it again",
					 what);
	case RV_EOUTCOME:
		return rv_error_set(e, RV_EOUTCOME,
			"%s: xenstored stopped answering before it was known whether "
			"this took effect; look at the domain once it is back",
			what);
	default:
		return rv_error_set(
			e, RV_EHYPERVISOR, "%s: xenstored refused it: %s", what, data);
	}
}

/* --- finding --- */

int real_need_stored(struct real *r, const char *what, struct rv_error *e)
{
	if (stored_is_up(r->stored))
		return 0;
	if (!stored_is_lost(r->stored))
		return RV_EAGAIN;
	return rv_error_set(e, RV_EBUSY,
		"%s: xenstored of this host does not answer, so its domains can't be "
		"managed; they run on. See systemctl status xenstored",
		what);
}

struct real_call *real_maker(struct real *r, const struct uuid *handle)
{
	REAL_FOR_EACH(real_call, call, &r->at_work)
	if ((call->req->call == HYPER_CALL_CREATE ||
		    call->req->call == HYPER_CALL_RESTORE) &&
		call->phase > REAL_WAIT && uuid_eq(&call->staged.spec.handle, handle))
		return call;
	return NULL;
}

int real_need_idle(const struct real_domain *d, struct rv_error *e)
{
	if (d->holder == NULL)
		return 0;
	return rv_error_set(e, RV_EBUSY,
		"%s (domain %u) has a %s at work; wait for it or cancel it", d->name,
		d->info.domid, hyper_call_name(d->holder->req->call));
}

void real_hold(struct real_call *call, struct real_domain *d)
{
	call->domain = d;
	d->holder = call;
}

int real_find(struct real *r, const struct hyper_domain_id *id, struct real_domain **out,
	struct rv_error *e)
{
	bool any = id->domid == HYPER_DOMID_ANY;
	struct real_domain *d;

	*out = NULL;
	if (!uuid_eq(&id->boot_id, &r->boot_id))
		return rv_error_set(e, RV_ESTALE,
			"domain %u is from before this host's last boot; it is gone",
			id->domid);
	d = any ? real_by_handle(r, &id->handle) : real_by_domid(r, id->domid);
	if (d == NULL && any)
		return rv_error_set(
			e, RV_ENOENT, "no domain with this handle on this host");
	if (d == NULL)
		return rv_error_set(
			e, RV_ENOENT, "there is no domain %u on this host", id->domid);
	if (!uuid_eq(&d->info.handle, &id->handle))
		return rv_error_set(e, RV_ESTALE,
			"domain %u is another one by now (%s); the one meant is gone",
			id->domid, d->name);
	*out = d;
	if (!d->loaded && d->holder == NULL)
		return RV_EAGAIN;
	if (d->label.generation != id->generation)
		return rv_error_set(e, RV_ESTALE,
			"%s (domain %u) belongs to owner generation %" PRIu64
			", not %" PRIu64 "; read its VM's record again",
			d->name, d->info.domid, d->label.generation, id->generation);
	return 0;
}

/* --- requests --- */

void real_wait(struct real_call *call)
{
	struct rv_error *e = &call->req->error;

	int rc = real_need_stored(call->real, hyper_call_name(call->req->call), e);

	call->phase = REAL_WAIT;
	call->domain = NULL;
	if (rc != 0 && rc != RV_EAGAIN)
		real_end(call, rc);
}

void real_wake(struct real *r)
{
	REAL_FOR_EACH(real_call, call, &r->at_work)
	if (call->phase == REAL_WAIT)
		defer_start(&call->begin);
}

static void call_begin(void *arg)
{
	struct real_call *call = arg;
	struct hyper_req *req = call->req;

	if (req->error.code != 0) { /* refused by real_submit */
		real_end(call, req->error.code);
		return;
	}
	if (call->cancelled) {
		real_end(call, rv_error_set(&req->error, RV_ECANCELLED,
				       "%s was cancelled", hyper_call_name(req->call)));
		return;
	}
	switch (req->call) {
	case HYPER_CALL_CREATE:
	case HYPER_CALL_RESTORE:
		real_make_begin(call);
		break;
	case HYPER_CALL_DESTROY:
		real_destroy_begin(call);
		break;
	case HYPER_CALL_SAVE:
	case HYPER_CALL_RESUME:
	case HYPER_CALL_ATTACH_VBD:
	case HYPER_CALL_DETACH_VBD:
	case HYPER_CALL_ATTACH_VIF:
	case HYPER_CALL_DETACH_VIF:
		real_job_begin(call);
		break;
	case HYPER_CALL_CONSOLE:
		real_console_begin(call);
		break;
	case HYPER_CALL_HOST:
	case HYPER_CALL_METRICS:
	case HYPER_CALL_LIST:
	case HYPER_CALL_INFO:
		real_query_begin(call);
		break;
	default:
		real_short_begin(call);
	}
}

static void real_submit(struct hyper *h, struct hyper_req *req)
{
	struct real *r = real_of(h);
	struct real_call *call = calloc(1, sizeof *call);
	int rc;

	if (call == NULL) {
		log_error("xen.real", "msg=\"no memory for a request\"");
		abort();
	}
	call->real = r;
	call->req = req;
	req->job = call;
	defer_init(&call->begin, h->loop, "xen.real.call", call_begin, call);
	timer_init(&call->timer, h->loop, "xen.real.call", call_begin, call);
	list_push_back(&r->at_work, &call->node);
	rc = real_stage(&call->staged, req, &req->error);
	(void)rc; /* call_begin answers with it */
	defer_start(&call->begin);
}

static void real_cancel(struct hyper *h, struct hyper_req *req)
{
	struct real_call *call = req->job;
	struct real *r = real_of(h);

	if (call->cancelled)
		return;
	call->cancelled = true;
	switch (call->phase) {
	case REAL_BEGIN:
	case REAL_WAIT:
		defer_start(&call->begin);
		break;
	case REAL_JOB:
		if (call->job != NULL)
			r->jobs->cancel(call->job);
		break;
	case REAL_STORED: /* xenstored was asked; it or its loss answers soon */
	case REAL_LABEL:
	case REAL_FIT:
	case REAL_GONE: /* both look at the flag when they go on */
	case REAL_UNDO:
		break;
	}
}

static void real_kick(struct hyper *h, struct hyper_req *req)
{
	struct real_call *call = req->job;

	if (call->job != NULL && call->phase == REAL_JOB)
		real_of(h)->jobs->kick(call->job);
}

static uint64_t real_overhead_kib(
	const struct hyper *h, const struct hyper_domain_spec *s)
{
	(void)h;
	return hyper_xen_overhead_kib(s->type, s->vcpus_max, s->static_max_kib);
}

/* --- life --- */

static void real_free(struct hyper *h)
{
	struct real *r = real_of(h);

	while (!list_empty(&r->at_work))
		call_free(CONTAINER_OF(r->at_work.next, struct real_call, node));
	xen_helpers_fini(&r->helpers);
	/* First: no callback of its requests may find a domain that is gone. */
	stored_free(r->stored);
	while (!list_empty(&r->domains))
		real_domain_free(CONTAINER_OF(r->domains.next, struct real_domain, node));
	timer_stop(&r->look);
	timer_stop(&r->reload);
	r->calls->close(r->calls_arg);
	free(r->infos);
	free(r->list);
	free(r->metrics_list);
	free(r);
}

static const struct hyper_ops real_ops = {
	.name = "xen",
	.takes_files = true,
	.submit = real_submit,
	.cancel = real_cancel,
	.kick = real_kick,
	.overhead_kib = real_overhead_kib,
	.cpu_check = real_cpu_check,
	.cpu_common = real_cpu_common,
	.free = real_free,
};

/* dom0 boots with the host, so its boot id is the host's. */
static int read_boot_id(struct uuid *id, struct rv_error *e)
{
	static const char path[] = "/proc/sys/kernel/random/boot_id";
	char text[UUID_TEXT_LEN];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t r = fd >= 0 ? read(fd, text, sizeof text) : -1;

	if (fd >= 0)
		close(fd);
	if (r != sizeof text || uuid_parse(id, text, sizeof text) != 0)
		return rv_error_set(
			e, RV_EHYPERVISOR, "%s can't be read; is /proc mounted?", path);
	return 0;
}

int real_new(struct hyper **out, struct loop *l, const struct real_parts *parts,
	struct rv_error *e)
{
	const struct hyper_real_config *config = parts->config;
	struct real *r = calloc(1, sizeof *r);
	int rc;

	*out = NULL;
	if (r == NULL) {
		parts->calls->close(parts->calls_arg);
		return rv_error_set(e, RV_ENOMEM, "no memory for the Xen driver");
	}
	hyper_init(&r->hyper, &real_ops, l);
	r->calls = parts->calls;
	r->calls_arg = parts->calls_arg;
	r->jobs = parts->jobs;
	list_init(&r->domains);
	list_init(&r->at_work);
	timer_init(&r->look, l, "xen.real.look", real_look, r);
	timer_init(&r->reload, l, "xen.real.reload", real_reload, r);
	snprintf(r->helper, sizeof r->helper, "%s", config->helper);
	xen_helpers_init(&r->helpers, l, r->helper);
	snprintf(r->scripts, sizeof r->scripts, "%s",
		config->scripts != NULL ? config->scripts : "");
	r->infos = calloc(HYPER_MAX_DOMAINS + 1, sizeof *r->infos);
	r->list = calloc(HYPER_MAX_DOMAINS, sizeof *r->list);
	r->metrics_list = calloc(HYPER_MAX_DOMAINS, sizeof *r->metrics_list);
	rc = r->infos == NULL || r->list == NULL || r->metrics_list == NULL
		     ? rv_error_set(e, RV_ENOMEM, "no memory for the Xen driver")
		     : 0;
	if (rc == 0)
		rc = read_boot_id(&r->boot_id, e);
	if (rc == 0)
		rc = real_host_init(r, parts, e);
	if (rc == 0)
		rc = stored_new(&r->stored, l, config->xenstored,
			config->stored_patience_ms, &real_stored_events, r);
	if (rc == 0)
		rc = real_rescan(r, e);
	if (rc != 0) {
		if (e->code == 0)
			rv_error_set(e, rc, "the Xen driver: %s", rv_error_text(rc));
		real_free(&r->hyper);
		return rc;
	}
	r->scanned = true;
	timer_start_ms(&r->look, REAL_LOOK_OFTEN_MS);
	*out = &r->hyper;
	return 0;
}
