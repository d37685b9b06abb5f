/*
 * CPU policies: what a guest may see of the CPU, as CPUID leaves and MSRs, in the form
 * that host records, migrations and spec.cpu_policy carry. Pure: reading a policy out of
 * Xen is hypercall.c's.
 *
 * A blob holds up to two levels, what Xen shows by default to PVH and HVM guests and
 * what it shows to PV guests (XEN_SYSCTL_cpu_policy_hvm_default and _pv_default): a guest
 * that is moved was given its level by default or a lower one by the pool, so a host that
 * offers less by default is one it may not go to.
 *
 * The blob: "RVXENCPU", a version byte 1, then for each level its kind ('h', 'p'), counts
 * of leaves and MSRs (2 bytes each), leaves (leaf, subleaf, a, b, c, d) and MSRs (index,
 * value), little-endian, in the order of their numbers.
 */
#ifndef REEVE_XEN_REAL_CPU_POLICY_H
#define REEVE_XEN_REAL_CPU_POLICY_H

#include "xen/hyper.h"

enum {
	XEN_CPU_MAX_LEAVES = 256, /* Xen 4.17: CPUID_MAX_SERIALISED_LEAVES is 113 */
	XEN_CPU_MAX_MSRS = 32,
	XEN_CPU_NO_SUBLEAF = -1, /* as uint32_t: Xen's XEN_CPUID_NO_SUBLEAF */
};

struct xen_cpu_leaf {
	uint32_t leaf, subleaf;
	uint32_t r[4]; /* eax, ebx, ecx, edx */
};

struct xen_cpu_msr {
	uint32_t index;
	uint64_t value;
};

struct xen_cpu_level {
	size_t leaf_count, msr_count; /* both 0: the host has no guests of this kind */
	struct xen_cpu_leaf leaves[XEN_CPU_MAX_LEAVES];
	struct xen_cpu_msr msrs[XEN_CPU_MAX_MSRS];
};

struct xen_cpu_policy {
	struct xen_cpu_level hvm, pv;
};

/* RV_EINVAL: not such a blob (perhaps a simulated host's), or damaged. */
int xen_cpu_policy_parse(struct xen_cpu_policy *out, const uint8_t *blob, size_t len,
	struct rv_error *e) RV_MUST_CHECK;

/* Returns the length; `blob` holds HYPER_MAX_CPU_POLICY. */
size_t xen_cpu_policy_write(const struct xen_cpu_policy *p, uint8_t *blob);

/* As hyper_cpu_check: RV_ECPU names what `needed` has and `offered` lacks, by Xen's names
 * (xen/include/public/arch-x86/cpufeatureset.h) and by the kind of guest. Beside features
 * the vendor must be the same. */
int xen_cpu_policy_check(const struct xen_cpu_policy *offered,
	const struct xen_cpu_policy *needed, struct rv_error *e) RV_MUST_CHECK;

/* As hyper_cpu_common: features both have, the smaller of other numbers. Commutative.
 * RV_ECPU when the vendors differ. */
int xen_cpu_policy_common(const struct xen_cpu_policy *a, const struct xen_cpu_policy *b,
	struct xen_cpu_policy *out, struct rv_error *e) RV_MUST_CHECK;

/* The leaf, or NULL. */
const struct xen_cpu_leaf *xen_cpu_leaf_find(
	const struct xen_cpu_level *level, uint32_t leaf, uint32_t subleaf);

#endif
