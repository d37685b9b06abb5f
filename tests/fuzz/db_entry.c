/* links: reeve_db reeve_base */
/* Log entries with a right checksum and any content, on a small pool: a verdict or a
 * stop, alike on two hosts, and the pool's snapshot reads back.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "pool/db/db.h"
#include "pool/db/snapshot.h"
#include "pool/db/txn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct db *small_pool(uint64_t seed)
{
	struct uuid vm = {{1}}, host = {{2}}, vbd = {{3}};
	struct db *db = db_new(seed);
	struct db_result r;
	const uint8_t *entry;
	struct txn t;
	size_t len;

	txn_init(&t, db, 1);
	txn_create(&t, CLASS_HOST, host);
	txn_create(&t, CLASS_VM, vm);
	txn_set_string(&t, vm, VM_NAME_LABEL, "vm");
	txn_set_ref(&t, vm, VM_AFFINITY, host);
	txn_create(&t, CLASS_VBD, vbd);
	txn_set_ref(&t, vbd, VBD_VM, vm);
	if (txn_finish(&t, &entry, &len, NULL) || db_apply(db, entry, len, &r) ||
		r.verdict.code)
		abort();
	txn_fini(&t);
	return db;
}

static void read_back(struct db *db)
{
	struct snapshot_encoder *s = snapshot_encoder_new(db);
	struct snapshot_decoder *d = snapshot_decoder_new(3);
	struct db *copy = NULL;
	struct rv_error e;
	struct buf b;
	int rc;

	buf_init(&b, 64 << 20);
	do
		rc = snapshot_encode(s, &b);
	while (rc == RV_EAGAIN);
	assert(rc == 0);
	rc = snapshot_decode(d, buf_data(&b), buf_len(&b), &e);
	assert(rc == 0);
	do
		rc = snapshot_decode_finish(d, &copy, &e);
	while (rc == RV_EAGAIN);
	assert(rc == 0 && db_hash(copy).lo == db_hash(db).lo);
	snapshot_encoder_free(s);
	snapshot_decoder_free(d);
	db_free(copy);
	buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct db *a = small_pool(1), *b = small_pool(2);
	uint8_t *entry = malloc(size + 8);
	uint64_t sum = XXH3_64bits(data, size);
	struct db_result ra, rb;

	for (int i = 0; i < 8; i++)
		entry[i] = (uint8_t)(sum >> 8 * i);
	if (size)
		memcpy(entry + 8, data, size);
	for (int i = 0; i < 2; i++) {
		int rc = db_apply(a, entry, size + 8, &ra);

		assert(db_apply(b, entry, size + 8, &rb) == rc);
		assert(rc == 0 || rc == RV_EUNSUPPORTED);
		assert(ra.verdict.code == rb.verdict.code && ra.changed == rb.changed);
		assert(db_hash(a).lo == db_hash(b).lo && db_seq(a) == db_seq(b));
	}
	if (ra.verdict.code == 0)
		read_back(a);
	for (int cls = 1; cls < CLASS_COUNT; cls++)
		for (const struct row *row = db_next(a, cls, NULL); row;
			row = db_next(a, cls, row)) {
			size_t len;

			assert(db_record(a, row, &len));
		}
	db_free(a);
	db_free(b);
	free(entry);
	return 0;
}
