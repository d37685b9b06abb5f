/* The frames' codec, byte by byte; the clock filter; a message's rules. */
#include "link/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "link/clock.h"

static size_t make(uint8_t *out, unsigned kind, unsigned channel, unsigned flags,
	const void *payload, size_t len)
{
	link_frame_head(out, (enum link_frame_kind)kind, channel, flags, (uint32_t)len);
	if (len)
		memcpy(out + LINK_FRAME_HEAD, payload, len);
	return LINK_FRAME_HEAD + len;
}

static int decode(struct link_frame *f, const uint8_t *data, size_t len)
{
	struct rv_error e = {0};
	size_t used = 0;
	int rc = link_frame_decode(f, data, len, &used, &e);

	if (rc == 0)
		assert_true(used <= len);
	else if (rc != RV_EAGAIN)
		assert_int_equal(e.code, rc);
	return rc;
}

static void test_hello(void **state)
{
	struct link_hello in = {.oldest = 1,
				  .newest = 3,
				  .host = {{1, 2, 3, 16}},
				  .incarnation = UINT64_C(0x0102030405060708),
				  .selected = 9},
			  out;
	uint8_t payload[LINK_HELLO_SIZE], bytes[64];
	struct rv_error e = {0};
	struct link_frame f;
	size_t len;

	(void)state;
	link_hello_encode(payload, &in);
	len = make(bytes, LINK_HELLO, 0, 0, payload, sizeof payload);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(decode(&f, bytes, i), RV_EAGAIN);
	assert_int_equal(decode(&f, bytes, len), 0);
	assert_int_equal(link_hello_decode(&out, &f, &e), 0);
	assert_memory_equal(out.host.b, in.host.b, 16);
	assert_true(out.incarnation == in.incarnation && out.selected == 9);
	/* The wire format is what docs/link.md says, for ever. */
	assert_memory_equal(bytes, "\1\1\0\0\0\0\0\x28RVLK\0\1\0\3\1\2\3", 19);
	assert_memory_equal(bytes + 32, "\1\2\3\4\5\6\7\x8\0\0\0\0\0\0\0\x9", 16);

	in.oldest = 2;
	link_hello_encode(bytes + LINK_FRAME_HEAD, &in);
	assert_int_equal(decode(&f, bytes, len), 0);
	assert_int_equal(link_hello_decode(&out, &f, &e), RV_EUNSUPPORTED);
	in.oldest = 1;
	in.incarnation = 0;
	link_hello_encode(bytes + LINK_FRAME_HEAD, &in);
	assert_int_equal(link_hello_decode(&out, &f, &e), RV_EPROTO);
	bytes[LINK_FRAME_HEAD] = 'X';
	assert_int_equal(link_hello_decode(&out, &f, &e), RV_EPROTO);
}

static void test_probes(void **state)
{
	struct link_echo in = {7, 1000000000001, 1000000000002, 1000000000003, 4}, out;
	struct link_probe probe = {0xfffffffe, 1234567890123}, back;
	uint8_t payload[LINK_ECHO_SIZE], bytes[64];
	struct link_frame f;

	(void)state;
	link_echo_encode(payload, &in);
	assert_int_equal(
		decode(&f, bytes, make(bytes, LINK_ECHO, 0, 0, payload, LINK_ECHO_SIZE)),
		0);
	link_echo_decode(&out, &f);
	assert_true(in.number == out.number && in.sent_ms == out.sent_ms &&
		    in.received_ms == out.received_ms &&
		    in.returned_ms == out.returned_ms && in.held_us == out.held_us);
	link_probe_encode(payload, &probe);
	assert_int_equal(decode(&f, bytes,
				 make(bytes, LINK_PROBE, 0, 0, payload, LINK_PROBE_SIZE)),
		0);
	link_probe_decode(&back, &f);
	assert_true(back.number == probe.number && back.sent_ms == probe.sent_ms);
}

/* Wrong from the fewest bytes that show it. */
static void test_garbage(void **state)
{
	static uint8_t bytes[LINK_FRAME_HEAD + LINK_START_SIZE + LINK_CHUNK_MAX + 1];
	struct link_frame f;

	(void)state;
	assert_int_equal(decode(&f, (const uint8_t *)"G", 1), RV_EPROTO);
	assert_int_equal(decode(&f, (const uint8_t *)"\1\x9\0\0", 4), RV_EPROTO);
	assert_int_equal(decode(&f, (const uint8_t *)"\1\0\0\0", 4), RV_EPROTO);
	assert_int_equal(decode(&f, (const uint8_t *)"\1\x9\0\x80", 4), RV_EAGAIN);
	assert_int_equal(decode(&f, (const uint8_t *)"\1\3\4\0", 4), RV_EPROTO);
	assert_int_equal(decode(&f, (const uint8_t *)"\1\1\1\0", 4), RV_EPROTO);
	assert_int_equal(decode(&f, (const uint8_t *)"\1\3\0\4", 4), RV_EPROTO);
	assert_int_equal(decode(&f, (const uint8_t *)"\1\5\0\1", 4), RV_EPROTO);
	assert_int_equal(decode(&f, (const uint8_t *)"\1\1\0\0\0\0\0\x27", 8), RV_EPROTO);
	assert_int_equal(decode(&f, (const uint8_t *)"\1\1\0\0\0\0\4\1", 8), RV_ETOOBIG);
	assert_int_equal(
		decode(&f, (const uint8_t *)"\1\3\0\0\xff\xff\xff\xff", 8), RV_ETOOBIG);
	assert_int_equal(
		decode(&f, (const uint8_t *)"\1\x9\0\x80\0\0\x10\1", 8), RV_ETOOBIG);
	assert_int_equal(decode(&f, (const uint8_t *)"\1\x9\0\x80\0\0\0\1z", 9), 0);
	assert_false(link_frame_known(f.kind));
	make(bytes, LINK_DATA, 0, 0, NULL, 0);
	assert_int_equal(decode(&f, bytes, 8), RV_EPROTO); /* an empty chunk */
	link_frame_head(bytes, LINK_DATA, 0, 0, LINK_CHUNK_MAX + 1);
	assert_int_equal(decode(&f, bytes, sizeof bytes), RV_EPROTO);
}

static int start(unsigned channel, unsigned flags, uint32_t total, size_t here)
{
	static uint8_t payload[LINK_START_SIZE + LINK_CHUNK_MAX], bytes[32 << 10];
	struct link_frame f;

	link_put16(payload, 5);
	link_put32(payload + 2, total);
	return decode(&f, bytes,
		make(bytes, LINK_DATA, channel, flags, payload, LINK_START_SIZE + here));
}

static void test_message_starts(void **state)
{
	(void)state;
	assert_int_equal(start(0, LINK_FIRST | LINK_LAST, 0, 0), 0);
	assert_int_equal(start(0, LINK_FIRST | LINK_LAST, 10, 10), 0);
	assert_int_equal(start(0, LINK_FIRST | LINK_LAST, 11, 10), RV_EPROTO);
	assert_int_equal(start(0, LINK_FIRST | LINK_LAST, 9, 10), RV_EPROTO);
	assert_int_equal(start(0, LINK_FIRST, 11, 10), 0);
	assert_int_equal(start(0, LINK_FIRST, 10, 10), RV_EPROTO);
	assert_int_equal(start(0, LINK_FIRST, 10, 0), RV_EPROTO);
	for (unsigned i = 0; i < LINK_CHANNELS; i++) {
		size_t max = link_channel_max((enum link_channel)i);

		assert_int_equal(start(i, LINK_FIRST, (uint32_t)max, 100), 0);
		assert_int_equal(
			start(i, LINK_FIRST, (uint32_t)max + 1, 100), RV_ETOOBIG);
	}
}

/* A peer 5 s ahead, one way slow: the offset stays within its bound. */
static void test_clock(void **state)
{
	struct clock_filter f = {.count = 0};
	struct clock_estimate c = clock_filter_estimate(&f, 0);
	const int64_t base = 1700000000000, ahead = 5000;

	(void)state;
	assert_false(c.known);
	/* 10 ms there, 40 ms back, held for 3 ms */
	assert_true(clock_filter_add(&f, base, base + 10 + ahead, base + 13 + ahead,
		base + 53, 50000, 1000000));
	c = clock_filter_estimate(&f, 1000000);
	assert_true(c.known);
	assert_int_equal(c.offset_us, 4985000);
	assert_int_equal(c.rtt_us, 50000);
	assert_int_equal(c.error_us, 25000 + CLOCK_RESOLUTION_US);
	assert_true(5000000 - c.offset_us <= c.error_us);
	/* A quicker one is believed, a slower one is not. */
	assert_true(clock_filter_add(
		&f, base, base + 1 + ahead, base + 1 + ahead, base + 2, 2000, 2000000));
	assert_true(clock_filter_add(&f, base, base + 500 + ahead, base + 500 + ahead,
		base + 501, 501000, 3000000));
	c = clock_filter_estimate(&f, 3000000);
	assert_int_equal(c.offset_us, 5000000);
	assert_int_equal(c.rtt_us, 2000);
	assert_int_equal(c.last_us, 501000);
	assert_int_equal(c.error_us, 1000 + CLOCK_RESOLUTION_US + CLOCK_DRIFT_PPM);
	/* One that can't be true beside it: the clock was set. */
	assert_true(clock_filter_add(
		&f, base, base + 10, base + 10, base + 20, 20000, 4000000));
	c = clock_filter_estimate(&f, 4000010);
	assert_int_equal(c.offset_us, 0);
	/* The shortest is forgotten after so many newer ones. */
	for (int i = 0; i < CLOCK_SAMPLES; i++)
		assert_true(clock_filter_add(
			&f, base, base + 15, base + 15, base + 30, 30000, 5000000 + i));
	c = clock_filter_estimate(&f, 5000010);
	assert_int_equal(c.rtt_us, 30000);
	assert_false(clock_filter_add(&f, base, INT64_MAX, base, base, 1, 1));
	assert_false(clock_filter_add(&f, base, INT64_MIN, base, base, 1, 1));
	assert_false(clock_filter_add(&f, base, base, base, base, -1, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hello),
		cmocka_unit_test(test_probes),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_message_starts),
		cmocka_unit_test(test_clock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
