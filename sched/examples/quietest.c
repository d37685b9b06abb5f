/*
 * An example policy: the host with the least CPU load, among equals the one with the
 * fewest VMs. Hosts with old metrics, hosts that a preference speaks against, and hosts
 * that would have to squeeze others come behind all others; the preferred host comes
 * first.
 */
#include <reeve-sched.h>

enum { A_LOT = 2000000 };

static int64_t quietest(
	const struct reeve_sched_host *host, const struct reeve_sched_request *vm)
{
	int64_t score = -(int64_t)host->cpu_load_ppm - (int64_t)host->vms;

	if (host->flags & REEVE_SCHED_HOST_AFFINITY)
		score += 8 * (int64_t)A_LOT;
	if (host->flags & REEVE_SCHED_HOST_STALE)
		score -= 4 * (int64_t)A_LOT;
	if (host->flags & REEVE_SCHED_HOST_AVOID)
		score -= 2 * (int64_t)A_LOT;
	if (host->memory_free_kib < vm->memory_min_kib)
		score -= A_LOT;
	return score;
}

__attribute__((visibility("default")))
const struct reeve_sched_policy reeve_sched_policy = {
	.abi_version = REEVE_SCHED_ABI_VERSION,
	.struct_size = sizeof(struct reeve_sched_policy),
	.name = "quietest",
	.doc = "Starts a VM on the host with the least CPU load.",
	.score = quietest,
};
