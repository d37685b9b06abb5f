#include "memctl/state.h"

#include "base/within.h"

/*
 *                    probe moved it                  no progress
 *   UNPROVEN ──► PROBING ──────────► PROVEN ──────────────────────► STUCK
 *      ▲            │                  ▲                              │
 *      └────────────┘                  └──────────────────────────────┘
 *       no movement: later again                 moves again
 */

enum {
	STEP_KIB = 64,	     /* progress smaller than this is none */
	PROGRESS_SHARE = 16, /* a driver does at least 1/16 of its own speed */
	REST_POLLS = 4,	     /* without progress for so many: it rests */
	REST_POLLS_UNKNOWN = 10,
	OFFSET_TOLERANCES = 8, /* plus 1/256 of static-max: most that offsets can be */
	PROBES_BACKOFF_MAX = 8,
};

static const int64_t grow_again_delay_us = 60000000;

static uint64_t distance(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

int64_t driver_distance(const struct memctl *m, const struct domain *g)
{
	uint64_t goal = domain_goal(g);

	if (g->balloon == MEMCTL_UNPROVEN || g->d.mode != MEMCTL_RUNNING)
		return 0;
	if (distance(goal, g->d.actual_kib) <= m->config.tolerance_kib)
		return 0;
	return (int64_t)goal - (int64_t)g->d.actual_kib;
}

void driver_restart(struct domain *g, int64_t now)
{
	g->mark_kib = g->d.actual_kib;
	g->mark_us = now;
}

/* Progress since the mark that a driver at work makes in that time. */
static uint64_t progress_due(const struct domain *g, int64_t elapsed_us)
{
	uint64_t due = g->speed_kib_per_s / PROGRESS_SHARE *
		       (uint64_t)(elapsed_us > 0 ? elapsed_us : 0) / 1000000;

	return max_kib(STEP_KIB, due);
}

void driver_set_speed(const struct memctl *m, struct domain *g, uint64_t kib_per_s)
{
	const struct memctl_config *c = &m->config;
	int64_t step_us;

	g->speed_kib_per_s = kib_per_s;
	g->stuck_after_us = c->stuck_max_us;
	g->rest_after_us = c->poll_us * REST_POLLS_UNKNOWN;
	if (kib_per_s == 0)
		return;
	step_us = (int64_t)(STEP_KIB * UINT64_C(1000000) / kib_per_s);
	g->stuck_after_us =
		within(step_us * PROGRESS_SHARE, c->stuck_min_us, c->stuck_max_us);
	g->rest_after_us = c->poll_us * REST_POLLS;
	if (step_us * 2 > g->rest_after_us)
		g->rest_after_us = step_us * 2;
}

static void learn_speed(
	const struct memctl *m, struct domain *g, uint64_t progress, int64_t elapsed_us)
{
	uint64_t v;

	if (elapsed_us <= 0)
		return;
	v = progress * 1000000 / (uint64_t)elapsed_us;
	if (v == 0)
		v = 1;
	driver_set_speed(m, g, g->speed_kib_per_s ? (g->speed_kib_per_s * 3 + v) / 4 : v);
}

void driver_seen(struct memctl *m, struct domain *g, int64_t now, uint64_t actual_kib)
{
	uint64_t goal = domain_goal(g), before, after, progress;
	int64_t elapsed = g->mark_us == MEMCTL_NEVER ? 0 : now - g->mark_us;

	g->d.actual_kib = g->seen_kib = actual_kib;
	before = distance(g->mark_kib, goal);
	after = distance(actual_kib, goal);
	progress = less_kib(before, after);
	if (after > before) {
		/* It went the other way: what it makes good again is no progress. Where
		 * it had rested at its target it has only now something to make good. */
		if (before <= m->config.tolerance_kib)
			g->mark_us = now;
		g->mark_kib = actual_kib;
		return;
	}
	if (progress < progress_due(g, elapsed) &&
		(progress == 0 || after > m->config.tolerance_kib))
		return;
	/* The last stretch ended at some moment between two looks: too slow by half. */
	if (after > m->config.tolerance_kib || g->speed_kib_per_s == 0)
		learn_speed(m, g, progress, elapsed);
	g->mark_kib = actual_kib;
	g->mark_us = now;
}

static bool offset_is_likely(const struct memctl *m, const struct domain *g)
{
	return distance(g->d.actual_kib, g->d.target_kib) <=
	       m->config.tolerance_kib * OFFSET_TOLERANCES + g->d.static_max_kib / 256;
}

static void learn_offset(const struct memctl *m, struct domain *g)
{
	if (offset_is_likely(m, g))
		g->offset_kib = (int64_t)g->d.actual_kib - (int64_t)g->d.target_kib;
}

/* ---- Unproven */

static void probe_end(struct memctl *m, struct domain *g, int64_t now)
{
	uint64_t back = g->probe_back_kib;

	if (back == 0)
		return;
	/* dynamic-min may have been raised meanwhile. */
	back = max_kib(back, min_kib(g->d.target_kib, g->d.dynamic_min_kib));
	if (back != g->d.target_kib)
		step_order(m, g, now, back);
	g->probe_back_kib = 0;
}

/* Downwards where the range allows it; a guest that was started at its dynamic minimum is
 * probed upwards, if there is memory for that. 0: it can't be probed. */
static uint64_t probe_target(const struct memctl *m, const struct domain *g)
{
	uint64_t target = g->d.target_kib, by = m->config.probe_kib, up = target + by;

	if (target >= g->d.dynamic_min_kib + by)
		return target - by;
	if (up > g->d.dynamic_max_kib)
		return 0;
	if (up > domain_commit(g) && (int64_t)(up - domain_commit(g)) > m->spare_kib)
		return 0;
	return up;
}

static void judge_unproven(struct memctl *m, struct domain *g, int64_t now)
{
	uint64_t target;
	uint32_t shift = g->probes_failed < PROBES_BACKOFF_MAX ? g->probes_failed
							       : PROBES_BACKOFF_MAX;

	probe_end(m, g, now);
	if (g->d.pod_kib > 0)
		return;
	if (g->probe_us == MEMCTL_NEVER)
		g->probe_us = now + (m->config.probe_delay_us << shift);
	if (now < g->probe_us) {
		step_by(m, g->probe_us);
		return;
	}
	target = probe_target(m, g);
	if (target == 0) {
		/* It stays due: the first step that has something to try does so. Of a
		 * fixed range only an event can make that. */
		if (g->d.dynamic_min_kib < g->d.dynamic_max_kib)
			step_by(m, now + (m->config.probe_delay_us << shift));
		return;
	}
	learn_offset(m, g);
	g->probe_back_kib = g->d.target_kib;
	g->probe_from_kib = g->d.actual_kib;
	if (target > g->d.target_kib)
		step_set_maxmem(m, g, max_kib(domain_level(g, target), g->d.maxmem_kib));
	g->balloon = MEMCTL_PROBING;
	g->probe_us = now + m->config.probe_wait_us;
	step_order(m, g, now, target);
	driver_restart(g, now);
	step_by(m, now + m->config.idle_poll_us);
}

static void judge_probing(struct memctl *m, struct domain *g, int64_t now)
{
	bool down = g->d.target_kib < g->probe_back_kib;
	uint64_t moved = down ? less_kib(g->probe_from_kib, g->d.actual_kib)
			      : less_kib(g->d.actual_kib, g->probe_from_kib);

	if (moved >= m->config.probe_kib / 2) {
		g->balloon = MEMCTL_PROVEN;
		g->d.proven = true;
		g->probes_failed = 0;
		step_emit(m, (struct memctl_action){.what = MEMCTL_DECLARE_PROVEN,
				     .domid = g->d.domid,
				     .vm = g->d.vm});
		probe_end(m, g, now);
		driver_restart(g, now);
		return;
	}
	if (now < g->probe_us) {
		step_by(m, now + m->config.idle_poll_us);
		step_by(m, g->probe_us);
		return;
	}
	g->balloon = MEMCTL_UNPROVEN;
	g->probes_failed++;
	g->probe_us = MEMCTL_NEVER;
	judge_unproven(m, g, now);
}

/* ---- Proven */

static void judge_shrinking(struct memctl *m, struct domain *g, int64_t now)
{
	if (now - g->mark_us < g->stuck_after_us) {
		step_by(m, g->mark_us + g->stuck_after_us);
		return;
	}
	if (offset_is_likely(m, g)) {
		/* It came this far and rests: this is what its target means. */
		learn_offset(m, g);
		return;
	}
	g->balloon = MEMCTL_STUCK;
	g->stuck_us = now;
	step_emit(m, (struct memctl_action){.what = MEMCTL_DECLARE_STUCK,
			     .domid = g->d.domid,
			     .vm = g->d.vm,
			     .kib = g->d.actual_kib});
	step_by(m, now + m->config.stuck_max_us);
}

static void judge_growing(struct memctl *m, struct domain *g, int64_t now)
{
	if (now - g->mark_us < g->stuck_after_us) {
		step_by(m, g->mark_us + g->stuck_after_us);
		return;
	}
	if (offset_is_likely(m, g)) {
		learn_offset(m, g);
		return;
	}
	/* It does not take what it may have: others can use that. */
	g->grow_again_us = now + grow_again_delay_us;
	step_order(
		m, g, now, min_kib(g->d.target_kib, domain_target(g, g->d.actual_kib)));
	step_by(m, g->grow_again_us);
}

static void judge_proven(struct memctl *m, struct domain *g, int64_t now)
{
	int64_t left = driver_distance(m, g);

	if (left == 0) {
		/* Rests near its target: the difference is its own and stays. */
		if (g->mark_us == MEMCTL_NEVER || now - g->mark_us >= g->rest_after_us)
			learn_offset(m, g);
		return;
	}
	if (g->mark_us == MEMCTL_NEVER)
		driver_restart(g, now);
	if (left < 0)
		judge_shrinking(m, g, now);
	else
		judge_growing(m, g, now);
}

static void judge_stuck(struct memctl *m, struct domain *g, int64_t now)
{
	if (driver_distance(m, g) < 0 && g->mark_us <= g->stuck_us) {
		step_by(m, now + m->config.stuck_max_us);
		return;
	}
	g->balloon = MEMCTL_PROVEN;
	g->force = true;
	step_emit(m, (struct memctl_action){.what = MEMCTL_DECLARE_FREE,
			     .domid = g->d.domid,
			     .vm = g->d.vm,
			     .kib = g->d.actual_kib});
}

void driver_judge(struct memctl *m, struct domain *g, int64_t now)
{
	if (g->d.mode != MEMCTL_RUNNING)
		return;
	switch (g->balloon) {
	case MEMCTL_UNPROVEN:
		judge_unproven(m, g, now);
		break;
	case MEMCTL_PROBING:
		judge_probing(m, g, now);
		break;
	case MEMCTL_PROVEN:
		judge_proven(m, g, now);
		break;
	case MEMCTL_STUCK:
		judge_stuck(m, g, now);
		break;
	}
}
