/*
 * Every byte of a small log damaged in turn, in each of its files: what was acknowledged
 * is all there afterwards, or the log refuses to open and says which file is damaged.
 * Never a shorter history.
 */
#include "rig.h"

#include "base/prng.h"

struct golden {
	struct disk_sim_medium *medium;
	struct rig_machine machine; /* what was acknowledged */
};

static struct {
	unsigned same, refused, longer;
} total;

/* Two snapshots, several segments, entries behind the last snapshot. */
static struct rig *small_log(uint64_t seed)
{
	struct rig *rig = rig_new(seed);

	rig->config.segment_bytes = 1024;
	assert_true(rig_open(rig));
	for (int i = 0; i < 3; i++) {
		rig_write_all(rig, 3, (uint64_t)i * 100 + seed, 40);
		if (i < 2) {
			rlog_snapshot(rig->log);
			rig_run_ms(rig, 100);
		}
	}
	return rig;
}

static struct golden *golden_of(struct rig *rig)
{
	struct golden *g = calloc(1, sizeof *g);

	g->machine = rig->machine;
	return g;
}

static void golden_take(struct golden *g, struct rig *rig)
{
	assert_int_equal(disk_sim_copy(&g->medium, rig->medium), 0);
}

static void golden_free(struct golden *g)
{
	disk_sim_medium_free(g->medium);
	free(g);
}

/* Opens what was damaged; exact: nothing unacknowledged may be there either. */
static void check_damaged(const struct golden *g, struct disk_sim_medium *damaged,
	bool exact, const char *what)
{
	struct rig *rig = rig_new(99);
	const struct rig_machine *m = &rig->machine;
	size_t n = g->machine.count;

	disk_sim_medium_free(rig->medium);
	rig->medium = damaged;
	rig->config.segment_bytes = 1024;
	if (!rig_open(rig)) {
		total.refused++;
		if (rig->open_rc != RV_ECORRUPT || !strstr(rig->open_error.detail, "sim"))
			fail_msg("%s: refused with \"%s\"", what, rig->open_error.detail);
		rig_free(rig);
		return;
	}
	if (m->count < n || m->chain[n - 1] != g->machine.chain[n - 1])
		fail_msg("%s: %zu entries were acknowledged, %zu are there", what, n,
			m->count);
	if (exact && m->count != n)
		fail_msg("%s: %zu entries became %zu", what, n, m->count);
	if (m->count > n)
		total.longer++;
	else
		total.same++;
	/* It goes on from there. */
	rig_write_all(rig, 1, 4711, 30);
	rig_drop(rig);
	if (!rig_open(rig))
		fail_msg("%s: does not open again: %s", what, rig->open_error.detail);
	assert_true(rig->machine.count >= n + 1);
	rig_free(rig);
}

static void flip_each(const struct golden *g, bool exact, unsigned run, unsigned step)
{
	struct prng prng;
	size_t files = disk_sim_file_count(g->medium);

	prng_seed(&prng, 1);
	for (size_t f = 0; f < files; f++) {
		uint64_t bytes;
		char name[DISK_NAME_MAX], what[160];

		snprintf(name, sizeof name, "%s", disk_sim_file(g->medium, f, &bytes));
		for (uint64_t at = 0; at + run <= bytes; at += step) {
			struct disk_sim_medium *damaged;
			uint8_t flip = (uint8_t)(1 + prng_below(&prng, 255));

			/* The unused middle of the slot files is dull. */
			if (bytes > 4096 && at > 100 && at < 4090 && at % 97)
				continue;
			assert_int_equal(disk_sim_copy(&damaged, g->medium), 0);
			for (unsigned i = 0; i < run; i++)
				disk_sim_flip(
					damaged, name, at + i, (uint8_t)(flip + i) | 1);
			snprintf(what, sizeof what, "%s, %u bytes at %llu ^ %02x", name,
				run, (unsigned long long)at, flip);
			check_damaged(g, damaged, exact, what);
		}
	}
}

static void report(const char *name)
{
	printf("%s: the same %u, refused %u, with unacknowledged entries %u\n", name,
		total.same, total.refused, total.longer);
	memset(&total, 0, sizeof total);
}

static void test_stopped(void **state)
{
	struct rig *rig = small_log(1);
	struct golden *g = golden_of(rig);

	(void)state;
	rig_stop(rig);
	golden_take(g, rig);
	flip_each(g, true, 1, 1);
	/* A single byte always heals. */
	assert_int_equal(total.refused, 0);
	report("stopped, one byte");
	golden_free(g);
	rig_free(rig);
}

static void test_stopped_runs(void **state)
{
	struct rig *rig = small_log(1);
	struct golden *g = golden_of(rig);

	(void)state;
	rig_stop(rig);
	golden_take(g, rig);
	flip_each(g, true, 9, 5);
	assert_true(total.refused > 0 && total.same > 0);
	report("stopped, nine bytes");
	golden_free(g);
	rig_free(rig);
}

/* A byte that becomes zero in a file of which the rest may be zeros, too. */
static void clear_each(const struct golden *g, struct rig *rig, const char *name)
{
	struct disk *disk;
	struct rv_error e;
	uint8_t *bytes;
	size_t len;

	assert_int_equal(disk_new_sim(&disk, rig->loop, g->medium), 0);
	assert_int_equal(disk_read(disk, name, &bytes, &len, &e), 0);
	disk_free(disk);
	for (size_t at = 0; at < len; at++) {
		struct disk_sim_medium *damaged;
		char what[160];

		if (!bytes[at])
			continue;
		assert_int_equal(disk_sim_copy(&damaged, g->medium), 0);
		disk_sim_flip(damaged, name, at, bytes[at]);
		snprintf(what, sizeof what, "%s, the byte at %zu cleared", name, at);
		check_damaged(g, damaged, true, what);
	}
	free(bytes);
}

static void test_cleared(void **state)
{
	struct rig *rig = small_log(1);
	struct golden *g = golden_of(rig);

	(void)state;
	rig_stop(rig);
	golden_take(g, rig);
	for (size_t f = 0; f < disk_sim_file_count(g->medium); f++) {
		char name[DISK_NAME_MAX];
		uint64_t bytes;

		snprintf(name, sizeof name, "%s", disk_sim_file(g->medium, f, &bytes));
		clear_each(g, rig, name);
	}
	assert_true(total.same > 0);
	assert_int_equal(total.refused, 0);
	report("stopped, one byte cleared");
	golden_free(g);
	rig_free(rig);
}

static struct rig_write late[3];

/* The power goes right after an acknowledgement, with a further write under way. */
static struct golden *crashed_log(struct rig *rig)
{
	struct golden *g;

	assert_int_equal(rig_propose(rig, &late[0], 5000, 60), 0);
	while (!late[0].ended)
		assert_true(loop_sim_step(rig->loop));
	assert_int_equal(late[0].outcome, RLOG_COMMITTED);
	g = golden_of(rig);
	assert_int_equal(rig_propose(rig, &late[1], 6000, 60), 0);
	assert_int_equal(rig_propose(rig, &late[2], 7000, 400), 0);
	disk_sim_inject(rig->medium, DISK_SIM_CRASH, 1); /* written, not synced */
	rig_run_ms(rig, 10);
	assert_false(late[1].ended && late[1].outcome == RLOG_COMMITTED);
	rig_crash(rig);
	golden_take(g, rig);
	return g;
}

static void test_crashed(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 3; seed++) {
		struct rig *rig = small_log(seed);
		struct golden *g = crashed_log(rig);

		flip_each(g, false, 1, 1);
		golden_free(g);
		rig_free(rig);
	}
	assert_int_equal(total.refused, 0);
	report("crashed, one byte");
}

/* A file that is gone altogether. */
static void test_missing(void **state)
{
	struct rig *rig = small_log(1);
	struct golden *g = golden_of(rig);
	struct disk *disk;
	struct rv_error e;

	(void)state;
	rig_stop(rig);
	golden_take(g, rig);
	for (size_t f = 0; f < disk_sim_file_count(g->medium); f++) {
		struct disk_sim_medium *damaged;
		uint64_t bytes;

		assert_int_equal(disk_sim_copy(&damaged, g->medium), 0);
		assert_int_equal(disk_new_sim(&disk, rig->loop, damaged), 0);
		assert_int_equal(
			disk_remove(disk, disk_sim_file(g->medium, f, &bytes), &e), 0);
		disk_free(disk);
		check_damaged(g, damaged, true, disk_sim_file(g->medium, f, &bytes));
	}
	report("missing files");
	golden_free(g);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stopped),
		cmocka_unit_test(test_stopped_runs),
		cmocka_unit_test(test_cleared),
		cmocka_unit_test(test_crashed),
		cmocka_unit_test(test_missing),
	};

	log_setup(LOG_ERROR + 1, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
