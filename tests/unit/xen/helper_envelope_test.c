/* The envelope around a saved domain: what is written is read, what is damaged is told.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "xen/real/envelope.h"

enum { BYTES = 600 * 1000, CHUNK = 200 * 1000 };

static const struct envelope_head head = {
	.vm = {{1, 2, 3, 4}},
	.type = HYPER_PVH,
	.actual_kib = 98304,
	.extra_kib = 36,
};

static uint8_t content(size_t at)
{
	return (uint8_t)(at * 7 + at / 251);
}

static void send_all(struct envelope_writer *w, uint8_t *out, size_t *len)
{
	memcpy(out + *len, w->bytes + w->at, w->len - w->at);
	*len += w->len - w->at;
	w->at = w->len;
}

static uint8_t *stream_make(size_t *len)
{
	uint8_t *out = malloc(BYTES + 4096);
	struct envelope_writer w;

	*len = 0;
	assert_non_null(out);
	assert_int_equal(envelope_writer_init(&w), 0);
	envelope_writer_head(&w, &head);
	send_all(&w, out, len);
	for (size_t at = 0; at < BYTES; at += CHUNK) {
		uint8_t *room = envelope_writer_room(&w);

		for (size_t i = 0; i < CHUNK; i++)
			room[i] = content(at + i);
		envelope_writer_chunk(&w, CHUNK);
		send_all(&w, out, len);
	}
	envelope_writer_end(&w);
	send_all(&w, out, len);
	envelope_writer_fini(&w);
	return out;
}

/* Reads all of it in pieces; returns 0, an error's code, or RV_EAGAIN: no end came. */
static int stream_read(const uint8_t *data, size_t len, size_t piece, size_t *read)
{
	struct envelope_reader r;
	struct rv_error e = {0};
	int rc = RV_EAGAIN;

	assert_int_equal(envelope_reader_init(&r), 0);
	*read = 0;
	for (size_t at = 0; rc == RV_EAGAIN && at < len;) {
		size_t n = piece < len - at ? piece : len - at, used = 0;
		enum envelope_step step =
			envelope_reader_feed(&r, data + at, n, &used, &e);

		at += used;
		if (step == ENVELOPE_BAD) {
			rc = e.code;
		} else if (step == ENVELOPE_END) {
			rc = 0;
		} else if (step == ENVELOPE_HEAD) {
			assert_true(uuid_eq(&r.head.vm, &head.vm));
			assert_int_equal(r.head.type, head.type);
			assert_int_equal(r.head.actual_kib, head.actual_kib);
			assert_int_equal(r.head.extra_kib, head.extra_kib);
		} else if (step == ENVELOPE_CHUNK) {
			for (size_t i = 0; i < r.chunk_len; i++)
				assert_int_equal(r.chunk[i], content(*read + i));
			*read += r.chunk_len;
		} else {
			assert_int_equal(used, n);
		}
	}
	envelope_reader_fini(&r);
	return rc;
}

static void reads_what_was_written(void **state)
{
	const size_t pieces[] = {1 << 20, 65536, 4097, 1};
	uint8_t *data;
	size_t len, got;

	(void)state;
	data = stream_make(&len);
	assert_int_equal(len,
		BYTES + ENVELOPE_HEAD_SIZE + (BYTES / CHUNK + 1) * ENVELOPE_MARK_SIZE);
	for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
		assert_int_equal(stream_read(data, len, pieces[i], &got), 0);
		assert_int_equal(got, BYTES);
	}
	free(data);
}

static void stops_at_the_end(void **state)
{
	struct envelope_reader r;
	uint8_t *data = NULL;
	struct rv_error e = {0};
	size_t len, used, at = 0;

	(void)state;
	data = stream_make(&len);
	assert_int_equal(envelope_reader_init(&r), 0);
	/* Bytes follow that are another's. */
	while (envelope_reader_feed(&r, data + at, len + 64 - at, &used, &e) !=
		ENVELOPE_END)
		at += used;
	assert_int_equal(at + used, len);
	assert_int_equal(envelope_reader_feed(&r, data, 64, &used, &e), ENVELOPE_END);
	assert_int_equal(used, 0);
	envelope_reader_fini(&r);
	free(data);
}

static void tells_damage(void **state)
{
	uint8_t *data;
	size_t len, got;

	(void)state;
	data = stream_make(&len);
	for (size_t at = 0; at < len; at += at < 128 ? 1 : 37199) {
		int rc;

		data[at] ^= 0x10;
		rc = stream_read(data, len, 65536, &got);
		if (rc != RV_ECORRUPT && rc != RV_EPROTO && rc != RV_EAGAIN)
			fail_msg("a flipped bit at %zu gave %d", at, rc);
		data[at] ^= 0x10;
	}
	/* The last mark: sum of what came before. */
	data[len - 1] ^= 1;
	assert_int_equal(stream_read(data, len, 65536, &got), RV_ECORRUPT);
	data[len - 1] ^= 1;
	assert_int_equal(stream_read(data, len - 1, 65536, &got), RV_EAGAIN);
	free(data);
}

/* Chunks have the same sums wherever they are, but for their number. */
static void tells_a_chunk_that_is_missing(void **state)
{
	const size_t whole = CHUNK + ENVELOPE_MARK_SIZE;
	uint8_t *data;
	size_t len, got;

	(void)state;
	data = stream_make(&len);
	memmove(data + ENVELOPE_HEAD_SIZE + whole, data + ENVELOPE_HEAD_SIZE + 2 * whole,
		len - ENVELOPE_HEAD_SIZE - 2 * whole);
	assert_int_equal(stream_read(data, len - whole, 65536, &got), RV_ECORRUPT);
	assert_int_equal(got, CHUNK);
	free(data);
}

static void tells_what_it_is_not(void **state)
{
	uint8_t data[256] = "RVSIMSV1 or anything else";
	size_t got;

	(void)state;
	assert_int_equal(stream_read(data, sizeof data, 64, &got), RV_EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_what_was_written),
		cmocka_unit_test(stops_at_the_end),
		cmocka_unit_test(tells_damage),
		cmocka_unit_test(tells_a_chunk_that_is_missing),
		cmocka_unit_test(tells_what_it_is_not),
	};

	return cmocka_run_group_tests_name("xen/helper_envelope", tests, NULL, NULL);
}
