/*
 *	commit ──► committed ──────────────────────────────────────────► fn(0)
 *	   │  ╲──► refused ── persistent and it may pass? ── wait ──► commit
 *	   │                   otherwise ──────────────────────────────► fn(rc)
 *	   ╰─────► unknown ──► barrier (again until it is answered) ──► look:
 *	                                           took effect ────────► fn(0)
 *	                                           did not, never will ─► commit
 */
#include "vm/vm_entry.h"

#include <assert.h>

#include "base/log.h"

enum { ENTRY_RETRY_MS = 200 };

static void entry_propose(struct vm_entry *e);
static void entry_find_out(struct vm_entry *e);

static void entry_later(struct vm_entry *e, enum vm_entry_next next, int64_t ms)
{
	e->next = next;
	timer_start_ms(&e->timer, ms);
}

static void entry_end(struct vm_entry *e, int rc)
{
	e->busy = false;
	e->rc = rc;
	if (rc && e->error.code != rc)
		rv_error_set(&e->error, rc, "the database did not take the change");
	e->fn(e->arg, e->token, rc);
}

/* What may pass by itself: waited out by a persistent entry. */
static bool entry_may_pass(int rc)
{
	return rc == RV_ESPACE || rc == RV_ELIMIT || rc == RV_EAGAIN ||
	       rc == RV_ECLOSED || rc == RV_EIO || rc == RV_ENOMEM ||
	       rc == RV_ETIMEDOUT || rc == RV_ENOTMASTER;
}

static void entry_refused(struct vm_entry *e, int rc)
{
	if (e->persistent && entry_may_pass(rc)) {
		log_warn("vm.entry", "rc=%s msg=\"not recorded yet: %s\"",
			rv_error_symbol(rc), e->error.detail);
		entry_later(e, VM_ENTRY_PROPOSE, ENTRY_RETRY_MS);
		return;
	}
	entry_end(e, rc);
}

static void entry_committed(struct pool_commit *c)
{
	struct vm_entry *e = CONTAINER_OF(c, struct vm_entry, commit);

	if (e->stopped)
		return;
	e->error = c->error;
	if (c->rc == RV_EOUTCOME)
		entry_find_out(e);
	else if (c->rc)
		entry_refused(e, c->rc);
	else
		entry_end(e, 0);
}

static void entry_barrier(struct pool_barrier *b, int rc)
{
	struct vm_entry *e = CONTAINER_OF(b, struct vm_entry, barrier);

	if (e->stopped)
		return;
	if (rc) /* until a master answers: it may have taken effect */
		entry_later(e, VM_ENTRY_FIND_OUT, ENTRY_RETRY_MS);
	else if (e->holds(e->arg, pool_db(e->pool)))
		entry_end(e, 0);
	else /* lost with the former master, for good */
		entry_propose(e);
}

static void entry_find_out(struct vm_entry *e)
{
	if (pool_read_barrier(e->pool, &e->barrier, entry_barrier))
		entry_later(e, VM_ENTRY_FIND_OUT, ENTRY_RETRY_MS);
}

static void entry_timer(void *arg)
{
	struct vm_entry *e = arg;

	switch (e->next) {
	case VM_ENTRY_PROPOSE:
		entry_propose(e);
		return;
	case VM_ENTRY_FIND_OUT:
		entry_find_out(e);
		return;
	case VM_ENTRY_TELL:
		entry_refused(e, e->rc);
		return;
	}
}

static void entry_propose(struct vm_entry *e)
{
	const struct db *db = pool_db(e->pool);
	struct txn t;
	int rc;

	e->commit.essential = e->persistent;
	rv_error_clear(&e->error);
	txn_init(&t, db, loop_wall_ms(e->loop));
	e->build(e->arg, db, &t);
	rc = pool_commit(e->pool, &e->commit, &t, entry_committed, &e->error);
	if (rc) {
		e->rc = rc;
		entry_later(e, VM_ENTRY_TELL, 0); /* never inside the call */
	}
}

void vm_entry_init(struct vm_entry *e, struct loop *l, struct pool *pool)
{
	*e = (struct vm_entry){.loop = l, .pool = pool};
	timer_init(&e->timer, l, "vm.entry", entry_timer, e);
}

void vm_entry_commit(struct vm_entry *e, vm_entry_build_fn *build,
	vm_entry_holds_fn *holds, bool persistent, vm_entry_fn *fn, void *arg,
	uint64_t token)
{
	assert(!e->busy && !e->stopped);
	e->busy = true;
	e->build = build;
	e->holds = holds;
	e->persistent = persistent;
	e->fn = fn;
	e->arg = arg;
	e->token = token;
	entry_propose(e);
}

void vm_entry_stop(struct vm_entry *e)
{
	e->stopped = true;
	if (e->loop)
		timer_stop(&e->timer);
}
