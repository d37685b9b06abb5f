#include "storage/qcow2.h"

#include <string.h>

#include "storage/storage.h"

/* Offsets of the header's fields; all are big-endian. */
enum {
	AT_MAGIC = 0,
	AT_VERSION = 4,
	AT_BACKING_OFFSET = 8,
	AT_BACKING_SIZE = 16,
	AT_CLUSTER_BITS = 20,
	AT_SIZE = 24,
	AT_CRYPT = 32,
	AT_L1_SIZE = 36,
	AT_L1_OFFSET = 40,
	AT_REFCOUNT_OFFSET = 48,
	AT_REFCOUNT_CLUSTERS = 56,
	AT_SNAPSHOTS = 60,
	AT_SNAPSHOTS_OFFSET = 64,
	V2_LENGTH = 72,
	AT_INCOMPATIBLE = 72,
	AT_REFCOUNT_ORDER = 96,
	AT_HEADER_LENGTH = 100,
	V3_LENGTH = 104,
};

static const uint32_t MAGIC = 0x514649fb; /* "QFI\xfb" */

enum {
	INCOMPATIBLE_DIRTY = 1,
	INCOMPATIBLE_CORRUPT = 2,
	INCOMPATIBLE_EXTERNAL_DATA = 4,
	INCOMPATIBLE_COMPRESSION = 8,
	INCOMPATIBLE_EXTENDED_L2 = 16,
	INCOMPATIBLE_KNOWN = 31,
};

static const uint32_t EXTENSION_BACKING_FORMAT = 0xe2792aca;
static const uint32_t EXTENSION_DATA_FILE = 0x44415441;
static const uint32_t EXTENSION_CRYPTO = 0x0537be77;

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t be64(const uint8_t *p)
{
	return (uint64_t)be32(p) << 32 | be32(p + 4);
}

/* Is [offset, offset + bytes) cluster-aligned and inside the file? */
static bool inside(uint64_t offset, uint64_t bytes, uint64_t file_size, uint32_t cluster)
{
	return offset % cluster == 0 && offset <= file_size &&
	       bytes <= file_size - offset;
}

static int check_features(
	const uint8_t *head, struct qcow2_info *info, struct rv_error *e)
{
	uint64_t features = be64(head + AT_INCOMPATIBLE);
	if (features & INCOMPATIBLE_EXTERNAL_DATA)
		return rv_error_set(e, RV_ENOTALLOWED,
			"it keeps its data in an external file; convert it with qemu-img "
			"convert -O qcow2");
	if (features & INCOMPATIBLE_CORRUPT)
		return rv_error_set(e, RV_ECORRUPT,
			"it is marked corrupt; repair it with qemu-img check -r all");
	if (features & ~(uint64_t)INCOMPATIBLE_KNOWN)
		return rv_error_set(e, RV_ENOTALLOWED,
			"it uses features unknown here (0x%llx)",
			(unsigned long long)features);
	if (be32(head + AT_REFCOUNT_ORDER) > 6)
		return rv_error_set(e, RV_ECORRUPT, "its refcount width is impossible");
	info->dirty = features & INCOMPATIBLE_DIRTY;
	return 0;
}

static int check_extensions(
	const uint8_t *head, size_t len, size_t at, struct rv_error *e)
{
	for (;;) {
		if (at > len || len - at < 8)
			return rv_error_set(
				e, RV_ECORRUPT, "its header extensions have no end");
		uint32_t type = be32(head + at);
		uint64_t bytes = be32(head + at + 4);
		if (type == 0)
			return 0;
		if (type == EXTENSION_DATA_FILE || type == EXTENSION_BACKING_FORMAT)
			return rv_error_set(e, RV_ENOTALLOWED,
				"it refers to another file; flatten it with qemu-img "
				"convert "
				"-O qcow2");
		if (type == EXTENSION_CRYPTO)
			return rv_error_set(e, RV_ENOTALLOWED, "it is encrypted");
		uint64_t step = 8 + ((bytes + 7) & ~UINT64_C(7));
		if (step > len - at)
			return rv_error_set(e, RV_ECORRUPT,
				"a header extension goes beyond the header");
		at += step;
	}
}

static int check_tables(const uint8_t *head, uint64_t file_size,
	const struct qcow2_info *info, struct rv_error *e)
{
	uint32_t cluster = info->cluster_size;
	uint64_t l1_bytes = UINT64_C(8) * be32(head + AT_L1_SIZE);
	bool extended = info->version == 3 &&
			(be64(head + AT_INCOMPATIBLE) & INCOMPATIBLE_EXTENDED_L2);
	uint64_t l2_covers = (uint64_t)cluster * (cluster / (extended ? 16 : 8));
	uint64_t l1_needed = (info->virtual_size + l2_covers - 1) / l2_covers * 8;
	if (l1_bytes > QCOW2_MAX_L1_BYTES || l1_bytes < l1_needed ||
		!inside(be64(head + AT_L1_OFFSET), l1_bytes, file_size, cluster))
		return rv_error_set(e, RV_ECORRUPT,
			"its cluster table is missing or lies beyond the end of the "
			"file: it is "
			"truncated or damaged");
	uint64_t refcount_bytes = (uint64_t)cluster * be32(head + AT_REFCOUNT_CLUSTERS);
	if (refcount_bytes == 0 || refcount_bytes > (8 << 20) ||
		!inside(be64(head + AT_REFCOUNT_OFFSET), refcount_bytes, file_size,
			cluster))
		return rv_error_set(e, RV_ECORRUPT,
			"its refcount table is missing or lies beyond the end of the "
			"file: it "
			"is truncated or damaged");
	uint32_t snapshots = be32(head + AT_SNAPSHOTS);
	if (snapshots > QCOW2_MAX_SNAPSHOTS ||
		(snapshots && !inside(be64(head + AT_SNAPSHOTS_OFFSET), 40, file_size,
				      cluster)))
		return rv_error_set(
			e, RV_ECORRUPT, "its list of snapshots is impossible");
	return 0;
}

int qcow2_check(const uint8_t *head, size_t len, uint64_t file_size,
	struct qcow2_info *info, struct rv_error *e)
{
	*info = (struct qcow2_info){0};
	if (len < V2_LENGTH || file_size < len || be32(head + AT_MAGIC) != MAGIC)
		return rv_error_set(e, RV_ECORRUPT, "it is no qcow2 image");
	info->version = be32(head + AT_VERSION);
	if (info->version != 2 && info->version != 3)
		return rv_error_set(e, RV_ECORRUPT, "it is qcow2 version %u, not 2 or 3",
			info->version);
	uint32_t bits = be32(head + AT_CLUSTER_BITS);
	if (bits < 9 || bits > 21)
		return rv_error_set(e, RV_ECORRUPT, "its cluster size is impossible");
	info->cluster_size = 1u << bits;
	info->virtual_size = be64(head + AT_SIZE);
	if (info->virtual_size == 0 || info->virtual_size > STORAGE_SIZE_LIMIT)
		return rv_error_set(e, RV_ECORRUPT, "its virtual size is impossible");
	if (be64(head + AT_BACKING_OFFSET) || be32(head + AT_BACKING_SIZE))
		return rv_error_set(e, RV_ENOTALLOWED,
			"it has a backing file, which could be any file of this host; "
			"flatten "
			"it with qemu-img convert -O qcow2");
	if (be32(head + AT_CRYPT))
		return rv_error_set(e, RV_ENOTALLOWED, "it is encrypted");
	size_t header = V2_LENGTH;
	if (info->version == 3) {
		if (len < V3_LENGTH)
			return rv_error_set(e, RV_ECORRUPT, "its header is cut short");
		header = be32(head + AT_HEADER_LENGTH);
		if (header < V3_LENGTH || header % 8 || header > len)
			return rv_error_set(
				e, RV_ECORRUPT, "its header's length is impossible");
		int rc = check_features(head, info, e);
		if (rc)
			return rc;
	}
	int rc = check_tables(head, file_size, info, e);
	return rc ? rc : check_extensions(head, len, header, e);
}
