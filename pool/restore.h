/*
 * Feeds a snapshot to the state machine a slice at a time, each from a callback of its
 * own. The new state is built aside; who started it decides about rlog_fsm.restore_end.
 */
#ifndef REEVE_POOL_RESTORE_H
#define REEVE_POOL_RESTORE_H

#include "pool/rlog.h"
#include "pool/snapfile.h"

enum { RESTORE_SLICE = 64 << 10 };

typedef void restore_fn(void *arg, int rc, const struct rv_error *e);

struct restore {
	const struct rlog_fsm *fsm;
	void *fsm_arg;
	const struct snapfile *file; /* the source, or: */
	const uint8_t *bytes;	     /* the rest of a chunk or of the whole */
	size_t len, file_at;
	bool begun, fed;
	struct defer step;
	restore_fn *fn;
	void *arg;
};

/* From a file (borrowed until fn) or, with file NULL, from bytes (borrowed too). After fn
 * with 0, restore_begin and all its slices are done and restore_end is due; after another
 * code it has been called. */
void restore_start(struct restore *r, struct loop *l, const struct rlog_fsm *fsm,
	void *fsm_arg, const struct snapfile *file, const uint8_t *bytes, size_t len,
	restore_fn *fn, void *arg);

/* Idempotent, harmless on a zero struct; drops what was built; fn is not called. */
void restore_cancel(struct restore *r);

/* Ends it after fn said 0: the new state replaces the old one. */
void restore_commit(struct restore *r, uint64_t index, uint64_t term);

#endif
