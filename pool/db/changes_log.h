/* Remembering deletions and hashes, for pool/db's own use. */
#ifndef REEVE_POOL_DB_CHANGES_LOG_H
#define REEVE_POOL_DB_CHANGES_LOG_H

#include "pool/db/store.h"

/* So that `n` calls of changes_bury can't fail. RV_ENOMEM. */
int changes_reserve(struct db *db, size_t n) RV_MUST_CHECK;

/* Records that the object is about to go, under db->seq. Forgets the oldest deletion when
 * RV_MAX_CHANGE_HISTORY are kept. */
void changes_bury(struct db *db, const struct object *o);

#endif
