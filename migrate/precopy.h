/*
 * When to suspend a guest that is being migrated live. Pure.
 *
 * The model is that of Clark et al., "Live Migration of Virtual Machines" (NSDI 2005):
 * while the guest runs, its memory is sent in rounds, each round what was written during
 * the one before; the guest stands still while the last set is sent. So
 *
 *	downtime = bytes(dirty now + dirtied until it has stopped) / bandwidth + hand-over
 *
 * where hand-over is everything that does not depend on memory: device state, entries in
 * the log, disks. Rounds help as long as the set shrinks. libxenguest's own policy stops
 * after 5 rounds or below 50 pages, whatever the downtime; this one stops as soon as the
 * predicted downtime is within the limit, and after a bounded number of rounds that don't
 * help any more does what the caller chose.
 */
#ifndef REEVE_MIGRATE_PRECOPY_H
#define REEVE_MIGRATE_PRECOPY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "xen/hyper.h"

enum {
	PRECOPY_MAX_ROUNDS = 30,
	/* After so many rounds in a row in which the best prediction so far did not get a
	 * tenth better, more will not either. */
	PRECOPY_STALE_ROUNDS = 3,
	/* Sent in all, at most this many times what the guest holds: libxl's rule. */
	PRECOPY_MAX_TIMES = 3,
	/* One page in the stream: 4096 bytes and its number. */
	PRECOPY_PAGE_BYTES = 4104,
};

enum precopy_diverge {
	PRECOPY_GIVE_UP, /* end the migration; the guest goes on where it is */
	PRECOPY_ACCEPT,	 /* suspend all the same: a longer pause */
};

struct precopy_config {
	int64_t max_downtime_us;
	int64_t handover_us;	    /* of the downtime, what memory has no part in */
	int64_t suspend_us;	    /* how long a guest writes on after it was asked */
	uint64_t memory_pages;	    /* that it holds */
	uint64_t bandwidth_bytes_s; /* the limit set; 0: none */
	uint32_t max_rounds;	    /* 0: PRECOPY_MAX_ROUNDS */
	enum precopy_diverge diverge;
};

/* What became of the rounds so far. */
struct precopy {
	struct precopy_config config;
	double bytes_per_s; /* smoothed over rounds, by their length */
	uint32_t rounds;
	int64_t best_us; /* the best prediction so far; 0: none yet */
	uint32_t stale;	 /* rounds since it got a tenth better */
};

enum precopy_why {
	PRECOPY_WITHIN,	   /* the downtime is within the limit */
	PRECOPY_SHRINKING, /* not yet, but another round helps */
	PRECOPY_STALLED,   /* the guest writes as fast as it is sent */
	PRECOPY_SPENT,	   /* rounds or bytes are used up */
	PRECOPY_BELOW,	   /* no memory at all would still be too much */
};

struct precopy_verdict {
	enum hyper_precopy_verdict what;
	enum precopy_why why;
	int64_t predicted_us; /* the downtime, if it were suspended now */
	int64_t left_us;      /* the next round's length */
};

void precopy_init(struct precopy *p, const struct precopy_config *config);

/* After a round. */
struct precopy_verdict precopy_round(
	struct precopy *p, const struct hyper_precopy *round);

/* The downtime in that moment: dirty pages, pages written per second. */
int64_t precopy_predict(
	const struct precopy *p, uint64_t dirty_pages, uint64_t dirty_per_s);

const char *precopy_why_text(enum precopy_why why);

/* What to tell when it was given up: names numbers and ways out. */
int precopy_refuse(const struct precopy *p, const struct precopy_verdict *v,
	const char *vm, struct rv_error *e);

#endif
