/*
 * A token bucket: how many bytes may go now so that no more than `bytes_per_s` go on
 * average, in bursts of a tenth of a second. Pure.
 */
#ifndef REEVE_MIGRATE_BUCKET_H
#define REEVE_MIGRATE_BUCKET_H

#include <stdint.h>

struct bucket {
	uint64_t bytes_per_s; /* 0: no limit */
	double tokens;
	int64_t at_us;
};

void bucket_init(struct bucket *b, uint64_t bytes_per_s, int64_t now_us);

/* How many bytes may go now; UINT64_MAX without a limit. */
uint64_t bucket_allows(struct bucket *b, int64_t now_us);
/* So many went; more than was allowed is paid back later. */
void bucket_take(struct bucket *b, uint64_t bytes);
/* In how many microseconds `bytes` will be allowed; 0: now. */
int64_t bucket_wait_us(const struct bucket *b, uint64_t bytes);

#endif
