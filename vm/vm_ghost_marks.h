/*
 * What the whole pool knows of ghosts: VM.ghosts. A domain that bears a VM's mark, and is
 * not the VM (the pool let go of its host, which was alive after all), keeps that VM from
 * being started anywhere, since both would write to the same disks. So each host keeps on
 * record for which VMs it has such domains (its UUID to the domain's number and name),
 * from its look until that domain has ended or was adopted.
 *
 * A record of a host that is no member any more, or counts as dead, says nothing: an
 * ejection and host-declare-dead take it out, a host that is back puts it in again.
 */
#ifndef REEVE_VM_VM_GHOST_MARKS_H
#define REEVE_VM_VM_GHOST_MARKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pool/db/txn.h"

struct vm_host;

struct vm_ghost_mark {
	const struct row *host; /* borrowed, as is name */
	uint32_t domid;
	const char *name; /* of the domain */
};

/* The first ghost of the VM that is on record. False: there is none. */
bool vm_ghost_marked(
	const struct db *db, const struct row *vm, struct vm_ghost_mark *mark);
/* Each of them in turn; *at is 0 at first. */
bool vm_ghost_marked_at(const struct db *db, const struct row *vm, unsigned *at,
	struct vm_ghost_mark *mark);
/* The same on one host, whatever became of it. */
bool vm_ghost_marked_on(const struct row *vm, struct uuid host);

/* Adds to `t`: the host has no ghost of that VM (nothing, where none was on record), or
 * of any VM. */
void vm_ghost_unmark_txn(
	const struct db *db, struct uuid vm, struct uuid host, struct txn *t);
void vm_ghost_unmark_all_txn(const struct db *db, struct uuid host, struct txn *t);

/* Expects that no ghost of the VM was found since `seen`, a row of it, was read, and that
 * what counted for nothing then still does. */
void vm_ghost_expect(const struct db *db, const struct row *seen, struct txn *t);

/* Adds to `t`, which records ghosts that the host has found: one report more of it, and
 * it is the next one after those that the database has. */
void vm_ghost_reported_txn(const struct db *db, struct uuid host, struct txn *t);
/* Expects that the host has reported no ghost, of whatever VM, since its row was read. */
void vm_ghost_expect_no_report(const struct row *host, struct txn *t);

/* --- for vm_ghosts.c --- */

void vm_ghost_marks_init(struct vm_host *h);
void vm_ghost_marks_stop(struct vm_host *h);
void vm_ghost_marks_fini(struct vm_host *h);

/* The VM's ghost here is gone, or may be: to be compared by the next vm_ghost_marks. */
void vm_ghost_mark_due(struct vm_host *h, struct uuid vm);
/* The same for whatever is on record of this host. */
void vm_ghost_marks_due_all(struct vm_host *h);

/* Compares h->ghosts with what is on record, and records what differs. */
void vm_ghost_marks(struct vm_host *h);

#endif
