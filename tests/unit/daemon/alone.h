/* A daemon with a pool of its own on a simulated disk, and nothing else. After cmocka.h.
 */
#ifndef REEVE_TESTS_UNIT_DAEMON_ALONE_H
#define REEVE_TESTS_UNIT_DAEMON_ALONE_H

#include "daemon/daemon.h"
#include "pool/disk.h"

struct alone {
	struct disk_sim_medium *medium;
	struct pool_commit commit;
	bool opened, committed;
};

static inline void alone_opened(void *arg, int rc, const struct rv_error *e)
{
	(void)e;
	assert_int_equal(rc, 0);
	((struct alone *)arg)->opened = true;
}

static inline void alone_changed(void *arg)
{
	(void)arg;
}

/* Makes d->loop, d->disk and d->pool; this host is the master. */
static inline void alone_open(struct alone *a, struct daemon *d)
{
	static const struct pool_events events = {
		alone_opened, alone_changed, alone_changed};
	struct pool_config config = {
		.log = {.id = 1,
			.address = "one",
			.bootstrap_count = 1,
			.bootstrap = {{.id = 1, .address = "one", .voter = true}}}};
	struct rv_error e;

	assert_int_equal(loop_new_sim(&d->loop, 1), 0);
	assert_int_equal(disk_sim_medium_new(&a->medium, 1), 0);
	assert_int_equal(disk_new_sim(&d->disk, d->loop, a->medium), 0);
	assert_int_equal(
		pool_open(&d->pool, d->loop, d->disk, &config, &events, a, &e), 0);
	for (int i = 0; i < 100000 && !(a->opened && pool_is_master(d->pool)); i++)
		if (!loop_sim_step(d->loop))
			break;
	assert_true(a->opened && pool_is_master(d->pool));
}

/* What uses them has been freed, the pool too. */
static inline void alone_close(struct alone *a, struct daemon *d)
{
	disk_free(d->disk);
	disk_sim_medium_free(a->medium);
	loop_free(d->loop);
}

static inline void alone_committed(struct pool_commit *c)
{
	assert_int_equal(c->rc, 0);
	CONTAINER_OF(c, struct alone, commit)->committed = true;
}

/* Commits it, until it is applied. */
static inline void alone_commit(struct alone *a, struct daemon *d, struct txn *t)
{
	struct rv_error e;

	a->committed = false;
	memset(&a->commit, 0, sizeof a->commit);
	assert_int_equal(pool_commit(d->pool, &a->commit, t, alone_committed, &e), 0);
	for (int i = 0; i < 100000 && !a->committed; i++)
		if (!loop_sim_step(d->loop))
			break;
	assert_true(a->committed);
}

#endif
