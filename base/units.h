/*
 * Sizes and times as people write them. Sizes are powers of 1024 whether written KiB, K
 * or k, as xe reads them; a number alone is bytes (or milliseconds).
 */
#ifndef REEVE_BASE_UNITS_H
#define REEVE_BASE_UNITS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define KIB UINT64_C(1024)
#define MIB (KIB * 1024)
#define GIB (MIB * 1024)

/* "4GiB", "512M", "1073741824". RV_EINVAL on junk or a sign, RV_ETOOBIG: such a size, but
 * more than INT64_MAX. */
int units_parse_bytes(const char *text, uint64_t *bytes) RV_MUST_CHECK;

/* The shortest exact form up to one decimal: "4GiB", "1.5GiB", "17B". At most 15 chars.
 */
char *units_format_bytes(uint64_t bytes, char *text, size_t size);

/* "250ms", "30s", "5m", "24h", "7d", "1500". RV_EINVAL on junk, RV_ETOOBIG as above. */
int units_parse_ms(const char *text, uint64_t *ms) RV_MUST_CHECK;

#endif
