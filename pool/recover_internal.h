/* What recover.c (the whole, snapshots) and recover_log.c (segments) share. */
#ifndef REEVE_POOL_RECOVER_INTERNAL_H
#define REEVE_POOL_RECOVER_INTERNAL_H

#include "pool/recover.h"

#define RECOVER_REJOIN                                                                   \
	"remove this host from the pool and let it join again, or restore the "          \
	"directory from a backup"

/* The files of a log's directory. */
struct recover_listing {
	uint64_t *segments, *snapshots; /* ascending */
	size_t segment_count, snapshot_count;
	uint64_t snapshot_bytes;
	bool meta, mark, failed;
	char junk[16][DISK_NAME_MAX]; /* temporary files of an earlier life */
	size_t junk_count;
};

/* Reads the entries of all segments that count into *r. */
int recover_read_segments(struct recovered *r, struct disk *d,
	const struct recover_listing *l, const struct recover_config *config,
	struct rv_error *e) RV_MUST_CHECK;
/* Copies an entry to the end of r->entries, of which *room are allocated. */
int recover_keep_entry(struct recovered *r, size_t *room, const struct frame *f,
	const uint8_t *body, struct rv_error *e) RV_MUST_CHECK;
void recover_forget_entries(struct recovered *r);

#endif
