/*
 * Reads what is on disk when the log opens, and decides about every damaged byte: healed,
 * cut off as the torn end of an unfinished write, or refused. Never a shorter history
 * than was acknowledged.
 *
 * A frame that is not readable ends the log, as torn, only if nothing proves that it was
 * synced: not the mark, not the `synced` of any other readable frame (those after it
 * included), not a later segment. Everything before that point is kept, acknowledged or
 * not. Blocking; a job of the log lane.
 */
#ifndef REEVE_POOL_RECOVER_H
#define REEVE_POOL_RECOVER_H

#include "pool/segments.h"
#include "pool/snapfile.h"

struct recover_config {
	uint64_t id;
	uint64_t segment_bytes;
	unsigned trailing; /* entries before the snapshot to load */
	const struct raft_configuration *bootstrap; /* borrowed; n 0: wait for a leader */
	/* This server is the only one from now on, with all that its disk holds: a
	 * configuration that says so, of `bootstrap`'s first address, is put behind it,
	 * unless the last one says it already. */
	bool refound;
	uint64_t refound_term; /* the terms before are another life's */
	unsigned *meta_first;  /* see slots_write_both; kept over failures */
	/* What the state machine has applied and must find again (reopening); 0: none. */
	uint64_t applied;
};

struct recovered {
	struct slots meta; /* as it is now on disk */
	struct segments segments;
	bool has_snapshot;
	struct snapfile snapshot;
	uint64_t snapshot_bytes;    /* all snapshot files */
	uint64_t start_index;	    /* of entries */
	struct raft_entry *entries; /* raft_malloc, each buffer too */
	size_t count;
	unsigned healed;    /* damaged bytes put right */
	uint64_t cut_bytes; /* of a torn end */
	char cut_where[128];
};

/* On success *r is to be given to recovered_fini, less what was taken out of it. */
int recover(struct recovered *r, struct disk *d, const struct recover_config *config,
	struct rv_error *e) RV_MUST_CHECK;
void recovered_fini(struct recovered *r);

#endif
