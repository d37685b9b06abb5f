/*
 * The simulated driver's save stream: a pure encoder and decoder. Both work on whatever
 * piece of the stream there is room or data for, and stop anywhere.
 *
 * The stream is a sequence of records, little-endian:
 *
 *	type u32, length u32 of the body, pages u32, round u32, sum u64 (XXH3 of the 16
 *	bytes before and of the body); body; then `pages` pages of 4096 bytes
 *
 *	HEAD	first: format, vm, the domain's record as it is now
 *	PAGES	body: for each page its number, u64; what a page holds proves itself
 *	STATE	the domain's record as it was suspended, pages sent in the first round
 *	END	last
 *
 * Internal to the simulated driver.
 */
#ifndef REEVE_XEN_SIM_STREAM_H
#define REEVE_XEN_SIM_STREAM_H

#include "xen/sim_guest.h"

enum { SIM_BATCH = 64, SIM_RECORD_HEAD = 24, SIM_BODY_MAX = 1024 };

/* --- encoder --- */

struct sim_encoder {
	const uint8_t *block; /* borrowed */
	uint64_t content_seed;
	bool zero_pages; /* send them in full */

	/* The record on its way. */
	uint8_t head[SIM_RECORD_HEAD + SIM_BODY_MAX];
	size_t head_len, head_at;
	uint64_t pfns[SIM_BATCH];
	uint32_t stamps[SIM_BATCH];
	uint32_t pages, page_at;
	uint8_t bounce[SIM_PAGE]; /* a page that did not fit the room */
	size_t bounce_at;	  /* 0: none begun */

	/* The round at work: round 0 is all pages, the others what writes
	 * [from, to) touched. */
	uint32_t round;
	bool begun, round_open;
	uint64_t cursor, from, to, limit_pfn;
	uint64_t round_pages;
	/* Since the start. */
	uint64_t total_pages, total_bytes, base_pages;
};

void sim_encoder_init(struct sim_encoder *x, const uint8_t *block, bool zero_pages);
/* *r with its clock stopped (sim_stop on a copy), so that it reads the same anywhere. */
void sim_encoder_head(struct sim_encoder *x, const struct sim_record *r);
void sim_encoder_state(struct sim_encoder *x, const struct sim_record *r);
void sim_encoder_end(struct sim_encoder *x);

/* Opens the next round; `writes` is what the guest has done by now. The first sends all
 * of its memory, the next ones what was written since the previous one was opened. */
void sim_encoder_round(
	struct sim_encoder *x, const struct sim_record *r, uint64_t writes);
/* How many pages the next round would send if it were opened now. */
uint64_t sim_encoder_dirty(
	const struct sim_encoder *x, const struct sim_record *r, uint64_t writes);

/* Writes up to `room` bytes of the records asked for so far and returns how many. Less
 * than `room`: nothing is left (ask for the next), except that a long stretch of zero
 * pages ends a call early: see sim_encoder_idle. `r` and `writes`: the guest now. */
size_t sim_encoder_fill(struct sim_encoder *x, const struct sim_record *r,
	uint64_t writes, uint8_t *out, size_t room);
/* Everything asked for is written. */
bool sim_encoder_idle(const struct sim_encoder *x);

/* --- decoder --- */

enum sim_decoder_step {
	SIM_DECODER_MORE, /* all bytes given are consumed */
	SIM_DECODER_HEAD, /* the domain is known: x->record; decide and go on */
	SIM_DECODER_DONE, /* x->record is the suspended domain, damage counted */
	SIM_DECODER_ERROR,
};

struct sim_decoder {
	const uint8_t *block; /* borrowed */
	struct sim_record record;
	bool has_head, has_state;

	uint8_t head[SIM_RECORD_HEAD + SIM_BODY_MAX];
	size_t head_len, head_at; /* head_len 0: the body's length is not known yet */
	uint64_t pfns[SIM_BATCH];
	uint32_t pages, page_at;
	uint8_t bounce[SIM_PAGE];
	size_t bounce_at;

	uint32_t *stamps; /* what each page held when it last came; owned */
	uint64_t page_count, base_pages, total_bytes;
	uint64_t wrong_pages; /* that can't have come from this guest */
};

void sim_decoder_init(struct sim_decoder *x, const uint8_t *block);
void sim_decoder_fini(struct sim_decoder *x);

/* Takes bytes; *used says how many. `e` says what is wrong and where. */
enum sim_decoder_step sim_decoder_feed(struct sim_decoder *x, const uint8_t *data,
	size_t len, size_t *used, struct rv_error *e);

#endif
