/*
 * One VDI of a file SR: made, removed, grown, looked at, read, written, copied. All of it
 * blocks and runs on the SR's worker; long copies go in slices.
 */
#ifndef REEVE_STORAGE_FILE_VDI_H
#define REEVE_STORAGE_FILE_VDI_H

#include "storage/file_dir.h"

enum { FILE_SLICE_BYTES = 8 << 20 };

/* Fills *info even when the image is bad (info->problem, and returned as rc too).
 * RV_ENOENT when there is no such file. */
int file_vdi_stat(const struct file_dir *d, const struct uuid *vdi,
	enum storage_format format, struct storage_vdi_info *info,
	struct rv_error *e) RV_MUST_CHECK;
/* In whichever format it exists. */
int file_vdi_find(const struct file_dir *d, const struct uuid *vdi,
	struct storage_vdi_info *info, struct rv_error *e) RV_MUST_CHECK;

/* Success with *there when it exists in this size and format; RV_EEXIST in another. */
int file_vdi_check_new(const struct file_dir *d, const struct uuid *vdi,
	enum storage_format format, uint64_t size, bool *there,
	struct storage_vdi_info *info, struct rv_error *e) RV_MUST_CHECK;
/* Making one: an empty temporary file, then (when it is complete) its name. */
int file_vdi_new_open(const struct file_dir *d, const struct uuid *vdi,
	enum storage_format format, int *fd, struct rv_error *e) RV_MUST_CHECK;
int file_vdi_new_commit(const struct file_dir *d, const struct uuid *vdi,
	enum storage_format format, uint64_t size, struct storage_vdi_info *info,
	struct rv_error *e) RV_MUST_CHECK;
void file_vdi_new_drop(
	const struct file_dir *d, const struct uuid *vdi, enum storage_format format);

int file_vdi_create_raw(const struct file_dir *d, const struct uuid *vdi, uint64_t size,
	struct storage_vdi_info *info, struct rv_error *e) RV_MUST_CHECK;
int file_vdi_destroy(const struct file_dir *d, const struct uuid *vdi,
	struct rv_error *e) RV_MUST_CHECK;
int file_vdi_grow_raw(const struct file_dir *d, const struct uuid *vdi, uint64_t size,
	struct rv_error *e) RV_MUST_CHECK;

void file_vdi_backend(const struct file_dir *d, const struct storage_vdi_info *info,
	bool write, struct storage_backend *out);

/* *got may be less at the end of the VDI; beyond it RV_EINVAL. */
int file_vdi_read(const struct file_dir *d, const struct uuid *vdi, uint64_t offset,
	void *data, size_t len, size_t *got, struct rv_error *e) RV_MUST_CHECK;
/* Blocks of zeros become holes. */
int file_vdi_write(const struct file_dir *d, const struct uuid *vdi, uint64_t offset,
	const void *data, size_t len, bool sync, struct rv_error *e) RV_MUST_CHECK;

/* A raw copy: open, slices until *at == size, close. */
struct file_copy {
	int in, out; /* -1: not open */
	uint64_t size, at, unsynced;
	bool no_offload; /* copy_file_range does not work between these two */
};

int file_copy_open(struct file_copy *c, const struct file_dir *from,
	const struct uuid *vdi, const struct file_dir *to, const struct uuid *target,
	struct rv_error *e) RV_MUST_CHECK;
int file_copy_slice(
	struct file_copy *c, const struct file_dir *to, struct rv_error *e) RV_MUST_CHECK;
void file_copy_close(struct file_copy *c);

#endif
