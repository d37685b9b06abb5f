/*
 * The scheduler's picture of the pool, laid out for decisions: one bit per host for each
 * yes-or-no fact, one array per number. Private to sched/.
 *
 * A host has a slot. 64 neighbouring slots share a word of each bit set and a block whose
 * maxima tell that none of them can hold a request or beat the best host so far.
 */
#ifndef REEVE_SCHED_PICTURE_H
#define REEVE_SCHED_PICTURE_H

#include "base/map.h"
#include "sched/sched.h"

enum { PICTURE_DENSE_FROM = 64, PICTURE_CLASSES_MAX = 4096 };

/* What of CPUs and Xen hosts have in common; few kinds in a pool. */
struct picture_class {
	struct {
		struct sched_features features;
		uint64_t xen_version;
	} key;
	uint32_t id;
	uint32_t refs;
};

/* An SR or a network, and the hosts that have it: a list while they are few (each host
 * has SRs of its own), a bit set from PICTURE_DENSE_FROM on. */
struct picture_attach {
	struct uuid uuid;
	uint32_t count;
	uint32_t slots[PICTURE_DENSE_FROM];
	uint64_t *bits; /* NULL: the list holds them all */
};

/* The built-in policies whose scores are kept ready. */
enum picture_policy { PICTURE_GREEDY, PICTURE_CONSERVATIVE, PICTURE_POLICIES };

struct picture_block {
	uint64_t max_free_kib, max_room_kib;
	int64_t max_score[PICTURE_POLICIES];
};

/* What is read only for the hosts that are explained or given to a plugin. */
struct picture_host {
	struct uuid uuid;
	struct reeve_sched_host view;
	struct sched_host facts; /* its arrays point at nothing */
	struct picture_class *class;
	struct picture_attach **attached; /* SRs, then networks */
	size_t n_srs, n_networks;
	bool sane; /* its metrics make sense */
};

/* The yes-or-no facts. */
enum picture_fact {
	PICTURE_LIVE,
	PICTURE_ENABLED,
	PICTURE_CLOCK_OK,
	PICTURE_SANE,
	PICTURE_STALE,
	PICTURE_USED, /* runs a VM */
	PICTURE_BUSY, /* too little CPU left to be filled further */
	PICTURE_FACTS
};

/* What weighs the loss of large holes, see policy.h. */
struct picture_holes {
	uint64_t room_kib;
	uint32_t vcpus; /* free below the limit */
	uint32_t per_vcpu, per_gib;
	uint8_t vcpus_log2, room_log2; /* the largest slots */
};

struct sched {
	size_t max_hosts;
	size_t top;   /* slots below it may be in use */
	size_t count; /* hosts */
	size_t words; /* of a bit set, and blocks: covers top */
	size_t size;  /* slots allocated, a multiple of 64 */

	uint64_t *facts[PICTURE_FACTS];
	uint64_t *present;
	uint64_t *free_kib, *room_kib; /* room: free and squeezable */
	uint32_t *vcpus_room;
	uint32_t *class_id;
	uint64_t *tie;
	int64_t *score[PICTURE_POLICIES];
	struct picture_holes *holes;
	struct picture_host *hosts;
	struct picture_block *blocks;

	struct map by_uuid; /* struct picture_host */
	struct map classes; /* struct picture_class, by key */
	struct map srs, networks;
	struct picture_class **class_by_id; /* NULL: free */
	uint32_t n_class_ids;
	uint32_t n_stale;
};

/* The slot of a host, or SIZE_MAX. */
size_t picture_slot(const struct sched *s, const struct uuid *host);

static inline bool picture_bit(const uint64_t *bits, size_t slot)
{
	return bits[slot / 64] >> (slot % 64) & 1;
}

static inline void picture_set_bit(uint64_t *bits, size_t slot, bool on)
{
	uint64_t mask = UINT64_C(1) << (slot % 64);

	bits[slot / 64] = on ? bits[slot / 64] | mask : bits[slot / 64] & ~mask;
}

/* Whether this host has it attached. */
bool picture_attached(const struct sched *s, const struct picture_attach *a, size_t slot);

#endif
