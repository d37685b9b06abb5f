#include "pool/leases.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"

enum { LEASES_SHOW_MS = 1000 };

static int64_t clock_ms(const struct leases *l)
{
	return l->port->clock_ms(l->arg);
}

static const struct row *pool_row(const struct leases *l)
{
	return db_pool(pool_db(l->pool));
}

static uint64_t term_of(const struct leases *l)
{
	struct rlog_status s;

	rlog_status(pool_log(l->pool), &s);
	return s.term;
}

/* --- this host --- */

/* What was granted in another life of the pool counts no more: that life's master may
 * have let this host's VMs go, and this one's doesn't know of it. */
static bool is_of_this_life(const struct leases *l)
{
	const struct row *pool = l->pool ? pool_row(l) : NULL;
	struct uuid generation = pool ? db_ref(pool, POOL_GENERATION_ID) : l->generation;

	return !l->known || uuid_eq(&generation, &l->generation);
}

static void look_at_life(struct leases *l)
{
	const struct row *pool = pool_row(l);

	if (!pool || (l->known && is_of_this_life(l)))
		return;
	l->generation = db_ref(pool, POOL_GENERATION_ID);
	if (l->known) {
		lease_holder_init(&l->holder, prng_next(loop_prng(l->loop)));
		l->ask_ms = 0;
		log_warn("lease.void",
			"msg=\"the pool goes on in another life: this host asks anew\"");
		l->port->granted(l->arg, 0);
	}
	l->known = true;
}

static void grant(struct leases *l, uint64_t nonce, int64_t length_ms)
{
	if (!lease_grant(&l->holder, nonce, length_ms))
		return;
	if (l->told_lost)
		log_info("lease.held", "ms=%lld", (long long)length_ms);
	l->told_lost = false;
	l->port->granted(l->arg, l->holder.end_ms);
}

static void ask(struct leases *l, struct uuid master)
{
	int64_t now_ms = clock_ms(l); /* before it is sent */
	uint64_t nonce = lease_ask(&l->holder, now_ms);
	uint8_t bytes[LEASES_ASK_BYTES];

	l->master = master;
	l->ask_ms = now_ms + lease_renew_ms(l->holder.length_ms);
	if (uuid_eq(&master, &l->self)) {
		if (lease_book_receive(&l->book, &master, nonce, clock_ms(l)))
			l->ask_ms = now_ms + LEASES_TICK_MS; /* not yet the master */
		return;
	}
	bytes_put_le64(bytes, nonce);
	if (l->port->send(l->arg, &master, false, bytes, sizeof bytes))
		l->ask_ms = now_ms + LEASES_TICK_MS;
}

static void hold(struct leases *l, int64_t now_ms)
{
	/* A host alone has no name for itself there. */
	struct uuid master = pool_is_master(l->pool) ? l->self : pool_master(l->pool);

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

void leases_answered(struct leases *l, const uint8_t *bytes, size_t len)
{
	if (l->stopped || !l->pool)
		return;
	look_at_life(l);
	/* The nonce is known to whom it was sent alone. */
	if (len == LEASES_GRANT_BYTES)
		grant(l, bytes_get_le64(bytes), (int64_t)bytes_get_le64(bytes + 8));
}

int leases_may_run(const struct leases *l, const char *name, struct rv_error *e)
{
	int64_t now_ms = clock_ms(l);

	if (lease_holds(&l->holder, now_ms) && is_of_this_life(l))
		return 0;
	if (!leases_until_ms(l))
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

int64_t leases_until_ms(const struct leases *l)
{
	return is_of_this_life(l) ? l->holder.end_ms : 0;
}

/* --- the master --- */

void leases_asked(
	struct leases *l, const struct uuid *from, const uint8_t *bytes, size_t len)
{
	if (len != LEASES_ASK_BYTES || l->stopped || !l->pool)
		return;
	if (lease_book_receive(&l->book, from, bytes_get_le64(bytes), clock_ms(l)))
		log_debug("lease.asked", "msg=\"not the master, or nonsense\"");
}

static void answer(struct leases *l)
{
	const struct row *pool = pool_row(l);
	int64_t length_ms =
		lease_length_ms(l->wished_ms, db_int(pool, POOL_LEASE_LONGEST_MS));
	uint8_t bytes[LEASES_GRANT_BYTES];
	struct uuid host;
	uint64_t nonce;
	size_t cursor = 0;

	bytes_put_le64(bytes + 8, (uint64_t)length_ms);
	while (lease_book_take(&l->book, &cursor, &host, &nonce)) {
		if (uuid_eq(&host, &l->self)) {
			grant(l, nonce, length_ms);
			continue;
		}
		bytes_put_le64(bytes, nonce);
		/* Lost, or no link: it asks again. */
		if (l->port->send(l->arg, &host, true, bytes, sizeof bytes))
			log_debug("lease.answer", "msg=\"not sent\"");
	}
}

/* `term`: of the entry that was committed. */
static void ended(struct leases *l, bool committed, uint64_t term)
{
	bool leads = !l->stopped && pool_is_master(l->pool) && l->leads &&
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
	struct leases *l = CONTAINER_OF(p, struct leases, barrier);

	(void)rc;
	ended(l, outcome == RLOG_COMMITTED, p->term);
}

/* A pool_commit may be taken on by a later master. It was this one's own where this host
 * led in one term from before it until now: terms don't come back. */
static void on_epoch(struct pool_commit *c)
{
	struct leases *l = CONTAINER_OF(c, struct leases, commit);
	bool own = !l->stopped && c->rc == 0 && l->leads && pool_is_master(l->pool) &&
		   l->book.term == l->term && term_of(l) == l->term;

	if (own)
		l->epoch = l->epoch_next;
	else if (c->rc && !l->stopped)
		log_info("lease.epoch", "error=\"%s\"", c->error.detail);
	ended(l, own, l->term);
}

static void propose_epoch(struct leases *l)
{
	const struct row *pool = pool_row(l);
	struct uuid uuid = row_uuid(pool);
	int64_t before = db_int(pool, POOL_LEASE_EPOCH);
	struct rv_error e;
	struct txn t;

	l->epoch_next = before + 1;
	txn_init(&t, pool_db(l->pool), loop_wall_ms(l->loop));
	txn_expect_int(&t, uuid, POOL_LEASE_EPOCH, before);
	txn_set_int(&t, uuid, POOL_LEASE_EPOCH, before + 1);
	memset(&l->commit, 0, sizeof l->commit);
	l->commit.essential = true;
	lease_book_begin(&l->book, l->term);
	l->proposing = true;
	if (pool_commit(l->pool, &l->commit, &t, on_epoch, &e)) {
		log_info("lease.epoch", "error=\"%s\"", e.detail);
		ended(l, false, l->term);
	}
}

static void propose_barrier(struct leases *l)
{
	lease_book_begin(&l->book, l->term);
	l->proposing = true;
	if (rlog_barrier(pool_log(l->pool), &l->barrier, on_barrier))
		ended(l, false, l->term);
}

/* A log that is short of room is written to as little as possible. */
static int64_t barrier_every_ms(const struct leases *l)
{
	struct rlog_status s;

	rlog_status(pool_log(l->pool), &s);
	if (s.low_space)
		return lease_renew_ms(l->holder.length_ms);
	return lease_book_is_urgent(&l->book) ? LEASES_TICK_MS
					      : lease_gather_ms(l->holder.length_ms);
}

static void lead(struct leases *l, int64_t now_ms)
{
	bool leads = pool_is_master(l->pool);
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

/* --- the length --- */

static void on_length(struct pool_commit *c)
{
	struct leases *l = CONTAINER_OF(c, struct leases, length);

	l->lengthening = false; /* refused or not, the next look sees what is so */
}

static void look_at_length(struct leases *l, int64_t now_ms)
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
	txn_init(&t, pool_db(l->pool), loop_wall_ms(l->loop));
	(void)leases_expect(l, &t);
	txn_expect_int(&t, row_uuid(pool), POOL_LEASE_LONGEST_MS, longest_ms);
	txn_set_int(&t, row_uuid(pool), POOL_LEASE_LONGEST_MS, next_ms);
	memset(&l->length, 0, sizeof l->length);
	l->lengthening = pool_commit(l->pool, &l->length, &t, on_length, &e) == 0;
}

bool leases_expect(const struct leases *l, struct txn *t)
{
	if (!l->epoch)
		return false;
	txn_expect_int(t, row_uuid(pool_row(l)), POOL_LEASE_EPOCH, l->epoch);
	return true;
}

/* --- what is known --- */

static int64_t over_ms(const struct leases *l, const struct uuid *host)
{
	const struct row *pool = pool_row(l);

	if (!pool || !l->leads || !l->epoch || !pool_is_master(l->pool) ||
		term_of(l) != l->term)
		return INT64_MAX;
	return lease_book_over_ms(&l->book, host, db_int(pool, POOL_LEASE_LONGEST_MS));
}

bool leases_is_over(const struct leases *l, const struct uuid *host)
{
	return over_ms(l, host) <= clock_ms(l);
}

int64_t leases_over_in_ms(const struct leases *l, const struct uuid *host)
{
	int64_t at_ms = over_ms(l, host), now_ms = clock_ms(l);

	return at_ms == INT64_MAX ? -1 : at_ms > now_ms ? at_ms - now_ms : 0;
}

/* host.lease_until: in the past where it has run out. */
static void show(struct leases *l, int64_t now_ms)
{
	const struct db *db = pool_db(l->pool);
	int64_t length_ms = lease_length_ms(
			l->wished_ms, db_int(pool_row(l), POOL_LEASE_LONGEST_MS)),
		wall_ms = loop_wall_ms(l->loop), at_ms;

	if (now_ms < l->show_ms + LEASES_SHOW_MS)
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
		if (pool_set_live(l->pool, uuid, HOST_LEASE_UNTIL, &v, &e))
			log_debug("lease.show", "error=\"%s\"", e.detail);
	}
}

/* --- beginning and ending --- */

static void look(struct leases *l)
{
	int64_t now_ms = clock_ms(l);

	look_at_life(l);
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
	struct leases *l = arg;

	timer_start_about_ms(&l->tick, LEASES_TICK_MS);
	look(l);
}

void leases_look(struct leases *l)
{
	if (l->pool && !l->stopped)
		look(l);
}

void leases_init(
	struct leases *l, struct loop *loop, const struct leases_port *port, void *arg)
{
	*l = (struct leases){.port = port, .arg = arg, .loop = loop};
	lease_holder_init(&l->holder, prng_next(loop_prng(loop)));
	lease_book_init(&l->book, prng_next(loop_prng(loop)), LEASES_HOSTS);
	timer_init(&l->tick, loop, "lease.tick", on_tick, l);
}

void leases_start(struct leases *l, struct pool *pool, const struct uuid *self)
{
	l->pool = pool;
	l->self = *self;
	on_tick(l);
}

void leases_stop(struct leases *l)
{
	l->stopped = true;
	timer_stop(&l->tick);
}

void leases_fini(struct leases *l)
{
	leases_stop(l);
	lease_book_fini(&l->book);
}
