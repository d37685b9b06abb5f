#include "base/uuid.h"

/* Positions of the four dashes in the text form. */
static bool is_dash_position(int i)
{
	return i == 8 || i == 13 || i == 18 || i == 23;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
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
	int nibble = 0;

	if (len != UUID_TEXT_LEN)
		return RV_EINVAL;
	for (int i = 0; i < UUID_TEXT_LEN; i++) {
		int value;

		if (is_dash_position(i)) {
			if (text[i] != '-')
				return RV_EINVAL;
			continue;
		}
		value = hex_value(text[i]);
		if (value < 0)
			return RV_EINVAL;
		if (nibble % 2 == 0)
			u.b[nibble / 2] = (uint8_t)(value << 4);
		else
			u.b[nibble / 2] |= (uint8_t)value;
		nibble++;
	}
	*out = u;
	return 0;
}

char *uuid_format(const struct uuid *u, char text[static UUID_TEXT_SIZE])
{
	static const char digits[] = "0123456789abcdef";
	int nibble = 0;

	for (int i = 0; i < UUID_TEXT_LEN; i++) {
		if (is_dash_position(i)) {
			text[i] = '-';
			continue;
		}
		text[i] = digits[(u->b[nibble / 2] >> (nibble % 2 ? 0 : 4)) & 0xf];
		nibble++;
	}
	text[UUID_TEXT_LEN] = '\0';
	return text;
}
