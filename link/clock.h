/*
 * What probes say about a peer's clock and the way to it: pure.
 *
 * A probe leaves at t0 (our clock), arrives at t1 and is answered at t2 (the peer's), and
 * the answer arrives at t3 (ours). The peer's clock is ahead of ours by
 * ((t1 - t0) + (t2 - t3)) / 2, wrong by half the round trip at most (RFC 5905, section 8,
 * on-wire protocol). Of the last CLOCK_SAMPLES the one with the shortest round trip is
 * believed (ibid., section 10, clock filter).
 */
#ifndef REEVE_LINK_CLOCK_H
#define REEVE_LINK_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	CLOCK_SAMPLES = 8,
	/* Wall clocks are read in whole milliseconds: each reading is short by less. */
	CLOCK_RESOLUTION_US = 1000,
	/* Two clocks drift apart by so much while a sample ages (twice RFC 5905's 15
	 * ppm).
	 */
	CLOCK_DRIFT_PPM = 30,
};

struct clock_sample {
	int64_t taken_us; /* our steady clock */
	int64_t rtt_us, offset_us;
};

struct clock_filter {
	struct clock_sample samples[CLOCK_SAMPLES];
	unsigned count, next;
};

struct clock_estimate {
	bool known;
	int64_t rtt_us;	   /* shortest of the recent ones */
	int64_t last_us;   /* the latest */
	int64_t offset_us; /* how far the peer's clock is ahead of ours */
	int64_t error_us;  /* |truth - offset_us| is at most this */
};

/* Samples that the new one contradicts, since a clock was set meanwhile, are forgotten.
 * t0..t3 in ms of UTC; rtt_us by our steady clock, the peer's hold taken off; now_us: our
 * steady clock. False when the numbers can't be true (then nothing changes). */
bool clock_filter_add(struct clock_filter *f, int64_t t0_ms, int64_t t1_ms, int64_t t2_ms,
	int64_t t3_ms, int64_t rtt_us, int64_t now_us);
struct clock_estimate clock_filter_estimate(const struct clock_filter *f, int64_t now_us);

/* The pool's time as seen from one host: the median of how far the hosts' clocks are
 * ahead of its own, 0 for itself among them; so that one clock that is wrong, be it that
 * host's, is found out by the others. Of one or two nobody can tell which is right: 0.
 * Sorts the list. */
int64_t clock_pool_offset_us(int64_t *offsets_us, size_t count);

/* Whether a clock counts as off, from now on: beyond the limit for sure, or, once it was
 * off, not back within three quarters of the limit. `error_us` as in clock_estimate. */
bool clock_is_off(bool was_off, int64_t skew_us, int64_t error_us, int64_t limit_us);

#endif
