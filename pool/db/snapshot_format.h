/*
 * The bytes of a snapshot, shared by encoder and decoder.
 *
 *	"REEVESNAP" and zeros to 15 bytes, version (1 byte)
 *	frames: payload length (4, little endian), checksum (8), payload
 *	payloads joined: records of length (4) and msgpack object
 *	    first  [level, seq, wall_ms, objects, hash hi, hash lo]
 *	    then   [class tag, uuid, created_seq, seq, {tag: value}]  in order of creation
 *	    last   [objects]
 *
 * The checksum is XXH3 of length and payload, seeded with the checksum of the frame
 * before (first: 0), so that no frame can be changed, lost, doubled or moved.
 */
#ifndef REEVE_POOL_DB_SNAPSHOT_FORMAT_H
#define REEVE_POOL_DB_SNAPSHOT_FORMAT_H

#include <stdint.h>
#include <string.h>
#include <xxhash.h>

enum {
	SNAPSHOT_VERSION = 1,
	SNAPSHOT_MAGIC_BYTES = 16,
	SNAPSHOT_FRAME_HEAD = 12,
	SNAPSHOT_RECORD_HEAD = 4,
};

static const uint8_t snapshot_magic[SNAPSHOT_MAGIC_BYTES] = {
	'R', 'E', 'E', 'V', 'E', 'S', 'N', 'A', 'P', [15] = SNAPSHOT_VERSION};

static inline void snapshot_put(uint8_t *at, unsigned bytes, uint64_t value)
{
	for (unsigned i = 0; i < bytes; i++)
		at[i] = (uint8_t)(value >> 8 * i);
}

static inline uint64_t snapshot_get(const uint8_t *at, unsigned bytes)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < bytes; i++)
		value |= (uint64_t)at[i] << 8 * i;
	return value;
}

static inline uint64_t snapshot_sum(const uint8_t *payload, size_t len, uint64_t before)
{
	return XXH3_64bits_withSeed(payload, len, before ^ len);
}

#endif
