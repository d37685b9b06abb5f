/*
 * Opens the driver for real Xen.
 *
 * What links libxenctrl is bound to one Xen release, so the driver is a shared object
 * per release, reeve-xen-MAJOR.MINOR.so, that this loader picks by what hyper_detect
 * found, and opens. One that is missing, of another Xen or of another build of Reeve is
 * refused in words that say which one is needed. The module calls back into the program
 * that opens it (reactor, log, hyper.c), which therefore exports its symbols:
 * reeve_hosts_drivers() of xen/CMakeLists.txt.
 */
#ifndef REEVE_XEN_REAL_H
#define REEVE_XEN_REAL_H

#include "reactor/loop.h"
#include "xen/detect.h"
#include "xen/hyper.h"

struct hyper_real_config {
	/* Where the driver is. NULL or empty: the build tree this program runs from
	 * (../xen/real beside it), then HYPER_REAL_DRIVER_DIR. Borrowed for the call. */
	const char *driver_dir;
	/* reeve-xen-helper, and its hotplug scripts. NULL or empty: HELPER_NAME in the
	 * driver's folder or, in a build tree, ../helper beside it. */
	const char *helper;
	const char *scripts; /* NULL or empty: the helper's own folder */
	/* xenstored's socket. NULL or empty: $XENSTORED_PATH, /run/xenstored/socket, then
	 * /dev/xen/xenbus. */
	const char *xenstored;
	/* So long may xenstored leave a request unanswered before it counts as lost. 0:
	 * 5 s. */
	int64_t stored_patience_ms;
};

#define HYPER_REAL_DRIVER_DIR  "/usr/lib/reeve"
#define HYPER_REAL_HELPER_NAME "reeve-xen-helper"

/* Returned owned (hyper_free). RV_EUNSUPPORTED: not dom0, or no driver for this Xen;
 * RV_EHYPERVISOR, RV_EPERM: Xen doesn't talk to us; xenstored not there is no error: it
 * begins as lost (HYPER_EV_STORED_LOST). The module stays loaded for good. */
int hyper_real_new(struct hyper **out, struct loop *l,
	const struct hyper_detection *found, const struct hyper_real_config *config,
	struct rv_error *e) RV_MUST_CHECK;

/* --- what a module exports --- */

/* Counted up when the shape of anything that crosses between program and module
 * changes without the sizes below telling. */
#define HYPER_REAL_ABI 1

struct hyper_real_module {
	uint32_t abi;
	uint32_t version_major, version_minor; /* of the Xen it was built for */
	const char *reeve_version;
	size_t req_size, host_size; /* of struct hyper_req, hyper_host */
	int (*open)(struct hyper **out, struct loop *l,
		const struct hyper_detection *found,
		const struct hyper_real_config *config, struct rv_error *e);
};

#define HYPER_REAL_SYMBOL "reeve_hyper_real_module"

/* Can this program, on this Xen, use that module? Pure; for the loader and its test. */
int hyper_real_module_check(const struct hyper_real_module *module,
	const struct hyper_detection *found, const char *path,
	struct rv_error *e) RV_MUST_CHECK;

#endif
