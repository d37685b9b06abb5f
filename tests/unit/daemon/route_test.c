/* Every method finds its way, also with the least that it may be called with. */
#include "daemon/route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/call.h"
#include "daemon/config.h"
#include "daemon/daemon.h"
#include "applied.h"

static const struct uuid pool_uuid = {{9}};

static struct {
	struct daemon d;
	struct config config;
	struct db *db;
} w;

const struct db *__wrap_pool_db(const struct pool *pool);
struct uuid __wrap_pool_master(const struct pool *pool);

const struct db *__wrap_pool_db(const struct pool *pool)
{
	(void)pool;
	return w.db;
}

struct uuid __wrap_pool_master(const struct pool *pool)
{
	(void)pool;
	return UUID_NONE;
}

static int setup(void **state)
{
	struct txn t;

	(void)state;
	memset(&w, 0, sizeof w);
	config_defaults(&w.config);
	w.d.config = &w.config;
	w.d.host = (struct uuid){{1}};
	w.d.members = (struct members *)&w; /* several hosts; nobody is linked */
	w.db = db_new(1);
	txn_init(&t, NULL, 1000);
	txn_create(&t, CLASS_POOL, pool_uuid);
	must_apply(w.db, &t);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	db_free(w.db);
	return 0;
}

/* Whatever may be left out is; a reference that is needed is to nothing. */
static void every_method_is_routed(void **state)
{
	static const msgpack_object nothing = {.type = MSGPACK_OBJECT_MAP};

	(void)state;
	for (int id = METHOD_NONE + 1; id < METHOD_COUNT; id++) {
		struct call c = {.daemon = &w.d,
			.method = schema_method((enum schema_method_id)id)};
		struct uuid host = UUID_NONE;

		for (int i = 0; i < c.method->arg_count; i++)
			c.records[i] = &nothing;
		(void)route_call(&c, &host);
	}
}

static void an_introduced_sr_is_a_record_only(void **state)
{
	struct call c = {.daemon = &w.d, .method = schema_method(METHOD_SR_INTRODUCE)};
	struct uuid host = UUID_NONE;

	(void)state;
	assert_int_equal(route_call(&c, &host), ROUTE_HERE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_method_is_routed, setup, teardown),
		cmocka_unit_test_setup_teardown(
			an_introduced_sr_is_a_record_only, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
