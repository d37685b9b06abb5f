/*
 * The pool's witness: a machine that votes and keeps log and database, but runs no VMs
 * and has no hypervisor, storage or network driver (reeved --witness). It is trusted as a
 * host is. What a call would have done on it is refused with the reason; a call asked of
 * it for which it has not the means goes to a host. While it leads, because it alone has
 * the newest entry, it starts nothing and hands over (pool/voters.h).
 */
#ifndef REEVE_DAEMON_WITNESS_H
#define REEVE_DAEMON_WITNESS_H

#include "daemon/call.h"

struct txn;

/* This daemon is one. */
bool witness_is_here(const struct daemon *d);

/* That host is one. */
bool witness_is(const struct row *host);

/* The pool's, or NULL. */
const struct row *witness_of(const struct db *db);

/* Hosts that run VMs. */
size_t witness_count_hosts(const struct db *db);

/* True: the call names a witness as where something is to be done that it can't do. */
bool witness_refuses(const struct call *c, struct rv_error *e);

/* Whether the call needs drivers, which a witness has not. */
bool witness_lacks(const struct schema_method *m);

/* A host for such a call, asked of the witness: the master, else any that is linked. */
bool witness_stand_in(const struct daemon *d, struct uuid *host);

/* Whether one may join beside the hosts that are there. RV_ENOTALLOWED. */
int witness_may_join(const struct db *db, struct rv_error *e) RV_MUST_CHECK;

/* Whether this daemon may start as what its configuration says it is: a member's kind
 * does not change. RV_ENOTALLOWED. */
int witness_may_start(const struct daemon *d, struct rv_error *e) RV_MUST_CHECK;

/* This host's kind, where it is not on record. */
void witness_txn(const struct daemon *d, struct txn *t);

/* For people, where a pool can't bear the loss of a host: what would help; or "". */
const char *witness_advice(const struct db *db);
/* The same behind a refusal for want of a master. */
void witness_advise(const struct db *db, struct rv_error *e);

#endif
