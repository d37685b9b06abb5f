/*
 * The arithmetic of the built-in policies. Private to sched/.
 *
 * A score is a rank, which preferences and the way memory is found decide, above a figure
 * of the host alone ("standing"), minus what this request would break ("loss"). Standing
 * doesn't depend on the request, so it is computed when the host changes and bounds the
 * score from above.
 *
 * Loss (greedy): a host's free room is thought of as slots of four sizes, powers of two
 * up to a third of the host, in vCPUs below its limit and in memory. Each slot that the
 * request would break counts with its size, the more the fuller the host is: while much
 * is free the emptiest host is best, and as the pool fills small VMs go where large ones
 * would not fit anyway. In fixed pools that sometimes overflow this turns away a tenth
 * fewer vCPUs than xapi's draw and as many as best-fit, and leaves more hosts than either
 * that could take a large VM (perf/place).
 */
#ifndef REEVE_SCHED_POLICY_H
#define REEVE_SCHED_POLICY_H

#include "sched/picture.h"

enum {
	HOLES_SIZES = 4,
	POLICY_PPM = 1000000,
	POLICY_BUSY_PPM = 900000, /* conservative fills hosts up to this CPU load */
	POLICY_RANK = 200 * POLICY_PPM,
};

int64_t policy_standing(enum picture_policy p, const struct reeve_sched_host *h);
struct picture_holes policy_holes(const struct reeve_sched_host *h);

/* Too little CPU left for conservative to fill it further. */
bool policy_busy(const struct reeve_sched_host *h);

/* The room of slots that taking `taken` from `left` breaks; the largest is 1 << log2.
 * taken <= left. */
static inline uint64_t policy_broken(uint64_t left, uint64_t taken, unsigned log2)
{
	uint64_t sum = 0;

	for (unsigned q = log2; q + HOLES_SIZES > log2; q--) {
		sum += ((left >> q) - ((left - taken) >> q)) << q;
		if (q == 0)
			break;
	}
	return sum;
}

/* The loss of a host that can hold the request, in the unit of standing, >= 0. */
static inline int64_t policy_loss(enum picture_policy p, const struct picture_holes *h,
	uint32_t vcpus, uint64_t memory_kib)
{
	uint64_t v, m;

	if (p != PICTURE_GREEDY)
		return 0;
	v = policy_broken(h->vcpus, vcpus < h->vcpus ? vcpus : h->vcpus, h->vcpus_log2);
	m = policy_broken(h->room_kib,
		memory_kib < h->room_kib ? memory_kib : h->room_kib, h->room_log2);
	v *= h->per_vcpu;
	m = (m >> 10) * h->per_gib >> 10;
	return (int64_t)(v > m ? v : m);
}

/* How the policy ranks the ways to find memory; higher is better, 0 to 7. */
struct policy_tier {
	bool used, busy; /* of the host */
	bool squeeze;	 /* the memory has to be freed first */
};

unsigned policy_tier(enum picture_policy p, struct policy_tier t);

/* Preferences above the tier: affinity, then fresh metrics, then nothing against it. */
static inline int policy_rank(uint32_t flags, unsigned tier)
{
	return (flags & REEVE_SCHED_HOST_AFFINITY ? 32 : 0) -
	       (flags & REEVE_SCHED_HOST_STALE ? 16 : 0) -
	       (flags & REEVE_SCHED_HOST_AVOID ? 8 : 0) + (int)tier;
}

/* Standing and loss stay well within one rank. */
static inline int64_t policy_score(int rank, int64_t standing, int64_t loss)
{
	return (int64_t)rank * POLICY_RANK + standing - loss;
}

/* The built-in one, or PICTURE_POLICIES for a table that is none. */
enum picture_policy policy_index(const struct reeve_sched_policy *p);

#endif
