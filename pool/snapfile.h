/*
 * Snapshot files: FRAME_SNAP_CHUNK frames in a chain, then one FRAME_SNAP_TAIL with what
 * the snapshot stands for. Written under a temporary name, synced, renamed: a file named
 * as a snapshot is whole, or damaged later. Blocking; for jobs of the bulk lane.
 */
#ifndef REEVE_POOL_SNAPFILE_H
#define REEVE_POOL_SNAPFILE_H

#include <raft.h>

#include "pool/disk.h"

#define SNAPFILE_TEMP "snapshot.tmp"
enum { SNAPFILE_CHUNK = 256 << 10, SNAPFILE_KEEP = 2 };

char *snapfile_name(char name[static DISK_NAME_MAX], uint64_t index);
bool snapfile_parse_name(const char *name, uint64_t *index);

struct snapfile_writer {
	struct disk *disk;
	struct disk_file *file;
	uint64_t offset, link, chunks, bytes;
};

int snapfile_begin(
	struct snapfile_writer *w, struct disk *d, struct rv_error *e) RV_MUST_CHECK;
/* Any length up to RV_MAX_ENTRY_BYTES. */
int snapfile_chunk(struct snapfile_writer *w, const void *bytes, size_t len,
	struct rv_error *e) RV_MUST_CHECK;
/* Durable under its name on return; then removes all older ones but SNAPFILE_KEEP - 1.
 * *older: the index of the last of those left, before which the log is
 * not needed; 0: all of the log is. *kept: bytes of all. The writer is spent. */
int snapfile_commit(struct snapfile_writer *w, const struct raft_snapshot *meta,
	uint64_t *older, uint64_t *kept, struct rv_error *e) RV_MUST_CHECK;
void snapfile_abort(struct snapfile_writer *w); /* harmless on a spent or zero writer */

struct snapfile {
	uint8_t *bytes; /* owned */
	size_t len;
	uint64_t index, term, conf_index;
	struct raft_configuration conf; /* owned */
	uint64_t data_bytes;
};

/* Reads and checks a whole file; heals and counts damaged bytes. RV_ECORRUPT names file
 * and offset. */
int snapfile_read(struct snapfile *s, struct disk *d, const char *name, unsigned *healed,
	struct rv_error *e) RV_MUST_CHECK;
void snapfile_fini(struct snapfile *s); /* harmless on a zero one */

/* Walks the chunks: start with *at = 0; false at the end. *chunk is borrowed. */
bool snapfile_next(
	const struct snapfile *s, size_t *at, const uint8_t **chunk, size_t *len);

#endif
