/*
 * Pseudo-random numbers: xoshiro256** 1.0 seeded by splitmix64 (Blackman and Vigna,
 * https://prng.di.unimi.it). Deterministic for a seed; not for secrets, which come from
 * OpenSSL's RAND_bytes.
 */
#ifndef REEVE_BASE_PRNG_H
#define REEVE_BASE_PRNG_H

#include <stdbool.h>
#include <stdint.h>

struct prng {
	uint64_t s[4];
};

void prng_seed(struct prng *p, uint64_t seed);
uint64_t prng_next(struct prng *p);

/* Uniform in [0, bound); bound must not be 0. */
uint64_t prng_below(struct prng *p, uint64_t bound);

/* Uniform in [lo, hi], both included. */
int64_t prng_range(struct prng *p, int64_t lo, int64_t hi);

/* True with a probability of `ppm` in a million. */
bool prng_chance_ppm(struct prng *p, uint32_t ppm);

/* A generator of its own, independent of how `p` is used afterwards. */
struct prng prng_fork(struct prng *p);

#endif
