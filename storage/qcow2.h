/*
 * Reads the header of a qcow2 image and refuses what could reach outside the SR or ask
 * too much: images come from users, and a header can name any file of the host.
 *
 * Format: qemu's docs/interop/qcow2.txt. Pure: bytes in, verdict out.
 */
#ifndef REEVE_STORAGE_QCOW2_H
#define REEVE_STORAGE_QCOW2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
	QCOW2_HEADER_BYTES =
		4096, /* how much of the file to hand in, if it has as much */
	QCOW2_MAX_L1_BYTES = 32 << 20, /* qemu's own limit */
	QCOW2_MAX_SNAPSHOTS = 1024,
};

struct qcow2_info {
	uint64_t virtual_size;
	uint32_t cluster_size;
	uint32_t version;
	bool dirty; /* not closed properly: qemu repairs it when it opens it */
};

/* RV_ECORRUPT (no qcow2, truncated, damaged) or RV_ENOTALLOWED (backing file, external
 * data file, encryption, features we do not know). `e` says what; it may be NULL. */
int qcow2_check(const uint8_t *head, size_t len, uint64_t file_size,
	struct qcow2_info *info, struct rv_error *e) RV_MUST_CHECK;

#endif
