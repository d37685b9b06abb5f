#include "base/uuid.h"

/* Position of each byte's two digits in the text form. */
static const uint8_t digits_at[16] = {
	0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};

/* Value of a hex digit, a number above 15 of any other character. */
static uint8_t hex_value(char c)
{
	static const uint8_t values[256] = {['0'] = 1,
		['1'] = 2,
		['2'] = 3,
		['3'] = 4,
		['4'] = 5,
		['5'] = 6,
		['6'] = 7,
		['7'] = 8,
		['8'] = 9,
		['9'] = 10,
		['a'] = 11,
		['b'] = 12,
		['c'] = 13,
		['d'] = 14,
		['e'] = 15,
		['f'] = 16,
		['A'] = 11,
		['B'] = 12,
		['C'] = 13,
		['D'] = 14,
		['E'] = 15,
		['F'] = 16};

	return (uint8_t)(values[(unsigned char)c] - 1);
}

struct uuid uuid_random(struct prng *prng)
{
	struct uuid u;
	uint64_t hi = prng_next(prng), lo = prng_next(prng);

	memcpy(u.b, &hi, 8);
	memcpy(u.b + 8, &lo, 8);
	u.b[6] = (u.b[6] & 0x0f) | 0x40; /* version 4 */
	u.b[8] = (u.b[8] & 0x3f) | 0x80; /* RFC 4122 variant */
	return u;
}

int uuid_parse(struct uuid *out, const char *text, size_t len)
{
	struct uuid u;
	uint8_t bad = 0;

	if (len != UUID_TEXT_LEN || text[8] != '-' || text[13] != '-' ||
		text[18] != '-' || text[23] != '-')
		return RV_EINVAL;
#pragma GCC unroll 16
	for (int i = 0; i < 16; i++) {
		uint8_t high = hex_value(text[digits_at[i]]);
		uint8_t low = hex_value(text[digits_at[i] + 1]);

		bad |= high | low;
		u.b[i] = (uint8_t)(high << 4 | low);
	}
	if (bad & 0xf0)
		return RV_EINVAL;
	*out = u;
	return 0;
}

char *uuid_format(const struct uuid *u, char text[static UUID_TEXT_SIZE])
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < 16; i++) {
		text[digits_at[i]] = digits[u->b[i] >> 4];
		text[digits_at[i] + 1] = digits[u->b[i] & 0xf];
	}
	text[8] = text[13] = text[18] = text[23] = '-';
	text[UUID_TEXT_LEN] = '\0';
	return text;
}
