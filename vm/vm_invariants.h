/*
 * The invariants of DESIGN.md section 11 that concern VMs: 1 (one owner), 2 (memory), 3
 * (reservations balance) and 6 (every operation ends once). Pure; run after each event of
 * the simulation, and at each look in production, where the world can break them.
 */
#ifndef REEVE_VM_VM_INVARIANTS_H
#define REEVE_VM_VM_INVARIANTS_H

#include "memctl/memctl.h"
#include "pool/db/db.h"
#include "xen/hyper.h"

/* What is there on one host. */
struct vm_observed {
	struct uuid host;
	const struct hyper_domain *domains;
	size_t domain_count;
	uint64_t total_kib, dom0_kib;
	const struct memctl *memory; /* NULL: not known */
	/* VMs whose row has changed after this seq are not judged: the observation is
	 * older. UINT64_MAX: it is of this very moment. */
	uint64_t seq;
};

/* 0, or RV_EINTERNAL with the object and what is wrong. */
int vm_invariants_check(const struct db *db, const struct vm_observed *hosts,
	size_t count, struct rv_error *e) RV_MUST_CHECK;

/* The two halves of it, for who asks after each event: what is on the hosts, and what the
 * database alone says, which is so until it changes. */
int vm_invariants_hosts(const struct db *db, const struct vm_observed *hosts,
	size_t count, struct rv_error *e) RV_MUST_CHECK;
int vm_invariants_operations(const struct db *db, struct rv_error *e) RV_MUST_CHECK;

#endif
