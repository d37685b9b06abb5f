/* Entries drawn at random: the same on every host, whatever they say; indexes agree with
 * rows; damaged entries change nothing. */
#include "world.h"

#include <xxhash.h>

#include "pool/db/snapshot.h"

static struct db *copy_of(struct db *db)
{
	struct snapshot_encoder *s = snapshot_encoder_new(db);
	struct snapshot_decoder *d = snapshot_decoder_new(77);
	struct db *copy = NULL;
	struct rv_error e;
	struct buf b;
	int rc;

	buf_init(&b, 1 << 20);
	do
		rc = snapshot_encode(s, &b);
	while (rc == RV_EAGAIN);
	assert_int_equal(rc, 0);
	assert_int_equal(snapshot_decode(d, buf_data(&b), buf_len(&b), &e), 0);
	assert_int_equal(snapshot_decode_finish(d, &copy, &e), 0);
	snapshot_encoder_free(s);
	snapshot_decoder_free(d);
	buf_fini(&b);
	return copy;
}

/* Each ref field names what is there, and is found from there; the hash is the sum. */
static void check_indexes(const struct db *db)
{
	for (int id = 1; id < FIELD_COUNT; id++) {
		const struct schema_field *f = schema_field(id);
		const struct row *row = NULL;
		unsigned refs = 0, found = 0;

		if (f->ref == REF_FREE || f->ref == REF_BACK)
			continue;
		while ((row = db_next(db, f->cls, row))) {
			struct uuid ref = db_ref(row, id);

			assert_true(f->ref != REF_OWNER || !uuid_is_none(&ref));
			if (uuid_is_none(&ref))
				continue;
			assert_non_null(db_row(db, f->ref_class, ref));
			refs++;
		}
		while ((row = db_next(db, f->ref_class, row))) {
			const struct row *user = NULL;

			while ((user = db_next_ref(db, id, row_uuid(row), user))) {
				struct uuid ref = db_ref(user, id), own = row_uuid(row);

				assert_true(uuid_eq(&ref, &own));
				found++;
			}
		}
		assert_int_equal(refs, found);
	}
}

static void every_host_comes_to_the_same(void **state)
{
	unsigned good = 0, all = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct db *a = db_new(seed), *b = db_new(seed + 1000);
		struct prng p;

		prng_seed(&p, seed);
		for (int i = 0; i < 500; i++) {
			struct db_result ra, rb;
			struct rv_error e;
			const uint8_t *entry;
			struct txn t;
			size_t len;

			draw_txn(&p, &t, a);
			if (txn_finish(&t, &entry, &len, &e) == 0) {
				assert_int_equal(db_apply(a, entry, len, &ra), 0);
				assert_int_equal(db_apply(b, entry, len, &rb), 0);
				assert_int_equal(ra.verdict.code, rb.verdict.code);
				assert_string_equal(ra.verdict.detail, rb.verdict.detail);
				assert_int_equal(ra.changed, rb.changed);
				assert_int_equal(ra.seq, rb.seq);
				assert_int_equal(db_hash(a).lo, db_hash(b).lo);
				good += ra.verdict.code == 0 && ra.changed > 0;
				all++;
			}
			txn_fini(&t);
			if (prng_below(&p, 100) == 0) { /* one host restarts */
				struct db *copy = copy_of(b);

				db_free(b);
				b = copy;
			}
		}
		check_indexes(a);
		check_indexes(b);
		db_free(a);
		db_free(b);
	}
	/* Else the drawing is no good. */
	assert_true(good > all / 5);
}

static void damaged_entries_change_nothing(void **state)
{
	struct db *db = db_new(1);
	struct prng p;

	(void)state;
	prng_seed(&p, 1);
	for (int n = 0; n < 100; n++) {
		struct db_hash before = db_hash(db);
		uint64_t seq = db_seq(db);
		struct db_result r;
		struct rv_error e;
		const uint8_t *entry;
		uint8_t *bytes;
		struct txn t;
		size_t len;

		draw_txn(&p, &t, db);
		if (txn_finish(&t, &entry, &len, &e) == 0) {
			bytes = malloc(len);
			memcpy(bytes, entry, len);
			for (size_t i = 0; i < len; i++) {
				bytes[i] ^= (uint8_t)(1u << i % 8);
				assert_int_equal(
					db_apply(db, bytes, len, &r), RV_ECORRUPT);
				assert_int_equal(db_apply(db, bytes, i, &r), RV_ECORRUPT);
				bytes[i] ^= (uint8_t)(1u << i % 8);
			}
			assert_int_equal(db_seq(db), seq);
			assert_int_equal(db_hash(db).lo, before.lo);
			assert_int_equal(db_apply(db, bytes, len, &r), 0);
			free(bytes);
		}
		txn_fini(&t);
	}
	db_free(db);
}

/* With a right checksum and wrong content: a verdict, the same everywhere, counted. */
static void wrong_content_is_a_verdict(void **state)
{
	struct db *a = db_new(1), *b = db_new(2);
	struct prng p;
	unsigned stops = 0;

	(void)state;
	prng_seed(&p, 2);
	for (int n = 0; n < 20000; n++) {
		struct db_result ra, rb;
		struct rv_error e;
		const uint8_t *entry;
		uint8_t *bytes;
		struct txn t;
		size_t len;
		uint64_t sum;
		int rc;

		draw_txn(&p, &t, a);
		if (txn_finish(&t, &entry, &len, &e) == 0 && len > 8) {
			bytes = malloc(len);
			memcpy(bytes, entry, len);
			for (uint64_t k = 1 + prng_below(&p, 3); k > 0; k--)
				bytes[8 + prng_below(&p, len - 8)] =
					(uint8_t)prng_next(&p);
			sum = XXH3_64bits(bytes + 8, len - 8);
			for (int i = 0; i < 8; i++)
				bytes[i] = (uint8_t)(sum >> 8 * i);
			rc = db_apply(a, bytes, len, &ra);
			assert_int_equal(db_apply(b, bytes, len, &rb), rc);
			assert_true(rc == 0 || rc == RV_EUNSUPPORTED);
			stops += rc != 0;
			assert_int_equal(ra.verdict.code, rb.verdict.code);
			assert_int_equal(db_seq(a), db_seq(b));
			assert_int_equal(db_hash(a).lo, db_hash(b).lo);
			assert_true(ra.verdict.code == 0 || strlen(ra.verdict.detail));
			free(bytes);
		}
		txn_fini(&t);
	}
	assert_true(stops > 0);
	check_indexes(a);
	db_free(a);
	db_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_host_comes_to_the_same),
		cmocka_unit_test(damaged_entries_change_nothing),
		cmocka_unit_test(wrong_content_is_a_verdict),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
