/*
 * The log's files for writing: segments named by their first entry, each a FRAME_SEGMENT
 * and then entries, in a chain that runs on from segment to segment. All functions block:
 * they are for jobs of the log lane, which alone touch a struct segments once it is open.
 *
 * A segment comes to its name only when its first entries are synced in it, so no named
 * segment has a torn beginning; only the last one can have a torn end.
 */
#ifndef REEVE_POOL_SEGMENTS_H
#define REEVE_POOL_SEGMENTS_H

#include <raft.h>

#include "base/buf.h"
#include "pool/disk.h"
#include "pool/slots.h"

#define SEGMENTS_META  "meta"
#define SEGMENTS_MARK  "mark"
#define SEGMENTS_SPARE "next-segment"

struct segment {
	uint64_t first, last; /* entries */
	uint64_t bytes;	      /* used */
};

struct segments {
	struct disk *disk;
	uint64_t segment_bytes;
	struct segment *at; /* oldest first */
	size_t count, size;
	struct disk_file *file; /* the last one, open; NULL: the next append begins one */
	struct disk_file *spare; /* set aside for the next one */
	struct disk_file *mark_file;
	struct slots mark;
	uint64_t offset; /* in file: where the next frame goes */
	uint64_t link;	 /* of the last frame */
	uint64_t term;	 /* of the last entry */
	uint64_t next;	 /* index of the next entry */
	bool torn;	 /* an append failed half-way */
	struct buf scratch;
};

void segments_init(struct segments *s, struct disk *d, uint64_t segment_bytes);
void segments_fini(struct segments *s); /* writes nothing */

char *segments_name(char name[static DISK_NAME_MAX], uint64_t first);
/* True for a segment's name. */
bool segments_parse_name(const char *name, uint64_t *first);

/* Makes the directory's first files: meta and mark, before any segment. */
int segments_found(struct disk *d, uint64_t server_id, struct rv_error *e) RV_MUST_CHECK;

/* Adds a segment found on disk. */
int segments_add(struct segments *s, const struct segment *found) RV_MUST_CHECK;

/* One batch of an append request; entries are borrowed until the append is through. */
struct segments_batch {
	const struct raft_entry *entries;
	unsigned n;
};

/* Writes and syncs the batches in a row, in one write and one sync unless a new segment
 * begins. After a failure only segments_cut is allowed. */
int segments_append(struct segments *s, const struct segments_batch *batches,
	unsigned count, struct rv_error *e) RV_MUST_CHECK;

/* After any failure: removes, durably, what a failed append left on the disk. */
int segments_cut(struct segments *s, struct rv_error *e) RV_MUST_CHECK;

/* Removes the entries from `index` on. */
int segments_truncate(
	struct segments *s, uint64_t index, struct rv_error *e) RV_MUST_CHECK;

/* Removes everything: the log goes on at `next` after a snapshot. */
int segments_reset(struct segments *s, uint64_t next, struct rv_error *e) RV_MUST_CHECK;

/* Removes segments that hold only entries before `keep_from`. */
int segments_prune(
	struct segments *s, uint64_t keep_from, struct rv_error *e) RV_MUST_CHECK;

/* Sets space aside for the next segment. RV_ESPACE. */
int segments_prepare(struct segments *s, struct rv_error *e) RV_MUST_CHECK;

/* Records that all that was appended is on disk. */
int segments_mark(struct segments *s, struct rv_error *e) RV_MUST_CHECK;

/* Bytes that appends may still use without asking the file system for space. */
uint64_t segments_room(const struct segments *s);
uint64_t segments_bytes(const struct segments *s);

#endif
