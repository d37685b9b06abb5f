#include "pool/learner_tail.h"

#include <stdlib.h>
#include <string.h>

static struct tail_entry *slot(const struct tail *t, uint64_t index)
{
	return &t->at[index % TAIL_ENTRIES];
}

static void drop_first(struct tail *t)
{
	struct tail_entry *e = slot(t, t->first++);

	t->bytes -= e->len;
	free(e->bytes);
	e->bytes = NULL;
}

void tail_init(struct tail *t, uint64_t next)
{
	*t = (struct tail){.first = next, .next = next};
}

void tail_reset(struct tail *t, uint64_t next)
{
	while (t->first < t->next)
		drop_first(t);
	t->first = t->next = next;
}

void tail_fini(struct tail *t)
{
	tail_reset(t, 0);
	free(t->at);
	t->at = NULL;
}

static bool tail_add(struct tail *t, const struct raft_entry *entry)
{
	struct tail_entry fresh = {
		.term = entry->term, .type = entry->type, .len = entry->buf.len};

	while (t->first < t->next &&
		(t->next - t->first == TAIL_ENTRIES || t->bytes + fresh.len > TAIL_BYTES))
		drop_first(t);
	if (!t->at)
		t->at = calloc(TAIL_ENTRIES, sizeof *t->at);
	fresh.bytes = malloc(fresh.len ? fresh.len : 1);
	if (!t->at || !fresh.bytes) {
		free(fresh.bytes);
		return false;
	}
	if (fresh.len)
		memcpy(fresh.bytes, entry->buf.base, fresh.len);
	*slot(t, t->next++) = fresh;
	t->bytes += fresh.len;
	return true;
}

void tail_append(struct tail *t, const struct raft_entry *entries, unsigned n)
{
	uint64_t next = t->next + n;
	bool ok = true;

	for (unsigned i = 0; i < n && ok; i++)
		ok = tail_add(t, &entries[i]);
	if (!ok)
		tail_reset(t, next);
}

void tail_cut(struct tail *t, uint64_t index)
{
	if (index <= t->first) {
		tail_reset(t, index);
		return;
	}
	while (t->next > index) {
		struct tail_entry *e = slot(t, --t->next);

		t->bytes -= e->len;
		free(e->bytes);
		e->bytes = NULL;
	}
}

const struct tail_entry *tail_get(const struct tail *t, uint64_t index)
{
	return index >= t->first && index < t->next ? slot(t, index) : NULL;
}
