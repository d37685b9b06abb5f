/*
 * A number kept within bounds.
 */
#ifndef REEVE_BASE_WITHIN_H
#define REEVE_BASE_WITHIN_H

#include <stdint.h>

/* `v`, or the bound that it is beyond; least <= most. */
static inline int64_t within(int64_t v, int64_t least, int64_t most)
{
	if (v < least)
		return least;
	return v > most ? most : v;
}

#endif
