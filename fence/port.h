/*
 * What reeve-fenced asks of a hypervisor, and what it makes of that. Two drivers: a
 * module for each release of Xen (fence/xen/, loaded by fence/load.c), and the simulated
 * host (fence/sim.h).
 *
 * Calls block, and all but `destroy` are short. They are made by reeve-fenced's main
 * thread; `destroy` by another one (fence/ender.h), one at a time, while the main thread
 * makes other calls.
 */
#ifndef REEVE_FENCE_PORT_H
#define REEVE_FENCE_PORT_H

#include <sys/types.h>

#include "fence/wire.h"

struct fence_port;

struct fence_found {
	bool there; /* a domain of that domid */
	struct uuid handle;
	bool stopped; /* its virtual CPUs stand still now: paused, suspended, ended */
	bool ended;   /* for good: dying */
};

struct fence_port_ops {
	const char *name;
	int (*find)(struct fence_port *p, uint32_t domid, struct fence_found *out,
		struct rv_error *e);
	/* Its virtual CPUs stand still when this returns. */
	int (*pause)(struct fence_port *p, uint32_t domid, struct rv_error *e);
	/* 0: it is gone or dying. Never touches a domain that bears another handle. */
	int (*destroy)(
		struct fence_port *p, const struct fence_domain *d, struct rv_error *e);
	/* The host restarts unless this is called again within FENCE_WATCHDOG_MS. */
	int (*quiet)(struct fence_port *p, struct rv_error *e);
	int (*off)(struct fence_port *p, struct rv_error *e);
	/* reeved is this process from now on; may be NULL. */
	void (*peer)(struct fence_port *p, pid_t pid);
	void (*close)(struct fence_port *p);
};

/* Drivers embed it first. */
struct fence_port {
	const struct fence_port_ops *ops;
	bool watching; /* a former reeve-fenced's watchdog was found, and taken over */
};

/* 0: the domain runs no more (or is gone, or its domid is another's by now). */
int fence_stop(struct fence_port *p, const struct fence_domain *d,
	struct rv_error *e) RV_MUST_CHECK;

/* Domids are reused: a domain that bears another handle is somebody else's. */
static inline bool fence_found_it(
	const struct fence_found *found, const struct fence_domain *d)
{
	return found->there && uuid_eq(&found->handle, &d->handle);
}

/* --- the module for real Xen --- */

#define FENCE_XEN_ABI	 2
#define FENCE_XEN_SYMBOL "reeve_fence_xen_module"

struct fence_xen_module {
	uint32_t abi;
	uint32_t version_major, version_minor; /* of the Xen it was built for */
	const char *reeve_version;
	/* `note`: a file that tells a later start the watchdog's number. */
	int (*open)(struct fence_port **out, const char *note, struct rv_error *e);
};

/* Loads the module for the Xen below us. `dir`: where it is; NULL: the build tree that
 * this program runs from, then /usr/lib/reeve. */
int fence_xen_load(struct fence_port **out, const char *dir, const char *note,
	struct rv_error *e) RV_MUST_CHECK;

#endif
