#include "xen/real/saved_file.h"

#include <endian.h>
#include <string.h>
#include <xxhash.h>

static const uint8_t file_magic[8] = {'R', 'V', 'X', 'E', 'N', 'S', 'V', '2'};

/* Of the block; the rest is zero. */
enum {
	AT_TYPE = 8,
	AT_EXTRA = 12,
	AT_VM = 16,
	AT_ACTUAL = 32,
	AT_STREAM = 40,
	AT_TABLE_SUM = 48,
	AT_SUM = 56,
};

#define STREAM_MOST (UINT64_C(1) << 50)

static void put32(uint8_t *at, uint32_t v)
{
	v = htole32(v);
	memcpy(at, &v, sizeof v);
}

static void put64(uint8_t *at, uint64_t v)
{
	v = htole64(v);
	memcpy(at, &v, sizeof v);
}

static uint32_t get32(const uint8_t *at)
{
	uint32_t v;

	memcpy(&v, at, sizeof v);
	return le32toh(v);
}

static uint64_t get64(const uint8_t *at)
{
	uint64_t v;

	memcpy(&v, at, sizeof v);
	return le64toh(v);
}

uint64_t saved_file_sums(uint64_t stream_bytes)
{
	return stream_bytes / SAVED_FILE_PIECE + (stream_bytes % SAVED_FILE_PIECE != 0);
}

uint64_t saved_file_table_at(uint64_t stream_bytes)
{
	uint64_t blocks =
		stream_bytes / SAVED_FILE_HEAD + (stream_bytes % SAVED_FILE_HEAD != 0);

	return (blocks + 1) * SAVED_FILE_HEAD;
}

uint64_t saved_file_bytes(uint64_t stream_bytes)
{
	if (stream_bytes > STREAM_MOST)
		return UINT64_MAX;
	return saved_file_table_at(stream_bytes) +
	       saved_file_sums(stream_bytes) * sizeof(uint64_t);
}

uint64_t saved_file_sum(const void *piece, size_t len, uint64_t number)
{
	return XXH64(piece, len, number);
}

uint64_t saved_file_table_put(uint64_t *sums, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		sums[i] = htole64(sums[i]);
	return XXH64(sums, count * sizeof *sums, count);
}

uint64_t saved_file_table_get(uint64_t *sums, uint64_t count)
{
	uint64_t sum = XXH64(sums, count * sizeof *sums, count);

	for (uint64_t i = 0; i < count; i++)
		sums[i] = le64toh(sums[i]);
	return sum;
}

void saved_file_format(uint8_t block[static SAVED_FILE_HEAD], const struct saved_file *f)
{
	memset(block, 0, SAVED_FILE_HEAD);
	memcpy(block, file_magic, sizeof file_magic);
	put32(block + AT_TYPE, (uint32_t)f->head.type);
	put32(block + AT_EXTRA, f->head.extra_kib);
	memcpy(block + AT_VM, f->head.vm.b, sizeof f->head.vm.b);
	put64(block + AT_ACTUAL, f->head.actual_kib);
	put64(block + AT_STREAM, f->stream_bytes);
	put64(block + AT_TABLE_SUM, f->table_sum);
	put64(block + AT_SUM, XXH64(block, AT_SUM, 0));
}

int saved_file_parse(struct saved_file *f, const uint8_t block[static SAVED_FILE_HEAD],
	uint64_t room, struct rv_error *e)
{
	uint32_t type = get32(block + AT_TYPE);

	if (memcmp(block, file_magic, sizeof file_magic) != 0)
		return rv_error_set(e, RV_EPROTO,
			"this is no domain saved on Xen by this version of Reeve: it "
			"begins otherwise");
	if (get64(block + AT_SUM) != XXH64(block, AT_SUM, 0))
		return rv_error_set(e, RV_ECORRUPT,
			"the saved domain's file is damaged: its head has a wrong sum");
	if (type > HYPER_HVM)
		return rv_error_set(e, RV_EPROTO,
			"the saved domain's file tells of an unknown kind of domain");
	*f = (struct saved_file){
		.head = {.type = (enum hyper_type)type,
			.extra_kib = get32(block + AT_EXTRA),
			.actual_kib = get64(block + AT_ACTUAL)},
		.stream_bytes = get64(block + AT_STREAM),
		.table_sum = get64(block + AT_TABLE_SUM),
	};
	memcpy(f->head.vm.b, block + AT_VM, sizeof f->head.vm.b);
	if (f->stream_bytes == 0 || saved_file_bytes(f->stream_bytes) > room)
		return rv_error_set(e, RV_ECORRUPT,
			"the saved domain's file is cut off: its head tells of %llu "
			"bytes, "
			"there is room for %llu",
			(unsigned long long)f->stream_bytes, (unsigned long long)room);
	return 0;
}
