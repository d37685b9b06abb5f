/* The shell around database and log: commits, waits, subscribers, upkeep, a full disk. */
#include "rig.h"

#include "pool/db/txn.h"
#include "pool/pool.h"

struct host {
	struct loop *loop;
	struct disk_sim_medium *medium;
	struct disk *disk;
	struct pool *pool;
	struct pool_config config;
	struct prng prng;
	bool opened, closed;
	int open_rc, changed;
};

static void host_opened(void *arg, int rc, const struct rv_error *e)
{
	struct host *h = arg;

	(void)e;
	h->opened = true;
	h->open_rc = rc;
}

static void host_changed(void *arg)
{
	((struct host *)arg)->changed++;
}

static void host_closed(void *arg)
{
	((struct host *)arg)->closed = true;
}

static const struct pool_events host_events = {
	.opened = host_opened, .changed = host_changed, .closed = host_closed};

static void host_run(struct host *h, int64_t ms)
{
	loop_sim_run_until(h->loop, loop_now_us(h->loop) + 1000 * ms);
}

static void host_open(struct host *h)
{
	struct rv_error e;

	h->opened = h->closed = false;
	assert_int_equal(disk_new_sim(&h->disk, h->loop, h->medium), 0);
	assert_int_equal(
		pool_open(&h->pool, h->loop, h->disk, &h->config, &host_events, h, &e),
		0);
	for (int i = 0; i < 5000 && !h->opened; i++)
		host_run(h, 1);
	assert_true(h->opened);
	assert_int_equal(h->open_rc, 0);
	assert_true(pool_is_master(h->pool));
}

static struct host *host_new(uint64_t seed)
{
	struct host *h = calloc(1, sizeof *h);

	assert_int_equal(loop_new_sim(&h->loop, seed), 0);
	assert_int_equal(disk_sim_medium_new(&h->medium, seed), 0);
	prng_seed(&h->prng, seed);
	h->config.log = (struct rlog_config){
		.id = 1,
		.address = "one",
		.bootstrap_count = 1,
		.bootstrap = {{.id = 1, .address = "one", .voter = true}},
		.segment_bytes = 16384,
		.reserve_bytes = 2048,
		.retry_ms = 100,
	};
	host_open(h);
	return h;
}

static void host_close(struct host *h)
{
	pool_close(h->pool);
	for (int i = 0; i < 8000 && !h->closed; i++)
		host_run(h, 1);
	assert_true(h->closed);
	pool_free(h->pool);
	disk_free(h->disk);
	h->pool = NULL;
}

static void host_crash(struct host *h)
{
	disk_sim_crash(h->medium);
	pool_free(h->pool);
	disk_free(h->disk);
	h->pool = NULL;
}

static void host_free(struct host *h)
{
	if (h->pool)
		host_close(h);
	disk_sim_medium_free(h->medium);
	loop_free(h->loop);
	free(h);
}

struct write {
	struct pool_commit c;
	bool done;
};

static void write_done(struct pool_commit *c)
{
	struct write *w = CONTAINER_OF(c, struct write, c);

	assert_false(w->done);
	w->done = true;
}

/* A task is the simplest object: its uuid is the request's. */
static int make_task(struct host *h, struct write *w, struct uuid uuid)
{
	struct rv_error e;
	struct txn t;

	memset(w, 0, sizeof *w);
	txn_init(&t, pool_db(h->pool), loop_wall_ms(h->loop));
	txn_expect_absent(&t, CLASS_TASK, uuid);
	txn_create(&t, CLASS_TASK, uuid);
	txn_set_string(&t, uuid, TASK_METHOD, "VM.start");
	return pool_commit(h->pool, &w->c, &t, write_done, &e);
}

static void finish_task(struct host *h, struct write *w, struct uuid uuid)
{
	struct rv_error e;
	struct txn t;

	memset(w, 0, sizeof *w);
	txn_init(&t, pool_db(h->pool), loop_wall_ms(h->loop));
	txn_set_enum(&t, uuid, TASK_STATUS, TASK_STATUS_SUCCESS);
	txn_set_time(&t, uuid, TASK_FINISHED, loop_wall_ms(h->loop));
	assert_int_equal(pool_commit(h->pool, &w->c, &t, write_done, &e), 0);
	host_run(h, 100);
	assert_true(w->done);
	assert_int_equal(w->c.rc, 0);
}

static void write_ok(struct host *h, struct uuid uuid)
{
	struct write w;

	assert_int_equal(make_task(h, &w, uuid), 0);
	for (int i = 0; i < 2000 && !w.done; i++)
		host_run(h, 1);
	assert_true(w.done);
	assert_int_equal(w.c.rc, 0);
}

static void test_commit(void **state)
{
	struct host *h = host_new(1);
	struct uuid a = uuid_random(&h->prng);
	struct write w, again;
	struct uuid found;

	(void)state;
	assert_int_equal(make_task(h, &w, a), 0);
	assert_false(w.done);
	assert_int_equal(make_task(h, &again, a), 0);
	host_run(h, 100);
	assert_true(w.done && again.done);
	assert_int_equal(w.c.rc, 0);
	assert_int_equal(w.c.seq, 1);
	assert_int_equal(again.c.rc, RV_ECONFLICT);
	assert_true(again.c.error.detail[0]);
	found = pool_request_lookup(h->pool, &a);
	assert_true(uuid_eq(&found, &a));
	host_crash(h);
	host_open(h);
	found = pool_request_lookup(h->pool, &a);
	assert_true(uuid_eq(&found, &a));
	assert_int_equal(pool_seq(h->pool), 2);
	host_free(h);
}

struct follower {
	struct pool_subscriber s;
	struct pool *pool;
	uint64_t seq;
	int calls, fresh;
	bool once;
};

static void follow(struct pool_subscriber *s, const struct db_result *r)
{
	struct follower *f = CONTAINER_OF(s, struct follower, s);

	if (r) {
		assert_true(r->seq > f->seq);
		f->seq = r->seq;
		assert_int_equal(pool_seq(f->pool), r->seq);
	} else {
		f->fresh++;
	}
	f->calls++;
	if (f->once)
		pool_unsubscribe(s);
}

static void test_subscribers(void **state)
{
	struct host *h = host_new(2);
	struct follower all = {.pool = h->pool}, once = {.pool = h->pool, .once = true};
	struct uuid task = uuid_random(&h->prng);
	struct value v = value_float(0.5);
	struct rv_error e;

	(void)state;
	pool_subscribe(h->pool, &once.s, follow);
	pool_subscribe(h->pool, &all.s, follow);
	write_ok(h, task);
	for (int i = 0; i < 9; i++)
		write_ok(h, uuid_random(&h->prng));
	assert_int_equal(all.calls, 10);
	assert_int_equal(once.calls, 1);
	/* Live fields are told, several at once. */
	assert_int_equal(pool_set_live(h->pool, task, TASK_PROGRESS, &v, &e), 0);
	v = value_float(0.75);
	assert_int_equal(pool_set_live(h->pool, task, TASK_PROGRESS, &v, &e), 0);
	assert_int_equal(all.fresh, 0);
	host_run(h, 1);
	assert_int_equal(all.fresh, 1);
	pool_unsubscribe(&all.s);
	host_free(h);
}

static int waited;

static void wait_ok(struct pool_wait *w, int rc)
{
	assert_int_equal(rc, 0);
	assert_true(pool_seq(w->pool) >= w->seq);
	waited++;
}

static void wait_late(struct pool_wait *w, int rc)
{
	(void)w;
	assert_int_equal(rc, RV_ETIMEDOUT);
	waited++;
}

static void barrier_ok(struct pool_barrier *b, int rc)
{
	(void)b;
	assert_int_equal(rc, 0);
	waited++;
}

static void test_waits(void **state)
{
	struct host *h = host_new(3);
	struct pool_wait two, never, now, cancelled;
	struct pool_barrier b;

	(void)state;
	waited = 0;
	pool_wait_seq(h->pool, &two, 2, 5000, wait_ok);
	pool_wait_seq(h->pool, &never, 100, 50, wait_late);
	pool_wait_seq(h->pool, &now, 0, 50, wait_ok);
	pool_wait_seq(h->pool, &cancelled, 1, 50, wait_late);
	pool_wait_cancel(&cancelled);
	pool_wait_cancel(&cancelled);
	assert_int_equal(waited, 0);
	host_run(h, 1);
	assert_int_equal(waited, 1);
	write_ok(h, uuid_random(&h->prng));
	write_ok(h, uuid_random(&h->prng));
	host_run(h, 100);
	assert_int_equal(waited, 3);
	assert_int_equal(pool_read_barrier(h->pool, &b, barrier_ok), 0);
	host_run(h, 100);
	assert_int_equal(waited, 4);
	host_free(h);
}

static void test_snapshot_and_hash(void **state)
{
	struct host *h = host_new(4);
	struct pool_status s;
	struct db_hash before, after;

	(void)state;
	host_close(h);
	h->config.hash_entries = 20;
	h->config.log.snapshot_entries = 60;
	host_open(h);
	for (int i = 0; i < 150; i++)
		write_ok(h, uuid_random(&h->prng));
	host_run(h, 500);
	pool_status(h->pool, &s);
	assert_true(s.log.snapshot_index > 0);
	assert_true(s.db_hash_seq >= 100);
	assert_false(s.db_differs);
	assert_false(s.read_only);
	assert_int_equal(s.seq, 150);
	before = db_hash(pool_db(h->pool));
	host_crash(h);
	host_open(h);
	after = db_hash(pool_db(h->pool));
	assert_memory_equal(&before, &after, sizeof before);
	assert_int_equal(db_count(pool_db(h->pool), CLASS_TASK), 150);
	host_free(h);
}

static void test_prunes_tasks(void **state)
{
	struct host *h = host_new(5);
	struct uuid done = uuid_random(&h->prng), running = uuid_random(&h->prng);
	struct uuid found;
	struct write w;

	(void)state;
	write_ok(h, done);
	write_ok(h, running);
	finish_task(h, &w, done);
	/* Kept for a day. */
	host_run(h, 23 * 3600 * INT64_C(1000));
	found = pool_request_lookup(h->pool, &done);
	assert_true(uuid_eq(&found, &done));
	host_run(h, 2 * 3600 * INT64_C(1000));
	found = pool_request_lookup(h->pool, &done);
	assert_true(uuid_is_none(&found));
	found = pool_request_lookup(h->pool, &running);
	assert_true(uuid_eq(&found, &running));
	host_free(h);
}

static void messages_done(struct pool_commit *c)
{
	assert_int_equal(c->rc, 0);
}

/* The newest are kept, however many were raised. */
static void test_prunes_messages(void **state)
{
	struct host *h = host_new(6);
	const struct db *db = pool_db(h->pool);
	struct uuid last = {{0}};

	(void)state;
	for (int entry = 0; entry < 11; entry++) {
		struct pool_commit commit = {0};
		struct rv_error e;
		struct txn t;

		txn_init(&t, db, 1);
		for (int i = 0; i < 1000; i++) {
			last = uuid_random(&h->prng);
			txn_create(&t, CLASS_MESSAGE, last);
		}
		assert_int_equal(pool_commit(h->pool, &commit, &t, messages_done, &e), 0);
		host_run(h, 100);
	}
	host_run(h, 120 * 1000);
	assert_int_equal(db_count(db, CLASS_MESSAGE), RV_MAX_MESSAGES);
	assert_non_null(db_row(db, CLASS_MESSAGE, last));
	host_free(h);
}

/* A disk that fills up at any byte: each change is done or truthfully refused, reads go
 * on, and so do writes when there is space again. */
static void full_at(uint64_t left)
{
	struct host *h = host_new(left + 1);
	struct uuid uuids[64];
	struct write w[64];
	bool there[64];
	struct pool_status s;
	int refused = 0, full = 0;

	disk_sim_set_capacity(h->medium, disk_sim_used(h->medium) + left);
	for (int i = 0; i < 64; i++) {
		uuids[i] = uuid_random(&h->prng);
		there[i] = false;
		if (make_task(h, &w[i], uuids[i])) {
			refused++;
			continue;
		}
		for (int n = 0; n < 8000 && !w[i].done; n++)
			host_run(h, 1);
		assert_true(w[i].done);
		there[i] = w[i].c.rc == 0;
		full += w[i].c.rc == RV_ESPACE;
		assert_true(w[i].c.rc == 0 || w[i].c.rc == RV_ESPACE);
		assert_int_equal(
			!!db_row(pool_db(h->pool), CLASS_TASK, uuids[i]), there[i]);
	}
	if (refused || full) {
		pool_status(h->pool, &s);
		assert_true(s.read_only);
		assert_true(s.why[0]);
	}
	disk_sim_set_capacity(h->medium, UINT64_MAX);
	host_run(h, 5000);
	assert_true(pool_is_master(h->pool));
	write_ok(h, uuid_random(&h->prng));
	host_crash(h);
	host_open(h);
	for (int i = 0; i < 64; i++)
		assert_int_equal(
			!!db_row(pool_db(h->pool), CLASS_TASK, uuids[i]), there[i]);
	host_free(h);
}

static void test_full_disk(void **state)
{
	(void)state;
	for (uint64_t left = 0; left < 40000; left += 1111)
		full_at(left);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_commit),
		cmocka_unit_test(test_subscribers),
		cmocka_unit_test(test_waits),
		cmocka_unit_test(test_snapshot_and_hash),
		cmocka_unit_test(test_prunes_tasks),
		cmocka_unit_test(test_prunes_messages),
		cmocka_unit_test(test_full_disk),
	};

	log_setup(LOG_ERROR + 1, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
