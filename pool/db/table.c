#include "pool/db/table.h"

#include <assert.h>
#include <stdlib.h>
#include <xxhash.h>

enum { TABLE_FIRST_SIZE = 64 };

int table_init(struct table *t, uint64_t seed)
{
	*t = (struct table){.size = TABLE_FIRST_SIZE, .seed = seed};
	t->buckets = calloc(t->size, sizeof t->buckets[0]);
	return t->buckets ? 0 : RV_ENOMEM;
}

void table_fini(struct table *t)
{
	free(t->buckets);
	*t = (struct table){0};
}

int table_reserve(struct table *t, size_t count)
{
	struct table_node **buckets;
	size_t size = t->size;

	assert(t->count == 0);
	while (size < count)
		size *= 2;
	buckets = calloc(size, sizeof buckets[0]);
	if (!buckets)
		return RV_ENOMEM;
	free(t->buckets);
	t->buckets = buckets;
	t->size = size;
	return 0;
}

uint64_t table_hash(const struct table *t, const void *key, size_t len)
{
	return XXH3_64bits_withSeed(key, len, t->seed);
}

static void table_link(struct table_node **bucket, struct table_node *node)
{
	node->next = *bucket;
	if (node->next)
		node->next->link = &node->next;
	node->link = bucket;
	*bucket = node;
}

static void table_grow(struct table *t)
{
	size_t size = t->size * 2;
	struct table_node **buckets = calloc(size, sizeof buckets[0]);

	if (!buckets)
		return;
	for (size_t i = 0; i < t->size; i++) {
		struct table_node *node = t->buckets[i], *next;

		for (; node; node = next) {
			next = node->next;
			table_link(&buckets[node->hash & (size - 1)], node);
		}
	}
	free(t->buckets);
	t->buckets = buckets;
	t->size = size;
}

void table_add(struct table *t, struct table_node *node, uint64_t hash)
{
	if (t->count >= t->size)
		table_grow(t);
	node->hash = hash;
	table_link(&t->buckets[hash & (t->size - 1)], node);
	t->count++;
}

void table_remove(struct table *t, struct table_node *node)
{
	if (!node->link)
		return;
	*node->link = node->next;
	if (node->next)
		node->next->link = node->link;
	node->link = NULL;
	node->next = NULL;
	t->count--;
}

static struct table_node *table_match(struct table_node *node, uint64_t hash)
{
	while (node && node->hash != hash)
		node = node->next;
	return node;
}

struct table_node *table_first(const struct table *t, uint64_t hash)
{
	return table_match(t->buckets[hash & (t->size - 1)], hash);
}

struct table_node *table_next(const struct table_node *node)
{
	return table_match(node->next, node->hash);
}
