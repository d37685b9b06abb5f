/*
 * Where a file SR keeps the claims of a VDI: in UUID.claim beside it, as text
 * (storage/claim.h). Changed under the SR's lock by writing anew and renaming. Not
 * fsynced: when the host loses power, what it had active is gone as well. All of it
 * blocks (worker).
 */
#ifndef REEVE_STORAGE_FILE_CLAIM_H
#define REEVE_STORAGE_FILE_CLAIM_H

#include "storage/claim.h"
#include "storage/file_dir.h"

int file_claim_take(const struct file_dir *d, const struct uuid *vdi,
	const struct claim *want, uint64_t void_generation,
	struct rv_error *e) RV_MUST_CHECK;
/* Of `host`. Success when there is none; RV_ESTALE when it is of a newer generation. */
int file_claim_drop(const struct file_dir *d, const struct uuid *vdi,
	const struct uuid *holder, const struct uuid *host, uint64_t generation,
	struct rv_error *e) RV_MUST_CHECK;
/* All but those of copies; *list is returned owned (free). What can't be read is left
 * out. */
int file_claim_list(const struct file_dir *d, struct storage_claim **list, size_t *count,
	struct rv_error *e) RV_MUST_CHECK;
/* RV_EBUSY when anybody has any claim. The caller holds the lock. */
int file_claim_check_none(const struct file_dir *d, const struct uuid *vdi,
	struct rv_error *e) RV_MUST_CHECK;
/* RV_ENOTALLOWED unless `holder` has it for writing on this host. */
int file_claim_check_write(const struct file_dir *d, const struct uuid *vdi,
	const struct uuid *holder, struct rv_error *e) RV_MUST_CHECK;
/* Drops "copy" claims of this host: copies do not outlive the daemon. */
int file_claim_forget_copies(const struct file_dir *d, const struct uuid *vdi,
	struct rv_error *e) RV_MUST_CHECK;
/* RV_EBUSY while this host has anything active. */
int file_claim_check_host_idle(
	const struct file_dir *d, struct rv_error *e) RV_MUST_CHECK;

#endif
