#include "sched/picture.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "sched/policy.h"

enum { PICTURE_FIRST_SLOTS = 64 };

struct sched *sched_new(size_t max_hosts)
{
	struct sched *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->max_hosts = max_hosts < SCHED_MAX_HOSTS ? max_hosts : SCHED_MAX_HOSTS;
	map_init(&s->by_uuid, 0);
	map_init(&s->classes, 0);
	map_init(&s->srs, 0);
	map_init(&s->networks, 0);
	return s;
}

static void free_attaches(struct map *m)
{
	size_t cursor = 0;
	struct picture_attach *a;

	while ((a = map_next(m, &cursor))) {
		free(a->bits);
		free(a);
	}
	map_fini(m);
}

void sched_free(struct sched *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->top; i++)
		free(s->hosts[i].attached);
	for (uint32_t i = 0; i < s->n_class_ids; i++)
		free(s->class_by_id[i]);
	free(s->class_by_id);
	free_attaches(&s->srs);
	free_attaches(&s->networks);
	map_fini(&s->by_uuid);
	map_fini(&s->classes);
	for (int i = 0; i < PICTURE_FACTS; i++)
		free(s->facts[i]);
	for (int i = 0; i < PICTURE_POLICIES; i++)
		free(s->score[i]);
	free(s->present);
	free(s->free_kib);
	free(s->room_kib);
	free(s->vcpus_room);
	free(s->class_id);
	free(s->tie);
	free(s->holes);
	free(s->hosts);
	free(s->blocks);
	free(s);
}

/* ---- Slots */

static int grow_array(void **array, size_t old, size_t new, size_t each)
{
	char *p = realloc(*array, new *each);

	if (!p)
		return RV_ENOMEM;
	memset(p + old * each, 0, (new - old) * each);
	*array = p;
	return 0;
}

/* by_uuid holds pointers into hosts: they move with it. */
static void move_hosts(struct sched *s, struct picture_host *hosts)
{
	for (size_t i = 0; i < s->top; i++) {
		if (!picture_bit(s->present, i))
			continue;
		/* The key lives in the value; an entry taken out leaves its room. */
		(void)map_remove(&s->by_uuid, &s->hosts[i].uuid, sizeof s->hosts[i].uuid);
		int rc = map_add(
			&s->by_uuid, &hosts[i].uuid, sizeof hosts[i].uuid, &hosts[i]);
		assert(rc == 0);
	}
}

static int grow_attaches(struct map *m, size_t old, size_t new)
{
	size_t cursor = 0;
	struct picture_attach *a;

	while ((a = map_next(m, &cursor)))
		if (a->bits && grow_array((void **)&a->bits, old / 64, new / 64, 8) < 0)
			return RV_ENOMEM;
	return 0;
}

/* On failure some arrays are larger than s->size says, which harms nothing. */
static int grow(struct sched *s)
{
	size_t old = s->size;
	size_t new = old ? old * 2 : PICTURE_FIRST_SLOTS;
	struct picture_host *hosts;
	int rc = 0;

	for (int i = 0; i < PICTURE_FACTS && rc == 0; i++)
		rc = grow_array((void **)&s->facts[i], old / 64, new / 64, 8);
	for (int i = 0; i < PICTURE_POLICIES && rc == 0; i++)
		rc = grow_array((void **)&s->score[i], old, new, sizeof(int64_t));
#define GROW(field, from, to)                                                            \
	if (rc == 0)                                                                     \
	rc = grow_array((void **)&s->field, from, to, sizeof *s->field)
	GROW(present, old / 64, new / 64);
	GROW(free_kib, old, new);
	GROW(room_kib, old, new);
	GROW(vcpus_room, old, new);
	GROW(class_id, old, new);
	GROW(tie, old, new);
	GROW(holes, old, new);
	GROW(blocks, old / 64, new / 64);
#undef GROW
	if (rc == 0)
		rc = grow_attaches(&s->srs, old, new);
	if (rc == 0)
		rc = grow_attaches(&s->networks, old, new);
	if (rc < 0)
		return rc;
	hosts = calloc(new, sizeof *hosts);
	if (!hosts)
		return RV_ENOMEM;
	if (old)
		memcpy(hosts, s->hosts, old * sizeof *hosts);
	move_hosts(s, hosts);
	free(s->hosts);
	s->hosts = hosts;
	s->size = new;
	return 0;
}

size_t picture_slot(const struct sched *s, const struct uuid *host)
{
	struct picture_host *h = map_get(&s->by_uuid, host, sizeof *host);

	return h ? (size_t)(h - s->hosts) : SIZE_MAX;
}

size_t sched_host_count(const struct sched *s)
{
	return s->count;
}

/* A free slot, marked in use. */
static int take_slot(struct sched *s, size_t *slot)
{
	size_t w = 0, i;
	int rc;

	while (w < s->size / 64 && s->present[w] == UINT64_MAX)
		w++;
	if (w == s->size / 64 && (rc = grow(s)) < 0)
		return rc;
	i = w * 64 + (size_t)__builtin_ctzll(~s->present[w]);
	s->hosts[i] = (struct picture_host){.attached = NULL};
	picture_set_bit(s->present, i, true);
	if (i >= s->top)
		s->top = i + 1;
	s->words = (s->top + 63) / 64;
	*slot = i;
	return 0;
}

/* ---- SRs and networks */

static int attach_add(struct sched *s, struct picture_attach *a, size_t slot)
{
	if (!a->bits && a->count == PICTURE_DENSE_FROM) {
		a->bits = calloc(s->size / 64, sizeof *a->bits);
		if (!a->bits)
			return RV_ENOMEM;
		for (uint32_t i = 0; i < a->count; i++)
			picture_set_bit(a->bits, a->slots[i], true);
	}
	if (a->bits)
		picture_set_bit(a->bits, slot, true);
	else
		a->slots[a->count] = (uint32_t)slot;
	a->count++;
	return 0;
}

static void attach_remove(struct map *m, struct picture_attach *a, size_t slot)
{
	a->count--;
	if (a->bits) {
		picture_set_bit(a->bits, slot, false);
	} else {
		uint32_t i = 0;

		while (a->slots[i] != slot)
			i++;
		a->slots[i] = a->slots[a->count];
	}
	if (a->count > 0)
		return;
	map_remove(m, &a->uuid, sizeof a->uuid);
	free(a->bits);
	free(a);
}

bool picture_attached(const struct sched *s, const struct picture_attach *a, size_t slot)
{
	(void)s;
	if (a->bits)
		return picture_bit(a->bits, slot);
	for (uint32_t i = 0; i < a->count; i++)
		if (a->slots[i] == slot)
			return true;
	return false;
}

static int attach(struct sched *s, struct map *m, const struct uuid *uuid, size_t slot,
	struct picture_attach **out)
{
	struct picture_attach *a = map_get(m, uuid, sizeof *uuid);
	int rc;

	*out = NULL;
	if (!a) {
		a = calloc(1, sizeof *a);
		if (!a)
			return RV_ENOMEM;
		a->uuid = *uuid;
		rc = map_add(m, &a->uuid, sizeof a->uuid, a);
		if (rc < 0) {
			free(a);
			return rc;
		}
	} else if (picture_attached(s, a, slot)) {
		return 0; /* named twice */
	}
	rc = attach_add(s, a, slot);
	if (rc == 0)
		*out = a;
	return rc;
}

static void detach_all(struct sched *s, struct picture_host *h)
{
	size_t slot = (size_t)(h - s->hosts);

	for (size_t i = 0; i < h->n_srs + h->n_networks; i++)
		attach_remove(
			i < h->n_srs ? &s->srs : &s->networks, h->attached[i], slot);
	free(h->attached);
	h->attached = NULL;
	h->n_srs = h->n_networks = 0;
}

static int attach_all(struct sched *s, size_t slot, const struct sched_host *f)
{
	struct picture_host *h = &s->hosts[slot];
	size_t n = f->n_srs + f->n_networks;
	struct picture_attach *a;
	int rc = 0;

	if (n == 0)
		return 0;
	h->attached = calloc(n, sizeof(struct picture_attach *));
	if (!h->attached)
		return RV_ENOMEM;
	for (size_t i = 0; i < f->n_srs && rc == 0; i++) {
		rc = attach(s, &s->srs, &f->srs[i], slot, &a);
		if (a)
			h->attached[h->n_srs++] = a;
	}
	for (size_t i = 0; i < f->n_networks && rc == 0; i++) {
		rc = attach(s, &s->networks, &f->networks[i], slot, &a);
		if (a)
			h->attached[h->n_srs + h->n_networks++] = a;
	}
	return rc;
}

/* ---- Classes */

/* A class number that is free. */
static int take_class_id(struct sched *s, uint32_t *id)
{
	for (*id = 0; *id < s->n_class_ids; ++*id)
		if (!s->class_by_id[*id])
			return 0;
	if (s->n_class_ids == PICTURE_CLASSES_MAX)
		return RV_ELIMIT;
	if (grow_array((void **)&s->class_by_id, s->n_class_ids, s->n_class_ids + 1,
		    sizeof *s->class_by_id) < 0)
		return RV_ENOMEM;
	s->n_class_ids++;
	return 0;
}

static int class_take(
	struct sched *s, const struct sched_host *f, struct picture_class **out)
{
	struct picture_class key = {
		.key = {.features = f->features, .xen_version = f->xen_version}};
	struct picture_class *c = map_get(&s->classes, &key.key, sizeof key.key);
	int rc;

	if (!c) {
		rc = take_class_id(s, &key.id);
		if (rc < 0)
			return rc;
		c = malloc(sizeof *c);
		if (!c)
			return RV_ENOMEM;
		*c = key;
		rc = map_add(&s->classes, &c->key, sizeof c->key, c);
		if (rc < 0) {
			free(c);
			return rc;
		}
		s->class_by_id[c->id] = c;
	}
	c->refs++;
	*out = c;
	return 0;
}

static void class_drop(struct sched *s, struct picture_class *c)
{
	if (!c || --c->refs > 0)
		return;
	map_remove(&s->classes, &c->key, sizeof c->key);
	s->class_by_id[c->id] = NULL;
	free(c);
}

/* ---- Numbers */

static uint64_t less(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* Metrics come from other machines: what can't be true takes the host out of the game
 * until better ones arrive. 2^44 KiB is 16 EiB. */
static bool load_is_sane(const struct sched_load *l)
{
	return l->memory_total_kib > 0 && l->memory_total_kib < UINT64_C(1) << 44 &&
	       l->memory_free_kib <= l->memory_total_kib &&
	       l->memory_squeezable_kib <= l->memory_total_kib;
}

static void make_view(struct picture_host *h)
{
	const struct sched_load *l = &h->facts.load;
	uint64_t cut = l->memory_reserve_kib;
	uint64_t free = less(l->memory_free_kib, cut), short_kib;

	/* A reserve that isn't free now eats what squeezing gives. */
	free = less(free, l->memory_promised_kib);
	cut = cut + l->memory_promised_kib < cut ? UINT64_MAX
						 : cut + l->memory_promised_kib;
	short_kib = less(cut, l->memory_free_kib);
	h->view = (struct reeve_sched_host){
		.struct_size = sizeof h->view,
		.flags = l->stale ? REEVE_SCHED_HOST_STALE : 0,
		.memory_total_kib = l->memory_total_kib,
		.memory_free_kib = free,
		.memory_squeezable_kib = less(l->memory_squeezable_kib, short_kib),
		.cpu_load_ppm =
			l->cpu_load_ppm < POLICY_PPM ? l->cpu_load_ppm : POLICY_PPM,
		.pcpus = h->facts.pcpus,
		.vcpus = l->vcpus,
		.vcpus_limit = h->facts.vcpus_limit,
		.vms = l->vms,
		.failure_domain = h->facts.failure_domain,
		.oldest_vm_s = l->oldest_vm_s,
		.mean_vm_s = l->mean_vm_s,
		.in_use_s = l->in_use_s,
	};
	if (h->view.memory_squeezable_kib > l->memory_total_kib - free)
		h->view.memory_squeezable_kib = l->memory_total_kib - free;
	memcpy(h->view.uuid, h->uuid.b, sizeof h->view.uuid);
}

static void refresh_block(struct sched *s, size_t w)
{
	struct picture_block b = {.max_free_kib = 0};

	for (int p = 0; p < PICTURE_POLICIES; p++)
		b.max_score[p] = INT64_MIN;
	for (uint64_t left = s->present[w]; left; left &= left - 1) {
		size_t i = w * 64 + (size_t)__builtin_ctzll(left);

		if (s->free_kib[i] > b.max_free_kib)
			b.max_free_kib = s->free_kib[i];
		if (s->room_kib[i] > b.max_room_kib)
			b.max_room_kib = s->room_kib[i];
		for (int p = 0; p < PICTURE_POLICIES; p++)
			if (s->score[p][i] > b.max_score[p])
				b.max_score[p] = s->score[p][i];
	}
	s->blocks[w] = b;
}

static void refresh(struct sched *s, size_t slot)
{
	struct picture_host *h = &s->hosts[slot];
	const struct reeve_sched_host *v = &h->view;
	uint32_t left;

	h->sane = load_is_sane(&h->facts.load);
	if (h->sane)
		make_view(h);
	else
		h->view = (struct reeve_sched_host){.struct_size = sizeof h->view};
	s->n_stale -= picture_bit(s->facts[PICTURE_STALE], slot);
	picture_set_bit(s->facts[PICTURE_LIVE], slot, h->facts.live);
	picture_set_bit(s->facts[PICTURE_ENABLED], slot, h->facts.enabled);
	picture_set_bit(s->facts[PICTURE_CLOCK_OK], slot, h->facts.clock_ok);
	picture_set_bit(s->facts[PICTURE_SANE], slot, h->sane);
	picture_set_bit(s->facts[PICTURE_STALE], slot, h->facts.load.stale);
	picture_set_bit(s->facts[PICTURE_USED], slot, v->vms > 0);
	picture_set_bit(s->facts[PICTURE_BUSY], slot, policy_busy(v));
	s->n_stale += h->facts.load.stale;
	left = v->vcpus_limit ? (uint32_t)less(v->vcpus_limit, v->vcpus) : UINT32_MAX;
	s->vcpus_room[slot] = left < v->pcpus ? left : v->pcpus;
	s->free_kib[slot] = v->memory_free_kib;
	s->room_kib[slot] = v->memory_free_kib + v->memory_squeezable_kib;
	s->holes[slot] = policy_holes(v);
	for (int p = 0; p < PICTURE_POLICIES; p++)
		s->score[p][slot] = policy_standing((enum picture_policy)p, v);
	refresh_block(s, slot / 64);
}

/* ---- Changes */

static uint64_t tie_of(const struct uuid *u)
{
	uint64_t hi, lo;

	/* Any fixed mixing does: the seed makes the draw, this only spreads the hosts. */
	memcpy(&hi, u->b, 8);
	memcpy(&lo, u->b + 8, 8);
	hi = (hi ^ (hi >> 30)) * 0xbf58476d1ce4e5b9u + lo;
	hi = (hi ^ (hi >> 27)) * 0x94d049bb133111ebu;
	return hi ^ (hi >> 31);
}

/* Empties a slot that by_uuid doesn't name. */
static void drop_slot(struct sched *s, size_t slot)
{
	struct picture_host *h = &s->hosts[slot];

	detach_all(s, h);
	class_drop(s, h->class);
	s->n_stale -= picture_bit(s->facts[PICTURE_STALE], slot);
	for (int i = 0; i < PICTURE_FACTS; i++)
		picture_set_bit(s->facts[i], slot, false);
	picture_set_bit(s->present, slot, false);
	*h = (struct picture_host){.attached = NULL};
	refresh_block(s, slot / 64);
}

/* Fills an empty slot with everything but its place in by_uuid. */
static int fill_slot(struct sched *s, size_t slot, const struct sched_host *f)
{
	struct picture_host *h = &s->hosts[slot];
	int rc;

	h->uuid = f->uuid;
	h->facts = *f;
	h->facts.srs = h->facts.networks = NULL;
	rc = class_take(s, f, &h->class);
	if (rc == 0)
		rc = attach_all(s, slot, f);
	if (rc < 0)
		return rc;
	s->class_id[slot] = h->class->id;
	s->tie[slot] = tie_of(&f->uuid);
	refresh(s, slot);
	return 0;
}

/* A host that is known already is built anew in a second slot, so that a failure leaves
 * the first as it was. */
int sched_host_set(struct sched *s, const struct sched_host *f, struct rv_error *e)
{
	char text[UUID_TEXT_SIZE];
	size_t old = picture_slot(s, &f->uuid), slot;
	struct picture_host *h;
	int rc;

	uuid_format(&f->uuid, text);
	if (f->n_srs > SCHED_MAX_HOST_SRS || f->n_networks > SCHED_MAX_HOST_SRS)
		return rv_error_set(e, RV_EPARAM,
			"host %s: more than %d SRs or networks attached", text,
			SCHED_MAX_HOST_SRS);
	if (old == SIZE_MAX && s->count >= s->max_hosts)
		return rv_error_set(e, RV_ELIMIT,
			"host %s: the scheduler holds at most %zu hosts", text,
			s->max_hosts);
	rc = take_slot(s, &slot);
	if (rc < 0)
		return rv_error_set(e, rc, "host %s: %s", text, rv_error_text(rc));
	rc = fill_slot(s, slot, f);
	h = &s->hosts[slot];
	if (rc == 0 && old != SIZE_MAX)
		map_remove(&s->by_uuid, &f->uuid, sizeof f->uuid);
	if (rc == 0)
		rc = map_add(&s->by_uuid, &h->uuid, sizeof h->uuid, h);
	if (rc < 0) {
		drop_slot(s, slot);
		return rv_error_set(e, rc, "host %s: %s", text,
			rc == RV_ELIMIT ? "more kinds of CPU than the scheduler holds"
					: rv_error_text(rc));
	}
	if (old != SIZE_MAX)
		drop_slot(s, old);
	else
		s->count++;
	return 0;
}

int sched_host_load(struct sched *s, const struct uuid *host, const struct sched_load *l)
{
	size_t slot = picture_slot(s, host);

	if (slot == SIZE_MAX)
		return RV_ENOENT;
	s->hosts[slot].facts.load = *l;
	refresh(s, slot);
	return 0;
}

static uint32_t add_clamped(uint32_t a, int64_t delta)
{
	int64_t sum = (int64_t)a + delta;

	return sum < 0 ? 0 : sum > UINT32_MAX ? UINT32_MAX : (uint32_t)sum;
}

int sched_host_charge(struct sched *s, const struct uuid *host, int64_t memory_kib,
	int32_t vcpus, int32_t vms)
{
	size_t slot = picture_slot(s, host);
	struct sched_load *l;
	uint64_t size;

	if (slot == SIZE_MAX)
		return RV_ENOENT;
	l = &s->hosts[slot].facts.load;
	size = memory_kib < 0 ? -(uint64_t)memory_kib : (uint64_t)memory_kib;
	if (memory_kib < 0)
		l->memory_promised_kib = less(l->memory_promised_kib, size);
	else if (l->memory_promised_kib + size >= size)
		l->memory_promised_kib += size;
	l->vcpus = add_clamped(l->vcpus, vcpus);
	l->vms = add_clamped(l->vms, vms);
	/* Until measured, a new vCPU counts as busy: better than sending all starts of a
	 * second to the host that was idle when they began. */
	if (s->hosts[slot].facts.pcpus > 0)
		l->cpu_load_ppm = add_clamped(l->cpu_load_ppm,
			(int64_t)vcpus * POLICY_PPM / s->hosts[slot].facts.pcpus);
	refresh(s, slot);
	return 0;
}

void sched_host_remove(struct sched *s, const struct uuid *host)
{
	size_t slot = picture_slot(s, host);

	if (slot == SIZE_MAX)
		return;
	map_remove(&s->by_uuid, host, sizeof *host);
	drop_slot(s, slot);
	s->count--;
}
