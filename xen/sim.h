/*
 * The simulated hypervisor: a fake host good enough to build and test everything else on.
 *
 * It is not a mock: guests boot, run, dirty pages, balloon at a rate, ignore requests and
 * crash; a save streams real bytes and a restore checks every one of them. It runs on a
 * real loop (demo, benchmarks) and on a simulated one (whole pools in one process), and
 * the same seed gives the same trace.
 *
 * Three lives are kept apart, as in a real host:
 * - the machine (struct hyper_sim_machine, or a state file): memory, domains, boot id. It
 *   outlives the driver, so guests keep running while reeved is dead;
 * - the driver (struct hyper from hyper_sim_new): requests at work, events. hyper_free in
 *   the middle of anything is the crash of reeved; a new driver on the same machine sees
 *   what was left, half-made domains included;
 * - guests, whose state is worked out from the time they have run.
 *
 * Guest memory is a pure function of (content seed, page number, writes so far), so that
 * a guest of any size costs nothing to hold. A restore recognises each page's bytes; what
 * is missing, stale or wrong is counted in damaged_pages and stays with the guest.
 */
#ifndef REEVE_XEN_SIM_H
#define REEVE_XEN_SIM_H

#include "reactor/loop.h"
#include "xen/hyper.h"

/* --- guests --- */

enum hyper_sim_balloon {
	HYPER_SIM_BALLOON_IDEAL,	/* follows its target at balloon_kib_per_s */
	HYPER_SIM_BALLOON_SLOW,		/* at a sixteenth of it */
	HYPER_SIM_BALLOON_STUCK,	/* never moves */
	HYPER_SIM_BALLOON_INTERMITTENT, /* moves, stands still, moves: see stuck_* */
	HYPER_SIM_BALLOON_LIMITED,   /* never gives up what is below balloon_floor_kib */
	HYPER_SIM_BALLOON_OVERSHOOT, /* shrinks past the target, then comes back */
};

enum hyper_sim_load {
	HYPER_SIM_LOAD_STEADY, /* load_ppm of each vcpu */
	HYPER_SIM_LOAD_WAVE,   /* a triangle wave of period load_period_us around it */
};

struct hyper_sim_guest {
	enum hyper_sim_balloon balloon;
	uint64_t balloon_kib_per_s;
	uint64_t balloon_floor_kib;	/* LIMITED */
	uint64_t balloon_overshoot_kib; /* OVERSHOOT */
	int64_t stuck_period_us;	/* INTERMITTENT: of each period ... */
	int64_t stuck_for_us;		/* ... the last so many it stands still */
	bool feature_balloon;		/* announces it after boot (most Linux don't) */
	uint32_t used_ppm;		/* share of its pages that are not zero */
	uint64_t working_set_kib;   /* written over and over, from the lowest page up */
	uint64_t dirty_pages_per_s; /* at this rate, while it runs */
	int64_t boot_us;	    /* until it listens to anything */
	int64_t suspend_us;	    /* from request to suspended */
	int64_t shutdown_us;	    /* from request to ended */
	bool ignores_shutdown, ignores_suspend;
	/* Ends by itself once it ran this long since boot; NONE: never. */
	enum hyper_reason ends_by;
	int64_t ends_after_us;
	enum hyper_sim_load load;
	uint32_t load_ppm;
	int64_t load_period_us;
};

/* A friendly guest: ideal balloon at 1 GiB/s, 25 % used, no writes, boots in 300 ms,
 * suspends in 50 ms, shuts down in 200 ms, 2 % load. */
void hyper_sim_guest_init(struct hyper_sim_guest *g);

/* Overrides from spec.platform; `sim.` keys named as the fields above, values as numbers,
 * names ("sim.balloon=stuck", "sim.ends_by=crash") or sizes and times with units
 * ("sim.working_set=64MiB", "sim.boot=2s", "sim.dirty_pages_per_s=5000"). Other keys are
 * ignored; a bad value is RV_EINVAL and named. NULL text: nothing. */
int hyper_sim_guest_parse(
	struct hyper_sim_guest *g, const char *text, struct rv_error *e) RV_MUST_CHECK;

/* --- the machine --- */

/* CPU features the simulated hosts may have, for compatibility checks. */
enum hyper_sim_cpu {
	HYPER_SIM_CPU_SSE42 = 1 << 0,
	HYPER_SIM_CPU_AES = 1 << 1,
	HYPER_SIM_CPU_AVX = 1 << 2,
	HYPER_SIM_CPU_AVX2 = 1 << 3,
	HYPER_SIM_CPU_BMI2 = 1 << 4,
	HYPER_SIM_CPU_RDRAND = 1 << 5,
	HYPER_SIM_CPU_AVX512F = 1 << 6,
	HYPER_SIM_CPU_SHA = 1 << 7,
};

struct hyper_sim_config {
	uint64_t seed; /* boot ids, faults, page contents */
	uint64_t memory_kib, dom0_kib;
	uint32_t cpus, nodes;
	uint32_t cpu_features; /* enum hyper_sim_cpu */
	uint32_t version_major, version_minor;
	uint32_t caps;			   /* enum hyper_cap */
	struct hyper_sim_guest guest;	   /* what a guest is unless told otherwise */
	int64_t step_us;		   /* latency of each call; may be 0 */
	int64_t call_us[HYPER_CALL_COUNT]; /* of one kind instead, when not 0 */
	int64_t balloon_tick_us;	   /* how often moving balloons are looked at */
	/* How fast a save copies memory. 0: as fast as it can; on a simulated loop 1
	 * GiB/s, since its clock would stand still. */
	uint64_t stream_kib_per_s;
	bool stream_zero_pages; /* send them in full, as libxenguest does */
	/* Seeded faults, in a million calls, per enum hyper_sim_fault. */
	uint32_t fault_ppm[8];
	/* Where the machine lives, one of: a file (made when missing, reopened when
	 * there; the real loop only), a machine of the caller's (borrowed, must outlive
	 * the driver), or neither: it ends with the driver. */
	const char *state_path;
	struct hyper_sim_machine *machine;
};

/* 16 GiB (1 GiB dom0), 8 cpus, every feature but AVX-512 and SHA, Xen 4.17, all
 * capabilities but HYPER_CAP_LIVE_PV (as Debian's), no latency, no faults. */
void hyper_sim_config_init(struct hyper_sim_config *config);

/* A machine in memory, for simulations: config's seed, memory, cpus count. Returned
 * owned. */
int hyper_sim_machine_new(struct hyper_sim_machine **out,
	const struct hyper_sim_config *config) RV_MUST_CHECK;
void hyper_sim_machine_free(struct hyper_sim_machine *m); /* NULL-safe; no driver on it */
/* Power loss: every domain is gone, the boot id is a new one. No driver may be on it. */
void hyper_sim_machine_reboot(struct hyper_sim_machine *m);

/* What reeve-fenced does to a domain, at once: it is paused where it runs, and with
 * `destroy` it is gone. With a driver on the machine (`h`) it is told as after any other
 * tool's doing, from the loop; without one h is NULL. A domain of that number and another
 * handle is left alone. */
void hyper_sim_fence(struct hyper_sim_machine *m, struct hyper *h, uint32_t domid,
	const struct uuid *handle, bool destroy, int64_t now_us);
/* Tells of those that were destroyed now, before what was asked earlier is answered: for
 * a daemon that was stopped meanwhile. */
void hyper_sim_fence_tell(struct hyper *h);

/* Starts a driver, returned owned (hyper_free). A state file that another process holds:
 * RV_EBUSY; one that is no state file or of another version: RV_ECORRUPT, with what to
 * do. A file from before this machine's last boot is a host that rebooted: its domains
 * are gone. Several drivers (hosts) may share one simulated loop. */
int hyper_sim_new(struct hyper **out, struct loop *l,
	const struct hyper_sim_config *config, struct rv_error *e) RV_MUST_CHECK;

/* --- the test's hand --- */

/* All of these take a struct hyper made by hyper_sim_new. */

enum hyper_sim_fault {
	HYPER_SIM_FAULT_NONE,
	HYPER_SIM_FAULT_ERROR,	      /* RV_EHYPERVISOR, nothing happened */
	HYPER_SIM_FAULT_EFFECT_ERROR, /* it happened, the answer is an error */
	HYPER_SIM_FAULT_LATE,	      /* it happens delay_us late, whatever cancel says */
	HYPER_SIM_FAULT_LOST,	      /* it happens, no answer before hyper_cancel */
	HYPER_SIM_FAULT_CRASH, /* the helper dies half-way: half-made domains stay */
	HYPER_SIM_FAULT_COUNT
};
const char *hyper_sim_fault_name(enum hyper_sim_fault fault);

/* The next `count` calls of this kind (HYPER_CALL_NONE: of any that changes something)
 * fail like this. delay_us: for LATE; 0: 30 s. */
void hyper_sim_inject(struct hyper *h, enum hyper_call call, enum hyper_sim_fault fault,
	uint32_t count, int64_t delay_us);
uint64_t hyper_sim_faults_fired(const struct hyper *h, enum hyper_sim_fault fault);

/* From now on this VM's guest is like that: its domain here (memory contents and what it
 * has done so far stay) and those made here later. Kept by the driver, not the machine.
 */
int hyper_sim_set_guest(struct hyper *h, const struct uuid *vm,
	const struct hyper_sim_guest *g) RV_MUST_CHECK;

/* The guest ends by itself now; RV_ENOENT, or RV_ESTATE unless it runs. */
int hyper_sim_end_guest(
	struct hyper *h, const struct uuid *vm, enum hyper_reason reason) RV_MUST_CHECK;

/* A domain made behind our back, running; and one destroyed so (`xl destroy`). The events
 * follow from the loop. */
int hyper_sim_make_ghost(struct hyper *h, const char *name, uint64_t memory_kib,
	struct hyper_domain_id *id) RV_MUST_CHECK;
int hyper_sim_destroy_behind(struct hyper *h, uint32_t domid) RV_MUST_CHECK;

/* xenstored stops or comes back: while it is away, calls that need it wait. */
void hyper_sim_set_stored(struct hyper *h, bool up);

/* What the guest itself would say. */
struct hyper_sim_view {
	uint64_t ran_us; /* its own fine counter: counts only while it runs */
	/* The longest time that the counter stood still while the world went on, since it
	 * first ran: pauses, and the downtime of migrations. Read it after it runs again.
	 */
	uint64_t longest_gap_us, last_gap_us;
	bool booted;
	uint64_t writes;	/* pages written so far */
	uint64_t damaged_pages; /* lost or wrong after restores */
	uint32_t restores;
};
int hyper_sim_look(struct hyper *h, const struct uuid *vm,
	struct hyper_sim_view *view) RV_MUST_CHECK;

/* A hash over the contents of every page it holds. Slow: it makes each page's bytes. */
int hyper_sim_memory_hash(
	struct hyper *h, const struct uuid *vm, uint64_t *hash) RV_MUST_CHECK;

/* Checks the machine: memory adds up, no domain above its maxmem or static_max, no free
 * memory below zero, handles and domids unique. RV_EINTERNAL and what is broken. */
int hyper_sim_check(struct hyper *h, struct rv_error *e) RV_MUST_CHECK;

#endif
