/*
 * What one entry must do so that the pool's database is again what a dump says. Pure.
 *
 * A dump is of another moment, the machines are as they are now. So
 * - hosts, their interfaces, tasks and messages stay as they are now; of the pool and the
 *   hosts that there are, what people may set (names, settings) is the dump's;
 * - SRs, disks, PBDs and networks of both: none that is there is forgotten, what lies on
 *   storage is not touched; disks that only the dump knows count as missing until a scan
 *   finds them;
 * - VMs with their drives and interfaces, users and secrets are the dump's alone.
 * VMs of the dump are halted, whatever they were: so the restore is refused while any VM
 * is not, or an operation is at work. A VM's owner generation never falls, so a domain of
 * any former time is a ghost at most. The pool's generation becomes another, a number and
 * an id, in the same entry.
 */
#ifndef REEVE_DAEMON_DUMP_PLAN_H
#define REEVE_DAEMON_DUMP_PLAN_H

#include "pool/db/txn.h"

enum { DUMP_WORDS_MAX = 600 };

/* Adds the restore of `then` over `now` to `t`, a message with it, and says in `account`
 * what it makes, changes and loses. `user`: who asked. `generation`, `message`: random.
 * RV_ETOOBIG: it is more than an entry takes, with both sizes; `t` is of no use then.
 * RV_ENOTALLOWED: names what runs or is at work; or the dump is of another pool and
 * `other_pool` is not set. RV_ECORRUPT: the dump contradicts itself or this pool. */
int dump_plan(const struct db *now, const struct db *then, bool other_pool,
	const char *user, struct uuid generation, struct uuid message, struct txn *t,
	char account[static DUMP_WORDS_MAX], struct rv_error *e) RV_MUST_CHECK;

#endif
