#include "base/units.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct unit {
	const char *suffix;
	uint64_t factor;
};

static const struct unit byte_units[] = {
	{"", 1},
	{"B", 1},
	{"KiB", KIB},
	{"K", KIB},
	{"k", KIB},
	{"MiB", MIB},
	{"M", MIB},
	{"m", MIB},
	{"GiB", GIB},
	{"G", GIB},
	{"g", GIB},
	{"TiB", GIB * 1024},
	{"T", GIB * 1024},
	{"t", GIB * 1024},
	{"PiB", GIB *MIB},
	{"P", GIB *MIB},
	{"p", GIB *MIB},
	{"EiB", GIB *GIB},
	{"E", GIB *GIB},
	{NULL, 0},
};

static const struct unit ms_units[] = {
	{"", 1},
	{"ms", 1},
	{"s", 1000},
	{"m", 60000},
	{"h", 3600000},
	{"d", 86400000},
	{NULL, 0},
};

/* A whole number followed by one of the suffixes. */
static int parse_with_units(const char *text, const struct unit *units, uint64_t *out)
{
	uint64_t value = 0;
	const char *p = text;
	bool large = false;

	for (; *p >= '0' && *p <= '9'; p++) {
		uint64_t digit = (uint64_t)(*p - '0');

		large |= value > (INT64_MAX - digit) / 10;
		value = large ? 0 : value * 10 + digit;
	}
	if (p == text)
		return RV_EINVAL;
	for (; units->suffix; units++) {
		if (strcmp(p, units->suffix) != 0)
			continue;
		if (large || value > INT64_MAX / units->factor)
			return RV_ETOOBIG;
		*out = value * units->factor;
		return 0;
	}
	return RV_EINVAL;
}

int units_parse_bytes(const char *text, uint64_t *bytes)
{
	return parse_with_units(text, byte_units, bytes);
}

int units_parse_ms(const char *text, uint64_t *ms)
{
	return parse_with_units(text, ms_units, ms);
}

char *units_format_bytes(uint64_t bytes, char *text, size_t size)
{
	static const char *const suffixes[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	uint64_t whole = bytes, factor = 1;
	size_t i = 0;

	while (whole >= 1024 && i + 1 < sizeof suffixes / sizeof suffixes[0]) {
		whole /= 1024;
		factor *= 1024;
		i++;
	}
	if (bytes % factor == 0)
		snprintf(text, size, "%" PRIu64 "%s", whole, suffixes[i]);
	else
		snprintf(text, size, "%.1f%s", (double)bytes / (double)factor,
			suffixes[i]);
	return text;
}
