/*
 *	events ──► book of free memory ──► memctl_step ──► per domain: at most one
 *	           and of domains          (defer, timer)   hypercall at work, the
 *	                                        │           latest order waits
 *	reserve ────────────────────────────────┴──► grant, refuse: answered by defer
 */
#include "vm/vm_memory.h"

#include <stdlib.h>

#include "base/log.h"
#include "vm/vm_memory_internal.h"

static void memory_step(void *arg);

/* --- the book --- */

void vm_memory_book(struct vm_memory *m, uint64_t free_kib)
{
	m->free_kib = free_kib;
	m->epoch++;
	memctl_host_free(m->ctl, free_kib);
	defer_start(&m->step);
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
		vm_memory_resync(m);
		return;
	}
	m->total_kib = req->host->total_kib;
	if (m->free_kib != vm_memory_less(req->host->free_kib, req->host->claimed_kib))
		vm_memory_book(
			m, vm_memory_less(req->host->free_kib, req->host->claimed_kib));
	if (m->resync) {
		m->resync = false;
		vm_memory_resync(m);
	}
}

static void memory_measure_again(void *arg)
{
	vm_memory_resync(arg);
}

static void memory_measure_late(void *arg)
{
	struct vm_memory *m = arg;

	hyper_cancel(&m->host);
}

void vm_memory_resync(struct vm_memory *m)
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
			vm_memory_order(m, a);
			break;
		case MEMCTL_GRANT:
		case MEMCTL_REFUSE:
		case MEMCTL_EXPIRE:
			vm_memory_answer(m, a);
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
	hyper_listen(hyper, &m->listener, vm_memory_event, m);
	*out = m;
	return 0;
}

void vm_memory_on_foreign(struct vm_memory *m, vm_memory_foreign_fn *foreign)
{
	m->foreign = foreign;
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
		vm_memory_domain_free(d);
	while (!list_empty(&m->leaving))
		vm_memory_domain_free(
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
	vm_memory_book(m, vm_memory_less(host->free_kib, host->claimed_kib));
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
