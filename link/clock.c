#include "link/clock.h"

#include <stddef.h>
#include <stdlib.h>

/* Beyond this a number is no time of day: keeps the sums far from overflow. */
#define CLOCK_MS_MAX (INT64_C(1) << 50)

static bool plausible(int64_t ms)
{
	return ms >= 0 && ms < CLOCK_MS_MAX;
}

/* Both can't be true of clocks that merely drift: one of the two was set since then. */
static bool contradicts(const struct clock_estimate *e, int64_t offset_us, int64_t rtt_us)
{
	int64_t apart_us = offset_us - e->offset_us;

	return e->known &&
	       llabs(apart_us) > e->error_us + rtt_us / 2 + CLOCK_RESOLUTION_US;
}

bool clock_filter_add(struct clock_filter *f, int64_t t0_ms, int64_t t1_ms, int64_t t2_ms,
	int64_t t3_ms, int64_t rtt_us, int64_t now_us)
{
	struct clock_estimate before = clock_filter_estimate(f, now_us);
	int64_t sum_ms;

	if (!plausible(t0_ms) || !plausible(t1_ms) || !plausible(t2_ms) ||
		!plausible(t3_ms) || rtt_us < 0)
		return false;
	sum_ms = (t1_ms - t0_ms) + (t2_ms - t3_ms);
	if (contradicts(&before, sum_ms * 500, rtt_us))
		f->count = f->next = 0;
	f->samples[f->next] = (struct clock_sample){
		.taken_us = now_us, .rtt_us = rtt_us, .offset_us = sum_ms * 500};
	f->next = (f->next + 1) % CLOCK_SAMPLES;
	if (f->count < CLOCK_SAMPLES)
		f->count++;
	return true;
}

struct clock_estimate clock_filter_estimate(const struct clock_filter *f, int64_t now_us)
{
	const struct clock_sample *best = NULL, *last;

	if (f->count == 0)
		return (struct clock_estimate){.known = false};
	for (unsigned i = 0; i < f->count; i++) {
		const struct clock_sample *s = &f->samples[i];

		if (!best || s->rtt_us < best->rtt_us ||
			(s->rtt_us == best->rtt_us && s->taken_us > best->taken_us))
			best = s;
	}
	last = &f->samples[(f->next + CLOCK_SAMPLES - 1) % CLOCK_SAMPLES];
	return (struct clock_estimate){
		.known = true,
		.rtt_us = best->rtt_us,
		.last_us = last->rtt_us,
		.offset_us = best->offset_us,
		.error_us = best->rtt_us / 2 + CLOCK_RESOLUTION_US +
			    (now_us - best->taken_us) / 1000000 * CLOCK_DRIFT_PPM,
	};
}

static int by_offset(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

int64_t clock_pool_offset_us(int64_t *offsets_us, size_t count)
{
	size_t middle = count / 2;

	if (count < 3)
		return 0;
	qsort(offsets_us, count, sizeof *offsets_us, by_offset);
	if (count % 2)
		return offsets_us[middle];
	return offsets_us[middle - 1] + (offsets_us[middle] - offsets_us[middle - 1]) / 2;
}

bool clock_is_off(bool was_off, int64_t skew_us, int64_t error_us, int64_t limit_us)
{
	int64_t away_us = skew_us < 0 ? -skew_us : skew_us;

	if (was_off)
		return away_us > limit_us / 4 * 3;
	return away_us - error_us > limit_us;
}
