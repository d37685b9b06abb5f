/*
 * Claims on a VDI: who has it active, as text, one line per claim, and who may join them.
 * Pure. Drivers differ in where they keep the text.
 *
 *	write|read|copy HOLDER HOST GENERATION
 */
#ifndef REEVE_STORAGE_CLAIM_H
#define REEVE_STORAGE_CLAIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"

enum claim_mode { CLAIM_WRITE, CLAIM_READ, CLAIM_COPY };
enum { CLAIMS_MAX = 256, CLAIM_LINE_MAX = 128 };

struct claim {
	enum claim_mode mode;
	struct uuid holder, host;
	uint64_t generation;
};

struct claims {
	struct claim list[CLAIMS_MAX];
	size_t count;
};

/* RV_ECORRUPT. Nothing, or nothing but NULs (power failure), is no claim. */
int claims_parse(struct claims *c, const char *text, size_t len) RV_MUST_CHECK;
/* `text` has room for count * CLAIM_LINE_MAX + 1. */
void claims_format(const struct claims *c, char *text);

/* Adds `want`, replacing what the same holder had on the same host, and on others up to
 * void_generation. RV_EBUSY with *who in the way, RV_ESTALE, RV_ELIMIT. On failure *c has
 * lost at most claims that are void. */
int claims_add(struct claims *c, const struct claim *want, uint64_t void_generation,
	struct claim *who) RV_MUST_CHECK;
/* Removes those of holder on host; true when there were any. RV_ESTALE in *rc, with *who,
 * when one is of a newer generation: then nothing is removed. */
bool claims_drop(struct claims *c, const struct uuid *holder, const struct uuid *host,
	uint64_t generation, int *rc, struct claim *who);
/* Removes the "copy" claims of a host; true when there were any. */
bool claims_drop_copies(struct claims *c, const struct uuid *host);
const struct claim *claims_writer(const struct claims *c); /* NULL: nobody */
/* Any claim of the host, or NULL. */
const struct claim *claims_of_host(const struct claims *c, const struct uuid *host);

/* Words for a refusal; returns code. */
int claims_describe(int code, const struct uuid *sr, const struct uuid *vdi,
	const struct claim *who, struct rv_error *e);

#endif
