/* Snapshots: a view of one moment whatever happens meanwhile; no damage goes unseen. */
#include "world.h"

#include "pool/db/snapshot.h"
#include "pool/db/snapshot_format.h"

static int encode_step(struct snapshot_encoder *s, struct buf *out)
{
	size_t before = buf_len(out);
	int rc = snapshot_encode(s, out);

	assert_true(rc == 0 || rc == RV_EAGAIN);
	assert_true(buf_len(out) - before <= SNAPSHOT_SLICE_BYTES + 28);
	return rc;
}

static void encode_all(struct db *db, struct buf *out)
{
	struct snapshot_encoder *s = snapshot_encoder_new(db);

	while (encode_step(s, out))
		;
	snapshot_encoder_free(s);
}

static int decode(const uint8_t *bytes, size_t len, size_t piece, struct db **db)
{
	struct snapshot_decoder *d = snapshot_decoder_new(9);
	struct rv_error e = {0};
	int rc = 0;

	*db = NULL;
	while (rc == 0 && len > 0) {
		size_t n = len < piece ? len : piece;

		rc = snapshot_decode(d, bytes, n, &e);
		bytes += n;
		len -= n;
	}
	while (rc == 0 && !*db) {
		rc = snapshot_decode_finish(d, db, &e);
		if (rc == RV_EAGAIN)
			rc = 0;
	}
	if (rc)
		assert_true(strlen(e.detail) > 0);
	snapshot_decoder_free(d);
	return rc;
}

static void assert_same(const struct db *a, const struct db *b)
{
	assert_int_equal(db_seq(a), db_seq(b));
	assert_int_equal(db_wall_ms(a), db_wall_ms(b));
	assert_int_equal(db_hash(a).lo, db_hash(b).lo);
	assert_int_equal(db_hash(a).hi, db_hash(b).hi);
	for (int cls = 1; cls < CLASS_COUNT; cls++) {
		const struct row *ra = NULL, *rb = NULL;

		assert_int_equal(db_count(a, cls), db_count(b, cls));
		while ((ra = db_next(a, cls, ra))) {
			struct uuid ua = row_uuid(ra), ub;

			rb = db_next(b, cls, rb);
			ub = row_uuid(rb);
			assert_true(uuid_eq(&ua, &ub));
			assert_int_equal(row_seq(ra), row_seq(rb));
		}
	}
}

static struct db *grown(uint64_t seed, int entries)
{
	struct db *db = db_new(seed);
	struct prng p;
	struct txn t;

	prng_seed(&p, seed);
	for (int i = 0; i < entries; i++) {
		draw_txn(&p, &t, db);
		run(db, &t, NULL);
	}
	return db;
}

static void an_empty_one(void **state)
{
	struct db *db = db_new(1), *back;
	struct buf b;

	(void)state;
	buf_init(&b, 1 << 20);
	encode_all(db, &b);
	assert_int_equal(decode(buf_data(&b), buf_len(&b), 1, &back), 0);
	assert_same(db, back);
	db_free(db);
	db_free(back);
	buf_fini(&b);
}

static void there_and_back_in_pieces(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct db *db = grown(seed, 300), *back;
		struct buf a, b;

		buf_init(&a, 1 << 20);
		buf_init(&b, 1 << 20);
		encode_all(db, &a);
		assert_int_equal(
			decode(buf_data(&a), buf_len(&a), 1 + seed * 37, &back), 0);
		assert_same(db, back);
		encode_all(back, &b);
		assert_int_equal(buf_len(&a), buf_len(&b));
		assert_memory_equal(buf_data(&a), buf_data(&b), buf_len(&a));
		db_free(db);
		db_free(back);
		buf_fini(&a);
		buf_fini(&b);
	}
}

/* The view must be that of the moment, however the database changes between slices, and
 * life goes on alike from the copy. */
static void changes_between_slices_stay_out(void **state)
{
	struct db *db = db_new(3), *copy, *then;
	struct snapshot_encoder *s;
	struct buf before, during;
	struct prng p;
	struct txn t;
	char text[1000];
	int rc;

	(void)state;
	prng_seed(&p, 3);
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	for (unsigned i = 1; i <= 1500; i++) {
		txn_init(&t, db, 0);
		txn_create(&t, CLASS_VM, nth(i));
		txn_set_string(&t, nth(i), VM_NAME_DESCRIPTION, text);
		assert_int_equal(run(db, &t, NULL), 0);
	}
	buf_init(&before, 8 << 20);
	buf_init(&during, 8 << 20);
	encode_all(db, &before);
	s = snapshot_encoder_new(db);
	do {
		for (int i = 0; i < 100; i++) {
			unsigned n = 1 + (unsigned)prng_below(&p, 2000);

			txn_init(&t, db, 0);
			if (!db_row_any(db, nth(n)))
				txn_create(&t, CLASS_VM, nth(n));
			else if (prng_below(&p, 2))
				txn_delete(&t, CLASS_VM, nth(n));
			else
				txn_set_string(&t, nth(n), VM_NAME_LABEL, "other");
			assert_int_equal(run(db, &t, NULL), 0);
		}
		rc = encode_step(s, &during);
	} while (rc);
	snapshot_encoder_free(s);
	assert_int_equal(buf_len(&before), buf_len(&during));
	assert_memory_equal(buf_data(&before), buf_data(&during), buf_len(&before));
	assert_int_equal(decode(buf_data(&during), buf_len(&during), 65536, &then), 0);
	assert_int_equal(db_count(then, CLASS_VM), 1500);
	/* The view outlives the database, too. */
	s = snapshot_encoder_new(then);
	copy = db_new(4);
	db_swap(then, copy);
	assert_int_equal(db_count(copy, CLASS_VM), 1500);
	assert_int_equal(db_count(then, CLASS_VM), 0);
	db_free(copy);
	db_free(then);
	buf_consume(&during, buf_len(&during));
	while (encode_step(s, &during))
		;
	snapshot_encoder_free(s);
	assert_memory_equal(buf_data(&before), buf_data(&during), buf_len(&before));
	while (!db_free_some(db, 100))
		;
	buf_fini(&before);
	buf_fini(&during);
}

static void every_damaged_byte_is_seen(void **state)
{
	struct db *db = grown(11, 200), *back;
	struct buf b;

	(void)state;
	buf_init(&b, 1 << 20);
	for (unsigned i = 100; i < 120; i++)
		make(db, CLASS_VM, i, "one more");
	encode_all(db, &b);
	assert_true(buf_len(&b) > 1000);
	for (size_t i = 0; i < buf_len(&b); i++) {
		uint8_t bit = (uint8_t)(1u << i % 8);

		buf_data(&b)[i] ^= bit;
		assert_int_not_equal(decode(buf_data(&b), buf_len(&b), 4096, &back), 0);
		buf_data(&b)[i] ^= bit;
	}
	for (size_t n = 0; n < buf_len(&b); n += 7)
		assert_int_not_equal(decode(buf_data(&b), n, 4096, &back), 0);
	assert_int_equal(buf_append(&b, "x", 1), 0);
	assert_int_not_equal(decode(buf_data(&b), buf_len(&b), 4096, &back), 0);
	db_free(db);
	buf_fini(&b);
}

/* Damage under right checksums, as a broken host would make it: refused, or of no
 * consequence for what is held. */
static void damage_with_right_checksums_is_seen(void **state)
{
	struct db *db = grown(11, 200), *back;
	const size_t at = SNAPSHOT_MAGIC_BYTES + SNAPSHOT_FRAME_HEAD;
	unsigned read = 0;
	struct buf b;

	(void)state;
	buf_init(&b, 1 << 20);
	encode_all(db, &b);
	assert_true(buf_len(&b) - at < SNAPSHOT_SLICE_BYTES); /* one frame */
	for (size_t i = at; i < buf_len(&b); i++) {
		for (int bit = 0; bit < 8; bit++) {
			buf_data(&b)[i] ^= (uint8_t)(1u << bit);
			snapshot_put(buf_data(&b) + at - 8, 8,
				snapshot_sum(buf_data(&b) + at, buf_len(&b) - at, 0));
			if (decode(buf_data(&b), buf_len(&b), 4096, &back) == 0) {
				assert_int_equal(db_hash(db).lo, db_hash(back).lo);
				assert_int_equal(db_hash(db).hi, db_hash(back).hi);
				db_free(back);
				read++;
			}
			buf_data(&b)[i] ^= (uint8_t)(1u << bit);
		}
	}
	assert_true(read > 0); /* seqs and times are outside the hash */
	db_free(db);
	buf_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_one),
		cmocka_unit_test(there_and_back_in_pieces),
		cmocka_unit_test(changes_between_slices_stay_out),
		cmocka_unit_test(every_damaged_byte_is_seen),
		cmocka_unit_test(damage_with_right_checksums_is_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
