#include "memctl/memctl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "memctl/state.h"

enum { ACTIONS_PER_DOMAIN = 10, FIRST_SIZE = 16 };

static void or_default(uint64_t *field, uint64_t value)
{
	if (*field == 0)
		*field = value;
}

static void or_default_us(int64_t *field, int64_t value)
{
	if (*field <= 0)
		*field = value;
}

struct memctl *memctl_new(const struct memctl_config *config)
{
	struct memctl *m = calloc(1, sizeof *m);
	struct memctl_config *c;

	if (!m)
		return NULL;
	c = &m->config;
	if (config)
		*c = *config;
	or_default(&c->tolerance_kib, 1024);
	or_default(&c->hysteresis_kib, 8192);
	or_default(&c->probe_kib, 4096);
	or_default_us(&c->probe_delay_us, 20000000);
	or_default_us(&c->probe_wait_us, 5000000);
	or_default_us(&c->poll_us, 2000);
	or_default_us(&c->idle_poll_us, 100000);
	or_default_us(&c->stuck_min_us, 500000);
	or_default_us(&c->stuck_max_us, 5000000);
	or_default_us(&c->grow_delay_us, 500000);
	m->squeezed_us = INT64_MIN;
	return m;
}

void memctl_free(struct memctl *m)
{
	if (!m)
		return;
	free(m->domains);
	free(m->reservations);
	free(m->order);
	free(m->fill);
	free(m->actions);
	free(m);
}

/* ---- Room: everything a step could need is made before, so that steps can't fail */

static int grow_array(void **array, size_t *size, size_t want, size_t each)
{
	size_t new = *size ? *size : FIRST_SIZE;
	void *p;

	if (want <= *size)
		return 0;
	while (new < want)
		new *= 2;
	p = realloc(*array, new *each);
	if (!p)
		return RV_ENOMEM;
	*array = p;
	*size = new;
	return 0;
}

static int make_room(struct memctl *m, size_t domains, size_t reservations)
{
	size_t orders = m->reservations_size, fills = m->domains_size;
	int rc;

	rc = grow_array((void **)&m->fill, &fills, domains, sizeof *m->fill);
	if (rc == 0)
		rc = grow_array((void **)&m->domains, &m->domains_size, domains,
			sizeof *m->domains);
	if (rc == 0)
		rc = grow_array(
			(void **)&m->order, &orders, reservations, sizeof *m->order);
	if (rc == 0)
		rc = grow_array((void **)&m->reservations, &m->reservations_size,
			reservations, sizeof *m->reservations);
	if (rc == 0)
		rc = grow_array((void **)&m->actions, &m->actions_size,
			domains * ACTIONS_PER_DOMAIN + reservations, sizeof *m->actions);
	return rc;
}

/* ---- Domains */

/* Where it is or would be inserted. */
static size_t domain_index(const struct memctl *m, uint32_t domid)
{
	size_t lo = 0, hi = m->n_domains;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (m->domains[mid].d.domid < domid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static struct domain *domain_find(const struct memctl *m, uint32_t domid)
{
	size_t i = domain_index(m, domid);

	if (i < m->n_domains && m->domains[i].d.domid == domid)
		return &m->domains[i];
	return NULL;
}

static int check_range(const struct memctl_domain *d, struct rv_error *e)
{
	char vm[UUID_TEXT_SIZE];

	uuid_format(&d->vm, vm);
	/* 2^44 KiB is 16 EiB: sums of thousands of guests stay below 2^63. */
	if (d->static_max_kib == 0 || d->static_max_kib >= UINT64_C(1) << 44)
		return rv_error_set(e, RV_EPARAM,
			"VM %s: static-max of %" PRIu64 " KiB is out of range", vm,
			d->static_max_kib);
	if (d->static_min_kib > d->dynamic_min_kib)
		return rv_error_set(e, RV_EPARAM,
			"VM %s: dynamic-min (%" PRIu64
			" KiB) is below static-min (%" PRIu64 " KiB)",
			vm, d->dynamic_min_kib, d->static_min_kib);
	if (d->dynamic_min_kib > d->dynamic_max_kib)
		return rv_error_set(e, RV_EPARAM,
			"VM %s: dynamic-min (%" PRIu64
			" KiB) is above dynamic-max (%" PRIu64 " KiB)",
			vm, d->dynamic_min_kib, d->dynamic_max_kib);
	if (d->dynamic_max_kib > d->static_max_kib)
		return rv_error_set(e, RV_EPARAM,
			"VM %s: dynamic-max (%" PRIu64
			" KiB) is above static-max (%" PRIu64 " KiB)",
			vm, d->dynamic_max_kib, d->static_max_kib);
	return 0;
}

static struct memctl_reservation *reservation_find(
	const struct memctl *m, const struct uuid *owner)
{
	for (size_t i = 0; i < m->n_reservations; i++)
		if (uuid_eq(&m->reservations[i].owner, owner))
			return &m->reservations[i];
	return NULL;
}

void memctl_remove_reservation(struct memctl *m, size_t i)
{
	m->n_reservations--;
	memmove(&m->reservations[i], &m->reservations[i + 1],
		(m->n_reservations - i) * sizeof *m->reservations);
}

/* Sizes that no host has would overflow sums. */
static uint64_t sane_kib(uint64_t kib)
{
	return min_kib(kib, UINT64_C(1) << 44);
}

int memctl_domain_add(struct memctl *m, const struct memctl_domain *d,
	const struct uuid *reservation, struct rv_error *e)
{
	struct memctl_reservation *r = NULL;
	struct domain *g;
	size_t i = domain_index(m, d->domid);
	int rc = check_range(d, e);

	if (rc < 0)
		return rc;
	if (domain_find(m, d->domid))
		return rv_error_set(e, RV_EEXIST, "domain %u is known already", d->domid);
	if (m->n_domains == MEMCTL_MAX_DOMAINS)
		return rv_error_set(e, RV_ELIMIT,
			"the balloon controller holds at most %d domains",
			MEMCTL_MAX_DOMAINS);
	if (reservation) {
		r = reservation_find(m, reservation);
		if (!r)
			return rv_error_set(e, RV_ENOENT,
				"domain %u: its memory reservation is gone", d->domid);
		if (!r->granted)
			return rv_error_set(e, RV_ESTATE,
				"domain %u: its memory is not reserved yet", d->domid);
	}
	rc = make_room(m, m->n_domains + 1, m->n_reservations);
	if (rc < 0)
		return rv_error_set(e, rc, "domain %u: %s", d->domid, rv_error_text(rc));
	memmove(&m->domains[i + 1], &m->domains[i],
		(m->n_domains - i) * sizeof *m->domains);
	m->n_domains++;
	g = &m->domains[i];
	*g = (struct domain){
		.d = *d,
		.balloon = d->proven ? MEMCTL_PROVEN : MEMCTL_UNPROVEN,
		.seen_kib = d->actual_kib,
		.mark_kib = d->actual_kib,
		.mark_us = MEMCTL_NEVER,
		.probe_us = MEMCTL_NEVER,
		.grow_again_us = MEMCTL_NEVER,
	};
	g->d.actual_kib = sane_kib(d->actual_kib);
	g->d.maxmem_kib = sane_kib(d->maxmem_kib);
	if (g->d.target_kib == 0)
		g->d.target_kib = g->d.actual_kib;
	driver_set_speed(m, g, 0);
	g->share_kib = domain_commit(g);
	g->owed = g->d.target_kib < g->d.dynamic_min_kib;
	if (r) {
		g->promised_kib = d->mode == MEMCTL_BUILDING ? r->kib : 0;
		memctl_remove_reservation(m, (size_t)(r - m->reservations));
	}
	return 0;
}

void memctl_domain_remove(struct memctl *m, uint32_t domid)
{
	struct domain *g = domain_find(m, domid);
	size_t i;

	if (!g)
		return;
	i = (size_t)(g - m->domains);
	m->n_domains--;
	memmove(g, g + 1, (m->n_domains - i) * sizeof *g);
}

int memctl_domain_range(struct memctl *m, uint32_t domid, uint64_t dynamic_min_kib,
	uint64_t dynamic_max_kib, struct rv_error *e)
{
	struct domain *g = domain_find(m, domid);
	struct memctl_domain d;
	int rc;

	if (!g)
		return rv_error_set(e, RV_ENOENT, "there is no domain %u", domid);
	d = g->d;
	d.dynamic_min_kib = dynamic_min_kib;
	d.dynamic_max_kib = dynamic_max_kib;
	rc = check_range(&d, e);
	if (rc < 0)
		return rc;
	g->d = d;
	g->owed = g->d.target_kib < dynamic_min_kib;
	g->force = true;
	return 0;
}

int memctl_domain_mode(
	struct memctl *m, int64_t now_us, uint32_t domid, enum memctl_mode mode)
{
	struct domain *g = domain_find(m, domid);

	if (!g)
		return RV_ENOENT;
	if (mode == g->d.mode)
		return 0;
	/* Built: from here on it counts as what Xen lets it have. */
	if (g->d.mode == MEMCTL_BUILDING)
		g->promised_kib = 0;
	g->d.mode = mode;
	/* Time spent paused or frozen is held against no driver. */
	driver_restart(g, now_us);
	if (g->balloon == MEMCTL_PROBING) {
		/* Its target is put back when it runs again. */
		g->balloon = MEMCTL_UNPROVEN;
		g->probe_us = MEMCTL_NEVER;
	}
	return 0;
}

int memctl_domain_actual(
	struct memctl *m, int64_t now_us, uint32_t domid, uint64_t actual_kib)
{
	struct domain *g = domain_find(m, domid);

	if (!g)
		return RV_ENOENT;
	driver_seen(m, g, now_us, sane_kib(actual_kib));
	return 0;
}

int memctl_domain_pod(struct memctl *m, uint32_t domid, uint64_t pod_kib)
{
	struct domain *g = domain_find(m, domid);

	if (!g)
		return RV_ENOENT;
	g->d.pod_kib = pod_kib;
	return 0;
}

int memctl_domain_ready(struct memctl *m, int64_t now_us, uint32_t domid)
{
	struct domain *g = domain_find(m, domid);

	if (!g)
		return RV_ENOENT;
	if (g->balloon == MEMCTL_UNPROVEN)
		g->probe_us = now_us;
	return 0;
}

int memctl_domain_limited(struct memctl *m, uint32_t domid, uint64_t maxmem_kib)
{
	struct domain *g = domain_find(m, domid);

	if (!g)
		return RV_ENOENT;
	g->limit_kib = sane_kib(maxmem_kib);
	return 0;
}

int memctl_domain_found(
	struct memctl *m, uint32_t domid, uint64_t target_kib, uint64_t maxmem_kib)
{
	struct domain *g = domain_find(m, domid);

	if (!g)
		return RV_ENOENT;
	g->d.target_kib = sane_kib(target_kib);
	g->d.maxmem_kib = g->limit_kib = sane_kib(maxmem_kib);
	g->force = true;
	g->ordered = false;
	return 0;
}

/* The guest's free growth is counted against free memory, whoever it belongs to. */
void memctl_host_free(struct memctl *m, uint64_t free_kib)
{
	m->free_kib = sane_kib(free_kib);
}

/* ---- Reservations */

static int reservation_new(struct memctl *m, const struct uuid *owner, uint64_t kib,
	int64_t deadline_us, bool granted, struct rv_error *e)
{
	struct memctl_reservation *r = reservation_find(m, owner);
	char text[UUID_TEXT_SIZE];
	int rc;

	uuid_format(owner, text);
	if (kib == 0 || kib >= UINT64_C(1) << 44)
		return rv_error_set(e, RV_EPARAM,
			"reservation of operation %s: %" PRIu64 " KiB is out of range",
			text, kib);
	if (r && r->kib != kib)
		return rv_error_set(e, RV_EEXIST,
			"operation %s holds a reservation of another size: release it "
			"first",
			text);
	if (r) {
		r->deadline_us = deadline_us;
		return 0;
	}
	if (m->n_reservations == MEMCTL_MAX_RESERVATIONS)
		return rv_error_set(e, RV_ELIMIT,
			"%d memory reservations are open on this host: try again later",
			MEMCTL_MAX_RESERVATIONS);
	rc = make_room(m, m->n_domains, m->n_reservations + 1);
	if (rc < 0)
		return rv_error_set(e, rc, "reservation: %s", rv_error_text(rc));
	m->reservations[m->n_reservations++] = (struct memctl_reservation){
		.owner = *owner,
		.kib = kib,
		.held_kib = granted ? kib : 0,
		.deadline_us = deadline_us,
		.granted = granted,
	};
	return 0;
}

int memctl_reserve(struct memctl *m, const struct uuid *owner, uint64_t kib,
	int64_t deadline_us, struct rv_error *e)
{
	return reservation_new(m, owner, kib, deadline_us, false, e);
}

int memctl_adopt(struct memctl *m, const struct uuid *owner, uint64_t kib,
	int64_t deadline_us, struct rv_error *e)
{
	return reservation_new(m, owner, kib, deadline_us, true, e);
}

void memctl_release(struct memctl *m, const struct uuid *owner)
{
	struct memctl_reservation *r = reservation_find(m, owner);

	if (r)
		memctl_remove_reservation(m, (size_t)(r - m->reservations));
}

/* ---- Looks */

int64_t memctl_unpromised(const struct memctl *m)
{
	int64_t left = (int64_t)m->free_kib - (int64_t)sane_kib(m->config.reserve_kib);

	for (size_t i = 0; i < m->n_domains; i++) {
		const struct domain *g = &m->domains[i];

		left -= (int64_t)(domain_commit(g) - g->d.actual_kib);
	}
	for (size_t i = 0; i < m->n_reservations; i++)
		left -= (int64_t)m->reservations[i].held_kib;
	return left;
}

struct memctl_totals memctl_totals(const struct memctl *m)
{
	struct memctl_totals t = {
		.free_kib = m->free_kib,
		.unpromised_kib = memctl_unpromised(m),
		.domains = (uint32_t)m->n_domains,
	};

	for (size_t i = 0; i < m->n_domains; i++) {
		const struct domain *g = &m->domains[i];

		t.growable_kib += domain_commit(g) - g->d.actual_kib;
		/* With what is on its way already. */
		t.squeezable_kib += domain_squeezable(g) + domain_settling(g);
		t.stuck += g->balloon == MEMCTL_STUCK;
		t.unproven +=
			g->balloon == MEMCTL_UNPROVEN || g->balloon == MEMCTL_PROBING;
	}
	for (size_t i = 0; i < m->n_reservations; i++) {
		t.reserved_kib += m->reservations[i].held_kib;
		t.granted += m->reservations[i].granted;
		t.waiting += !m->reservations[i].granted;
	}
	return t;
}

size_t memctl_domain_count(const struct memctl *m)
{
	return m->n_domains;
}

size_t memctl_reservation_count(const struct memctl *m)
{
	return m->n_reservations;
}

struct memctl_view memctl_domain_at(const struct memctl *m, size_t i)
{
	const struct domain *g = &m->domains[i];

	return (struct memctl_view){
		.d = g->d,
		.balloon = g->balloon,
		.promised_kib = g->promised_kib,
		.limit_kib = max_kib(g->limit_kib, g->d.maxmem_kib),
		.share_kib = g->share_kib,
		.squeezable_kib = domain_squeezable(g) + domain_settling(g),
		.speed_kib_per_s = g->speed_kib_per_s,
		.offset_kib = g->offset_kib,
		.moving = driver_distance(m, g) != 0,
	};
}

int memctl_domain_get(const struct memctl *m, uint32_t domid, struct memctl_view *v)
{
	const struct domain *g = domain_find(m, domid);

	if (!g)
		return RV_ENOENT;
	*v = memctl_domain_at(m, (size_t)(g - m->domains));
	return 0;
}

struct memctl_reservation memctl_reservation_at(const struct memctl *m, size_t i)
{
	return m->reservations[i];
}

int memctl_check(const struct memctl *m, struct rv_error *e)
{
	for (size_t i = 0; i < m->n_domains; i++) {
		const struct domain *g = &m->domains[i];

		if (i > 0 && m->domains[i - 1].d.domid >= g->d.domid)
			return rv_error_set(
				e, RV_EINTERNAL, "domain %u is out of order", g->d.domid);
		if (!domain_adjustable(g) || !g->ordered)
			continue;
		if (g->d.target_kib < g->d.dynamic_min_kib && !g->owed)
			return rv_error_set(e, RV_EINTERNAL,
				"domain %u: target %" PRIu64
				" KiB is below dynamic-min %" PRIu64 " KiB",
				g->d.domid, g->d.target_kib, g->d.dynamic_min_kib);
		if (g->d.target_kib > g->d.static_max_kib)
			return rv_error_set(e, RV_EINTERNAL,
				"domain %u: target %" PRIu64
				" KiB is above static-max %" PRIu64 " KiB",
				g->d.domid, g->d.target_kib, g->d.static_max_kib);
	}
	for (size_t i = 0; i < m->n_reservations; i++) {
		const struct memctl_reservation *r = &m->reservations[i];

		if (r->held_kib > r->kib || (r->granted && r->held_kib != r->kib))
			return rv_error_set(e, RV_EINTERNAL,
				"reservation of %" PRIu64 " KiB holds %" PRIu64 " KiB",
				r->kib, r->held_kib);
	}
	return 0;
}

const char *memctl_balloon_name(enum memctl_balloon b)
{
	static const char *const names[] = {
		[MEMCTL_UNPROVEN] = "unproven",
		[MEMCTL_PROBING] = "probing",
		[MEMCTL_PROVEN] = "proven",
		[MEMCTL_STUCK] = "stuck",
	};

	return (unsigned)b < sizeof names / sizeof *names ? names[b] : "?";
}

const char *memctl_do_name(enum memctl_do what)
{
	static const char *const names[] = {
		[MEMCTL_SET_MAXMEM] = "set-maxmem",
		[MEMCTL_SET_TARGET] = "set-target",
		[MEMCTL_DECLARE_PROVEN] = "declare-proven",
		[MEMCTL_DECLARE_STUCK] = "declare-stuck",
		[MEMCTL_DECLARE_FREE] = "declare-free",
		[MEMCTL_GRANT] = "grant",
		[MEMCTL_REFUSE] = "refuse",
		[MEMCTL_EXPIRE] = "expire",
	};

	return (unsigned)what < sizeof names / sizeof *names ? names[what] : "?";
}
