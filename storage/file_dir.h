/*
 * The directory of a file SR: names, marker, lock, scan. Everything here blocks and runs
 * on the SR's worker. See storage/file.h for the layout.
 */
#ifndef REEVE_STORAGE_FILE_DIR_H
#define REEVE_STORAGE_FILE_DIR_H

#include "storage/storage.h"

enum {
	FILE_NAME_SIZE = 128,
	FILE_LOCATION_MAX = 400,
	FILE_LOCK_WAIT_MS = 5000,
};

struct file_dir {
	struct uuid sr, host;
	char path[FILE_LOCATION_MAX + 1];
	int fd; /* -1: not open */
	bool read_only;
};

/* What a name in the directory is. */
enum file_kind {
	FILE_FOREIGN,
	FILE_MARKER,
	FILE_LOCK,
	FILE_RAW,
	FILE_QCOW2,
	FILE_CLAIM,
	FILE_NEW, /* uuid: of the host that is making it */
};

enum file_kind file_name_kind(const char *name, struct uuid *uuid);
char *file_name_vdi(const struct uuid *vdi, enum storage_format format,
	char name[static FILE_NAME_SIZE]);
/* ".new.HOST.NAME" */
char *file_name_new(
	const struct file_dir *d, const char *of, char name[static FILE_NAME_SIZE]);

/* Absolute, no control characters, no "..", not too long. */
int file_location_check(const char *path, struct rv_error *e) RV_MUST_CHECK;

/* "SR ... (PATH): WHAT NAME: reason; remedy" from an errno; returns the code. */
int file_error(const struct file_dir *d, struct rv_error *e, int err, const char *what,
	const char *name);

/* d->sr, host and path are set. */
int file_dir_create(struct file_dir *d, struct rv_error *e) RV_MUST_CHECK;
int file_dir_probe(struct file_dir *d, struct storage_probe *probe,
	struct rv_error *e) RV_MUST_CHECK;
/* Opens it for good, checks the marker, removes this host's leftovers. */
int file_dir_attach(struct file_dir *d, struct storage_sr_info *info,
	struct rv_error *e) RV_MUST_CHECK;
void file_dir_close(struct file_dir *d);
int file_dir_destroy(struct file_dir *d, struct rv_error *e) RV_MUST_CHECK;
int file_dir_stat(const struct file_dir *d, struct storage_sr_info *info,
	struct rv_error *e) RV_MUST_CHECK;
/* *vdis is returned owned (free), sorted by UUID. */
int file_dir_scan(const struct file_dir *d, struct storage_sr_info *info,
	struct storage_vdi_info **vdis, size_t *count, struct rv_error *e) RV_MUST_CHECK;

/* Visits each name but "." and ".."; stops at the first error. */
typedef int file_visit_fn(void *arg, const char *name, struct rv_error *e);
int file_dir_each(const struct file_dir *d, file_visit_fn *visit, void *arg,
	struct rv_error *e) RV_MUST_CHECK;

/* The SR's lock, across processes and (NFS) hosts. Returns a descriptor to close, or a
 * code. */
int file_dir_lock(const struct file_dir *d, struct rv_error *e) RV_MUST_CHECK;

/* Writes `text` into NAME by a temporary file and a rename. `exclusive`: EEXIST is an
 * error. `durable`: on disk before it returns. */
int file_dir_write(const struct file_dir *d, const char *name, const char *text,
	bool exclusive, bool durable, struct rv_error *e) RV_MUST_CHECK;
/* Reads a small regular file; *text is returned owned. RV_ENOENT when there is none,
 * RV_ECORRUPT when it is no text; one of zeros alone is empty. */
int file_dir_read(const struct file_dir *d, const char *name, char **text,
	struct rv_error *e) RV_MUST_CHECK;
/* Makes renames and unlinks durable. */
int file_dir_sync(const struct file_dir *d, struct rv_error *e) RV_MUST_CHECK;

#endif
