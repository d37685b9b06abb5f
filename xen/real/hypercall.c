#include "xen/real/hypercall.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xenctrl.h>
#include <xenguest.h>

struct calls {
	xc_interface *xc;
	xc_domaininfo_t *infos; /* HYPER_MAX_DOMAINS + 1 */
};

/* ENOSYS and EACCES come from a Xen whose domctl or sysctl has another number. */
static int failed(struct rv_error *e, const char *what, uint32_t domid)
{
	int err = errno;
	char whom[32] = "";

	if (domid != HYPER_DOMID_ANY)
		snprintf(whom, sizeof whom, " of domain %u", domid);
	if (err == ESRCH)
		return rv_error_set(
			e, RV_ENOENT, "there is no domain %u on this host", domid);
	if (err == ENOMEM)
		return rv_error_set(e, RV_EMEMORY, "Xen has no memory for %s%s: %s", what,
			whom, strerror(err));
	return rv_error_set(
		e, RV_EHYPERVISOR, "Xen refused %s%s: %s", what, whom, strerror(err));
}

static enum hyper_reason reason_of(unsigned code)
{
	static const enum hyper_reason reasons[] = {
		[SHUTDOWN_poweroff] = HYPER_REASON_POWEROFF,
		[SHUTDOWN_reboot] = HYPER_REASON_REBOOT,
		[SHUTDOWN_suspend] = HYPER_REASON_SUSPEND,
		[SHUTDOWN_crash] = HYPER_REASON_CRASH,
		[SHUTDOWN_watchdog] = HYPER_REASON_WATCHDOG,
		/* "Start me anew in place", for kexec: to us a reboot. */
		[SHUTDOWN_soft_reset] = HYPER_REASON_REBOOT,
	};

	return code < sizeof reasons / sizeof reasons[0] ? reasons[code]
							 : HYPER_REASON_CRASH;
}

static void convert(const xc_domaininfo_t *in, struct xen_dominfo *out)
{
	unsigned code = in->flags >> XEN_DOMINF_shutdownshift & XEN_DOMINF_shutdownmask;

	memset(out, 0, sizeof *out);
	out->domid = in->domain;
	memcpy(out->handle.b, in->handle, sizeof out->handle.b);
	out->dying = in->flags & XEN_DOMINF_dying;
	out->shutdown = in->flags & XEN_DOMINF_shutdown;
	out->paused = in->flags & XEN_DOMINF_paused;
	out->hvm = in->flags & XEN_DOMINF_hvm_guest;
	out->service = in->flags & XEN_DOMINF_xs_domain;
	out->reason = out->shutdown ? reason_of(code) : HYPER_REASON_NONE;
	out->pages = in->tot_pages;
	out->max_pages = in->max_pages;
	out->claimed_pages = in->outstanding_pages;
	out->vcpus_online = in->nr_online_vcpus;
	out->cpu_ns = (int64_t)in->cpu_time;
}

static int call_list(
	void *arg, struct xen_dominfo *out, size_t max, size_t *count, struct rv_error *e)
{
	struct calls *c = arg;
	int r;

	*count = 0;
	if (max > HYPER_MAX_DOMAINS + 1)
		max = HYPER_MAX_DOMAINS + 1;
	r = xc_domain_getinfolist(c->xc, 0, (unsigned)max, c->infos);
	if (r < 0)
		return failed(e, "the list of domains", HYPER_DOMID_ANY);
	for (int i = 0; i < r; i++)
		convert(&c->infos[i], &out[i]);
	*count = (size_t)r;
	return 0;
}

static int call_host(void *arg, struct xen_hostinfo *out, struct rv_error *e)
{
	struct calls *c = arg;
	xc_physinfo_t info;

	memset(&info, 0, sizeof info);
	memset(out, 0, sizeof *out);
	if (xc_physinfo(c->xc, &info) != 0)
		return failed(e, "the host's state", HYPER_DOMID_ANY);
	out->total_pages = info.total_pages;
	/* Pages still to be scrubbed are part of the free ones. */
	out->free_pages = info.free_pages;
	out->claimed_pages = info.outstanding_pages;
	out->cpus = info.nr_cpus;
	out->nodes = info.nr_nodes;
	out->cores_per_socket = info.cores_per_socket;
	out->threads_per_core = info.threads_per_core;
	out->cpu_mhz = info.cpu_khz / 1000;
	out->hvm = info.capabilities & XEN_SYSCTL_PHYSCAP_hvm;
	out->pv = info.capabilities & XEN_SYSCTL_PHYSCAP_pv;
	out->hap = info.capabilities & XEN_SYSCTL_PHYSCAP_hap;
	out->shadow = info.capabilities & XEN_SYSCTL_PHYSCAP_shadow;
	if (xc_version(c->xc, XENVER_commandline, out->cmdline) < 0)
		return failed(e, "its command line", HYPER_DOMID_ANY);
	out->cmdline[sizeof out->cmdline - 1] = '\0';
	return 0;
}

/* --- cpu policies --- */

struct cpu_buffers {
	xen_cpuid_leaf_t *leaves;
	xen_msr_entry_t *msrs;
	uint32_t max_leaves, max_msrs;
};

static int compare_leaves(const void *a, const void *b)
{
	const struct xen_cpu_leaf *x = a, *y = b;

	if (x->leaf != y->leaf)
		return x->leaf < y->leaf ? -1 : 1;
	return x->subleaf < y->subleaf ? -1 : x->subleaf > y->subleaf;
}

static int compare_msrs(const void *a, const void *b)
{
	const struct xen_cpu_msr *x = a, *y = b;

	return x->index < y->index ? -1 : x->index > y->index;
}

static int read_level(struct calls *c, unsigned index, struct cpu_buffers *b,
	struct xen_cpu_level *out, struct rv_error *e)
{
	xc_cpu_policy_t *policy = xc_cpu_policy_init();
	uint32_t leaves = b->max_leaves, msrs = b->max_msrs;
	int r = policy == NULL ? -1 : xc_cpu_policy_get_system(c->xc, index, policy);

	if (r == 0)
		r = xc_cpu_policy_serialise(
			c->xc, policy, b->leaves, &leaves, b->msrs, &msrs);
	if (policy != NULL)
		xc_cpu_policy_destroy(policy);
	if (r != 0)
		return failed(e, "its CPU policy", HYPER_DOMID_ANY);
	if (leaves > XEN_CPU_MAX_LEAVES || msrs > XEN_CPU_MAX_MSRS)
		return rv_error_set(e, RV_ETOOBIG,
			"this host's CPU policy has %u leaves and %u MSRs, more than %d "
			"and %d",
			leaves, msrs, XEN_CPU_MAX_LEAVES, XEN_CPU_MAX_MSRS);
	out->leaf_count = leaves;
	out->msr_count = msrs;
	for (uint32_t i = 0; i < leaves; i++) {
		const xen_cpuid_leaf_t *l = &b->leaves[i];

		out->leaves[i] = (struct xen_cpu_leaf){
			l->leaf, l->subleaf, {l->a, l->b, l->c, l->d}};
	}
	for (uint32_t i = 0; i < msrs; i++)
		out->msrs[i] = (struct xen_cpu_msr){b->msrs[i].idx, b->msrs[i].val};
	qsort(out->leaves, leaves, sizeof out->leaves[0], compare_leaves);
	qsort(out->msrs, msrs, sizeof out->msrs[0], compare_msrs);
	return 0;
}

static int call_cpu_policy(void *arg, struct xen_cpu_policy *out, struct rv_error *e)
{
	struct calls *c = arg;
	struct cpu_buffers b = {0};
	struct xen_hostinfo host;
	int rc;

	memset(out, 0, sizeof *out);
	rc = call_host(c, &host, e);
	if (rc != 0)
		return rc;
	if (xc_cpu_policy_get_size(c->xc, &b.max_leaves, &b.max_msrs) != 0)
		return failed(e, "the size of its CPU policy", HYPER_DOMID_ANY);
	b.leaves = calloc(b.max_leaves + 1, sizeof *b.leaves);
	b.msrs = calloc(b.max_msrs + 1, sizeof *b.msrs);
	if (b.leaves == NULL || b.msrs == NULL)
		rc = rv_error_set(e, RV_ENOMEM, "no memory for the CPU policy");
	if (rc == 0 && host.hvm)
		rc = read_level(c, XEN_SYSCTL_cpu_policy_hvm_default, &b, &out->hvm, e);
	if (rc == 0 && host.pv)
		rc = read_level(c, XEN_SYSCTL_cpu_policy_pv_default, &b, &out->pv, e);
	free(b.leaves);
	free(b.msrs);
	return rc;
}

/* --- of one domain --- */

static int call_pause(void *arg, uint32_t domid, struct rv_error *e)
{
	struct calls *c = arg;

	return xc_domain_pause(c->xc, domid) == 0 ? 0 : failed(e, "the pause", domid);
}

static int call_unpause(void *arg, uint32_t domid, struct rv_error *e)
{
	struct calls *c = arg;

	return xc_domain_unpause(c->xc, domid) == 0 ? 0 : failed(e, "the unpause", domid);
}

static int call_set_max_kib(void *arg, uint32_t domid, uint64_t kib, struct rv_error *e)
{
	struct calls *c = arg;

	return xc_domain_setmaxmem(c->xc, domid, kib) == 0
		       ? 0
		       : failed(e, "the memory limit", domid);
}

static int call_pod(void *arg, uint32_t domid, uint64_t *pages, struct rv_error *e)
{
	struct calls *c = arg;
	uint64_t total, cache, entries;

	*pages = 0;
	if (xc_domain_get_pod_target(c->xc, domid, &total, &cache, &entries) != 0)
		return failed(e, "the populate-on-demand target", domid);
	*pages = entries;
	return 0;
}

static int call_set_pod_target(
	void *arg, uint32_t domid, uint64_t pages, struct rv_error *e)
{
	struct calls *c = arg;

	return xc_domain_set_pod_target(c->xc, domid, pages, NULL, NULL, NULL) == 0
		       ? 0
		       : failed(e, "the populate-on-demand target", domid);
}

static void call_close(void *arg)
{
	struct calls *c = arg;

	xc_interface_close(c->xc);
	free(c->infos);
	free(c);
}

static const struct xen_hypercalls table = {
	.list = call_list,
	.host = call_host,
	.cpu_policy = call_cpu_policy,
	.pause = call_pause,
	.unpause = call_unpause,
	.set_max_kib = call_set_max_kib,
	.pod = call_pod,
	.set_pod_target = call_set_pod_target,
	.close = call_close,
};

int xen_hypercalls_open(
	const struct xen_hypercalls **calls, void **arg, struct rv_error *e)
{
	struct calls *c = calloc(1, sizeof *c);
	struct xen_hostinfo host;
	int rc;

	*calls = NULL;
	*arg = NULL;
	if (c != NULL)
		c->infos = calloc(HYPER_MAX_DOMAINS + 1, sizeof *c->infos);
	if (c == NULL || c->infos == NULL) {
		free(c);
		return rv_error_set(e, RV_ENOMEM, "no memory for the Xen driver");
	}
	c->xc = xc_interface_open(NULL, NULL, XC_OPENFLAG_NON_REENTRANT);
	if (c->xc == NULL) {
		rc = rv_error_set(e, errno == EACCES ? RV_EPERM : RV_EHYPERVISOR,
			"/dev/xen/privcmd can't be opened: %s; run reeved as root in "
			"dom0",
			strerror(errno));
		free(c->infos);
		free(c);
		return rc;
	}
	rc = call_host(c, &host, e);
	if (rc != 0) {
		call_close(c);
		return rv_error_prefix(e,
			"the running Xen and this driver's libxenctrl don't fit "
			"together (reboot after an upgrade of Xen)");
	}
	*calls = &table;
	*arg = c;
	return 0;
}
