/*
 * A growable byte buffer with a cap. Bytes are consumed at the front and appended at the
 * back; memory is kept for reuse until buf_fini.
 */
#ifndef REEVE_BASE_BUF_H
#define REEVE_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct buf {
	uint8_t *base;
	size_t start, end; /* the bytes held are base[start..end) */
	size_t size;	   /* allocated */
	size_t cap;	   /* never holds more than this */
};

void buf_init(struct buf *b, size_t cap);
void buf_fini(struct buf *b);

static inline size_t buf_len(const struct buf *b)
{
	return b->end - b->start;
}

/* Borrowed: valid until the next call that appends. */
static inline uint8_t *buf_data(const struct buf *b)
{
	return b->base ? b->base + b->start : NULL; /* NULL + 0 is undefined */
}

/* Makes room for `n` more bytes and points *room at it; RV_ETOOBIG beyond the cap. The
 * bytes count only after buf_commit. */
int buf_reserve(struct buf *b, size_t n, uint8_t **room) RV_MUST_CHECK;
void buf_commit(struct buf *b, size_t n);

int buf_append(struct buf *b, const void *data, size_t n) RV_MUST_CHECK;
int buf_printf(struct buf *b, const char *fmt, ...) RV_PRINTF(2, 3) RV_MUST_CHECK;

/* Drops `n` bytes at the front; n must not exceed buf_len. */
void buf_consume(struct buf *b, size_t n);

#endif
