/* The domains of one host: what was ordered for them, and what they hold. */
#include "vm/vm_memory_internal.h"

#include <stdlib.h>

#include "base/log.h"

static void memory_send(struct memory_domain *d);
static void memory_looked(struct memory_domain *d);

static void memory_lost(const struct memory_domain *d)
{
	log_error("vm.memory", "domid=%u msg=\"the controller lost a domain\"", d->domid);
}

static struct memory_domain *memory_find(const struct vm_memory *m, uint32_t domid)
{
	return map_get(&m->domains, &domid, sizeof domid);
}

/* Domids are used again: by the handle, too. */
struct memory_domain *vm_memory_of(
	const struct vm_memory *m, const struct hyper_domain_id *id)
{
	struct memory_domain *d = memory_find(m, id->domid);

	return d && uuid_eq(&d->id.handle, &id->handle) ? d : NULL;
}

/* --- domains --- */

void vm_memory_domain_free(struct memory_domain *d)
{
	timer_stop(&d->retry);
	timer_stop(&d->deadline);
	list_remove(&d->node);
	free(d);
}

/* What it holds, or is set to, has to be asked for: memctl counts the worse until then.
 */
static bool memory_unread(const struct memory_domain *d)
{
	return d->unknown || d->lowered || d->failed;
}

/* Its maxmem is in place, and what it holds was read after that. */
static void memory_limit_holds(struct memory_domain *d)
{
	if (memctl_domain_limited(d->memory->ctl, d->domid, d->maxmem_kib))
		memory_lost(d);
	defer_start(&d->memory->step);
}

/* Raised, nothing became free; lowered, it may have grown until now. */
static void memory_limited(struct memory_domain *d)
{
	d->lowered = !d->maxmem_known || d->sent_kib < d->maxmem_kib;
	d->maxmem_kib = d->sent_kib;
	d->maxmem_known = true;
	if (!d->lowered && memctl_domain_limited(d->memory->ctl, d->domid, d->sent_kib))
		memory_lost(d);
}

static void memory_answered(void *arg, struct hyper_req *req)
{
	struct memory_domain *d = arg;

	timer_stop(&d->deadline);
	if (d->gone) {
		vm_memory_domain_free(d);
		return;
	}
	if (req->call == HYPER_CALL_INFO) {
		memory_looked(d);
		return;
	}
	if (req->rc == 0) {
		if (d->sent_is_target) {
			d->target_kib = d->sent_kib;
			d->target_known = true;
		} else {
			memory_limited(d);
		}
		d->put_back = d->put_back && (d->target_due || d->maxmem_due);
		if (d->lowered)
			vm_memory_look(d);
		else
			memory_send(d);
		return;
	}
	if (req->rc == RV_ENOENT || req->rc == RV_ESTALE)
		return; /* its release is on the way */
	log_warn("vm.memory", "domid=%u call=%s rc=%s msg=\"%s\"", d->domid,
		hyper_call_name(req->call), rv_error_symbol(req->rc), req->error.detail);
	if (d->sent_is_target)
		d->target_known = false;
	else
		d->maxmem_known = false;
	d->failed = true;
	timer_start_ms(&d->retry, MEMORY_RETRY_MS);
}

void vm_memory_look(struct memory_domain *d)
{
	timer_start_ms(&d->deadline, MEMORY_ANSWER_MS);
	hyper_info(d->memory->hyper, &d->req, &d->id);
}

/* Frozen, it is as it was for good. */
static bool memory_may_change(const struct memory_domain *d)
{
	struct memctl_view v;

	return memctl_domain_get(d->memory->ctl, d->domid, &v) == 0 &&
	       v.d.mode != MEMCTL_FROZEN;
}

/* What the failed order, or another one before it, has left. The controller orders anew
 * what it should be, so nothing of before is due any more. */
static void memory_failed(struct memory_domain *d, const struct hyper_domain *now)
{
	d->failed = false;
	if (now->target_kib > 0) {
		d->target_kib = now->target_kib;
		d->target_known = true;
	}
	d->maxmem_kib = now->maxmem_kib;
	d->maxmem_known = true;
	d->put_back = d->put_back && memory_may_change(d);
	d->target_due = d->put_back && d->want_target_kib != d->target_kib;
	d->maxmem_due = d->put_back && d->want_maxmem_kib != d->maxmem_kib;
	if (d->put_back) {
		d->put_back = d->target_due || d->maxmem_due;
		/* The controller may have ordered a limit of its own meanwhile. */
		if (!d->maxmem_due)
			memory_limit_holds(d);
		return;
	}
	if (memctl_domain_found(d->memory->ctl, d->domid, d->target_kib, d->maxmem_kib))
		memory_lost(d);
	defer_start(&d->memory->step);
}

static void memory_retry(void *arg)
{
	struct memory_domain *d = arg;

	if (!hyper_req_busy(&d->req))
		vm_memory_look(d);
}

static void memory_late(void *arg)
{
	struct memory_domain *d = arg;

	hyper_cancel(&d->req);
}

/* Growing: maxmem first; shrinking: target first. */
static void memory_send(struct memory_domain *d)
{
	bool maxmem_first = d->want_maxmem_kib > d->maxmem_kib;

	if (hyper_req_busy(&d->req) || timer_active(&d->retry))
		return;
	if (d->maxmem_due && (maxmem_first || !d->target_due)) {
		d->maxmem_due = false;
		d->sent_is_target = false;
		d->sent_kib = d->want_maxmem_kib;
		timer_start_ms(&d->deadline, MEMORY_ANSWER_MS);
		hyper_set_maxmem(d->memory->hyper, &d->req, &d->id, d->sent_kib);
	} else if (d->target_due) {
		d->target_due = false;
		d->sent_is_target = true;
		d->sent_kib = d->want_target_kib;
		timer_start_ms(&d->deadline, MEMORY_ANSWER_MS);
		hyper_set_target(d->memory->hyper, &d->req, &d->id, d->sent_kib);
	}
}

/* Takes it out of the books; returns what it held. */
static uint64_t memory_forget(struct vm_memory *m, struct memory_domain *d)
{
	uint64_t held_kib = d->held_kib;

	map_remove(&m->domains, &d->domid, sizeof d->domid);
	memctl_domain_remove(m->ctl, d->domid);
	timer_stop(&d->retry);
	if (d->kept)
		m->building--;
	if (d->unknown)
		m->building--;
	if (hyper_req_busy(&d->req)) {
		d->gone = true;
		list_push_back(&m->leaving, &d->node);
	} else {
		vm_memory_domain_free(d);
	}
	return held_kib;
}

int vm_memory_add(struct vm_memory *m, const struct hyper_domain_id *id,
	const struct memctl_domain *spec, uint64_t overhead_kib, struct vm_reservation *r,
	struct rv_error *e)
{
	struct memory_domain *d = memory_find(m, spec->domid);
	int rc;

	if (!r && d && uuid_eq(&d->id.handle, &id->handle))
		return 0;
	d = calloc(1, sizeof *d);
	if (!d)
		return rv_error_set(e, RV_ENOMEM, "no memory to manage a domain's");
	d->memory = m;
	d->domid = spec->domid;
	d->id = *id;
	d->overhead_kib = overhead_kib;
	d->held_kib = spec->actual_kib + overhead_kib;
	d->target_kib = spec->target_kib;
	d->maxmem_kib = spec->maxmem_kib;
	list_init(&d->node);
	hyper_req_init(&d->req, memory_answered, d);
	timer_init(&d->retry, m->loop, "vm.memory.retry", memory_retry, d);
	timer_init(&d->deadline, m->loop, "vm.memory.deadline", memory_late, d);
	rc = memctl_domain_add(m->ctl, spec, r ? &r->owner : NULL, e);
	if (rc)
		goto out;
	rc = map_add(&m->domains, &d->domid, sizeof d->domid, d);
	if (rc) {
		memctl_domain_remove(m->ctl, spec->domid);
		rv_error_set(e, rc, "no memory to manage a domain's");
		goto out;
	}
	if (r) {
		/* It passed on to the domain: nothing is left to release. */
		r->held = false;
		map_remove(&m->reservations, &r->owner, sizeof r->owner);
		vm_memory_release(r);
		vm_memory_book(m, vm_memory_less(m->free_kib, d->held_kib));
		vm_memory_resync(m);
	}
	defer_start(&m->step);
	return 0;
out:
	vm_memory_domain_free(d);
	return rc;
}

void vm_memory_gone(struct vm_memory *m, const struct hyper_domain_id *id)
{
	struct memory_domain *d = vm_memory_of(m, id);

	if (!d)
		return;
	vm_memory_book(m, m->free_kib + memory_forget(m, d));
	vm_memory_resync(m);
}

/* While it is kept the hypervisor's free pages are not taken over: those of the dead
 * domain would be among them. */
void vm_memory_keep(struct vm_memory *m, const struct hyper_domain_id *id)
{
	struct memory_domain *d = vm_memory_of(m, id);

	if (!d || d->kept)
		return;
	d->kept = true;
	m->building++;
}

/* Until the answer the hypervisor's free pages are not taken over: those that the guest
 * may still take up to its target would be among them. */
void vm_memory_restored(struct vm_memory *m, const struct hyper_domain_id *id)
{
	struct memory_domain *d = vm_memory_of(m, id);

	if (!d || d->unknown || hyper_req_busy(&d->req))
		return;
	d->unknown = true;
	m->building++;
	vm_memory_look(d);
}

void vm_memory_mode(
	struct vm_memory *m, const struct hyper_domain_id *id, enum memctl_mode mode)
{
	if (vm_memory_of(m, id) &&
		memctl_domain_mode(m->ctl, loop_now_us(m->loop), id->domid, mode) == 0)
		defer_start(&m->step);
}

void vm_memory_up(struct vm_memory *m, const struct hyper_domain_id *id)
{
	if (vm_memory_of(m, id) &&
		memctl_domain_ready(m->ctl, loop_now_us(m->loop), id->domid) == 0)
		defer_start(&m->step);
}

uint64_t vm_memory_ordered_kib(
	const struct vm_memory *m, const struct hyper_domain_id *id)
{
	struct memory_domain *d = vm_memory_of(m, id);
	uint64_t kib = d ? d->target_kib : 0;

	if (d && (hyper_req_busy(&d->req) || d->failed) && d->sent_is_target &&
		d->sent_kib > kib)
		kib = d->sent_kib;
	if (d && d->target_due && d->want_target_kib > kib)
		kib = d->want_target_kib;
	return kib;
}

int vm_memory_range(struct vm_memory *m, const struct hyper_domain_id *id,
	uint64_t dynamic_min_kib, uint64_t dynamic_max_kib, struct rv_error *e)
{
	int rc;

	if (!vm_memory_of(m, id))
		return rv_error_set(
			e, RV_ENOENT, "domain %u is not there any more", id->domid);
	rc = memctl_domain_range(m->ctl, id->domid, dynamic_min_kib, dynamic_max_kib, e);
	if (rc == 0)
		defer_start(&m->step);
	return rc;
}

/* --- events --- */

/* What it holds at this moment; false: the controller does not know it. */
static bool memory_holds(struct memory_domain *d, const struct hyper_domain *now)
{
	struct vm_memory *m = d->memory;

	vm_memory_book(m, vm_memory_less(m->free_kib + d->held_kib,
				  now->actual_kib + d->overhead_kib));
	d->held_kib = now->actual_kib + d->overhead_kib;
	if (d->unknown) {
		d->unknown = false;
		m->building--;
	}
	if (memctl_domain_actual(
		    m->ctl, loop_now_us(m->loop), d->domid, now->actual_kib) ||
		memctl_domain_pod(m->ctl, d->domid, now->pod_kib))
		return false;
	vm_memory_resync(m);
	return true;
}

static void memory_looked(struct memory_domain *d)
{
	const struct hyper_req *req = &d->req;

	if (req->rc == RV_ENOENT || req->rc == RV_ESTALE)
		return; /* its release is on the way */
	if (req->rc) {
		log_warn("vm.memory", "domid=%u rc=%s msg=\"what it holds: %s\"",
			d->domid, rv_error_symbol(req->rc), req->error.detail);
		if (memory_unread(d))
			timer_start_ms(&d->retry, MEMORY_RETRY_MS);
		else
			memory_send(d);
		return;
	}
	/* Its own event may have told in the meantime, and is newer. */
	if (memory_unread(d) && !memory_holds(d, &req->domain))
		memory_lost(d);
	if (d->lowered) {
		d->lowered = false;
		memory_limit_holds(d);
	}
	if (d->failed)
		memory_failed(d, &req->domain);
	else
		vm_memory_compare(d, &req->domain);
	memory_send(d);
}

void vm_memory_event(void *arg, const struct hyper_event *event)
{
	struct vm_memory *m = arg;
	const struct hyper_domain *now = &event->domain;
	struct memory_domain *d;

	if (event->kind == HYPER_EV_STORED_LOST || event->kind == HYPER_EV_STORED_BACK)
		return;
	d = memory_find(m, now->id.domid);
	if (!d || !uuid_eq(&d->id.handle, &now->id.handle)) {
		/* Another tool's, or one being built: only the sum matters. */
		vm_memory_resync(m);
		return;
	}
	switch (event->kind) {
	case HYPER_EV_RELEASED:
		if (!d->kept)
			vm_memory_gone(m, &d->id);
		return;
	case HYPER_EV_BALLOON:
		if (!memory_holds(d, now))
			break;
		vm_memory_seen(m, now);
		return;
	case HYPER_EV_FEATURES:
		if (now->can_balloon || now->is_up)
			vm_memory_up(m, &d->id);
		return;
	case HYPER_EV_SHUTDOWN:
		vm_memory_mode(m, &d->id, MEMCTL_FROZEN);
		return;
	default:
		return;
	}
	memory_lost(d);
}

/* --- orders --- */

void vm_memory_order(struct vm_memory *m, const struct memctl_action *a)
{
	struct memory_domain *d = memory_find(m, a->domid);

	if (!d)
		return;
	if (a->what == MEMCTL_SET_TARGET) {
		d->want_target_kib = a->kib;
		d->target_due = true;
	} else {
		d->want_maxmem_kib = a->kib;
		d->maxmem_due = true;
	}
	memory_send(d);
}