/*
 * When reeve-fenced does what: pure. It guards domains for as long as the host's lease
 * lasts, ends them when it has run out, and says when the watchdog is to be kept quiet.
 *
 *	no domain ──GUARD──► GUARDING ──lease over──► ENDING ──all are gone──► no domain
 *	 watchdog             kept       ▲             not kept quiet until     watchdog
 *	 off                  quiet      │             all have stopped         off
 *	                                 ╰─ new lease ─╯
 *
 * A domain that was stopped is destroyed, also when there is a lease again; until it is
 * gone it counts as one that may run, since somebody may unpause it.
 *
 * The watchdog is kept quiet for the last time before the lease ends. So within
 * FENCE_WATCHDOG_MS after its end each guarded domain has stopped, or the machine
 * restarts, whatever became of reeve-fenced itself. What is not known after a start (did
 * a former reeve-fenced guard domains?) the watchdog decides: it is neither kept quiet
 * nor switched off until reeved has said what is to be guarded.
 *
 * Times are milliseconds of CLOCK_BOOTTIME.
 */
#ifndef REEVE_FENCE_GUARD_H
#define REEVE_FENCE_GUARD_H

#include "fence/wire.h"

enum {
	GUARD_QUIET_MS = 1000, /* the watchdog is kept quiet so often */
	GUARD_AGAIN_MS = 200,  /* between attempts to stop a domain */
	/* No lease lasts longer; one that claims to is a mistake. */
	GUARD_LEASE_MAX_MS = 120 * 1000,
};

struct guarded {
	struct fence_domain domain;
	bool stopped; /* when the lease was over that lasted until this; still there: */
	int64_t stopped_for_ms;
	bool ending; /* its destroy is at work */
	bool tried;
	int64_t tried_ms; /* to stop or destroy it, in vain */
};

struct guard_book {
	struct guarded domains[FENCE_MAX_DOMAINS];
	uint32_t count;
	uint64_t seq; /* of the last list; 0: none has come */
	int64_t until_ms;
	int64_t quiet_ms; /* when the watchdog was kept quiet last */
	bool watching;	  /* the watchdog may bite */
};

/* `watching`: a former reeve-fenced may have left its watchdog on. */
void guard_book_init(struct guard_book *b, bool watching);

/* A LEASE has come. RV_EPARAM: longer than any lease. One that ends earlier than the
 * former counts as well: reeved knows. */
int guard_book_lease(struct guard_book *b, int64_t until_ms, int64_t now_ms,
	struct rv_error *e) RV_MUST_CHECK;

/* A GUARD has come: the list in place of the former. RV_ESTATE: it names a domain that
 * was not guarded, and the lease is over; RV_ELIMIT: with the stopped ones these are too
 * many. Then nothing is changed. Domains that were stopped already stay, whatever the
 * list says. */
int guard_book_list(struct guard_book *b, const struct fence_message *m, int64_t now_ms,
	struct rv_error *e) RV_MUST_CHECK;

enum guard_act {
	GUARD_WAIT,    /* nothing before *at_ms */
	GUARD_QUIET,   /* keep the watchdog quiet, for FENCE_WATCHDOG_MS */
	GUARD_OFF,     /* switch it off */
	GUARD_STOP,    /* stop the running domain `index`, at once */
	GUARD_DESTROY, /* begin to destroy the stopped domain `index` */
};

/* What to do now. Do it, tell by guard_book_did, and ask again. One domain is destroyed
 * at a time; whatever time that takes, the rest goes on. */
enum guard_act guard_book_next(
	struct guard_book *b, int64_t now_ms, uint32_t *index, int64_t *at_ms);

/* It was done (done: the domain has stopped; its destroy has begun), or failed and is to
 * be tried again. */
void guard_book_did(struct guard_book *b, enum guard_act act, uint32_t index, bool done,
	int64_t now_ms);

/* The destroy that was begun has ended: `gone`, or it is to be tried again. */
void guard_book_destroyed(
	struct guard_book *b, const struct fence_domain *d, bool gone, int64_t now_ms);

#endif
