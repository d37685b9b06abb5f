/* The first lines of a dump. */
#include "daemon/dump.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static const struct dump_head sample = {
	.pool = {{1, 2, 3}},
	.generation_id = {{9}},
	.generation = 7,
	.seq = 123456,
	.bytes = 4,
	.name = "lab of Ann",
	.date = "2026-01-31T12:00:00Z",
};

static void test_there_and_back(void **state)
{
	struct dump_head h;
	struct rv_error e;
	struct buf b;
	size_t at;

	(void)state;
	buf_init(&b, 4096);
	assert_int_equal(dump_head_write(&sample, &b), 0);
	assert_int_equal(buf_append(&b, "body", 4), 0);
	assert_int_equal(dump_head_read(&h, buf_data(&b), buf_len(&b), &at, &e), 0);
	assert_int_equal(at, buf_len(&b) - 4);
	assert_memory_equal(&h.pool, &sample.pool, 16);
	assert_memory_equal(&h.generation_id, &sample.generation_id, 16);
	assert_int_equal(h.generation, 7);
	assert_int_equal(h.seq, 123456);
	assert_string_equal(h.name, "lab of Ann");
	assert_string_equal(h.date, sample.date);
	buf_fini(&b);
}

/* Any bit that is another, any byte too many or too few. */
static void test_damage(void **state)
{
	struct dump_head h;
	struct rv_error e;
	struct buf b;
	size_t at;

	(void)state;
	buf_init(&b, 4096);
	assert_int_equal(dump_head_write(&sample, &b), 0);
	assert_int_equal(buf_append(&b, "body", 4), 0);
	for (size_t i = 0; i < 8 * (buf_len(&b) - 4); i++) {
		uint8_t *bytes = (uint8_t *)buf_data(&b);

		bytes[i / 8] ^= (uint8_t)(1 << i % 8);
		assert_int_equal(
			dump_head_read(&h, bytes, buf_len(&b), &at, &e), RV_ECORRUPT);
		bytes[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	for (size_t n = 0; n < buf_len(&b); n++)
		assert_int_equal(
			dump_head_read(&h, buf_data(&b), n, &at, &e), RV_ECORRUPT);
	assert_int_equal(buf_append(&b, "!", 1), 0);
	assert_int_equal(
		dump_head_read(&h, buf_data(&b), buf_len(&b), &at, &e), RV_ECORRUPT);
	buf_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
