/*
 * Claims: who has a VDI active, kept beside it in the SR as text, one line per claim:
 *
 *	write|read|copy HOLDER HOST GENERATION
 *
 * Changed under the SR's lock by writing anew and renaming. Not fsynced: when the host
 * loses power, what it had active is gone as well. All of it blocks (worker).
 */
#ifndef REEVE_STORAGE_FILE_CLAIM_H
#define REEVE_STORAGE_FILE_CLAIM_H

#include "storage/file_dir.h"

enum file_claim_mode { CLAIM_WRITE, CLAIM_READ, CLAIM_COPY };
enum { FILE_CLAIMS_MAX = 256 };

struct file_claim {
	enum file_claim_mode mode;
	struct uuid holder, host;
	uint64_t generation;
};

struct file_claims {
	struct file_claim list[FILE_CLAIMS_MAX];
	size_t count;
};

/* Pure. RV_ECORRUPT. A file of nothing or of NULs (power failure) is no claim. */
int file_claims_parse(struct file_claims *c, const char *text, size_t len) RV_MUST_CHECK;
/* Pure: adds `want`, replacing what the same holder had on the same host and what the
 * fenced host had. RV_EBUSY with *who at the obstacle, RV_ESTALE, RV_ELIMIT. */
int file_claims_add(struct file_claims *c, const struct file_claim *want,
	const struct uuid *fenced_host, struct file_claim *who) RV_MUST_CHECK;

int file_claim_take(const struct file_dir *d, const struct uuid *vdi,
	const struct file_claim *want, const struct uuid *fenced_host,
	struct rv_error *e) RV_MUST_CHECK;
/* Of this host. Success when there is none; RV_ESTALE when it is of a newer generation.
 */
int file_claim_drop(const struct file_dir *d, const struct uuid *vdi,
	const struct uuid *holder, uint64_t generation, struct rv_error *e) RV_MUST_CHECK;
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
