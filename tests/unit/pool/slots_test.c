/* The two copies of a log's meta and mark, in lives that follow one another: a sync
 * fails, the daemon dies, and what the next one reads may be in the page cache alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "pool/recover.h"

enum { SEEDS = 1000, LIVES = 6, STEPS = 4, OPENING = 12 };

struct rig {
	struct loop *loop;
	struct disk_sim_medium *medium;
	struct disk *disk;
	struct prng prng;
	unsigned first;	   /* as this life knows */
	uint64_t promised; /* the term that was acknowledged last */
};

/* Reads the log as a daemon that has just started does. */
static int open_log(struct rig *r, struct slots *meta, struct slots *mark)
{
	struct recover_config config = {
		.id = 1, .segment_bytes = 1 << 16, .meta_first = &r->first};
	struct recovered found;
	struct rv_error e;
	int rc = recover(&found, r->disk, &config, &e);

	if (rc == RV_ECORRUPT)
		print_message("%s\n", e.detail);
	if (rc)
		return rc;
	*meta = found.meta;
	*mark = found.segments.mark;
	recovered_fini(&found);
	return 0;
}

static int write_term(struct rig *r, struct slots *meta)
{
	struct slots next = *meta;
	struct disk_file *f;
	struct rv_error e;
	int rc = disk_open(r->disk, SEGMENTS_META, &f, &e);

	if (rc)
		return rc;
	next.term++;
	rc = slots_write_both(f, FRAME_META, &next, &r->first, &e);
	disk_close(f);
	if (rc)
		return rc;
	*meta = next;
	r->promised = next.term;
	return 0;
}

static int write_mark(struct rig *r, struct slots *mark)
{
	struct disk_file *f;
	struct rv_error e;
	int rc = disk_open(r->disk, SEGMENTS_MARK, &f, &e);

	if (rc)
		return rc;
	rc = slots_write_one(f, FRAME_MARK, mark, &e);
	disk_close(f);
	return rc;
}

/* One life: it writes until something fails, and dies; with its machine or without. */
static void live(struct rig *r, uint64_t seed, bool power)
{
	struct slots meta, mark;
	int rc;

	bool opening = prng_below(&r->prng, 2); /* it fails while it opens, or later */

	r->first = 0;
	assert_int_equal(disk_new_sim(&r->disk, r->loop, r->medium), 0);
	if (opening)
		disk_sim_inject(r->medium, power ? DISK_SIM_CRASH : DISK_SIM_FAIL_SYNC,
			prng_below(&r->prng, OPENING));
	rc = open_log(r, &meta, &mark);
	if (rc == RV_ECORRUPT)
		fail_msg("seed %llu: the log is refused", (unsigned long long)seed);
	if (!rc && meta.term < r->promised)
		fail_msg("seed %llu: a term is forgotten", (unsigned long long)seed);
	if (!opening)
		disk_sim_inject(r->medium, power ? DISK_SIM_CRASH : DISK_SIM_FAIL_SYNC,
			prng_below(&r->prng, STEPS));
	for (int i = 0; i < STEPS && !rc; i++)
		rc = seed % 2 ? write_term(r, &meta) : write_mark(r, &mark);
	disk_free(r->disk);
	if (power)
		disk_sim_crash(r->medium);
	else
		disk_sim_inject(r->medium, DISK_SIM_NONE, 0);
}

static void test_lives(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct rig r = {.promised = 0};
		struct rv_error e;

		prng_seed(&r.prng, seed);
		assert_int_equal(loop_new_sim(&r.loop, seed), 0);
		assert_int_equal(disk_sim_medium_new(&r.medium, seed), 0);
		assert_int_equal(disk_new_sim(&r.disk, r.loop, r.medium), 0);
		assert_int_equal(segments_found(r.disk, 1, &e), 0);
		disk_free(r.disk);
		for (int i = 0; i < LIVES; i++)
			live(&r, seed, i % 2);
		disk_sim_medium_free(r.medium);
		loop_free(r.loop);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_lives)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
