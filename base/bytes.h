/*
 * Bytes as others read them: little-endian words of files and messages, hexadecimal text.
 */
#ifndef REEVE_BASE_BYTES_H
#define REEVE_BASE_BYTES_H

#include <stddef.h>
#include <stdint.h>

static inline void bytes_put_le32(uint8_t *at, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t)(v >> (8 * i));
}

static inline uint32_t bytes_get_le32(const uint8_t *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
	       (uint32_t)at[3] << 24;
}

static inline void bytes_put_le64(uint8_t *at, uint64_t v)
{
	bytes_put_le32(at, (uint32_t)v);
	bytes_put_le32(at + 4, (uint32_t)(v >> 32));
}

static inline uint64_t bytes_get_le64(const uint8_t *at)
{
	return bytes_get_le32(at) | (uint64_t)bytes_get_le32(at + 4) << 32;
}

/* Lowercase, 2 * len digits and NUL. Returns `text`. */
static inline char *bytes_hex(const uint8_t *bytes, size_t len, char *text)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++) {
		text[2 * i] = digits[bytes[i] >> 4];
		text[2 * i + 1] = digits[bytes[i] & 15];
	}
	text[2 * len] = '\0';
	return text;
}

#endif
