/*
 * pool.level: what every member understands. An entry may hold what a version of the
 * schema added once the level has reached it (pool/db/schema.h); a host of an older
 * version would stop there. The master raises the level when each host has recorded that
 * its software knows more. It never goes down, so a host whose software is put back to
 * an older version than the pool's level applies nothing more, and says so.
 */
#ifndef REEVE_DAEMON_LEVEL_H
#define REEVE_DAEMON_LEVEL_H

#include "daemon/daemon.h"

/* The level to raise the pool to, by a master that understands `own`; 0: none. A host
 * that was declared dead is not waited for. Pure. */
int level_due(const struct db *db, int own);

/* For daemon/follow.c. */
void level_look(struct daemon *d);

#endif
