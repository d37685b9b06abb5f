#include "base/uuid.h"

/* Position of each byte's two digits in the text form. */
static const uint8_t digits_at[16] = {
	0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};

/* Value of a hex digit, 0xff of any other character. */
static uint8_t hex_value(char c)
{
	static const uint8_t values[256] = {['1'] = 1,
		['2'] = 2,
		['3'] = 3,
		['4'] = 4,
		['5'] = 5,
		['6'] = 6,
		['7'] = 7,
		['8'] = 8,
		['9'] = 9,
		['a'] = 10,
		['b'] = 11,
		['c'] = 12,
		['d'] = 13,
		['e'] = 14,
		['f'] = 15,
		['A'] = 10,
		['B'] = 11,
		['C'] = 12,
		['D'] = 13,
		['E'] = 14,
		['F'] = 15};
	uint8_t value = values[(unsigned char)c];

	return value || c == '0' ? value : 0xff;
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
	for (int i = 0; i < 16; i++) {
		uint8_t high = hex_value(text[digits_at[i]]);
		uint8_t low = hex_value(text[digits_at[i] + 1]);

		bad |= (high | low) & 0xf0;
		u.b[i] = (uint8_t)(high << 4 | low);
	}
	if (bad)
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
