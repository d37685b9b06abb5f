/*
 * One pool for another: what of the state directory goes aside, and what takes its place.
 *
 *	joining    db, member          ──►  db.before-join-T, member.before-join-T
 *	           member.next         ──►  member            (identity_write made it)
 *	leaving    db                  ──►  db.left-T
 *	           db.before-join-F, member.before-join-F ──► db, member
 *
 * The daemon writes a plan durably and starts again; its next life carries the plan out
 * before it opens anything. Each step can be repeated, so a crash at any point is
 * finished by the start after it, and what was kept aside is never lost. Where a host
 * has no former database (it founded the pool that it leaves), its next life makes a new
 * pool of its own.
 *
 * Users: daemon/join.c and daemon/eject.c plan, daemon/daemon.c carries out. Blocking.
 */
#ifndef REEVE_DAEMON_TURNOVER_H
#define REEVE_DAEMON_TURNOVER_H

#include <stdint.h>

#include "base/error.h"

enum turnover_kind { TURNOVER_JOIN, TURNOVER_LEAVE };

enum { TURNOVER_WORDS_MAX = 512 };

/* Writes the plan: nothing but a restart may follow. `wall_ms` names what goes aside.
 * `words` (one line): why, for turnover_words in the next life. */
int turnover_plan(const char *state_dir, enum turnover_kind kind, int64_t wall_ms,
	const char *words, struct rv_error *e) RV_MUST_CHECK;

/* Carries out the plan that is there, if any. RV_ECORRUPT: the file says nothing that
 * makes sense; names it. Other errors name file and reason; the next start tries again.
 */
int turnover_carry_out(const char *state_dir, struct rv_error *e) RV_MUST_CHECK;

/* What the last leaving left to be said in the database that is in force now. Returned
 * owned; NULL: nothing. Forgotten once it has been said. */
char *turnover_words(const char *state_dir);
void turnover_forget_words(const char *state_dir);

#endif
