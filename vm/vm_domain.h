/*
 * A VM's domain as its row describes it: what the hypervisor and the memory controller
 * are told when it is built or restored.
 */
#ifndef REEVE_VM_VM_DOMAIN_H
#define REEVE_VM_VM_DOMAIN_H

#include "vm/vm_cpu.h"
#include "vm/vm_op.h"

/* The spec and what it points at. Not to be copied. */
struct vm_domain_spec {
	struct hyper_domain_spec spec;
	struct hyper_vbd_spec vbds[HYPER_MAX_VBDS];
	struct hyper_vif_spec vifs[HYPER_MAX_VIFS];
	char platform[4096], name[HYPER_NAME_SIZE];
	struct vm_cpu_level cpu;
};

/* From o->row, with what `devices` (up) give; strings are borrowed from both.
 * RV_ETOOBIG: the platform map. */
int vm_domain_describe(struct vm_domain_spec *s, const struct vm_op *o,
	struct uuid handle, uint64_t generation, uint64_t target_kib,
	const struct vm_devices *devices, struct rv_error *e) RV_MUST_CHECK;

/* Of the entry that begins a start or reboot: what was known of the guest that ran before
 * is not true of the next. */
void vm_domain_txn_boot(struct vm_op *o, const struct db *db, struct txn *t);

/* For vm_memory_add, when it has just been made with target_kib; boots_full: it may use
 * its static-max until it has booted. */
struct memctl_domain vm_domain_memory(
	const struct row *vm, uint32_t domid, uint64_t target_kib, bool boots_full);

#endif
