/*
 * Names beside the UUIDs in an error's words: the storage port knows objects by UUID
 * alone.
 */
#ifndef REEVE_DAEMON_NAME_UUIDS_H
#define REEVE_DAEMON_NAME_UUIDS_H

#include "base/error.h"
#include "pool/db/db.h"

/* "VDI 2d00…" becomes "VDI 2d00… (web1 disk 0)", the first time each object is named and
 * as long as there is room. File names are left alone. Pure. */
void name_uuids(const struct db *db, struct rv_error *e);

#endif
