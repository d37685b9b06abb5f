/*
 * One log entry of an operation, with its outcome found out for sure.
 *
 * A commit can end unknown (the disk failed, the master changed): then a barrier tells
 * when everything that could have been committed is applied, and the database itself
 * answers. Nothing is ever proposed again blindly: what the barrier proves to be lost is.
 */
#ifndef REEVE_VM_VM_ENTRY_H
#define REEVE_VM_VM_ENTRY_H

#include "pool/pool.h"
#include "reactor/loop.h"

struct vm_entry;

/* rc 0: committed. Else nothing was changed: RV_ECONFLICT (an expectation did not hold),
 * RV_ENOTMASTER (nobody leads), RV_ESPACE, ... with words in entry->error. */
typedef void vm_entry_fn(void *arg, uint64_t token, int rc);

/* What the entry is; called again for each attempt, against the database of then. */
typedef void vm_entry_build_fn(void *arg, const struct db *db, struct txn *t);
/* Whether the database shows that it took effect. */
typedef bool vm_entry_holds_fn(void *arg, const struct db *db);

/* Embed it; zeroed before vm_entry_init. */
struct vm_entry {
	struct pool *pool;
	struct loop *loop;
	vm_entry_build_fn *build;
	vm_entry_holds_fn *holds;
	vm_entry_fn *fn;
	void *arg;
	uint64_t token;
	bool persistent, busy, stopped;
	enum vm_entry_next { VM_ENTRY_PROPOSE, VM_ENTRY_FIND_OUT, VM_ENTRY_TELL } next;
	int rc;
	struct rv_error error;
	struct pool_commit commit;
	struct pool_barrier barrier;
	struct timer timer;
};

void vm_entry_init(struct vm_entry *e, struct loop *l, struct pool *pool);

/* Proposes; fn follows, from the loop. `persistent`: what stands in the way of an
 * operation's end (a full disk, no quorum) is waited out, and the entry may use the
 * disk's last reserve; it then ends only with 0, RV_ECONFLICT or another code that says
 * that the entry itself is wrong. */
void vm_entry_commit(struct vm_entry *e, vm_entry_build_fn *build,
	vm_entry_holds_fn *holds, bool persistent, vm_entry_fn *fn, void *arg,
	uint64_t token);

/* No callback follows. The memory must stay until the pool is freed. */
void vm_entry_stop(struct vm_entry *e);

#endif
