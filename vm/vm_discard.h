/*
 * Disks that nobody uses and that are still to be deleted: images of guests that were
 * resumed, or whose SR was away when they should have gone, clones that a dead host was
 * making. Their rows bear the intent VM_VDI_DISCARD. At each look, and after a resume,
 * the first host that has their SR tries it, one after the other; the disks of the pool
 * are looked through in slices. For vm/'s own files.
 */
#ifndef REEVE_VM_VM_DISCARD_H
#define REEVE_VM_VM_DISCARD_H

#include "vm/vm_entry.h"
#include "vm/vm_request.h"

struct vm_host;

struct vm_discard {
	struct vm_request request;
	struct vm_entry entry;
	struct timer turn; /* the next slice of the disks */
	bool walking;	   /* from a look until all disks were looked at */
	struct uuid at;	   /* the last that was passed over; none: none yet */
	struct uuid vdi;   /* being deleted */
};

/* Of the hosts that have the SR, the first one clears away; none that is dead. */
bool vm_first_of_sr(const struct vm_host *h, const struct db *db, struct uuid sr);

void vm_discard_init(struct vm_host *h);
void vm_discard_look(struct vm_host *h);
void vm_discard_stop(struct vm_host *h);

#endif
