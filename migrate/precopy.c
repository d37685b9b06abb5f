#include "migrate/precopy.h"

#include <assert.h>

enum { PRECOPY_US = 1000000 };

void precopy_init(struct precopy *p, const struct precopy_config *config)
{
	*p = (struct precopy){.config = *config};
	if (p->config.max_rounds == 0)
		p->config.max_rounds = PRECOPY_MAX_ROUNDS;
}

static double bandwidth(const struct precopy *p)
{
	double limit = (double)p->config.bandwidth_bytes_s;
	double seen = p->bytes_per_s;

	if (limit > 0 && (seen <= 0 || seen > limit))
		return limit;
	return seen > 1 ? seen : 1;
}

static int64_t to_us(double seconds)
{
	/* A century: what never ends is shown as a long time. */
	return seconds > 3e9 ? INT64_C(3000000000) * PRECOPY_US
			     : (int64_t)(seconds * PRECOPY_US);
}

int64_t precopy_predict(
	const struct precopy *p, uint64_t dirty_pages, uint64_t dirty_per_s)
{
	double late = (double)dirty_per_s * (double)p->config.suspend_us / PRECOPY_US;
	double pages = (double)dirty_pages + late;
	double most = (double)p->config.memory_pages;

	if (most > 0 && pages > most)
		pages = most;
	return to_us(pages * PRECOPY_PAGE_BYTES / bandwidth(p)) + p->config.handover_us;
}

/* Longer rounds say more about the link than short ones; old ones fade. */
static void learn(struct precopy *p, const struct hyper_precopy *r)
{
	double seconds = (double)r->round_us / PRECOPY_US;
	double weight = seconds / (seconds + 0.2);

	if (r->bytes_per_s == 0)
		return;
	if (p->bytes_per_s <= 0)
		weight = 1;
	p->bytes_per_s += ((double)r->bytes_per_s - p->bytes_per_s) * weight;
}

struct precopy_verdict precopy_round(struct precopy *p, const struct hyper_precopy *r)
{
	struct precopy_verdict v;
	uint64_t most = p->config.memory_pages * PRECOPY_MAX_TIMES;

	learn(p, r);
	p->rounds = r->iteration;
	v.predicted_us = precopy_predict(p, r->dirty_pages, r->dirty_per_s);
	v.left_us = to_us((double)r->dirty_pages * PRECOPY_PAGE_BYTES / bandwidth(p));
	if (p->best_us == 0 || v.predicted_us < p->best_us - p->best_us / 10) {
		p->best_us = v.predicted_us;
		p->stale = 0;
	} else {
		p->stale++;
	}
	if (v.predicted_us <= p->config.max_downtime_us) {
		v.why = PRECOPY_WITHIN;
		v.what = HYPER_PRECOPY_STOP;
		return v;
	}
	if (p->stale >= PRECOPY_STALE_ROUNDS)
		v.why = PRECOPY_STALLED;
	else if (r->iteration >= p->config.max_rounds || (most && r->total_pages > most))
		v.why = PRECOPY_SPENT;
	else
		v.why = PRECOPY_SHRINKING;
	if (v.why != PRECOPY_SHRINKING &&
		p->config.handover_us > p->config.max_downtime_us)
		v.why = PRECOPY_BELOW;
	if (v.why == PRECOPY_SHRINKING)
		v.what = HYPER_PRECOPY_CONTINUE;
	else if (p->config.diverge == PRECOPY_ACCEPT)
		v.what = HYPER_PRECOPY_STOP;
	else
		v.what = HYPER_PRECOPY_ABORT;
	return v;
}

const char *precopy_why_text(enum precopy_why why)
{
	static const char *const texts[] = {
		[PRECOPY_WITHIN] = "within the limit",
		[PRECOPY_SHRINKING] = "shrinking",
		[PRECOPY_STALLED] = "the guest writes as fast as its memory is sent",
		[PRECOPY_SPENT] = "rounds are used up",
		[PRECOPY_BELOW] = "the hand-over alone takes longer than the limit",
	};

	assert((unsigned)why < sizeof texts / sizeof texts[0]);
	return texts[why];
}

int precopy_refuse(const struct precopy *p, const struct precopy_verdict *v,
	const char *vm, struct rv_error *e)
{
	return rv_error_set(e, RV_ELIMIT,
		"VM %s: after %u rounds it would still stand still for about %lld ms, "
		"the "
		"limit is %lld ms (%s, %.0f MiB/s). Migrate when it is less busy, allow "
		"a longer pause (max-downtime) or accept any, or raise the bandwidth",
		vm, p->rounds, (long long)(v->predicted_us / 1000),
		(long long)(p->config.max_downtime_us / 1000), precopy_why_text(v->why),
		bandwidth(p) / (1 << 20));
}
