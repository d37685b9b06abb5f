#include "base/map.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { MAP_FIRST_SIZE = 16 };

void map_init(struct map *m, uint64_t seed)
{
	*m = (struct map){.seed = seed};
}

void map_fini(struct map *m)
{
	free(m->slots);
	*m = (struct map){.seed = m->seed};
}

static uint64_t map_hash(const struct map *m, const void *key, size_t key_len)
{
	return XXH3_64bits_withSeed(key, key_len, m->seed);
}

/* The slot that holds the key, or the empty one where it would go. */
static struct map_slot *map_find(
	const struct map *m, uint64_t hash, const void *key, size_t key_len)
{
	size_t i = hash & (m->size - 1);

	for (;; i = (i + 1) & (m->size - 1)) {
		struct map_slot *slot = &m->slots[i];

		if (!slot->key)
			return slot;
		if (slot->hash == hash && slot->key_len == key_len &&
			memcmp(slot->key, key, key_len) == 0)
			return slot;
	}
}

static int map_grow(struct map *m)
{
	struct map grown = {.seed = m->seed, .count = m->count};

	grown.size = m->size ? m->size * 2 : MAP_FIRST_SIZE;
	grown.slots = calloc(grown.size, sizeof grown.slots[0]);
	if (!grown.slots)
		return RV_ENOMEM;
	for (size_t i = 0; i < m->size; i++) {
		struct map_slot *slot = &m->slots[i];

		if (slot->key)
			*map_find(&grown, slot->hash, slot->key, slot->key_len) = *slot;
	}
	free(m->slots);
	*m = grown;
	return 0;
}

void *map_get(const struct map *m, const void *key, size_t key_len)
{
	if (m->count == 0)
		return NULL;
	return map_find(m, map_hash(m, key, key_len), key, key_len)->value;
}

int map_add(struct map *m, const void *key, size_t key_len, void *value)
{
	uint64_t hash = map_hash(m, key, key_len);
	struct map_slot *slot;
	int rc;

	assert(key && value);
	if (m->count + 1 > m->size / 4 * 3) {
		rc = map_grow(m);
		if (rc)
			return rc;
	}
	slot = map_find(m, hash, key, key_len);
	if (slot->key)
		return RV_EEXIST;
	*slot = (struct map_slot){hash, key, key_len, value};
	m->count++;
	return 0;
}

void *map_remove(struct map *m, const void *key, size_t key_len)
{
	struct map_slot *slot;
	size_t hole, i;
	void *value;

	if (m->count == 0)
		return NULL;
	slot = map_find(m, map_hash(m, key, key_len), key, key_len);
	if (!slot->key)
		return NULL;
	value = slot->value;
	/* Close the hole: pull back each follower that may stand at or before it. */
	hole = (size_t)(slot - m->slots);
	for (i = (hole + 1) & (m->size - 1); m->slots[i].key;
		i = (i + 1) & (m->size - 1)) {
		size_t home = m->slots[i].hash & (m->size - 1);

		if (((i - home) & (m->size - 1)) >= ((i - hole) & (m->size - 1))) {
			m->slots[hole] = m->slots[i];
			hole = i;
		}
	}
	m->slots[hole] = (struct map_slot){0};
	m->count--;
	return value;
}

void *map_next(const struct map *m, size_t *cursor)
{
	while (*cursor < m->size) {
		struct map_slot *slot = &m->slots[(*cursor)++];

		if (slot->key)
			return slot->value;
	}
	return NULL;
}
