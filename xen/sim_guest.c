#include "xen/sim_guest.h"

#include <string.h>

/* --- running --- */

uint64_t sim_ran_us(const struct sim_record *r, int64_t now_us)
{
	if (r->state != HYPER_RUNNING || now_us <= r->since_us)
		return r->ran_us;
	return r->ran_us + (uint64_t)(now_us - r->since_us);
}

bool sim_booted(const struct sim_record *r, int64_t now_us)
{
	return r->has_run && sim_ran_us(r, now_us) >= (uint64_t)r->guest.boot_us;
}

void sim_run(struct sim_record *r, int64_t now_us)
{
	if (r->has_run) {
		r->last_gap_us = now_us > r->stopped_us ? now_us - r->stopped_us : 0;
		if (r->last_gap_us > r->longest_gap_us)
			r->longest_gap_us = r->last_gap_us;
	}
	r->has_run = 1;
	r->state = HYPER_RUNNING;
	r->reason = HYPER_REASON_NONE;
	r->since_us = now_us;
}

void sim_stop(struct sim_record *r, int64_t now_us)
{
	r->ran_us = sim_ran_us(r, now_us);
	r->stopped_us = now_us;
}

struct sim_end sim_next_end(const struct sim_record *r)
{
	return r->asked.at_ran_us < r->script.at_ran_us ? r->asked : r->script;
}

bool sim_end_if_due(struct sim_record *r, int64_t now_us)
{
	struct sim_end end = sim_next_end(r);
	uint64_t ran_us = sim_ran_us(r, now_us);
	int64_t at_us;

	if (r->state != HYPER_RUNNING || ran_us < end.at_ran_us)
		return false;
	at_us = now_us - (int64_t)(ran_us - end.at_ran_us);
	sim_stop(r, at_us > r->since_us ? at_us : r->since_us);
	r->state = HYPER_SHUTDOWN;
	r->reason = (uint32_t)end.reason;
	r->asked.at_ran_us = SIM_NEVER;
	/* A suspended guest that runs again still has its script before it. */
	if (end.reason != HYPER_REASON_SUSPEND || r->script.at_ran_us <= r->ran_us)
		r->script.at_ran_us = SIM_NEVER;
	return true;
}

void sim_ask(struct sim_record *r, enum hyper_reason reason, int64_t now_us)
{
	bool suspend = reason == HYPER_REASON_SUSPEND;
	uint64_t from_us = sim_ran_us(r, now_us);

	r->asked.at_ran_us = SIM_NEVER;
	if (suspend ? r->guest.ignores_suspend : r->guest.ignores_shutdown)
		return;
	if (from_us < (uint64_t)r->guest.boot_us)
		from_us = r->guest.boot_us;
	r->asked.at_ran_us =
		from_us + (suspend ? r->guest.suspend_us : r->guest.shutdown_us);
	r->asked.reason = reason;
}

/* --- cpu --- */

/* Nanoseconds that one vcpu worked while the guest ran from 0 to ran_us. The wave is a
 * triangle from 0 to twice the load (capped at all of it) and back. */
static int64_t load_ns(const struct hyper_sim_guest *g, uint64_t ran_us)
{
	double ppm = g->load_ppm, period, part, peak, whole, area;

	if (g->load != HYPER_SIM_LOAD_WAVE || g->load_period_us <= 0)
		return (int64_t)((double)ran_us * ppm / 1000.0);
	period = (double)g->load_period_us;
	peak = 2.0 * (ppm > 500000 ? 500000 : ppm);
	whole = (double)(ran_us / (uint64_t)g->load_period_us);
	part = (double)(ran_us % (uint64_t)g->load_period_us);
	if (part <= period / 2)
		area = peak * part * part / period;
	else
		area = peak * period / 2 -
		       peak * (period - part) * (period - part) / period;
	return (int64_t)((whole * peak * period / 2 + area) / 1000.0);
}

int64_t sim_cpu_ns(const struct sim_record *r, int64_t now_us)
{
	uint64_t ran_us = sim_ran_us(r, now_us);
	int64_t one = load_ns(&r->guest, ran_us) - load_ns(&r->guest, r->model_ran_us);

	return r->model_cpu_ns + one * (int64_t)r->vcpus_online;
}

void sim_set_model(
	struct sim_record *r, const struct hyper_sim_guest *guest, int64_t now_us)
{
	uint64_t writes = sim_writes(r, now_us);
	int64_t cpu_ns = sim_cpu_ns(r, now_us);
	uint32_t used_ppm = r->guest.used_ppm;
	uint64_t working_set_kib = r->guest.working_set_kib;

	r->model_writes = writes;
	r->model_cpu_ns = cpu_ns;
	r->model_ran_us = sim_ran_us(r, now_us);
	r->balloon_ran_us = r->model_ran_us;
	r->balloon_rest = 0;
	r->guest = *guest;
	if (r->has_run && writes > 0) {
		r->guest.used_ppm = used_ppm;
		r->guest.working_set_kib = working_set_kib;
	}
	r->script.at_ran_us = SIM_NEVER;
	if (guest->ends_by != HYPER_REASON_NONE) {
		r->script.at_ran_us = (uint64_t)guest->boot_us + guest->ends_after_us;
		r->script.reason = guest->ends_by;
	}
}

/* --- balloon --- */

/* Where the driver inside wants to be. */
static uint64_t balloon_goal(const struct sim_record *r)
{
	const struct hyper_sim_guest *g = &r->guest;
	uint64_t goal_kib = r->target_kib;

	switch (g->balloon) {
	case HYPER_SIM_BALLOON_STUCK:
		return r->actual_kib;
	case HYPER_SIM_BALLOON_LIMITED:
		if (goal_kib < r->actual_kib && goal_kib < g->balloon_floor_kib)
			goal_kib = g->balloon_floor_kib < r->actual_kib
					   ? g->balloon_floor_kib
					   : r->actual_kib;
		break;
	case HYPER_SIM_BALLOON_OVERSHOOT:
		if (r->overshooting && goal_kib > g->balloon_overshoot_kib)
			goal_kib -= g->balloon_overshoot_kib;
		break;
	default:
		break;
	}
	if (goal_kib > r->actual_kib) {
		if (goal_kib > r->static_max_kib)
			goal_kib = r->static_max_kib;
		if (goal_kib > r->maxmem_kib)
			goal_kib = r->maxmem_kib;
		if (goal_kib < r->actual_kib)
			goal_kib = r->actual_kib;
	}
	return goal_kib / SIM_PAGE_KIB * SIM_PAGE_KIB;
}

static uint64_t balloon_rate(const struct hyper_sim_guest *g)
{
	uint64_t rate = g->balloon_kib_per_s;

	if (g->balloon == HYPER_SIM_BALLOON_SLOW)
		rate /= 16;
	return rate > 0 ? rate : 1;
}

/* Of the guest's first ran_us, how long its balloon driver worked. */
static uint64_t balloon_working_us(const struct hyper_sim_guest *g, uint64_t ran_us)
{
	uint64_t period = g->stuck_period_us, moves, part;

	ran_us = ran_us > (uint64_t)g->boot_us ? ran_us - g->boot_us : 0;
	if (g->balloon != HYPER_SIM_BALLOON_INTERMITTENT || period == 0 ||
		g->stuck_for_us <= 0)
		return ran_us;
	moves = period > (uint64_t)g->stuck_for_us ? period - g->stuck_for_us : 0;
	part = ran_us % period;
	return ran_us / period * moves + (part < moves ? part : moves);
}

bool sim_balloon_grows(const struct sim_record *r)
{
	return balloon_goal(r) > r->actual_kib;
}

bool sim_balloon(struct sim_record *r, int64_t now_us, uint64_t free_kib)
{
	uint64_t ran_us = sim_ran_us(r, now_us), goal_kib, distance_kib, step_kib;
	uint64_t worked_us = balloon_working_us(&r->guest, ran_us) -
			     balloon_working_us(&r->guest, r->balloon_ran_us);
	bool up;

	/* After days without a look, what matters is that it is enough. */
	if (worked_us > UINT64_C(10000000000))
		worked_us = UINT64_C(10000000000);
	r->balloon_ran_us = ran_us;
	if (r->state != HYPER_RUNNING || !sim_booted(r, now_us))
		return false;
	if (r->guest.balloon != HYPER_SIM_BALLOON_STUCK)
		r->pod_kib = 0;
	goal_kib = balloon_goal(r);
	if (goal_kib == r->actual_kib) {
		r->balloon_rest = 0;
		r->overshooting = 0; /* as far as it goes: now back */
		return false;
	}
	up = goal_kib > r->actual_kib;
	distance_kib = up ? goal_kib - r->actual_kib : r->actual_kib - goal_kib;
	r->balloon_rest += worked_us * balloon_rate(&r->guest);
	step_kib = r->balloon_rest / 1000000 / SIM_PAGE_KIB * SIM_PAGE_KIB;
	r->balloon_rest -= step_kib * 1000000;
	if (up && free_kib < distance_kib)
		distance_kib = free_kib / SIM_PAGE_KIB * SIM_PAGE_KIB;
	if (step_kib >= distance_kib) {
		step_kib = distance_kib;
		r->balloon_rest = 0;
	}
	r->actual_kib = up ? r->actual_kib + step_kib : r->actual_kib - step_kib;
	if (r->actual_kib < r->lowest_kib)
		r->lowest_kib = r->actual_kib;
	if (!up && r->actual_kib == goal_kib)
		r->overshooting = 0;
	return step_kib > 0;
}

int64_t sim_balloon_left_us(const struct sim_record *r, int64_t now_us)
{
	uint64_t goal_kib = balloon_goal(r), distance_kib, need, left_us;

	if (r->state != HYPER_RUNNING || !sim_booted(r, now_us) ||
		(goal_kib == r->actual_kib && !r->overshooting))
		return -1;
	distance_kib = goal_kib > r->actual_kib ? goal_kib - r->actual_kib
						: r->actual_kib - goal_kib;
	need = distance_kib * 1000000;
	need = need > r->balloon_rest ? need - r->balloon_rest : 0;
	left_us = (need + balloon_rate(&r->guest) - 1) / balloon_rate(&r->guest);

	return (int64_t)left_us;
}

void sim_balloon_target(struct sim_record *r, uint64_t target_kib)
{
	r->target_kib = target_kib;
	r->overshooting = target_kib < r->actual_kib &&
			  r->guest.balloon == HYPER_SIM_BALLOON_OVERSHOOT;
}

/* --- memory --- */

static uint64_t mix(uint64_t x)
{
	/* splitmix64's finaliser (Steele, Lea and Flood, 2014). */
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

uint64_t sim_working_pages(const struct sim_record *r)
{
	uint64_t pages = r->guest.working_set_kib / SIM_PAGE_KIB;
	uint64_t all = r->static_max_kib / SIM_PAGE_KIB;

	return pages < all ? pages : all;
}

uint64_t sim_writes(const struct sim_record *r, int64_t now_us)
{
	uint64_t ran_us = sim_ran_us(r, now_us) - r->model_ran_us;

	if (sim_working_pages(r) == 0)
		return r->model_writes;
	return r->model_writes + ran_us / 1000000 * r->guest.dirty_pages_per_s +
	       ran_us % 1000000 * r->guest.dirty_pages_per_s / 1000000;
}

uint32_t sim_stamp(const struct sim_record *r, uint64_t pfn, uint64_t writes)
{
	uint64_t working = sim_working_pages(r);
	uint64_t drawn;

	if (pfn < working && writes > pfn)
		return (uint32_t)(2 + (writes - pfn - 1) / working);
	if (pfn >= r->lowest_kib / SIM_PAGE_KIB)
		return 0;
	drawn = mix(r->content_seed + pfn * UINT64_C(0x9e3779b97f4a7c15));
	return (drawn >> 32) * 1000000 >> 32 < r->guest.used_ppm ? 1 : 0;
}

void sim_block_fill(uint8_t block[static SIM_BLOCK])
{
	struct prng prng;

	prng_seed(&prng, UINT64_C(0x7265657665)); /* the same on every host */
	for (size_t at = 0; at < SIM_BLOCK; at += sizeof(uint64_t)) {
		uint64_t word = prng_next(&prng);

		memcpy(block + at, &word, sizeof word);
	}
}

struct page_header {
	uint64_t magic; /* of seed, page and stamp; never 0 */
	uint32_t stamp;
	uint32_t pfn_low;
};

static struct page_header page_header(uint64_t seed, uint64_t pfn, uint32_t stamp)
{
	struct page_header h = {
		.magic = mix(seed ^ mix(pfn ^ (uint64_t)stamp << 40)) | 1,
		.stamp = stamp,
		.pfn_low = (uint32_t)pfn,
	};

	return h;
}

static const uint8_t *page_body(const uint8_t *block, const struct page_header *h)
{
	size_t places = (SIM_BLOCK - SIM_PAGE) / sizeof(uint64_t);

	return block + (h->magic >> 1) % places * sizeof(uint64_t);
}

void sim_page_fill(const uint8_t *block, uint64_t seed, uint64_t pfn, uint32_t stamp,
	uint8_t page[static SIM_PAGE])
{
	struct page_header h = page_header(seed, pfn, stamp);

	if (stamp == 0) {
		memset(page, 0, SIM_PAGE);
		return;
	}
	memcpy(page, &h, sizeof h);
	memcpy(page + sizeof h, page_body(block, &h), SIM_PAGE - sizeof h);
}

int sim_page_read(const uint8_t *block, uint64_t seed, uint64_t pfn,
	const uint8_t page[static SIM_PAGE], uint32_t *stamp)
{
	struct page_header said, h;

	memcpy(&said, page, sizeof said);
	if (said.stamp == 0) {
		static const uint8_t zeros[SIM_PAGE];

		*stamp = 0;
		return memcmp(page, zeros, SIM_PAGE) == 0 ? 0 : RV_ECORRUPT;
	}
	h = page_header(seed, pfn, said.stamp);
	if (memcmp(&said, &h, sizeof h) != 0)
		return RV_ECORRUPT;
	if (memcmp(page + sizeof h, page_body(block, &h), SIM_PAGE - sizeof h) != 0)
		return RV_ECORRUPT;
	*stamp = said.stamp;
	return 0;
}
