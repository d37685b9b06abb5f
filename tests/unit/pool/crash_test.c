/*
 * Thousands of lives that end in a crash, a failed write or sync, or a full disk, on a
 * disk that forgets and tears what was not synced:
 * - what was acknowledged is there in every later life, in the same order;
 * - what was rejected is in none;
 * - a life that survives a failed disk goes on by itself when the disk works again.
 * REEVE_SEED=n runs one seed.
 */
#include "rig.h"

#include "base/prng.h"

enum { SEEDS = 120, LIVES = 25, WRITES = 48, REJECTS = 4096 };

struct trial {
	struct rig *rig;
	struct prng prng;
	uint64_t seed, salt;
	size_t acked_at;
	uint64_t acked_chain;
	uint64_t rejected[REJECTS];
	size_t rejected_count;
	struct rig_write writes[WRITES];
};

static struct {
	unsigned lives, acked, rejected, unknown, crashes, faults, refused, full,
		reopened;
} total;

static void trial_check(struct trial *t)
{
	const struct rig_machine *m = &t->rig->machine;

	if (m->count < t->acked_at ||
		(t->acked_at && m->chain[t->acked_at - 1] != t->acked_chain))
		fail_msg("seed %llu: %zu entries were acknowledged, %zu are there",
			(unsigned long long)t->seed, t->acked_at, m->count);
	for (size_t i = 0; i < t->rejected_count; i++)
		for (size_t j = 0; j < m->count; j++)
			if (m->entry[j] == t->rejected[i])
				fail_msg("seed %llu: a rejected entry is there",
					(unsigned long long)t->seed);
}

/* Collects what ended; a slot is free for the next write then. */
static void trial_collect(struct trial *t)
{
	for (int i = 0; i < WRITES; i++) {
		struct rig_write *w = &t->writes[i];

		if (!w->proposed || !w->ended)
			continue;
		w->proposed = false;
		if (w->outcome == RLOG_COMMITTED) {
			total.acked++;
			if (w->at > t->acked_at) {
				t->acked_at = w->at;
				t->acked_chain = w->chain;
			}
		} else if (w->outcome == RLOG_REJECTED) {
			total.rejected++;
			assert_true(t->rejected_count < REJECTS);
			t->rejected[t->rejected_count++] = XXH3_64bits(w->bytes, w->len);
		} else {
			total.unknown++;
		}
	}
}

static void trial_propose(struct trial *t)
{
	for (int i = 0; i < WRITES; i++) {
		struct rig_write *w = &t->writes[i];
		size_t len;

		if (w->proposed)
			continue;
		len = 8 + (size_t)prng_below(&t->prng, 400);
		if (rig_propose(t->rig, w, ++t->salt << 20 | t->seed, len))
			total.refused++;
		if (prng_below(&t->prng, 8) == 0)
			break;
	}
}

static void trial_fault(struct trial *t)
{
	static const enum disk_sim_fault faults[] = {DISK_SIM_CRASH, DISK_SIM_CRASH,
		DISK_SIM_CRASH, DISK_SIM_FAIL_STEP, DISK_SIM_FAIL_WRITE,
		DISK_SIM_FAIL_SYNC};
	uint64_t kind = prng_below(&t->prng, 8);

	if (kind < 6) {
		disk_sim_inject(t->rig->medium, faults[kind], prng_below(&t->prng, 60));
		total.faults++;
	} else if (kind == 6) {
		disk_sim_set_capacity(t->rig->medium,
			disk_sim_used(t->rig->medium) + prng_below(&t->prng, 9000));
		total.full++;
	}
}

static void trial_live(struct trial *t)
{
	uint64_t rounds = 1 + prng_below(&t->prng, 30);

	for (uint64_t i = 0; i < rounds; i++) {
		trial_propose(t);
		loop_sim_run_until(t->rig->loop,
			loop_now_us(t->rig->loop) + (int64_t)prng_below(&t->prng, 3000));
		trial_collect(t);
		if (prng_below(&t->prng, 40) == 0)
			rlog_snapshot(t->rig->log);
	}
}

/* The disk works again: so does the log, without being opened by anyone. */
static void trial_heal(struct trial *t)
{
	struct rlog_status s;

	disk_sim_inject(t->rig->medium, DISK_SIM_NONE, 0);
	disk_sim_set_capacity(t->rig->medium, UINT64_MAX);
	rlog_status(t->rig->log, &s);
	total.reopened += s.state == RLOG_FAILED;
	for (int i = 0; i < 4000 && !rlog_is_leader(t->rig->log); i++)
		rig_run_ms(t->rig, 5);
	rlog_status(t->rig->log, &s);
	if (!rlog_is_leader(t->rig->log))
		fail_msg("seed %llu: the log does not come back: %s",
			(unsigned long long)t->seed, s.error.detail);
	trial_check(t);
	rig_run_ms(t->rig, 6000);
	trial_collect(t);
	for (int i = 0; i < WRITES; i++)
		assert_false(t->writes[i].proposed);
}

static void trial_end_life(struct trial *t, bool dead)
{
	if (!dead && prng_below(&t->prng, 3) == 0) {
		trial_heal(t);
		trial_propose(t);
		rig_run_ms(t->rig, 300);
		trial_collect(t);
		trial_check(t);
	}
	if (!dead && prng_below(&t->prng, 4) == 0) {
		rlog_stop(t->rig->log);
		for (int i = 0; i < 8000 && !t->rig->stopped; i++)
			rig_run_ms(t->rig, 1);
		assert_true(t->rig->stopped);
		trial_collect(t);
		rig_drop(t->rig);
		return;
	}
	disk_sim_crash(t->rig->medium);
	total.crashes++;
	rig_drop(t->rig);
	trial_collect(t);
	for (int i = 0; i < WRITES; i++)
		assert_false(t->writes[i].proposed);
}

static bool is_dead(struct trial *t)
{
	uint64_t space;
	struct rv_error e;

	return disk_space(t->rig->disk, &space, &e) != 0;
}

static void run_seed(uint64_t seed)
{
	struct trial *t = calloc(1, sizeof *t);

	t->seed = seed;
	prng_seed(&t->prng, seed);
	t->rig = rig_new(seed);
	t->rig->config.snapshot_entries = 40 + prng_below(&t->prng, 200);
	t->rig->config.segment_bytes = 2048 << prng_below(&t->prng, 3);
	for (int life = 0; life < LIVES; life++) {
		total.lives++;
		disk_sim_set_capacity(t->rig->medium, UINT64_MAX);
		disk_sim_inject(t->rig->medium, DISK_SIM_NONE, 0);
		if (prng_below(&t->prng, 5) == 0) /* opening may die, too */
			disk_sim_inject(
				t->rig->medium, DISK_SIM_CRASH, prng_below(&t->prng, 25));
		if (!rig_open(t->rig)) {
			if (!is_dead(t))
				fail_msg("seed %llu life %d: %s",
					(unsigned long long)seed, life,
					t->rig->open_error.detail);
			rig_crash(t->rig);
			continue;
		}
		trial_check(t);
		disk_sim_inject(t->rig->medium, DISK_SIM_NONE, 0);
		if (is_dead(t)) {
			rig_crash(t->rig);
			continue;
		}
		trial_fault(t);
		trial_live(t);
		trial_end_life(t, is_dead(t));
	}
	rig_free(t->rig);
	free(t);
}

static void test_lives(void **state)
{
	const char *one = getenv("REEVE_SEED");

	(void)state;
	if (one) {
		run_seed(strtoull(one, NULL, 10));
		return;
	}
	const char *many = getenv("REEVE_SEEDS");
	uint64_t seeds = many ? strtoull(many, NULL, 10) : SEEDS;

	for (uint64_t seed = 1; seed <= seeds; seed++)
		run_seed(seed);
	printf("lives %u acked %u rejected %u unknown %u crashes %u faults %u full %u "
	       "refused %u reopened %u\n",
		total.lives, total.acked, total.rejected, total.unknown, total.crashes,
		total.faults, total.full, total.refused, total.reopened);
	assert_true(total.acked > 0 && total.rejected > 0 && total.unknown > 0 &&
		    total.crashes > 0 && total.reopened > 0 && total.refused > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_lives)};

	log_setup(LOG_ERROR + 1, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
