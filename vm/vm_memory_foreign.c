/*
 *	a look or a moving guest shows another value ──► hyper_info, when no order of ours
 *	is at work ──► still another one: ours again, and told
 *
 * What nobody has set here yet, or an order that failed may have set, is taken as it is
 * found: there is nothing to compare it with.
 */
#include "vm/vm_memory_internal.h"

#include "base/log.h"

enum {
	FOREIGN_PAGE_KIB = 4, /* drivers round to pages */
};
#define FOREIGN_AGAIN_US (INT64_C(3600) * 1000 * 1000) /* until it is told again */

static bool foreign_differs(uint64_t set_kib, uint64_t now_kib)
{
	return set_kib >= now_kib + FOREIGN_PAGE_KIB ||
	       now_kib >= set_kib + FOREIGN_PAGE_KIB;
}

/* Ours to compare: nothing is on the way to it, and Reeve may change it. */
static bool foreign_comparable(const struct memory_domain *d)
{
	struct memctl_view v;

	return !d->gone && !d->kept && !d->unknown && !d->target_due && !d->maxmem_due &&
	       !hyper_req_busy(&d->req) && !timer_active(&d->retry) &&
	       memctl_domain_get(d->memory->ctl, d->domid, &v) == 0 &&
	       (v.d.mode == MEMCTL_RUNNING || v.d.mode == MEMCTL_PAUSED);
}

void vm_memory_seen(struct vm_memory *m, const struct hyper_domain *now)
{
	struct memory_domain *d = vm_memory_of(m, &now->id);

	if (!d || now->target_kib == 0 || !foreign_comparable(d))
		return;
	/* What was seen may be older than our last order: asked for anew. */
	if (!d->target_known || !d->maxmem_known ||
		foreign_differs(d->target_kib, now->target_kib) ||
		foreign_differs(d->maxmem_kib, now->maxmem_kib))
		vm_memory_look(d);
}

static void foreign_tell(struct memory_domain *d, const struct memctl_view *v,
	const struct hyper_domain *now)
{
	struct vm_memory *m = d->memory;
	struct vm_memory_foreign f = {
		.domid = d->domid,
		.vm = v->d.vm,
		.found_target_kib = now->target_kib,
		.found_maxmem_kib = now->maxmem_kib,
		.set_target_kib = d->want_target_kib,
		.set_maxmem_kib = d->want_maxmem_kib,
	};
	int64_t at = loop_now_us(m->loop);

	if (d->foreign_told && at - d->foreign_us < FOREIGN_AGAIN_US)
		return;
	d->foreign_told = true;
	d->foreign_us = at;
	if (m->foreign)
		m->foreign(m->arg, &f);
}

void vm_memory_compare(struct memory_domain *d, const struct hyper_domain *now)
{
	struct vm_memory *m = d->memory;
	bool target, maxmem;
	struct memctl_view v;

	if (now->target_kib == 0 || !foreign_comparable(d) ||
		memctl_domain_get(m->ctl, d->domid, &v))
		return;
	target = foreign_differs(d->target_kib, now->target_kib);
	maxmem = foreign_differs(d->maxmem_kib, now->maxmem_kib);
	if ((target && !d->target_known) || (maxmem && !d->maxmem_known)) {
		d->target_kib = target ? now->target_kib : d->target_kib;
		d->maxmem_kib = maxmem ? now->maxmem_kib : d->maxmem_kib;
		if (memctl_domain_found(m->ctl, d->domid, d->target_kib, d->maxmem_kib) ==
			0)
			defer_start(&m->step);
		target = maxmem = false;
	}
	d->target_known = d->maxmem_known = true;
	if (!target && !maxmem)
		return;
	log_warn("vm.memory",
		"domid=%u msg=\"changed by another tool\" target_kib=%llu "
		"maxmem_kib=%llu "
		"again_target_kib=%llu again_maxmem_kib=%llu",
		d->domid, (unsigned long long)now->target_kib,
		(unsigned long long)now->maxmem_kib, (unsigned long long)d->target_kib,
		(unsigned long long)d->maxmem_kib);
	d->want_target_kib = d->target_kib;
	d->want_maxmem_kib = d->maxmem_kib;
	d->target_kib = now->target_kib;
	d->maxmem_kib = now->maxmem_kib;
	d->target_due = target;
	d->maxmem_due = maxmem;
	d->put_back = true;
	foreign_tell(d, &v, now);
}
