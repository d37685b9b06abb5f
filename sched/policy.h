/*
 * The arithmetic of the built-in policies. Private to sched/.
 *
 * A score is a rank, which preferences and the way memory is found decide, above a figure
 * of the host alone ("standing"), minus what this request would break ("loss"). Standing
 * doesn't depend on the request, so it is computed when the host changes and bounds the
 * score from above.
 *
 * Loss: a host's free room is thought of as slots of 2, 4, 8, 16 vCPUs (and 8 to 128
 * GiB). Each slot that the request would break counts with its size, so that small VMs go
 * where large ones would not fit anyway. Sizes are powers of two, so the number broken
 * depends only on the free room modulo the largest, and is looked up in a table made
 * once per request. On a fixed pool that sometimes overflows, most-free with this loss
 * turned away fewer vCPUs than best-fit and kept most room for large VMs (perf/place).
 */
#ifndef REEVE_SCHED_POLICY_H
#define REEVE_SCHED_POLICY_H

#include "sched/picture.h"

enum {
	HOLES_VCPUS = 16, /* the largest slots */
	HOLES_GIB = 128,
	POLICY_PPM = 1000000,
	POLICY_BUSY_PPM = 900000, /* conservative fills hosts up to this CPU load */
	POLICY_RANK_SHIFT = 40,
};

/* What one request breaks, by the host's free room. */
struct policy_loss {
	uint32_t vcpus[HOLES_VCPUS];
	uint32_t gib[HOLES_GIB];
};

void policy_loss_init(struct policy_loss *l, uint32_t vcpus, uint64_t memory_kib);

int64_t policy_standing(enum picture_policy p, const struct reeve_sched_host *h);
struct picture_holes policy_holes(const struct reeve_sched_host *h);

/* Too little CPU left for conservative to fill it further. */
bool policy_busy(const struct reeve_sched_host *h);

/* The loss of a host in the unit of standing, never negative. */
static inline int64_t policy_loss(
	enum picture_policy p, const struct policy_loss *l, const struct picture_holes *h)
{
	uint64_t v = (uint64_t)l->vcpus[h->vcpus] * h->per_vcpu;
	uint64_t m = (uint64_t)l->gib[h->gib] * h->per_gib;

	v = v > m ? v : m;
	return (int64_t)(p == PICTURE_GREEDY ? v * 2 : v / 2);
}

/* How the policy ranks the ways to find memory; higher is better, 0 to 7. */
struct policy_tier {
	bool used, busy; /* of the host */
	bool squeeze;	 /* the memory has to be freed first */
};

unsigned policy_tier(enum picture_policy p, struct policy_tier t);

/* Preferences above the tier: affinity, then fresh metrics, then nothing against it. */
static inline unsigned policy_rank(uint32_t flags, unsigned tier)
{
	return (flags & REEVE_SCHED_HOST_AFFINITY ? 32u : 0u) |
	       (flags & REEVE_SCHED_HOST_STALE ? 0u : 16u) |
	       (flags & REEVE_SCHED_HOST_AVOID ? 0u : 8u) | tier;
}

static inline int64_t policy_score(unsigned rank, int64_t standing, int64_t loss)
{
	return ((int64_t)rank << POLICY_RANK_SHIFT) + standing - loss;
}

/* The built-in one, or PICTURE_POLICIES for a table that is none. */
enum picture_policy policy_index(const struct reeve_sched_policy *p);

#endif
