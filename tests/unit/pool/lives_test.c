/*
 * A pool whose quorum was declared lost goes on from one host's log as a new generation;
 * then those come back that went on by themselves. Whatever they had beyond the common
 * part is thrown away, whenever they are made what again.
 */
#include "pool/pool.h"

#include "net.h"

/* Founder of the pool, whom the new generation begins with, another. */
enum { OLD = 0, NEW = 1, THIRD = 2 };

static void wait_for(struct net *n, struct host *h)
{
	for (int i = 0; i < 20000 && !pool_is_master(h->pool); i++)
		run_ms(n, 1);
	assert_true(pool_is_master(h->pool));
}

static void make(struct net *n, int from, int count)
{
	for (int i = 0; i < count; i++) {
		struct trial c;

		assert_int_equal(change_start(n, from, &c, NULL, false), 0);
		for (int ms = 0; ms < 20000 && !c.ended; ms++)
			run_ms(n, 1);
		assert_true(c.ended && c.rc == 0);
	}
}

static struct uuid pool_uuid;

static void begin_generation(struct net *n, int from, int64_t number)
{
	struct pool *pool = n->hosts[from].pool;
	struct trial c = {0};
	struct rv_error e;
	struct txn t;

	txn_init(&t, pool_db(pool), 1);
	if (number == 1)
		txn_create(&t, CLASS_POOL, pool_uuid);
	txn_set_int(&t, pool_uuid, POOL_GENERATION_NUMBER, number);
	txn_set_ref(&t, pool_uuid, POOL_GENERATION_ID, uuid_random(loop_prng(n->loop)));
	assert_int_equal(pool_commit(pool, &c.commit, &t, on_committed, &e), 0);
	for (int ms = 0; ms < 20000 && !c.ended; ms++)
		run_ms(n, 1);
	assert_true(c.ended && c.rc == 0);
}

static void add(struct net *n, int from, int host, uint64_t id, int *rc)
{
	struct rv_error e;

	*rc = 1;
	assert_int_equal(pool_member_add(n->hosts[from].pool, id, &n->hosts[host].uuid,
				 on_added, rc, &e),
		0);
}

/* A founder and two that joined; `standby`: the second is in raft's configuration. */
static void begin(struct net *n, uint64_t seed, bool standby)
{
	int rc;

	memset(n, 0, sizeof *n);
	assert_int_equal(loop_new_sim(&n->loop, seed), 0);
	pool_uuid = uuid_random(loop_prng(n->loop));
	for (int i = 0; i < HOSTS; i++) {
		struct host *h = &n->hosts[i];

		h->net = n;
		h->index = i;
		h->adopts = true;
		h->messenger.ops = &messenger_ops;
		h->uuid = uuid_random(loop_prng(n->loop));
		assert_int_equal(disk_sim_medium_new(&h->medium, seed + (uint64_t)i), 0);
	}
	for (int i = 0; i < HOSTS; i++)
		host_open(&n->hosts[i]);
	link_set(n, OLD, NEW, true);
	link_set(n, OLD, THIRD, true);
	link_set(n, NEW, THIRD, true);
	wait_for(n, &n->hosts[OLD]);
	begin_generation(n, OLD, 1);
	make(n, OLD, 3);
	if (standby) {
		add(n, OLD, NEW, 2, &rc);
		run_ms(n, 2000);
		assert_int_equal(rc, 0);
	}
	make(n, OLD, 3);
	run_ms(n, 1000);
}

static bool same(const struct net *n, int a, int b)
{
	struct db_hash x = db_hash(pool_db(n->hosts[a].pool)),
		       y = db_hash(pool_db(n->hosts[b].pool));

	return pool_seq(n->hosts[a].pool) == pool_seq(n->hosts[b].pool) &&
	       memcmp(&x, &y, sizeof x) == 0;
}

/* The new generation begins while the former master goes on alone. */
static void split(struct net *n, int old_writes, int new_writes)
{
	link_set(n, OLD, NEW, false);
	link_set(n, OLD, THIRD, false);
	make(n, OLD, old_writes);
	host_crash(&n->hosts[NEW]);
	n->hosts[NEW].refounded = 2;
	host_open(&n->hosts[NEW]);
	wait_for(n, &n->hosts[NEW]);
	link_set(n, NEW, THIRD, true);
	begin_generation(n, NEW, 2);
	n->hosts[NEW].refounded = 0;
	make(n, NEW, new_writes);
}

/* The former master comes back, and is given a place among the servers at any moment. */
static void test_master_returns(void **state)
{
	(void)state;
	for (int ms = 0; ms < 400; ms += 7) {
		struct net n;
		int rc;

		begin(&n, 300 + (uint64_t)ms, ms % 2 == 0);
		split(&n, 12, 3 + ms % 5);
		if (ms % 3 == 0) {
			host_crash(&n.hosts[OLD]);
			host_open(&n.hosts[OLD]);
			run_ms(&n, 500);
		}
		link_set(&n, OLD, NEW, true);
		link_set(&n, OLD, THIRD, true);
		run_ms(&n, ms);
		add(&n, NEW, OLD, 101, &rc);
		run_ms(&n, 20000);
		assert_int_equal(rc, 0);
		make(&n, NEW, 2);
		run_ms(&n, 2000);
		if (!same(&n, OLD, NEW))
			fail_msg("after %d ms: the former master does not follow", ms);
		assert_true(same(&n, THIRD, NEW));
		net_close(&n);
	}
}

/* The former life's log has nothing to say to servers of the new one, whatever terms it
 * comes to. */
static void test_former_life_is_not_heard(void **state)
{
	struct rlog_status before, after;
	struct net n;
	int rc;

	(void)state;
	begin(&n, 900, true);
	add(&n, OLD, THIRD, 3, &rc);
	run_ms(&n, 2000);
	assert_int_equal(rc, 0);
	split(&n, 12, 5);
	run_ms(&n, 1000);
	add(&n, NEW, THIRD, 101, &rc);
	run_ms(&n, 3000);
	assert_int_equal(rc, 0);
	for (int i = 0; i < 8; i++) { /* a new term with each start */
		host_crash(&n.hosts[OLD]);
		host_open(&n.hosts[OLD]);
		wait_for(&n, &n.hosts[OLD]);
	}
	rlog_status(pool_log(n.hosts[THIRD].pool), &before);
	/* Nobody tells it of the new generation: this host does not lead. */
	link_set(&n, OLD, THIRD, true);
	make(&n, OLD, 5);
	make(&n, NEW, 3);
	run_ms(&n, 2000);
	rlog_status(pool_log(n.hosts[THIRD].pool), &after);
	assert_int_equal(after.term, before.term);
	assert_int_equal(after.id, 101);
	/* Nor the other way round. */
	rlog_status(pool_log(n.hosts[OLD].pool), &after);
	assert_true(after.term < before.term && pool_is_master(n.hosts[OLD].pool));
	assert_true(same(&n, THIRD, NEW));
	assert_true(pool_is_master(n.hosts[NEW].pool));
	link_set(&n, OLD, NEW, true);
	run_ms(&n, 5000);
	assert_true(same(&n, OLD, NEW));
	net_close(&n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_master_returns),
		cmocka_unit_test(test_former_life_is_not_heard),
	};

	log_setup(getenv("REEVE_LOUD") ? LOG_DEBUG : LOG_ERROR + 1, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
