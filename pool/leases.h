/*
 * Leases at work (pool/lease.h says what they are worth): a host asks the master several
 * times within a lease, and the master answers those whose asking is older than a barrier
 * that it has committed in its own term. A master's first barrier is the entry that
 * counts pool.lease_epoch up: what a former master decided about leases expects the epoch
 * of its own, so it never takes effect behind the back of the next one.
 *
 * A lease is of one life of the pool: after a change of pool.generation_id a host has
 * none until it has asked anew.
 *
 * Users: daemon/lease.c, which sends and tells reeve-fenced; the simulation of pools.
 */
#ifndef REEVE_POOL_LEASES_H
#define REEVE_POOL_LEASES_H

#include "pool/lease.h"
#include "pool/pool.h"

enum {
	LEASES_TICK_MS = 200,
	LEASES_HOSTS = 4096, /* that one master keeps in its book */
	LEASES_ASK_BYTES = 8,
	LEASES_GRANT_BYTES = 16,
};

struct leases_port {
	/* To another host: a request of LEASES_ASK_BYTES for its leases_asked, or an
	 * answer of LEASES_GRANT_BYTES for its leases_answered. Anything but 0: not sent.
	 */
	int (*send)(void *arg, const struct uuid *host, bool answer, const uint8_t *bytes,
		size_t len);
	/* This host's lease lasts until then; 0: what it had counts no more. */
	void (*granted)(void *arg, int64_t until_ms);
	/* CLOCK_BOOTTIME as of now, not of the callback's start. */
	int64_t (*clock_ms)(void *arg);
};

/* Embed it. */
struct leases {
	const struct leases_port *port;
	void *arg;
	struct loop *loop;
	struct pool *pool; /* NULL: not started */
	struct uuid self;
	struct timer tick;
	bool stopped;

	/* This host. */
	struct lease_holder holder;
	bool known; /* which life of the pool it is of: */
	struct uuid generation;
	struct uuid master; /* asked last */
	int64_t ask_ms;	    /* the next time */
	bool told_lost;

	/* The master. */
	struct lease_book book;
	bool leads;
	uint64_t term;
	int64_t epoch;	/* of this master; 0: not yet recorded */
	bool proposing; /* `barrier` or `commit` is at work */
	struct rlog_proposal barrier;
	struct pool_commit commit;
	int64_t epoch_next;
	int64_t barrier_ms; /* the last one began */
	int64_t wished_ms;  /* pool.lease_ms as granted by, since: */
	int64_t wished_since_ms;
	bool lengthening; /* `length` is at work */
	struct pool_commit length;
	int64_t show_ms;
};

/* All borrowed. */
void leases_init(
	struct leases *l, struct loop *loop, const struct leases_port *port, void *arg);
/* The pool is open; `self`: this host. */
void leases_start(struct leases *l, struct pool *pool, const struct uuid *self);
void leases_stop(struct leases *l); /* idempotent */
void leases_fini(struct leases *l); /* after the pool was freed */

/* The master may be another one, or can be reached again: asks at once. */
void leases_look(struct leases *l);

/* A message has come; whatever it holds. */
void leases_asked(
	struct leases *l, const struct uuid *from, const uint8_t *bytes, size_t len);
void leases_answered(struct leases *l, const uint8_t *bytes, size_t len);

/* May VMs be started and unpaused here? RV_EAGAIN and why not; `name`: this host's. */
int leases_may_run(
	const struct leases *l, const char *name, struct rv_error *e) RV_MUST_CHECK;

/* Until when (CLOCK_BOOTTIME, ms) this host's lasts; 0: it had none in this life of the
 * pool. */
int64_t leases_until_ms(const struct leases *l);

/* Whether this host, as the master, is sure that the host's lease and all that it
 * protected have ended. */
bool leases_is_over(const struct leases *l, const struct uuid *host);
/* When that will be, in ms from now; -1: that can't be said. */
int64_t leases_over_in_ms(const struct leases *l, const struct uuid *host);

/* Adds that this master is still the last one: for entries that build on
 * leases_is_over. False: it is not yet the master in this sense. */
bool leases_expect(const struct leases *l, struct txn *t);

#endif
