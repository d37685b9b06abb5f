#include "migrate/bucket.h"

enum { BUCKET_BURSTS_PER_S = 10, BUCKET_US = 1000000 };

static double bucket_size(const struct bucket *b)
{
	return (double)b->bytes_per_s / BUCKET_BURSTS_PER_S;
}

void bucket_init(struct bucket *b, uint64_t bytes_per_s, int64_t now_us)
{
	*b = (struct bucket){.bytes_per_s = bytes_per_s, .at_us = now_us};
	b->tokens = bucket_size(b);
}

uint64_t bucket_allows(struct bucket *b, int64_t now_us)
{
	if (b->bytes_per_s == 0)
		return UINT64_MAX;
	b->tokens += (double)b->bytes_per_s * (double)(now_us - b->at_us) / BUCKET_US;
	if (b->tokens > bucket_size(b))
		b->tokens = bucket_size(b);
	b->at_us = now_us;
	return b->tokens >= 1 ? (uint64_t)b->tokens : 0;
}

void bucket_take(struct bucket *b, uint64_t bytes)
{
	if (b->bytes_per_s)
		b->tokens -= (double)bytes;
}

int64_t bucket_wait_us(const struct bucket *b, uint64_t bytes)
{
	double want = (double)bytes;

	if (b->bytes_per_s == 0)
		return 0;
	/* More than the bucket holds never comes: a full one will do. */
	if (want > bucket_size(b))
		want = bucket_size(b);
	if (b->tokens >= want)
		return 0;
	return (int64_t)((want - b->tokens) * BUCKET_US / (double)b->bytes_per_s) + 1;
}
