/*
 * Placement: quality on a real trace beside the rules people know, and time per decision.
 *
 * - Unbounded pool, cold start: host-hours and peak, divided by the fluid bound
 *   max(vCPUs / 48, memory / 192 GiB) of each moment.
 * - Fixed pools of 36, 40 and 44 hosts and every 20th VM, for each of the 20 such parts
 * of the trace: share of vCPUs turned away (mean), and how many hosts could still take a
 *   large VM. With 64 hosts no rule ever turns anything away.
 * - xapi's draw, from its published description: a host's weight is n * r^2, n its free
 *   memory, r random in [0, 1).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/prng.h"
#include "perf/place/trace.h"
#include "perf/report.h"
#include "sched/sched.h"

#define MIB_KIB UINT64_C(1024)

/* ---- The rules people know */

static int first_fit(void *arg, const struct trace_pool *p, const struct trace_vm *vm)
{
	(void)arg;
	for (int i = 0; i < p->n; i++)
		if (trace_fits(&p->hosts[i], vm))
			return i;
	return -1;
}

static double room(const struct trace_host *h)
{
	return (double)h->vcpus / HOST_VCPUS + (double)h->mib / HOST_MIB;
}

static int best_fit(void *arg, const struct trace_pool *p, const struct trace_vm *vm)
{
	int best = -1;

	(void)arg;
	for (int i = 0; i < p->n; i++)
		if (trace_fits(&p->hosts[i], vm) &&
			(best < 0 || room(&p->hosts[i]) < room(&p->hosts[best])))
			best = i;
	return best;
}

static int most_free(void *arg, const struct trace_pool *p, const struct trace_vm *vm)
{
	int best = -1;

	(void)arg;
	for (int i = 0; i < p->n; i++)
		if (trace_fits(&p->hosts[i], vm) && (p->bounded || p->hosts[i].vms) &&
			(best < 0 || room(&p->hosts[i]) > room(&p->hosts[best])))
			best = i;
	for (int i = 0; best < 0 && i < p->n; i++)
		if (trace_fits(&p->hosts[i], vm))
			best = i;
	return best;
}

static int xapi_draw(void *arg, const struct trace_pool *p, const struct trace_vm *vm)
{
	double most = -1;
	int best = -1;

	for (int i = 0; i < p->n; i++) {
		double r = (double)prng_below(arg, 1 << 30) / (1 << 30);

		if (!trace_fits(&p->hosts[i], vm) || p->hosts[i].mib * r * r <= most)
			continue;
		most = p->hosts[i].mib * r * r;
		best = i;
	}
	return best;
}

/* ---- Ours */

struct ours {
	struct sched *s;
	const struct reeve_sched_policy *policy;
	int known; /* hosts that the scheduler has */
	uint64_t seed;
};

static struct uuid host_uuid(int i)
{
	struct uuid u = {.b = {1}};

	memcpy(&u.b[4], &i, sizeof i);
	return u;
}

static void tell_host(struct ours *o, int i)
{
	struct sched_host h = {
		.uuid = host_uuid(i),
		.enabled = true,
		.live = true,
		.clock_ok = true,
		.pcpus = HOST_VCPUS,
		.vcpus_limit = HOST_VCPUS,
		.load = {.memory_total_kib = HOST_MIB * MIB_KIB,
			.memory_free_kib = HOST_MIB * MIB_KIB},
	};

	if (sched_host_set(o->s, &h, NULL) != 0)
		report_die("can't add host %d", i);
}

static int ours_choose(void *arg, const struct trace_pool *p, const struct trace_vm *vm)
{
	struct ours *o = arg;
	struct sched_request r = {.memory_min_kib = (uint64_t)vm->mib * MIB_KIB,
		.vcpus = (uint32_t)vm->vcpus};
	struct sched_decision d;
	int host;

	while (o->known < p->n)
		tell_host(o, o->known++);
	if (sched_decide(o->s, &r, o->policy, o->seed++, &d, NULL) != 0)
		return -1;
	memcpy(&host, &d.host.b[4], sizeof host);
	return host;
}

static void ours_changed(void *arg, const struct trace *t, const struct trace_pool *p,
	int host, double now)
{
	struct ours *o = arg;
	const struct trace_host *h = &p->hosts[host];
	uint32_t used = (uint32_t)(HOST_VCPUS - h->vcpus);
	struct uuid u = host_uuid(host);
	struct sched_load l = {
		.memory_total_kib = HOST_MIB * MIB_KIB,
		.memory_free_kib = (uint64_t)h->mib * MIB_KIB,
		.cpu_load_ppm = used * 1000000 / HOST_VCPUS,
		.vcpus = used,
		.vms = (uint32_t)h->vms,
	};

	if (h->vms > 0) {
		l.oldest_vm_s = (uint32_t)(now - t->vms[h->first].start);
		l.mean_vm_s = (uint32_t)(now - h->vcpu_starts / used);
		l.in_use_s = (uint32_t)(now - h->in_use_since);
	}
	while (o->known < p->n)
		tell_host(o, o->known++);
	if (sched_host_load(o->s, &u, &l) != 0)
		report_die("host %d is not known", host);
}

/* Metrics come every few seconds, and with them the ages. */
static void ours_tick(
	void *arg, const struct trace *t, const struct trace_pool *p, double now)
{
	for (int i = 0; i < p->n; i++)
		if (p->hosts[i].vms > 0)
			ours_changed(arg, t, p, i, now);
}

static struct trace_score replay_ours(
	struct trace *t, int hosts, const struct reeve_sched_policy *policy)
{
	struct ours o = {.s = sched_new(MAX_HOSTS), .policy = policy, .seed = 1};
	struct trace_rule rule = {policy->name, ours_choose, ours_changed, ours_tick, &o};
	struct trace_score score;

	if (!o.s)
		report_die("no memory");
	score = trace_replay(t, hosts, &rule);
	sched_free(o.s);
	return score;
}

/* ---- Time per decision */

/* A pool in use: hosts filled at random, shared storage and networks, one SR each of its
 * own. */
static struct sched *busy_pool(int hosts, struct prng *prng)
{
	struct sched *s = sched_new((size_t)hosts);

	if (!s)
		report_die("no memory");
	for (int i = 0; i < hosts; i++) {
		struct uuid srs[] = {{.b = {2, 1}}, host_uuid(i)};
		struct uuid network = {.b = {3}};
		uint64_t used = prng_below(prng, HOST_MIB);
		struct sched_host h = {
			.uuid = host_uuid(i),
			.enabled = true,
			.live = true,
			.clock_ok = true,
			.pcpus = HOST_VCPUS,
			.vcpus_limit = HOST_VCPUS,
			.srs = srs,
			.n_srs = 2,
			.networks = &network,
			.n_networks = 1,
			.load = {.memory_total_kib = HOST_MIB * MIB_KIB,
				.memory_free_kib = (HOST_MIB - used) * MIB_KIB,
				.memory_squeezable_kib = used / 8 * MIB_KIB,
				.cpu_load_ppm = (uint32_t)prng_below(prng, 1000000),
				.vcpus = (uint32_t)prng_below(prng, HOST_VCPUS),
				.vms = (uint32_t)(used / 4096),
				.oldest_vm_s = (uint32_t)prng_below(prng, 1000000)},
		};

		if (sched_host_set(s, &h, NULL) != 0)
			report_die("can't add host %d", i);
	}
	return s;
}

/* Microseconds per decision, the change of the chosen host's figures included. */
static double decide_us(int hosts, const struct reeve_sched_policy *p, bool quick)
{
	static const int sizes[] = {1, 1, 1, 2, 2, 4, 8, 16};
	int rounds = quick ? 200 : 20000;
	struct uuid sr = {.b = {2, 1}}, network = {.b = {3}};
	struct prng prng;
	struct sched *s;
	double began;

	prng_seed(&prng, 1);
	s = busy_pool(hosts, &prng);
	began = report_now_s();
	for (int i = 0; i < rounds; i++) {
		int vcpus = sizes[prng_below(&prng, 8)];
		struct sched_request r = {.vcpus = (uint32_t)vcpus,
			.memory_min_kib = (uint64_t)vcpus * 1792 * MIB_KIB,
			.srs = &sr,
			.n_srs = 1,
			.networks = &network,
			.n_networks = 1};
		struct sched_decision d;
		int64_t kib = (int64_t)r.memory_min_kib;

		if (sched_decide(s, &r, p, prng_next(&prng), &d, NULL) != 0)
			continue;
		/* And away again, so that the pool does not fill up. */
		if (sched_host_charge(s, &d.host, kib, vcpus, 1) != 0 ||
			sched_host_charge(s, &d.host, -kib, -vcpus, -1) != 0)
			report_die("the chosen host is not known");
	}
	began = report_now_s() - began;
	sched_free(s);
	return began * 1e6 / rounds;
}

/* What the same costs a plain loop over an array. */
static double scan_us(int hosts, bool quick)
{
	struct trace_pool *p = calloc(1, sizeof *p);
	struct trace_host *h = calloc((size_t)hosts, sizeof *h);
	int rounds = quick ? 200 : 5000, found = 0;
	struct prng prng;
	double began;

	if (!p || !h)
		report_die("no memory");
	prng_seed(&prng, 1);
	for (int i = 0; i < hosts; i++) {
		h[i].vcpus = (int)prng_below(&prng, HOST_VCPUS);
		h[i].mib = (int)prng_below(&prng, HOST_MIB);
	}
	began = report_now_s();
	for (int k = 0; k < rounds; k++) {
		struct trace_vm vm = {.vcpus = 1 << k % 5, .mib = 1792 << k % 5};
		double most = 1e9;

		for (int i = 0; i < hosts; i++)
			if (trace_fits(&h[i], &vm) && room(&h[i]) < most) {
				most = room(&h[i]);
				found = i;
			}
		/* Keeps the loop from being thrown out. */
		h[found].vms++;
	}
	began = report_now_s() - began;
	free(h);
	free(p);
	return began * 1e6 / rounds;
}

/* ---- */

static void unbounded(struct report *r, const char *path)
{
	struct trace_rule first = {.name = "first-fit", .choose = first_fit};
	struct trace_rule best = {.name = "best-fit", .choose = best_fit};
	struct trace_rule most = {.name = "most-free", .choose = most_free};
	struct trace_score ours, bf, ff, mf;
	struct trace t;

	trace_load(&t, path, r->quick ? 20 : 1, 0);
	ours = replay_ours(&t, 0, &sched_conservative);
	bf = trace_replay(&t, 0, &best);
	ff = trace_replay(&t, 0, &first);
	mf = trace_replay(&t, 0, &most);
	report_add(r, (struct report_result){"conservative_host_hours", "x fluid",
			      ours.host_hours, "best-fit", bf.host_hours,
			      REPORT_VALUE_AT_MOST, 1.09});
	report_add(r, (struct report_result){"conservative_peak", "x fluid", ours.peak,
			      "best-fit", bf.peak, REPORT_NO_BAR, 0});
	report_add(r, (struct report_result){.name = "best_fit_host_hours",
			      .unit = "x fluid",
			      .value = bf.host_hours});
	report_add(r, (struct report_result){.name = "first_fit_host_hours",
			      .unit = "x fluid",
			      .value = ff.host_hours});
	report_add(r, (struct report_result){.name = "most_free_host_hours",
			      .unit = "x fluid",
			      .value = mf.host_hours});
	trace_free(&t);
}

static void add_score(struct trace_score *sum, struct trace_score x, double part)
{
	sum->rejected_pct += x.rejected_pct * part;
	sum->large_slots += x.large_slots * part;
}

static void fixed(struct report *r, const char *path)
{
	const unsigned parts = 20, used = r->quick ? 1 : parts;
	const double weight = 1.0 / (3 * used);
	static const int hosts[] = {36, 40, 44};
	struct trace_score greedy = {0}, xapi = {0}, bf = {0};
	struct prng prng;
	struct trace_rule best = {.name = "best-fit", .choose = best_fit};
	struct trace_rule draw = {.name = "xapi", .choose = xapi_draw, .arg = &prng};

	prng_seed(&prng, 1);
	for (unsigned i = 0; i < used; i++) {
		struct trace t;

		trace_load(&t, path, parts, i);
		for (size_t k = 0; k < 3; k++) {
			add_score(&greedy, replay_ours(&t, hosts[k], &sched_greedy),
				weight);
			add_score(&xapi, trace_replay(&t, hosts[k], &draw), weight);
			add_score(&bf, trace_replay(&t, hosts[k], &best), weight);
		}
		trace_free(&t);
	}
	report_add(r, (struct report_result){"greedy_core_rejected_pct", "%",
			      greedy.rejected_pct, "best-fit", bf.rejected_pct,
			      REPORT_RATIO_AT_MOST, 1});
	report_add(r, (struct report_result){"greedy_vs_xapi_rejected_pct", "%",
			      greedy.rejected_pct, "xapi", xapi.rejected_pct,
			      REPORT_RATIO_AT_MOST, 1});
	report_add(r, (struct report_result){.name = "xapi_core_rejected_pct",
			      .unit = "%",
			      .value = xapi.rejected_pct});
	report_add(r, (struct report_result){.name = "best_fit_core_rejected_pct",
			      .unit = "%",
			      .value = bf.rejected_pct});
	report_add(r,
		(struct report_result){"greedy_large_slots", "hosts", greedy.large_slots,
			"xapi", xapi.large_slots, REPORT_NO_BAR, 0});
}

static double slower(int hosts, bool quick)
{
	double g = decide_us(hosts, &sched_greedy, quick);
	double c = decide_us(hosts, &sched_conservative, quick);

	return g > c ? g : c;
}

int main(int argc, char **argv)
{
	const char *path = PLACE_DATA "/azure-v1-dev.txt.xz";
	struct report r;

	report_begin(&r, "place", argc, argv);
	report_add(&r, (struct report_result){"decide_100_us", "us", slower(100, r.quick),
			       "plain scan", scan_us(100, r.quick), REPORT_NO_BAR, 0});
	report_add(
		&r, (struct report_result){"decide_1000_us", "us", slower(1000, r.quick),
			    "plain scan", scan_us(1000, r.quick), REPORT_NO_BAR, 0});
	report_add(&r,
		(struct report_result){"decide_10000_us", "us", slower(10000, r.quick),
			"plain scan", scan_us(10000, r.quick), REPORT_VALUE_AT_MOST, 20});
	fixed(&r, path);
	unbounded(&r, path);
	return report_end(&r);
}
