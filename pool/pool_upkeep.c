/* What a master does by itself: entries with the database's hash, old tasks and messages
 * removed. */
#include "pool/pool.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/log.h"
#include "pool/pool_internal.h"

enum {
	HASH_BYTES = 24,
	PRUNE_FIRST_MS = 10 * 1000,
	PRUNE_EVERY_MS = 60 * 1000,
	PRUNE_BATCH = 256,
	PRUNE_SCAN = 4096, /* rows looked at per callback */
};

/* --- hashes --- */

static void hash_ended(struct rlog_proposal *p, enum rlog_outcome outcome, int rc)
{
	struct pool *pool = CONTAINER_OF(p, struct pool, hash_proposal);

	(void)outcome;
	(void)rc;
	pool->hash_pending = false;
}

static void hash_propose(void *arg)
{
	struct pool *pool = arg;
	struct db_hash hash = db_hash(pool->db);
	uint8_t bytes[HASH_BYTES];

	if (pool->hash_pending || pool->stopping || !pool_is_master(pool))
		return;
	bytes_put_le64(bytes, db_seq(pool->db));
	bytes_put_le64(bytes + 8, hash.hi);
	bytes_put_le64(bytes + 16, hash.lo);
	/* Refused now: the next entry's turn comes. */
	pool->hash_pending =
		rlog_propose(pool->log, &pool->hash_proposal, POOL_ENTRY_HASH, bytes,
			sizeof bytes, false, hash_ended) == 0;
	if (pool->hash_pending)
		pool->hash_told_seq = db_seq(pool->db);
}

void pool_hash_note(struct pool *pool)
{
	uint64_t seq = db_seq(pool->db);

	if (!pool->hashes)
		pool->hashes = calloc(POOL_HASHES, sizeof *pool->hashes);
	if (!pool->hashes)
		return; /* can't compare, can go on */
	pool->hashes[seq % POOL_HASHES] = (struct pool_hash){seq, db_hash(pool->db)};
	if (seq - pool->hash_told_seq >= pool->hash_entries)
		defer_start(&pool->hash_step);
}

void pool_hash_forget(struct pool *pool)
{
	if (pool->hashes)
		memset(pool->hashes, 0, POOL_HASHES * sizeof *pool->hashes);
	pool->hash_differs = false;
}

void pool_hash_check(struct pool *pool, const uint8_t *bytes, size_t len)
{
	const struct pool_hash *own;
	struct db_hash hash;
	uint64_t seq;

	if (len != HASH_BYTES || !pool->hashes)
		return;
	seq = bytes_get_le64(bytes);
	hash = (struct db_hash){bytes_get_le64(bytes + 8), bytes_get_le64(bytes + 16)};
	own = &pool->hashes[seq % POOL_HASHES];
	if (seq > pool->hash_told_seq)
		pool->hash_told_seq = seq;
	if (own->seq != seq || seq == 0)
		return;
	if (own->hash.hi == hash.hi && own->hash.lo == hash.lo) {
		pool->hash_agreed_seq = seq;
		return;
	}
	pool->hash_differs = true;
	rlog_discard(pool->log);
	log_error("pool.hash",
		"seq=%" PRIu64
		" msg=\"this host's database differs from the master's: remove this host "
		"from the pool and let it join again\"",
		seq);
}

/* --- old tasks and messages --- */

static void prune_ended(struct pool_commit *c)
{
	struct pool *pool = CONTAINER_OF(c, struct pool, prune_commit);
	bool more = c->rc == 0;

	pool->prune_pending = false;
	if (!pool->stopping)
		timer_start_ms(&pool->prune, more ? 0 : PRUNE_EVERY_MS);
}

static bool task_is_old(const struct pool *pool, const struct row *task, int64_t now)
{
	int64_t finished = db_int(task, TASK_FINISHED);

	return finished > 0 && now - finished > pool->task_keep_ms;
}

static size_t excess(const struct pool *pool, enum schema_class_id cls, size_t most)
{
	size_t count = db_count(pool->db, cls);

	return count > most ? count - most : 0;
}

/* Tasks come in order of creation, so the old ones come first, about. */
static unsigned prune_tasks(struct pool *pool, struct txn *t, int64_t now)
{
	size_t over = excess(pool, CLASS_TASK, RV_MAX_TASKS);
	const struct row *task = NULL;
	unsigned n = 0, seen = 0;

	while (n < PRUNE_BATCH && seen++ < PRUNE_SCAN &&
		(task = db_next(pool->db, CLASS_TASK, task))) {
		bool doomed = over > 0 && db_int(task, TASK_FINISHED) > 0;

		if (!doomed && !task_is_old(pool, task, now))
			continue;
		txn_delete(t, CLASS_TASK, row_uuid(task));
		over -= over > 0;
		n++;
	}
	return n;
}

/* The oldest go: what raises messages may do so for ever, unread. */
static unsigned prune_messages(struct pool *pool, struct txn *t)
{
	size_t over = excess(pool, CLASS_MESSAGE, RV_MAX_MESSAGES);
	const struct row *message = NULL;
	unsigned n = 0;

	while (n < over && n < PRUNE_BATCH &&
		(message = db_next(pool->db, CLASS_MESSAGE, message))) {
		txn_delete(t, CLASS_MESSAGE, row_uuid(message));
		n++;
	}
	return n;
}

static unsigned prune_collect(struct pool *pool, struct txn *t, int64_t now)
{
	return prune_tasks(pool, t, now) + prune_messages(pool, t);
}

static void prune(void *arg)
{
	struct pool *pool = arg;
	int64_t now = loop_wall_ms(pool->loop);
	struct rv_error e;
	struct txn t;

	timer_start_ms(&pool->prune, PRUNE_EVERY_MS);
	if (pool->prune_pending || !pool_is_master(pool))
		return;
	txn_init(&t, pool->db, now);
	if (prune_collect(pool, &t, now) == 0) {
		txn_fini(&t);
		return;
	}
	/* It makes room: let it use the last of the disk. */
	pool->prune_commit.essential = true;
	pool->prune_pending =
		pool_commit(pool, &pool->prune_commit, &t, prune_ended, &e) == 0;
}

/* --- life --- */

void pool_upkeep_init(struct pool *pool)
{
	timer_init(&pool->prune, pool->loop, "pool.prune", prune, pool);
	defer_init(&pool->hash_step, pool->loop, "pool.hash", hash_propose, pool);
}

void pool_upkeep_look(struct pool *pool)
{
	if (!pool->stopping && pool_is_master(pool) && !timer_active(&pool->prune))
		timer_start_ms(&pool->prune, PRUNE_FIRST_MS);
}

void pool_upkeep_stop(struct pool *pool)
{
	pool->stopping = true;
	timer_stop(&pool->prune);
	defer_stop(&pool->hash_step);
}
