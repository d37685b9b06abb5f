/*
 * What the balloon controller remembers. Private to memctl/.
 *
 * A guest's driver settles at target + offset, where the offset is a constant of each
 * guest (video memory, pages the kernel never saw) that is learnt while it rests. A
 * *level* is the size that has to be set aside for a target: target + offset, or the
 * target itself where the offset is negative.
 */
#ifndef REEVE_MEMCTL_STATE_H
#define REEVE_MEMCTL_STATE_H

#include "memctl/memctl.h"

struct domain {
	struct memctl_domain d;
	enum memctl_balloon balloon;
	uint64_t promised_kib;
	uint64_t limit_kib; /* Xen's, until a lowered maxmem is known to be in place */
	uint64_t share_kib; /* a level */
	int64_t offset_kib;
	bool force; /* order again, however small the difference */

	/* Movement: the last size seen, and where it last made progress worth the name.
	 */
	uint64_t seen_kib;
	uint64_t mark_kib;
	int64_t mark_us;
	uint64_t speed_kib_per_s;
	int64_t stuck_after_us, rest_after_us; /* without progress, by that speed */
	int64_t stuck_us;
	bool ordered; /* its target is ours */
	bool owed;    /* below dynamic-min since that was raised, or from the start */

	int64_t probe_us;	 /* next probe, or the end of this one */
	uint64_t probe_back_kib; /* target to restore; 0: none */
	uint64_t probe_from_kib; /* actual when it began */
	uint32_t probes_failed;
	int64_t grow_again_us; /* did not use what it was given: not before then */
};

struct memctl {
	struct memctl_config config;
	uint64_t free_kib;
	struct domain *domains; /* sorted by domid */
	size_t n_domains, domains_size;
	struct memctl_reservation *reservations; /* oldest first */
	size_t n_reservations, reservations_size;
	uint32_t *order; /* scratch: one entry for each reservation */
	struct memctl_action *actions;
	size_t n_actions, actions_size;
	struct fill *fill;   /* scratch: one entry for each domain */
	int64_t spare_kib;   /* unpromised, kept up to date during a step */
	int64_t squeezed_us; /* when memory was last waited for */
	int64_t next_us;     /* collected during a step */
};

static inline uint64_t max_kib(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline uint64_t min_kib(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t less_kib(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* What the guest counts as when all that was ordered is in place. */
static inline uint64_t domain_settled(const struct domain *g)
{
	return max_kib(max_kib(g->d.actual_kib, g->d.maxmem_kib), g->promised_kib);
}

/* What it counts as now. */
static inline uint64_t domain_commit(const struct domain *g)
{
	return max_kib(domain_settled(g), g->limit_kib);
}

/* What is free as soon as its lowered maxmem is known to be in place. */
static inline uint64_t domain_settling(const struct domain *g)
{
	return domain_commit(g) - domain_settled(g);
}

/* Where the driver will settle. */
static inline uint64_t domain_goal(const struct domain *g)
{
	int64_t goal = (int64_t)g->d.target_kib + g->offset_kib;

	return goal < 0 ? 0 : (uint64_t)goal;
}

/* The level of a target, and the target of a level. */
static inline uint64_t domain_level(const struct domain *g, uint64_t target_kib)
{
	return target_kib + (g->offset_kib > 0 ? (uint64_t)g->offset_kib : 0);
}

static inline uint64_t domain_target(const struct domain *g, uint64_t level_kib)
{
	uint64_t target = level_kib;

	if (g->offset_kib > 0)
		target = less_kib(target, (uint64_t)g->offset_kib);
	target = max_kib(target, g->d.dynamic_min_kib);
	return min_kib(target, g->d.dynamic_max_kib);
}

/* May be given orders. */
static inline bool domain_adjustable(const struct domain *g)
{
	return g->balloon == MEMCTL_PROVEN && g->d.mode == MEMCTL_RUNNING &&
	       g->d.pod_kib == 0;
}

/* What squeezing it to its dynamic minimum frees. */
static inline uint64_t domain_squeezable(const struct domain *g)
{
	if (!domain_adjustable(g))
		return 0;
	return less_kib(domain_settled(g), domain_level(g, g->d.dynamic_min_kib));
}

/* free - growable - reserved - reserve. */
int64_t memctl_unpromised(const struct memctl *m);

void memctl_remove_reservation(struct memctl *m, size_t i);

/* ---- driver.c: what the guests' balloon drivers are up to. */

/* A size was seen. */
void driver_seen(struct memctl *m, struct domain *g, int64_t now, uint64_t actual_kib);

/* Sets a speed, and what follows from it; 0: not known. */
void driver_set_speed(const struct memctl *m, struct domain *g, uint64_t kib_per_s);

/* Progress is measured from here. */
void driver_restart(struct domain *g, int64_t now);

/* Probes, learns offsets, declares guests stuck and free again. */
void driver_judge(struct memctl *m, struct domain *g, int64_t now);

/* Has not arrived at its target: by how much, to grow (> 0) or to shrink (< 0). */
int64_t driver_distance(const struct memctl *m, const struct domain *g);

/* ---- fill.c: dividing what is there. */

/* One guest in a division; sizes are levels. */
struct fill {
	uint32_t index; /* of the domain */
	bool out;	/* takes no part, or has all it can take */
	double lo, hi;	/* at fractions 0 and 1 of its range */
	double cap;	/* takes no more than this */
	double speed;	/* KiB per us; 0: not known */
	double share;
};

/* Sets share = min(cap, lo + fraction * (hi - lo)) with the one fraction in [0, 1] at
 * which the shares add up to `sum`, or the nearest that can be. */
void fill_shares(struct fill *f, size_t n, double sum);

/* The time in us after which guests that all shrink from `cap` at their own speeds, none
 * below `lo`, have freed `kib`; negative if they can't or no speed is known. */
double fill_race(struct fill *f, size_t n, double kib);

/* ---- step.c: orders, only during a step. */
void step_emit(struct memctl *m, struct memctl_action a);
void step_by(struct memctl *m, int64_t when_us); /* the next step no later than that */
void step_order(struct memctl *m, struct domain *g, int64_t now, uint64_t target_kib);
void step_set_maxmem(struct memctl *m, struct domain *g, uint64_t kib);

#endif
