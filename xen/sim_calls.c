#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "xen/sim_driver.h"

/* --- staging: what the caller lent --- */

static uint64_t hash_text(uint64_t seed, const char *text)
{
	return text != NULL ? XXH3_64bits_withSeed(text, strlen(text), seed + 1) : seed;
}

static void stage_vbd(struct sim_device *device, const struct hyper_vbd_spec *vbd)
{
	device->used = 1;
	device->is_vif = 0;
	device->devid = vbd->devid;
	device->params = hash_text(vbd->read_only | vbd->cdrom << 1, vbd->device);
	device->params = hash_text(device->params, vbd->backend);
	device->params = hash_text(device->params, vbd->params);
}

static void stage_vif(struct sim_device *device, const struct hyper_vif_spec *vif)
{
	device->used = 1;
	device->is_vif = 1;
	device->devid = vif->devid;
	device->params = hash_text(vif->mtu, vif->mac);
	device->params = hash_text(device->params, vif->backend);
	device->params = hash_text(device->params, vif->bridge);
}

static int check_spec(const struct sim *s, const struct hyper_domain_spec *spec,
	const char *name, struct rv_error *e)
{
	static const uint32_t cap_of[] = {
		[HYPER_PV] = HYPER_CAP_PV,
		[HYPER_PVH] = HYPER_CAP_PVH,
		[HYPER_HVM] = HYPER_CAP_HVM,
	};
	int rc = hyper_check_spec(spec, e);

	if (!rc && !(s->config.caps & cap_of[spec->type]))
		rc = rv_error_set(e, RV_EUNSUPPORTED,
			"%s: this host can't run this type of guest", name);
	return rc;
}

static void stage_guest(struct sim *s, const struct uuid *vm, struct hyper_sim_guest *g)
{
	LIST_FOR_EACH (node, &s->overrides) {
		struct sim_override *o = CONTAINER_OF(node, struct sim_override, node);

		if (uuid_eq(&o->vm, vm))
			*g = o->guest;
	}
}

static int stage_spec(struct sim_job *job, struct rv_error *e)
{
	const struct hyper_domain_spec *spec = job->req->in.spec;
	const char *name = spec->name != NULL ? spec->name : "domain";
	struct sim *s = job->sim;
	struct sim_record *r = &job->staged;
	int rc = check_spec(s, spec, name, e);

	if (rc != 0)
		return rc;
	if (spec->cpu_policy != NULL) {
		rc = sim_cpu_check(&s->hyper, s->host.cpu_policy, s->host.cpu_policy_len,
			spec->cpu_policy, spec->cpu_policy_len, e);
		if (rc != 0)
			return rv_error_prefix(e, "%s", name);
	}
	snprintf(r->name, sizeof r->name, "%s", name);
	r->vm = spec->vm;
	r->handle = spec->handle;
	r->generation = spec->generation;
	r->type = spec->type;
	r->state = HYPER_BUILDING;
	r->vcpus_max = spec->vcpus_max;
	r->vcpus_online = spec->vcpus_online > 0 ? spec->vcpus_online : spec->vcpus_max;
	r->has_console = spec->console;
	r->static_max_kib = (spec->static_max_kib + 3) / SIM_PAGE_KIB * SIM_PAGE_KIB;
	r->target_kib = spec->target_kib / SIM_PAGE_KIB * SIM_PAGE_KIB;
	r->overhead_kib =
		hyper_xen_overhead_kib(spec->type, spec->vcpus_max, spec->static_max_kib);
	job->boot_kib = spec->type == HYPER_PV || spec->populate_on_demand
				? r->target_kib
				: r->static_max_kib;
	if (spec->type != HYPER_PV && spec->populate_on_demand)
		r->pod_kib = r->static_max_kib - r->target_kib;
	r->maxmem_kib = job->boot_kib;
	r->asked.at_ran_us = r->script.at_ran_us = SIM_NEVER;
	r->guest = s->config.guest;
	stage_guest(s, &r->vm, &r->guest);
	for (size_t i = 0; i < spec->vbd_count; i++)
		stage_vbd(&r->devices[i], &spec->vbds[i]);
	for (size_t i = 0; i < spec->vif_count; i++)
		stage_vif(&r->devices[spec->vbd_count + i], &spec->vifs[i]);
	return hyper_sim_guest_parse(&r->guest, spec->platform, e);
}

int sim_stage(struct sim_job *job, struct rv_error *e)
{
	struct hyper_req *req = job->req;

	switch (req->call) {
	case HYPER_CALL_CREATE:
	case HYPER_CALL_RESTORE:
		return stage_spec(job, e);
	case HYPER_CALL_ATTACH_VBD:
		stage_vbd(&job->device, req->in.vbd);
		return 0;
	case HYPER_CALL_ATTACH_VIF:
		stage_vif(&job->device, req->in.vif);
		return 0;
	default:
		return 0;
	}
}

/* --- create --- */

/* A repeated create: 0 with *again when the domain is there already. */
static int create_repeated(struct sim_job *job, bool *again, struct rv_error *e)
{
	const struct sim_record *r = &job->staged;
	struct sim_domain *d = sim_find_handle(job->sim, &r->handle);

	*again = false;
	if (d == NULL)
		return 0;
	if (d->holder != NULL)
		return rv_error_set(e, RV_EBUSY,
			"%s (domain %u) is being worked on; wait for that", d->r.name,
			d->r.domid);
	if (d->r.state == HYPER_BUILDING || d->r.state == HYPER_DYING)
		return rv_error_set(e, RV_ESTATE,
			"%s (domain %u) is half-made; destroy it first", d->r.name,
			d->r.domid);
	if (!uuid_eq(&d->r.vm, &r->vm) || d->r.generation != r->generation)
		return rv_error_set(e, RV_EEXIST,
			"the handle belongs to %s (domain %u) of another VM or owner "
			"generation",
			d->r.name, d->r.domid);
	job->domain = d;
	*again = true;
	return 0;
}

static int create_admit(struct sim_job *job, struct rv_error *e)
{
	struct sim *s = job->sim;
	uint64_t need_kib = job->boot_kib + job->staged.overhead_kib;
	uint64_t free_kib, claimed_kib;

	sim_balloons_run(s);
	free_kib = sim_free_kib(s);
	claimed_kib = sim_claimed_kib(s);
	if (need_kib > free_kib || need_kib > free_kib - claimed_kib)
		return rv_error_set(e, RV_EMEMORY,
			"%s needs %" PRIu64 " KiB (%" PRIu64
			" of it overhead), the host has %" PRIu64 " KiB free, %" PRIu64
			" of it claimed; make room or use another host",
			job->staged.name, need_kib, job->staged.overhead_kib, free_kib,
			claimed_kib);
	job->staged.claim_kib = need_kib;
	return sim_domain_add(s, &job->staged, &job->domain, e);
}

static void create_begin(struct sim_job *job)
{
	struct rv_error *e = &job->req->error;
	bool again;
	int rc;

	if (job->fault == HYPER_SIM_FAULT_ERROR) {
		sim_job_end(job,
			rv_error_set(e, RV_EHYPERVISOR,
				"simulated fault: %s could not be built; try it again",
				job->staged.name));
		return;
	}
	rc = create_repeated(job, &again, e);
	if (rc == 0 && again) {
		job->req->id = sim_id(job->domain);
		sim_job_done(job, RV_EOUTCOME);
		return;
	}
	if (rc == 0)
		rc = create_admit(job, e);
	if (rc != 0) {
		sim_job_end(job, rc);
		return;
	}
	job->domain->holder = job;
	job->phase = SIM_JOB_EFFECT;
	sim_job_wake(job, sim_latency_us(job));
}

static void create_complete(struct sim_job *job)
{
	struct sim_domain *d = job->domain;
	struct sim_record *r = &d->r;
	int64_t now_us = loop_now_us(job->sim->hyper.loop);

	r->claim_kib = 0;
	r->actual_kib = r->lowest_kib = job->boot_kib;
	r->content_seed = prng_next(&job->sim->prng);
	r->state = HYPER_PAUSED;
	r->stopped_us = now_us;
	r->introduced = 1;
	sim_set_model(r, &r->guest, now_us);
	sim_domain_store(d);
	job->req->id = sim_id(d);
	sim_domain_emit(d, HYPER_EV_INTRODUCED);
	sim_job_done(job, RV_EOUTCOME);
}

void sim_create_run(struct sim_job *job)
{
	if (job->phase == SIM_JOB_BEGIN) {
		create_begin(job);
	} else if (job->domain == NULL) {
		sim_job_end(
			job, rv_error_set(&job->req->error, RV_EHYPERVISOR,
				     "%s was destroyed while it was built; try it again",
				     job->staged.name));
	} else if (job->fault == HYPER_SIM_FAULT_CRASH) {
		job->req->id = sim_id(job->domain);
		sim_job_end(job,
			rv_error_set(&job->req->error, RV_EOUTCOME,
				"simulated fault: the helper that built %s died and left "
				"it half-made; destroy it",
				job->staged.name));
	} else {
		create_complete(job);
	}
}

/* --- destroy --- */

/* By its own rules: what is gone is no error. NULL: nothing to do. */
static int destroy_find(struct sim_job *job, struct sim_domain **out, struct rv_error *e)
{
	struct sim *s = job->sim;
	struct hyper_domain_id id = job->req->id;
	struct sim_domain *d;

	*out = NULL;
	if (!uuid_eq(&id.boot_id, &sim_machine_head(s->machine)->boot_id))
		return 0;
	d = sim_find_handle(s, &id.handle);
	if (d == NULL || (id.domid != HYPER_DOMID_ANY && d->r.domid != id.domid))
		return 0;
	id.domid = d->r.domid;
	return sim_find(s, &id, out, e);
}

static void destroy_begin(struct sim_job *job)
{
	struct rv_error *e = &job->req->error;
	struct sim_domain *d;
	int rc;

	if (job->fault == HYPER_SIM_FAULT_ERROR) {
		sim_job_end(job,
			rv_error_set(e, RV_EHYPERVISOR,
				"simulated fault: domain %u could not be destroyed; try "
				"it again",
				job->req->id.domid));
		return;
	}
	rc = destroy_find(job, &d, e);
	if (rc == 0 && d != NULL && d->holder != NULL)
		rc = rv_error_set(e, RV_EBUSY,
			"%s (domain %u) has a %s at work; cancel that first", d->r.name,
			d->r.domid, hyper_call_name(d->holder->req->call));
	if (rc != 0) {
		sim_job_end(job, rc);
		return;
	}
	job->phase = SIM_JOB_EFFECT;
	if (d != NULL) {
		job->domain = d;
		d->holder = job;
		sim_stop(&d->r, loop_now_us(job->sim->hyper.loop));
		d->r.state = HYPER_DYING;
		timer_stop(&d->life);
		sim_domain_store(d);
	}
	sim_job_wake(job, sim_latency_us(job));
}

void sim_destroy_run(struct sim_job *job)
{
	struct sim *s = job->sim;
	struct hyper_event event = {.kind = HYPER_EV_RELEASED};

	if (job->phase == SIM_JOB_BEGIN) {
		destroy_begin(job);
		return;
	}
	if (job->fault == HYPER_SIM_FAULT_CRASH) {
		sim_job_end(job,
			rv_error_set(&job->req->error, RV_ECHILD,
				"simulated fault: the helper that destroyed domain %u "
				"died; repeat it",
				job->req->id.domid));
		return;
	}
	if (job->domain != NULL) {
		sim_domain_describe(job->domain, &event.domain);
		sim_domain_remove(job->domain);
		hyper_emit(&s->hyper, &event);
		sim_balloons_run(s); /* somebody may have waited for that memory */
	}
	sim_job_done(job, RV_EHYPERVISOR);
}

/* --- one step --- */

static int wrong_state(const struct sim_domain *d, struct rv_error *e, const char *what)
{
	return rv_error_set(e, RV_ESTATE, "%s (domain %u) is %s%s%s: %s", d->r.name,
		d->r.domid, hyper_state_name(d->r.state),
		d->r.state == HYPER_SHUTDOWN ? ", reason " : "",
		d->r.state == HYPER_SHUTDOWN ? hyper_reason_name(d->r.reason) : "", what);
}

static int effect_pause(struct sim_domain *d, struct rv_error *e)
{
	if (d->r.state == HYPER_PAUSED)
		return 0;
	if (d->r.state != HYPER_RUNNING)
		return wrong_state(d, e, "only a running one can be paused");
	sim_stop(&d->r, loop_now_us(d->sim->hyper.loop));
	d->r.state = HYPER_PAUSED;
	return 0;
}

/* Xen counts pauses: without a question whether it may run, one unpause undoes one. */
static int effect_unpause(
	struct sim_domain *d, const struct hyper_req *req, struct rv_error *e)
{
	int rc;

	if (d->r.state == HYPER_RUNNING)
		return 0;
	if (d->r.state != HYPER_PAUSED)
		return wrong_state(d, e, "only a paused one can be unpaused");
	if (req->in.may_run.fn) {
		rc = req->in.may_run.fn(req->in.may_run.arg, e);
		if (rc)
			return rc;
	} else if (d->r.fenced) {
		return wrong_state(d, e, "it was paused to be ended");
	}
	d->r.fenced = 0;
	sim_run(&d->r, loop_now_us(d->sim->hyper.loop));
	return 0;
}

static int effect_resume(struct sim_domain *d, struct rv_error *e)
{
	if (d->r.state == HYPER_RUNNING)
		return 0;
	if (d->r.state != HYPER_SHUTDOWN || d->r.reason != HYPER_REASON_SUSPEND)
		return wrong_state(d, e, "only a suspended one can be resumed");
	sim_run(&d->r, loop_now_us(d->sim->hyper.loop));
	if (d->r.fenced) {
		sim_stop(&d->r, loop_now_us(d->sim->hyper.loop));
		d->r.state = HYPER_PAUSED;
	}
	return 0;
}

static int effect_shutdown(
	struct sim_domain *d, enum hyper_reason reason, struct rv_error *e)
{
	if (reason != HYPER_REASON_POWEROFF && reason != HYPER_REASON_REBOOT &&
		reason != HYPER_REASON_SUSPEND)
		return rv_error_set(e, RV_EINVAL, "%s: a guest can't be asked for '%s'",
			d->r.name, hyper_reason_name(reason));
	if (d->r.state != HYPER_RUNNING)
		return wrong_state(d, e, "only a running one can be asked to end");
	sim_ask(&d->r, reason, loop_now_us(d->sim->hyper.loop));
	return 0;
}

static int effect_target(struct sim_domain *d, uint64_t kib, struct rv_error *e)
{
	if (d->r.state == HYPER_BUILDING || d->r.state == HYPER_DYING)
		return wrong_state(d, e, "its memory target can't be set");
	if (kib < SIM_PAGE_KIB || kib > d->r.static_max_kib)
		return rv_error_set(e, RV_EINVAL,
			"%s (domain %u): a target of %" PRIu64
			" KiB is not between 4 KiB and its static maximum of %" PRIu64
			" KiB",
			d->r.name, d->r.domid, kib, d->r.static_max_kib);
	sim_balloons_run(d->sim); /* so far towards the old one */
	sim_balloon_target(&d->r, kib / SIM_PAGE_KIB * SIM_PAGE_KIB);
	return 0;
}

static int effect_maxmem(struct sim_domain *d, uint64_t kib, struct rv_error *e)
{
	if (d->r.state == HYPER_BUILDING || d->r.state == HYPER_DYING)
		return wrong_state(d, e, "its memory limit can't be set");
	if (kib < SIM_PAGE_KIB)
		return rv_error_set(e, RV_EINVAL,
			"%s (domain %u): a memory limit of %" PRIu64 " KiB", d->r.name,
			d->r.domid, kib);
	sim_balloons_run(d->sim);
	d->r.maxmem_kib = kib;
	return 0;
}

static struct sim_device *device_find(struct sim_domain *d, bool is_vif, uint64_t devid)
{
	for (size_t i = 0; i < SIM_MAX_DEVICES; i++) {
		struct sim_device *device = &d->r.devices[i];

		if (device->used && device->is_vif == is_vif && device->devid == devid)
			return device;
	}
	return NULL;
}

static int effect_attach(
	struct sim_domain *d, const struct sim_device *device, struct rv_error *e)
{
	const char *what = device->is_vif ? "interface" : "disk";
	struct sim_device *there = device_find(d, device->is_vif, device->devid);
	size_t count = 0;

	if (d->r.state != HYPER_RUNNING && d->r.state != HYPER_PAUSED)
		return wrong_state(d, e, "no device can be attached");
	if (there != NULL && there->params == device->params)
		return 0;
	if (there != NULL)
		return rv_error_set(e, RV_EEXIST,
			"%s (domain %u) has another %s as device %" PRIu64
			"; detach that first",
			d->r.name, d->r.domid, what, device->devid);
	for (size_t i = 0; i < SIM_MAX_DEVICES; i++) {
		if (!d->r.devices[i].used)
			there = &d->r.devices[i];
		else
			count += d->r.devices[i].is_vif == device->is_vif;
	}
	if (there == NULL || count >= (device->is_vif ? HYPER_MAX_VIFS : HYPER_MAX_VBDS))
		return rv_error_set(e, RV_ELIMIT,
			"%s (domain %u) has its %zu %ss already; detach one", d->r.name,
			d->r.domid, count, what);
	*there = *device;
	return 0;
}

static int effect_detach(
	struct sim_domain *d, bool is_vif, uint32_t devid, struct rv_error *e)
{
	struct sim_device *there = device_find(d, is_vif, devid);

	if (d->r.state == HYPER_BUILDING)
		return wrong_state(d, e, "its devices are being made");
	if (there != NULL)
		memset(there, 0, sizeof *there);
	return 0;
}

/* What a create, restore, save or destroy at work does not bear. */
static bool disturbs(enum hyper_call call)
{
	return call != HYPER_CALL_SET_MAXMEM && call != HYPER_CALL_RELABEL;
}

int sim_effect(struct sim_job *job, struct rv_error *e)
{
	struct hyper_req *req = job->req;
	struct sim_domain *d;
	int rc = sim_find(job->sim, &req->id, &d, e);

	if (rc != 0)
		return rc;
	if (d->holder != NULL && disturbs(req->call))
		return rv_error_set(e, RV_EBUSY,
			"%s (domain %u) has a %s at work; wait for it or cancel it",
			d->r.name, d->r.domid, hyper_call_name(d->holder->req->call));
	switch (req->call) {
	case HYPER_CALL_PAUSE:
		rc = effect_pause(d, e);
		break;
	case HYPER_CALL_UNPAUSE:
		rc = effect_unpause(d, req, e);
		break;
	case HYPER_CALL_RESUME:
		rc = effect_resume(d, e);
		break;
	case HYPER_CALL_REQUEST_SHUTDOWN:
		rc = effect_shutdown(d, req->in.reason, e);
		break;
	case HYPER_CALL_SET_TARGET:
		rc = effect_target(d, req->in.kib, e);
		break;
	case HYPER_CALL_SET_MAXMEM:
		rc = effect_maxmem(d, req->in.kib, e);
		break;
	case HYPER_CALL_ATTACH_VBD:
	case HYPER_CALL_ATTACH_VIF:
		rc = effect_attach(d, &job->device, e);
		break;
	case HYPER_CALL_DETACH_VBD:
	case HYPER_CALL_DETACH_VIF:
		rc = effect_detach(
			d, req->call == HYPER_CALL_DETACH_VIF, req->in.devid, e);
		break;
	case HYPER_CALL_RELABEL:
		d->r.vm = req->in.label.vm;
		d->r.generation = req->in.label.generation;
		break;
	default:
		rc = rv_error_set(e, RV_EUNSUPPORTED, "the simulated driver has no '%s'",
			hyper_call_name(req->call));
	}
	if (rc != 0)
		return rc;
	job->domain = d;
	sim_domain_store(d);
	sim_domain_schedule(d);
	return 0;
}
