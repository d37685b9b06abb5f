/*
 * The last entries of a voter's log, in memory, for the learners that keep up: they need
 * not wait for a disk to be read. Follows the log as libraft writes it (append, truncate,
 * reset), so it holds entries that are not committed yet: the reader asks for committed
 * ones only. Embedded in struct rio; loop only.
 */
#ifndef REEVE_POOL_LEARNER_TAIL_H
#define REEVE_POOL_LEARNER_TAIL_H

#include <raft.h>

#include "base/error.h"

enum { TAIL_ENTRIES = 4096, TAIL_BYTES = 4 << 20 };

struct tail_entry {
	uint64_t term;
	uint16_t type;
	size_t len;
	uint8_t *bytes; /* owned by the tail */
};

struct tail {
	struct tail_entry *at; /* a ring of TAIL_ENTRIES; NULL before the first append */
	uint64_t first, next;  /* entries [first, next) are held */
	size_t bytes;
};

void tail_init(struct tail *t, uint64_t next);
void tail_fini(struct tail *t);

/* Copies entries that begin at t->next. Without memory it forgets all: the disk has it.
 */
void tail_append(struct tail *t, const struct raft_entry *entries, unsigned n);
void tail_cut(struct tail *t, uint64_t index); /* drops `index` and what follows */
void tail_reset(struct tail *t, uint64_t next);

/* NULL: not held. Borrowed until the next call that changes the tail. */
const struct tail_entry *tail_get(const struct tail *t, uint64_t index);

#endif
