#include "fence/guard.h"

#include <assert.h>
#include <string.h>

void guard_book_init(struct guard_book *b, bool watching)
{
	memset(b, 0, sizeof *b);
	b->watching = watching;
	b->quiet_ms = -GUARD_QUIET_MS; /* as soon as there is something to guard */
}

int guard_book_lease(
	struct guard_book *b, int64_t until_ms, int64_t now_ms, struct rv_error *e)
{
	if (until_ms < 0 || until_ms > now_ms + GUARD_LEASE_MAX_MS)
		return rv_error_set(e, RV_EPARAM,
			"a lease of %lld ms from now is longer than any (%d ms)",
			(long long)(until_ms - now_ms), GUARD_LEASE_MAX_MS);
	b->until_ms = until_ms;
	return 0;
}

static bool domain_eq(const struct fence_domain *a, const struct fence_domain *b)
{
	return a->domid == b->domid && uuid_eq(&a->handle, &b->handle);
}

static const struct guarded *find(
	const struct guard_book *b, const struct fence_domain *d)
{
	for (uint32_t i = 0; i < b->count; i++)
		if (domain_eq(&b->domains[i].domain, d))
			return &b->domains[i];
	return NULL;
}

/* Stopped ones are to be destroyed, listed or not: they ran as the former owner's. */
static uint32_t keep_stopped(struct guard_book *b)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < b->count; i++)
		if (b->domains[i].stopped)
			b->domains[kept++] = b->domains[i];
	return kept;
}

static bool named_before(const struct fence_message *m, uint32_t index)
{
	for (uint32_t i = 0; i < index; i++)
		if (domain_eq(&m->domains[i], &m->domains[index]))
			return true;
	return false;
}

/* How many stopped ones the list does not name: they stay beside it. */
static uint32_t stopped_beside(const struct guard_book *b, const struct fence_message *m)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < b->count; i++) {
		const struct guarded *g = &b->domains[i];
		bool named = false;

		for (uint32_t j = 0; j < m->count && g->stopped && !named; j++)
			named = domain_eq(&m->domains[j], &g->domain);
		count += g->stopped && !named;
	}
	return count;
}

int guard_book_list(struct guard_book *b, const struct fence_message *m, int64_t now_ms,
	struct rv_error *e)
{
	uint32_t fresh = 0, named = 0, beside = stopped_beside(b, m);

	for (uint32_t i = 0; i < m->count; i++) {
		fresh += !find(b, &m->domains[i]);
		named += !named_before(m, i);
	}
	if (fresh && now_ms >= b->until_ms)
		return rv_error_set(e, RV_ESTATE,
			"this host has no lease: no domain is guarded from now on");
	/* Before anything is changed: what is guarded now was promised to be. */
	if (named + beside > FENCE_MAX_DOMAINS)
		return rv_error_set(e, RV_ELIMIT,
			"%u protected domains, beside %u that were stopped and are yet "
			"to be destroyed, are more than the %d that can be guarded: the "
			"former list stays until those are gone",
			named, beside, FENCE_MAX_DOMAINS);
	b->seq = m->seq;
	b->count = keep_stopped(b);
	for (uint32_t i = 0; i < m->count; i++)
		if (!find(b, &m->domains[i]))
			b->domains[b->count++] =
				(struct guarded){.domain = m->domains[i]};
	return 0;
}

/* It stands still for sure. Under another lease somebody may have let one go on whose
 * destroy takes long: when that is over it is stopped once more. */
static bool stands(const struct guard_book *b, const struct guarded *g)
{
	return g->stopped && g->stopped_for_ms == b->until_ms;
}

/* The first that is to be tried now; `*at_ms`: when the next is, else. */
static bool due(const struct guard_book *b, bool stopped, int64_t now_ms, uint32_t *index,
	int64_t *at_ms)
{
	for (uint32_t i = 0; i < b->count; i++) {
		const struct guarded *g = &b->domains[i];
		int64_t again_ms = g->tried_ms + GUARD_AGAIN_MS;

		if (stopped ? !g->stopped : stands(b, g))
			continue;
		if (!g->tried || now_ms >= again_ms) {
			*index = i;
			return true;
		}
		if (again_ms < *at_ms)
			*at_ms = again_ms;
	}
	return false;
}

static bool any_ends(const struct guard_book *b)
{
	for (uint32_t i = 0; i < b->count; i++)
		if (b->domains[i].ending)
			return true;
	return false;
}

/* The next one to destroy, once the one before is gone. */
static enum guard_act next_end(
	const struct guard_book *b, int64_t now_ms, uint32_t *index, int64_t *at_ms)
{
	return !any_ends(b) && due(b, true, now_ms, index, at_ms) ? GUARD_DESTROY
								  : GUARD_WAIT;
}

static bool any_runs(const struct guard_book *b)
{
	for (uint32_t i = 0; i < b->count; i++)
		if (!stands(b, &b->domains[i]))
			return true;
	return false;
}

enum guard_act guard_book_next(
	struct guard_book *b, int64_t now_ms, uint32_t *index, int64_t *at_ms)
{
	*at_ms = INT64_MAX;
	if (b->seq == 0)
		return GUARD_WAIT;
	if (!any_runs(b)) {
		if (b->watching)
			return GUARD_OFF;
		return next_end(b, now_ms, index, at_ms);
	}
	if (now_ms >= b->until_ms)
		return due(b, false, now_ms, index, at_ms) ? GUARD_STOP : GUARD_WAIT;
	if (!b->watching || now_ms >= b->quiet_ms + GUARD_QUIET_MS)
		return GUARD_QUIET;
	*at_ms = b->quiet_ms + GUARD_QUIET_MS;
	if (b->until_ms < *at_ms)
		*at_ms = b->until_ms;
	return next_end(b, now_ms, index, at_ms);
}

void guard_book_did(struct guard_book *b, enum guard_act act, uint32_t index, bool done,
	int64_t now_ms)
{
	switch (act) {
	case GUARD_WAIT:
		return;
	case GUARD_QUIET:
		b->quiet_ms = now_ms;
		b->watching |= done;
		return;
	case GUARD_OFF:
		b->watching = false; /* failed: it restarts the host; nothing else can */
		return;
	case GUARD_STOP:
	case GUARD_DESTROY:
		break;
	}
	assert(index < b->count);
	b->domains[index].tried = !done;
	b->domains[index].tried_ms = now_ms;
	if (!done)
		return;
	if (act == GUARD_STOP) {
		b->domains[index].stopped = true;
		b->domains[index].stopped_for_ms = b->until_ms;
	} else {
		b->domains[index].ending = true;
	}
}

void guard_book_destroyed(
	struct guard_book *b, const struct fence_domain *d, bool gone, int64_t now_ms)
{
	for (uint32_t i = 0; i < b->count; i++) {
		struct guarded *g = &b->domains[i];

		if (!g->ending || !domain_eq(&g->domain, d))
			continue;
		g->ending = false;
		g->tried = true;
		g->tried_ms = now_ms;
		if (gone)
			*g = b->domains[--b->count];
		return;
	}
}
