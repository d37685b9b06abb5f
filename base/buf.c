#include "base/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUF_FIRST_SIZE = 256 };

void buf_init(struct buf *b, size_t cap)
{
	*b = (struct buf){.cap = cap};
}

void buf_fini(struct buf *b)
{
	free(b->base);
	*b = (struct buf){.cap = b->cap};
}

int buf_reserve(struct buf *b, size_t n, uint8_t **room)
{
	size_t held = buf_len(b), size;
	uint8_t *base;

	if (n > b->cap || held > b->cap - n)
		return RV_ETOOBIG;
	if (b->size - b->end >= n && b->base)
		goto out;
	/* Move to the front only when that frees at least half: amortised, no thrash. */
	if (b->base && held + n <= b->size && b->start >= b->size / 2) {
		memmove(b->base, buf_data(b), held);
		b->start = 0;
		b->end = held;
		goto out;
	}
	for (size = b->size ? b->size : BUF_FIRST_SIZE; size < held + n;)
		size *= 2;
	base = malloc(size);
	if (!base)
		return RV_ENOMEM;
	if (held)
		memcpy(base, buf_data(b), held);
	free(b->base);
	b->base = base;
	b->size = size;
	b->start = 0;
	b->end = held;
out:
	*room = b->base + b->end;
	return 0;
}

void buf_commit(struct buf *b, size_t n)
{
	assert(n <= b->size - b->end);
	b->end += n;
}

int buf_append(struct buf *b, const void *data, size_t n)
{
	uint8_t *room;
	int rc;

	if (n == 0)
		return 0;
	rc = buf_reserve(b, n, &room);
	if (rc)
		return rc;
	memcpy(room, data, n);
	buf_commit(b, n);
	return 0;
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	uint8_t *room;
	int n, rc;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return RV_EINVAL;
	rc = buf_reserve(b, (size_t)n + 1, &room);
	if (rc)
		return rc;
	va_start(ap, fmt);
	vsnprintf((char *)room, (size_t)n + 1, fmt, ap);
	va_end(ap);
	buf_commit(b, (size_t)n);
	return 0;
}

void buf_consume(struct buf *b, size_t n)
{
	assert(n <= buf_len(b));
	b->start += n;
	if (b->start == b->end)
		b->start = b->end = 0;
}
