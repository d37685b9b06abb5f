#include "perf/place/trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "perf/report.h"

/* Ends come before starts at the same moment. */
static int by_time(const void *a, const void *b)
{
	const struct trace_event *x = a, *y = b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	if (x->arrives != y->arrives)
		return x->arrives - y->arrives;
	return x->vm - y->vm;
}

void trace_load(struct trace *t, const char *path, unsigned step, unsigned first)
{
	char command[512];
	unsigned line = 0;
	struct trace_vm v = {.host = -1};
	double gib;
	FILE *f;

	*t = (struct trace){.vms = calloc(MAX_VMS, sizeof *t->vms),
		.events = calloc(2 * MAX_VMS, sizeof *t->events)};
	snprintf(command, sizeof command, "xz -dc '%s'", path);
	f = popen(command, "r");
	if (!f || !t->vms || !t->events)
		report_die("can't read %s", path);
	while (t->n_vms < MAX_VMS &&
		fscanf(f, "%lf %lf %d %lf", &v.start, &v.end, &v.vcpus, &gib) == 4) {
		if (line++ % step != first)
			continue;
		v.mib = (int)(gib * 1024 + 0.5);
		t->vms[t->n_vms] = v;
		t->events[t->n_events++] =
			(struct trace_event){v.start, (int)t->n_vms, true};
		if (v.end < 1e11)
			t->events[t->n_events++] =
				(struct trace_event){v.end, (int)t->n_vms, false};
		t->n_vms++;
	}
	if (pclose(f) != 0 || t->n_vms == 0)
		report_die("can't read %s: is xz-utils installed?", path);
	qsort(t->events, t->n_events, sizeof *t->events, by_time);
}

void trace_free(struct trace *t)
{
	free(t->vms);
	free(t->events);
}

static void put(struct trace *t, struct trace_pool *p, int vm, double now)
{
	struct trace_vm *v = &t->vms[vm];
	struct trace_host *h = &p->hosts[v->host];

	h->vcpus -= v->vcpus;
	h->mib -= v->mib;
	h->vcpu_starts += now * v->vcpus;
	v->prev = h->last;
	v->next = -1;
	if (h->vms++ == 0) {
		h->first = vm;
		h->in_use_since = now;
	} else {
		t->vms[h->last].next = vm;
	}
	h->last = vm;
}

static void take(struct trace *t, struct trace_pool *p, int vm)
{
	struct trace_vm *v = &t->vms[vm];
	struct trace_host *h = &p->hosts[v->host];

	h->vcpus += v->vcpus;
	h->mib += v->mib;
	h->vcpu_starts -= v->start * v->vcpus;
	h->vms--;
	if (v->prev >= 0)
		t->vms[v->prev].next = v->next;
	else
		h->first = v->next;
	if (v->next >= 0)
		t->vms[v->next].prev = v->prev;
	else
		h->last = v->prev;
}

static void add_host(struct trace_pool *p)
{
	if (p->n == MAX_HOSTS)
		report_die("more than %d hosts", MAX_HOSTS);
	p->hosts[p->n++] = (struct trace_host){
		.vcpus = HOST_VCPUS, .mib = HOST_MIB, .first = -1, .last = -1};
}

struct sums {
	double used_hours, fluid_hours, used_peak, fluid_peak;
	double vcpus, mib; /* running */
	double rejected, asked, large;
	int used;
};

static void pass_time(struct sums *s, double from, double to)
{
	double fluid = s->vcpus / HOST_VCPUS;

	if (s->mib / HOST_MIB > fluid)
		fluid = s->mib / HOST_MIB;
	s->used_hours += s->used * (to - from);
	s->fluid_hours += fluid * (to - from);
	if (s->used > s->used_peak)
		s->used_peak = s->used;
	if (fluid > s->fluid_peak)
		s->fluid_peak = fluid;
}

static void arrive(struct trace *t, struct trace_pool *p, const struct trace_rule *rule,
	int vm, double now, struct sums *s)
{
	struct trace_vm *v = &t->vms[vm];

	v->host = rule->choose(rule->arg, p, v);
	if (v->host < 0 && !p->bounded) {
		add_host(p);
		v->host = p->n - 1;
	}
	s->asked += v->vcpus;
	for (int i = 0; p->bounded && i < p->n; i++)
		s->large += p->hosts[i].vcpus >= 16 && p->hosts[i].mib >= 112 * 1024;
	if (v->host < 0) {
		s->rejected += v->vcpus;
		return;
	}
	if (!trace_fits(&p->hosts[v->host], v))
		report_die("%s chose a host that is too full", rule->name);
	s->used += p->hosts[v->host].vms == 0;
	s->vcpus += v->vcpus;
	s->mib += v->mib;
	put(t, p, vm, now);
}

struct trace_score trace_replay(struct trace *t, int hosts, const struct trace_rule *rule)
{
	struct trace_pool *p = calloc(1, sizeof *p);
	struct sums s = {.used = 0};
	double last = t->events[0].at, end = t->vms[t->n_vms - 1].start;

	if (!p)
		report_die("no memory");
	p->bounded = hosts > 0;
	while (p->n < hosts)
		add_host(p);
	for (size_t i = 0; i < t->n_events && t->events[i].at <= end; i++) {
		const struct trace_event *e = &t->events[i];
		struct trace_vm *v = &t->vms[e->vm];

		if (e->at > last) {
			pass_time(&s, last, e->at);
			if (rule->tick)
				rule->tick(rule->arg, t, p, e->at);
		}
		last = e->at;
		if (e->arrives) {
			arrive(t, p, rule, e->vm, e->at, &s);
		} else if (v->host >= 0) {
			take(t, p, e->vm);
			s.used -= p->hosts[v->host].vms == 0;
			s.vcpus -= v->vcpus;
			s.mib -= v->mib;
		}
		if (v->host >= 0 && rule->changed)
			rule->changed(rule->arg, t, p, v->host, e->at);
	}
	free(p);
	return (struct trace_score){
		.host_hours = s.used_hours / s.fluid_hours,
		.peak = s.used_peak / s.fluid_peak,
		.rejected_pct = 100 * s.rejected / s.asked,
		.large_slots = s.large / (double)t->n_vms,
	};
}
