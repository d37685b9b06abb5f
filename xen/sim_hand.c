#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "xen/sim_driver.h"

enum { LATE_DEFAULT_US = 30 * 1000 * 1000 };

void hyper_sim_inject(struct hyper *h, enum hyper_call call, enum hyper_sim_fault fault,
	uint32_t count, int64_t delay_us)
{
	struct sim_injection *in = &sim_of(h)->injections[call];

	in->fault = fault;
	in->count = count;
	in->late_us = delay_us > 0 ? delay_us : LATE_DEFAULT_US;
}

uint64_t hyper_sim_faults_fired(const struct hyper *h, enum hyper_sim_fault fault)
{
	return sim_of(h)->faults_fired[fault];
}

int hyper_sim_set_guest(
	struct hyper *h, const struct uuid *vm, const struct hyper_sim_guest *g)
{
	struct sim *s = sim_of(h);
	struct sim_override *found = NULL;

	LIST_FOR_EACH (node, &s->overrides) {
		struct sim_override *o = CONTAINER_OF(node, struct sim_override, node);

		if (uuid_eq(&o->vm, vm))
			found = o;
	}
	if (found == NULL) {
		found = calloc(1, sizeof *found);
		if (found == NULL)
			return RV_ENOMEM;
		found->vm = *vm;
		list_push_back(&s->overrides, &found->node);
	}
	found->guest = *g;
	sim_balloons_run(s);
	SIM_FOR_EACH_DOMAIN(d, s)
	{
		if (!uuid_eq(&d->r.vm, vm) || d->r.state == HYPER_BUILDING)
			continue;
		sim_set_model(&d->r, g, loop_now_us(h->loop));
		sim_domain_store(d);
		sim_domain_schedule(d);
	}
	return 0;
}

int hyper_sim_end_guest(struct hyper *h, const struct uuid *vm, enum hyper_reason reason)
{
	struct sim_domain *d = sim_find_vm(sim_of(h), vm);

	if (d == NULL)
		return RV_ENOENT;
	if (d->r.state != HYPER_RUNNING || reason == HYPER_REASON_NONE)
		return RV_ESTATE;
	d->r.script.at_ran_us = sim_ran_us(&d->r, loop_now_us(h->loop));
	d->r.script.reason = reason;
	sim_domain_store(d);
	sim_domain_schedule(d);
	return 0;
}

int hyper_sim_make_ghost(struct hyper *h, const char *name, uint64_t memory_kib,
	struct hyper_domain_id *id)
{
	struct sim *s = sim_of(h);
	int64_t now_us = loop_now_us(h->loop);
	struct sim_record r;
	struct sim_domain *d;
	int rc;

	memset(&r, 0, sizeof r);
	snprintf(r.name, sizeof r.name, "%s", name);
	r.handle = uuid_random(&s->prng);
	r.type = HYPER_PVH;
	r.vcpus_max = r.vcpus_online = 1;
	r.static_max_kib = memory_kib / SIM_PAGE_KIB * SIM_PAGE_KIB;
	r.actual_kib = r.target_kib = r.maxmem_kib = r.lowest_kib = r.static_max_kib;
	r.overhead_kib = hyper_xen_overhead_kib(r.type, 1, r.static_max_kib);
	if (r.actual_kib + r.overhead_kib + sim_claimed_kib(s) > sim_free_kib(s))
		return RV_EMEMORY;
	r.content_seed = prng_next(&s->prng);
	r.asked.at_ran_us = SIM_NEVER;
	sim_set_model(&r, &s->config.guest, now_us);
	sim_run(&r, now_us);
	rc = sim_domain_add(s, &r, &d, NULL);
	if (rc != 0)
		return rc;
	if (id != NULL)
		*id = sim_id(d);
	timer_start_us(&d->life, 0); /* tells of it, then lives as the others do */
	return 0;
}

int hyper_sim_destroy_behind(struct hyper *h, uint32_t domid)
{
	SIM_FOR_EACH_DOMAIN(d, sim_of(h))
	{
		if (d->r.domid != domid)
			continue;
		d->condemned = true;
		timer_start_us(&d->life, 0);
		return 0;
	}
	return RV_ENOENT;
}

void hyper_sim_fence_tell(struct hyper *h)
{
	struct sim *s = sim_of(h);

	if (timer_active(&s->tell)) {
		timer_stop(&s->tell);
		s->tell.fn(s);
	}
}

/* Also one that stands still: whoever lets it go on undoes only his own pause. */
static void sim_fence(struct sim_record *r, int64_t now_us)
{
	r->fenced = 1;
	if (r->state != HYPER_RUNNING)
		return;
	sim_stop(r, now_us);
	r->state = HYPER_PAUSED;
}

static void fence_record(struct hyper_sim_machine *m, uint32_t domid,
	const struct uuid *handle, bool destroy, int64_t now_us)
{
	struct sim_record r;

	for (uint32_t slot = 0; slot < HYPER_MAX_DOMAINS; slot++) {
		if (!sim_machine_load(m, slot, &r) || r.domid != domid ||
			!uuid_eq(&r.handle, handle))
			continue;
		sim_fence(&r, now_us);
		r.in_use = !destroy;
		sim_machine_store(m, slot, &r);
		return;
	}
}

void hyper_sim_fence(struct hyper_sim_machine *m, struct hyper *h, uint32_t domid,
	const struct uuid *handle, bool destroy, int64_t now_us)
{
	struct sim_domain *d = h != NULL ? sim_find_handle(sim_of(h), handle) : NULL;

	if (h == NULL) {
		fence_record(m, domid, handle, destroy, now_us);
		return;
	}
	if (d == NULL || d->r.domid != domid)
		return;
	sim_fence(&d->r, now_us);
	sim_domain_store(d);
	sim_domain_schedule(d);
	if (destroy)
		sim_domain_fence(d);
}

void hyper_sim_set_stored(struct hyper *h, bool up)
{
	struct sim *s = sim_of(h);

	if (s->stored_down == !up)
		return;
	s->stored_down = !up;
	timer_start_us(&s->stored, 0);
}

int hyper_sim_look(struct hyper *h, const struct uuid *vm, struct hyper_sim_view *view)
{
	struct sim_domain *d = sim_find_vm(sim_of(h), vm);
	int64_t now_us = loop_now_us(h->loop);

	memset(view, 0, sizeof *view);
	if (d == NULL)
		return RV_ENOENT;
	view->ran_us = sim_ran_us(&d->r, now_us);
	view->longest_gap_us = d->r.longest_gap_us;
	view->last_gap_us = d->r.last_gap_us;
	view->booted = sim_booted(&d->r, now_us);
	view->writes = sim_writes(&d->r, now_us);
	view->damaged_pages = d->r.damaged_pages;
	view->restores = (uint32_t)d->r.restores;
	return 0;
}

int hyper_sim_memory_hash(struct hyper *h, const struct uuid *vm, uint64_t *hash)
{
	struct sim *s = sim_of(h);
	struct sim_domain *d = sim_find_vm(s, vm);
	uint64_t writes;

	*hash = 0;
	if (d == NULL)
		return RV_ENOENT;
	writes = sim_writes(&d->r, loop_now_us(h->loop));
	*hash = XXH3_64bits(&d->r.damaged_pages, sizeof d->r.damaged_pages);
	for (uint64_t pfn = 0; pfn < d->r.actual_kib / SIM_PAGE_KIB; pfn++) {
		uint8_t page[SIM_PAGE];

		sim_page_fill(s->block, d->r.content_seed, pfn,
			sim_stamp(&d->r, pfn, writes), page);
		*hash = XXH3_64bits_withSeed(page, sizeof page, *hash);
	}
	return 0;
}

static int check_domain(struct sim_domain *d, struct rv_error *e)
{
	const struct sim_record *r = &d->r;

	if (r->actual_kib > r->static_max_kib || r->target_kib > r->static_max_kib)
		return rv_error_set(e, RV_EINTERNAL,
			"%s (domain %u) holds %" PRIu64 " KiB, target %" PRIu64
			", of a static maximum of %" PRIu64,
			r->name, r->domid, r->actual_kib, r->target_kib,
			r->static_max_kib);
	SIM_FOR_EACH_DOMAIN(other, d->sim)
	{
		if (other != d && (other->r.domid == r->domid ||
					  uuid_eq(&other->r.handle, &r->handle)))
			return rv_error_set(e, RV_EINTERNAL,
				"domains %u and %u share a domid or handle", r->domid,
				other->r.domid);
	}
	return 0;
}

int hyper_sim_check(struct hyper *h, struct rv_error *e)
{
	struct sim *s = sim_of(h);
	uint64_t used_kib = s->config.dom0_kib + sim_claimed_kib(s);

	SIM_FOR_EACH_DOMAIN(d, s)
	{
		int rc = check_domain(d, e);

		if (rc != 0)
			return rc;
		if (d->r.actual_kib > 0)
			used_kib += d->r.actual_kib + d->r.overhead_kib;
	}
	if (used_kib > s->config.memory_kib)
		return rv_error_set(e, RV_EINTERNAL,
			"the host gave away %" PRIu64 " KiB and has %" PRIu64, used_kib,
			s->config.memory_kib);
	return 0;
}
