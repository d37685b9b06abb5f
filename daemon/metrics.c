#include "daemon/metrics.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vm/vm_memory.h"

/* Weight of the newest sample in a smoothed figure: settles within a few seconds, and one
 * second's peak does not move a placement. */
#define METRICS_SMOOTHING 0.3

/* A driver this slow takes a minute and more to free a GiB: others wait for it. */
#define METRICS_SLOW_KIB_PER_S (16 << 10)

struct metrics {
	struct daemon *daemon;
	struct timer timer;
	struct hyper_req req;
	bool asking;
};

static double smooth(double before, double sample)
{
	double smoothed = before + METRICS_SMOOTHING * (sample - before);

	return smoothed < 0.0005 ? 0 : (double)(long)(smoothed * 1000 + 0.5) / 1000;
}

/* Live fields change only when their object is still there: a domain may outlive its row.
 */
static void set_live(
	struct metrics *m, struct uuid uuid, enum schema_field_id field, struct value v)
{
	struct rv_error e = {0};
	int rc = pool_set_live(m->daemon->pool, uuid, field, &v, &e);

	if (rc && rc != RV_ENOENT)
		log_warn("metrics.set", "field=%s error=\"%s\"",
			schema_field(field)->name, e.detail);
}

static void metrics_host(struct metrics *m, const struct hyper_metrics *seen)
{
	struct daemon *d = m->daemon;
	const struct row *host = db_row(pool_db(d->pool), CLASS_HOST, d->host);
	struct vm_memory *memory = vm_host_memory(d->vms, &d->host);
	struct memctl_totals totals;
	double load;

	if (!host || !memory)
		return;
	load = smooth(db_float(host, HOST_CPU_UTILISATION), seen->cpu_busy_ppm / 1e6);
	totals = vm_memory_totals(memory);
	set_live(m, d->host, HOST_CPU_UTILISATION, value_float(load));
	set_live(m, d->host, HOST_MEMORY_TOTAL,
		value_int((int64_t)d->hyper_host.total_kib * 1024));
	set_live(
		m, d->host, HOST_MEMORY_FREE, value_int((int64_t)totals.free_kib * 1024));
	set_live(m, d->host, HOST_MEMORY_PROMISED,
		value_int((int64_t)(totals.reserved_kib + totals.growable_kib) * 1024));
	set_live(m, d->host, HOST_MEMORY_SQUEEZABLE,
		value_int((int64_t)totals.squeezable_kib * 1024));
	set_live(m, d->host, HOST_LIVE, value_bool(true));
}

static void metrics_vm(struct metrics *m, const struct hyper_domain_metrics *seen)
{
	const struct row *vm = db_row(pool_db(m->daemon->pool), CLASS_VM, seen->vm);

	if (!vm)
		return; /* a ghost: vm/ raises the message */
	set_live(m, seen->vm, VM_CPU_UTILISATION,
		value_float(
			smooth(db_float(vm, VM_CPU_UTILISATION), seen->cpu_ppm / 1e6)));
	set_live(m, seen->vm, VM_MEMORY_ACTUAL,
		value_int((int64_t)seen->actual_kib * 1024));
}

/* What the controller orders of a guest, and how its driver does. It is its word about
 * each domain that it has, so it is told of those that this host runs. */
static const char *balloon_state(const struct memctl_view *view)
{
	switch (view->balloon) {
	case MEMCTL_UNPROVEN:
	case MEMCTL_PROBING:
		return "unproven";
	case MEMCTL_STUCK:
		return "stuck";
	case MEMCTL_PROVEN:
		break;
	}
	return view->speed_kib_per_s && view->speed_kib_per_s < METRICS_SLOW_KIB_PER_S
		       ? "slow"
		       : "ok";
}

static void metrics_balloon(struct metrics *m, const struct memctl_view *view)
{
	const struct row *vm = db_row(pool_db(m->daemon->pool), CLASS_VM, view->d.vm);
	const char *state = balloon_state(view);
	struct uuid on = vm ? db_ref(vm, VM_RESIDENT_ON) : UUID_NONE;
	struct value v;

	/* While it moves here another host runs it, and tells. */
	if (!uuid_eq(&on, &m->daemon->host))
		return;
	set_live(m, view->d.vm, VM_MEMORY_TARGET,
		value_int((int64_t)view->d.target_kib * 1024));
	if (strcmp(db_string(vm, VM_MEMORY_STATE), state) == 0)
		return;
	if (value_from_cstr(&v, state) == 0) {
		set_live(m, view->d.vm, VM_MEMORY_STATE, v);
		value_fini(&v);
	}
}

static void metrics_balloons(struct metrics *m)
{
	struct vm_memory *memory = vm_host_memory(m->daemon->vms, &m->daemon->host);
	const struct memctl *ctl = memory ? vm_memory_controller(memory) : NULL;

	for (size_t i = 0; ctl && i < memctl_domain_count(ctl); i++) {
		struct memctl_view view = memctl_domain_at(ctl, i);

		metrics_balloon(m, &view);
	}
}

static void on_metrics(void *arg, struct hyper_req *req)
{
	struct metrics *m = arg;

	m->asking = false;
	if (req->rc) {
		log_warn("metrics.read", "error=%s msg=\"%s\"", rv_error_symbol(req->rc),
			req->error.detail);
		return;
	}
	metrics_host(m, req->metrics);
	for (size_t i = 0; i < req->metrics->domain_count; i++)
		metrics_vm(m, &req->metrics->domains[i]);
	metrics_balloons(m);
}

static void on_interval(void *arg)
{
	struct metrics *m = arg;

	timer_start_about_ms(&m->timer, METRICS_INTERVAL_MS);
	if (m->asking)
		return; /* a slow hypervisor is asked once at a time */
	m->asking = true;
	hyper_metrics(m->daemon->hyper, &m->req);
}

int metrics_new(struct metrics **out, struct daemon *d)
{
	struct metrics *m = calloc(1, sizeof *m);

	if (!m)
		return RV_ENOMEM;
	m->daemon = d;
	timer_init(&m->timer, d->loop, "metrics.interval", on_interval, m);
	hyper_req_init(&m->req, on_metrics, m);
	*out = m;
	return 0;
}

void metrics_start(struct metrics *m)
{
	on_interval(m);
}

void metrics_stop(struct metrics *m)
{
	if (m)
		timer_stop(&m->timer);
}

void metrics_free(struct metrics *m)
{
	metrics_stop(m);
	free(m);
}
