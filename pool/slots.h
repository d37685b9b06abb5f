/*
 * Two copies of one frame in a file, in blocks of their own: server, term and vote
 * (`meta`), and how far the log is known to be on disk (`mark`).
 *
 * meta is written copy by copy with a sync after each: whatever befalls one copy, the
 * other one holds the last acknowledged state. mark is written to the older copy, so one
 * good copy is there at any time; an older mark is still true.
 *
 * After a failed sync the state of one copy on disk is not known, though it reads well
 * from the page cache. The daemon that saw it fail keeps in mind which (`first`); one
 * that starts later can't know, so it writes both files anew before it relies on them
 * (recover.c).
 */
#ifndef REEVE_POOL_SLOTS_H
#define REEVE_POOL_SLOTS_H

#include "pool/disk.h"
#include "pool/frame.h"

struct slots {
	uint64_t seq;	   /* counts writes */
	uint64_t term;	   /* meta: current term; mark: of the entry */
	uint64_t value;	   /* meta: whom it voted for; mark: the entry's index */
	uint64_t identity; /* meta: the server's id; mark: the entry's link */
};

/* Makes the file, replacing an old one. */
int slots_create(struct disk *d, const char *name, enum frame_type type, struct slots *s,
	struct rv_error *e) RV_MUST_CHECK;

/* *first is set to the copy that must be written first next time, if one is worse than
 * the other. RV_ENOENT; RV_ECORRUPT when neither copy is readable. *healed counts
 * repaired and unreadable copies (they are put right by the next write). */
int slots_read(struct disk *d, const char *name, enum frame_type type, struct slots *s,
	unsigned *first, unsigned *healed, struct rv_error *e) RV_MUST_CHECK;

/* Both copies, durable on return. Raises s->seq. *first (0 or 1): the copy to begin with;
 * after a failed sync the one whose state on disk is not known, though it reads well from
 * the page cache: it must be written before the other one is put at risk. */
int slots_write_both(struct disk_file *f, enum frame_type type, struct slots *s,
	unsigned *first, struct rv_error *e) RV_MUST_CHECK;
/* The older copy, durable on return. Raises s->seq. */
int slots_write_one(struct disk_file *f, enum frame_type type, struct slots *s,
	struct rv_error *e) RV_MUST_CHECK;

#endif
