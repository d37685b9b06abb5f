/* Frames and the token bucket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "migrate/bucket.h"
#include "migrate/frame.h"

static size_t some_frame(uint8_t *out, enum migrate_type type)
{
	static const uint8_t policy[100] = {1, 2, 3};
	struct migrate_message m = {.type = type};

	switch (type) {
	case MIGRATE_PREPARE:
		m.as.prepare = (struct migrate_prepare){.version_min = 1,
			.version_max = 3,
			.migration = {{1}},
			.task = {{2}},
			.vm = {{3}},
			.source = {{4}},
			.target = {{5}},
			.generation = 7,
			.seq = 8,
			.wall_ms = -9,
			.target_kib = 10,
			.actual_kib = 11,
			.xen_major = 4,
			.xen_minor = 17,
			.driver = "xen-4.17",
			.live = true,
			.cpu_policy = policy,
			.cpu_policy_len = sizeof policy};
		break;
	case MIGRATE_REFUSE:
	case MIGRATE_RETURNED:
	case MIGRATE_ABORTED:
		m.as.reason.code = RV_EMEMORY;
		snprintf(m.as.reason.text, sizeof m.as.reason.text,
			"zu wenig Speicher f\xc3\xbcr web1");
		break;
	case MIGRATE_FINAL:
		m.as.final = (struct migrate_final){.migration = {{1}},
			.generation = 7,
			.bytes = 1 << 30,
			.rounds = 3,
			.total_us = 9000000,
			.suspended_us = 80000,
			.prepared_us = 8900000};
		break;
	case MIGRATE_DATA:
		memset(out + MIGRATE_HEADER_BYTES + MIGRATE_OFFSET_BYTES, 0x5a, 1000);
		return migrate_seal_data(out, 123456, 1000);
	default:
		m.as.generation = 8;
	}
	return migrate_encode(&m, out);
}

static void test_round_trip(void **state)
{
	static uint8_t frame[MIGRATE_CONTROL_MAX];
	struct migrate_message m;
	struct rv_error e;

	(void)state;
	for (unsigned type = 1; type < MIGRATE_TYPE_COUNT; type++) {
		size_t len = some_frame(frame, type), said;

		assert_int_equal(migrate_frame_length(frame, len, &said, &e), 0);
		assert_int_equal(said, len);
		if (migrate_decode(frame, len, &m, &e))
			fail_msg("%s: %s", migrate_type_name(type), e.detail);
		assert_int_equal(m.type, type);
		/* Any byte that is damaged is seen. */
		for (size_t i = 0; i < len; i++) {
			frame[i] ^= 0x10;
			assert_int_not_equal(migrate_decode(frame, len, &m, &e), 0);
			frame[i] ^= 0x10;
		}
		for (size_t cut = 0; cut < len; cut++)
			assert_int_not_equal(migrate_decode(frame, cut, &m, &e), 0);
	}
	assert_int_equal(some_frame(frame, MIGRATE_DATA),
		MIGRATE_HEADER_BYTES + MIGRATE_OFFSET_BYTES + 1000);
	assert_int_equal(
		migrate_decode(frame, MIGRATE_HEADER_BYTES + MIGRATE_OFFSET_BYTES + 1000,
			&m, &e),
		0);
	assert_int_equal(m.as.data.offset, 123456);
	assert_int_equal(m.as.data.len, 1000);
}

static void test_contents(void **state)
{
	static uint8_t frame[MIGRATE_CONTROL_MAX];
	struct migrate_message m;
	struct rv_error e;
	size_t len = some_frame(frame, MIGRATE_PREPARE);

	(void)state;
	assert_int_equal(migrate_decode(frame, len, &m, &e), 0);
	assert_int_equal(m.as.prepare.generation, 7);
	assert_int_equal(m.as.prepare.wall_ms, -9);
	assert_string_equal(m.as.prepare.driver, "xen-4.17");
	assert_int_equal(m.as.prepare.cpu_policy_len, 100);
	assert_int_equal(m.as.prepare.cpu_policy[2], 3);
	len = some_frame(frame, MIGRATE_REFUSE);
	assert_int_equal(migrate_decode(frame, len, &m, &e), 0);
	assert_int_equal(m.as.reason.code, RV_EMEMORY);
	assert_string_equal(m.as.reason.text, "zu wenig Speicher f\xc3\xbcr web1");
}

/* Lengths are refused before anything is stored. */
static void test_lengths(void **state)
{
	uint8_t head[MIGRATE_HEADER_BYTES] = {0};
	size_t len;
	struct rv_error e;

	(void)state;
	assert_int_equal(migrate_frame_length(head, 15, &len, &e), 0);
	assert_int_equal(len, 0);
	assert_int_equal(migrate_frame_length(head, 16, &len, &e), RV_EPROTO);
	head[4] = MIGRATE_DATA;
	head[6] = MIGRATE_VERSION + 1;
	assert_int_equal(migrate_frame_length(head, 16, &len, &e), RV_EPROTO);
	head[6] = MIGRATE_VERSION;
	assert_int_equal(migrate_frame_length(head, 16, &len, &e), RV_EPROTO);
	memset(head, 0xff, 4);
	assert_int_equal(migrate_frame_length(head, 16, &len, &e), RV_ETOOBIG);
}

/* The clocks of the two ends have nothing to do with one another. */
static void test_final_that_comes_late(void **state)
{
	struct migrate_final f = {
		.total_us = 9000000, .suspended_us = 80000, .prepared_us = 8000000};

	(void)state;
	assert_int_equal(migrate_final_late_us(&f, 8000000), 0);
	assert_int_equal(migrate_final_late_us(&f, 8300000), 300000);
	assert_int_equal(migrate_final_late_us(&f, 7999000), 0);
}

static void test_bucket(void **state)
{
	struct bucket b;
	uint64_t sent = 0;
	int64_t now = 0;

	(void)state;
	bucket_init(&b, 0, 0);
	assert_true(bucket_allows(&b, 0) == UINT64_MAX && bucket_wait_us(&b, 1) == 0);
	bucket_init(&b, 1 << 20, 0);
	while (now < 10 * 1000000) {
		uint64_t n = bucket_allows(&b, now);

		n = n < 65536 ? n : 65536;
		bucket_take(&b, n);
		sent += n;
		if (n == 0)
			now += bucket_wait_us(&b, 65536);
	}
	/* 10 MiB, and the first burst. */
	assert_true(sent >= 10 << 20 && sent <= (10 << 20) + (1 << 18));
	/* An hour of rest is no hour's worth of bytes. */
	assert_true(bucket_allows(&b, now + INT64_C(3600000000)) <= 1 << 18);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_contents),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_final_that_comes_late),
		cmocka_unit_test(test_bucket),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
