/*
 * The simulated host's memory of itself: who boots, which domains there are. Lives in
 * memory or in a mapped file that survives the death of reeved at any instruction: each
 * record has two places, the newer valid one counts, so a half-written one is not seen.
 *
 * Internal to the simulated driver.
 */
#ifndef REEVE_XEN_SIM_MACHINE_H
#define REEVE_XEN_SIM_MACHINE_H

#include "xen/sim.h"

enum { SIM_MAX_DEVICES = HYPER_MAX_VBDS + HYPER_MAX_VIFS };

struct sim_device {
	uint32_t used, is_vif;
	uint64_t devid;
	uint64_t params; /* a hash of what it was attached with */
};

/* When a guest ends, in its own running time; UINT64_MAX: not foreseen. */
struct sim_end {
	uint64_t at_ran_us;
	uint64_t reason; /* enum hyper_reason */
};
#define SIM_NEVER UINT64_MAX

/* A domain. Plain data: it is written to the state file as it stands. */
struct sim_record {
	uint32_t in_use, domid;
	struct uuid handle, vm;
	uint64_t generation;
	char name[HYPER_NAME_SIZE];
	uint32_t type, state, reason, introduced;
	uint32_t vcpus_max, vcpus_online, has_console, announced;
	uint64_t actual_kib, target_kib, maxmem_kib, static_max_kib;
	uint64_t overhead_kib, pod_kib;
	uint64_t claim_kib;  /* while it is being built: what it will hold */
	uint64_t lowest_kib; /* the least it ever held: pages above came back empty */
	/* Time. It has run ran_us, and now_us - since_us more if it runs. */
	uint64_t ran_us;
	int64_t since_us, stopped_us;
	uint32_t has_run, fenced; /* fenced: paused once more, by who fences */
	uint64_t longest_gap_us, last_gap_us;
	struct sim_end asked, script;
	/* Balloon: looked at when the guest had run balloon_ran_us; what is left of a
	 * page in KiB·µs/s; whether it is shrinking past its target. */
	uint64_t balloon_ran_us, balloon_rest, overshooting;
	/* Memory contents and cpu: what had been done when the guest had run model_ran_us
	 * (the model may change while it runs). */
	uint64_t content_seed, model_ran_us, model_writes;
	int64_t model_cpu_ns;
	uint64_t damaged_pages, restores;
	struct hyper_sim_guest guest;
	struct sim_device devices[SIM_MAX_DEVICES];
};

struct sim_head {
	struct uuid boot_id;
	struct uuid kernel_boot_id; /* of the machine underneath: its reboot is ours */
	uint32_t next_domid, reserved;
	uint64_t prng[4]; /* for boot ids, contents and faults */
};

struct hyper_sim_machine;

/* Maps the file at `path`, made when missing. `kernel_boot_id` decides whether what it
 * says is still true. `seed` for a new one. */
int sim_machine_open(struct hyper_sim_machine **out, const char *path, uint64_t seed,
	const struct uuid *kernel_boot_id, struct rv_error *e) RV_MUST_CHECK;

/* Reads /proc/sys/kernel/random/boot_id. */
int sim_kernel_boot_id(struct uuid *out, struct rv_error *e) RV_MUST_CHECK;

/* At most one driver: RV_EBUSY. */
int sim_machine_take(struct hyper_sim_machine *m) RV_MUST_CHECK;
void sim_machine_give_back(struct hyper_sim_machine *m);

/* Borrowed; after a change call sim_machine_store_head. */
struct sim_head *sim_machine_head(struct hyper_sim_machine *m);
void sim_machine_store_head(struct hyper_sim_machine *m);

/* Slots 0..HYPER_MAX_DOMAINS-1. False: empty. */
bool sim_machine_load(
	const struct hyper_sim_machine *m, uint32_t slot, struct sim_record *r);
void sim_machine_store(
	struct hyper_sim_machine *m, uint32_t slot, const struct sim_record *r);

#endif
