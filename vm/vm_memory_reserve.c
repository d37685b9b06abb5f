/* Reservations: memory that one operation may build a domain with. */
#include "vm/vm_memory_internal.h"

#include <assert.h>

/* The operations have deadlines of their own and always release. */
#define MEMORY_HOLD (INT64_C(24) * 3600 * 1000000)

/* Answered from the loop: the actions are the controller's until the next call of it. */
void vm_memory_answer(struct vm_memory *m, const struct memctl_action *a)
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
	struct memory_domain *d = vm_memory_of(m, id);
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
		vm_memory_resync(m);
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
		vm_memory_book(m, vm_memory_less(m->free_kib, r->kib));
	vm_memory_release(r);
}

void vm_memory_build(struct vm_reservation *r)
{
	assert(r->granted && !r->building);
	r->building = true;
	r->memory->building++;
}
