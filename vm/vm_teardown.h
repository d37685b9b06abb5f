/*
 * Takes a VM's domain and devices away on one host: the second half of every shutdown and
 * the undo of every build. Every step may be repeated; a child operation, embedded by
 * value.
 */
#ifndef REEVE_VM_VM_TEARDOWN_H
#define REEVE_VM_VM_TEARDOWN_H

#include "vm/vm_op.h"

/* Zero it, then fill in the first block. */
struct vm_teardown {
	struct op op; /* first */
	struct vm_op *owner;
	struct vm_host *host;
	struct hyper_domain_id id; /* domid HYPER_DOMID_ANY: whichever bears the handle */
	bool has_domain;	   /* something may be there to destroy */
	struct vm_devices *devices;
	uint64_t generation;   /* of the devices' claims */
	bool all_devices;      /* also those that were not touched */
	uint32_t memory_domid; /* booked as free when the domain is gone, or UINT32_MAX */

	/* The answer. */
	bool domain_left;  /* it could not be destroyed: nothing else was done */
	bool devices_left; /* the domain is gone, some device could not be taken down */

	int tries;
	struct hyper_req req;
	void (*done)(struct vm_teardown *t);
};

/* done follows, from the loop; t->op.error has the words when something was left. It has
 * no way to be cancelled: what is begun here is finished. */
void vm_teardown_start(struct vm_teardown *t, void (*done)(struct vm_teardown *t));
void vm_teardown_stop(struct vm_teardown *t);

#endif
