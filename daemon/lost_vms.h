/*
 * VMs whose host is gone for good, by an admin's word alone: the entries that let go of
 * them. Pure.
 *
 * Such a VM is halted in the database, whatever its domain does; its owner generation is
 * spent, so that its host, should it come back, knows the domain as a ghost and reports
 * it, instead of taking it for the VM.
 */
#ifndef REEVE_DAEMON_LOST_VMS_H
#define REEVE_DAEMON_LOST_VMS_H

#include "pool/db/txn.h"

enum { LOST_WORDS_MAX = 1000 };

/* Adds the declaration of `host` with all its VMs, and a message (`message`: its UUID).
 * `account`: what was let go of, in words for the one who declared it. */
void lost_host_txn(const struct db *db, const struct row *host, const char *user,
	struct uuid message, int64_t wall_ms, struct txn *t,
	char account[static LOST_WORDS_MAX]);

/* Adds that a host that had been declared dead is back, and a message. */
void lost_host_back_txn(const struct row *host, struct uuid message, struct txn *t);

#endif
