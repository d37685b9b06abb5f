#include "base/prng.h"

#include <assert.h>

static uint64_t rotl(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

static uint64_t splitmix64(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

void prng_seed(struct prng *p, uint64_t seed)
{
	for (int i = 0; i < 4; i++)
		p->s[i] = splitmix64(&seed);
}

uint64_t prng_next(struct prng *p)
{
	uint64_t *s = p->s;
	uint64_t result = rotl(s[1] * 5, 7) * 9;
	uint64_t t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return result;
}

uint64_t prng_below(struct prng *p, uint64_t bound)
{
	uint64_t threshold, x;

	assert(bound > 0);
	/* Refuse the uneven rest at the bottom so that every value is equally likely. */
	threshold = -bound % bound;
	do {
		x = prng_next(p);
	} while (x < threshold);
	return x % bound;
}

int64_t prng_range(struct prng *p, int64_t lo, int64_t hi)
{
	assert(lo <= hi);
	return lo + (int64_t)prng_below(p, (uint64_t)(hi - lo) + 1);
}

bool prng_chance_ppm(struct prng *p, uint32_t ppm)
{
	return prng_below(p, 1000000) < ppm;
}

struct prng prng_fork(struct prng *p)
{
	struct prng child;

	prng_seed(&child, prng_next(p));
	return child;
}
