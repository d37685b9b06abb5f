/*
 * Lives of a pool's log. Where the quorum was lost for good, one host's log goes on as
 * another life of the pool, beside hosts that may go on with the former one. The terms of
 * each life are its own, so that an entry's (index, term) never names two entries, and a
 * term says which life is meant: by the generation's number that the life began with, 0
 * for a pool that never was founded anew. Pure.
 */
#ifndef REEVE_POOL_LIFE_H
#define REEVE_POOL_LIFE_H

#include <stdbool.h>
#include <stdint.h>

enum { LIFE_TERM_BITS = 24 }; /* 16 million elections */

/* Below the first term of the life that begins with generation `number` (0: none). */
static inline uint64_t life_base(uint64_t number)
{
	return number << LIFE_TERM_BITS;
}

static inline bool life_same(uint64_t term, uint64_t other)
{
	return term >> LIFE_TERM_BITS == other >> LIFE_TERM_BITS;
}

/* The base of a term's own life. */
static inline uint64_t life_base_of(uint64_t term)
{
	return term >> LIFE_TERM_BITS << LIFE_TERM_BITS;
}

#endif
