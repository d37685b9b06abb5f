#include "pool/pool.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "pool/db/snapshot.h"
#include "pool/pool_internal.h"

enum {
	DEFAULT_HASH_ENTRIES = 4096,
	FREE_SLICE_ROWS = 2000,
};

static const int64_t DEFAULT_TASK_KEEP_MS = 24 * 3600 * INT64_C(1000);

/* --- the state machine --- */

static void tell_subscribers(struct pool *pool, const struct db_result *r)
{
	struct list turn;

	/* One that unsubscribes, itself or another, does no harm. */
	list_init(&turn);
	while (!list_empty(&pool->subscribers)) {
		struct list *node = pool->subscribers.next;

		list_remove(node);
		list_push_back(&turn, node);
	}
	while (!list_empty(&turn)) {
		struct pool_subscriber *s =
			CONTAINER_OF(turn.next, struct pool_subscriber, node);

		list_remove(&s->node);
		list_push_back(&pool->subscribers, &s->node);
		s->fn(s, r);
	}
}

static void wake_waiters(struct pool *pool)
{
	uint64_t seq = db_seq(pool->db);

	LIST_FOR_EACH (node, &pool->waits) {
		struct pool_wait *w = CONTAINER_OF(node, struct pool_wait, node);

		if (w->seq <= seq)
			timer_start_us(&w->timer, 0);
	}
}

static int apply_txn(struct pool *pool, const uint8_t *bytes, size_t len, uint64_t index)
{
	struct db_result *r = &pool->result;
	int rc = db_apply(pool->db, bytes, len, r);

	pool->result_index = index;
	if (rc)
		return rc;
	pool_hash_note(pool);
	if (!r->verdict.code && r->changed > 0)
		tell_subscribers(pool, r);
	wake_waiters(pool);
	return 0;
}

static int fsm_apply(void *arg, uint8_t kind, const uint8_t *bytes, size_t len,
	uint64_t index, uint64_t term)
{
	struct pool *pool = arg;

	(void)term;
	switch (kind) {
	case POOL_ENTRY_TXN:
		return apply_txn(pool, bytes, len, index);
	case POOL_ENTRY_HASH:
		pool_hash_check(pool, bytes, len);
		return 0;
	default: /* made by a newer daemon */
		return RV_EUNSUPPORTED;
	}
}

static int fsm_snapshot_begin(void *arg)
{
	struct pool *pool = arg;

	pool->encoder = snapshot_encoder_new(pool->db);
	return pool->encoder ? 0 : RV_ENOMEM;
}

static int fsm_snapshot_next(void *arg, struct buf *out, bool *done)
{
	struct pool *pool = arg;
	int rc = snapshot_encode(pool->encoder, out);

	*done = rc == 0;
	return rc == RV_EAGAIN ? 0 : rc;
}

static void fsm_snapshot_end(void *arg)
{
	struct pool *pool = arg;

	snapshot_encoder_free(pool->encoder);
	pool->encoder = NULL;
}

static int fsm_restore_begin(void *arg)
{
	struct pool *pool = arg;

	pool->decoder = snapshot_decoder_new(prng_next(loop_prng(pool->loop)));
	return pool->decoder ? 0 : RV_ENOMEM;
}

static int fsm_restore_next(
	void *arg, const uint8_t *bytes, size_t len, struct rv_error *e)
{
	struct pool *pool = arg;

	return snapshot_decode(pool->decoder, bytes, len, e);
}

static int fsm_restore_finish(void *arg, struct rv_error *e)
{
	struct pool *pool = arg;

	return snapshot_decode_finish(pool->decoder, &pool->restored, e);
}

static void free_some(void *arg)
{
	struct pool *pool = arg;

	if (db_free_some(pool->old, FREE_SLICE_ROWS))
		pool->old = NULL;
	else
		defer_start(&pool->free_old);
}

static void free_later(struct pool *pool, struct db *db)
{
	if (pool->old)
		db_free(pool->old); /* the one before is still on its way out */
	pool->old = db;
	defer_start(&pool->free_old);
}

static void fsm_restore_end(void *arg, bool commit, uint64_t index, uint64_t term)
{
	struct pool *pool = arg;

	(void)index;
	(void)term;
	snapshot_decoder_free(pool->decoder);
	pool->decoder = NULL;
	if (pool->restored && commit) {
		db_swap(pool->db, pool->restored);
		pool_hash_forget(pool);
		if (pool->remote)
			remote_ask_live(pool->remote);
		tell_subscribers(pool, NULL);
		wake_waiters(pool);
	}
	if (pool->restored)
		free_later(pool, pool->restored);
	pool->restored = NULL;
}

static void fsm_generation(void *arg, struct rlog_generation *out)
{
	const struct row *row = db_pool(((struct pool *)arg)->db);

	if (!row)
		return;
	out->number = (uint64_t)db_int(row, POOL_GENERATION_NUMBER);
	out->id = db_ref(row, POOL_GENERATION_ID);
}

static const struct rlog_fsm pool_fsm = {
	.apply = fsm_apply,
	.snapshot_begin = fsm_snapshot_begin,
	.snapshot_next = fsm_snapshot_next,
	.snapshot_end = fsm_snapshot_end,
	.restore_begin = fsm_restore_begin,
	.restore_next = fsm_restore_next,
	.restore_finish = fsm_restore_finish,
	.restore_end = fsm_restore_end,
	.generation = fsm_generation,
};

/* --- the log's events --- */

static void log_changed(void *arg)
{
	struct pool *pool = arg;

	pool_upkeep_look(pool);
	if (pool->remote)
		remote_look(pool->remote);
	pool->events->changed(pool->arg);
}

static void log_opened(void *arg, int rc, const struct rv_error *e)
{
	struct pool *pool = arg;

	if (!rc)
		pool_upkeep_look(pool);
	pool->events->opened(pool->arg, rc, e);
}

static void log_stopped(void *arg)
{
	struct pool *pool = arg;

	pool->events->closed(pool->arg);
}

static const struct rlog_events pool_log_events = {
	.changed = log_changed,
	.opened = log_opened,
	.stopped = log_stopped,
};

/* --- opening and closing --- */

static void tell_live(void *arg)
{
	tell_subscribers(arg, NULL);
}

int pool_open(struct pool **out, struct loop *l, struct disk *disk,
	const struct pool_config *config, const struct pool_events *events, void *arg,
	struct rv_error *e)
{
	struct pool *pool = calloc(1, sizeof *pool);
	struct rlog_transport *transport = config->transport;
	struct rlog_config log = config->log;
	int rc = 0;

	if (!pool)
		return rv_error_set(e, RV_ENOMEM, "open the pool: out of memory");
	log.messenger = config->messenger;
	log.self = config->self;
	pool->loop = l;
	pool->disk = disk;
	pool->events = events;
	pool->arg = arg;
	pool->hash_entries =
		config->hash_entries ? config->hash_entries : DEFAULT_HASH_ENTRIES;
	pool->task_keep_ms =
		config->task_keep_ms ? config->task_keep_ms : DEFAULT_TASK_KEEP_MS;
	list_init(&pool->subscribers);
	list_init(&pool->waits);
	list_init(&pool->settling);
	defer_init(&pool->free_old, l, "pool.free", free_some, pool);
	defer_init(&pool->live, l, "pool.live", tell_live, pool);
	pool_upkeep_init(pool);
	pool->db = db_new(prng_next(loop_prng(l)));
	if (!pool->db)
		rc = rv_error_set(e, RV_ENOMEM, "open the pool: out of memory");
	if (!rc && config->messenger) {
		pool->self = config->self;
		rc = remote_new(&pool->remote, pool, config->messenger, config->self,
			prng_next(loop_prng(l)));
		if (rc)
			rv_error_set(e, rc, "open the pool: out of memory");
		else
			transport = remote_transport(pool->remote);
	}
	if (!rc)
		rc = rlog_open(&pool->log, l, disk, transport, &log, &pool_fsm,
			&pool_log_events, pool, e);
	if (rc) {
		pool_free(pool);
		return rc;
	}
	*out = pool;
	return 0;
}

void pool_close(struct pool *pool)
{
	pool_upkeep_stop(pool);
	rlog_stop(pool->log);
}

void pool_free(struct pool *pool)
{
	if (!pool)
		return;
	pool->freeing = true;
	pool_upkeep_stop(pool);
	rlog_free(pool->log);
	remote_free(pool->remote);
	pool_settle_stop(pool);
	defer_stop(&pool->free_old);
	defer_stop(&pool->live);
	while (!list_empty(&pool->waits))
		pool_wait_cancel(CONTAINER_OF(pool->waits.next, struct pool_wait, node));
	while (!list_empty(&pool->subscribers))
		list_remove(pool->subscribers.next);
	db_free(pool->old);
	db_free(pool->db);
	free(pool->hashes);
	free(pool);
}

/* --- reading --- */

const struct db *pool_db(const struct pool *pool)
{
	return pool->db;
}

uint64_t pool_seq(const struct pool *pool)
{
	return db_seq(pool->db);
}

static void wait_over(void *arg)
{
	struct pool_wait *w = arg;
	int rc = w->seq <= db_seq(w->pool->db) ? 0 : RV_ETIMEDOUT;

	list_remove(&w->node);
	w->fn(w, rc);
}

void pool_wait_seq(struct pool *pool, struct pool_wait *w, uint64_t seq,
	int64_t timeout_ms, void (*fn)(struct pool_wait *w, int rc))
{
	w->pool = pool;
	w->seq = seq;
	w->fn = fn;
	list_init(&w->node);
	list_push_back(&pool->waits, &w->node);
	timer_init(&w->timer, pool->loop, "pool.wait", wait_over, w);
	timer_start_ms(&w->timer, seq <= db_seq(pool->db) ? 0 : timeout_ms);
}

void pool_wait_cancel(struct pool_wait *w)
{
	timer_stop(&w->timer);
	list_remove(&w->node);
}

int pool_set_live(struct pool *pool, struct uuid uuid, enum schema_field_id field,
	const struct value *v, struct rv_error *e)
{
	const struct row *row = db_row(pool->db, schema_field(field)->cls, uuid);
	bool changed = !row || !value_eq(row_value(row, field), v);
	int rc = db_set_live(pool->db, uuid, field, v, e);

	if (!rc && changed)
		defer_start(&pool->live);
	if (!rc && pool->remote)
		remote_live(pool->remote, &uuid, field, changed);
	return rc;
}

struct uuid pool_request_lookup(const struct pool *pool, const struct uuid *request)
{
	/* A task's uuid is its request's. */
	return db_row(pool->db, CLASS_TASK, *request) ? *request : UUID_NONE;
}

/* --- following --- */

void pool_subscribe(struct pool *pool, struct pool_subscriber *s,
	void (*fn)(struct pool_subscriber *s, const struct db_result *r))
{
	s->fn = fn;
	list_init(&s->node);
	list_push_back(&pool->subscribers, &s->node);
}

void pool_unsubscribe(struct pool_subscriber *s)
{
	list_remove(&s->node);
}

/* --- master and state --- */

struct uuid pool_master(const struct pool *pool)
{
	struct rlog_status s;
	struct uuid host;

	if (!pool->remote)
		return pool_is_master(pool) ? pool->self : UUID_NONE;
	rlog_status(pool->log, &s);
	return uuid_parse(&host, s.leader_address, strlen(s.leader_address)) ? UUID_NONE
									     : host;
}

void pool_peer_up(struct pool *pool, const struct uuid *host)
{
	remote_peer_up(pool->remote, host);
	rlog_peer_up(pool->log, host);
}

void pool_peer_down(struct pool *pool, const struct uuid *host)
{
	remote_peer_down(pool->remote, host);
	rlog_peer_down(pool->log, host);
}

void pool_deliver(struct pool *pool, const struct uuid *from, enum pool_message type,
	const uint8_t *bytes, size_t len)
{
	switch (type) {
	case POOL_MESSAGE_LEARN:
	case POOL_MESSAGE_FEED:
	case POOL_MESSAGE_PLACE:
		rlog_deliver(pool->log, from, type, bytes, len);
		break;
	default:
		remote_deliver(pool->remote, from, type, bytes, len);
	}
}

int pool_member_add(struct pool *pool, uint64_t id, const struct uuid *host,
	rlog_change_fn *fn, void *arg, struct rv_error *e)
{
	char address[UUID_TEXT_SIZE];

	return rlog_add(pool->log, id, uuid_format(host, address), fn, arg, e);
}

int pool_member_remove(
	struct pool *pool, uint64_t id, rlog_change_fn *fn, void *arg, struct rv_error *e)
{
	return rlog_remove(pool->log, id, fn, arg, e);
}

bool pool_clash_words(const struct pool *pool, char words[static POOL_CLASH_WORDS])
{
	char text[UUID_TEXT_SIZE];
	const struct row *row;
	struct uuid host;

	if (!rlog_clash(pool->log, &host))
		return false;
	row = db_row(pool->db, CLASS_HOST, host);
	snprintf(words, POOL_CLASH_WORDS,
		"host %.64s is of another life of this pool with the same generation "
		"number, %" PRId64 ": no change is taken on either side. Decide which "
		"side is to be kept and say pool-emergency-transition-to-master to its "
		"master: it goes on, the other side discards what it has and follows",
		row ? row_name(row) : uuid_format(&host, text),
		db_int(db_pool(pool->db), POOL_GENERATION_NUMBER));
	return true;
}

bool pool_can_commit(const struct pool *pool)
{
	return !rlog_clash(pool->log, NULL) &&
	       (pool_is_master(pool) || (pool->remote && remote_is_ready(pool->remote)));
}

bool pool_takes_changes(const struct pool *pool)
{
	return pool->remote || pool_is_master(pool);
}

int64_t pool_age_ms(const struct pool *pool)
{
	int64_t fresh_us = rlog_fresh_us(pool->log);

	return fresh_us ? (loop_now_us(pool->loop) - fresh_us) / 1000 : -1;
}

bool pool_is_master(const struct pool *pool)
{
	return rlog_is_leader(pool->log);
}

int pool_designate(struct pool *pool, uint64_t server_id, rlog_transfer_fn *fn, void *arg,
	struct rv_error *e)
{
	return rlog_transfer(pool->log, server_id, fn, arg, e);
}

struct rlog *pool_log(struct pool *pool)
{
	return pool->log;
}

static void say_why(const struct pool *pool, struct pool_status *out)
{
	const struct rlog_status *l = &out->log;

	out->read_only = true;
	out->clash = pool_clash_words(pool, out->why);
	if (out->clash)
		return;
	if (l->error.code)
		snprintf(out->why, sizeof out->why, "%.*s", (int)sizeof out->why - 1,
			l->error.detail);
	else if (l->low_space)
		snprintf(out->why, sizeof out->why, "the disk is full");
	else if (!out->master)
		snprintf(out->why, sizeof out->why, "this host is not the master");
	else
		out->read_only = false;
}

void pool_status(const struct pool *pool, struct pool_status *out)
{
	*out = (struct pool_status){
		.master = pool_is_master(pool),
		.seq = db_seq(pool->db),
		.db_hash_seq = pool->hash_agreed_seq,
		.db_differs = pool->hash_differs,
		.commits = pool->commits,
		.conflicts = pool->conflicts,
	};
	rlog_status(pool->log, &out->log);
	LIST_FOR_EACH (node, &pool->subscribers)
		out->subscribers++;
	say_why(pool, out);
}

void pool_snapshot(struct pool *pool)
{
	rlog_snapshot(pool->log);
}
