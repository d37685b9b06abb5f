/* What the loader of xen/load.c finds in this module. */
#include "xen/real/driver.h"

#include <stdio.h>

static const struct real_jobs jobs = {
	.start = xen_job_start,
	.cancel = xen_job_cancel,
	.kick = xen_job_kick,
	.abandon = xen_job_abandon,
};

static int module_open(struct hyper **out, struct loop *l,
	const struct hyper_detection *found, const struct hyper_real_config *config,
	struct rv_error *e)
{
	struct real_parts parts = {.jobs = &jobs, .config = config, .found = found};
	char driver[32];
	int rc;

	*out = NULL;
	snprintf(driver, sizeof driver, "xen-%d.%d", REEVE_XEN_MAJOR, REEVE_XEN_MINOR);
	parts.driver = driver;
	rc = xen_hypercalls_open(&parts.calls, &parts.calls_arg, e);
	return rc != 0 ? rc : real_new(out, l, &parts, e);
}

extern const struct hyper_real_module reeve_hyper_real_module;

const struct hyper_real_module reeve_hyper_real_module = {
	.abi = HYPER_REAL_ABI,
	.version_major = REEVE_XEN_MAJOR,
	.version_minor = REEVE_XEN_MINOR,
	.reeve_version = REEVE_VERSION,
	.req_size = sizeof(struct hyper_req),
	.host_size = sizeof(struct hyper_host),
	.open = module_open,
};
