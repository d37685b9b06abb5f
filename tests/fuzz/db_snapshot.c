/* links: reeve_db reeve_base */
/* Snapshots come from disks and peers. The input is the payload of one snapshot, framed
 * here with right checksums, or else nothing would get past those; with a first byte of 0
 * it is fed as it is. What decodes encodes to a database with the same hash. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pool/db/db.h"
#include "pool/db/snapshot.h"
#include "pool/db/snapshot_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int decode(const uint8_t *bytes, size_t len, struct db **db)
{
	struct snapshot_decoder *d = snapshot_decoder_new(3);
	struct rv_error e = {0};
	int rc = snapshot_decode(d, bytes, len, &e);

	*db = NULL;
	while (rc == 0 && !*db) {
		rc = snapshot_decode_finish(d, db, &e);
		if (rc == RV_EAGAIN)
			rc = 0;
	}
	snapshot_decoder_free(d);
	return rc;
}

/* Lengths in front of records are the input's; frames are made here. */
static void frame(const uint8_t *data, size_t size, struct buf *out)
{
	uint8_t head[SNAPSHOT_FRAME_HEAD];
	uint64_t sum = 0;
	int rc = buf_append(out, snapshot_magic, SNAPSHOT_MAGIC_BYTES);

	while (rc == 0 && size > 0) {
		size_t n = size < SNAPSHOT_SLICE_BYTES ? size : SNAPSHOT_SLICE_BYTES;

		sum = snapshot_sum(data, n, sum);
		snapshot_put(head, 4, n);
		snapshot_put(head + 4, 8, sum);
		rc = buf_append(out, head, sizeof head);
		if (rc == 0)
			rc = buf_append(out, data, n);
		data += n;
		size -= n;
	}
	assert(rc == 0);
}

static void encode_again(struct db *db)
{
	struct snapshot_encoder *s = snapshot_encoder_new(db);
	struct buf b;
	struct db *back;
	int rc;

	buf_init(&b, 64 << 20);
	do
		rc = snapshot_encode(s, &b);
	while (rc == RV_EAGAIN);
	assert(rc == 0);
	rc = decode(buf_data(&b), buf_len(&b), &back);
	assert(rc == 0 && db_hash(db).lo == db_hash(back).lo);
	snapshot_encoder_free(s);
	db_free(back);
	buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct db *db;
	struct buf b;

	if (size == 0)
		return 0;
	buf_init(&b, 64 << 20);
	if (data[0] == 0) {
		decode(data + 1, size - 1, &db);
	} else {
		frame(data + 1, size - 1, &b);
		decode(buf_data(&b), buf_len(&b), &db);
	}
	if (db)
		encode_again(db);
	db_free(db);
	buf_fini(&b);
	return 0;
}
