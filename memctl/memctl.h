/*
 * The balloon controller of one host, as a pure machine: what happened goes in as calls,
 * memctl_step(now) gives back what to do and when to be called again at the latest.
 *
 * It decides the memory target and maxmem of every guest on this host, and is the only
 * one to grant reservations of the host's memory. It does no I/O, reads no clock, draws
 * no random numbers and logs nothing; memctl/shell.h feeds it from xenstore watches and
 * hypercalls. The same calls give the same actions.
 *
 * Who gets what
 * - A guest *counts as* max(actual, maxmem, what was promised to it): Xen lets it grow to
 *   its maxmem whenever it likes, and to a former, greater one until the lower one is in
 *   place. Unpromised memory is free pages minus all that guests may still grow by, minus
 *   reservations, minus the host's reserve; growing and granting spend only that, so no
 *   page is ever promised twice.
 * - *Share*: where every guest ends. Memory beyond the dynamic minimums is divided in
 *   proportion to (dynamic-max - dynamic-min), so all guests sit at the same fraction.
 * - *Race*: while a reservation waits, whoever frees fastest may be asked beyond its
 *   share (never below dynamic-min), so the wait is set by the speed of all drivers
 *   together and a stuck one costs nothing where the others can give. Shares are
 *   restored once the reservation is met.
 * - Shrinking: target first, maxmem last and never below actual. Growing: maxmem first.
 *   In one step all actions that free come before all that grow.
 * - Left alone, and counted at what they could use: guests not proven to balloon, frozen,
 *   paused, stuck, building, or with populate-on-demand pages outstanding.
 *
 * Times are microseconds of one monotonic clock; memory is KiB.
 */
#ifndef REEVE_MEMCTL_MEMCTL_H
#define REEVE_MEMCTL_MEMCTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"

enum {
	MEMCTL_MAX_DOMAINS = 4096,
	MEMCTL_MAX_RESERVATIONS = 4096,
	MEMCTL_NEVER = -1, /* no deadline */
};

/* Zero in a field means the default given behind it. */
struct memctl_config {
	uint64_t reserve_kib;	 /* never promised: dom0's slack, Xen's heap (0) */
	uint64_t tolerance_kib;	 /* a guest this near its target has arrived (1024) */
	uint64_t hysteresis_kib; /* targets move by this much at least, unless memory is
				    waited for (8192) */
	uint64_t probe_kib;	 /* how far the balloon probe shrinks (4096) */
	int64_t probe_delay_us;	 /* from running to the first probe (20 s) */
	int64_t probe_wait_us;	 /* without movement the probe has failed (5 s) */
	int64_t poll_us; /* between looks at a moving guest while waited for (2 ms) */
	int64_t idle_poll_us;  /* the same when nobody waits (100 ms) */
	int64_t stuck_min_us;  /* no progress for this long at least, and ... (500 ms) */
	int64_t stuck_max_us;  /* ... for this long at most, means stuck (5 s) */
	int64_t grow_delay_us; /* quiet time after a squeeze before giving back (500 ms)
				*/
};

/* What a domain is doing; not the power state. */
enum memctl_mode {
	MEMCTL_BUILDING, /* being built or restored: left alone */
	MEMCTL_RUNNING,
	MEMCTL_PAUSED, /* can't balloon now; no blame */
	MEMCTL_FROZEN, /* migrating, suspending: nothing of it may change */
};

/* A domain as the caller knows it. Ranges: static_min <= dynamic_min <= dynamic_max <=
 * static_max. */
struct memctl_domain {
	uint32_t domid;
	struct uuid vm;
	uint64_t static_min_kib, static_max_kib;
	uint64_t dynamic_min_kib, dynamic_max_kib;
	uint64_t actual_kib; /* pages it holds now */
	uint64_t target_kib; /* as written for the guest; 0: none yet (then actual) */
	uint64_t maxmem_kib; /* Xen's limit for it */
	uint64_t pod_kib;    /* populate-on-demand pages outstanding */
	bool proven;	     /* known to balloon (kept over a restart of the daemon) */
	enum memctl_mode mode;
};

enum memctl_balloon {
	MEMCTL_UNPROVEN, /* waits for its first probe, or that failed */
	MEMCTL_PROBING,
	MEMCTL_PROVEN,
	MEMCTL_STUCK, /* proven once, makes no progress now */
};

/* A domain as the controller sees it; for displays, metrics and tests. */
struct memctl_view {
	struct memctl_domain d; /* target and maxmem: as last ordered */
	enum memctl_balloon balloon;
	uint64_t promised_kib;	  /* what a reservation passed on to it */
	uint64_t limit_kib;	  /* Xen may still let it have so much */
	uint64_t share_kib;	  /* where it should end */
	uint64_t squeezable_kib;  /* what it could still give */
	uint64_t speed_kib_per_s; /* of its driver as observed; 0: not yet */
	int64_t offset_kib;	  /* actual - target at rest */
	bool moving;		  /* has not arrived at its target */
};

/* Sums of the host. unpromised can be negative when the world broke a promise. */
struct memctl_totals {
	uint64_t free_kib;	 /* as last measured */
	uint64_t reserved_kib;	 /* granted, and held by those that wait */
	uint64_t growable_kib;	 /* guests may grow by this on their own */
	int64_t unpromised_kib;	 /* free - growable - reserved - reserve */
	uint64_t squeezable_kib; /* what squeezing all to dynamic-min would free */
	uint32_t domains, stuck, unproven, waiting, granted;
};

enum memctl_do {
	/* Of a domain. */
	MEMCTL_SET_MAXMEM,     /* kib; answer with memctl_domain_limited */
	MEMCTL_SET_TARGET,     /* kib */
	MEMCTL_DECLARE_PROVEN, /* write nothing; remember it over restarts */
	MEMCTL_DECLARE_STUCK,  /* memory/uncooperative; raise a message */
	MEMCTL_DECLARE_FREE,   /* moves again: withdraw that */
	/* Of a reservation. */
	MEMCTL_GRANT,  /* kib is held for owner until its deadline */
	MEMCTL_REFUSE, /* can't be met, now or any more: kib short; nothing is held */
	MEMCTL_EXPIRE, /* its deadline passed, waiting or granted; nothing is held */
};

struct memctl_action {
	enum memctl_do what;
	uint32_t domid;	   /* of a domain */
	struct uuid vm;	   /* of a domain */
	struct uuid owner; /* of a reservation */
	uint64_t kib;
};

/* actions[0..count) are borrowed until the next call of any memctl function that takes a
 * non-const controller. They are to be carried out in order. */
struct memctl_step {
	const struct memctl_action *actions;
	size_t count;
	int64_t next_us; /* step again then at the latest, or MEMCTL_NEVER */
};

/* `config` is copied; NULL takes every default. NULL without memory. */
struct memctl *memctl_new(const struct memctl_config *config);
void memctl_free(struct memctl *m);

/* ---- What happened. Each is followed by memctl_step sooner or later; several may be
 * reported before one step. RV_ENOENT: no such domain or reservation. */

/* Free pages minus claims; dying domains still hold theirs. Read it before and after the
 * domains' sizes and report the smaller: then a guest that moves in between can't make
 * memory look free that is not. */
void memctl_host_free(struct memctl *m, uint64_t free_kib);

/* A domain appeared (RV_EEXIST: known already). If `reservation` is not NULL, that
 * granted reservation passes to the domain: the domain then counts as the reserved
 * size until it is reported RUNNING. RV_EPARAM: ranges out of order; RV_ESTATE: the
 * reservation still waits. */
int memctl_domain_add(struct memctl *m, const struct memctl_domain *d,
	const struct uuid *reservation, struct rv_error *e) RV_MUST_CHECK;
void memctl_domain_remove(struct memctl *m, uint32_t domid); /* unknown: nothing */

/* New limits from an admin. RV_EPARAM out of order; RV_ENOTALLOWED when static_max
 * changes while the domain is there. */
int memctl_domain_range(struct memctl *m, uint32_t domid, uint64_t dynamic_min_kib,
	uint64_t dynamic_max_kib, struct rv_error *e) RV_MUST_CHECK;

int memctl_domain_mode(struct memctl *m, int64_t now_us, uint32_t domid,
	enum memctl_mode mode) RV_MUST_CHECK;

/* What hypercalls said. Any number may come: absurd ones are taken as they are and can't
 * break a promise made to others. */
int memctl_domain_actual(struct memctl *m, int64_t now_us, uint32_t domid,
	uint64_t actual_kib) RV_MUST_CHECK;
int memctl_domain_pod(struct memctl *m, uint32_t domid, uint64_t pod_kib) RV_MUST_CHECK;

/* MEMCTL_SET_MAXMEM was carried out: Xen's limit is this now, and the guest's size was
 * reported as it was after that. A lowered maxmem frees nothing before: the guest may
 * have grown on its way. */
int memctl_domain_limited(
	struct memctl *m, uint32_t domid, uint64_t maxmem_kib) RV_MUST_CHECK;

/* The guest said that its balloon driver is up: probe it now rather than later. */
int memctl_domain_ready(struct memctl *m, int64_t now_us, uint32_t domid) RV_MUST_CHECK;

/* Carrying out an action failed, or somebody else wrote the value: what it is now. For a
 * guest that is not left alone, the next step orders what it should be. */
int memctl_domain_found(struct memctl *m, uint32_t domid, uint64_t target_kib,
	uint64_t maxmem_kib) RV_MUST_CHECK;

/* ---- Reservations. The answer comes out of memctl_step: GRANT, or REFUSE at once when
 * squeezing everybody could not free it beside what is already waited for. */

/* `owner` is the UUID of the operation; asking again with the same owner and size changes
 * only the deadline (RV_EEXIST with another size). kib must not be 0. */
int memctl_reserve(struct memctl *m, const struct uuid *owner, uint64_t kib,
	int64_t deadline_us, struct rv_error *e) RV_MUST_CHECK;

/* After a restart: this was granted already and is held as before. */
int memctl_adopt(struct memctl *m, const struct uuid *owner, uint64_t kib,
	int64_t deadline_us, struct rv_error *e) RV_MUST_CHECK;

/* Gives it up, waiting or granted. Unknown: nothing. */
void memctl_release(struct memctl *m, const struct uuid *owner);

struct memctl_reservation {
	struct uuid owner;
	uint64_t kib;
	uint64_t held_kib; /* so far; equal to kib once granted */
	int64_t deadline_us;
	bool granted;
};

/* ---- Decide. Never fails and never allocates. */
struct memctl_step memctl_step(struct memctl *m, int64_t now_us);

/* ---- Look. */
struct memctl_totals memctl_totals(const struct memctl *m);
size_t memctl_domain_count(const struct memctl *m);
size_t memctl_reservation_count(const struct memctl *m);
/* By index below the count: domains by domid, reservations by age; or by domid
 * (RV_ENOENT). */
struct memctl_view memctl_domain_at(const struct memctl *m, size_t i);
int memctl_domain_get(
	const struct memctl *m, uint32_t domid, struct memctl_view *v) RV_MUST_CHECK;
struct memctl_reservation memctl_reservation_at(const struct memctl *m, size_t i);

/* The controller's own invariants (DESIGN.md section 11, number 2): 0, or RV_EINTERNAL
 * naming the domain or sum that is wrong. */
int memctl_check(const struct memctl *m, struct rv_error *e) RV_MUST_CHECK;

const char *memctl_balloon_name(enum memctl_balloon b); /* "proven" */
const char *memctl_do_name(enum memctl_do what);	/* "set-target" */

#endif
