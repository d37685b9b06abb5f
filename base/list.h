/* An intrusive doubly-linked list. A node that is in no list points to itself. */
#ifndef REEVE_BASE_LIST_H
#define REEVE_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *prev, *next;
};

#define CONTAINER_OF(pointer, type, member)                                              \
	((type *)((char *)(pointer)-offsetof(type, member)))

#define LIST_FOR_EACH(node, head)                                                        \
	for (struct list *node = (head)->next; node != (head); node = node->next)

/* `node` may be removed (but not its successor) inside the loop. */
#define LIST_FOR_EACH_SAFE(node, head)                                                   \
	for (struct list *node = (head)->next, *node##_next = node->next;                \
		node != (head); node = node##_next, node##_next = node->next)

static inline void list_init(struct list *l)
{
	l->prev = l->next = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_insert_before(struct list *at, struct list *node)
{
	node->prev = at->prev;
	node->next = at;
	at->prev->next = node;
	at->prev = node;
}

static inline void list_push_back(struct list *head, struct list *node)
{
	list_insert_before(head, node);
}

static inline void list_push_front(struct list *head, struct list *node)
{
	list_insert_before(head->next, node);
}

/* Moves all of `from` behind what is in `head`, in their order. */
static inline void list_append_all(struct list *head, struct list *from)
{
	if (list_empty(from))
		return;
	head->prev->next = from->next;
	from->next->prev = head->prev;
	from->prev->next = head;
	head->prev = from->prev;
	list_init(from);
}

/* Harmless on a node that is in no list. */
static inline void list_remove(struct list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}

#endif
