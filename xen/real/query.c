/* What the host is, what its domains use, and what its CPU offers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xen/real/cmdline.h"
#include "xen/real/driver.h"

/* --- the host --- */

static void read_cpu_model(char *model, size_t size)
{
	static const char key[] = "model name";
	FILE *f = fopen("/proc/cpuinfo", "re");
	char line[256];

	model[0] = '\0';
	while (f != NULL && fgets(line, sizeof line, f) != NULL) {
		const char *colon = strchr(line, ':');

		if (strncmp(line, key, sizeof key - 1) != 0 || colon == NULL)
			continue;
		line[strcspn(line, "\n")] = '\0';
		snprintf(model, size, "%s", colon + 1 + (colon[1] == ' '));
		break;
	}
	if (f != NULL)
		fclose(f);
}

/* Live migration needs the pages that a guest writes to be tracked: PVH and HVM guests by
 * hardware-assisted or shadow paging, PV ones by shadow paging alone, without which
 * XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY fails for them (xen/arch/x86/mm/paging.c). */
static uint32_t caps_of(const struct xen_hostinfo *info)
{
	uint32_t caps = HYPER_CAP_CLAIM | HYPER_CAP_CONSOLE | HYPER_CAP_WATCHDOG;

	if (info->pv)
		caps |= HYPER_CAP_PV;
	if (info->hvm)
		caps |= HYPER_CAP_PVH | HYPER_CAP_HVM;
	if (info->pv && info->shadow)
		caps |= HYPER_CAP_LIVE_PV;
	if (info->hvm && (info->hap || info->shadow))
		caps |= HYPER_CAP_LIVE_HVM;
	return caps;
}

static void take_host(struct real *r, const struct xen_hostinfo *info)
{
	struct hyper_host *h = &r->host;

	h->total_kib = info->total_pages * REAL_PAGE_KIB;
	h->free_kib = info->free_pages * REAL_PAGE_KIB;
	h->claimed_kib = info->claimed_pages * REAL_PAGE_KIB;
	if (h->claimed_kib > h->free_kib)
		h->claimed_kib = h->free_kib;
	h->dom0_kib = r->dom0_pages * REAL_PAGE_KIB;
	h->cpus = info->cpus;
	h->nodes = info->nodes;
	h->cores_per_socket = info->cores_per_socket;
	h->threads_per_core = info->threads_per_core;
	h->cpu_mhz = info->cpu_mhz;
	h->caps = caps_of(info);
	h->dom0_fixed = xen_cmdline_dom0_fixed(info->cmdline);
}

int real_host_init(struct real *r, const struct real_parts *parts, struct rv_error *e)
{
	struct hyper_host *h = &r->host;
	struct xen_hostinfo info;
	int rc = r->calls->host(r->calls_arg, &info, e);

	if (rc == 0)
		rc = r->calls->cpu_policy(r->calls_arg, &r->cpu, e);
	if (rc != 0)
		return rc;
	h->boot_id = r->boot_id;
	snprintf(h->driver, sizeof h->driver, "%s", parts->driver);
	snprintf(h->version, sizeof h->version, "%s", parts->found->version);
	h->version_major = parts->found->version_major;
	h->version_minor = parts->found->version_minor;
	read_cpu_model(h->cpu_model, sizeof h->cpu_model);
	h->cpu_policy_len = xen_cpu_policy_write(&r->cpu, h->cpu_policy);
	take_host(r, &info);
	return 0;
}

static int query_host(struct real *r, struct hyper_req *req)
{
	struct xen_hostinfo info;
	int rc = r->calls->host(r->calls_arg, &info, &req->error);

	if (rc != 0)
		return rc;
	take_host(r, &info);
	req->host = &r->host;
	return 0;
}

/* --- domains --- */

/* A domain that is not read yet would look like another tool's. */
static int query_list(struct real *r, struct hyper_req *req)
{
	size_t count = 0;

	REAL_FOR_EACH(real_domain, d, &r->domains)
	if (!d->loaded && d->holder == NULL)
		return RV_EAGAIN;
	REAL_FOR_EACH(real_domain, d, &r->domains)
	if (count < HYPER_MAX_DOMAINS)
		real_describe(d, &r->list[count++]);
	req->domains = r->list;
	req->domain_count = count;
	return 0;
}

static uint32_t ppm_of(int64_t busy_ns, int64_t of_us)
{
	double ppm = of_us > 0 ? (double)busy_ns * 1000.0 / (double)of_us : 0;

	return ppm > UINT32_MAX ? UINT32_MAX : ppm > 0 ? (uint32_t)ppm : 0;
}

/* Domains that are not read yet come with the next metrics. dom0's time counts as busy.
 */
static int query_metrics(struct real *r, struct hyper_req *req)
{
	int64_t now_us = loop_now_us(r->hyper.loop), busy_ns = 0;
	struct hyper_metrics *m = &r->metrics;
	size_t count = 0;
	int rc = query_host(r, req);

	req->host = NULL;
	if (rc != 0)
		return rc;
	m->interval_us = r->metrics_at_us > 0 ? now_us - r->metrics_at_us : 0;
	busy_ns = r->dom0_cpu_ns - r->dom0_metrics_ns;
	r->dom0_metrics_ns = r->dom0_cpu_ns;
	REAL_FOR_EACH(real_domain, d, &r->domains)
	{
		struct hyper_domain_metrics *dm = &r->metrics_list[count];
		int64_t used_ns = d->info.cpu_ns - d->metrics_cpu_ns;

		d->metrics_cpu_ns = d->info.cpu_ns;
		busy_ns += used_ns;
		if (!d->loaded || count == HYPER_MAX_DOMAINS)
			continue;
		count++;
		dm->id = real_id(d);
		dm->vm = d->label.vm;
		dm->cpu_ppm = ppm_of(used_ns, m->interval_us);
		dm->actual_kib = d->info.pages * REAL_PAGE_KIB;
		if (dm->actual_kib >= d->label.extra_kib)
			dm->actual_kib -= d->label.extra_kib;
	}
	m->cpu_busy_ppm = ppm_of(busy_ns, m->interval_us * (int64_t)r->host.cpus);
	if (m->cpu_busy_ppm > 1000000)
		m->cpu_busy_ppm = 1000000;
	m->free_kib = r->host.free_kib;
	m->domains = r->metrics_list;
	m->domain_count = count;
	r->metrics_at_us = now_us;
	req->metrics = m;
	return 0;
}

static int query_info(struct real_call *call)
{
	struct hyper_req *req = call->req;
	struct real_domain *d;
	int rc = real_find(call->real, &req->id, &d, &req->error);

	if (rc != 0)
		return rc;
	call->domain = d;
	req->id = real_id(d);
	return 0;
}

void real_query_begin(struct real_call *call)
{
	struct hyper_req *req = call->req;
	struct real *r = call->real;
	int rc = real_rescan(r, &req->error);

	if (rc != 0) {
		real_end(call, rc);
		return;
	}
	switch (req->call) {
	case HYPER_CALL_HOST:
		rc = query_host(r, req);
		break;
	case HYPER_CALL_METRICS:
		rc = query_metrics(r, req);
		break;
	case HYPER_CALL_LIST:
		rc = query_list(r, req);
		break;
	default:
		rc = query_info(call);
	}
	if (rc == RV_EAGAIN)
		real_wait(call);
	else
		real_end(call, rc);
}

/* --- cpu policies --- */

/* Each is some twenty KiB: not for the stack of a callback. */
struct policies {
	struct xen_cpu_policy a, b, out;
};

static int parse_both(struct policies *p, const uint8_t *a, size_t a_len,
	const uint8_t *b, size_t b_len, struct rv_error *e)
{
	int rc = p != NULL ? xen_cpu_policy_parse(&p->a, a, a_len, e)
			   : rv_error_set(e, RV_ENOMEM, "no memory for CPU policies");

	return rc != 0 ? rc : xen_cpu_policy_parse(&p->b, b, b_len, e);
}

int real_cpu_check(const struct hyper *h, const uint8_t *offered, size_t offered_len,
	const uint8_t *needed, size_t needed_len, struct rv_error *e)
{
	struct policies *p = malloc(sizeof *p);
	int rc = parse_both(p, offered, offered_len, needed, needed_len, e);

	(void)h;
	if (rc == 0)
		rc = xen_cpu_policy_check(&p->a, &p->b, e);
	free(p);
	return rc;
}

int real_cpu_common(const struct hyper *h, const uint8_t *a, size_t a_len,
	const uint8_t *b, size_t b_len, uint8_t *out, size_t *out_len, struct rv_error *e)
{
	struct policies *p = malloc(sizeof *p);
	int rc = parse_both(p, a, a_len, b, b_len, e);

	(void)h;
	*out_len = 0;
	if (rc == 0)
		rc = xen_cpu_policy_common(&p->a, &p->b, &p->out, e);
	if (rc == 0)
		*out_len = xen_cpu_policy_write(&p->out, out);
	free(p);
	return rc;
}
