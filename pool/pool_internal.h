/* What pool.c and pool_upkeep.c share. */
#ifndef REEVE_POOL_POOL_INTERNAL_H
#define REEVE_POOL_POOL_INTERNAL_H

#include "pool/db/snapshot.h"
#include "pool/pool.h"
#include "pool/remote.h"

/* The first byte of an entry; on disk. */
enum pool_entry { POOL_ENTRY_TXN = 1, POOL_ENTRY_HASH = 2 };

/* More than can be under way between a hash entry's making and its turn. */
enum { POOL_HASHES = 8192 };

struct pool_hash {
	uint64_t seq; /* 0: none */
	struct db_hash hash;
};

struct pool {
	struct loop *loop;
	struct disk *disk;
	const struct pool_events *events;
	void *arg;
	struct rlog *log;
	struct remote *remote; /* NULL: alone */
	struct uuid self;

	struct db *db;
	struct db_result result; /* of the entry applied last */
	uint64_t result_index;
	struct snapshot_encoder *encoder;
	struct snapshot_decoder *decoder;
	struct db *restored; /* decoded, not yet in force */
	struct db *old;	     /* being freed in slices */
	struct defer free_old;

	struct list subscribers, waits;
	struct list settling; /* pool_commit.c: unknown outcomes being found out */
	bool freeing;
	struct defer live;
	uint64_t commits, conflicts;

	/* upkeep: hashes, pruning of tasks */
	struct pool_hash *hashes; /* by seq modulo POOL_HASHES */
	uint64_t hash_agreed_seq, hash_told_seq;
	bool hash_differs;
	unsigned hash_entries;
	struct rlog_proposal hash_proposal;
	bool hash_pending;
	struct defer hash_step;
	int64_t task_keep_ms;
	struct timer prune;
	struct pool_commit prune_commit;
	bool prune_pending, stopping;
};

/* pool_commit.c */
void pool_settle_stop(struct pool *pool); /* ends them with RV_EOUTCOME */

/* pool_upkeep.c */
void pool_upkeep_init(struct pool *pool);
void pool_upkeep_stop(struct pool *pool);
void pool_upkeep_look(struct pool *pool); /* this host may be master now */
void pool_hash_note(struct pool *pool);	  /* an entry was applied */
void pool_hash_check(struct pool *pool, const uint8_t *bytes, size_t len);
void pool_hash_forget(struct pool *pool);

/* pool.c: rlog_clash in words; false: there is none. */
enum { POOL_CLASH_WORDS = 400 };
bool pool_clash_words(const struct pool *pool, char words[static POOL_CLASH_WORDS]);

#endif
