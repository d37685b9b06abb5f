/*
 * The policy interface of Reeve's scheduler: the one header a placement policy needs.
 *
 * A policy ranks hosts for one virtual machine. It is called with hosts that have already
 * passed every filter (enabled, CPU features, storage, networks, memory, pCPUs ...), so
 * it can't break one. It must be a pure function of its arguments: no clock, no random
 * numbers, no I/O, no memory of former calls, and return within a millisecond for
 * a thousand hosts. The daemon times and checks each answer and uses its own policy, with
 * a message to the administrator, when a policy errs.
 *
 * A plugin is a shared object that exports exactly one symbol:
 *
 *     const struct reeve_sched_policy reeve_sched_policy = {
 *             .abi_version = REEVE_SCHED_ABI_VERSION,
 *             .struct_size = sizeof(struct reeve_sched_policy),
 *             .name = "mine",
 *             .doc = "Starts a VM on the host with the most free memory.",
 *             .score = my_score,
 *     };
 *
 * Rules of the ABI: structures only grow, at their end; a reader looks at no field beyond
 * the `struct_size` it was given; a change of meaning raises REEVE_SCHED_ABI_VERSION, and
 * a plugin of another version is refused by name.
 *
 * This header is plain C99 or C++ and includes nothing of Reeve.
 */
#ifndef REEVE_SCHED_REEVE_SCHED_H
#define REEVE_SCHED_REEVE_SCHED_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define REEVE_SCHED_ABI_VERSION 1u
#define REEVE_SCHED_SYMBOL	"reeve_sched_policy"

/* Flags of a host. */
#define REEVE_SCHED_HOST_STALE	  (1u << 0) /* its metrics are older than they should be */
#define REEVE_SCHED_HOST_AFFINITY (1u << 1) /* the VM's preferred host */
#define REEVE_SCHED_HOST_AVOID	  (1u << 2) /* a preference speaks against it */

/* What a policy sees of one host. Memory in KiB, CPU load in millionths of all pCPUs. */
struct reeve_sched_host {
	uint32_t struct_size;
	uint32_t flags;
	uint64_t memory_total_kib;
	/* Free now: not used, not promised to anybody, beyond the host's reserve. */
	uint64_t memory_free_kib;
	/* What squeezing its running VMs to their dynamic minimum would add to that. */
	uint64_t memory_squeezable_kib;
	uint32_t cpu_load_ppm; /* smoothed; 1,000,000 is all pCPUs busy */
	uint32_t pcpus;
	uint32_t vcpus;		 /* of the VMs that run or are about to run here */
	uint32_t vcpus_limit;	 /* most vCPUs the host takes; 0: no limit */
	uint32_t vms;		 /* that run or are about to run here */
	uint32_t failure_domain; /* equal numbers fail together; 0: not known */
	/* Seconds since the host's longest-running VM started, 0 without any: hosts whose
	 * VMs are old will likely stay in use. */
	uint32_t oldest_vm_s;
	uint32_t mean_vm_s; /* the mean age of its VMs, weighted by vCPUs */
	uint32_t in_use_s;  /* since it last was without any VM */
	uint32_t reserved;
	uint8_t uuid[16];
};

/* The virtual machine to be placed. */
struct reeve_sched_request {
	uint32_t struct_size;
	uint32_t vcpus;
	uint64_t memory_min_kib; /* the least it can start with; overhead included */
	uint64_t memory_max_kib; /* what it would use if there is room; >= min */
	uint32_t reserved[2];
	uint8_t uuid[16];
};

struct reeve_sched_policy {
	uint32_t abi_version;
	uint32_t struct_size;
	const char *name; /* 1 to 63 of a-z, 0-9, '-' */
	const char *doc;  /* one line for `reeve pool-schedulers` */

	/* Exactly one of the two is set; the other is NULL.
	 *
	 * score: how good `host` is for `vm`; the highest wins, ties are broken by the
	 * daemon's seed. INT64_MIN means "not this one". */
	int64_t (*score)(const struct reeve_sched_host *host,
		const struct reeve_sched_request *vm);

	/* decide: chooses among `count` hosts at once (count >= 1; the entries are
	 * `stride` bytes apart, which may be more than sizeof of an older header).
	 * Returns an index below count, or a negative number for "none of them". The same
	 * `seed` must give the same answer. */
	int64_t (*decide)(const struct reeve_sched_host *hosts, uint64_t count,
		uint64_t stride, const struct reeve_sched_request *vm, uint64_t seed);
};

#ifdef __cplusplus
}
#endif

#endif
