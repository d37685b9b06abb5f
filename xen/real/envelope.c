#include "xen/real/envelope.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static const uint8_t envelope_magic[8] = {'R', 'V', 'X', 'E', 'N', 'S', 'V', '1'};

enum {
	HEAD_TYPE = 8,
	HEAD_EXTRA = 12,
	HEAD_VM = 16,
	HEAD_ACTUAL = 32,
	HEAD_SUM = 40,
	MARK_SUM = 8,
	BUFFER_SIZE = ENVELOPE_MARK_SIZE + ENVELOPE_CHUNK_MAX,
};

static void put(uint8_t *at, uint64_t value, int bytes)
{
	for (int i = 0; i < bytes; i++)
		at[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t get(const uint8_t *at, int bytes)
{
	uint64_t value = 0;

	for (int i = 0; i < bytes; i++)
		value |= (uint64_t)at[i] << 8 * i;
	return value;
}

static uint64_t end_sum(uint64_t total, uint64_t number)
{
	uint8_t text[8];

	put(text, total, 8);
	return XXH3_64bits_withSeed(text, sizeof text, number);
}

/* --- writing --- */

int envelope_writer_init(struct envelope_writer *w)
{
	*w = (struct envelope_writer){.bytes = malloc(BUFFER_SIZE)};
	return w->bytes ? 0 : RV_ENOMEM;
}

void envelope_writer_fini(struct envelope_writer *w)
{
	free(w->bytes);
	w->bytes = NULL;
}

void envelope_writer_head(struct envelope_writer *w, const struct envelope_head *head)
{
	uint8_t *at = w->bytes;

	assert(envelope_writer_idle(w) && w->number == 0);
	memset(at, 0, ENVELOPE_HEAD_SIZE);
	memcpy(at, envelope_magic, sizeof envelope_magic);
	put(at + HEAD_TYPE, (uint64_t)head->type, 4);
	put(at + HEAD_EXTRA, head->extra_kib, 4);
	memcpy(at + HEAD_VM, head->vm.b, sizeof head->vm.b);
	put(at + HEAD_ACTUAL, head->actual_kib, 8);
	put(at + HEAD_SUM, XXH3_64bits_withSeed(at, HEAD_SUM, 0), 8);
	w->at = 0;
	w->len = ENVELOPE_HEAD_SIZE;
	w->number = 1;
}

uint8_t *envelope_writer_room(struct envelope_writer *w)
{
	assert(envelope_writer_idle(w));
	return w->bytes + ENVELOPE_MARK_SIZE;
}

static void mark(struct envelope_writer *w, size_t n, uint64_t sum)
{
	put(w->bytes, n, 4);
	put(w->bytes + 4, 0, 4);
	put(w->bytes + MARK_SUM, sum, 8);
	w->number++;
	w->at = 0;
	w->len = ENVELOPE_MARK_SIZE + n;
}

void envelope_writer_chunk(struct envelope_writer *w, size_t n)
{
	assert(envelope_writer_idle(w) && n > 0 && n <= ENVELOPE_CHUNK_MAX);
	w->total += n;
	mark(w, n, XXH3_64bits_withSeed(w->bytes + ENVELOPE_MARK_SIZE, n, w->number));
}

void envelope_writer_end(struct envelope_writer *w)
{
	assert(envelope_writer_idle(w));
	mark(w, 0, end_sum(w->total, w->number));
}

/* --- reading --- */

int envelope_reader_init(struct envelope_reader *r)
{
	*r = (struct envelope_reader){.bytes = malloc(BUFFER_SIZE)};
	return r->bytes ? 0 : RV_ENOMEM;
}

void envelope_reader_fini(struct envelope_reader *r)
{
	free(r->bytes);
	r->bytes = NULL;
}

static enum envelope_step bad(struct rv_error *e, int code, const char *what)
{
	(void)rv_error_set(e, code, "the saved domain's stream is damaged: %s", what);
	return ENVELOPE_BAD;
}

static enum envelope_step read_head(struct envelope_reader *r, struct rv_error *e)
{
	const uint8_t *at = r->bytes;
	uint64_t type = get(at + HEAD_TYPE, 4);

	if (memcmp(at, envelope_magic, sizeof envelope_magic) != 0) {
		(void)rv_error_set(e, RV_EPROTO,
			"this is no domain saved on Xen by this version of Reeve: it "
			"begins otherwise");
		return ENVELOPE_BAD;
	}
	if (get(at + HEAD_SUM, 8) != XXH3_64bits_withSeed(at, HEAD_SUM, 0))
		return bad(e, RV_ECORRUPT, "its head has a wrong sum");
	if (type > HYPER_HVM)
		return bad(e, RV_EPROTO, "its head tells of an unknown kind of domain");
	r->head.type = (enum hyper_type)type;
	memcpy(r->head.vm.b, at + HEAD_VM, sizeof r->head.vm.b);
	r->head.actual_kib = get(at + HEAD_ACTUAL, 8);
	r->head.extra_kib = (uint32_t)get(at + HEAD_EXTRA, 4);
	r->has_head = true;
	r->number = 1;
	return ENVELOPE_HEAD;
}

/* A chunk or the end is here as a whole. */
static enum envelope_step read_chunk(
	struct envelope_reader *r, size_t len, struct rv_error *e)
{
	uint64_t sum = get(r->bytes + MARK_SUM, 8);
	uint64_t number = r->number++;

	if (len == 0) {
		if (sum != end_sum(r->total, number))
			return bad(
				e, RV_ECORRUPT, "its end does not fit what came before");
		r->ended = true;
		return ENVELOPE_END;
	}
	r->chunk = r->bytes + ENVELOPE_MARK_SIZE;
	r->chunk_len = len;
	r->total += len;
	if (sum != XXH3_64bits_withSeed(r->chunk, len, number))
		return bad(e, RV_ECORRUPT, "a chunk has a wrong sum");
	return ENVELOPE_CHUNK;
}

enum envelope_step envelope_reader_feed(struct envelope_reader *r, const uint8_t *data,
	size_t len, size_t *used, struct rv_error *e)
{
	size_t at = 0;

	*used = 0;
	if (r->ended)
		return ENVELOPE_END;
	for (;;) {
		size_t want = r->has_head ? ENVELOPE_MARK_SIZE : ENVELOPE_HEAD_SIZE;
		size_t body = 0, n;

		if (r->has_head && r->have >= want) {
			body = get(r->bytes, 4);
			if (body > ENVELOPE_CHUNK_MAX || get(r->bytes + 4, 4) != 0)
				return bad(
					e, RV_EPROTO, "a chunk has no possible length");
			want += body;
		}
		if (r->have == want) {
			r->have = 0;
			return r->has_head ? read_chunk(r, body, e) : read_head(r, e);
		}
		n = want - r->have < len - at ? want - r->have : len - at;
		if (n == 0)
			return ENVELOPE_MORE;
		memcpy(r->bytes + r->have, data + at, n);
		r->have += n;
		at += n;
		*used = at;
	}
}
