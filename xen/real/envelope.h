/*
 * What stands around libxl's migration stream in a saved domain: whose it is, and sums
 * that tell damage before libxl sees it. Pure.
 *
 * Little-endian:
 *
 *	head	"RVXENSV1", type u32, extra_kib u32, vm 16 bytes, actual_kib u64, sum u64
 *	chunk	length u32 (1 to ENVELOPE_CHUNK_MAX), 0 u32, sum u64, bytes
 *	end	0 u32, 0 u32, sum u64 of the number of bytes in all chunks, u64
 *
 * Each sum is XXH3 (64 bits), seeded with the chunk's number, so that a chunk that is
 * missing or out of place is damage too; the head is number 0.
 */
#ifndef REEVE_XEN_REAL_ENVELOPE_H
#define REEVE_XEN_REAL_ENVELOPE_H

#include "xen/hyper.h"

enum {
	ENVELOPE_HEAD_SIZE = 48,
	ENVELOPE_MARK_SIZE = 16, /* before a chunk's bytes, and the end */
	ENVELOPE_CHUNK_MAX = 256 * 1024,
};

struct envelope_head {
	struct uuid vm;
	enum hyper_type type;
	uint64_t actual_kib; /* when the save began */
	/* What Xen counts for it beyond its own memory (label.h): the same after it. */
	uint32_t extra_kib;
};

/* --- writing --- */

struct envelope_writer {
	uint8_t *bytes;	 /* owned */
	size_t at, len;	 /* what is to be sent is bytes[at..len) */
	uint64_t number; /* of the next chunk */
	uint64_t total;	 /* bytes in chunks */
};

int envelope_writer_init(struct envelope_writer *w) RV_MUST_CHECK; /* RV_ENOMEM */
void envelope_writer_fini(struct envelope_writer *w);		   /* idempotent */

static inline bool envelope_writer_idle(const struct envelope_writer *w)
{
	return w->at == w->len;
}

/* The rest only when idle. Puts the head, one chunk or the end to be sent: the caller
 * takes it from bytes[at..len) and moves `at`. */
void envelope_writer_head(struct envelope_writer *w, const struct envelope_head *head);
/* Where the next chunk's bytes go: ENVELOPE_CHUNK_MAX of room. */
uint8_t *envelope_writer_room(struct envelope_writer *w);
void envelope_writer_chunk(struct envelope_writer *w, size_t n); /* n > 0 are there */
void envelope_writer_end(struct envelope_writer *w);

/* --- reading --- */

enum envelope_step {
	ENVELOPE_MORE,	/* all bytes given are used */
	ENVELOPE_HEAD,	/* r->head is known */
	ENVELOPE_CHUNK, /* r->chunk[0..chunk_len) is good until the next feed */
	ENVELOPE_END,	/* last: nothing more is used */
	ENVELOPE_BAD,	/* `e` says what: RV_ECORRUPT or RV_EPROTO */
};

struct envelope_reader {
	struct envelope_head head;
	const uint8_t *chunk;
	size_t chunk_len;
	/* Its own. */
	uint8_t *bytes; /* owned */
	size_t have;
	bool has_head, ended;
	uint64_t number, total;
};

int envelope_reader_init(struct envelope_reader *r) RV_MUST_CHECK; /* RV_ENOMEM */
void envelope_reader_fini(struct envelope_reader *r);		   /* idempotent */

/* Takes bytes until there is something to tell; *used says how many. */
enum envelope_step envelope_reader_feed(struct envelope_reader *r, const uint8_t *data,
	size_t len, size_t *used, struct rv_error *e);

#endif
