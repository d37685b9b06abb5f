#include <assert.h>
#include <stdlib.h>

#include "memctl/state.h"

/*
 * One step: what ran out is ended, drivers are judged, maxmem follows the guests down,
 * what is free goes to those who wait; then either guests are squeezed for those who
 * still wait, or memory is shared out. Orders that free come before orders that grow.
 */

enum {
	LOCK_PARTS = 32,
	RACE_POLLS = 2,	  /* a driver must not run dry between two looks */
	REST_POLLS = 8,	  /* between looks while nobody moves */
	POLLS_TO_GO = 16, /* look so many times until memory should be free */
	SMALL_RANGE_PARTS = 16,
};

void step_emit(struct memctl *m, struct memctl_action a)
{
	assert(m->n_actions < m->actions_size);
	m->actions[m->n_actions++] = a;
}

void step_by(struct memctl *m, int64_t when_us)
{
	if (m->next_us == MEMCTL_NEVER || when_us < m->next_us)
		m->next_us = when_us;
}

static int direction(int64_t distance)
{
	return (distance > 0) - (distance < 0);
}

void step_order(struct memctl *m, struct domain *g, int64_t now, uint64_t target_kib)
{
	int before = direction(driver_distance(m, g)), after;

	g->force = false;
	g->ordered = true;
	if (g->d.target_kib == target_kib)
		return;
	g->d.target_kib = target_kib;
	g->owed = g->owed && target_kib < g->d.dynamic_min_kib;
	after = direction(driver_distance(m, g));
	/* Progress on the same way goes on; a stuck driver can't win time by new orders.
	 */
	if (before != after)
		driver_restart(g, now);
	step_emit(m, (struct memctl_action){.what = MEMCTL_SET_TARGET,
			     .domid = g->d.domid,
			     .vm = g->d.vm,
			     .kib = target_kib});
}

void step_set_maxmem(struct memctl *m, struct domain *g, uint64_t kib)
{
	uint64_t before = domain_commit(g);

	if (g->d.maxmem_kib == kib)
		return;
	g->limit_kib = max_kib(g->limit_kib, g->d.maxmem_kib);
	g->d.maxmem_kib = kib;
	m->spare_kib += (int64_t)before - (int64_t)domain_commit(g);
	step_emit(m, (struct memctl_action){.what = MEMCTL_SET_MAXMEM,
			     .domid = g->d.domid,
			     .vm = g->d.vm,
			     .kib = kib});
}

/* ---- Reservations */

static void end_reservation(struct memctl *m, size_t i, enum memctl_do what, uint64_t kib)
{
	struct memctl_reservation r = m->reservations[i];

	m->spare_kib += (int64_t)r.held_kib;
	memctl_remove_reservation(m, i);
	step_emit(m, (struct memctl_action){.what = what, .owner = r.owner, .kib = kib});
}

static void expire(struct memctl *m, int64_t now)
{
	for (size_t i = 0; i < m->n_reservations;) {
		const struct memctl_reservation *r = &m->reservations[i];

		if (r->deadline_us != MEMCTL_NEVER && r->deadline_us <= now) {
			end_reservation(m, i, MEMCTL_EXPIRE, r->kib);
			continue;
		}
		if (r->deadline_us != MEMCTL_NEVER)
			step_by(m, r->deadline_us);
		i++;
	}
}

/* Those that came first keep their chance; of the later ones those that still fit do. */
static void refuse_hopeless(struct memctl *m)
{
	int64_t can = m->spare_kib;

	for (size_t i = 0; i < m->n_domains; i++)
		can += (int64_t)(domain_squeezable(&m->domains[i]) +
				 domain_settling(&m->domains[i]));
	for (size_t i = 0; i < m->n_reservations; i++)
		if (!m->reservations[i].granted)
			can += (int64_t)m->reservations[i].held_kib;
	for (size_t i = 0; i < m->n_reservations;) {
		const struct memctl_reservation *r = &m->reservations[i];

		if (r->granted) {
			i++;
		} else if ((int64_t)r->kib <= can) {
			can -= (int64_t)r->kib;
			i++;
		} else {
			uint64_t rest = can > 0 ? r->kib - (uint64_t)can : r->kib;

			end_reservation(m, i, MEMCTL_REFUSE, rest);
		}
	}
}

static uint64_t remaining(const struct memctl_reservation *r)
{
	return r->kib - r->held_kib;
}

static int by_remaining(const void *a, const void *b, void *arg)
{
	const struct memctl *m = arg;
	uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
	uint64_t x = remaining(&m->reservations[i]), y = remaining(&m->reservations[j]);

	if (x != y)
		return x < y ? -1 : 1;
	return i < j ? -1 : i > j;
}

/* Gives every waiting one the same until it has enough: a large one delays no small one,
 * and is not starved by them. */
static void hand_out(struct memctl *m)
{
	size_t n = 0;

	for (size_t i = 0; i < m->n_reservations; i++)
		if (!m->reservations[i].granted)
			m->order[n++] = (uint32_t)i;
	if (n == 0 || m->spare_kib <= 0)
		return;
	qsort_r(m->order, n, sizeof *m->order, by_remaining, m);
	for (size_t k = 0; k < n && m->spare_kib > 0; k++) {
		struct memctl_reservation *r = &m->reservations[m->order[k]];
		uint64_t part = (uint64_t)m->spare_kib / (n - k);

		/* Less than a KiB for each: the first ones get it. */
		part = min_kib(max_kib(part, 1), remaining(r));
		r->held_kib += part;
		m->spare_kib -= (int64_t)part;
		if (r->held_kib < r->kib)
			continue;
		r->granted = true;
		step_emit(m,
			(struct memctl_action){
				.what = MEMCTL_GRANT, .owner = r->owner, .kib = r->kib});
	}
}

/* What will be free without another order. */
static uint64_t settling_kib(const struct memctl *m)
{
	uint64_t kib = 0;

	for (size_t i = 0; i < m->n_domains; i++)
		kib += domain_settling(&m->domains[i]);
	return kib;
}

/* What is waited for and not yet free. */
static uint64_t wanted_kib(const struct memctl *m)
{
	uint64_t kib = m->spare_kib < 0 ? (uint64_t)-m->spare_kib : 0;

	for (size_t i = 0; i < m->n_reservations; i++)
		kib += remaining(&m->reservations[i]);
	return kib;
}

/* ---- maxmem follows */

static uint64_t loose_kib(const struct domain *g)
{
	if ((!domain_adjustable(g) && g->balloon != MEMCTL_STUCK) ||
		g->d.mode != MEMCTL_RUNNING)
		return 0;
	return less_kib(g->d.maxmem_kib,
		max_kib(g->d.actual_kib, domain_level(g, g->d.target_kib)));
}

static void lock_in(struct memctl *m, uint64_t least_kib)
{
	for (size_t i = 0; i < m->n_domains; i++) {
		struct domain *g = &m->domains[i];
		uint64_t loose = loose_kib(g);

		if (loose >= least_kib || (loose > 0 && driver_distance(m, g) == 0))
			step_set_maxmem(m, g, g->d.maxmem_kib - loose);
	}
}

/* While memory is waited for, what guests have let go of is locked in when it can end a
 * wait or brings all of them noticeably nearer: not page by page at every look. */
static void lock_in_for(struct memctl *m, uint64_t wanted)
{
	uint64_t loose = 0, enough = wanted / LOCK_PARTS;

	for (size_t i = 0; i < m->n_domains; i++)
		loose += loose_kib(&m->domains[i]);
	for (size_t i = 0; i < m->n_reservations; i++)
		if (!m->reservations[i].granted)
			enough = min_kib(enough, remaining(&m->reservations[i]));
	if (loose > 0 && loose >= enough)
		lock_in(m, 1);
}

/* ---- Squeezing */

static size_t collect(struct memctl *m)
{
	size_t n = 0;

	for (size_t i = 0; i < m->n_domains; i++) {
		const struct domain *g = &m->domains[i];
		struct fill *f = &m->fill[n];

		if (!domain_adjustable(g))
			continue;
		f->index = (uint32_t)i;
		f->cap = (double)domain_settled(g);
		f->lo = (double)min_kib(
			domain_level(g, g->d.dynamic_min_kib), domain_settled(g));
		f->hi = (double)max_kib(
			domain_level(g, g->d.dynamic_max_kib), (uint64_t)f->lo);
		f->speed = (double)g->speed_kib_per_s / 1e6;
		f->share = f->cap;
		n++;
	}
	return n;
}

static double sum_caps(const struct fill *f, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += f[i].cap;
	return sum;
}

/* Asks for a level, if that is worth an order: at least a quarter more than is asked for
 * already, so that a race does not rewrite every target at every look. */
static void ask(struct memctl *m, struct domain *g, int64_t now, uint64_t level_kib)
{
	uint64_t target = domain_target(g, level_kib);
	uint64_t asked = less_kib(g->d.actual_kib, domain_goal(g));
	uint64_t more = less_kib(domain_settled(g), domain_level(g, target));

	if (target < g->d.target_kib && more > asked + asked / 4)
		step_order(m, g, now, target);
}

/* Looks more often the sooner memory should be free; without anybody on the way only an
 * event can change something. */
static void look_again(struct memctl *m, int64_t now, double time)
{
	int64_t wait = m->config.poll_us;
	bool moving = false, resting = false;

	for (size_t i = 0; i < m->n_domains; i++) {
		const struct domain *g = &m->domains[i];

		/* The last bit within the tolerance counts here. */
		if (!domain_adjustable(g) || g->d.actual_kib <= domain_goal(g))
			continue;
		if (now - g->mark_us < g->rest_after_us)
			moving = true;
		else
			resting = true;
	}
	if (time / POLLS_TO_GO > (double)wait)
		wait = (int64_t)(time / POLLS_TO_GO);
	if (!moving)
		wait = m->config.poll_us * REST_POLLS;
	if (wait > m->config.idle_poll_us)
		wait = m->config.idle_poll_us;
	if (moving || resting)
		step_by(m, now + wait);
}

/* Shares say where all end, the race who helps until then: whoever frees fast is asked
 * for more before it runs dry, so that nobody waits for one that does not move. */
static void squeeze(struct memctl *m, int64_t now, uint64_t wanted)
{
	double time, floor_us = (double)m->config.poll_us * RACE_POLLS;
	size_t n = collect(m);

	m->squeezed_us = now;
	fill_shares(m->fill, n, sum_caps(m->fill, n) - (double)wanted);
	time = fill_race(m->fill, n, (double)wanted);
	for (size_t i = 0; i < n; i++) {
		const struct fill *f = &m->fill[i];
		double level = f->share;
		double us = time > floor_us ? time : floor_us;

		m->domains[f->index].share_kib = (uint64_t)f->share;
		if (f->speed > 0 && time >= 0 && f->cap - f->speed * us < level)
			level = f->cap - f->speed * us;
		if (level < f->lo)
			level = f->lo;
		ask(m, &m->domains[f->index], now, (uint64_t)level);
	}
	look_again(m, now, time);
}

/* ---- Sharing out */

static size_t share_out(struct memctl *m, int64_t now)
{
	int64_t left_kib = m->spare_kib + (int64_t)settling_kib(m);
	double sum = left_kib > 0 ? (double)left_kib : 0;
	size_t n = collect(m);

	for (size_t i = 0; i < n; i++) {
		struct fill *f = &m->fill[i];
		const struct domain *g = &m->domains[f->index];

		sum += f->cap;
		f->lo = (double)domain_level(g, g->d.dynamic_min_kib);
		f->hi = (double)domain_level(g, g->d.dynamic_max_kib);
		f->cap = f->hi;
		if (now >= g->grow_again_us)
			continue;
		step_by(m, g->grow_again_us);
		f->cap = (double)max_kib(g->d.actual_kib, (uint64_t)f->lo);
		if (f->cap > f->hi)
			f->cap = f->hi;
	}
	fill_shares(m->fill, n, sum);
	for (size_t i = 0; i < n; i++)
		m->domains[m->fill[i].index].share_kib = (uint64_t)m->fill[i].share;
	return n;
}

/* How far a share must be from the target to be worth an order. */
static uint64_t threshold(const struct memctl *m, const struct domain *g)
{
	uint64_t range = g->d.dynamic_max_kib - g->d.dynamic_min_kib;
	uint64_t kib = min_kib(m->config.hysteresis_kib, range / SMALL_RANGE_PARTS);

	return g->force ? 0 : max_kib(kib, m->config.tolerance_kib);
}

static void share_downwards(struct memctl *m, size_t n, int64_t now)
{
	for (size_t i = 0; i < n; i++) {
		struct domain *g = &m->domains[m->fill[i].index];
		uint64_t target = domain_target(g, g->share_kib);
		uint64_t goal = domain_goal(g);

		if (target + threshold(m, g) < g->d.target_kib) {
			step_order(m, g, now, target);
		} else if (g->d.actual_kib > goal + m->config.tolerance_kib &&
			   target > g->d.target_kib) {
			/* Asked for more than was needed: stop where it is. */
			target = min_kib(target, domain_target(g, g->d.actual_kib));
			if (target > g->d.target_kib &&
				domain_level(g, target) <= domain_settled(g))
				step_order(m, g, now, target);
		}
	}
}

static bool wants_growth(const struct memctl *m, const struct domain *g)
{
	uint64_t target = domain_target(g, g->share_kib);

	if (target <= g->d.target_kib)
		return false;
	/* The last bit up to dynamic-max is given however small it is. */
	return target > g->d.target_kib + threshold(m, g) ||
	       target == g->d.dynamic_max_kib || g->d.target_kib < g->d.dynamic_min_kib;
}

static void share_upwards(struct memctl *m, size_t n, int64_t now)
{
	double wanted = 0, part;

	for (size_t i = 0; i < n; i++) {
		const struct domain *g = &m->domains[m->fill[i].index];

		if (wants_growth(m, g))
			wanted += (double)less_kib(g->share_kib, domain_commit(g));
	}
	part = m->spare_kib <= 0 ? 0 : (double)m->spare_kib / wanted;
	if (wanted <= 0 || part > 1)
		part = 1;
	for (size_t i = 0; i < n; i++) {
		struct domain *g = &m->domains[m->fill[i].index];
		uint64_t level = g->share_kib, commit = domain_commit(g), target;

		if (!wants_growth(m, g))
			continue;
		if (level > commit)
			level = commit + (uint64_t)((double)(level - commit) * part);
		target = domain_target(g, level);
		/* domain_target rounds up to dynamic-min, which may not be there yet. */
		if (domain_level(g, target) > level)
			continue;
		if (part < 1 && target <= g->d.target_kib + threshold(m, g))
			continue;
		if (target <= g->d.target_kib)
			continue;
		step_set_maxmem(m, g, max_kib(domain_level(g, target), g->d.maxmem_kib));
		step_order(m, g, now, target);
	}
}

static void balance(struct memctl *m, int64_t now)
{
	size_t n = share_out(m, now);

	share_downwards(m, n, now);
	lock_in(m, m->config.tolerance_kib);
	if (m->squeezed_us != INT64_MIN && now - m->squeezed_us < m->config.grow_delay_us)
		step_by(m, m->squeezed_us + m->config.grow_delay_us);
	else
		share_upwards(m, n, now);
	for (size_t i = 0; i < m->n_domains; i++)
		if (m->domains[i].balloon != MEMCTL_STUCK &&
			driver_distance(m, &m->domains[i]) != 0)
			step_by(m, now + m->config.idle_poll_us);
}

struct memctl_step memctl_step(struct memctl *m, int64_t now_us)
{
	uint64_t wanted;

	m->n_actions = 0;
	m->next_us = MEMCTL_NEVER;
	m->spare_kib = memctl_unpromised(m);
	expire(m, now_us);
	for (size_t i = 0; i < m->n_domains; i++)
		driver_judge(m, &m->domains[i], now_us);
	refuse_hopeless(m);
	hand_out(m);
	wanted = wanted_kib(m);
	if (wanted > 0)
		lock_in_for(m, wanted);
	wanted = less_kib(wanted, settling_kib(m));
	if (wanted > 0) {
		squeeze(m, now_us, wanted);
		/* What was never taken is free as soon as maxmem says so. */
		lock_in_for(m, wanted);
	}
	if (wanted_kib(m) == 0)
		balance(m, now_us);
	return (struct memctl_step){m->actions, m->n_actions, m->next_us};
}
