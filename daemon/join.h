/*
 * Joining and leaving a pool.
 *
 * A token is issued by the pool and used once. The joining host proves the token to the
 * master over TLS whose CA it knows by the token's fingerprint; the master checks what
 * the host says of itself, records it, and adds it to the log; the host writes its new
 * identity down, keeps its former database as a backup, and its daemon starts again as a
 * member.
 */
#ifndef REEVE_DAEMON_JOIN_H
#define REEVE_DAEMON_JOIN_H

#include "daemon/call.h"

struct joining;

/* Opens the desk where others ask to join. Returned owned. */
int joining_new(struct joining **out, struct daemon *d, struct rv_error *e) RV_MUST_CHECK;
void joining_free(struct joining *j); /* NULL-safe */

/* Methods. */
void pool_issue_join_token(struct call *c);
void pool_join(struct call *c);

#endif
