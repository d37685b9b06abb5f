/* The trace, and the pool that a placement rule is replayed on. */
#ifndef REEVE_PERF_PLACE_TRACE_H
#define REEVE_PERF_PLACE_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HOST_VCPUS = 48, HOST_MIB = 192 * 1024, MAX_HOSTS = 4096, MAX_VMS = 300000 };

struct trace_vm {
	double start, end;
	int vcpus, mib;
	int host;	/* -1: not placed */
	int prev, next; /* VMs of one host, in order of arrival */
};

struct trace_event {
	double at;
	int vm;
	bool arrives;
};

struct trace {
	struct trace_vm *vms;
	struct trace_event *events;
	size_t n_vms, n_events;
};

struct trace_host {
	int vcpus, mib, vms; /* free vCPUs and MiB; VMs that run */
	int first, last;
	double in_use_since;
	double vcpu_starts; /* sum of start times, weighted by vCPUs */
};

struct trace_pool {
	struct trace_host hosts[MAX_HOSTS];
	int n;
	bool bounded;
};

struct trace_score {
	double host_hours, peak; /* divided by those of the fluid bound */
	double rejected_pct;	 /* of vCPUs */
	double large_slots;	 /* mean number of hosts with 16 vCPUs and 112 GiB free */
};

/* A rule: the host for a VM, or -1 when it fits nowhere. It is told of changes. */
struct trace_rule {
	const char *name;
	int (*choose)(void *arg, const struct trace_pool *p, const struct trace_vm *vm);
	/* May be NULL. */
	void (*changed)(void *arg, const struct trace *t, const struct trace_pool *p,
		int host, double now);
	/* Time has passed. May be NULL. */
	void (*tick)(
		void *arg, const struct trace *t, const struct trace_pool *p, double now);
	void *arg;
};

/* Every `step`-th VM from `first` on. Dies if the data is not there. */
void trace_load(struct trace *t, const char *path, unsigned step, unsigned first);
void trace_free(struct trace *t);

/* hosts: 0 for as many as are needed. */
struct trace_score trace_replay(
	struct trace *t, int hosts, const struct trace_rule *rule);

static inline bool trace_fits(const struct trace_host *h, const struct trace_vm *vm)
{
	return h->vcpus >= vm->vcpus && h->mib >= vm->mib;
}

#endif
