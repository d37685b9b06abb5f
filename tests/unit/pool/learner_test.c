/*
 * Learners, one thing at a time: far behind, after a crash, with another voter, up to a
 * voter and down again. What befalls them by chance: learner_seeds_test.c.
 */
#include "pool/rlog.h"

#include "base/log.h"
#include "learner_net.h"
#include "reactor/worker.h"

enum { BULK = 100000 };

static void write_many(struct net *net, uint64_t count)
{
	uint64_t until = net->acked + count;

	for (int i = 0; i < 400000 && net->acked < until; i++) {
		write_some(net, WRITES);
		loop_sim_run_until(net->loop, loop_now_us(net->loop) + 500);
	}
	assert_true(net->acked >= until);
}

/* 100,000 entries behind: commits go on as fast as without it. */
static void far_behind(uint64_t snapshot_entries)
{
	struct net *net = net_new(7, 1, snapshot_entries);
	struct rlog_status s;
	int64_t alone;

	node_up(&net->nodes[0]);
	run_ms(net, 1000);
	write_many(net, BULK);
	alone = net->slowest_us;
	net->slowest_us = 0;
	node_up(&net->nodes[1]);
	for (int i = 0; i < 20000; i++) {
		write_some(net, WRITES);
		run_ms(net, 1);
		if (i > 100 && net->nodes[1].machine.count + 4 * WRITES > net->count)
			break;
	}
	rlog_status(net->nodes[1].log, &s);
	assert_true(s.learner);
	assert_true(net->nodes[1].machine.count + 4 * WRITES > net->count);
	/* The slowest of 100,000 alone had its snapshots and new segments too. */
	assert_true(net->slowest_us <= 2 * alone);
	/* It keeps up, and is acknowledged as stored. */
	for (int i = 0; i < 100; i++)
		run_ms(net, 10);
	assert_int_equal(net->nodes[1].machine.count, net->count);
	{
		uint64_t stored = 0;

		assert_true(rlog_learner_stored(
			net->nodes[0].log, &net->nodes[1].uuid, &stored));
		rlog_status(net->nodes[1].log, &s);
		assert_int_equal(stored, s.applied_index);
		assert_int_equal(s.behind, 0);
	}
	net_free(net);
}

static void test_far_behind_entries(void **state)
{
	(void)state;
	far_behind(1 << 20);
}

static void test_far_behind_snapshot(void **state)
{
	(void)state;
	far_behind(16384);
}

/* What it holds is there again after a crash, before any voter says a word. */
static void test_resumes(void **state)
{
	struct net *net = net_new(11, 1, 1 << 20);
	uint64_t held;

	(void)state;
	for (int i = 0; i < 2; i++)
		node_up(&net->nodes[i]);
	run_ms(net, 1000);
	write_many(net, 500);
	run_ms(net, 1000);
	held = net->nodes[1].machine.count;
	assert_int_equal(held, net->count);
	node_crash(&net->nodes[0]);
	node_crash(&net->nodes[1]);
	node_up(&net->nodes[1]);
	run_ms(net, 1000);
	assert_true(net->nodes[1].opened);
	assert_int_equal(net->nodes[1].machine.count, held);
	node_up(&net->nodes[0]);
	run_ms(net, 3000);
	write_many(net, 50);
	run_ms(net, 1000);
	assert_int_equal(net->nodes[1].machine.count, net->count);
	net_free(net);
}

static void wait_change(struct net *net, int rc)
{
	assert_int_equal(rc, 0);
	run_ms(net, 3000);
}

static void on_transfer(void *arg, int rc)
{
	(void)arg;
	assert_int_equal(rc, 0);
}

/* The log's founder is a learner like any other: it doesn't found it again. */
static void test_founder_learns(void **state)
{
	struct net *net = net_new(14, 1, 1 << 20);
	struct rlog *first, *second;
	char address[UUID_TEXT_SIZE];
	struct rlog_status s;
	struct rv_error e;
	uint64_t held;

	(void)state;
	for (int i = 0; i < 2; i++)
		node_up(&net->nodes[i]);
	run_ms(net, 1000);
	first = net->nodes[0].log;
	second = net->nodes[1].log;
	uuid_format(&net->nodes[1].uuid, address);
	wait_change(net, rlog_add(first, 20, address, on_change, net, &e));
	wait_change(net, rlog_assign(first, 20, true, on_change, net, &e));
	wait_change(net, rlog_transfer(first, 20, on_transfer, net, &e));
	wait_change(net, rlog_assign(second, 1, false, on_change, net, &e));
	wait_change(net, rlog_remove(second, 1, on_change, net, &e));
	rlog_status(first, &s);
	assert_true(s.learner);
	write_many(net, 100);
	run_ms(net, 2000);
	held = net->nodes[0].machine.count;
	assert_int_equal(held, net->count);
	node_crash(&net->nodes[1]);
	node_crash(&net->nodes[0]);
	node_up(&net->nodes[0]);
	run_ms(net, 2000);
	assert_int_equal(net->nodes[0].machine.count, held);
	node_up(&net->nodes[1]);
	run_ms(net, 3000);
	write_many(net, 10);
	run_ms(net, 1000);
	assert_int_equal(net->nodes[0].machine.count, net->count);
	net_free(net);
}

/* A standby for so short a time that it got no entry: its state is kept as it came. */
static void test_short_standby(void **state)
{
	struct net *net = net_new(15, 1, 1 << 20);
	struct node *n = &net->nodes[1];
	char address[UUID_TEXT_SIZE];
	struct rlog_status s;
	struct rv_error e;
	uint64_t held;

	(void)state;
	for (int i = 0; i < 2; i++)
		node_up(&net->nodes[i]);
	run_ms(net, 1000);
	write_many(net, 100);
	run_ms(net, 1000);
	held = n->machine.count;
	uuid_format(&n->uuid, address);
	assert_int_equal(rlog_add(net->nodes[0].log, 30, address, on_change, net, &e), 0);
	/* Its place arrives, the entries that follow do not. */
	net->no_raft = true;
	run_ms(net, 100);
	rlog_status(n->log, &s);
	assert_int_equal(s.id, 30);
	assert_int_equal(rlog_remove(net->nodes[0].log, 30, on_change, net, &e), 0);
	run_ms(net, 1000);
	net->no_raft = false;
	rlog_status(n->log, &s);
	assert_true(s.learner);
	node_crash(&net->nodes[0]);
	node_crash(n);
	node_up(n);
	run_ms(net, 2000);
	assert_int_equal(n->machine.count, held);
	net_free(net);
}

/* Whenever the leader dies while it adds a server: that is added or is not. */
static void test_added_in_two_steps(void **state)
{
	unsigned added = 0, spare = 0;

	(void)state;
	for (int steps = 0; steps < 40; steps++) {
		struct net *net = net_new(16, 1, 1 << 20);
		struct rlog_member m[4];
		char address[UUID_TEXT_SIZE];
		struct rlog_status s;
		struct rv_error e;

		for (int i = 0; i < 2; i++)
			node_up(&net->nodes[i]);
		run_ms(net, 1000);
		uuid_format(&net->nodes[1].uuid, address);
		assert_int_equal(
			rlog_add(net->nodes[0].log, 40, address, on_change, net, &e), 0);
		for (int i = 0; i < steps; i++)
			assert_true(loop_sim_step(net->loop));
		if (rlog_members(net->nodes[0].log, m, 4) == 2)
			spare += !m[1].standby;
		node_crash(&net->nodes[0]);
		node_up(&net->nodes[0]);
		run_ms(net, 4000);
		rlog_status(net->nodes[1].log, &s);
		if (rlog_members(net->nodes[0].log, m, 4) == 2) {
			assert_true(m[1].standby);
			assert_int_equal(s.id, 40);
			added++;
		} else {
			assert_true(s.learner);
		}
		net_free(net);
	}
	assert_true(added > 0 && added < 40 && spare > 0);
}

/* What it holds is replaced by something no older, though the voter's last snapshot is.
 */
static void test_discards(void **state)
{
	struct net *net = net_new(12, 1, 1 << 20);

	(void)state;
	for (int i = 0; i < 2; i++)
		node_up(&net->nodes[i]);
	run_ms(net, 1000);
	write_many(net, 100);
	rlog_snapshot(net->nodes[0].log);
	run_ms(net, 1000);
	write_many(net, 50);
	run_ms(net, 1000);
	assert_int_equal(net->nodes[1].machine.count, net->count);
	total.restored = 0;
	rlog_discard(net->nodes[1].log);
	run_ms(net, 10000);
	assert_int_equal(total.restored, 1);
	write_many(net, 10);
	run_ms(net, 1000);
	assert_int_equal(net->nodes[1].machine.count, net->count);
	net_free(net);
}

/* A voter dies: its learner asks another. */
static void test_other_voter(void **state)
{
	struct net *net = net_new(13, 3, 1 << 20);
	struct uuid former;
	struct rlog_status s;

	(void)state;
	for (int i = 0; i < 4; i++)
		node_up(&net->nodes[i]);
	run_ms(net, 3000);
	write_many(net, 100);
	rlog_status(net->nodes[3].log, &s);
	former = s.feeder;
	assert_false(uuid_is_none(&former));
	for (int i = 0; i < 3; i++)
		if (uuid_eq(&net->nodes[i].uuid, &former))
			node_crash(&net->nodes[i]);
	run_ms(net, 4000);
	write_many(net, 100);
	run_ms(net, 1000);
	rlog_status(net->nodes[3].log, &s);
	assert_false(uuid_is_none(&s.feeder));
	assert_false(uuid_eq(&s.feeder, &former));
	assert_int_equal(net->nodes[3].machine.count, net->count);
	net_free(net);
}

/* While its disk is slow it loses its voter, and asks anew: what it says it has is on its
 * disk, and not on the way there. */
static void test_tells_what_is_stored(void **state)
{
	struct net *net = net_new(18, 1, 1 << 20);
	struct node *n = &net->nodes[1];
	struct rlog_status s;
	uint64_t told = 0, most = 0;
	int64_t until;

	(void)state;
	for (int i = 0; i < 2; i++)
		node_up(&net->nodes[i]);
	run_ms(net, 1000);
	write_many(net, 100);
	run_ms(net, 1000);
	worker_sim_set_delay(n->disk->lanes[DISK_LANE_LOG], 5000000, 5000000);
	write_some(net, 10);
	run_ms(net, 100);
	link_set(net, 0, 1, false);
	link_set(net, 0, 1, true);
	until = loop_now_us(net->loop) + 3000000;
	while (loop_now_us(net->loop) < until) {
		assert_true(loop_sim_step(net->loop));
		if (rlog_learner_stored(net->nodes[0].log, &n->uuid, &told) &&
			told > most)
			most = told;
	}
	node_crash(n);
	node_up(n);
	while (!n->opened)
		assert_true(loop_sim_step(net->loop));
	rlog_status(n->log, &s);
	assert_true(most > 100 && s.last_index >= most);
	run_ms(net, 3000);
	assert_int_equal(n->machine.count, net->count);
	/* With the disk's answer it goes on by itself. */
	worker_sim_set_delay(n->disk->lanes[DISK_LANE_LOG], 1000000, 1000000);
	write_some(net, 10);
	run_ms(net, 100);
	link_set(net, 0, 1, false);
	link_set(net, 0, 1, true);
	run_ms(net, 6000);
	assert_int_equal(n->machine.count, net->count);
	assert_true(rlog_learner_stored(net->nodes[0].log, &n->uuid, &told));
	rlog_status(n->log, &s);
	assert_int_equal(told, s.applied_index);
	net_free(net);
}

/* Up to a voter with a new id, and down again; its state never goes back. */
static void test_places(void **state)
{
	struct net *net = net_new(17, 1, 1 << 20);
	struct node *n = &net->nodes[1];
	struct rlog_status s;
	bool voter = false;
	int servers;

	(void)state;
	for (int i = 0; i < 2; i++)
		node_up(&net->nodes[i]);
	run_ms(net, 1000);
	write_many(net, 300);
	for (uint64_t round = 0; round < 3; round++) {
		struct rv_error e;
		char address[UUID_TEXT_SIZE];
		uint64_t id = net->next_id++, before = n->machine.count;

		net->changing = true;
		assert_int_equal(
			rlog_add(net->nodes[0].log, id, uuid_format(&n->uuid, address),
				on_change, net, &e),
			0);
		run_ms(net, 3000);
		rlog_status(n->log, &s);
		assert_false(s.learner);
		assert_int_equal(s.id, id);
		assert_true(n->machine.count >= before);
		assert_int_equal(
			rlog_assign(net->nodes[0].log, id, true, on_change, net, &e), 0);
		run_ms(net, 3000);
		rlog_status(net->nodes[0].log, &s);
		assert_int_equal(s.voters, 2);
		write_many(net, 100);
		assert_int_equal(id_of(net, n, &voter, &servers), id);
		assert_true(voter);
		assert_int_equal(
			rlog_assign(leader_of(net)->log, id, false, on_change, net, &e),
			0);
		run_ms(net, 1000);
		assert_int_equal(
			rlog_remove(net->nodes[0].log, id, on_change, net, &e), 0);
		run_ms(net, 4000);
		rlog_status(n->log, &s);
		assert_true(s.learner);
		write_many(net, 100);
		run_ms(net, 1000);
		assert_int_equal(n->machine.count, net->count);
		/* As a learner it stands on its own disk. */
		node_crash(n);
		node_up(n);
		run_ms(net, 2000);
		assert_int_equal(n->machine.count, net->count);
	}
	net_free(net);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resumes),
		cmocka_unit_test(test_discards),
		cmocka_unit_test(test_added_in_two_steps),
		cmocka_unit_test(test_short_standby),
		cmocka_unit_test(test_founder_learns),
		cmocka_unit_test(test_other_voter),
		cmocka_unit_test(test_tells_what_is_stored),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_far_behind_entries),
		cmocka_unit_test(test_far_behind_snapshot),
	};

	log_setup(LOG_ERROR + 1, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
