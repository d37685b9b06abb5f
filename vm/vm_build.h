/*
 * Makes a VM's domain on one host and lets it run: memory, devices, domain, the record of
 * its owner, unpause; on failure all of it undone. A child operation of start, resume and
 * reboot, embedded by value.
 */
#ifndef REEVE_VM_VM_BUILD_H
#define REEVE_VM_VM_BUILD_H

#include "vm/vm_teardown.h"

/* Zero it, then fill in the first block. */
struct vm_build {
	struct op op; /* first */
	struct vm_op *owner;
	struct vm_host *host;
	uint64_t generation;		   /* the owner generation that this makes */
	const struct hyper_source *source; /* restore from it; NULL: boot */
	bool start_paused;
	uint64_t actual_kib;		    /* restore: what it held when saved, or 0 */
	struct hyper_domain_id predecessor; /* whose memory it takes over (reboot) */
	bool has_predecessor;

	/* The answer: op.error.code 0: it runs (or is paused, as asked). Otherwise
	 * everything is undone, unless domain_left. */
	struct hyper_domain_id id;
	bool memory_refused; /* try another host */
	bool recorded;	     /* the owner's record was committed */
	bool may_have_run;   /* it failed, but the guest may have run for a moment */
	bool domain_left, devices_left;

	int lease_waited_ms;
	bool maybe; /* a domain may be there */
	bool looked;
	uint64_t need_kib, target_kib;
	struct vm_reservation reservation;
	struct vm_devices devices;
	struct vm_teardown undo;
	struct vm_entry entry;
	struct hyper_req req;
	void (*done)(struct vm_build *b);
};

/* done follows, from the loop. owner->row describes the VM. op_cancel(&b->op) undoes it,
 * up to the unpausing. */
void vm_build_start(struct vm_build *b, void (*done)(struct vm_build *b));
bool vm_build_cancellable(const struct vm_build *b);
void vm_build_stop(struct vm_build *b);
/* Harmless on a zeroed one. */
void vm_build_fini(struct vm_build *b);

#endif
