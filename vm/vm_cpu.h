/*
 * The pool's CPU level, as guests are shown it.
 *
 * pool.cpu_policy and host.cpu_policy hold a driver's policy (xen/hyper.h) in lowercase
 * hexadecimal digits. A VM that starts is shown the pool's level, so that every member
 * that offers it can take the VM. Which level that was, VM.last_boot_CPU_flags tells by
 * its hash ("level"), and by "xen" which Xen saved a suspended VM.
 */
#ifndef REEVE_VM_VM_CPU_H
#define REEVE_VM_VM_CPU_H

#include "vm/vm_op.h"

enum { VM_CPU_TEXT_SIZE = 2 * HYPER_MAX_CPU_POLICY + 1 };

struct vm_cpu_level {
	size_t len; /* 0: none is on record */
	uint8_t policy[HYPER_MAX_CPU_POLICY];
};

/* Returns text. */
char *vm_cpu_format(
	const uint8_t *policy, size_t len, char text[static VM_CPU_TEXT_SIZE]);
/* "" gives none. RV_ECORRUPT: no such digits, with l->len = 0. */
int vm_cpu_parse(struct vm_cpu_level *l, const char *text) RV_MUST_CHECK;

/* Whether this host's CPUs offer the pool's level; RV_ECPU names what is missing. 0 where
 * either is not on record: the host's driver checks again when it builds. */
int vm_cpu_offers(struct hyper *h, const struct row *host, const struct row *pool,
	struct rv_error *e) RV_MUST_CHECK;

/* What a guest that is built on `host` is to be shown; none: what the host has, which is
 * the same or, without a level, the best there is. */
void vm_cpu_shown(const struct db *db, struct uuid host, struct vm_cpu_level *l);

/* What the running guest was shown, if that was today's level of the pool; else none: it
 * may use whatever its host has. */
void vm_cpu_booted(const struct db *db, const struct row *vm, struct vm_cpu_level *l);

/* Entries of a VM's operations: it is about to be built anew; it is saved by `host`. */
void vm_cpu_txn_boot(struct vm_op *o, const struct db *db, struct txn *t);
void vm_cpu_txn_saved(
	const struct db *db, struct txn *t, struct uuid vm, struct uuid host);

/* Major << 16 | minor of a version such as "4.17.5"; 0: it is none. */
uint32_t vm_cpu_xen_version(const char *text);
/* The oldest Xen that can take the VM as it is: it runs or is suspended; 0: any. */
uint32_t vm_cpu_xen_needed(const struct db *db, const struct row *vm);

#endif
