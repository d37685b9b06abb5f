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

	bool ended; /* told by an event */
	bool looking;
	struct hyper_req req;
	void (*done)(struct vm_ask *a);
};

/* done follows, from the loop; a->op.error.code 0: the guest has ended, its dead domain
 * is still there. RV_ETIMEDOUT: it runs on; RV_ECANCELLED likewise. op_cancel ends it. */
void vm_ask_start(struct vm_ask *a, void (*done)(struct vm_ask *a));
/* From the owner's guest_ended. */
void vm_ask_ended(struct vm_ask *a);

#endif
