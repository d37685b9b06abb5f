/*
 * A guest's disk files taken into file SRs where they lie. Blocks: for the worker.
 */
#ifndef REEVE_DAEMON_IMPORT_FILES_H
#define REEVE_DAEMON_IMPORT_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/uuid.h"
#include "storage/storage.h"

enum { IMPORT_WORDS = 160 };

/* One SR that the host has attached. */
struct import_sr {
	struct uuid uuid;
	char location[STORAGE_PATH_MAX];
};

struct import_file {
	char path[STORAGE_PATH_MAX]; /* as the configuration names it */
	struct uuid vdi;	     /* the caller's choice; changed where it is one */
	size_t sr;		     /* index of the SR that it lies in */
	uint64_t size;
	char was[STORAGE_PATH_MAX]; /* where it lay; a link is there now */
	bool linked;		    /* it is VDI.raw in the SR now */
	bool is_vdi;		    /* it had that name already */
	char why[IMPORT_WORDS];	    /* empty: taken; else why not */
};

/* Looks at the file and gives it its name in the SR: an SR's files have one name only. A
 * symbolic link stays where it was, so that what names it so still finds it; who has it
 * open notices nothing. */
void import_file_take(struct import_file *f, const struct import_sr *srs, size_t count);

/* Gives it its former name back. */
void import_file_undo(struct import_file *f, const struct import_sr *srs);

#endif
