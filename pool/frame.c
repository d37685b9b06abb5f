#include "pool/frame.h"

#include <string.h>
#include <xxhash.h>

#include "base/limits.h"

/* Offsets in the head. */
enum {
	AT_MAGIC = 0,
	AT_TYPE = 4,
	AT_VERSION = 6,
	AT_LEN = 8,
	AT_ZERO = 12,
	AT_INDEX = 16,
	AT_TERM = 24,
	AT_PREV = 32,
	AT_SYNCED = 40,
	AT_BODY = 48,
	AT_SUM = 56,
	AT_WEIGHTED = 64,
	AT_HASH = 72,
};

enum { MAGIC = 0x314c5652 /* "RVL1" */, VERSION = 1, MAX_BODY = RV_MAX_ENTRY_BYTES + 64 };

static void put(uint8_t *at, uint64_t v, int bytes)
{
	for (int i = 0; i < bytes; i++)
		at[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get(const uint8_t *at, int bytes)
{
	uint64_t v = 0;

	for (int i = 0; i < bytes; i++)
		v |= (uint64_t)at[i] << (8 * i);
	return v;
}

/* A changed byte moves `sum` by its difference, and `weighted` by difference x place. */
static void sums(const uint8_t *body, size_t len, uint64_t *sum, uint64_t *weighted)
{
	uint64_t s = 0, w = 0;

	for (size_t i = len; i > 0; i--) {
		s += body[i - 1];
		w += s;
	}
	*sum = s;
	*weighted = w; /* = the sum of (i + 1) * body[i] */
}

void frame_encode(struct frame *f, const void *body, uint8_t head[FRAME_HEAD_SIZE])
{
	uint64_t sum, weighted;

	sums(body, f->len, &sum, &weighted);
	put(head + AT_MAGIC, MAGIC, 4);
	put(head + AT_TYPE, f->type, 2);
	put(head + AT_VERSION, VERSION, 2);
	put(head + AT_LEN, f->len, 4);
	put(head + AT_ZERO, 0, 4);
	put(head + AT_INDEX, f->index, 8);
	put(head + AT_TERM, f->term, 8);
	put(head + AT_PREV, f->prev, 8);
	put(head + AT_SYNCED, f->synced, 8);
	put(head + AT_BODY, XXH3_64bits(body, f->len), 8);
	put(head + AT_SUM, sum, 8);
	put(head + AT_WEIGHTED, weighted, 8);
	f->link = XXH3_64bits(head, AT_HASH);
	put(head + AT_HASH, f->link, 8);
}

bool frame_head_good(const uint8_t *bytes, struct frame *f)
{
	if (get(bytes + AT_MAGIC, 4) != MAGIC || get(bytes + AT_VERSION, 2) != VERSION ||
		get(bytes + AT_ZERO, 4) != 0 || get(bytes + AT_LEN, 4) > MAX_BODY)
		return false;
	f->link = get(bytes + AT_HASH, 8);
	if (f->link != XXH3_64bits(bytes, AT_HASH))
		return false;
	f->type = (uint16_t)get(bytes + AT_TYPE, 2);
	f->len = (uint32_t)get(bytes + AT_LEN, 4);
	f->index = get(bytes + AT_INDEX, 8);
	f->term = get(bytes + AT_TERM, 8);
	f->prev = get(bytes + AT_PREV, 8);
	f->synced = get(bytes + AT_SYNCED, 8);
	return true;
}

/* The hash itself is hit: it differs from the right one in one byte. */
static bool heal_hash(uint8_t *bytes, struct frame *f)
{
	uint64_t right = XXH3_64bits(bytes, AT_HASH);
	uint64_t wrong = get(bytes + AT_HASH, 8) ^ right;
	uint64_t kept = get(bytes + AT_HASH, 8);

	while (wrong != 0 && (wrong & 0xff) == 0)
		wrong >>= 8;
	if (wrong > 0xff)
		return false;
	put(bytes + AT_HASH, right, 8);
	if (frame_head_good(bytes, f))
		return true;
	put(bytes + AT_HASH, kept, 8);
	return false;
}

static bool heal_head(uint8_t *bytes, struct frame *f)
{
	uint64_t hash = get(bytes + AT_HASH, 8);

	if (heal_hash(bytes, f))
		return true;
	for (int at = 0; at < AT_HASH; at++) {
		uint8_t kept = bytes[at];

		for (int v = 0; v < 256; v++) {
			bytes[at] = (uint8_t)v;
			if (XXH3_64bits(bytes, AT_HASH) == hash &&
				frame_head_good(bytes, f))
				return true;
		}
		bytes[at] = kept;
	}
	return false;
}

static bool heal_body(const uint8_t *head, uint8_t *body, size_t len)
{
	uint64_t sum, weighted;
	int64_t off, place;
	uint8_t kept;

	sums(body, len, &sum, &weighted);
	off = (int64_t)(get(head + AT_SUM, 8) - sum);
	weighted = get(head + AT_WEIGHTED, 8) - weighted;
	if (off == 0 || off < -255 || off > 255 || (int64_t)weighted % off != 0)
		return false;
	place = (int64_t)weighted / off - 1;
	if (place < 0 || (uint64_t)place >= len)
		return false;
	kept = body[place];
	if (kept + off < 0 || kept + off > 255)
		return false;
	body[place] = (uint8_t)(kept + off);
	if (XXH3_64bits(body, len) == get(head + AT_BODY, 8))
		return true;
	body[place] = kept;
	return false;
}

enum frame_verdict frame_parse(uint8_t *bytes, size_t len, struct frame *f)
{
	uint8_t before[FRAME_HEAD_SIZE];
	uint8_t *body = bytes + FRAME_HEAD_SIZE;
	bool healed = false;

	if (len < FRAME_HEAD_SIZE)
		return FRAME_BAD;
	memcpy(before, bytes, sizeof before);
	if (!frame_head_good(bytes, f)) {
		if (!heal_head(bytes, f))
			return FRAME_BAD;
		healed = true;
	}
	if (len - FRAME_HEAD_SIZE < f->len)
		return FRAME_SHORT;
	if (XXH3_64bits(body, f->len) == get(bytes + AT_BODY, 8))
		return healed ? FRAME_HEALED : FRAME_GOOD;
	if (heal_body(bytes, body, f->len))
		return FRAME_HEALED;
	memcpy(bytes, before, sizeof before);
	return FRAME_BAD;
}
