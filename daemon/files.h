/* Small files, read whole and replaced whole. For the daemon's start, not for callbacks.
 */
#ifndef REEVE_DAEMON_FILES_H
#define REEVE_DAEMON_FILES_H

#include <stddef.h>

#include "base/error.h"

enum { FILES_MAX_BYTES = 1 << 20 };

/* Returned owned, NUL-terminated; NULL: it is not there or can't be read (errno says). */
char *files_read(const char *path);

/* Durably, mode 0600: a temporary file, synced, renamed. */
int files_write(const char *path, const void *bytes, size_t len,
	struct rv_error *e) RV_MUST_CHECK;

/* Makes names that changed in it durable. */
int files_sync_directory(const char *path, struct rv_error *e) RV_MUST_CHECK;

/* As mkdir -p; `mode` for the last one. */
int files_make_directory(
	const char *path, unsigned mode, struct rv_error *e) RV_MUST_CHECK;

#endif
