#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/mpcheck.h"
#include "rpc/message.h"

struct world {
	struct buf out;
	msgpack_packer pk;
	msgpack_zone zone;
	struct rpc_message m;
	struct rv_error e, remote;
};

static int setup(void **state)
{
	static struct world w;

	memset(&w, 0, sizeof w);
	buf_init(&w.out, 1 << 20);
	msgpack_packer_init(&w.pk, &w.out, rpc_pack_to_buf);
	msgpack_zone_init(&w.zone, MSGPACK_ZONE_CHUNK_SIZE);
	*state = &w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	buf_fini(&w->out);
	msgpack_zone_destroy(&w->zone);
	return 0;
}

static int decode(struct world *w, enum rpc_message_type wanted)
{
	return rpc_message_decode(&w->m, wanted, buf_data(&w->out), buf_len(&w->out),
		&w->zone, &w->remote, &w->e);
}

static int decode_bytes(struct world *w, const char *bytes, size_t len)
{
	return rpc_message_decode(&w->m, RPC_REQUEST, (const uint8_t *)bytes, len,
		&w->zone, &w->remote, &w->e);
}

#define DECODE(w, literal) decode_bytes(w, literal, sizeof(literal) - 1)

static void requests_round_trip(void **state)
{
	struct world *w = *state;
	const msgpack_object *value;

	rpc_pack_request(&w->pk, 123456789012345, "VM.start", 8);
	msgpack_pack_map(&w->pk, 2);
	rpc_pack_key(&w->pk, "self");
	rpc_pack_key(&w->pk, "abc");
	rpc_pack_key(&w->pk, "force");
	msgpack_pack_true(&w->pk);
	assert_int_equal(decode(w, RPC_REQUEST), 0);
	assert_true(w->m.id == 123456789012345);
	assert_memory_equal(w->m.method, "VM.start", w->m.method_len);
	assert_int_equal(w->m.params.type, MSGPACK_OBJECT_MAP);
	value = rpc_map_get(&w->m.params, "self");
	assert_non_null(value);
	assert_memory_equal(value->via.str.ptr, "abc", 3);
	assert_null(rpc_map_get(&w->m.params, "sel"));
	assert_int_equal(w->m.raw[0], 0x82);
	assert_ptr_equal(w->m.raw + w->m.raw_len, buf_data(&w->out) + buf_len(&w->out));
}

static void every_width_of_id_is_read(void **state)
{
	struct world *w = *state;

	assert_int_equal(DECODE(w, "\x94\x00\x05\xa1m\x80"), 0);
	assert_int_equal(w->m.id, 5);
	assert_int_equal(DECODE(w, "\x94\x00\xcc\xff\xa1m\x80"), 0);
	assert_int_equal(w->m.id, 255);
	assert_int_equal(DECODE(w, "\x94\x00\xce\xff\0\0\1\xa1m\x80"), 0);
	assert_true(w->m.id == 0xff000001);
	assert_int_equal(DECODE(w, "\x94\x00\xd1\x7f\xff\xa1m\x80"), 0);
	assert_int_equal(w->m.id, 0x7fff);
	assert_int_equal(DECODE(w, "\x94\x00\xd1\xff\xff\xa1m\x80"), RV_EPROTO);
	assert_int_equal(DECODE(w, "\x94\x00\xff\xa1m\x80"), RV_EPROTO);
	assert_int_equal(DECODE(w, "\x94\xcc\x00\x05\xa1m\x80"), 0);
}

static void nil_params_are_the_empty_map(void **state)
{
	struct world *w = *state;

	assert_int_equal(DECODE(w, "\x94\x00\x05\xa1m\xc0"), 0);
	assert_int_equal(w->m.params.type, MSGPACK_OBJECT_MAP);
	assert_int_equal(w->m.params.via.map.size, 0);
	assert_int_equal(w->m.raw_len, 1);
	assert_int_equal(w->m.raw[0], 0x80);
}

static void what_is_no_request_is_told(void **state)
{
	struct world *w = *state;

	assert_int_equal(DECODE(w, ""), RV_EPROTO);
	assert_int_equal(DECODE(w, "\xc0"), RV_EPROTO);
	assert_int_equal(DECODE(w, "\x90"), RV_EPROTO);
	assert_int_equal(DECODE(w, "\x91\x00"), RV_EPROTO);
	assert_int_equal(DECODE(w, "\x94\x01\x05\xc0\xc0"), RV_EPROTO);
	assert_int_equal(DECODE(w, "\x94\x00\x05\xa1m\x80\x00"), RV_EPROTO);
	assert_int_equal(DECODE(w, "\x94\x00\xa1x\xa1m\x80"), RV_EPROTO);
	/* From here on the id is known: the reply can carry it. */
	assert_int_equal(DECODE(w, "\x94\x00\x05\x07\x80"), RV_EPROTO);
	assert_int_equal(w->m.id, 5);
	assert_int_equal(DECODE(w, "\x94\x00\x05\xa0\x80"), RV_EPROTO);
	assert_int_equal(DECODE(w, "\x94\x00\x05\xa1m\x91\x01"), RV_EPROTO);
	assert_non_null(strstr(w->e.detail, "params"));
}

static void long_method_names_are_refused(void **state)
{
	struct world *w = *state;
	char name[RPC_MAX_METHOD_BYTES + 1];

	memset(name, 'm', sizeof name);
	rpc_pack_request(&w->pk, 1, name, RPC_MAX_METHOD_BYTES);
	msgpack_pack_map(&w->pk, 0);
	assert_int_equal(decode(w, RPC_REQUEST), 0);
	buf_consume(&w->out, buf_len(&w->out));
	rpc_pack_request(&w->pk, 1, name, RPC_MAX_METHOD_BYTES + 1);
	msgpack_pack_map(&w->pk, 0);
	assert_int_equal(decode(w, RPC_REQUEST), RV_EPROTO);
}

static void bombs_cost_nothing(void **state)
{
	struct world *w = *state;

	assert_int_equal(DECODE(w, "\xdd\x03\xff\xff\xff"), RV_EPROTO);
	assert_int_equal(DECODE(w, "\x94\x00\x05\xa1m\xdf\x7f\xff\xff\xff"), RV_EPROTO);
	assert_int_equal(DECODE(w, "\x94\x00\x05\xa1m\xc6\xff\xff\xff\xff"), RV_EPROTO);
}

static void errors_round_trip(void **state)
{
	struct world *w = *state;

	rpc_pack_error(&w->pk, 7, RV_EBUSY, "VM web1 is being started", true);
	assert_int_equal(decode(w, RPC_RESPONSE), 0);
	assert_int_equal(w->m.id, 7);
	assert_ptr_equal(w->m.error, &w->remote);
	assert_int_equal(w->remote.code, RV_EBUSY);
	assert_string_equal(w->remote.detail, "VM web1 is being started");
	assert_true(w->m.retryable);
}

static void codes_of_a_newer_server_are_internal_errors(void **state)
{
	struct world *w = *state;

	msgpack_pack_array(&w->pk, 4);
	msgpack_pack_int(&w->pk, 1);
	msgpack_pack_int(&w->pk, 7);
	msgpack_pack_map(&w->pk, 2);
	rpc_pack_key(&w->pk, "number");
	msgpack_pack_int(&w->pk, 60000);
	rpc_pack_key(&w->pk, "message");
	rpc_pack_key(&w->pk, "new");
	msgpack_pack_nil(&w->pk);
	assert_int_equal(decode(w, RPC_RESPONSE), 0);
	assert_int_equal(w->remote.code, RV_EINTERNAL);
	assert_string_equal(w->remote.detail, "new");
}

static void bad_text_stays_good_msgpack(void **state)
{
	static const char *const bad[] = {"a\xff"
					  "b",
		"cut \xe2\x82", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
		"fine \xe2\x82\xac"};
	struct world *w = *state;

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		buf_consume(&w->out, buf_len(&w->out));
		rpc_pack_error(&w->pk, 1, RV_EIO, bad[i], false);
		assert_int_equal(mpcheck(buf_data(&w->out), buf_len(&w->out), &w->e), 0);
	}
	assert_int_equal(decode(w, RPC_RESPONSE), 0);
	assert_string_equal(w->remote.detail, "fine \xe2\x82\xac");
}

static void results_are_unpacked(void **state)
{
	struct world *w = *state;

	rpc_pack_response(&w->pk, 9);
	rpc_pack_key(&w->pk, "done");
	assert_int_equal(decode(w, RPC_RESPONSE), 0);
	assert_null(w->m.error);
	assert_int_equal(w->m.result.type, MSGPACK_OBJECT_STR);
	assert_int_equal(w->m.raw_len, 5);
}

static void notifications_begin_with_their_topic(void **state)
{
	struct world *w = *state;
	struct buf topic;

	buf_init(&topic, 64);
	assert_int_equal(rpc_notification_topic(&topic, "changed"), 0);
	rpc_pack_notification(&w->pk, "changed");
	msgpack_pack_map(&w->pk, 0);
	assert_memory_equal(buf_data(&w->out), buf_data(&topic), buf_len(&topic));
	assert_int_equal(decode(w, RPC_NOTIFICATION), 0);
	assert_memory_equal(w->m.method, "changed", 7);
	buf_fini(&topic);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(requests_round_trip),
		TEST(every_width_of_id_is_read),
		TEST(nil_params_are_the_empty_map),
		TEST(what_is_no_request_is_told),
		TEST(long_method_names_are_refused),
		TEST(bombs_cost_nothing),
		TEST(errors_round_trip),
		TEST(codes_of_a_newer_server_are_internal_errors),
		TEST(bad_text_stays_good_msgpack),
		TEST(results_are_unpacked),
		TEST(notifications_begin_with_their_topic),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
