/*
 * Leases: for how long a host may start and unpause VMs without hearing more from the
 * pool's master, and when the master may be sure that a silent host's protected VMs have
 * ended. Pure: what a lease is worth, at both ends; who sends, and ends VMs, is
 * daemon/lease.c, reeve-fenced (fence/) and simulations.
 *
 *	holder (each host)                       book (the master)
 *	lease_ask: nonce, sent at S   ──────►    lease_book_receive at R
 *	                                         barrier begins after R: lease_book_begin
 *	                                         barrier committed: lease_book_committed
 *	lease_grant(nonce, length)    ◄──────    lease_book_take, for each host
 *	valid until S + length                   renewed at R
 *
 * S <= R, and what began after R was committed by this master's term: a deposed master's
 * barrier never is, so it renews nothing. A master that begins later has its own first
 * barrier at F, after all that former masters' barriers committed; what they granted was
 * asked for before F. So no lease outlives
 *	max(R, F) + length
 * and protected VMs have ended by LEASE_WATCHDOG_MS after that: reeve-fenced destroys
 * them when the lease ends, or else no longer keeps the hypervisor's watchdog from
 * restarting the machine. LEASE_MARGIN_MS is for clocks that tick differently (both ends
 * count with CLOCK_BOOTTIME, so 3 s are 2 % of the longest lease) and for what a guest's
 * disks still have on the way.
 *
 * All times are milliseconds of the caller's own CLOCK_BOOTTIME, suspend included.
 */
#ifndef REEVE_POOL_LEASE_H
#define REEVE_POOL_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/map.h"
#include "base/uuid.h"

enum {
	LEASE_DEFAULT_MS = 10 * 1000, /* pool.lease_ms; its bounds: */
	LEASE_MIN_MS = 5 * 1000,
	LEASE_MAX_MS = 120 * 1000,
	/* From a host's last sign of life to the hypervisor's watchdog: it has so long to
	 * end protected VMs itself. */
	LEASE_WATCHDOG_MS = 10 * 1000,
	LEASE_MARGIN_MS = 3 * 1000,
	LEASE_ASKED_MAX = 8,   /* requests that may still be answered */
	LEASE_RENEWALS = 5,    /* a host asks so often within one lease */
	LEASE_GATHERINGS = 10, /* renewals are answered so often within one */
};

/* How long after it was renewed (or the master's first barrier) a lease of at most
 * `longest_ms` has surely ended, protected VMs with it. */
int64_t lease_wait_ms(int64_t longest_ms);

/* How often a holder of a lease of length_ms asks for the next. */
int64_t lease_renew_ms(int64_t length_ms);

/* How long a renewal may wait for others, so that one barrier serves them all: each is an
 * entry that every host of the pool writes to its disk. */
int64_t lease_gather_ms(int64_t length_ms);

/* --- the holder --- */

struct lease_asked {
	uint64_t nonce; /* 0: free */
	int64_t sent_ms;
};

/* Embed it. */
struct lease_holder {
	uint64_t last_nonce;
	struct lease_asked asked[LEASE_ASKED_MAX];
	unsigned next;
	int64_t end_ms;	   /* 0: never had one */
	int64_t length_ms; /* of the last one; LEASE_DEFAULT_MS before */
};

/* `seed` is drawn at random for each start of the daemon, so that an answer to a former
 * start's request is none to this one's. */
void lease_holder_init(struct lease_holder *h, uint64_t seed);

/* A request is sent, not before now_ms: its nonce, never 0. The oldest of
 * LEASE_ASKED_MAX counts no more. */
uint64_t lease_ask(struct lease_holder *h, int64_t now_ms);

/* An answer has come. True: it is to a request of this start, not answered yet, and of a
 * sensible length; then the lease lasts until that request was sent plus length_ms,
 * unless it lasts longer already. */
bool lease_grant(struct lease_holder *h, uint64_t nonce, int64_t length_ms);

/* May VMs be started and unpaused? */
bool lease_holds(const struct lease_holder *h, int64_t now_ms);

/* --- the master's book --- */

struct lease_entry {
	struct uuid host;
	uint64_t nonce;	     /* asked, its barrier not begun; 0: none */
	int64_t received_ms; /* R of nonce */
	uint64_t flying;     /* its barrier has begun; 0: none */
	int64_t flying_ms;   /* R of flying */
	bool due;	     /* granted: flying is to be answered */
	bool renewed;	     /* with this master */
	int64_t renewed_ms;  /* R of the last one granted */
};

/* Embed it. */
struct lease_book {
	struct map by_host; /* to struct lease_entry; owned */
	uint64_t seed;
	bool leads;
	bool begun;	  /* a barrier is at work */
	bool first;	  /* one of this term has been committed, at: */
	int64_t first_ms; /* F */
	uint64_t term;	  /* of the barrier at work */
	size_t waiting;	  /* entries with a nonce */
	bool urgent;	  /* one of them never renewed with this master */
	size_t room;	  /* most hosts; others' requests are refused */
};

void lease_book_init(struct lease_book *b, uint64_t seed, size_t room);
void lease_book_fini(struct lease_book *b);

/* This host leads from now on, or no more: whatever was known is void. */
void lease_book_lead(struct lease_book *b, bool leads);

/* A request has come. RV_ENOTMASTER, RV_ELIMIT, RV_ENOMEM, RV_EINVAL (nonce 0). */
int lease_book_receive(struct lease_book *b, const struct uuid *host, uint64_t nonce,
	int64_t now_ms) RV_MUST_CHECK;

/* Whether a barrier should begin: somebody waits for one, or none of this master's was
 * committed yet; and none is at work. */
bool lease_book_wants(const struct lease_book *b);
/* Whether it should be soon: a host may hold no lease at all. Others only renew theirs,
 * long before the end, and can wait for one another. */
bool lease_book_is_urgent(const struct lease_book *b);

/* A barrier is proposed right after this call, in `term`. */
void lease_book_begin(struct lease_book *b, uint64_t term);
/* It ended. It counts if it was committed and this host leads in that very term; then
 * those whose requests were there when it began are due. */
void lease_book_ended(
	struct lease_book *b, bool committed, bool leads, uint64_t term, int64_t now_ms);

/* The next host to be answered with its nonce, once each: begin with *cursor 0, and let
 * nothing else be done to the book meanwhile. False: no more. */
bool lease_book_take(
	struct lease_book *b, size_t *cursor, struct uuid *host, uint64_t *nonce);

/* When the host's lease, of at most longest_ms, and its protected VMs have surely ended;
 * INT64_MAX: that can't be said (this host does not lead, or has no barrier yet). */
int64_t lease_book_over_ms(
	const struct lease_book *b, const struct uuid *host, int64_t longest_ms);

/* When it renewed with this master last; false: not yet. */
bool lease_book_renewed(
	const struct lease_book *b, const struct uuid *host, int64_t *at_ms);

/* --- the length --- */

/* The length to grant: what the admin wishes, no longer than what all that wait for
 * leases to end assume. */
int64_t lease_length_ms(int64_t wished_ms, int64_t longest_ms);

/* What `longest` is to become; the same: leave it. It grows at once, and shrinks when no
 * lease longer than wished can be valid any more: the master has led, and granted no
 * longer one, for lease_wait_ms(longest), i.e. since `since_ms`. */
int64_t lease_next_longest_ms(
	int64_t wished_ms, int64_t longest_ms, int64_t since_ms, int64_t now_ms);

#endif
