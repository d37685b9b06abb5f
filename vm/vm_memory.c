/*
 *	events ──► book of free memory ──► memctl_step ──► per domain: at most one
 *	           and of domains          (defer, timer)   hypercall at work, the
 *	                                        │           latest order waits
 *	reserve ────────────────────────────────┴──► grant, refuse: answered by defer
 */
#include "vm/vm_memory.h"

#include <assert.h>
#include <stdlib.h>

#include "base/log.h"

enum {
	MEMORY_RETRY_MS = 1000, /* until a failed order is given again */
	MEMORY_ANSWER_MS = 30 * 1000,
	/* The operations have deadlines of their own and always release. */
	MEMORY_HOLD_US = 1000000,
};
#define MEMORY_HOLD (INT64_C(24) * 3600 * MEMORY_HOLD_US)

/* What was ordered for a domain, and what is known to be set. */
struct memory_domain {
	struct vm_memory *memory;
	uint32_t domid; /* the map's key */
	struct hyper_domain_id id;
	uint64_t held_kib; /* booked as not free: actual + overhead */
	uint64_t overhead_kib;
	uint64_t target_kib, maxmem_kib; /* as last carried out */
	uint64_t want_target_kib, want_maxmem_kib;
	uint64_t sent_kib;
	bool target_due, maxmem_due, sent_is_target;
	struct list node; /* of those that are gone but for an unanswered request */
	bool gone, kept;
	bool unknown; /* restored: booked with its target, it may hold less */
	struct hyper_req req;
	struct timer retry, deadline;
};

struct vm_memory {
	struct loop *loop;
	struct hyper *hyper;
	struct memctl *ctl;
	vm_memory_notify_fn *notify;
	void *arg;
	struct hyper_listener listener;
	struct map domains, reservations;
	struct list leaving;
	struct defer step;
	struct timer next;
	struct hyper_req host;
	struct timer host_retry, host_deadline;
	uint64_t free_kib, total_kib;
	uint64_t epoch, host_epoch; /* of the book: an older measurement is dropped */
	unsigned building;
	bool ready, resync;
};

static void memory_step(void *arg);
static void memory_resync(struct vm_memory *m);
static void memory_send(struct memory_domain *d);
static void memory_looked(struct memory_domain *d);

static struct memory_domain *memory_find(const struct vm_memory *m, uint32_t domid)
{
	return map_get(&m->domains, &domid, sizeof domid);
}

/* Domids are used again: by the handle, too. */
static struct memory_domain *memory_of(
	const struct vm_memory *m, const struct hyper_domain_id *id)
{
	struct memory_domain *d = memory_find(m, id->domid);

	return d && uuid_eq(&d->id.handle, &id->handle) ? d : NULL;
}

static void memory_book(struct vm_memory *m, uint64_t free_kib)
{
	m->free_kib = free_kib;
	m->epoch++;
	memctl_host_free(m->ctl, free_kib);
	defer_start(&m->step);
}

static uint64_t memory_less(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* --- domains --- */

static void memory_domain_free(struct memory_domain *d)
{
	timer_stop(&d->retry);
	timer_stop(&d->deadline);
	list_remove(&d->node);
	free(d);
}

static void memory_answered(void *arg, struct hyper_req *req)
{
	struct memory_domain *d = arg;

	timer_stop(&d->deadline);
	if (d->gone) {
		memory_domain_free(d);
		return;
	}
	if (req->call == HYPER_CALL_INFO) {
		memory_looked(d);
		return;
	}
	if (req->rc == 0) {
		if (d->sent_is_target)
			d->target_kib = d->sent_kib;
		else
			d->maxmem_kib = d->sent_kib;
		memory_send(d);
		return;
	}
	if (req->rc == RV_ENOENT || req->rc == RV_ESTALE)
		return; /* its release is on the way */
	log_warn("vm.memory", "domid=%u call=%s rc=%s msg=\"%s\"", d->domid,
		hyper_call_name(req->call), rv_error_symbol(req->rc), req->error.detail);
	timer_start_ms(&d->retry, MEMORY_RETRY_MS);
}

static void memory_look(struct memory_domain *d)
{
	timer_start_ms(&d->deadline, MEMORY_ANSWER_MS);
	hyper_info(d->memory->hyper, &d->req, &d->id);
}

static void memory_retry(void *arg)
{
	struct memory_domain *d = arg;

	if (d->unknown) {
		memory_look(d);
		return;
	}
	if (memctl_domain_found(d->memory->ctl, d->domid, d->target_kib, d->maxmem_kib))
		return;
	defer_start(&d->memory->step);
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
		memory_domain_free(d);
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
		memory_book(m, memory_less(m->free_kib, d->held_kib));
		memory_resync(m);
	}
	defer_start(&m->step);
	return 0;
out:
	memory_domain_free(d);
	return rc;
}

void vm_memory_gone(struct vm_memory *m, const struct hyper_domain_id *id)
{
	struct memory_domain *d = memory_of(m, id);

	if (!d)
		return;
	memory_book(m, m->free_kib + memory_forget(m, d));
	memory_resync(m);
}

/* While it is kept the hypervisor's free pages are not taken over: those of the dead
 * domain would be among them. */
void vm_memory_keep(struct vm_memory *m, const struct hyper_domain_id *id)
{
	struct memory_domain *d = memory_of(m, id);

	if (!d || d->kept)
		return;
	d->kept = true;
	m->building++;
}

/* Until the answer the hypervisor's free pages are not taken over: those that the guest
 * may still take up to its target would be among them. */
void vm_memory_restored(struct vm_memory *m, const struct hyper_domain_id *id)
{
	struct memory_domain *d = memory_of(m, id);

	if (!d || d->unknown || hyper_req_busy(&d->req))
		return;
	d->unknown = true;
	m->building++;
	memory_look(d);
}

void vm_memory_mode(
	struct vm_memory *m, const struct hyper_domain_id *id, enum memctl_mode mode)
{
	if (memory_of(m, id) &&
		memctl_domain_mode(m->ctl, loop_now_us(m->loop), id->domid, mode) == 0)
		defer_start(&m->step);
}

uint64_t vm_memory_ordered_kib(
	const struct vm_memory *m, const struct hyper_domain_id *id)
{
	struct memory_domain *d = memory_of(m, id);
	uint64_t kib = d ? d->target_kib : 0;

	if (d && hyper_req_busy(&d->req) && d->sent_is_target && d->sent_kib > kib)
		kib = d->sent_kib;
	if (d && d->target_due && d->want_target_kib > kib)
		kib = d->want_target_kib;
	return kib;
}

int vm_memory_range(struct vm_memory *m, const struct hyper_domain_id *id,
	uint64_t dynamic_min_kib, uint64_t dynamic_max_kib, struct rv_error *e)
{
	int rc;

	if (!memory_of(m, id))
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

	memory_book(m, memory_less(m->free_kib + d->held_kib,
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
	memory_resync(m);
	return true;
}

static void memory_lost(const struct memory_domain *d)
{
	log_error("vm.memory", "domid=%u msg=\"the controller lost a domain\"", d->domid);
}

static void memory_looked(struct memory_domain *d)
{
	const struct hyper_req *req = &d->req;

	if (req->rc == RV_ENOENT || req->rc == RV_ESTALE)
		return; /* its release is on the way */
	if (req->rc) {
		log_warn("vm.memory", "domid=%u rc=%s msg=\"what it holds: %s\"",
			d->domid, rv_error_symbol(req->rc), req->error.detail);
		timer_start_ms(&d->retry, MEMORY_RETRY_MS);
		return;
	}
	/* Its own event may have told in the meantime, and is newer. */
	if (d->unknown && !memory_holds(d, &req->domain))
		memory_lost(d);
	memory_send(d);
}

static void memory_event(void *arg, const struct hyper_event *event)
{
	struct vm_memory *m = arg;
	const struct hyper_domain *now = &event->domain;
	struct memory_domain *d;

	if (event->kind == HYPER_EV_STORED_LOST || event->kind == HYPER_EV_STORED_BACK)
		return;
	d = memory_find(m, now->id.domid);
	if (!d || !uuid_eq(&d->id.handle, &now->id.handle)) {
		/* Another tool's, or one being built: only the sum matters. */
		memory_resync(m);
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
		return;
	case HYPER_EV_FEATURES:
		if (now->can_balloon &&
			memctl_domain_ready(m->ctl, loop_now_us(m->loop), d->domid))
			break;
		defer_start(&m->step);
		return;
	case HYPER_EV_SHUTDOWN:
		vm_memory_mode(m, &d->id, MEMCTL_FROZEN);
		return;
	default:
		return;
	}
	memory_lost(d);
}

static void memory_measured(void *arg, struct hyper_req *req)
{
	struct vm_memory *m = arg;

	timer_stop(&m->host_deadline);
	if (req->rc) {
		log_warn("vm.memory", "rc=%s msg=\"free memory not known: %s\"",
			rv_error_symbol(req->rc), req->error.detail);
		timer_start_ms(&m->host_retry, MEMORY_RETRY_MS);
		return;
	}
	/* Booked meanwhile, or a build has begun: this figure may hold half of that. */
	if (m->building || m->epoch != m->host_epoch) {
		memory_resync(m);
		return;
	}
	m->total_kib = req->host->total_kib;
	if (m->free_kib != memory_less(req->host->free_kib, req->host->claimed_kib))
		memory_book(m, memory_less(req->host->free_kib, req->host->claimed_kib));
	if (m->resync) {
		m->resync = false;
		memory_resync(m);
	}
}

static void memory_measure_again(void *arg)
{
	memory_resync(arg);
}

static void memory_measure_late(void *arg)
{
	struct vm_memory *m = arg;

	hyper_cancel(&m->host);
}

static void memory_resync(struct vm_memory *m)
{
	if (!m->ready)
		return;
	if (m->building || hyper_req_busy(&m->host)) {
		m->resync = true;
		return;
	}
	m->resync = false;
	m->host_epoch = m->epoch;
	timer_start_ms(&m->host_deadline, MEMORY_ANSWER_MS);
	hyper_host(m->hyper, &m->host);
}

/* --- decisions --- */

static void memory_order(struct vm_memory *m, const struct memctl_action *a)
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

/* Answered from the loop: the actions are the controller's until the next call of it. */
static void memory_answer(struct vm_memory *m, const struct memctl_action *a)
{
	struct vm_reservation *r = map_get(&m->reservations, &a->owner, sizeof a->owner);

	if (!r)
		return;
	if (a->what == MEMCTL_GRANT) {
		r->granted = true;
	} else {
		r->held = r->granted = false;
		map_remove(&m->reservations, &r->owner, sizeof r->owner);
		r->rc = RV_EMEMORY;
		r->short_kib = a->what == MEMCTL_REFUSE ? a->kib : r->kib;
	}
	if (r->answer_due)
		defer_start(&r->answer);
}

static void memory_step(void *arg)
{
	struct vm_memory *m = arg;
	struct memctl_step s;
	int64_t now = loop_now_us(m->loop);

	if (!m->ready)
		return;
	s = memctl_step(m->ctl, now);
	for (size_t i = 0; i < s.count; i++) {
		const struct memctl_action *a = &s.actions[i];

		switch (a->what) {
		case MEMCTL_SET_MAXMEM:
		case MEMCTL_SET_TARGET:
			memory_order(m, a);
			break;
		case MEMCTL_GRANT:
		case MEMCTL_REFUSE:
		case MEMCTL_EXPIRE:
			memory_answer(m, a);
			break;
		default:
			if (m->notify)
				m->notify(m->arg, a);
		}
	}
	if (s.next_us == MEMCTL_NEVER)
		timer_stop(&m->next);
	else
		timer_start_us(&m->next, s.next_us > now ? s.next_us - now : 0);
}

static void memory_next(void *arg)
{
	memory_step(arg);
}

/* --- reservations --- */

static void memory_answer_later(void *arg)
{
	struct vm_reservation *r = arg;

	if (!r->answer_due)
		return;
	r->answer_due = false;
	r->fn(r->arg, r->token, r->rc, r->short_kib);
}

static int memory_ask(
	struct vm_memory *m, struct vm_reservation *r, bool adopt, struct rv_error *e)
{
	int64_t until = loop_now_us(m->loop) + MEMORY_HOLD;
	int rc = adopt ? memctl_adopt(m->ctl, &r->owner, r->kib, until, e)
		       : memctl_reserve(m->ctl, &r->owner, r->kib, until, e);

	if (rc)
		return rc;
	rc = map_add(&m->reservations, &r->owner, sizeof r->owner, r);
	if (rc) {
		memctl_release(m->ctl, &r->owner);
		return rv_error_set(e, rc, "no memory for a reservation");
	}
	r->held = true;
	r->granted = adopt;
	r->answer_due = true;
	if (adopt)
		defer_start(&r->answer);
	defer_start(&m->step);
	return 0;
}

static void memory_reservation_init(struct vm_memory *m, struct vm_reservation *r,
	const struct uuid *owner, uint64_t kib, vm_reserved_fn *fn, void *arg,
	uint64_t token)
{
	assert(!r->held && !r->answer_due);
	*r = (struct vm_reservation){.owner = *owner,
		.kib = kib,
		.fn = fn,
		.arg = arg,
		.token = token,
		.memory = m};
	defer_init(&r->answer, m->loop, "vm.memory.answer", memory_answer_later, r);
}

int vm_memory_reserve(struct vm_memory *m, struct vm_reservation *r,
	const struct uuid *owner, uint64_t kib, vm_reserved_fn *fn, void *arg,
	uint64_t token, struct rv_error *e)
{
	memory_reservation_init(m, r, owner, kib, fn, arg, token);
	return memory_ask(m, r, false, e);
}

int vm_memory_succeed(struct vm_memory *m, const struct hyper_domain_id *id,
	struct vm_reservation *r, const struct uuid *owner, uint64_t kib,
	vm_reserved_fn *fn, void *arg, uint64_t token, struct rv_error *e)
{
	struct memory_domain *d = memory_of(m, id);
	uint64_t held_kib = d ? d->held_kib : 0;

	memory_reservation_init(m, r, owner, kib, fn, arg, token);
	vm_memory_gone(m, id);
	/* No step between the two: what the old domain held is not up for grabs. */
	return memory_ask(m, r, held_kib >= kib, e);
}

void vm_memory_release(struct vm_reservation *r)
{
	struct vm_memory *m = r->memory;

	if (!m)
		return;
	r->answer_due = false;
	defer_stop(&r->answer);
	if (r->building) {
		r->building = false;
		m->building--;
		memory_resync(m);
	}
	if (r->held) {
		r->held = r->granted = false;
		map_remove(&m->reservations, &r->owner, sizeof r->owner);
		memctl_release(m->ctl, &r->owner);
		defer_start(&m->step);
	}
}

void vm_memory_abandon(struct vm_reservation *r)
{
	struct vm_memory *m = r->memory;

	if (m && r->building)
		memory_book(m, memory_less(m->free_kib, r->kib));
	vm_memory_release(r);
}

void vm_memory_build(struct vm_reservation *r)
{
	assert(r->granted && !r->building);
	r->building = true;
	r->memory->building++;
}

/* --- the whole --- */

int vm_memory_new(struct vm_memory **out, struct loop *l, struct hyper *hyper,
	const struct memctl_config *config, vm_memory_notify_fn *notify, void *arg)
{
	struct vm_memory *m = calloc(1, sizeof *m);

	*out = NULL;
	if (!m)
		return RV_ENOMEM;
	m->ctl = memctl_new(config);
	if (!m->ctl) {
		free(m);
		return RV_ENOMEM;
	}
	m->loop = l;
	m->hyper = hyper;
	m->notify = notify;
	m->arg = arg;
	list_init(&m->leaving);
	map_init(&m->domains, prng_next(loop_prng(l)));
	map_init(&m->reservations, prng_next(loop_prng(l)));
	defer_init(&m->step, l, "vm.memory.step", memory_step, m);
	timer_init(&m->next, l, "vm.memory.next", memory_next, m);
	timer_init(&m->host_retry, l, "vm.memory.measure", memory_measure_again, m);
	timer_init(&m->host_deadline, l, "vm.memory.measure", memory_measure_late, m);
	hyper_req_init(&m->host, memory_measured, m);
	hyper_listen(hyper, &m->listener, memory_event, m);
	*out = m;
	return 0;
}

void vm_memory_stop(struct vm_memory *m)
{
	struct vm_reservation *r;
	struct memory_domain *d;
	size_t cursor = 0;

	if (!m)
		return;
	hyper_unlisten(&m->listener);
	defer_stop(&m->step);
	timer_stop(&m->next);
	timer_stop(&m->host_retry);
	timer_stop(&m->host_deadline);
	m->ready = false;
	while ((d = map_next(&m->domains, &cursor))) {
		timer_stop(&d->retry);
		timer_stop(&d->deadline);
	}
	LIST_FOR_EACH (node, &m->leaving)
		timer_stop(&CONTAINER_OF(node, struct memory_domain, node)->deadline);
	for (cursor = 0; (r = map_next(&m->reservations, &cursor));) {
		r->answer_due = false;
		defer_stop(&r->answer);
	}
}

void vm_memory_free(struct vm_memory *m)
{
	struct memory_domain *d;
	size_t cursor = 0;

	if (!m)
		return;
	while ((d = map_next(&m->domains, &cursor)))
		memory_domain_free(d);
	while (!list_empty(&m->leaving))
		memory_domain_free(
			CONTAINER_OF(m->leaving.next, struct memory_domain, node));
	map_fini(&m->domains);
	map_fini(&m->reservations);
	memctl_free(m->ctl);
	free(m);
}

void vm_memory_sync(struct vm_memory *m, const struct hyper_host *host)
{
	m->ready = true;
	m->total_kib = host->total_kib;
	memory_book(m, memory_less(host->free_kib, host->claimed_kib));
}

bool vm_memory_ready(const struct vm_memory *m)
{
	return m->ready;
}

struct memctl_totals vm_memory_totals(const struct vm_memory *m)
{
	return memctl_totals(m->ctl);
}

uint64_t vm_memory_total_kib(const struct vm_memory *m)
{
	return m->total_kib;
}

const struct memctl *vm_memory_controller(const struct vm_memory *m)
{
	return m->ctl;
}
