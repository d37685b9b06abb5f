#include <stdlib.h>
#include <string.h>

#include "sched/filter.h"
#include "sched/policy.h"

/* The best host so far; slot SIZE_MAX while there is none. */
struct best {
	size_t slot;
	int64_t score;
	uint64_t tie;
};

static void consider(struct best *b, size_t slot, int64_t score, uint64_t tie)
{
	if (b->slot != SIZE_MAX &&
		(score < b->score || (score == b->score && tie >= b->tie)))
		return;
	*b = (struct best){slot, score, tie};
}

/* ---- The built-in policies: one pass over a kind of host at a time, best kind first */

struct search {
	const struct sched *s;
	const struct filter *f;
	enum picture_policy p;
	uint64_t seed;
};

/* Which hosts a pass looks at: each fact must be as said, or -1 for either. */
struct pass {
	int stale, avoid, used, busy;
	bool squeeze; /* memory may have to be freed first */
};

static uint64_t must(uint64_t hosts, const uint64_t *bits, size_t w, int as)
{
	return as < 0 ? hosts : hosts & (as ? bits[w] : ~bits[w]);
}

static uint64_t pass_word(const struct search *q, const struct pass *pass, size_t w)
{
	uint64_t hosts = q->f->can[w];

	if (!hosts)
		return 0;
	hosts = must(hosts, q->s->facts[PICTURE_STALE], w, pass->stale);
	hosts = must(hosts, q->f->avoid, w, pass->avoid);
	hosts = must(hosts, q->s->facts[PICTURE_USED], w, pass->used);
	return must(hosts, q->s->facts[PICTURE_BUSY], w, pass->busy);
}

static void search_pass(const struct search *q, const struct pass *pass, struct best *b)
{
	const struct sched *s = q->s;
	const uint64_t *memory = pass->squeeze ? s->room_kib : s->free_kib;
	uint64_t need = q->f->memory_kib;

	for (size_t w = 0; w < s->words; w++) {
		const struct picture_block *block = &s->blocks[w];

		if ((pass->squeeze ? block->max_room_kib : block->max_free_kib) < need ||
			(b->slot != SIZE_MAX && block->max_score[q->p] < b->score))
			continue;
		for (uint64_t left = pass_word(q, pass, w); left; left &= left - 1) {
			size_t i = w * 64 + (size_t)__builtin_ctzll(left);
			int64_t score = s->score[q->p][i];

			if (memory[i] < need || !filter_fits(q->f, s, i) ||
				(b->slot != SIZE_MAX && score < b->score))
				continue;
			score -= policy_loss(q->p, &s->holes[i], q->f->vcpus, need);
			consider(b, i, score, s->tie[i] - q->seed);
		}
	}
}

/* The passes in the order of policy_tier, for hosts of one preference. */
static bool search_tiers(const struct search *q, int stale, int avoid, struct best *b)
{
	static const struct pass greedy[] = {
		{-1, -1, -1, -1, false},
		{-1, -1, -1, -1, true},
	};
	static const struct pass conservative[] = {
		{-1, -1, 1, 0, false},
		{-1, -1, 1, 0, true},
		{-1, -1, 0, -1, true},
		{-1, -1, 1, 1, false},
		{-1, -1, 1, 1, true},
	};
	const struct pass *passes = q->p == PICTURE_GREEDY ? greedy : conservative;
	size_t n = q->p == PICTURE_GREEDY ? 2 : 5;

	for (size_t i = 0; i < n && b->slot == SIZE_MAX; i++) {
		struct pass pass = passes[i];

		pass.stale = stale;
		pass.avoid = avoid;
		search_pass(q, &pass, b);
	}
	return b->slot != SIZE_MAX;
}

static size_t search(const struct sched *s, const struct sched_request *r,
	const struct filter *f, enum picture_policy p, uint64_t seed)
{
	struct search q = {.s = s, .f = f, .p = p, .seed = seed};
	struct best b = {.slot = SIZE_MAX};
	size_t wish = SIZE_MAX;

	if (!uuid_is_none(&r->affinity))
		wish = picture_slot(s, &r->affinity);
	if (wish != SIZE_MAX && picture_bit(f->can, wish) && filter_fits(f, s, wish))
		return wish;
	for (int stale = 0; stale <= (s->n_stale > 0); stale++)
		for (int avoid = 0; avoid <= (r->n_avoid > 0); avoid++)
			if (search_tiers(&q, s->n_stale ? stale : -1,
				    r->n_avoid ? avoid : -1, &b))
				return b.slot;
	return SIZE_MAX;
}

/* ---- Any other policy */

static struct reeve_sched_request request_view(const struct sched_request *r)
{
	struct reeve_sched_request v = {
		.struct_size = sizeof v,
		.vcpus = r->vcpus,
		.memory_min_kib = r->memory_min_kib,
		.memory_max_kib = r->memory_max_kib > r->memory_min_kib
					  ? r->memory_max_kib
					  : r->memory_min_kib,
	};

	memcpy(v.uuid, r->vm.b, sizeof v.uuid);
	return v;
}

static struct reeve_sched_host host_view(const struct sched *s,
	const struct sched_request *r, const struct filter *f, size_t slot)
{
	struct reeve_sched_host v = s->hosts[slot].view;

	if (uuid_eq(&r->affinity, &s->hosts[slot].uuid))
		v.flags |= REEVE_SCHED_HOST_AFFINITY;
	if (picture_bit(f->avoid, slot))
		v.flags |= REEVE_SCHED_HOST_AVOID;
	return v;
}

/* Visits the hosts that pass every filter: the first slot at or after `slot`. */
static size_t next_fit(const struct sched *s, const struct filter *f, size_t slot)
{
	for (; slot < s->top; slot++) {
		if (f->can[slot / 64] == 0) {
			slot |= 63;
			continue;
		}
		if (picture_bit(f->can, slot) && filter_fits(f, s, slot))
			return slot;
	}
	return SIZE_MAX;
}

static size_t ask_score(const struct sched *s, const struct sched_request *r,
	const struct filter *f, const struct reeve_sched_policy *p, uint64_t seed)
{
	struct reeve_sched_request vm = request_view(r);
	struct best b = {.slot = SIZE_MAX};

	for (size_t i = next_fit(s, f, 0); i != SIZE_MAX; i = next_fit(s, f, i + 1)) {
		struct reeve_sched_host v = host_view(s, r, f, i);
		int64_t score = p->score(&v, &vm);

		if (score != INT64_MIN)
			consider(&b, i, score, s->tie[i] - seed);
	}
	return b.slot;
}

static int by_uuid(const void *a, const void *b)
{
	const struct reeve_sched_host *x = a, *y = b;

	return memcmp(x->uuid, y->uuid, sizeof x->uuid);
}

/* The hosts go in sorted by UUID, so that the order of their arrival can't matter. */
static int ask_decide(const struct sched *s, const struct sched_request *r,
	const struct filter *f, const struct reeve_sched_policy *p, uint64_t seed,
	size_t *slot, struct rv_error *e)
{
	struct reeve_sched_request vm = request_view(r);
	struct reeve_sched_host *hosts;
	struct uuid chosen;
	size_t n = 0;
	int64_t answer;

	*slot = SIZE_MAX;
	for (size_t i = next_fit(s, f, 0); i != SIZE_MAX; i = next_fit(s, f, i + 1))
		n++;
	if (n == 0)
		return 0;
	hosts = calloc(n, sizeof *hosts);
	if (!hosts)
		return rv_error_set(
			e, RV_ENOMEM, "no memory to ask scheduler %s", p->name);
	n = 0;
	for (size_t i = next_fit(s, f, 0); i != SIZE_MAX; i = next_fit(s, f, i + 1))
		hosts[n++] = host_view(s, r, f, i);
	qsort(hosts, n, sizeof *hosts, by_uuid);
	answer = p->decide(hosts, n, sizeof *hosts, &vm, seed);
	if (answer >= 0 && (uint64_t)answer < n) {
		memcpy(chosen.b, hosts[answer].uuid, sizeof chosen.b);
		*slot = picture_slot(s, &chosen);
	}
	free(hosts);
	/* A plugin may have written over the hosts: then the UUID is none of ours. */
	if (answer >= 0 && *slot == SIZE_MAX)
		return rv_error_set(e, RV_EINVAL,
			"scheduler %s chose host number %lld of %zu, which there is not",
			p->name, (long long)answer, n);
	return 0;
}

/* ---- Deciding */

static void fill_decision(const struct sched *s, const struct sched_request *r,
	const struct filter *f, const struct reeve_sched_policy *p, size_t slot,
	struct sched_decision *d)
{
	uint64_t free_kib = s->free_kib[slot];

	d->placed = true;
	d->host = s->hosts[slot].uuid;
	d->squeeze_kib = free_kib < r->memory_min_kib ? r->memory_min_kib - free_kib : 0;
	if (p->score) {
		struct reeve_sched_request vm = request_view(r);
		struct reeve_sched_host v = host_view(s, r, f, slot);

		d->score = p->score(&v, &vm);
	}
}

static int decide(const struct sched *s, const struct sched_request *r,
	const struct filter *f, const struct reeve_sched_policy *p, uint64_t seed,
	struct sched_decision *d, struct rv_error *e)
{
	enum picture_policy known = policy_index(p);
	size_t slot = SIZE_MAX;
	int rc = 0;

	*d = (struct sched_decision){.placed = false};
	if (!uuid_is_none(&r->on) && picture_slot(s, &r->on) == SIZE_MAX) {
		char text[UUID_TEXT_SIZE];

		return rv_error_set(e, RV_ENOENT, "host %s is not in the pool",
			uuid_format(&r->on, text));
	}
	if (known != PICTURE_POLICIES)
		slot = search(s, r, f, known, seed);
	else if (p->score)
		slot = ask_score(s, r, f, p, seed);
	else
		rc = ask_decide(s, r, f, p, seed, &slot, e);
	if (rc < 0)
		return rc;
	if (slot == SIZE_MAX)
		return rv_error_set(e, RV_ENOHOST,
			"none of the pool's %zu hosts can run it", s->count);
	/* Only a plugin that wrote over its arguments could break this. */
	if (!picture_bit(f->can, slot) || !filter_fits(f, s, slot))
		return rv_error_set(e, RV_EINVAL,
			"scheduler %s chose a host that fails a filter", p->name);
	fill_decision(s, r, f, p, slot, d);
	return 0;
}

int sched_decide(const struct sched *s, const struct sched_request *r,
	const struct reeve_sched_policy *p, uint64_t seed, struct sched_decision *d,
	struct rv_error *e)
{
	struct filter f;

	filter_init(&f, s, r);
	return decide(s, r, &f, p, seed, d, e);
}

int sched_decide_or_fall_back(const struct sched *s, const struct sched_request *r,
	const struct reeve_sched_policy *p, const struct reeve_sched_policy *fallback,
	uint64_t seed, struct sched_decision *d, bool *fell_back, struct rv_error *e)
{
	int rc;

	*fell_back = false;
	rc = sched_check_policy(p, e);
	if (rc == 0)
		rc = sched_decide(s, r, p, seed, d, e);
	if (rc != RV_EINVAL && rc != RV_ENOMEM)
		return rc;
	*fell_back = true;
	return sched_decide(s, r, fallback, seed, d, NULL);
}

/* ---- Explaining */

static int by_host(const void *a, const void *b)
{
	const struct sched_reason *x = a, *y = b;

	return uuid_cmp(&x->host, &y->host);
}

int sched_explain(const struct sched *s, const struct sched_request *r,
	const struct reeve_sched_policy *p, uint64_t seed, struct sched_decision *d,
	struct sched_reason *reasons, size_t size, size_t *count, struct rv_error *e)
{
	struct reeve_sched_request vm = request_view(r);
	struct filter f;
	uint32_t candidates = 0;
	int rc;

	*count = 0;
	if (size < s->count)
		return rv_error_set(e, RV_EPARAM,
			"room for %zu reasons, the pool has %zu hosts", size, s->count);
	filter_init(&f, s, r);
	rc = decide(s, r, &f, p, seed, d, e);
	for (size_t i = 0; i < s->top; i++) {
		struct sched_reason *why;

		if (!picture_bit(s->present, i))
			continue;
		why = &reasons[(*count)++];
		*why = filter_reason(s, r, i);
		if (why->why != SCHED_OK)
			continue;
		candidates++;
		why->chosen = d->placed && uuid_eq(&d->host, &why->host);
		if (p->score) {
			struct reeve_sched_host v = host_view(s, r, &f, i);

			why->score = p->score(&v, &vm);
		}
	}
	d->candidates = candidates;
	qsort(reasons, *count, sizeof *reasons, by_host);
	return rc;
}

int sched_check_decision(const struct sched *s, const struct sched_request *r,
	const struct uuid *host, struct sched_reason *why)
{
	size_t slot = picture_slot(s, host);

	*why = (struct sched_reason){.host = *host, .why = SCHED_NOT_LIVE};
	if (slot == SIZE_MAX)
		return RV_ENOENT;
	*why = filter_reason(s, r, slot);
	return why->why == SCHED_OK ? 0 : RV_ENOHOST;
}
