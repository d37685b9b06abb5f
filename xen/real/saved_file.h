/*
 * A saved domain that the helper itself writes into a file or block device, and reads
 * from it: its bytes pass through no pipe and no daemon.
 *
 *	at + 0		a block with whose domain it is, how long, the table's sum
 *	at + 4096	libxl's migration stream, as it is
 *	behind it	the table: a sum of each SAVED_FILE_PIECE bytes of the stream
 *
 * The block is written last. The sums are taken while the stream is written, from what
 * the kernel has of it, and compared while libxl reads: a damaged, cut or foreign one is
 * refused, and what was restored of it destroyed. Numbers are little-endian. Pure.
 *
 * The sums are XXH64: faster than any disk, and on 64-bit processors without wide vector
 * units too.
 */
#ifndef REEVE_XEN_REAL_SAVED_FILE_H
#define REEVE_XEN_REAL_SAVED_FILE_H

#include "xen/real/envelope.h"

enum {
	SAVED_FILE_HEAD = 4096, /* bytes of the block, and what all begins on */
	SAVED_FILE_PIECE = 1 << 20,
};

struct saved_file {
	struct envelope_head head; /* as of a stream */
	uint64_t stream_bytes;
	uint64_t table_sum;
};

/* Sums that the table has, and where it begins, counted from the block. */
uint64_t saved_file_sums(uint64_t stream_bytes);
uint64_t saved_file_table_at(uint64_t stream_bytes);
/* All of it. UINT64_MAX where that is more than there can be. */
uint64_t saved_file_bytes(uint64_t stream_bytes);

/* Of one piece; of the table, whose sums are in this machine's order before _put, after
 * _get. */
uint64_t saved_file_sum(const void *piece, size_t len, uint64_t number);
uint64_t saved_file_table_put(uint64_t *sums, uint64_t count);
uint64_t saved_file_table_get(uint64_t *sums, uint64_t count);

void saved_file_format(uint8_t block[static SAVED_FILE_HEAD], const struct saved_file *f);
/* RV_EPROTO, RV_ECORRUPT with words; `room`: what the file can hold from the block on. */
int saved_file_parse(struct saved_file *f, const uint8_t block[static SAVED_FILE_HEAD],
	uint64_t room, struct rv_error *e) RV_MUST_CHECK;

#endif
