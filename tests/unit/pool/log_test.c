/* The replicated log with one voter, on the simulated disk. */
#include "rig.h"

static void test_commits(void **state)
{
	struct rig *rig = rig_new(1);
	struct rlog_status s;

	(void)state;
	assert_true(rig_open(rig));
	assert_true(rlog_is_leader(rig->log));
	rig_write_all(rig, 100, 7, 40);
	assert_int_equal(rig->machine.count, 100);
	rlog_status(rig->log, &s);
	assert_int_equal(s.state, RLOG_LEADER);
	assert_int_equal(s.voters, 1);
	assert_int_equal(s.leader_id, 1);
	assert_int_equal(s.queued, 0);
	/* 100 proposals at once, 64 in one append, and few syncs. */
	assert_true(s.syncs < 20);
	rig_stop(rig);
	rig_free(rig);
}

static void test_reopens(void **state)
{
	struct rig *rig = rig_new(2);
	uint64_t chain;

	(void)state;
	for (int life = 0; life < 5; life++) {
		assert_true(rig_open(rig));
		assert_int_equal(rig->machine.count, 30 * life);
		rig_write_all(rig, 30, (uint64_t)life * 1000, 100);
		chain = rig->machine.chain[rig->machine.count - 1];
		if (life % 2)
			rig_crash(rig);
		else
			rig_stop(rig);
	}
	assert_true(rig_open(rig));
	assert_int_equal(rig->machine.count, 150);
	assert_true(rig->machine.chain[149] == chain);
	rig_stop(rig);
	rig_free(rig);
}

static void test_snapshots(void **state)
{
	struct rig *rig = rig_new(3);
	struct rlog_status s;
	uint64_t chain = 0;

	(void)state;
	rig->config.snapshot_entries = 50;
	for (int life = 0; life < 4; life++) {
		assert_true(rig_open(rig));
		assert_int_equal(rig->machine.count, 200 * life);
		if (life)
			assert_true(rig->machine.chain[200 * life - 1] == chain);
		for (int i = 0; i < 10; i++)
			rig_write_all(rig, 20, (uint64_t)(life * 10 + i) << 20, 60);
		chain = rig->machine.chain[rig->machine.count - 1];
		rlog_status(rig->log, &s);
		assert_true(s.snapshot_index > 200 * (uint64_t)life);
		assert_true(s.snapshot_age_ms >= 0);
		rig_stop(rig);
	}
	/* Old segments and snapshots go. */
	assert_true(disk_sim_file_count(rig->medium) < 40);
	rig_free(rig);
}

static void test_asked_snapshot(void **state)
{
	struct rig *rig = rig_new(4);
	struct rlog_status s;

	(void)state;
	assert_true(rig_open(rig));
	rig_write_all(rig, 10, 1, 30);
	rlog_snapshot(rig->log);
	rig_run_ms(rig, 200);
	rlog_status(rig->log, &s);
	assert_true(s.snapshot_index >= 10);
	rig_stop(rig);
	assert_true(rig_open(rig));
	assert_int_equal(rig->machine.count, 10);
	rig_stop(rig);
	rig_free(rig);
}

static void barrier_done(struct rlog_proposal *p, enum rlog_outcome outcome, int rc)
{
	(void)p;
	assert_int_equal(outcome, RLOG_COMMITTED);
	assert_int_equal(rc, 0);
	p->len = 4711;
}

static void test_barrier(void **state)
{
	struct rig *rig = rig_new(5);
	struct rig_write w[10];
	struct rlog_proposal barrier;

	(void)state;
	assert_true(rig_open(rig));
	for (int i = 0; i < 10; i++)
		assert_int_equal(rig_propose(rig, &w[i], (uint64_t)i, 10), 0);
	assert_int_equal(rlog_barrier(rig->log, &barrier, barrier_done), 0);
	while (barrier.len != 4711)
		assert_true(loop_sim_step(rig->loop));
	for (int i = 0; i < 10; i++)
		assert_true(w[i].ended);
	rig_stop(rig);
	rig_free(rig);
}

static void test_refusals(void **state)
{
	struct rig *rig = rig_new(6);
	static struct rig_write w[RV_MAX_COMMITS_QUEUED + 1];
	struct rlog_proposal p;
	struct rv_error e;
	uint8_t *big = calloc(1, RV_MAX_ENTRY_BYTES + 1);

	(void)state;
	assert_true(rig_open(rig));
	assert_int_equal(rlog_propose(rig->log, &p, 1, big, RV_MAX_ENTRY_BYTES + 1, false,
				 rig_ended),
		RV_ETOOBIG);
	free(big);
	for (int i = 0; i < RV_MAX_COMMITS_QUEUED; i++)
		assert_int_equal(rig_propose(rig, &w[i], (uint64_t)i, 8), 0);
	assert_int_equal(rig_propose(rig, &w[RV_MAX_COMMITS_QUEUED], 1, 8), RV_ELIMIT);
	assert_int_equal(rlog_transfer(rig->log, 0, NULL, NULL, &e), RV_ENOTALLOWED);
	assert_non_null(strstr(e.detail, "only voter"));
	rig_run_ms(rig, 3000);
	assert_int_equal(rig->machine.count, RV_MAX_COMMITS_QUEUED);
	rlog_stop(rig->log);
	assert_int_equal(rig_propose(rig, &w[0], 1, 8), RV_ECLOSED);
	while (!rig->stopped)
		rig_run_ms(rig, 1);
	rig_free(rig);
}

static void test_big_entries(void **state)
{
	struct rig *rig = rig_new(7);
	size_t len = RV_MAX_ENTRY_BYTES;
	uint8_t *big = malloc(len);
	struct rig_write w = {.rig = rig};

	(void)state;
	memset(big, 42, len);
	assert_true(rig_open(rig));
	/* Larger than a segment: it gets one of its own. */
	w.len = 0;
	rig_write_all(rig, 3, 9, 500);
	assert_int_equal(
		rlog_propose(rig->log, &w.p, 1, big, len, false, barrier_done), 0);
	rig_run_ms(rig, 500);
	assert_int_equal(w.p.len, 4711);
	rig_write_all(rig, 3, 90, 500);
	rig_stop(rig);
	assert_true(rig_open(rig));
	assert_int_equal(rig->machine.count, 7);
	rig_stop(rig);
	free(big);
	rig_free(rig);
}

static void test_wrong_server(void **state)
{
	struct rig *rig = rig_new(8);

	(void)state;
	assert_true(rig_open(rig));
	rig_stop(rig);
	rig->config.id = 2;
	assert_false(rig_open(rig));
	assert_int_equal(rig->open_rc, RV_ESTATE);
	rig_free(rig);
}

static int refuse_apply(void *arg, uint8_t kind, const uint8_t *bytes, size_t len,
	uint64_t index, uint64_t term)
{
	struct rig *rig = arg;

	if (rig->machine.count == 5)
		return RV_EUNSUPPORTED;
	return rig_apply(arg, kind, bytes, len, index, term);
}

static void test_unknown_entry(void **state)
{
	struct rig *rig = rig_new(9);
	struct rlog_fsm fsm = rig_fsm;
	struct rig_write w[10];
	struct rlog_status s;
	struct rv_error e;

	(void)state;
	fsm.apply = refuse_apply;
	assert_int_equal(disk_new_sim(&rig->disk, rig->loop, rig->medium), 0);
	assert_int_equal(rlog_open(&rig->log, rig->loop, rig->disk, NULL, &rig->config,
				 &fsm, &rig_events, rig, &e),
		0);
	rig_run_ms(rig, 100);
	assert_true(rig->opened);
	for (int i = 0; i < 10; i++)
		assert_int_equal(rig_propose(rig, &w[i], (uint64_t)i, 10), 0);
	rig_run_ms(rig, 100);
	assert_int_equal(w[4].outcome, RLOG_COMMITTED);
	assert_true(w[9].ended);
	assert_int_equal(w[9].outcome, RLOG_UNKNOWN);
	rlog_status(rig->log, &s);
	assert_int_equal(s.error.code, RV_EUNSUPPORTED);
	rig_stop(rig);
	/* A daemon that knows the entry goes on from there. */
	assert_true(rig_open(rig));
	assert_int_equal(rig->machine.count, 10);
	rig_stop(rig);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_commits),
		cmocka_unit_test(test_reopens),
		cmocka_unit_test(test_snapshots),
		cmocka_unit_test(test_asked_snapshot),
		cmocka_unit_test(test_barrier),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_big_entries),
		cmocka_unit_test(test_wrong_server),
		cmocka_unit_test(test_unknown_entry),
	};

	log_setup(LOG_ERROR + 1, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
