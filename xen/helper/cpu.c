/*
 * A guest's CPU level. libxl has given the domain what this host shows by default; what
 * the pool's level lacks is taken away, feature word by feature word, before it runs.
 * Xen then works out what follows from that (the size of the XSAVE area, dependent
 * features), as it does for any toolstack's policy.
 */
#include "xen/helper/work.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xenguest.h>

#include "xen/real/cpu_policy.h"

/* Registers that hold features and nothing else (xen/include/public/arch-x86/
 * cpufeatureset.h): bit n for e?x of eax, ebx, ecx, edx. */
static const struct {
	uint32_t leaf, subleaf;
	unsigned int registers;
} feature_words[] = {
	{0x00000001, XEN_CPUID_NO_SUBLEAF, 1 << 2 | 1 << 3},
	{0x00000007, 0, 1 << 1 | 1 << 2 | 1 << 3},
	{0x00000007, 1, 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3},
	{0x00000007, 2, 1 << 3},
	{0x0000000d, 1, 1 << 0},
	{0x80000001, XEN_CPUID_NO_SUBLEAF, 1 << 2 | 1 << 3},
	{0x80000007, XEN_CPUID_NO_SUBLEAF, 1 << 3},
	{0x80000008, XEN_CPUID_NO_SUBLEAF, 1 << 1},
	{0x80000021, XEN_CPUID_NO_SUBLEAF, 1 << 0},
};

static void lower_leaf(xen_cpuid_leaf_t *leaf, const struct xen_cpu_level *level)
{
	for (size_t i = 0; i < sizeof feature_words / sizeof *feature_words; i++) {
		const struct xen_cpu_leaf *offered;
		uint32_t *r[4] = {&leaf->a, &leaf->b, &leaf->c, &leaf->d};

		if (leaf->leaf != feature_words[i].leaf ||
			leaf->subleaf != feature_words[i].subleaf)
			continue;
		offered = xen_cpu_leaf_find(level, leaf->leaf, leaf->subleaf);
		for (int n = 0; n < 4; n++)
			if (feature_words[i].registers & 1u << n)
				*r[n] &= offered ? offered->r[n] : 0;
	}
}

static int lower(struct work *w, uint32_t domid, const struct xen_cpu_level *level,
	xc_cpu_policy_t *policy)
{
	xen_cpuid_leaf_t leaves[XEN_CPU_MAX_LEAVES];
	xen_msr_entry_t msrs[XEN_CPU_MAX_MSRS];
	uint32_t leaf_count = XEN_CPU_MAX_LEAVES, msr_count = XEN_CPU_MAX_MSRS;

	if (xc_cpu_policy_get_domain(w->xc, domid, policy) != 0 ||
		xc_cpu_policy_serialise(
			w->xc, policy, leaves, &leaf_count, msrs, &msr_count) != 0)
		return work_fail(w, RV_EHYPERVISOR,
			"can't read the guest's CPU level: %s", strerror(errno));
	for (uint32_t i = 0; i < leaf_count; i++)
		lower_leaf(&leaves[i], level);
	if (xc_cpu_policy_update_cpuid(w->xc, policy, leaves, leaf_count) != 0 ||
		xc_cpu_policy_set_domain(w->xc, domid, policy) != 0)
		return work_fail(w, RV_EHYPERVISOR, "can't set the guest's CPU level: %s",
			strerror(errno));
	return 0;
}

int work_cpu_level(struct work *w, uint32_t domid)
{
	const struct helper_domain *d = &w->req->domain;
	struct xen_cpu_policy *wanted;
	const struct xen_cpu_level *level;
	xc_cpu_policy_t *policy;
	int rc;

	if (d->cpu_policy_len == 0)
		return 0;
	wanted = malloc(sizeof *wanted);
	policy = xc_cpu_policy_init();
	if (!wanted || !policy) {
		free(wanted);
		xc_cpu_policy_destroy(policy);
		return work_fail(w, RV_ENOMEM, "no memory for a CPU level");
	}
	rc = xen_cpu_policy_parse(wanted, d->cpu_policy, d->cpu_policy_len, &w->error);
	if (!rc) {
		level = d->type == HYPER_PV ? &wanted->pv : &wanted->hvm;
		if (level->leaf_count > 0)
			rc = lower(w, domid, level, policy);
	}
	free(wanted);
	xc_cpu_policy_destroy(policy);
	return rc;
}
