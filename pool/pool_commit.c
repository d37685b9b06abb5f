/*
 * Changes and barriers, from the call to the answer, whoever leads meanwhile.
 *
 *	pool_commit ──► this host leads: proposed here ──► committed ─────────► fn
 *	     │                   │ rejected: it led no more       ▲
 *	     ▼                   ▼                                │
 *	   asked of the master (pool/remote.c), now or once there is one
 *	     │ unknown
 *	     ▼
 *	   no proof: fn(RV_EOUTCOME)
 *	   proof: a barrier ──► the proof is there: fn(0, found) ── is not: from the start
 *
 * After a barrier of a later term an entry of an earlier one that is not applied never
 * will be: so what is proposed again can't take effect twice.
 */
#include "pool/pool.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "pool/pool_internal.h"

/* An unknown outcome being found out. */
struct settle {
	struct list node;
	struct pool_commit *commit;
	struct pool_barrier barrier;
};

static int commit_propose(struct pool_commit *c);

/* --- words --- */

static void commit_rejected(struct pool_commit *c, int rc)
{
	const char *why;

	switch (rc) {
	case RV_ENOTMASTER:
		why = "the pool's master changed meanwhile; nothing was done: try again";
		break;
	case RV_ESPACE:
		why = "the disk of the pool's database is full; nothing was done: free "
		      "some space on that file system";
		break;
	case RV_ECLOSED:
		why = "this host's daemon is stopping; nothing was done: try again";
		break;
	case RV_ELIMIT:
		why = "too many changes wait to be written to the pool's database; "
		      "nothing was done: try again";
		break;
	default:
		why = "the pool's database could not be written; nothing was done";
		break;
	}
	rv_error_set(&c->error, rc, "%s", why);
}

static void commit_unknown(struct pool_commit *c)
{
	rv_error_set(&c->error, RV_EOUTCOME,
		"the pool's master or its disk failed before it was known whether this "
		"took effect: look before trying again");
}

static int commit_refused(struct pool *pool, int rc, struct rv_error *e)
{
	char words[POOL_CLASH_WORDS];
	struct rlog_status s;

	switch (rc) {
	case RV_ENOTMASTER:
		return rv_error_set(e, rc,
			"this host is not the pool's master and has no link to it: try "
			"again");
	case RV_ELIMIT:
		return rv_error_set(e, rc,
			"too many changes wait to be written to the pool's database: try "
			"again");
	case RV_ESPACE:
	case RV_EIO:
		rlog_status(pool->log, &s);
		if (s.error.code)
			return rv_error_set(e, rc, "%s", s.error.detail);
		return rv_error_set(e, rc,
			"%s is full: the pool is read-only but for what is running; free "
			"some space on that file system",
			pool->disk->path);
	case RV_ENOTALLOWED:
		if (pool_clash_words(pool, words))
			return rv_error_set(e, rc, "%s", words);
		/* fall through */
	default:
		return rv_error_set(
			e, rc, "the change can't be written: %s", rv_error_text(rc));
	}
}

/* --- the end --- */

static void commit_end(struct pool_commit *c)
{
	free(c->kept);
	c->kept = NULL;
	c->rc = c->error.code;
	c->fn(c);
}

static void settle_free(struct settle *s)
{
	list_remove(&s->node);
	free(s);
}

static void settle_barrier(struct pool_barrier *b, int rc)
{
	struct settle *s = CONTAINER_OF(b, struct settle, barrier);
	struct pool_commit *c = s->commit;
	struct pool *pool = c->pool;

	settle_free(s);
	if (rc || pool->freeing) {
		commit_unknown(c);
	} else if (db_row_any(pool->db, c->proof)) {
		rv_error_clear(&c->error);
		c->seq = db_seq(pool->db);
		c->found = true;
	} else {
		rc = commit_propose(c);
		if (!rc)
			return;
		commit_rejected(c, rc);
	}
	commit_end(c);
}

/* True when it is being found out. */
static bool commit_settle(struct pool_commit *c)
{
	struct pool *pool = c->pool;
	struct settle *s;

	if (uuid_is_none(&c->proof) || pool->freeing || !pool->remote ||
		loop_now_us(pool->loop) >= c->until_us)
		return false;
	s = calloc(1, sizeof *s);
	if (!s)
		return false;
	s->commit = c;
	list_push_back(&pool->settling, &s->node);
	if (!pool_read_barrier(pool, &s->barrier, settle_barrier))
		return true;
	settle_free(s);
	return false;
}

void pool_settle_stop(struct pool *pool)
{
	while (!list_empty(&pool->settling)) {
		struct settle *s = CONTAINER_OF(pool->settling.next, struct settle, node);
		struct pool_commit *c = s->commit;

		settle_free(s);
		commit_unknown(c);
		commit_end(c);
	}
}

/* --- on the way --- */

static void commit_asked(struct pool_ask *a)
{
	struct pool_commit *c = CONTAINER_OF(a, struct pool_commit, ask);

	c->error = a->error;
	c->seq = a->seq;
	if (a->error.code != RV_EOUTCOME || !commit_settle(c))
		commit_end(c);
}

static int commit_ask(struct pool_commit *c)
{
	return remote_ask_master(c->pool->remote, &c->ask, c->kept, c->kept_len,
		c->essential, commit_asked);
}

static void commit_ended(struct rlog_proposal *p, enum rlog_outcome outcome, int rc)
{
	struct pool_commit *c = CONTAINER_OF(p, struct pool_commit, proposal);
	struct pool *pool = c->pool;

	rv_error_clear(&c->error);
	c->seq = db_seq(pool->db);
	switch (outcome) {
	case RLOG_COMMITTED:
		/* Told right after its own apply. */
		assert(pool->result_index == p->index);
		c->error = pool->result.verdict;
		c->seq = pool->result.seq;
		pool->commits++;
		pool->conflicts += c->error.code != 0;
		break;
	case RLOG_REJECTED:
		/* Another host leads, or will: it may take it. */
		if (rc == RV_ENOTMASTER && c->kept && !pool->freeing && !commit_ask(c))
			return;
		commit_rejected(c, rc);
		break;
	case RLOG_UNKNOWN:
		if (commit_settle(c))
			return;
		commit_unknown(c);
		break;
	}
	commit_end(c);
}

/* Here or at the master. 0: commit_ended or commit_asked follows. */
static int commit_propose(struct pool_commit *c)
{
	struct pool *pool = c->pool;
	int rc = rlog_propose(pool->log, &c->proposal, POOL_ENTRY_TXN, c->kept,
		c->kept_len, c->essential, commit_ended);

	return rc == RV_ENOTMASTER ? commit_ask(c) : rc;
}

static int commit_keep(struct pool_commit *c, const uint8_t *bytes, size_t len)
{
	c->kept = malloc(len ? len : 1);
	if (!c->kept)
		return RV_ENOMEM;
	memcpy(c->kept, bytes, len);
	c->kept_len = len;
	return 0;
}

int pool_commit(struct pool *pool, struct pool_commit *c, struct txn *t,
	void (*fn)(struct pool_commit *c), struct rv_error *e)
{
	const uint8_t *bytes;
	size_t len;
	int rc = txn_finish(t, &bytes, &len, e);

	c->pool = pool;
	c->fn = fn;
	c->found = false;
	c->kept = NULL;
	c->until_us = loop_now_us(pool->loop) + 2 * POOL_PATIENCE_MS * INT64_C(1000);
	if (!rc) {
		if (!pool->remote)
			rc = rlog_propose(pool->log, &c->proposal, POOL_ENTRY_TXN, bytes,
				len, c->essential, commit_ended);
		else if (!(rc = commit_keep(c, bytes, len)))
			rc = commit_propose(c);
		if (rc) {
			free(c->kept);
			c->kept = NULL;
			commit_refused(pool, rc, e);
		}
	}
	txn_fini(t);
	return rc;
}

/* --- barriers --- */

/* A barrier has no effect: whatever happened, it may be asked for again. */
static void barrier_asked(struct pool_ask *a)
{
	struct pool_barrier *b = CONTAINER_OF(a, struct pool_barrier, ask);
	int rc = a->error.code == RV_EOUTCOME ? RV_ENOTMASTER : a->error.code;

	/* The master's answer is here; what it stands for may never come to be. */
	if (!rc && b->pool->freeing)
		rc = RV_ECLOSED;
	b->fn(b, rc);
}

static int barrier_ask(struct pool_barrier *b)
{
	return remote_ask_master(b->pool->remote, &b->ask, NULL, 0, false, barrier_asked);
}

static void barrier_ended(struct rlog_proposal *p, enum rlog_outcome outcome, int rc)
{
	struct pool_barrier *b = CONTAINER_OF(p, struct pool_barrier, proposal);

	rc = outcome == RLOG_COMMITTED ? 0 : rc == RV_EOUTCOME ? RV_ENOTMASTER : rc;
	if (rc == RV_ENOTMASTER && b->pool->remote && !b->pool->freeing &&
		!barrier_ask(b))
		return;
	b->fn(b, rc);
}

int pool_read_barrier(struct pool *pool, struct pool_barrier *b,
	void (*fn)(struct pool_barrier *b, int rc))
{
	int rc;

	b->pool = pool;
	b->fn = fn;
	rc = rlog_barrier(pool->log, &b->proposal, barrier_ended);
	return rc == RV_ENOTMASTER && pool->remote ? barrier_ask(b) : rc;
}
