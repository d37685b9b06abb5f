/*
 * The hypercalls of the driver: a table, so that the driver is tested on a machine
 * without Xen against an imitation. Each call is short and never waits.
 */
#ifndef REEVE_XEN_REAL_HYPERCALL_H
#define REEVE_XEN_REAL_HYPERCALL_H

#include "xen/hyper.h"
#include "xen/real/cpu_policy.h"

/* One domain, as xc_domain_getinfolist tells it. */
struct xen_dominfo {
	uint32_t domid;
	struct uuid handle;
	bool dying, shutdown, paused, hvm;
	bool service; /* xenstored's own domain: not ours to touch */
	enum hyper_reason reason;
	uint64_t pages, max_pages;
	uint64_t claimed_pages;
	uint32_t vcpus_online;
	int64_t cpu_ns;
};

struct xen_hostinfo {
	uint64_t total_pages, free_pages, claimed_pages;
	uint32_t cpus, nodes, cores_per_socket, threads_per_core, cpu_mhz;
	bool hvm, pv, hap, shadow;
	char cmdline[1024]; /* Xen's */
};

struct xen_hypercalls {
	/* All domains, dom0 first. At most `max`; *count says how many. */
	int (*list)(void *arg, struct xen_dominfo *out, size_t max, size_t *count,
		struct rv_error *e);
	int (*host)(void *arg, struct xen_hostinfo *out, struct rv_error *e);
	int (*cpu_policy)(void *arg, struct xen_cpu_policy *out, struct rv_error *e);
	/* A domain's pause is counted in Xen, up to 255: unpause takes one away. */
	int (*pause)(void *arg, uint32_t domid, struct rv_error *e);
	int (*unpause)(void *arg, uint32_t domid, struct rv_error *e);
	int (*set_max_kib)(void *arg, uint32_t domid, uint64_t kib, struct rv_error *e);
	/* Pages of populate-on-demand that are still outstanding. */
	int (*pod)(void *arg, uint32_t domid, uint64_t *pages, struct rv_error *e);
	int (*set_pod_target)(
		void *arg, uint32_t domid, uint64_t pages, struct rv_error *e);
	void (*close)(void *arg);
};

/* On libxenctrl. Returned owned (`close`). RV_EPERM: not root; RV_EUNSUPPORTED: the
 * running Xen speaks another version of the interface; RV_EHYPERVISOR. */
int xen_hypercalls_open(const struct xen_hypercalls **calls, void **arg,
	struct rv_error *e) RV_MUST_CHECK;

#endif
