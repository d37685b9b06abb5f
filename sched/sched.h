/*
 * Placement: which host a VM starts on, and why not on each of the others.
 *
 * Pure: pool picture + request + seed -> decision. Nothing here reads a clock, logs or
 * does I/O; the same calls give the same answers, and the order in which hosts were added
 * changes nothing. The caller (vm/, `reeve plan`, migrate/) keeps one `struct sched`
 * up to date as the database and the hosts' metrics change, so that a decision costs no
 * rescan of the world: filters that don't depend on the request's size are answered once
 * per class of equal hosts, and hosts that can't hold the request are skipped in blocks.
 *
 * It never reserves anything. The chosen host's memory controller has the last word; when
 * it refuses, the caller asks again with that host in `exclude`.
 *
 * Every filter must pass, whatever the policy and even when the host is named; there is
 * no "ignore memory". Memory counts in two steps: free now, else free after squeezing.
 */
#ifndef REEVE_SCHED_SCHED_H
#define REEVE_SCHED_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"
#include "sched/reeve-sched.h"

enum {
	SCHED_MAX_HOSTS = 65536,
	SCHED_MAX_HOST_SRS = 4096, /* and networks: attached to one host */
	SCHED_FEATURE_WORDS = 8,   /* 512 bits of CPU policy */
	SCHED_REASON_MAX = 512,	   /* bytes of one formatted reason */
};

/* CPU features as a bit set; which bit is what is the caller's business. */
struct sched_features {
	uint64_t w[SCHED_FEATURE_WORDS];
};

/* The part of a host that its metrics change every few seconds. */
struct sched_load {
	uint64_t memory_total_kib;
	uint64_t memory_free_kib; /* free pages - claims, before promises and reserve */
	uint64_t memory_promised_kib;	/* grants and intents that `free` still counts */
	uint64_t memory_reserve_kib;	/* kept back: dom0, N+1 */
	uint64_t memory_squeezable_kib; /* actual - dynamic-min of guests proven to
					   balloon */
	uint32_t cpu_load_ppm;		/* smoothed; of all pCPUs together */
	uint32_t vcpus;			/* of VMs that run or were just sent there */
	uint32_t vms;			/* of which so many */
	uint32_t oldest_vm_s;		/* age of the longest-running one; 0: none */
	uint32_t mean_vm_s;		/* mean age weighted by vCPUs; 0: not known */
	uint32_t in_use_s;		/* since it last was without VMs; 0: not known */
	bool stale; /* metrics older than they should be: the host is used only if named,
		       or if no host with fresh ones fits */
};

/* A host as the database and its metrics describe it. Arrays are borrowed for the call.
 */
struct sched_host {
	struct uuid uuid;
	bool enabled;  /* host.enabled, and not being evacuated */
	bool live;     /* its heartbeat arrives */
	bool clock_ok; /* skew within the limit */
	uint32_t pcpus;
	uint32_t vcpus_limit;	 /* most vCPUs in all; 0: overcommit freely */
	uint32_t xen_version;	 /* major << 16 | minor */
	uint32_t failure_domain; /* 0: not known */
	struct sched_features features;
	const struct uuid *srs; /* with a plugged PBD here */
	size_t n_srs;
	const struct uuid *networks; /* with a plugged PIF here, and host-internal ones */
	size_t n_networks;
	struct sched_load load;
};

/* A host that must not be used, and what for; e.g. it just refused, or runs a VM of the
 * same anti-affinity group. */
enum sched_excluded {
	SCHED_EXCLUDED_CALLER,	    /* no more to say */
	SCHED_EXCLUDED_REFUSED,	    /* its memory controller just refused */
	SCHED_EXCLUDED_ANTI_AFFINE, /* `because` is the VM to stay away from */
	SCHED_EXCLUDED_SOURCE,	    /* the VM is there already (migration, evacuation) */
	SCHED_EXCLUDED_HOST,	    /* it takes no VM, as `words` say */
};

struct sched_exclusion {
	struct uuid host;
	enum sched_excluded what;
	struct uuid because; /* a VM, or none */
	const char *words;   /* EXCLUDED_HOST; borrowed until the answer is in words */
};

/* What is to be placed. Zero-initialise, then fill in; all arrays are borrowed. */
struct sched_request {
	struct uuid vm;
	uint64_t memory_min_kib; /* the least it can start with, overhead included: its
				    dynamic-min for PV, static-max for PVH and HVM */
	uint64_t memory_max_kib; /* what it would use; 0 means the same as min */
	uint32_t vcpus;
	uint32_t min_xen_version; /* migration, resume: the same or newer; 0: any */
	bool needs_clock;	  /* migration: refuse hosts whose clock is off */
	struct sched_features features;
	const struct uuid *srs;
	size_t n_srs;
	const struct uuid *networks;
	size_t n_networks;
	struct uuid on;		 /* named by the user: this host or none; zero: any */
	struct uuid affinity;	 /* preferred if it passes every filter; zero: none */
	const struct uuid *only; /* required affinity: these hosts; n_only 0: any */
	size_t n_only;
	const struct sched_exclusion *exclude;
	size_t n_exclude;
	const struct uuid *avoid; /* preferred anti-affinity: only if nothing else fits */
	size_t n_avoid;
};

/* Why a host can't; in the order in which they are looked at. Each has the XenAPI error
 * name where one exists (sched_reason_xenapi). */
enum sched_why {
	SCHED_OK,
	SCHED_NOT_NAMED,    /* another host was named with on= */
	SCHED_NOT_LIVE,	    /* HOST_NOT_LIVE */
	SCHED_DISABLED,	    /* HOST_DISABLED */
	SCHED_EXCLUDED,	    /* `what`, `object` the VM to stay away from */
	SCHED_NOT_AFFINE,   /* not among `only` */
	SCHED_CPU_FEATURES, /* VM_INCOMPATIBLE_WITH_THIS_HOST; have/need: bits missing */
	SCHED_XEN_VERSION,  /* have, need: major << 16 | minor */
	SCHED_CLOCK,	    /* CLOCK_SKEW */
	SCHED_NO_SR,	    /* SR_NOT_ATTACHED... `object` the SR; `more` others */
	SCHED_NO_NETWORK,   /* `object` the network; `more` others */
	SCHED_PCPUS,	    /* HOST_NOT_ENOUGH_PCPUS; have pCPUs, need vCPUs */
	SCHED_METRICS,	    /* absurd: free beyond total; not used until they recover;
			     * have: the total in KiB, 0: not told yet */
	SCHED_VCPUS_LIMIT,  /* have: left below the limit */
	SCHED_MEMORY,	    /* HOST_NOT_ENOUGH_FREE_MEMORY; have, squeezable, need */
	SCHED_WHY_COUNT
};

struct sched_reason {
	struct uuid host;
	enum sched_why why;
	enum sched_excluded what;
	struct uuid object;	 /* the SR, network or VM that is in the way */
	const char *words;	 /* SCHED_EXCLUDED_HOST: the request's */
	uint32_t more;		 /* further such objects */
	uint64_t need, have;	 /* KiB, CPUs, versions: see `why` */
	uint64_t squeezable_kib; /* SCHED_MEMORY, SCHED_OK */
	uint64_t squeeze_kib;	 /* SCHED_OK: would have to be freed first; 0: free now */
	int64_t score;		 /* SCHED_OK: of the policy; higher is better */
	bool stale;		 /* SCHED_OK: on old metrics */
	bool chosen;
};

struct sched_decision {
	bool placed;
	struct uuid host;     /* if placed */
	uint64_t squeeze_kib; /* to be freed there first by squeezing; 0: free now */
	uint32_t candidates;  /* hosts that pass every filter (sched_explain only) */
	int64_t score;
};

/* The pool's picture. `max_hosts` bounds it (at most SCHED_MAX_HOSTS). NULL without
 * memory. */
struct sched *sched_new(size_t max_hosts);
void sched_free(struct sched *s);

/* Adds the host or replaces everything known of it. RV_EPARAM (too many SRs),
 * RV_ELIMIT, RV_ENOMEM; on error the former description stays. */
int sched_host_set(
	struct sched *s, const struct sched_host *h, struct rv_error *e) RV_MUST_CHECK;

/* Only the metrics of a known host, charges included: constant time, no allocation.
 * RV_ENOENT. */
int sched_host_load(struct sched *s, const struct uuid *host,
	const struct sched_load *l) RV_MUST_CHECK;

/* A VM was just sent there: counts it until the next metrics. Negative deltas undo.
 * RV_ENOENT. */
int sched_host_charge(struct sched *s, const struct uuid *host, int64_t memory_kib,
	int32_t vcpus, int32_t vms) RV_MUST_CHECK;

void sched_host_remove(struct sched *s, const struct uuid *host); /* unknown: nothing */
size_t sched_host_count(const struct sched *s);

/* The built-in policies, and the one of that name or NULL. */
extern const struct reeve_sched_policy sched_greedy;
extern const struct reeve_sched_policy sched_conservative;
const struct reeve_sched_policy *sched_builtin(const char *name);

/* Whether a policy table can be used at all: version, size, name, callbacks. RV_EINVAL
 * with the reason. */
int sched_check_policy(
	const struct reeve_sched_policy *p, struct rv_error *e) RV_MUST_CHECK;

/* Chooses a host. 0 with d->placed; RV_ENOHOST when none passes (sched_explain tells
 * why); RV_ENOENT when `on` is no host of the pool; RV_EINVAL with words when the policy
 * answered nonsense (d is then empty, and
 * the caller falls back, see sched_decide_or_fall_back). Ties, and nothing else, are
 * decided by `seed`. */
int sched_decide(const struct sched *s, const struct sched_request *r,
	const struct reeve_sched_policy *p, uint64_t seed, struct sched_decision *d,
	struct rv_error *e) RV_MUST_CHECK;

/* As sched_decide with `p`; when that errs, with `fallback` (a built-in). *fell_back and
 * `e` then say so, with return value 0 or RV_ENOHOST of the fallback. Timing a policy
 * is the caller's business: no clock here. */
int sched_decide_or_fall_back(const struct sched *s, const struct sched_request *r,
	const struct reeve_sched_policy *p, const struct reeve_sched_policy *fallback,
	uint64_t seed, struct sched_decision *d, bool *fell_back,
	struct rv_error *e) RV_MUST_CHECK;

/* Decides, and tells a reason for every host: reasons[0..*count), sorted by host UUID;
 * size must be sched_host_count at least. Linear in hosts. Same return values; a host
 * named with `on` that is not in the pool gives RV_ENOENT. */
int sched_explain(const struct sched *s, const struct sched_request *r,
	const struct reeve_sched_policy *p, uint64_t seed, struct sched_decision *d,
	struct sched_reason *reasons, size_t size, size_t *count,
	struct rv_error *e) RV_MUST_CHECK;

/* Checks an answer from elsewhere (a plugin in a process of its own, a person, an older
 * picture) against every filter as of now. 0, or RV_ENOENT, RV_ENOHOST and *why. */
int sched_check_decision(const struct sched *s, const struct sched_request *r,
	const struct uuid *host, struct sched_reason *why) RV_MUST_CHECK;

/* Gives the name of a host, SR, network or VM, borrowed for the call, or NULL: then the
 * UUID is shown. */
typedef const char *sched_name_fn(void *arg, const struct uuid *object);

/* "host h2: needs 4GiB, has 1.5GiB free and 1GiB that squeezing could free
 * (HOST_NOT_ENOUGH_FREE_MEMORY)". Returns `text`. */
char *sched_format_reason(const struct sched_reason *why, sched_name_fn *name, void *arg,
	char *text, size_t size);

/* The XenAPI error name of a reason, e.g. "HOST_NOT_ENOUGH_FREE_MEMORY"; "" for OK. */
const char *sched_reason_xenapi(enum sched_why why);

/* The error a user sees, made from sched_explain's reasons. For a named host its reason,
 * with the code that fits it (RV_EMEMORY, RV_ENOTATTACHED, ...); otherwise RV_ENOHOST
 * and, per kind of reason, the most frequent first, the host that came nearest and how
 * many others share it. Returns the code. */
int sched_refuse(const struct sched_reason *reasons, size_t count, sched_name_fn *name,
	void *arg, struct rv_error *e);

#endif
