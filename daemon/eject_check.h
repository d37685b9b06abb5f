/*
 * Whether a host may leave the pool, and the entry that takes it out: pure.
 *
 * Nothing is lost by ejecting: what only that host can reach (its local disks, a shared
 * SR plugged nowhere else) and what runs or is at work there stands in the way, by name.
 * XenAPI instead destroys what a host had to itself; that can't be taken back.
 */
#ifndef REEVE_DAEMON_EJECT_CHECK_H
#define REEVE_DAEMON_EJECT_CHECK_H

#include "pool/db/txn.h"

enum { EJECT_REMEMBERED = 256 }; /* certificates of ejected hosts */

/* 0, or every reason against it, each with what to do: RV_ENOTALLOWED; RV_EBUSY where
 * there is nothing but work under way, which ends by itself. `host` must exist. Whether
 * it is the master is not looked at. */
int eject_check(const struct db *db, struct uuid host, struct rv_error *e) RV_MUST_CHECK;

/* Adds to `t`: the host goes, with its PBDs, PIFs, VLANs, bonds and SRs that are empty
 * and its own; tasks that it can't end any more fail; its certificate (`fingerprint` in
 * hexadecimal digits, "" where none is on record: then its UUID) is remembered as
 * ejected. Compare-and-set on the host's joining and on what eject_check saw of its
 * ghosts. `master` is who leads now; `message` the UUID of the message about it. */
void eject_txn(const struct db *db, struct uuid host, const char *fingerprint,
	struct uuid master, struct uuid message, const char *user, int64_t wall_ms,
	struct txn *t);

/* Whether that host, by its UUID, was ejected after a certificate of it was issued
 * (notBefore, seconds since 1970; 0: whenever). */
bool eject_remembers(const struct row *pool, struct uuid host, int64_t issued_s);

#endif
