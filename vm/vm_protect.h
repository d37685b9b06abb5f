/*
 * Protected VMs (VM.ha_restart_priority): which are guarded where they run, what the
 * master lets go of when a host's lease is over, and when it asks for the start
 * elsewhere. Pure decisions on the database; daemon/fencing.c and daemon/restart.c, and
 * the simulation of pools, carry them out.
 *
 * VM.ha_armed names the owner generation of the VM and the generation of the pool for
 * which its host has promised to end its domain when the lease runs out. After a change
 * of owner, or a new generation of the pool, there is no promise until the host has given
 * it anew.
 */
#ifndef REEVE_VM_VM_PROTECT_H
#define REEVE_VM_VM_PROTECT_H

#include "pool/db/txn.h"

enum {
	VM_ARMED_SIZE = 64,
	VM_RELEASED_MAX = 32,		 /* VMs in one entry */
	VM_RELEASE_LEFT = 8,		 /* that are named */
	VM_RESTART_AGAIN_MS = 10 * 1000, /* after a start that failed */
};

bool vm_is_protected(const struct row *vm);

/* What VM.ha_armed is while the VM's present domain is armed. */
const char *vm_armed_text(
	const struct db *db, const struct row *vm, char text[static VM_ARMED_SIZE]);
bool vm_is_armed(const struct db *db, const struct row *vm);

/* --- on the host where it runs --- */

/* A pool of one host, which has nowhere to start them. */
bool vm_pool_is_alone(const struct db *db);

/* In a pool of one host nothing is: it would only be ended. */
bool vm_wants_guard(const struct db *db, const struct row *vm);
/* What is armed stays guarded until it is recorded as not so. */
bool vm_is_to_be_guarded(const struct db *db, const struct row *vm);

/* Adds that the VM is armed, or no more; false: it is as it should be. `guarded`: its
 * domain is known to be guarded, under a lease of this generation of the pool; `lost`:
 * nothing has been guarded for so long that the promise can't be kept up. */
bool vm_arm_txn(const struct db *db, const struct row *vm, struct uuid host, bool guarded,
	bool lost, struct txn *t);

/* --- on the master --- */

/* Rows are borrowed from the database. */
struct vm_release {
	const struct row *freed[VM_RELEASED_MAX];
	unsigned freed_count;
	const struct row *left[VM_RELEASE_LEFT]; /* protected, and not armed: they stay */
	unsigned left_count;			 /* all of them */
};

/* Adds that the host's armed VMs are let go of, and those whose start or resume was under
 * way there: to be called when its lease and all that it guarded have ended (and add
 * leases_expect). `entry`: a UUID drawn for the entry. */
void vm_release_txn(const struct db *db, const struct row *host, struct uuid entry,
	int64_t wall_ms, struct vm_release *out, struct txn *t);

/* To an entry by which a VM goes down though nobody ended it: adds that the master is to
 * start it again, if it is protected and nobody is shutting it down, which is expected to
 * stay as it is until then. Returns whether it is due. `entry`: a UUID drawn for the
 * entry. */
bool vm_restart_due_txn(const struct row *vm, struct uuid entry, struct txn *t);

enum vm_restart_what {
	VM_RESTART_WAIT,    /* nothing now */
	VM_RESTART_ASK,	    /* for its start, with VM.ha_restart_task as the request */
	VM_RESTART_STARTED, /* it runs: vm_restart_txn with none */
	VM_RESTART_OVER,    /* somebody else looked after it: the same */
	VM_RESTART_FAILED,  /* `why`; `again`: vm_restart_txn with a new request */
};

struct vm_restart_step {
	enum vm_restart_what what;
	bool resume; /* ASK: it was being resumed, and its memory is on disk still */
	bool again;
	const char *why; /* borrowed */
};

/* A start that was refused before it had a task. */
struct vm_restart_refusal {
	int64_t since_ms; /* so long ago */
	const char *why;
};

/* What to do about a VM whose ha_restart_task is set. `refusal`: of this request; NULL:
 * none. */
struct vm_restart_step vm_restart_look(const struct db *db, const struct row *vm,
	const struct vm_restart_refusal *refusal, int64_t wall_ms);

/* Adds that the request becomes `task`; none: it is over. */
void vm_restart_txn(const struct row *vm, struct uuid task, struct txn *t);

/* Adds that no start is due any more: to the entry by which somebody shuts the VM down or
 * suspends it. Nobody may have seen yet that it ran again. */
void vm_restart_drop_txn(const struct row *vm, struct txn *t);

#endif
