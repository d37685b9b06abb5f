#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "rpc/sp.h"

static void hello_is_what_nng_sends(void **state)
{
	uint8_t out[SP_HELLO_BYTES];
	struct rv_error e;

	(void)state;
	sp_hello_encode(out, SP_REP);
	assert_memory_equal(out, "\0SP\0\0\x31\0\0", 8);
	sp_hello_encode(out, SP_PUB);
	assert_memory_equal(out, "\0SP\0\0\x20\0\0", 8);
	assert_int_equal(
		sp_hello_decode((const uint8_t *)"\0SP\0\0\x30\0\0", SP_REQ, &e), 0);
}

static void hello_of_another_kind_is_refused(void **state)
{
	struct rv_error e = {0};

	(void)state;
	assert_int_equal(sp_hello_decode((const uint8_t *)"\0SP\0\0\x21\0\0", SP_REQ, &e),
		RV_EPROTO);
	assert_non_null(strstr(e.detail, "sub"));
	assert_non_null(strstr(e.detail, "req"));
	assert_int_equal(
		sp_hello_decode((const uint8_t *)"GET / HT", SP_REQ, &e), RV_EPROTO);
	assert_int_equal(sp_hello_decode((const uint8_t *)"\0SP\0\0\x30\0\1", SP_REQ, &e),
		RV_EPROTO);
	assert_int_equal(sp_hello_decode((const uint8_t *)"\0SP\1\0\x30\0\0", SP_REQ, &e),
		RV_EPROTO);
}

static void kinds_pair_up(void **state)
{
	(void)state;
	assert_int_equal(sp_peer_of(SP_REP), SP_REQ);
	assert_int_equal(sp_peer_of(SP_REQ), SP_REP);
	assert_int_equal(sp_peer_of(SP_PUB), SP_SUB);
	assert_string_equal(sp_protocol_name(0x50), "unknown");
}

static void frames_round_trip(void **state)
{
	static const uint64_t sizes[] = {0, 1, 255, 256, 65536, 16 << 20};

	(void)state;
	for (int framing = SP_FRAMING_IPC; framing <= SP_FRAMING_TCP; framing++) {
		for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
			uint8_t out[SP_MAX_HEADER_BYTES];
			size_t n = sp_frame_encode(framing, out, sizes[i]), header, body;
			struct rv_error e;

			assert_int_equal(n, sp_frame_header_bytes(framing));
			assert_int_equal(sp_frame_decode(framing, out, n, 16 << 20,
						 &header, &body, &e),
				0);
			assert_int_equal(header, n);
			assert_int_equal(body, sizes[i]);
			for (size_t cut = 0; cut < n; cut++)
				assert_int_equal(sp_frame_decode(framing, out, cut,
							 16 << 20, &header, &body, &e),
					RV_EAGAIN);
		}
	}
}

static void frames_are_bounded(void **state)
{
	uint8_t out[SP_MAX_HEADER_BYTES];
	size_t header, body, n;
	struct rv_error e = {0};

	(void)state;
	n = sp_frame_encode(SP_FRAMING_TCP, out, 1025);
	assert_int_equal(
		sp_frame_decode(SP_FRAMING_TCP, out, n, 1024, &header, &body, &e),
		RV_ETOOBIG);
	assert_non_null(strstr(e.detail, "1025"));
	n = sp_frame_encode(SP_FRAMING_IPC, out, UINT64_MAX);
	assert_int_equal(
		sp_frame_decode(SP_FRAMING_IPC, out, n, 1024, &header, &body, &e),
		RV_ETOOBIG);
	/* One wrong byte is enough to know. */
	out[0] = 2;
	assert_int_equal(
		sp_frame_decode(SP_FRAMING_IPC, out, 1, 1024, &header, &body, &e),
		RV_EPROTO);
}

static void backtraces_end_at_the_request_id(void **state)
{
	static const uint8_t direct[] = {0x80, 0, 0, 1, 'x'};
	static const uint8_t hops[] = {0, 0, 0, 7, 0x7f, 0, 0, 8, 0xff, 0, 0, 9};
	struct rv_error e;
	size_t n;

	(void)state;
	assert_int_equal(sp_backtrace_decode(direct, sizeof direct, &n, &e), 0);
	assert_int_equal(n, 4);
	assert_int_equal(sp_backtrace_decode(hops, sizeof hops, &n, &e), 0);
	assert_int_equal(n, 12);
	assert_int_equal(sp_backtrace_decode(hops, 11, &n, &e), RV_EPROTO);
	assert_int_equal(sp_backtrace_decode(hops, 0, &n, &e), RV_EPROTO);
}

static void backtraces_have_a_time_to_live(void **state)
{
	uint8_t body[4 * (SP_MAX_HOPS + 1)] = {0};
	struct rv_error e;
	size_t n;

	(void)state;
	body[4 * (SP_MAX_HOPS - 1)] = 0x80;
	assert_int_equal(sp_backtrace_decode(body, sizeof body, &n, &e), 0);
	assert_int_equal(n, SP_MAX_BACKTRACE_BYTES);
	body[4 * (SP_MAX_HOPS - 1)] = 0;
	body[4 * SP_MAX_HOPS] = 0x80;
	assert_int_equal(sp_backtrace_decode(body, sizeof body, &n, &e), RV_ELIMIT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hello_is_what_nng_sends),
		cmocka_unit_test(hello_of_another_kind_is_refused),
		cmocka_unit_test(kinds_pair_up),
		cmocka_unit_test(frames_round_trip),
		cmocka_unit_test(frames_are_bounded),
		cmocka_unit_test(backtraces_end_at_the_request_id),
		cmocka_unit_test(backtraces_have_a_time_to_live),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
