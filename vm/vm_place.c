/* Gathers what sched/ decides on, and says its answer in words. */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "sched/sched.h"
#include "vm/vm_cpu.h"
#include "vm/vm_op.h"

enum { PLACE_MAX_OBJECTS = HYPER_MAX_VBDS + HYPER_MAX_VIFS + 1, PLACE_BATCH = 256 };

/* --- what a VM needs --- */

static uint64_t vm_kib(const struct row *vm, enum schema_field_id field)
{
	int64_t bytes = db_int(vm, field);

	return bytes > 0 ? (uint64_t)bytes >> 10 : 0;
}

uint64_t vm_overhead_kib(const struct vm_host *h, const struct row *vm)
{
	struct hyper_domain_spec spec = {
		.type = (enum hyper_type)db_enum(vm, VM_DOMAIN_TYPE),
		.vcpus_max = (uint32_t)db_int(vm, VM_VCPUS_MAX),
		.static_max_kib = vm_kib(vm, VM_MEMORY_STATIC_MAX),
	};

	return hyper_overhead_kib(h->hyper, &spec);
}

/* PV guests boot at their target; PVH and HVM guests believe in static-max and must get
 * it, until they have booted (DESIGN.md section 8). */
void vm_memory_needs(const struct vm_host *h, const struct row *vm, uint64_t *min_kib,
	uint64_t *max_kib)
{
	(void)h;
	if (db_enum(vm, VM_DOMAIN_TYPE) == VM_DOMAIN_TYPE_PV) {
		*min_kib = vm_kib(vm, VM_MEMORY_DYNAMIC_MIN);
		*max_kib = vm_kib(vm, VM_MEMORY_DYNAMIC_MAX);
	} else {
		*min_kib = *max_kib = vm_kib(vm, VM_MEMORY_STATIC_MAX);
	}
}

int vm_check(const struct row *vm, struct rv_error *e)
{
	uint64_t smin = vm_kib(vm, VM_MEMORY_STATIC_MIN),
		 dmin = vm_kib(vm, VM_MEMORY_DYNAMIC_MIN),
		 dmax = vm_kib(vm, VM_MEMORY_DYNAMIC_MAX),
		 smax = vm_kib(vm, VM_MEMORY_STATIC_MAX);
	int64_t vcpus = db_int(vm, VM_VCPUS_MAX),
		online = db_int(vm, VM_VCPUS_AT_STARTUP);

	if (smin > dmin || dmin > dmax || dmax > smax || dmin == 0)
		return rv_error_set(e, RV_EINVAL,
			"VM %s: its memory limits contradict one another: they must be "
			"static-min <= dynamic-min <= dynamic-max <= static-max, and are "
			"%llu, %llu, %llu, %llu KiB. Set them with vm-memory-limits-set",
			row_name(vm), (unsigned long long)smin, (unsigned long long)dmin,
			(unsigned long long)dmax, (unsigned long long)smax);
	if (vcpus < 1 || vcpus > HYPER_MAX_VCPUS || online < 1 || online > vcpus)
		return rv_error_set(e, RV_EINVAL,
			"VM %s: VCPUs_max is %lld and VCPUs_at_startup %lld; they must "
			"be "
			"1 <= at_startup <= max <= %d",
			row_name(vm), (long long)vcpus, (long long)online,
			HYPER_MAX_VCPUS);
	return 0;
}

/* --- the picture of the hosts --- */

struct place_look {
	struct vm_manager *m;
	size_t n;
};

static int place_count(void *arg, const struct change *c)
{
	struct place_look *look = arg;

	if (c->kind == CHANGE_DEL && c->cls == CLASS_HOST)
		sched_host_remove(look->m->sched, &c->uuid);
	look->n++;
	return 0;
}

/* After a snapshot nobody says which hosts went. */
static void place_forget(struct vm_manager *m)
{
	struct sched *empty = sched_new(SCHED_MAX_HOSTS);

	if (!empty)
		return; /* the daemon that is asked refuses, until it is tried again */
	sched_free(m->sched);
	m->sched = empty;
}

/* Whether a host, or what is attached to it, has changed since the last time. */
static bool place_changed(struct vm_manager *m, const struct db *db)
{
	const uint64_t classes = CHANGES_CLASS(CLASS_HOST) | CHANGES_CLASS(CLASS_PBD) |
				 CHANGES_CLASS(CLASS_PIF) | CHANGES_CLASS(CLASS_NETWORK) |
				 CHANGES_CLASS(CLASS_POOL);
	struct place_look look = {.m = m};
	enum changes_status status;

	do {
		if (changes_since(db, &m->sched_token, classes, PLACE_BATCH, place_count,
			    &look, &status))
			return true;
		if (status == CHANGES_FRESH)
			place_forget(m);
	} while (status == CHANGES_SOME || status == CHANGES_FRESH);
	return look.n > 0;
}

static size_t host_srs(const struct db *db, struct uuid host, struct uuid *list)
{
	size_t n = 0;

	for (const struct row *r = NULL; (r = db_next_ref(db, PBD_HOST, host, r));)
		if (db_bool(r, PBD_CURRENTLY_ATTACHED) && n < SCHED_MAX_HOST_SRS)
			list[n++] = db_ref(r, PBD_SR);
	return n;
}

/* Those with a plugged PIF here, and those that need none: no host has a PIF in them. */
static size_t host_networks(const struct db *db, struct uuid host, struct uuid *list)
{
	size_t n = 0;

	for (const struct row *r = NULL; (r = db_next(db, CLASS_NETWORK, r));) {
		const struct row *pif = NULL;
		bool usable = true;

		while ((pif = db_next_ref(db, PIF_NETWORK, row_uuid(r), pif))) {
			struct uuid on = db_ref(pif, PIF_HOST);

			usable = uuid_eq(&on, &host) &&
				 db_bool(pif, PIF_CURRENTLY_ATTACHED);
			if (usable)
				break;
		}
		if (usable && n < SCHED_MAX_HOST_SRS)
			list[n++] = row_uuid(r);
	}
	return n;
}

/* What the VMs of another host hold as the database knows it: its metrics are a second
 * old, and a VM just started there must count already. */
static uint64_t place_held_kib(const struct db *db, struct uuid host)
{
	uint64_t kib = 0;

	for (const struct row *r = NULL;
		(r = db_next_ref(db, VM_RESIDENT_ON, host, r));) {
		uint64_t actual = vm_kib(r, VM_MEMORY_ACTUAL);

		kib += (actual ? actual : vm_kib(r, VM_MEMORY_STATIC_MAX)) +
		       vm_kib(r, VM_MEMORY_OVERHEAD);
	}
	for (const struct row *r = NULL; (r = db_next_ref(db, VM_INTENT_HOST, host, r));)
		if (!db_follow(db, r, VM_RESIDENT_ON))
			kib += vm_kib(r, VM_MEMORY_STATIC_MAX);
	return kib;
}

static void place_load(const struct vm_manager *m, const struct db *db,
	const struct row *host, struct sched_load *load)
{
	struct uuid uuid = row_uuid(host);
	struct vm_host *h = vm_host_find(m, &uuid);
	double cpu = db_float(host, HOST_CPU_UTILISATION);

	*load = (struct sched_load){
		.cpu_load_ppm = cpu > 0 && cpu <= 1 ? (uint32_t)(cpu * 1e6) : 0};
	for (const struct row *r = NULL;
		(r = db_next_ref(db, VM_RESIDENT_ON, uuid, r));) {
		load->vms++;
		load->vcpus += (uint32_t)db_int(r, VM_VCPUS_MAX);
	}
	if (h) {
		struct memctl_totals t = vm_memory_totals(h->memory);

		load->memory_total_kib = vm_memory_total_kib(h->memory);
		load->memory_free_kib = t.free_kib;
		load->memory_promised_kib =
			t.reserved_kib + t.growable_kib + h->placed_kib;
		load->memory_squeezable_kib = t.squeezable_kib;
	} else {
		load->memory_total_kib = (uint64_t)db_int(host, HOST_MEMORY_TOTAL) >> 10;
		uint64_t held = place_held_kib(db, uuid) +
				((uint64_t)db_int(host, HOST_MEMORY_OVERHEAD) >> 10);

		load->memory_free_kib = (uint64_t)db_int(host, HOST_MEMORY_FREE) >> 10;
		if (held > load->memory_total_kib)
			held = load->memory_total_kib;
		if (load->memory_free_kib > load->memory_total_kib - held)
			load->memory_free_kib = load->memory_total_kib - held;
		load->memory_squeezable_kib =
			(uint64_t)db_int(host, HOST_MEMORY_SQUEEZABLE) >> 10;
	}
}

/* The one feature that counts: whether it offers the pool's level. */
static void place_cpus(struct vm_manager *m, const struct db *db, const struct row *r,
	struct sched_host *host)
{
	const char *xen = db_map_get(r, HOST_SOFTWARE_VERSION, "hypervisor-version");
	struct rv_error e;

	host->features.w[0] = vm_cpu_offers(m->hosts[0]->hyper, r, db_pool(db), &e) == 0;
	/* Not known: its own daemon will tell. */
	host->xen_version = xen ? vm_cpu_xen_version(xen) : UINT32_MAX;
}

/* One whose lease is over starts nothing, whoever heard of it last. */
static bool answers(const struct vm_manager *m, const struct row *host)
{
	int64_t until_ms = db_int(host, HOST_LEASE_UNTIL);

	return db_bool(host, HOST_LIVE) &&
	       (until_ms == 0 || until_ms > loop_wall_ms(m->loop));
}

static int place_refresh(struct vm_manager *m, const struct db *db, struct rv_error *e)
{
	bool changed = place_changed(m, db) || sched_host_count(m->sched) == 0;
	struct uuid *srs = NULL, *networks = NULL;
	int rc = 0;

	if (changed) {
		srs = calloc(SCHED_MAX_HOST_SRS, sizeof *srs);
		networks = calloc(SCHED_MAX_HOST_SRS, sizeof *networks);
		if (!srs || !networks) {
			rc = rv_error_set(e, RV_ENOMEM, "no memory for a placement");
			goto out;
		}
	}
	for (const struct row *r = NULL; !rc && (r = db_next(db, CLASS_HOST, r));) {
		struct sched_host host = {.uuid = row_uuid(r)};

		if (db_enum(r, HOST_KIND) == HOST_KIND_WITNESS)
			continue; /* it runs no VMs */
		place_load(m, db, r, &host.load);
		if (!changed) {
			rc = sched_host_load(m->sched, &host.uuid, &host.load);
			continue;
		}
		host.enabled = db_bool(r, HOST_ENABLED);
		host.live = vm_host_find(m, &host.uuid) || answers(m, r);
		host.clock_ok = !db_bool(r, HOST_CLOCK_OFF);
		host.pcpus = (uint32_t)db_int(r, HOST_CPU_COUNT);
		place_cpus(m, db, r, &host);
		host.srs = srs;
		host.n_srs = host_srs(db, host.uuid, srs);
		host.networks = networks;
		host.n_networks = host_networks(db, host.uuid, networks);
		rc = sched_host_set(m->sched, &host, e);
	}
out:
	free(srs);
	free(networks);
	return rc;
}

/* --- deciding --- */

struct place_wish {
	struct sched_request request;
	struct uuid srs[PLACE_MAX_OBJECTS], networks[PLACE_MAX_OBJECTS];
	struct sched_exclusion *exclude; /* owned */
	char left[400];			 /* words of exclusions */
};

/* Why the host takes no VM, in words; NULL: it does. */
static const char *place_host_refusal(const struct vm_manager *m, const struct row *host)
{
	struct uuid uuid = row_uuid(host);
	struct vm_host *h = vm_host_find(m, &uuid);
	const char *words = h ? h->refusal : db_string(host, HOST_START_REFUSAL);

	return words[0] ? words : NULL;
}

/* A host that could not release the VM's devices: its claims keep the disks from all
 * others, and of its interfaces nobody else knows. Says so in w->left. */
static const struct row *place_left_on(
	const struct db *db, const struct row *vm, struct place_wish *w)
{
	const struct row *host = vm_left_on(db, vm), *vdi = NULL;

	if (!host)
		return NULL;
	for (const struct row *r = NULL;
		!vdi && (r = db_next_ref(db, VBD_VM, row_uuid(vm), r));)
		if (db_bool(r, VBD_CURRENTLY_ATTACHED))
			vdi = db_follow(db, r, VBD_VDI);
	snprintf(w->left, sizeof w->left,
		"host %.64s has not released %s%.64s of the VM yet, which is tried again "
		"by itself: wait, start it there, or, where that host is off for good, "
		"host-declare-dead it",
		row_name(host), vdi ? "disk " : "an interface", vdi ? row_name(vdi) : "");
	return host;
}

static int place_exclude(struct vm_manager *m, const struct db *db, const struct row *vm,
	const struct uuid *refused, size_t refused_count, struct place_wish *w,
	struct rv_error *e)
{
	const struct row *left = place_left_on(db, vm, w);
	struct sched_request *q = &w->request;
	const char *words;

	w->exclude =
		calloc(refused_count + db_count(db, CLASS_HOST) + 1, sizeof *w->exclude);
	if (!w->exclude)
		return rv_error_set(e, RV_ENOMEM, "no memory for a placement");
	q->exclude = w->exclude;
	for (const struct row *r = NULL; (r = db_next(db, CLASS_HOST, r));) {
		words = place_host_refusal(m, r);
		if (!words && left && r != left)
			words = w->left;
		if (words)
			w->exclude[q->n_exclude++] =
				(struct sched_exclusion){.host = row_uuid(r),
					.what = SCHED_EXCLUDED_HOST,
					.words = words};
	}
	for (size_t i = 0; i < refused_count; i++)
		w->exclude[q->n_exclude++] = (struct sched_exclusion){
			.host = refused[i], .what = SCHED_EXCLUDED_REFUSED};
	return 0;
}

static void place_wish(struct vm_manager *m, const struct db *db, const struct row *vm,
	const struct uuid *on, struct place_wish *w)
{
	struct sched_request *q = &w->request;
	struct uuid uuid = row_uuid(vm);
	const struct row *suspend = db_follow(db, vm, VM_SUSPEND_VDI);
	uint64_t overhead_kib = vm_overhead_kib(m->hosts[0], vm);

	*q = (struct sched_request){
		.vm = uuid,
		.vcpus = (uint32_t)db_int(vm, VM_VCPUS_MAX),
		.srs = w->srs,
		.networks = w->networks,
		.affinity = db_ref(vm, VM_AFFINITY),
		.min_xen_version = vm_cpu_xen_needed(db, vm),
		.features.w[0] = 1,
	};
	if (on)
		q->on = *on;
	vm_memory_needs(m->hosts[0], vm, &q->memory_min_kib, &q->memory_max_kib);
	q->memory_min_kib += overhead_kib;
	q->memory_max_kib += overhead_kib;
	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VM, uuid, r));) {
		const struct row *vdi = db_follow(db, r, VBD_VDI);

		if (vdi && q->n_srs < PLACE_MAX_OBJECTS - 1)
			w->srs[q->n_srs++] = db_ref(vdi, VDI_SR);
	}
	if (suspend)
		w->srs[q->n_srs++] = db_ref(suspend, VDI_SR);
	for (const struct row *r = NULL; (r = db_next_ref(db, VIF_VM, uuid, r));)
		if (q->n_networks < PLACE_MAX_OBJECTS)
			w->networks[q->n_networks++] = db_ref(r, VIF_NETWORK);
}

static const char *place_name(void *arg, const struct uuid *object)
{
	const struct row *row = db_row_any(arg, *object);

	return row ? row_name(row) : NULL;
}

/* Every reason, in words. */
static int place_refuse(struct vm_manager *m, const struct db *db, const struct row *vm,
	const struct place_wish *w, uint64_t seed, struct rv_error *e)
{
	size_t size = sched_host_count(m->sched), count = 0;
	struct sched_reason *reasons = calloc(size ? size : 1, sizeof *reasons);
	struct sched_decision d;
	int rc;

	if (!reasons)
		return rv_error_set(e, RV_ENOMEM, "no memory for a placement");
	rc = sched_explain(
		m->sched, &w->request, m->policy, seed, &d, reasons, size, &count, e);
	if (rc == RV_ENOHOST) {
		sched_refuse(reasons, count, place_name, (void *)db, e);
		rv_error_prefix(e, "VM %s", row_name(vm));
	}
	free(reasons);
	return rc ? rc : RV_EAGAIN;
}

/* The host that the policy picks, of all the pool's. */
static int place_pick(struct vm_manager *m, const struct row *vm, const struct uuid *on,
	const struct uuid *refused, size_t refused_count, struct uuid *host,
	struct rv_error *e)
{
	const struct db *db = pool_db(m->pool);
	struct place_wish w;
	struct sched_decision d;
	uint64_t seed = prng_next(loop_prng(m->loop));
	bool fell_back = false;
	int rc;

	if (m->host_count == 0)
		return rv_error_set(e, RV_ENOHOST, "no host is ready to run VMs");
	rc = vm_check(vm, e);
	if (!rc)
		rc = place_refresh(m, db, e);
	if (rc)
		return rc;
	place_wish(m, db, vm, on && !uuid_is_none(on) ? on : NULL, &w);
	rc = place_exclude(m, db, vm, refused, refused_count, &w, e);
	if (rc)
		return rc;
	rc = sched_decide_or_fall_back(
		m->sched, &w.request, m->policy, &sched_greedy, seed, &d, &fell_back, e);
	if (fell_back)
		vm_note(m, "SCHEDULER_FAILED", 2, UUID_NONE,
			"placement policy %s erred, greedy was used instead: %s",
			m->policy->name, e->detail);
	if (rc)
		rc = place_refuse(m, db, vm, &w, seed, e);
	else
		*host = d.host;
	free(w.exclude);
	return rc;
}

int vm_place(struct vm_manager *m, const struct row *vm, const struct uuid *on,
	const struct uuid *refused, size_t refused_count, struct vm_host **host,
	struct rv_error *e)
{
	struct uuid uuid;
	int rc = place_pick(m, vm, on, refused, refused_count, &uuid, e);

	*host = rc ? NULL : vm_host_find(m, &uuid);
	if (!rc && !*host)
		return rv_error_set(e, RV_ENOHOST,
			"VM %s: the host chosen is another one's to drive", row_name(vm));
	return rc;
}

int vm_place_explain(struct vm_manager *m, const struct uuid *vm, const struct uuid *on,
	struct uuid *host, struct rv_error *e)
{
	const struct row *row = db_row(pool_db(m->pool), CLASS_VM, *vm);

	if (!row)
		return rv_error_set(e, RV_ENOENT, "there is no such VM");
	return place_pick(m, row, on, NULL, 0, host, e);
}

/* Between placing and asking for the memory, others must not count on it. */
void vm_placed(struct vm_op *o, const struct row *vm)
{
	uint64_t min_kib, max_kib;

	vm_memory_needs(o->host, vm, &min_kib, &max_kib);
	o->placed_kib = min_kib + vm_overhead_kib(o->host, vm);
	o->host->placed_kib += o->placed_kib;
}

void vm_unplaced(struct vm_op *o)
{
	if (o->placed_kib)
		o->host->placed_kib -= o->placed_kib;
	o->placed_kib = 0;
}
