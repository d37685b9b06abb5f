/*
 * The unit of every file of the log: a head of 80 bytes and a body.
 *
 * The head binds index, term, type, length, the head before it (`prev`, so that frames
 * form a chain), how far the log was known to be on disk when it was written (`synced`),
 * and the body's XXH3; the head's own XXH3 comes last and is the frame's link for the
 * next one.
 *
 * A single damaged byte heals: in the head by trying every byte (80 x 255 hashes of 72
 * bytes), in the body by two sums that give place and difference, both proved by XXH3. So
 * a flipped byte can't be taken for the torn end of an unfinished write. All numbers are
 * little endian. No input or output here.
 */
#ifndef REEVE_POOL_FRAME_H
#define REEVE_POOL_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FRAME_HEAD_SIZE = 80 };

/* On disk: never renumber. 1 to 3 are libraft's entry types. */
enum frame_type {
	FRAME_COMMAND = 1,
	FRAME_BARRIER = 2,
	FRAME_CHANGE = 3,
	FRAME_SEGMENT = 16, /* first in a segment; index: of the entry that follows */
	FRAME_SNAP_CHUNK = 17,
	FRAME_SNAP_TAIL = 18,
	FRAME_META = 19, /* server, term and vote */
	FRAME_MARK = 20, /* how far the log is on disk */
};

struct frame {
	uint16_t type;
	uint32_t len; /* of the body */
	uint64_t index, term;
	uint64_t prev;	 /* link of the frame before; 0: none */
	uint64_t synced; /* entries up to this index were on disk */
	uint64_t link;	 /* this frame's: set by frame_encode and frame_parse */
};

/* Writes the head for `body` into `head` and sets f->link. f->len is body's length. */
void frame_encode(struct frame *f, const void *body, uint8_t head[FRAME_HEAD_SIZE]);

enum frame_verdict {
	FRAME_GOOD,
	FRAME_HEALED, /* a byte of `bytes` was put right */
	FRAME_BAD,    /* `bytes` is as before */
	FRAME_SHORT,  /* the head is good, the body is not all there */
};

/* Reads the frame at the start of `bytes`; its body follows the head. Doesn't look at
 * prev, index, term: that is for the caller. */
enum frame_verdict frame_parse(uint8_t *bytes, size_t len, struct frame *f);

/* Whether an undamaged head is at `bytes` (FRAME_HEAD_SIZE of them). */
bool frame_head_good(const uint8_t *bytes, struct frame *f);

#endif
