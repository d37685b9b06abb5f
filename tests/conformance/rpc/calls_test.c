/* The protocol over every transport, by our client and by stock libnng. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/protocol/pubsub0/sub.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "rpc/message.h"
#include "tests/conformance/rpc/harness.h"

enum { CALL_MS = 60000 };

static struct harness h;

static int start(void **state)
{
	(void)state;
	harness_start(&h, 0, 0);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	harness_stop(&h);
	return 0;
}

static uint64_t echo(struct rpc_client *c, uint64_t value)
{
	const msgpack_object *result, *back;
	struct rv_error e = {0};
	msgpack_packer *pk = rpc_client_begin(c, "echo", 1);
	int rc;

	rpc_pack_key(pk, "value");
	msgpack_pack_uint64(pk, value);
	rc = rpc_client_end(c, CALL_MS, &result, &e);
	if (rc)
		fail_msg("echo: %s", e.detail);
	back = rpc_map_get(result, "value");
	assert_non_null(back);
	return back->via.u64;
}

static void every_transport_echoes(void **state)
{
	const char *urls[] = {h.ipc, h.tcp, h.tls};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct rpc_client *c = harness_client(&h, urls[i]);

		for (uint64_t k = 0; k < 100; k++)
			assert_int_equal(echo(c, k << 32), k << 32);
		rpc_client_close(c);
	}
}

static void errors_reach_the_client(void **state)
{
	struct rpc_client *c = harness_client(&h, h.ipc);
	struct rv_error e;

	(void)state;
	assert_int_equal(
		rpc_client_call(c, "fail", NULL, 0, CALL_MS, NULL, &e), RV_EBUSY);
	assert_string_equal(e.detail, "told so");
	assert_true(rpc_client_retryable(c));
	assert_int_equal(
		rpc_client_call(c, "nothing", NULL, 0, CALL_MS, NULL, &e), RV_EMETHOD);
	assert_string_equal(e.detail, "nothing: no such method");
	assert_false(rpc_client_retryable(c));
	rpc_client_close(c);
}

static void large_messages_pass_up_to_the_limit(void **state)
{
	static const uint64_t sizes[] = {100000, 3000000, (16 << 20) - 64};
	const char *urls[] = {h.ipc, h.tcp, h.tls};
	struct rv_error e;

	(void)state;
	for (size_t u = 0; u < 3; u++) {
		struct rpc_client *c = harness_client(&h, urls[u]);
		const msgpack_object *result;
		msgpack_packer *pk;

		for (size_t i = 0; i < 3; i++) {
			pk = rpc_client_begin(c, "big", 1);
			rpc_pack_key(pk, "bytes");
			msgpack_pack_uint64(pk, sizes[i]);
			if (rpc_client_end(c, CALL_MS, &result, &e) != 0)
				fail_msg("%s", e.detail);
			assert_int_equal(result->via.str.size, sizes[i]);
		}
		pk = rpc_client_begin(c, "big", 1);
		rpc_pack_key(pk, "bytes");
		msgpack_pack_uint64(pk, 16 << 20);
		assert_int_equal(rpc_client_end(c, CALL_MS, NULL, &e), RV_ETOOBIG);
		assert_int_equal(echo(c, 1), 1);
		rpc_client_close(c);
	}
}

static void large_requests_pass(void **state)
{
	enum { BYTES = 12 << 20 };
	char *text = malloc(BYTES + 1);
	struct rpc_client *c = harness_client(&h, h.tls);
	const msgpack_object *result;
	msgpack_packer *pk = rpc_client_begin(c, "echo", 1);
	struct rv_error e = {0};

	(void)state;
	memset(text, 'r', BYTES);
	text[BYTES] = '\0';
	rpc_pack_key(pk, "text");
	rpc_pack_key(pk, text);
	if (rpc_client_end(c, CALL_MS, &result, &e) != 0)
		fail_msg("%s", e.detail);
	assert_int_equal(rpc_map_get(result, "text")->via.str.size, BYTES);
	rpc_client_close(c);
	free(text);
}

struct slow {
	struct rpc_client *other;
	int count;
};

static void on_slow(void *arg)
{
	struct slow *s = arg;

	s->count++;
	assert_int_equal(echo(s->other, 7), 7);
}

static int later(struct rpc_client *c, uint64_t ms, int64_t timeout_ms)
{
	msgpack_packer *pk = rpc_client_begin(c, "later", 1);
	struct rv_error e = {0};

	rpc_pack_key(pk, "ms");
	msgpack_pack_uint64(pk, ms);
	return rpc_client_end(c, timeout_ms, NULL, &e);
}

static void a_slow_answer_is_told_while_it_is_awaited(void **state)
{
	struct rpc_client *c = harness_client(&h, h.ipc);
	struct slow s = {.other = harness_client(&h, h.ipc)};

	(void)state;
	rpc_client_on_slow(c, CALL_MS / 2, on_slow, &s);
	assert_int_equal(later(c, 50, CALL_MS), 0);
	assert_int_equal(s.count, 0);
	rpc_client_on_slow(c, 20, on_slow, &s);
	assert_int_equal(later(c, 500, CALL_MS), 0);
	assert_int_equal(s.count, 1);
	assert_int_equal(later(c, 500, 0), 0);
	assert_int_equal(s.count, 2);
	assert_int_equal(later(c, 4000, 200), RV_ETIMEDOUT);
	assert_int_equal(s.count, 3);
	rpc_client_on_slow(c, 0, NULL, NULL);
	/* The server's timer of the call before is over, too, when this one's is. */
	assert_int_equal(later(c, 4000, CALL_MS), 0);
	assert_int_equal(s.count, 3);
	rpc_client_close(s.other);
	rpc_client_close(c);
}

/* --- stock libnng --- */

static nng_msg *message(const char *method, const char *key, uint64_t value)
{
	nng_msg *m;
	struct buf b;
	msgpack_packer pk;

	buf_init(&b, 4096);
	msgpack_packer_init(&pk, &b, rpc_pack_to_buf);
	rpc_pack_request(&pk, value, method, strlen(method));
	msgpack_pack_map(&pk, 1);
	rpc_pack_key(&pk, key);
	msgpack_pack_uint64(&pk, value);
	assert_int_equal(nng_msg_alloc(&m, 0), 0);
	assert_int_equal(nng_msg_append(m, buf_data(&b), buf_len(&b)), 0);
	buf_fini(&b);
	return m;
}

static uint64_t reply_id(nng_msg *m)
{
	struct rv_error e = {0}, remote = {0};
	struct rpc_message out;
	msgpack_zone zone;
	uint64_t id;

	msgpack_zone_init(&zone, MSGPACK_ZONE_CHUNK_SIZE);
	if (rpc_message_decode(&out, RPC_RESPONSE, nng_msg_body(m), nng_msg_len(m), &zone,
		    &remote, &e) != 0)
		fail_msg("%s", e.detail);
	assert_null(out.error);
	id = out.id;
	msgpack_zone_destroy(&zone);
	return id;
}

/* 64 contexts on one socket, answered in the reverse order of asking. */
static void contexts_are_answered_in_any_order(void **state)
{
	enum { CONTEXTS = 64 };
	nng_ctx ctx[CONTEXTS];
	nng_aio *aio[CONTEXTS];
	nng_socket s;

	(void)state;
	assert_int_equal(nng_req0_open(&s), 0);
	assert_int_equal(nng_dial(s, h.ipc, NULL, 0), 0);
	for (int i = 0; i < CONTEXTS; i++) {
		assert_int_equal(nng_ctx_open(&ctx[i], s), 0);
		assert_int_equal(nng_aio_alloc(&aio[i], NULL, NULL), 0);
		nng_aio_set_msg(
			aio[i], message("later", "ms", (uint64_t)(CONTEXTS - i) * 4));
		nng_ctx_send(ctx[i], aio[i]);
	}
	for (int i = 0; i < CONTEXTS; i++) {
		nng_aio_wait(aio[i]);
		assert_int_equal(nng_aio_result(aio[i]), 0);
		nng_ctx_recv(ctx[i], aio[i]);
	}
	for (int i = 0; i < CONTEXTS; i++) {
		nng_msg *m;

		nng_aio_wait(aio[i]);
		assert_int_equal(nng_aio_result(aio[i]), 0);
		m = nng_aio_get_msg(aio[i]);
		assert_int_equal(reply_id(m), (CONTEXTS - i) * 4);
		nng_msg_free(m);
		nng_aio_free(aio[i]);
		nng_ctx_close(ctx[i]);
	}
	nng_close(s);
}

static void many_dialers_are_served(void **state)
{
	enum { DIALERS = 50, ROUNDS = 20 };
	nng_socket s[DIALERS];

	(void)state;
	for (int i = 0; i < DIALERS; i++) {
		assert_int_equal(nng_req0_open(&s[i]), 0);
		assert_int_equal(nng_dial(s[i], i % 2 ? h.ipc : h.tcp, NULL, 0), 0);
	}
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < DIALERS; i++)
			assert_int_equal(
				nng_sendmsg(s[i], message("echo", "v", (uint64_t)i), 0),
				0);
		for (int i = 0; i < DIALERS; i++) {
			nng_msg *m;

			assert_int_equal(nng_recvmsg(s[i], &m, 0), 0);
			assert_int_equal(reply_id(m), i);
			nng_msg_free(m);
		}
	}
	for (int i = 0; i < DIALERS; i++)
		nng_close(s[i]);
}

/* A raw REQ socket behaves as a device would: its hop ids come back. */
static void hops_come_back(void **state)
{
	nng_socket s;
	nng_msg *m;

	(void)state;
	assert_int_equal(nng_req0_open_raw(&s), 0);
	assert_int_equal(nng_dial(s, h.tcp, NULL, 0), 0);
	m = message("echo", "v", 5);
	assert_int_equal(nng_msg_header_append_u32(m, 0x00001234), 0);
	assert_int_equal(nng_msg_header_append_u32(m, 0x80005678), 0);
	assert_int_equal(nng_sendmsg(s, m, 0), 0);
	assert_int_equal(nng_recvmsg(s, &m, 0), 0);
	assert_int_equal(nng_msg_header_len(m), 8);
	assert_memory_equal(nng_msg_header(m), "\0\0\x12\x34\x80\0\x56\x78", 8);
	nng_msg_free(m);
	nng_close(s);
}

/* --- notifications --- */

static void publish(struct rpc_client *c, uint64_t count, uint64_t bytes)
{
	msgpack_packer *pk = rpc_client_begin(c, "publish", 2);
	struct rv_error e;

	rpc_pack_key(pk, "count");
	msgpack_pack_uint64(pk, count);
	rpc_pack_key(pk, "bytes");
	msgpack_pack_uint64(pk, bytes);
	assert_int_equal(rpc_client_end(c, CALL_MS, NULL, &e), 0);
}

static void subscribers_hear_everything_in_order(void **state)
{
	const char *urls[] = {h.pub_ipc, h.pub_tcp, h.pub_tls};
	struct rpc_client *c = harness_client(&h, h.ipc);
	struct rv_error e;

	(void)state;
	for (size_t u = 0; u < 3; u++) {
		struct rpc_client_config config = {.url = urls[u], .ca_pem = h.ca_pem};
		struct rpc_subscription *sub;
		const msgpack_object *params;
		const char *method;
		uint64_t n = 0;

		if (rpc_subscription_open(&sub, &config, "tick", &e) != 0)
			fail_msg("%s", e.detail);
		/* The server may not have read our greeting yet: knock first. */
		do
			publish(c, 1, 0);
		while (rpc_subscription_next(sub, 100, &method, &params, &e) != 0);
		publish(c, 100, 10);
		for (uint64_t i = 0; i < 100;) {
			if (rpc_subscription_next(sub, CALL_MS, &method, &params, &e))
				fail_msg("%s", e.detail);
			assert_string_equal(method, "tick");
			n = rpc_map_get(params, "n")->via.u64;
			if (rpc_map_get(params, "pad")->via.str.size == 0)
				continue; /* a late knock */
			assert_int_equal(n, i);
			i++;
		}
		rpc_subscription_close(sub);
	}
	rpc_client_close(c);
}

static void other_topics_are_not_heard(void **state)
{
	struct rpc_client_config config = {.url = h.pub_ipc};
	struct rpc_client *c = harness_client(&h, h.ipc);
	struct rpc_subscription *all, *other;
	const msgpack_object *params;
	const char *method;
	struct rv_error e;

	(void)state;
	assert_int_equal(rpc_subscription_open(&other, &config, "tock", &e), 0);
	assert_int_equal(rpc_subscription_open(&all, &config, NULL, &e), 0);
	do
		publish(c, 1, 0);
	while (rpc_subscription_next(all, 100, &method, &params, &e) != 0);
	assert_int_equal(
		rpc_subscription_next(other, 50, &method, &params, &e), RV_ETIMEDOUT);
	rpc_subscription_close(all);
	rpc_subscription_close(other);
	rpc_client_close(c);
}

/* --- connecting badly --- */

static int try_open(const struct rpc_client_config *config, struct rv_error *e)
{
	struct rpc_client *c;
	int rc = rpc_client_open(&c, config, e);

	rpc_client_close(c);
	return rc;
}

static void the_fingerprint_alone_is_enough(void **state)
{
	struct rpc_client_config config = {.url = h.tls, .fingerprint = h.fingerprint};
	struct rpc_client *c;
	struct rv_error e;

	(void)state;
	if (rpc_client_open(&c, &config, &e) != 0)
		fail_msg("%s", e.detail);
	assert_int_equal(echo(c, 3), 3);
	rpc_client_close(c);
}

static void wrong_servers_are_refused(void **state)
{
	char wrong[65];
	struct rv_error e = {0};
	struct rpc_client_config config = {.url = h.tls};

	(void)state;
	assert_int_equal(try_open(&config, &e), RV_EINVAL);
	memcpy(wrong, h.fingerprint, sizeof wrong);
	wrong[63] = wrong[63] == '0' ? '1' : '0';
	config.fingerprint = wrong;
	assert_int_equal(try_open(&config, &e), RV_ETLS);
	assert_non_null(strstr(e.detail, "fingerprint"));
	config.ca_pem = h.ca_pem;
	assert_int_equal(try_open(&config, &e), RV_ETLS);
	config.fingerprint = NULL;
	config.ca_pem = h.client_pem; /* signs nobody */
	assert_int_equal(try_open(&config, &e), RV_ETLS);
	assert_non_null(strstr(e.detail, "can't be trusted"));
	config.ca_pem = h.ca_pem;
	config.server_name = "other.example";
	assert_int_equal(try_open(&config, &e), RV_ETLS);
	config.url = "tls+tcp://127.0.0.1:1";
	assert_int_equal(try_open(&config, &e), RV_ECLOSED);
	assert_non_null(strstr(e.detail, "127.0.0.1:1"));
	config.url = "ipc:///nowhere/at/all";
	assert_int_equal(try_open(&config, &e), RV_ECLOSED);
	config.url = "http://x";
	assert_int_equal(try_open(&config, &e), RV_EINVAL);
}

static void a_plain_server_on_the_tls_url_is_told(void **state)
{
	char url[64];
	struct rv_error e = {0};
	struct rpc_client_config config = {
		.url = url, .ca_pem = h.ca_pem, .connect_timeout_ms = 3000};

	(void)state;
	snprintf(url, sizeof url, "tls+tcp://127.0.0.1:%d", h.tcp_port);
	assert_int_not_equal(try_open(&config, &e), 0);
	assert_non_null(strstr(e.detail, url));
}

/* --- identity --- */

static void assert_identity(
	struct rpc_client *c, const char *user, const char *role, const char *via)
{
	const msgpack_object *result, *o;
	struct rv_error e = {0};

	if (rpc_client_call(c, "session.get_identity", NULL, 0, CALL_MS, &result, &e))
		fail_msg("%s", e.detail);
	result = rpc_map_get(result, "value");
	o = rpc_map_get(result, "user");
	assert_int_equal(o->via.str.size, strlen(user));
	assert_memory_equal(o->via.str.ptr, user, strlen(user));
	o = rpc_map_get(result, "role");
	assert_memory_equal(o->via.str.ptr, role, strlen(role));
	o = rpc_map_get(result, "via");
	assert_memory_equal(o->via.str.ptr, via, strlen(via));
}

static void local_users_are_known_by_credentials(void **state)
{
	struct rpc_client *c = harness_client(&h, h.ipc);
	char user[32];

	(void)state;
	snprintf(user, sizeof user, "uid %u", geteuid());
	assert_identity(c, user, "pool-admin", "ipc");
	rpc_client_close(c);
}

static void certificates_have_roles(void **state)
{
	struct rpc_client_config config = {.url = h.tls,
		.ca_pem = h.ca_pem,
		.cert_pem = h.client_pem,
		.key_pem = h.client_key_pem};
	struct rpc_client *c;
	struct rv_error e;

	(void)state;
	if (rpc_client_open(&c, &config, &e) != 0)
		fail_msg("%s", e.detail);
	assert_identity(c, "operator", "pool-operator", "certificate");
	rpc_client_close(c);
}

static void passwords_open_sessions(void **state)
{
	struct rpc_client *c = harness_client(&h, h.tls), *beside;
	struct rv_error e = {0};

	(void)state;
	assert_int_equal(
		rpc_client_call(c, "session.get_identity", NULL, 0, CALL_MS, NULL, &e),
		RV_EAUTH);
	assert_non_null(strstr(e.detail, "session.login_with_password"));
	assert_int_equal(rpc_client_login(c, "ann", "wrong", CALL_MS, &e), RV_EAUTH);
	assert_string_equal(e.detail, "wrong user name or password");
	assert_int_equal(rpc_client_login(c, "bob", "secret", CALL_MS, &e), RV_EAUTH);
	assert_string_equal(e.detail, "wrong user name or password");
	if (rpc_client_login(c, "ann", "secret", CALL_MS, &e) != 0)
		fail_msg("%s", e.detail);
	assert_identity(c, "ann", "vm-operator", "session");
	beside = harness_client(&h, h.tls);
	rpc_client_share_session(beside, c);
	assert_identity(beside, "ann", "vm-operator", "session");
	rpc_client_close(beside);
	assert_identity(c, "ann", "vm-operator", "session");
	assert_int_equal(
		rpc_client_call(c, "session.logout", NULL, 0, CALL_MS, NULL, &e), 0);
	assert_int_equal(
		rpc_client_call(c, "session.get_identity", NULL, 0, CALL_MS, NULL, &e),
		RV_EAUTH);
	rpc_client_close(c);
}

static void guessing_is_slowed(void **state)
{
	struct rpc_client *c = harness_client(&h, h.tcp);
	struct rv_error e = {0};
	int rc = 0;

	(void)state;
	for (int i = 0; i < 8 && rc != RV_ELIMIT; i++)
		rc = rpc_client_login(c, "ann", "guess", CALL_MS, &e);
	assert_int_equal(rc, RV_ELIMIT);
	if (!strstr(e.detail, "from 127.0.0.1;"))
		fail_msg("%s", e.detail);
	assert_int_equal(rpc_client_login(c, "ann", "secret", CALL_MS, &e), RV_ELIMIT);
	rpc_client_close(c);
}

static void sessions_expire(void **state)
{
	struct harness short_lived;
	struct rpc_client *c;
	struct rv_error e;
	int rc;

	(void)state;
	harness_start(&short_lived, 0, 20);
	c = harness_client(&short_lived, short_lived.tls);
	assert_int_equal(rpc_client_login(c, "ann", "secret", CALL_MS, &e), 0);
	do {
		usleep(40000);
		rc = rpc_client_call(
			c, "session.get_identity", NULL, 0, CALL_MS, NULL, &e);
	} while (rc == 0);
	assert_int_equal(rc, RV_EAUTH);
	rpc_client_close(c);
	harness_stop(&short_lived);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_transport_echoes),
		cmocka_unit_test(errors_reach_the_client),
		cmocka_unit_test(large_messages_pass_up_to_the_limit),
		cmocka_unit_test(large_requests_pass),
		cmocka_unit_test(a_slow_answer_is_told_while_it_is_awaited),
		cmocka_unit_test(contexts_are_answered_in_any_order),
		cmocka_unit_test(many_dialers_are_served),
		cmocka_unit_test(hops_come_back),
		cmocka_unit_test(subscribers_hear_everything_in_order),
		cmocka_unit_test(other_topics_are_not_heard),
		cmocka_unit_test(the_fingerprint_alone_is_enough),
		cmocka_unit_test(wrong_servers_are_refused),
		cmocka_unit_test(a_plain_server_on_the_tls_url_is_told),
		cmocka_unit_test(local_users_are_known_by_credentials),
		cmocka_unit_test(certificates_have_roles),
		cmocka_unit_test(passwords_open_sessions),
		cmocka_unit_test(guessing_is_slowed),
		cmocka_unit_test(sessions_expire),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
