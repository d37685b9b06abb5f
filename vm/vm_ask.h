/*
 * Asks a guest to end (power off or reboot) and waits until it has: the first half of a
 * clean shutdown or reboot. A child operation, embedded by value.
 */
#ifndef REEVE_VM_VM_ASK_H
#define REEVE_VM_VM_ASK_H

#include "vm/vm_op.h"

struct vm_ask {
	struct op op; /* first */
	struct vm_op *owner;
	struct hyper_domain_id id;
	enum hyper_reason reason;
	int64_t timeout_ms;

	void (*step)(struct op *op); /* the owner's */

	bool at_work;
	bool ended; /* told by an event */
	bool looking;
	struct hyper_req req;
};

/* In the owner's asking state: asks with a->owner, id, reason, timeout_ms and step set,
 * and comes back through the owner's step. True: the guest has ended, its dead domain is
 * still there. False: the owner waits, or has failed (RV_ETIMEDOUT, RV_ECANCELLED: the
 * guest runs on) and is on its way to its state `end`. */
bool vm_ask_guest(struct vm_ask *a, int end);
/* From the owner's step, while it awaits something: an owner that is cancelled asks no
 * more. */
void vm_ask_heed_cancel(struct vm_ask *a);
/* From the owner's guest_ended. */
void vm_ask_ended(struct vm_ask *a);

/* A guest that suspends for a save has not ended. */
static inline bool vm_ask_is_end(const struct hyper_event *event)
{
	return event->kind != HYPER_EV_SHUTDOWN ||
	       event->domain.reason != HYPER_REASON_SUSPEND;
}

#endif
