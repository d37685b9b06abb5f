/*
 * A hash map from byte strings (names, UUIDs, numbers) to borrowed pointers: open
 * addressing, linear probing, XXH3 with a seed of its own per map so that a peer who
 * chooses the keys can't choose the collisions.
 *
 * Keys are borrowed: they must stay where they are while the entry is in the map, so they
 * usually live inside the value.
 */
#ifndef REEVE_BASE_MAP_H
#define REEVE_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct map_slot {
	uint64_t hash;
	const void *key; /* NULL: the slot is empty */
	size_t key_len;
	void *value;
};

struct map {
	struct map_slot *slots;
	size_t size;  /* a power of two, or 0 before the first insert */
	size_t count; /* entries held */
	uint64_t seed;
};

void map_init(struct map *m, uint64_t seed);
void map_fini(struct map *m); /* the values are not touched */

/* The value, or NULL. */
void *map_get(const struct map *m, const void *key, size_t key_len);

/* Adds an entry; RV_EEXIST if the key is there already, RV_ENOMEM. value must not be
 * NULL. */
int map_add(struct map *m, const void *key, size_t key_len, void *value) RV_MUST_CHECK;

/* Removes and returns the value, or NULL if it was not there. */
void *map_remove(struct map *m, const void *key, size_t key_len);

/* Visits every entry once, in no order, while the map does not change: start with
 * *cursor = 0; NULL ends. */
void *map_next(const struct map *m, size_t *cursor);

#endif
