/*
 * A log with a small state machine on a simulated disk and loop, for tests.
 *
 * The machine's state is a chain: each entry's bytes are hashed onto it, and every hash
 * is kept, so that a recovered state can be compared with what was acknowledged. Its
 * snapshot is the whole list of hashes.
 */
#ifndef REEVE_TESTS_POOL_RIG_H
#define REEVE_TESTS_POOL_RIG_H

#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <xxhash.h>

#include "base/limits.h"
#include "base/log.h"
#include "pool/rlog.h"

enum { RIG_MAX = 1 << 14 };

struct rig_machine {
	uint64_t chain[RIG_MAX]; /* after each command */
	uint64_t entry[RIG_MAX]; /* hash of that command alone */
	size_t count;
	size_t encoded, to_encode;
	uint64_t *aside; /* chain and entry in turn */
	size_t aside_len;
	uint8_t partial[8];
	size_t partial_len;
};

struct rig {
	struct loop *loop;
	struct disk_sim_medium *medium;
	struct disk *disk;
	struct rlog *log;
	struct rlog_config config;
	struct rig_machine machine;
	bool opened, stopped;
	int open_rc;
	struct rv_error open_error;
	int changes;
};

static inline uint64_t rig_mix(uint64_t chain, const uint8_t *bytes, size_t len)
{
	return XXH3_64bits_withSeed(bytes, len, chain);
}

static inline int rig_apply(void *arg, uint8_t kind, const uint8_t *bytes, size_t len,
	uint64_t index, uint64_t term)
{
	struct rig_machine *m = &((struct rig *)arg)->machine;

	(void)index;
	(void)term;
	if (kind != 1)
		return RV_EUNSUPPORTED;
	assert_true(m->count < RIG_MAX);
	m->chain[m->count] = rig_mix(m->count ? m->chain[m->count - 1] : 0, bytes, len);
	m->entry[m->count] = XXH3_64bits(bytes, len);
	m->count++;
	return 0;
}

static inline int rig_snapshot_begin(void *arg)
{
	struct rig_machine *m = &((struct rig *)arg)->machine;

	m->encoded = 0;
	m->to_encode = m->count;
	return 0;
}

static inline int rig_snapshot_next(void *arg, struct buf *out, bool *done)
{
	struct rig_machine *m = &((struct rig *)arg)->machine;

	for (int i = 0; i < 16 && m->encoded < m->to_encode; i++, m->encoded++)
		if (buf_append(out, &m->chain[m->encoded], 8) ||
			buf_append(out, &m->entry[m->encoded], 8))
			return RV_ENOMEM;
	*done = m->encoded == m->to_encode;
	return 0;
}

static inline void rig_snapshot_end(void *arg)
{
	(void)arg;
}

static inline int rig_restore_begin(void *arg)
{
	struct rig_machine *m = &((struct rig *)arg)->machine;

	m->aside = malloc(2 * sizeof m->chain);
	m->aside_len = m->partial_len = 0;
	return m->aside ? 0 : RV_ENOMEM;
}

static inline int rig_restore_next(
	void *arg, const uint8_t *bytes, size_t len, struct rv_error *e)
{
	struct rig_machine *m = &((struct rig *)arg)->machine;

	(void)e;
	for (size_t i = 0; i < len; i++) {
		m->partial[m->partial_len++] = bytes[i];
		if (m->partial_len == 8) {
			memcpy(&m->aside[m->aside_len++], m->partial, 8);
			m->partial_len = 0;
		}
	}
	return 0;
}

static inline int rig_restore_finish(void *arg, struct rv_error *e)
{
	struct rig_machine *m = &((struct rig *)arg)->machine;

	return m->partial_len ? rv_error_set(e, RV_ECORRUPT, "half a number") : 0;
}

static inline void rig_restore_end(void *arg, bool commit, uint64_t index, uint64_t term)
{
	struct rig_machine *m = &((struct rig *)arg)->machine;

	(void)index;
	(void)term;
	if (commit) {
		m->count = m->aside_len / 2;
		for (size_t i = 0; i < m->count; i++) {
			m->chain[i] = m->aside[2 * i];
			m->entry[i] = m->aside[2 * i + 1];
		}
	}
	free(m->aside);
	m->aside = NULL;
}

static const struct rlog_fsm rig_fsm = {
	.apply = rig_apply,
	.snapshot_begin = rig_snapshot_begin,
	.snapshot_next = rig_snapshot_next,
	.snapshot_end = rig_snapshot_end,
	.restore_begin = rig_restore_begin,
	.restore_next = rig_restore_next,
	.restore_finish = rig_restore_finish,
	.restore_end = rig_restore_end,
};

static inline void rig_changed(void *arg)
{
	((struct rig *)arg)->changes++;
}

static inline void rig_opened(void *arg, int rc, const struct rv_error *e)
{
	struct rig *rig = arg;

	assert_false(rig->opened);
	rig->opened = true;
	rig->open_rc = rc;
	if (e)
		rig->open_error = *e;
}

static inline void rig_stopped(void *arg)
{
	((struct rig *)arg)->stopped = true;
}

static const struct rlog_events rig_events = {
	.changed = rig_changed,
	.opened = rig_opened,
	.stopped = rig_stopped,
};

static inline void rig_run_ms(struct rig *rig, int64_t ms)
{
	loop_sim_run_until(rig->loop, loop_now_us(rig->loop) + 1000 * ms);
}

/* A first configuration of one voter and small files. */
static inline struct rig *rig_new(uint64_t seed)
{
	struct rig *rig = calloc(1, sizeof *rig);

	assert_non_null(rig);
	assert_int_equal(loop_new_sim(&rig->loop, seed), 0);
	assert_int_equal(disk_sim_medium_new(&rig->medium, seed), 0);
	rig->config = (struct rlog_config){
		.id = 1,
		.address = "one",
		.bootstrap_count = 1,
		.bootstrap = {{.id = 1, .address = "one", .voter = true}},
		.segment_bytes = 4096,
		.snapshot_entries = 1 << 30,
		.snapshot_bytes = 1 << 30,
		.trailing_entries = 8,
		.reserve_bytes = 512,
	};
	return rig;
}

/* Opens a life on the medium; false when the log refuses (rig->open_error says why). */
static inline bool rig_open(struct rig *rig)
{
	struct rv_error e;

	memset(&rig->machine, 0, sizeof rig->machine);
	rig->opened = rig->stopped = false;
	rig->open_rc = 0;
	assert_int_equal(disk_new_sim(&rig->disk, rig->loop, rig->medium), 0);
	assert_int_equal(rlog_open(&rig->log, rig->loop, rig->disk, NULL, &rig->config,
				 &rig_fsm, &rig_events, rig, &e),
		0);
	for (int i = 0; i < 20000 && !rig->opened; i++)
		rig_run_ms(rig, 1);
	return rig->opened && rig->open_rc == 0;
}

static inline void rig_drop(struct rig *rig)
{
	rlog_free(rig->log);
	rig->log = NULL;
	disk_free(rig->disk);
	rig->disk = NULL;
}

/* The power goes. */
static inline void rig_crash(struct rig *rig)
{
	disk_sim_crash(rig->medium);
	rig_drop(rig);
}

static inline void rig_stop(struct rig *rig)
{
	rlog_stop(rig->log);
	for (int i = 0; i < 20000 && !rig->stopped; i++)
		rig_run_ms(rig, 1);
	assert_true(rig->stopped);
	rig_drop(rig);
}

static inline void rig_free(struct rig *rig)
{
	if (rig->log)
		rig_drop(rig);
	disk_sim_medium_free(rig->medium);
	loop_free(rig->loop);
	free(rig);
}

/* --- proposals --- */

struct rig_write {
	struct rlog_proposal p;
	struct rig *rig;
	uint8_t bytes[512];
	size_t len;
	bool proposed, ended;
	enum rlog_outcome outcome;
	int rc;
	size_t at;	/* committed: the machine's count after it */
	uint64_t chain; /* and its chain */
};

static inline void rig_ended(struct rlog_proposal *p, enum rlog_outcome outcome, int rc)
{
	struct rig_write *w = CONTAINER_OF(p, struct rig_write, p);

	assert_false(w->ended);
	w->ended = true;
	w->outcome = outcome;
	w->rc = rc;
	if (outcome == RLOG_COMMITTED) {
		w->at = w->rig->machine.count;
		w->chain = w->rig->machine.chain[w->at - 1];
		/* The callback comes right after the apply of its own entry. */
		assert_true(w->chain ==
			    rig_mix(w->at > 1 ? w->rig->machine.chain[w->at - 2] : 0,
				    w->bytes, w->len));
	}
}

static inline int rig_propose(
	struct rig *rig, struct rig_write *w, uint64_t salt, size_t len)
{
	int rc;

	memset(w, 0, sizeof *w);
	w->rig = rig;
	w->len = len;
	for (size_t i = 0; i < len; i++)
		w->bytes[i] = (uint8_t)(salt >> (8 * (i % 8))) ^ (uint8_t)(31 * (i / 8));
	rc = rlog_propose(rig->log, &w->p, 1, w->bytes, len, false, rig_ended);
	w->proposed = rc == 0;
	return rc;
}

static inline void rig_write_all(struct rig *rig, int n, uint64_t salt, size_t len)
{
	struct rig_write *w = calloc((size_t)n, sizeof *w);

	for (int i = 0; i < n; i++)
		assert_int_equal(rig_propose(rig, &w[i], salt + (uint64_t)i, len), 0);
	rig_run_ms(rig, 200);
	for (int i = 0; i < n; i++) {
		assert_true(w[i].ended);
		assert_int_equal(w[i].outcome, RLOG_COMMITTED);
	}
	free(w);
}

#endif
