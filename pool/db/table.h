/*
 * A hash table whose nodes live in what they index, so that adding and removing can't
 * fail: committing an entry has no way back. Several nodes may have the same key.
 */
#ifndef REEVE_POOL_DB_TABLE_H
#define REEVE_POOL_DB_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct table_node {
	struct table_node *next,
		**link; /* link: what points to this node; NULL: not in */
	uint64_t hash;
};

struct table {
	struct table_node **buckets;
	size_t size; /* a power of two */
	size_t count;
	uint64_t seed;
};

int table_init(struct table *t, uint64_t seed) RV_MUST_CHECK; /* RV_ENOMEM */
void table_fini(struct table *t); /* the nodes are not touched */

/* Makes it as large as `count` nodes need, at once. Only while it is empty. RV_ENOMEM. */
int table_reserve(struct table *t, size_t count) RV_MUST_CHECK;

uint64_t table_hash(const struct table *t, const void *key, size_t len);

/* Grows where memory allows; without, the table only gets slower. */
void table_add(struct table *t, struct table_node *node, uint64_t hash);
void table_remove(struct table *t, struct table_node *node); /* harmless if not in */

/* The first node with that hash, and the next one after `node`; the caller compares keys.
 */
struct table_node *table_first(const struct table *t, uint64_t hash);
struct table_node *table_next(const struct table_node *node);

#endif
