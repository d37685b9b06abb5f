/*
 * The pool's CPU level: what VMs are shown of CPUs, wherever they start.
 *
 * It is what all members have in common, and it changes only while no VM runs, is
 * suspended or is being worked on: a guest that was shown more could not go everywhere.
 * The master keeps it so; a host that would lower it joins only at such a time.
 */
#ifndef REEVE_DAEMON_CPU_LEVEL_H
#define REEVE_DAEMON_CPU_LEVEL_H

#include "pool/db/txn.h"
#include "vm/vm_cpu.h"

/* What a host that asks to join says of its hypervisor. */
struct cpu_level_joiner {
	bool is_simulated;
	const char *xen; /* version; "": it did not say */
	const uint8_t *policy;
	size_t policy_len; /* 0: it did not say */
};

/* Whether such a host may join. 0: *level is what the pool's is then; len 0: as it is.
 * Otherwise the words say what is missing and what to do: RV_EUNSUPPORTED, RV_ECPU,
 * RV_ENOTALLOWED. */
int cpu_level_join(struct hyper *h, const struct db *db, const struct cpu_level_joiner *j,
	struct vm_cpu_level *level, struct rv_error *e) RV_MUST_CHECK;

/* Adds to `t` what the level should be now, if it may change. For the master. */
void cpu_level_txn(struct hyper *h, const struct db *db, struct txn *t);

#endif
