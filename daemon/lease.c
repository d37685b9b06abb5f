#include "daemon/lease.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/log.h"
#include "daemon/fencing.h"
#include "daemon/members.h"

enum {
	LEASE_TICK_MS = 200,
	LEASE_SHOW_MS = 1000,
	LEASE_HOSTS = 4096, /* that one master keeps in its book */
	ASK_BYTES = 8,
	GRANT_BYTES = 16,
};

struct lease {
	struct daemon *daemon;
	struct timer tick;
	bool started, stopped;

	/* This host. */
	struct lease_holder holder;
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

/* As of now, not of the callback's start: what was sent since then counts. */
static int64_t clock_ms(const struct lease *l)
{
	struct timespec t;

	if (loop_is_sim(l->daemon->loop))
		return loop_now_us(l->daemon->loop) / 1000;
	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static struct pool *pool_of(const struct lease *l)
{
	return l->daemon->pool;
}

static const struct row *pool_row(const struct lease *l)
{
	return db_pool(pool_db(pool_of(l)));
}

static uint64_t term_of(const struct lease *l)
{
	struct rlog_status s;

	rlog_status(pool_log(pool_of(l)), &s);
	return s.term;
}

/* --- this host --------------------------------------------------------------------- */

static void grant(struct lease *l, uint64_t nonce, int64_t length_ms)
{
	if (!lease_grant(&l->holder, nonce, length_ms))
		return;
	if (l->told_lost)
		log_info("lease.held", "ms=%lld", (long long)length_ms);
	l->told_lost = false;
	fencing_lease(l->daemon->fencing, l->holder.end_ms);
}

static void ask(struct lease *l, struct uuid master)
{
	/* The callback began before it is sent: on the safe side. */
	int64_t now_ms = loop_now_us(l->daemon->loop) / 1000;
	uint64_t nonce = lease_ask(&l->holder, now_ms);
	uint8_t bytes[ASK_BYTES];

	l->master = master;
	l->ask_ms = now_ms + lease_renew_ms(l->holder.length_ms);
	if (uuid_eq(&master, &l->daemon->host)) {
		if (lease_book_receive(&l->book, &master, nonce, clock_ms(l)))
			l->ask_ms = now_ms + LEASE_TICK_MS; /* not yet the master */
		return;
	}
	bytes_put_le64(bytes, nonce);
	if (!l->daemon->members || members_send(l->daemon->members, &master,
					   MEMBERS_LEASE_ASK, bytes, sizeof bytes))
		l->ask_ms = now_ms + LEASE_TICK_MS;
}

static void hold(struct lease *l, int64_t now_ms)
{
	/* A host alone has no name for itself there. */
	struct uuid master =
		pool_is_master(pool_of(l)) ? l->daemon->host : pool_master(pool_of(l));

	if (!uuid_is_none(&master) &&
		(now_ms >= l->ask_ms || !uuid_eq(&master, &l->master)))
		ask(l, master);
	if (l->holder.end_ms && !lease_holds(&l->holder, now_ms) && !l->told_lost) {
		l->told_lost = true;
		log_warn("lease.lost",
			"msg=\"the master was not heard for a lease's time: no VM is "
			"started or unpaused here, protected ones are ended\"");
	}
}

void lease_answered(
	struct lease *l, const struct uuid *from, const uint8_t *bytes, size_t len)
{
	(void)from; /* the nonce is known to whom it was sent alone */
	if (len == GRANT_BYTES)
		grant(l, bytes_get_le64(bytes), (int64_t)bytes_get_le64(bytes + 8));
}

int lease_may_run(void *arg, const struct uuid *host, struct rv_error *e)
{
	struct lease *l = arg;
	const struct row *row = db_row(pool_db(pool_of(l)), CLASS_HOST, *host);
	const char *name = row ? row_name(row) : l->daemon->config->name_label;
	int64_t now_ms = clock_ms(l);

	if (lease_holds(&l->holder, now_ms))
		return 0;
	if (!l->holder.end_ms)
		return rv_error_set(e, RV_EAGAIN,
			"host %.64s has not yet heard from the pool's master since it "
			"started, so it starts and unpauses no VM: look at pool-status; "
			"it goes on by itself when there is a master that it can reach",
			name);
	return rv_error_set(e, RV_EAGAIN,
		"host %.64s has not heard from the pool's master for %lld s, and its "
		"lease has run out: it starts and unpauses no VM, since the pool may "
		"start them elsewhere. Look at pool-status there; it goes on by itself "
		"when the master is heard again, or start the VM on another host",
		name,
		(long long)((now_ms - l->holder.end_ms + l->holder.length_ms) / 1000));
}

int64_t lease_until_ms(const struct lease *l)
{
	return l->holder.end_ms;
}

/* --- the master -------------------------------------------------------------------- */

void lease_asked(
	struct lease *l, const struct uuid *from, const uint8_t *bytes, size_t len)
{
	if (len != ASK_BYTES || l->stopped)
		return;
	if (lease_book_receive(&l->book, from, bytes_get_le64(bytes), clock_ms(l)))
		log_debug("lease.asked", "msg=\"not the master, or nonsense\"");
}

static void answer(struct lease *l)
{
	const struct row *pool = pool_row(l);
	int64_t length_ms =
		lease_length_ms(l->wished_ms, db_int(pool, POOL_LEASE_LONGEST_MS));
	uint8_t bytes[GRANT_BYTES];
	struct uuid host;
	uint64_t nonce;
	size_t cursor = 0;

	bytes_put_le64(bytes + 8, (uint64_t)length_ms);
	while (lease_book_take(&l->book, &cursor, &host, &nonce)) {
		if (uuid_eq(&host, &l->daemon->host)) {
			grant(l, nonce, length_ms);
			continue;
		}
		bytes_put_le64(bytes, nonce);
		/* Lost, or no link: it asks again. */
		if (l->daemon->members && members_send(l->daemon->members, &host,
						  MEMBERS_LEASE, bytes, sizeof bytes))
			log_debug("lease.answer", "msg=\"not sent\"");
	}
}

/* `term`: of the entry that was committed. */
static void ended(struct lease *l, bool committed, uint64_t term)
{
	bool leads = !l->stopped && pool_is_master(pool_of(l)) && l->leads &&
		     term_of(l) == l->term;

	l->proposing = false;
	if (l->stopped)
		return;
	lease_book_ended(&l->book, committed, leads, term, clock_ms(l));
	if (committed && leads && pool_row(l))
		answer(l);
}

static void on_barrier(struct rlog_proposal *p, enum rlog_outcome outcome, int rc)
{
	struct lease *l = CONTAINER_OF(p, struct lease, barrier);

	(void)rc;
	ended(l, outcome == RLOG_COMMITTED, p->term);
}

/* A pool_commit may be taken on by a later master. It was this one's own where this host
 * led in one term from before it until now: terms don't come back. */
static void on_epoch(struct pool_commit *c)
{
	struct lease *l = CONTAINER_OF(c, struct lease, commit);
	bool own = !l->stopped && c->rc == 0 && l->leads && pool_is_master(pool_of(l)) &&
		   l->book.term == l->term && term_of(l) == l->term;

	if (own)
		l->epoch = l->epoch_next;
	else if (c->rc && !l->stopped)
		log_info("lease.epoch", "error=\"%s\"", c->error.detail);
	ended(l, own, l->term);
}

static void propose_epoch(struct lease *l)
{
	const struct row *pool = pool_row(l);
	struct uuid uuid = row_uuid(pool);
	int64_t before = db_int(pool, POOL_LEASE_EPOCH);
	struct rv_error e;
	struct txn t;

	l->epoch_next = before + 1;
	txn_init(&t, pool_db(pool_of(l)), loop_wall_ms(l->daemon->loop));
	txn_expect_int(&t, uuid, POOL_LEASE_EPOCH, before);
	txn_set_int(&t, uuid, POOL_LEASE_EPOCH, before + 1);
	memset(&l->commit, 0, sizeof l->commit);
	l->commit.essential = true;
	lease_book_begin(&l->book, l->term);
	l->proposing = true;
	if (pool_commit(pool_of(l), &l->commit, &t, on_epoch, &e)) {
		log_info("lease.epoch", "error=\"%s\"", e.detail);
		ended(l, false, l->term);
	}
}

static void propose_barrier(struct lease *l)
{
	lease_book_begin(&l->book, l->term);
	l->proposing = true;
	if (rlog_barrier(pool_log(pool_of(l)), &l->barrier, on_barrier))
		ended(l, false, l->term);
}

/* A log that is short of room is written to as little as possible. */
static int64_t barrier_every_ms(const struct lease *l)
{
	struct rlog_status s;

	rlog_status(pool_log(pool_of(l)), &s);
	return s.low_space ? lease_renew_ms(l->holder.length_ms) : LEASE_TICK_MS;
}

static void lead(struct lease *l, int64_t now_ms)
{
	bool leads = pool_is_master(pool_of(l));
	uint64_t term = leads ? term_of(l) : 0;

	if (leads != l->leads || term != l->term) {
		l->leads = leads;
		l->term = term;
		l->epoch = 0;
		l->wished_ms = 0;
		lease_book_lead(&l->book, leads);
		if (leads)
			l->ask_ms = 0; /* what was asked before was forgotten */
	}
	if (!leads || l->proposing || !pool_row(l))
		return;
	if (!l->epoch) {
		propose_epoch(l);
	} else if (lease_book_wants(&l->book) &&
		   now_ms >= l->barrier_ms + barrier_every_ms(l)) {
		l->barrier_ms = now_ms;
		propose_barrier(l);
	}
}

/* --- the length -------------------------------------------------------------------- */

static void on_length(struct pool_commit *c)
{
	struct lease *l = CONTAINER_OF(c, struct lease, length);

	l->lengthening = false; /* refused or not, the next look sees what is so */
}

static void look_at_length(struct lease *l, int64_t now_ms)
{
	const struct row *pool = pool_row(l);
	int64_t wished_ms = db_int(pool, POOL_LEASE_MS), next_ms,
		longest_ms = db_int(pool, POOL_LEASE_LONGEST_MS);
	struct rv_error e;
	struct txn t;

	/* Leases of former masters count from this one's first entry. */
	if (wished_ms != l->wished_ms || !l->epoch) {
		l->wished_ms = wished_ms;
		l->wished_since_ms = now_ms;
	}
	next_ms =
		lease_next_longest_ms(wished_ms, longest_ms, l->wished_since_ms, now_ms);
	if (next_ms == longest_ms || l->lengthening || !l->epoch)
		return;
	txn_init(&t, pool_db(pool_of(l)), loop_wall_ms(l->daemon->loop));
	(void)lease_expect(l, &t);
	txn_expect_int(&t, row_uuid(pool), POOL_LEASE_LONGEST_MS, longest_ms);
	txn_set_int(&t, row_uuid(pool), POOL_LEASE_LONGEST_MS, next_ms);
	memset(&l->length, 0, sizeof l->length);
	l->lengthening = pool_commit(pool_of(l), &l->length, &t, on_length, &e) == 0;
}

bool lease_expect(const struct lease *l, struct txn *t)
{
	if (!l->epoch)
		return false;
	txn_expect_int(t, row_uuid(pool_row(l)), POOL_LEASE_EPOCH, l->epoch);
	return true;
}

/* --- what is known ----------------------------------------------------------------- */

static int64_t over_ms(const struct lease *l, const struct uuid *host)
{
	const struct row *pool = pool_row(l);

	if (!pool || !l->leads || !l->epoch || !pool_is_master(pool_of(l)) ||
		term_of(l) != l->term)
		return INT64_MAX;
	return lease_book_over_ms(&l->book, host, db_int(pool, POOL_LEASE_LONGEST_MS));
}

bool lease_is_over(const struct lease *l, const struct uuid *host)
{
	return over_ms(l, host) <= loop_now_us(l->daemon->loop) / 1000;
}

int64_t lease_over_in_ms(const struct lease *l, const struct uuid *host)
{
	int64_t at_ms = over_ms(l, host), now_ms = loop_now_us(l->daemon->loop) / 1000;

	return at_ms == INT64_MAX ? -1 : at_ms > now_ms ? at_ms - now_ms : 0;
}

/* host.lease_until: in the past where it has run out. */
static void show(struct lease *l, int64_t now_ms)
{
	const struct db *db = pool_db(pool_of(l));
	int64_t length_ms = lease_length_ms(
			l->wished_ms, db_int(pool_row(l), POOL_LEASE_LONGEST_MS)),
		wall_ms = loop_wall_ms(l->daemon->loop), at_ms;

	if (now_ms < l->show_ms + LEASE_SHOW_MS)
		return;
	l->show_ms = now_ms;
	for (const struct row *h = NULL; (h = db_next(db, CLASS_HOST, h));) {
		struct uuid uuid = row_uuid(h);
		struct rv_error e;
		struct value v;

		if (!lease_book_renewed(&l->book, &uuid, &at_ms))
			continue;
		v = value_time(wall_ms - now_ms + at_ms + length_ms);
		/* The same one, but for how the two clocks are read. */
		if (llabs(db_int(h, HOST_LEASE_UNTIL) - value_get_int(&v)) < 100)
			continue;
		if (pool_set_live(pool_of(l), uuid, HOST_LEASE_UNTIL, &v, &e))
			log_debug("lease.show", "error=\"%s\"", e.detail);
	}
}

/* --- beginning and ending ---------------------------------------------------------- */

static void look(struct lease *l)
{
	int64_t now_ms = loop_now_us(l->daemon->loop) / 1000;

	if (l->stopped || !l->started)
		return;
	lead(l, now_ms);
	hold(l, now_ms);
	if (l->leads && pool_row(l)) {
		look_at_length(l, now_ms);
		lead(l, now_ms); /* this host's own request may begin a barrier */
		show(l, now_ms);
	}
}

static void on_tick(void *arg)
{
	struct lease *l = arg;

	timer_start_ms(&l->tick, LEASE_TICK_MS);
	look(l);
}

void lease_look(struct lease *l)
{
	if (l)
		look(l);
}

int lease_new(struct lease **out, struct daemon *d)
{
	struct lease *l = calloc(1, sizeof *l);

	_Static_assert((int)LEASE_WATCHDOG_MS == (int)FENCE_WATCHDOG_MS,
		"the pool waits as long as the watchdog does");
	*out = l;
	if (!l)
		return RV_ENOMEM;
	l->daemon = d;
	lease_holder_init(&l->holder, prng_next(loop_prng(d->loop)));
	lease_book_init(&l->book, prng_next(loop_prng(d->loop)), LEASE_HOSTS);
	timer_init(&l->tick, d->loop, "lease.tick", on_tick, l);
	return 0;
}

void lease_start(struct lease *l)
{
	l->started = true;
	on_tick(l);
}

void lease_stop(struct lease *l)
{
	if (!l)
		return;
	l->stopped = true;
	timer_stop(&l->tick);
}

void lease_free(struct lease *l)
{
	if (!l)
		return;
	lease_stop(l);
	lease_book_fini(&l->book);
	free(l);
}
