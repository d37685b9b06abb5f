/* A call that names a change which this host has not seen: whose answer that is. */
#include "daemon/call.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "daemon/daemon.h"
#include "daemon/methods.h"
#include "pool/db/txn.h"
#include "rpc/message.h"

#include "tests/unit/daemon/alone.h"

struct world {
	struct alone alone;
	struct daemon d;
	struct rv_error error;
	bool failed;
};

static msgpack_packer *port_begin(struct call *c)
{
	(void)c;
	fail_msg("it was answered");
	return NULL;
}

static void port_end(struct call *c)
{
	(void)c;
}

static void port_fail(struct call *c, const struct rv_error *e)
{
	struct world *w = c->source;

	w->error = *e;
	w->failed = true;
}

static int port_keep(struct call *c)
{
	(void)c;
	return 0;
}

static void port_on_gone(struct call *c, timer_fn *fn)
{
	(void)c;
	(void)fn;
}

static const struct call_port port = {
	port_begin, port_end, port_fail, port_keep, port_on_gone};

static void make_host(struct world *w)
{
	struct txn t;

	w->d.host = (struct uuid){{7}};
	txn_init(&t, pool_db(w->d.pool), 0);
	txn_create(&t, CLASS_HOST, w->d.host);
	txn_set_string(&t, w->d.host, HOST_NAME_LABEL, "behind");
	alone_commit(&w->alone, &w->d, &t);
}

/* {min_seq: SEQ}; its texts are in `bytes`. */
static msgpack_object params_of(msgpack_zone *zone, msgpack_sbuffer *bytes, uint64_t seq)
{
	msgpack_object o;
	msgpack_packer pk;
	size_t at = 0;

	msgpack_sbuffer_init(bytes);
	msgpack_packer_init(&pk, bytes, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 1);
	rpc_pack_key(&pk, "min_seq");
	msgpack_pack_uint64(&pk, seq);
	assert_int_equal(msgpack_unpack(bytes->data, bytes->size, &at, zone, &o),
		MSGPACK_UNPACK_SUCCESS);
	return o;
}

static void a_host_that_is_behind_says_which_it_is(void **state)
{
	const struct session_identity who = {.role = ROLE_POOL_ADMIN, .user = "ann"};
	struct world w = {.failed = false};
	msgpack_object params;
	msgpack_sbuffer bytes;
	msgpack_zone zone;

	(void)state;
	log_setup(LOG_ERROR + 1, NULL, NULL);
	assert_true(msgpack_zone_init(&zone, 4096));
	params = params_of(&zone, &bytes, 1000);
	list_init(&w.d.calls);
	list_init(&w.d.free_calls);
	alone_open(&w.alone, &w.d);
	make_host(&w);
	assert_int_equal(call_begin_forwarded(&w.d, &port, &w, &who, "host.get_all",
				 strlen("host.get_all"), &params),
		0);
	for (int i = 0; i < 1000000 && !w.failed && loop_sim_step(w.d.loop); i++)
		;
	assert_true(w.failed);
	assert_int_equal(w.error.code, RV_ESTALE);
	assert_non_null(
		strstr(w.error.detail, "host behind has not yet seen change 1000"));
	assert_null(strstr(w.error.detail, "this host"));
	msgpack_zone_destroy(&zone);
	msgpack_sbuffer_destroy(&bytes);
	calls_free(&w.d);
	pool_free(w.d.pool);
	alone_close(&w.alone, &w.d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_host_that_is_behind_says_which_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
