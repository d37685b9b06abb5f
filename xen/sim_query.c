#include <stdio.h>
#include <string.h>

#include "xen/sim_driver.h"

/* --- what there is --- */

static void query_host(struct sim *s, struct hyper_req *req)
{
	sim_balloons_run(s);
	s->host.free_kib = sim_free_kib(s);
	s->host.claimed_kib = sim_claimed_kib(s);
	req->host = &s->host;
}

static void query_list(struct sim *s, struct hyper_req *req)
{
	size_t count = 0;

	sim_balloons_run(s);
	SIM_FOR_EACH_DOMAIN(d, s)
	{
		sim_domain_touch(d);
		sim_domain_describe(d, &s->list[count++]);
	}
	req->domains = s->list;
	req->domain_count = count;
}

static uint32_t ppm_of(int64_t busy_ns, int64_t of_us)
{
	double ppm = of_us > 0 ? (double)busy_ns * 1000.0 / (double)of_us : 0;

	return ppm > UINT32_MAX ? UINT32_MAX : ppm > 0 ? (uint32_t)ppm : 0;
}

static void query_metrics(struct sim *s, struct hyper_req *req)
{
	int64_t now_us = loop_now_us(s->hyper.loop), busy_ns = 0;
	struct hyper_metrics *m = &s->metrics;
	size_t count = 0;

	sim_balloons_run(s);
	m->interval_us = s->metrics_at_us > 0 ? now_us - s->metrics_at_us : 0;
	SIM_FOR_EACH_DOMAIN(d, s)
	{
		struct hyper_domain_metrics *dm = &s->metrics_list[count++];
		int64_t cpu_ns, used_ns;

		sim_domain_touch(d);
		cpu_ns = sim_cpu_ns(&d->r, now_us);
		used_ns = cpu_ns - d->metrics_cpu_ns;
		d->metrics_cpu_ns = cpu_ns;
		busy_ns += used_ns;
		dm->id = sim_id(d);
		dm->vm = d->r.vm;
		dm->cpu_ppm = ppm_of(used_ns, m->interval_us);
		dm->actual_kib = d->r.actual_kib;
	}
	m->cpu_busy_ppm = ppm_of(busy_ns, m->interval_us * (int64_t)s->config.cpus);
	if (m->cpu_busy_ppm > 1000000)
		m->cpu_busy_ppm = 1000000;
	m->free_kib = sim_free_kib(s);
	m->domains = s->metrics_list;
	m->domain_count = count;
	s->metrics_at_us = now_us;
	req->metrics = m;
}

int sim_query(struct sim_job *job, struct rv_error *e)
{
	struct hyper_req *req = job->req;
	struct sim_domain *d;
	int rc;

	switch (req->call) {
	case HYPER_CALL_HOST:
		query_host(job->sim, req);
		return 0;
	case HYPER_CALL_LIST:
		query_list(job->sim, req);
		return 0;
	case HYPER_CALL_METRICS:
		query_metrics(job->sim, req);
		return 0;
	default:
		break;
	}
	rc = sim_find(job->sim, &req->id, &d, e);
	if (rc != 0)
		return rc;
	sim_balloons_run(job->sim);
	job->domain = d;
	req->id = sim_id(d);
	if (req->call == HYPER_CALL_CONSOLE)
		rc = sim_console_open(d, &req->fd, e);
	return rc;
}

/* --- cpu policies --- */

/* The blob: "RVSIMCPU", then the features as a little-endian word. */
static const char policy_magic[8] = {'R', 'V', 'S', 'I', 'M', 'C', 'P', 'U'};

static const char *const feature_names[] = {
	"sse4.2", "aes", "avx", "avx2", "bmi2", "rdrand", "avx512f", "sha"};

size_t sim_cpu_policy(uint32_t features, uint8_t *out)
{
	memcpy(out, policy_magic, sizeof policy_magic);
	for (int i = 0; i < 4; i++)
		out[sizeof policy_magic + i] = (uint8_t)(features >> 8 * i);
	return sizeof policy_magic + 4;
}

static int policy_read(
	const uint8_t *blob, size_t len, uint32_t *features, struct rv_error *e)
{
	*features = 0;
	if (len != sizeof policy_magic + 4 ||
		memcmp(blob, policy_magic, sizeof policy_magic) != 0)
		return rv_error_set(e, RV_EINVAL,
			"a CPU policy of %zu bytes is not one of a simulated host; "
			"simulated and real hosts don't mix in a pool",
			len);
	for (int i = 0; i < 4; i++)
		*features |= (uint32_t)blob[sizeof policy_magic + i] << 8 * i;
	return 0;
}

int sim_cpu_check(const struct hyper *h, const uint8_t *offered, size_t offered_len,
	const uint8_t *needed, size_t needed_len, struct rv_error *e)
{
	uint32_t have, need, missing;
	char names[160] = "";
	size_t len = 0;
	int rc;

	(void)h;
	rc = policy_read(offered, offered_len, &have, e);
	if (rc == 0)
		rc = policy_read(needed, needed_len, &need, e);
	if (rc != 0)
		return rc;
	missing = need & ~have;
	if (missing == 0)
		return 0;
	for (unsigned i = 0; i < 32; i++) {
		const char *name = i < sizeof feature_names / sizeof *feature_names
					   ? feature_names[i]
					   : "unknown";

		if (missing & 1u << i && len < sizeof names - 16)
			len += (size_t)snprintf(names + len, sizeof names - len, "%s%s",
				len > 0 ? ", " : "", name);
	}
	return rv_error_set(e, RV_ECPU,
		"CPU features missing here: %s; use a host that has them or lower the "
		"pool's level",
		names);
}

int sim_cpu_common(const struct hyper *h, const uint8_t *a, size_t a_len,
	const uint8_t *b, size_t b_len, uint8_t *out, size_t *out_len, struct rv_error *e)
{
	uint32_t one, other;
	int rc;

	(void)h;
	*out_len = 0;
	rc = policy_read(a, a_len, &one, e);
	if (rc == 0)
		rc = policy_read(b, b_len, &other, e);
	if (rc != 0)
		return rc;
	*out_len = sim_cpu_policy(one & other, out);
	return 0;
}
