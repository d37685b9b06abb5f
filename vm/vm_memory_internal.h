/*
 * Between the files of vm_memory: what one host's memory and its domains are.
 *
 * vm_memory.c holds the book of free memory and takes the controller's steps,
 * vm_memory_domain.c gives a domain its orders and hears what became of it,
 * vm_memory_foreign.c undoes what other tools do to it, vm_memory_reserve.c asks for
 * memory and passes the answers on.
 */
#ifndef REEVE_VM_VM_MEMORY_INTERNAL_H
#define REEVE_VM_VM_MEMORY_INTERNAL_H

#include "vm/vm_memory.h"

enum {
	MEMORY_RETRY_MS = 1000, /* until a failed order is given again */
	MEMORY_ANSWER_MS = 30 * 1000,
};

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
	/* It was set here, or seen since: any other value is another tool's. */
	bool target_known, maxmem_known;
	bool put_back; /* what is due undoes another tool's change */
	bool foreign_told;
	int64_t foreign_us; /* when it was told last */
	bool unknown;	    /* restored: booked with its target, it may hold less */
	bool lowered;	    /* maxmem; what it holds was not read since */
	bool failed;	    /* an order, which may have taken effect all the same */
	struct hyper_req req;
	struct timer retry, deadline;
};

struct vm_memory {
	struct loop *loop;
	struct hyper *hyper;
	struct memctl *ctl;
	vm_memory_notify_fn *notify;
	vm_memory_foreign_fn *foreign;
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

static inline uint64_t vm_memory_less(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* --- vm_memory.c --- */

/* So much is free from now on, as far as is known. */
void vm_memory_book(struct vm_memory *m, uint64_t free_kib);
/* The hypervisor is asked for the sum, as soon as nothing is being built. */
void vm_memory_resync(struct vm_memory *m);

/* --- vm_memory_domain.c --- */

/* By the handle, too: domids are used again. NULL: unknown. */
struct memory_domain *vm_memory_of(
	const struct vm_memory *m, const struct hyper_domain_id *id);
/* An order of the controller's: MEMCTL_SET_TARGET or _MAXMEM. */
void vm_memory_order(struct vm_memory *m, const struct memctl_action *a);
/* A hyper_event_fn; arg: the vm_memory. */
void vm_memory_event(void *arg, const struct hyper_event *event);
void vm_memory_domain_free(struct memory_domain *d);
/* Asks the hypervisor how it is; its request is idle. */
void vm_memory_look(struct memory_domain *d);

/* --- vm_memory_foreign.c --- */

/* It is so at this moment, and nothing is on the way: what another tool has changed
 * becomes due again. */
void vm_memory_compare(struct memory_domain *d, const struct hyper_domain *now);

/* --- vm_memory_reserve.c --- */

/* What became of a reservation. */
void vm_memory_answer(struct vm_memory *m, const struct memctl_action *a);

#endif
