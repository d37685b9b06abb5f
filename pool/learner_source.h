/*
 * What a feeder reads from the disk: segments of the log and snapshots, whole, by jobs of
 * the bulk lane. A segment is read while the log may be writing to its end: only frames
 * that are good are used, and the feeder asks for entries that are synced. Snapshots are
 * shared by all learners that are sent the same one.
 *
 * A job outlives its source: it then frees what it read. Part of pool/learner_feed.c.
 */
#ifndef REEVE_POOL_LEARNER_SOURCE_H
#define REEVE_POOL_LEARNER_SOURCE_H

#include "pool/disk.h"
#include "pool/learner_wire.h"
#include "pool/snapfile.h"

enum source_state {
	SOURCE_NONE,
	SOURCE_LOADING,
	SOURCE_LOADED, /* rc, before_term are to be looked at; then SEGMENT */
	SOURCE_SEGMENT,
	SOURCE_SNAPSHOT,
};

enum { SOURCE_LOADS = 8 }; /* segments held at once, of all learners */

struct source_load;
struct source_snapshot;

struct source {
	enum source_state state;
	int rc; /* of the load: RV_ENOENT: the entries are not on disk */
	struct source_load *load;
	uint8_t *bytes;	      /* of the segment; owned */
	size_t len, at;	      /* at: about where the next entry is */
	uint64_t before_term; /* of the entry that source_load was given; 0: unknown */
	struct source_snapshot *snapshot;
};

void source_init(struct source *s);
/* Lets go of everything; harmless when nothing is held. *loads: segments held by all. */
void source_close(struct source *s, int *loads);

/* Begins to read the segment with entry `index`, the last that the learner has, or where
 * `after` says so the one with index + 1. `wake` is started when done. RV_ELIMIT: too
 * many are held already. */
int source_load(struct source *s, struct disk *d, uint64_t index, bool after, int *loads,
	struct defer *wake) RV_MUST_CHECK;

/* Entry `index` of a loaded segment, looked for from *at on, which moves behind it. */
bool source_entry(
	const struct source *s, uint64_t index, size_t *at, struct feed_entry *e);

/* The snapshot of entry `index` is read, unless another learner has it already. RV_ENOENT
 * with index 0. */
int source_snapshot(struct source *s, struct list *all, struct disk *d, uint64_t index,
	struct defer *wake) RV_MUST_CHECK;
/* 0: *file is whole; RV_EAGAIN: still being read; else it can't be. */
int source_file(const struct source *s, const struct snapfile **file) RV_MUST_CHECK;

/* Frees what no job is reading any more; after disk_quiesce. */
void source_forget(struct list *all);

#endif
