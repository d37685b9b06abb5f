/*
 * What the database holds of a migration, and the entries that change it. Each is a
 * compare-and-set on (VM, owner generation, migration, phase), so of two that exclude
 * one another the first applied wins and the other changes nothing.
 *
 *	(intent) PREPARE ─► STREAM ─► FINAL ─► COMMITTED ─► RUNNING: the fields are empty
 *	            │          │        │          │
 *	            ╰──────────┴────────┴─ ABORT   ╰─ returning ─► RETURN
 *	                                    │                        │
 *	                                    ▼                        ▼
 *	                                 ABORTED: the source owns it; empty once it runs
 *
 * Pure, but for reading the row it is given.
 */
#ifndef REEVE_MIGRATE_JOURNAL_H
#define REEVE_MIGRATE_JOURNAL_H

#include "pool/pool.h"
#include "xen/hyper.h"

/* As recorded by the intent: enough for either host to find and settle it. */
struct journal {
	struct uuid vm, migration, task;
	struct uuid source, target;
	uint64_t generation;	       /* of the owner, before */
	struct hyper_domain_id domain; /* of the source */
	enum vm_migration_phase phase; /* as of the row read */
	bool returning;		       /* the target gives it back */
};

/* False: no migration is at work on this VM. */
bool journal_read(const struct row *vm, struct journal *j);

/* Where it stands now; `mine` tells one migration from the next. */
enum journal_standing {
	JOURNAL_OPEN,	   /* the source owns it, the stream has not ended */
	JOURNAL_FINAL,	   /* the source owns it, and must not resume it */
	JOURNAL_COMMITTED, /* the target owns it */
	JOURNAL_ABORTED,   /* the source owns it, for good */
	JOURNAL_GONE,	   /* over: whatever was to be settled is settled */
};
enum journal_standing journal_standing(
	const struct db *db, const struct uuid *vm, const struct uuid *mine);

/* Parts of entries; `db` is the database they are proposed against. */
void journal_txn_begin(struct txn *t, const struct journal *j);
void journal_txn_stream(struct txn *t, const struct journal *j);
void journal_txn_final(struct txn *t, const struct journal *j);
/* `id`: the target's domain; its generation is j->generation + 1. */
void journal_txn_commit(const struct db *db, struct txn *t, const struct journal *j,
	const struct hyper_domain_id *id);
void journal_txn_abort(const struct db *db, struct txn *t, const struct journal *j);
void journal_txn_returning(struct txn *t, const struct journal *j);
/* The source's domain again, of generation + 2. */
void journal_txn_return(const struct db *db, struct txn *t, const struct journal *j);
/* To the entry that ends the operation: the fields are emptied. */
void journal_txn_end(struct txn *t, const struct journal *j);

#endif
