/* UUIDs: 16 bytes, written as 36 lower-case characters. The zero UUID means "none". */
#ifndef REEVE_BASE_UUID_H
#define REEVE_BASE_UUID_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/error.h"
#include "base/prng.h"

enum { UUID_TEXT_LEN = 36, UUID_TEXT_SIZE = 37 };

struct uuid {
	uint8_t b[16];
};

#define UUID_NONE ((struct uuid){{0}})

/* A random (version 4) UUID drawn from `prng`. */
struct uuid uuid_random(struct prng *prng);

/* Parses exactly 36 characters, upper or lower case hex; RV_EINVAL for anything else. */
int uuid_parse(struct uuid *out, const char *text, size_t len) RV_MUST_CHECK;

/* Writes 36 characters and a NUL into `text`; returns `text`. */
char *uuid_format(const struct uuid *u, char text[static UUID_TEXT_SIZE]);

static inline int uuid_cmp(const struct uuid *a, const struct uuid *b)
{
	return memcmp(a->b, b->b, sizeof a->b);
}

static inline bool uuid_eq(const struct uuid *a, const struct uuid *b)
{
	return uuid_cmp(a, b) == 0;
}

static inline bool uuid_is_none(const struct uuid *u)
{
	return uuid_eq(u, &UUID_NONE);
}

#endif
