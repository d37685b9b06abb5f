/* Making a domain: from its kernel, or out of a saved stream. */
#include "xen/helper/work.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
	CLAIM_AGAIN_US = 10 * 1000,
	CLAIM_PATIENCE_US = 20 * 1000 * 1000,
};

/* What it is built with: see struct hyper_domain_spec. A restore takes what the saved
 * guest held, which may lie a little above static_max (special pages: within the MiB that
 * libxl adds to maxmem). */
static uint64_t boot_kib(const struct helper_request *req)
{
	const struct helper_domain *d = &req->domain;
	uint64_t kib = d->static_max_kib;

	if (req->call == HYPER_CALL_RESTORE)
		kib = d->actual_kib > d->target_kib ? d->actual_kib : d->target_kib;
	else if (d->type == HYPER_PV || d->populate_on_demand)
		kib = d->target_kib;
	return kib < d->static_max_kib ? kib : d->static_max_kib;
}

/* The refusals that come before anything is begun. */
static int admit(struct work *w, uint64_t kib)
{
	const struct helper_domain *d = &w->req->domain;
	uint64_t need = kib + hyper_xen_overhead_kib((enum hyper_type)d->type,
				      d->vcpus_max, d->static_max_kib);
	xc_domaininfo_t info;
	xc_physinfo_t host;
	uint64_t free_kib;
	int rc = work_find(w, &w->req->handle, HYPER_DOMID_ANY, &info);

	if (rc == 0)
		return work_fail(w, RV_EEXIST,
			"domain %u bears this handle already: destroy it first",
			info.domain);
	if (rc != RV_ENOENT)
		return rc;
	if (d->target_kib > d->static_max_kib || d->target_kib == 0)
		return work_fail(w, RV_EINVAL,
			"memory of %" PRIu64 " KiB within %" PRIu64
			" KiB is not possible",
			d->target_kib, d->static_max_kib);
	if (xc_physinfo(w->xc, &host) != 0)
		return work_fail(w, RV_EHYPERVISOR, "can't ask for free memory: %s",
			strerror(errno));
	free_kib = (host.free_pages - host.outstanding_pages) * (XC_PAGE_SIZE / 1024);
	if (host.outstanding_pages > host.free_pages || need > free_kib)
		return work_fail(w, RV_EMEMORY,
			"the guest takes %" PRIu64 " KiB and the host has %" PRIu64
			" KiB free: shrink or stop other guests",
			need, free_kib);
	return 0;
}

/* --- the claim of a restore --- */

struct claimer {
	struct work *w;
	uint64_t kib;
	xc_interface *xc; /* its own: a handle is one thread's */
	pthread_t thread;
	bool runs, over; /* over: the restore has ended; atomic */
};

/* Until Xen takes the claim: the domain must be there and have its maxmem. */
static void *claim_until_taken(void *arg)
{
	struct claimer *c = arg;
	int64_t until = work_now_us() + CLAIM_PATIENCE_US;
	struct work own = {.req = c->w->req, .xc = c->xc};

	while (!__atomic_load_n(&c->over, __ATOMIC_ACQUIRE) && work_now_us() < until) {
		xc_domaininfo_t info;

		if (work_find(&own, &own.req->handle, HYPER_DOMID_ANY, &info) == 0 &&
			xc_domain_claim_pages(
				own.xc, info.domain, c->kib / (XC_PAGE_SIZE / 1024)) == 0)
			break;
		usleep(CLAIM_AGAIN_US);
	}
	return NULL;
}

/* libxl claims the memory of what it builds, but not of what it restores, and takes its
 * time over a stream. So a thread beside it claims what is still to come, as soon as the
 * domain is there: no other guest can take it meanwhile. */
static void claim_start(struct claimer *c, struct work *w, uint64_t kib)
{
	*c = (struct claimer){.w = w, .kib = kib};
	c->xc = xc_interface_open(NULL, NULL, 0);
	c->runs = c->xc && pthread_create(&c->thread, NULL, claim_until_taken, c) == 0;
}

static void claim_end(struct claimer *c)
{
	__atomic_store_n(&c->over, true, __ATOMIC_RELEASE);
	if (c->runs)
		pthread_join(c->thread, NULL);
	if (c->xc)
		xc_interface_close(c->xc);
}

/* --- building --- */

/* The stream's end must be the sender's end too: only then was all of it good. */
static int stream_ends(struct work *w)
{
	char byte;
	ssize_t r;

	if (w->saved)
		return 0; /* it has its own length */
	do
		r = read(w->data_fd, &byte, 1);
	while (r < 0 && errno == EINTR);
	if (r == 0)
		return 0;
	return work_fail(w, RV_ECORRUPT,
		"the saved domain's stream is damaged: there is more after its end");
}

/* Said at once, rather than by libxl after it has built half of the domain. */
static int files_there(struct work *w, const libxl_domain_config *c)
{
	int rc = 0;

	if (w->req->call == HYPER_CALL_CREATE)
		rc = work_file(w, c->b_info.kernel, "the kernel");
	if (!rc && w->req->call == HYPER_CALL_CREATE)
		rc = work_file(w, c->b_info.ramdisk, "the ramdisk");
	for (int i = 0; !rc && i < c->num_disks; i++)
		rc = work_file(w, c->disks[i].pdev_path, "the disk");
	return rc;
}

static int build(struct work *w, libxl_domain_config *c, uint32_t *domid)
{
	libxl_domain_restore_params params;
	struct claimer claimer;
	int r, rc;

	work_begun(w);
	if (w->req->call == HYPER_CALL_CREATE) {
		r = libxl_domain_create_new(w->ctx, c, domid, NULL, NULL);
		if (r != 0)
			work_hotplug_words(w, *domid);
		return r == 0 ? 0
			      : work_fail(w, RV_EHYPERVISOR,
					"the guest can't be built (%d)", r);
	}
	libxl_domain_restore_params_init(&params);
	params.stream_version = 2;
	rc = work_saved_check(w);
	if (rc)
		return rc;
	claim_start(&claimer, w, boot_kib(w->req));
	r = libxl_domain_create_restore(
		w->ctx, c, domid, w->data_fd, -1, &params, NULL, NULL);
	libxl_domain_restore_params_dispose(&params);
	claim_end(&claimer);
	if (r != 0) {
		work_hotplug_words(w, *domid);
		rc = work_fail(w, RV_EHYPERVISOR, "the guest can't be restored (%d)", r);
	}
	rc = work_saved_checked(w, rc);
	if (rc)
		return rc;
	(void)xc_domain_claim_pages(w->xc, *domid, 0); /* what it did not take */
	return stream_ends(w);
}

/* libxl tells the guest what it was built with; the guest is to go to its target. */
static int set_target(struct work *w, uint32_t domid)
{
	const struct helper_domain *d = &w->req->domain;
	uint64_t kib = d->target_kib;
	char text[32];

	if (w->req->call == HYPER_CALL_RESTORE && kib < boot_kib(w->req))
		kib = boot_kib(w->req);
	snprintf(text, sizeof text, "%" PRIu64, kib);
	if (work_write(w, text, "/local/domain/%u/memory/target", domid))
		return 0;
	return work_fail(w, RV_EHYPERVISOR,
		"can't write the guest's memory target to xenstore: %s", strerror(errno));
}

int work_create(struct work *w)
{
	libxl_domain_config config;
	uint32_t domid = INVALID_DOMID;
	uint64_t kib;
	int rc = 0;

	if (w->req->call == HYPER_CALL_RESTORE)
		rc = work_saved_open(w, &w->req->domain.actual_kib);
	if (!rc)
		rc = work_libxl(w);
	if (rc)
		return rc;
	kib = boot_kib(w->req);
	libxl_domain_config_init(&config);
	rc = work_config(w, &config, kib);
	if (!rc)
		rc = admit(w, kib);
	if (!rc)
		rc = files_there(w, &config);
	if (!rc)
		rc = build(w, &config, &domid);
	if (!rc && w->req->call == HYPER_CALL_CREATE)
		rc = work_cpu_level(w, domid);
	if (!rc)
		rc = set_target(w, domid);
	if (!rc)
		w->result.domid = domid;
	libxl_domain_config_dispose(&config);
	return rc;
}
