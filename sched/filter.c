#include "sched/filter.h"

#include <string.h>

static void keep_only(const struct sched *s, uint64_t *can, const uint64_t *bits)
{
	for (size_t w = 0; w < s->words; w++)
		can[w] &= bits[w];
}

static void keep_attached(const struct sched *s, uint64_t *can, const struct map *m,
	const struct uuid *wanted, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct picture_attach *a = map_get(m, &wanted[i], sizeof wanted[i]);
		uint64_t list[FILTER_WORDS];

		if (a && a->bits) {
			keep_only(s, can, a->bits);
			continue;
		}
		memset(list, 0, s->words * sizeof *list);
		for (uint32_t k = 0; a && k < a->count; k++)
			picture_set_bit(list, a->slots[k], true);
		keep_only(s, can, list);
	}
}

static void set_hosts(
	const struct sched *s, uint64_t *bits, const struct uuid *hosts, size_t n)
{
	memset(bits, 0, s->words * sizeof *bits);
	for (size_t i = 0; i < n; i++) {
		size_t slot = picture_slot(s, &hosts[i]);

		if (slot != SIZE_MAX)
			picture_set_bit(bits, slot, true);
	}
}

static bool has_features(
	const struct sched_features *have, const struct sched_features *need)
{
	for (int i = 0; i < SCHED_FEATURE_WORDS; i++)
		if (need->w[i] & ~have->w[i])
			return false;
	return true;
}

static void filter_classes(
	struct filter *f, const struct sched *s, const struct sched_request *r)
{
	for (uint32_t i = 0; i < s->n_class_ids; i++) {
		const struct picture_class *c = s->class_by_id[i];

		f->class_ok[i] = c && has_features(&c->key.features, &r->features) &&
				 c->key.xen_version >= r->min_xen_version;
	}
}

void filter_init(struct filter *f, const struct sched *s, const struct sched_request *r)
{
	uint64_t hosts[FILTER_WORDS];

	f->memory_kib = r->memory_min_kib;
	f->vcpus = r->vcpus;
	for (size_t w = 0; w < s->words; w++)
		f->can[w] = s->present[w] & s->facts[PICTURE_LIVE][w] &
			    s->facts[PICTURE_ENABLED][w] & s->facts[PICTURE_SANE][w];
	if (r->needs_clock)
		keep_only(s, f->can, s->facts[PICTURE_CLOCK_OK]);
	if (!uuid_is_none(&r->on)) {
		set_hosts(s, hosts, &r->on, 1);
		keep_only(s, f->can, hosts);
	}
	if (r->n_only > 0) {
		set_hosts(s, hosts, r->only, r->n_only);
		keep_only(s, f->can, hosts);
	}
	for (size_t i = 0; i < r->n_exclude; i++) {
		size_t slot = picture_slot(s, &r->exclude[i].host);

		if (slot != SIZE_MAX)
			picture_set_bit(f->can, slot, false);
	}
	keep_attached(s, f->can, &s->srs, r->srs, r->n_srs);
	keep_attached(s, f->can, &s->networks, r->networks, r->n_networks);
	set_hosts(s, f->avoid, r->avoid, r->n_avoid);
	filter_classes(f, s, r);
}

static bool among(const struct uuid *hosts, size_t n, const struct uuid *host)
{
	for (size_t i = 0; i < n; i++)
		if (uuid_eq(&hosts[i], host))
			return true;
	return false;
}

/* Counts what is not attached here; *first names one. */
static uint32_t missing(const struct sched *s, size_t slot, const struct map *m,
	const struct uuid *wanted, size_t n, struct uuid *first)
{
	uint32_t count = 0;

	for (size_t i = 0; i < n; i++) {
		const struct picture_attach *a = map_get(m, &wanted[i], sizeof wanted[i]);

		if (a && picture_attached(s, a, slot))
			continue;
		if (count++ == 0)
			*first = wanted[i];
	}
	return count;
}

static bool excluded(
	const struct sched_request *r, const struct uuid *host, struct sched_reason *why)
{
	for (size_t i = 0; i < r->n_exclude; i++) {
		if (!uuid_eq(&r->exclude[i].host, host))
			continue;
		why->what = r->exclude[i].what;
		why->object = r->exclude[i].because;
		why->words = r->exclude[i].words;
		return true;
	}
	return false;
}

static uint32_t features_missing(
	const struct sched_features *have, const struct sched_features *need)
{
	uint32_t count = 0;

	for (int i = 0; i < SCHED_FEATURE_WORDS; i++)
		count += (uint32_t)__builtin_popcountll(need->w[i] & ~have->w[i]);
	return count;
}

/* What doesn't depend on numbers. */
static enum sched_why check_facts(const struct sched *s, const struct sched_request *r,
	size_t slot, struct sched_reason *why)
{
	const struct picture_host *h = &s->hosts[slot];
	const struct sched_host *f = &h->facts;
	uint32_t n;

	if (!uuid_is_none(&r->on) && !uuid_eq(&r->on, &h->uuid))
		return SCHED_NOT_NAMED;
	if (!f->live)
		return SCHED_NOT_LIVE;
	if (!f->enabled)
		return SCHED_DISABLED;
	if (excluded(r, &h->uuid, why))
		return SCHED_EXCLUDED;
	if (r->n_only > 0 && !among(r->only, r->n_only, &h->uuid))
		return SCHED_NOT_AFFINE;
	if ((n = features_missing(&f->features, &r->features)) > 0) {
		why->need = n;
		return SCHED_CPU_FEATURES;
	}
	if (f->xen_version < r->min_xen_version) {
		why->need = r->min_xen_version;
		why->have = f->xen_version;
		return SCHED_XEN_VERSION;
	}
	if (r->needs_clock && !f->clock_ok)
		return SCHED_CLOCK;
	if ((n = missing(s, slot, &s->srs, r->srs, r->n_srs, &why->object)) > 0) {
		why->more = n - 1;
		return SCHED_NO_SR;
	}
	n = missing(s, slot, &s->networks, r->networks, r->n_networks, &why->object);
	if (n > 0) {
		why->more = n - 1;
		return SCHED_NO_NETWORK;
	}
	return SCHED_OK;
}

static enum sched_why check_numbers(const struct sched_request *r,
	const struct picture_host *h, struct sched_reason *why)
{
	const struct reeve_sched_host *v = &h->view;

	why->need = r->vcpus;
	why->have = h->facts.pcpus;
	if (h->facts.pcpus < r->vcpus)
		return SCHED_PCPUS;
	why->need = 0;
	why->have = h->facts.load.memory_total_kib;
	if (!h->sane)
		return SCHED_METRICS;
	why->have = 0;
	if (v->vcpus_limit &&
		(v->vcpus >= v->vcpus_limit ? 0 : v->vcpus_limit - v->vcpus) < r->vcpus) {
		why->need = r->vcpus;
		why->have = v->vcpus >= v->vcpus_limit ? 0 : v->vcpus_limit - v->vcpus;
		return SCHED_VCPUS_LIMIT;
	}
	why->need = r->memory_min_kib;
	why->have = v->memory_free_kib;
	why->squeezable_kib = v->memory_squeezable_kib;
	if (v->memory_free_kib + v->memory_squeezable_kib < r->memory_min_kib)
		return SCHED_MEMORY;
	if (v->memory_free_kib < r->memory_min_kib)
		why->squeeze_kib = r->memory_min_kib - v->memory_free_kib;
	why->stale = h->facts.load.stale;
	return SCHED_OK;
}

struct sched_reason filter_reason(
	const struct sched *s, const struct sched_request *r, size_t slot)
{
	const struct picture_host *h = &s->hosts[slot];
	struct sched_reason why = {.host = h->uuid};

	why.why = check_facts(s, r, slot, &why);
	if (why.why == SCHED_OK)
		why.why = check_numbers(r, h, &why);
	return why;
}
