/*
 * VMs whose host is gone, or surely runs them no more: the entry that lets go of one.
 * Pure.
 *
 * Such a VM is halted in the database, whatever its domain does; its owner generation is
 * spent, so that its host, should it come back, knows the domain as a ghost and reports
 * it, instead of taking it for the VM. Who may say so is daemon/lost_vms.h (an admin) and
 * vm/vm_protect.h (a lease that is over).
 */
#ifndef REEVE_VM_VM_LOST_H
#define REEVE_VM_VM_LOST_H

#include "pool/db/txn.h"

/* Adds to `t`: the VM is Halted and on no host, what was at work on it has failed with
 * the words `why`. Compare-and-set on its owner. Disks that were being made for it are
 * marked to be deleted, and so is its suspended memory, unless the VM is Suspended and
 * has no domain: then it stays so. False: it was a clone in the making, so it is gone as
 * a whole, and its origin is free. */
bool vm_lost_txn(const struct db *db, const struct row *vm, const char *why,
	int64_t wall_ms, struct txn *t);

/* Adds to `t`: what the VM's former host has not released (VM.devices_left_on) counts as
 * released, and its claims are void. */
void vm_left_txn(const struct db *db, const struct row *vm, struct txn *t);

#endif
