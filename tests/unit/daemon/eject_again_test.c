/* pool.eject, whose entry finds that something has changed: it looks anew. */
#include "daemon/eject.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "daemon/daemon.h"
#include "rpc/message.h"
#include "vm/vm_ghost_marks.h"
#include "applied.h"

enum { RAFT_ID = 2 };

static const struct uuid pool_uuid = {{1}}, self = {{2}}, host = {{3}}, vm = {{4}};

/* What the pool says (--wrap). */
static struct {
	struct daemon d;
	struct db *db;
	struct txn *meanwhile; /* comes before the next entry */
	int commits, removed;
	struct pool_commit *commit; /* not ended yet */
	int replies, failed;	    /* the code */
	char words[RV_ERROR_DETAIL_MAX];
	struct buf out;
	msgpack_packer pk;
} w;

const struct db *__wrap_pool_db(const struct pool *pool);
uint64_t __wrap_pool_seq(const struct pool *pool);
int64_t __wrap_pool_age_ms(const struct pool *pool);
int __wrap_pool_commit(struct pool *pool, struct pool_commit *c, struct txn *t,
	void (*fn)(struct pool_commit *c), struct rv_error *e);
int __wrap_pool_member_remove(struct pool *pool, uint64_t id,
	void (*fn)(void *arg, int rc), void *arg, struct rv_error *e);

const struct db *__wrap_pool_db(const struct pool *pool)
{
	(void)pool;
	return w.db;
}

uint64_t __wrap_pool_seq(const struct pool *pool)
{
	(void)pool;
	return db_seq(w.db);
}

int64_t __wrap_pool_age_ms(const struct pool *pool)
{
	(void)pool;
	return 0;
}

int __wrap_pool_commit(struct pool *pool, struct pool_commit *c, struct txn *t,
	void (*fn)(struct pool_commit *c), struct rv_error *e)
{
	(void)pool;
	(void)e;
	assert_null(w.commit);
	w.commits++;
	if (w.meanwhile)
		must_apply(w.db, w.meanwhile);
	w.meanwhile = NULL;
	c->error = applied(w.db, t);
	c->rc = c->error.code;
	c->fn = fn;
	w.commit = c;
	return 0;
}

int __wrap_pool_member_remove(struct pool *pool, uint64_t id,
	void (*fn)(void *arg, int rc), void *arg, struct rv_error *e)
{
	(void)pool;
	(void)fn;
	(void)arg;
	(void)e;
	assert_int_equal(id, RAFT_ID);
	w.removed++;
	return 0;
}

/* --- the caller --- */

static msgpack_packer *client_begin(struct call *c)
{
	(void)c;
	msgpack_packer_init(&w.pk, &w.out, rpc_pack_to_buf);
	return &w.pk;
}

static void client_end(struct call *c)
{
	(void)c;
	w.replies++;
}

static void client_fail(struct call *c, const struct rv_error *e)
{
	(void)c;
	w.replies++;
	w.failed = e->code;
	snprintf(w.words, sizeof w.words, "%s", e->detail);
}

static int client_keep(struct call *c)
{
	(void)c;
	return 0;
}

static void client_on_gone(struct call *c, timer_fn *fn)
{
	(void)c;
	(void)fn;
}

static const struct call_port client_port = {
	client_begin, client_end, client_fail, client_keep, client_on_gone};

static void ask_to_eject(void)
{
	static const msgpack_object no_params = {.type = MSGPACK_OBJECT_MAP};
	struct call *c = calloc(1, sizeof *c);

	c->daemon = &w.d;
	c->port = &client_port;
	c->method = schema_method(METHOD_POOL_EJECT);
	c->params = &no_params;
	c->args[0] = value_ref(host);
	list_init(&c->waiting);
	timer_init(&c->timer, w.d.loop, "test.call", NULL, c);
	list_push_back(&w.d.calls, &c->node);
	w.d.call_count++;
	pool_eject(c);
}

/* --- what happens --- */

static void commit_ends(void)
{
	struct pool_commit *c = w.commit;

	assert_non_null(c);
	w.commit = NULL;
	c->fn(c);
}

/* As the host itself reports it. */
static void reported(struct txn *t)
{
	char key[UUID_TEXT_SIZE];

	txn_init(t, w.db, 1000);
	txn_map_put(t, vm, VM_GHOSTS, uuid_format(&host, key), "7 web");
	vm_ghost_reported_txn(w.db, host, t);
}

static int setup(void **state)
{
	struct txn t;

	(void)state;
	memset(&w, 0, sizeof w);
	log_setup(LOG_ERROR + 1, NULL, NULL);
	buf_init(&w.out, 4096);
	w.d.host = self;
	list_init(&w.d.calls);
	list_init(&w.d.free_calls);
	w.db = db_new(1);
	txn_init(&t, NULL, 1000);
	txn_create(&t, CLASS_POOL, pool_uuid);
	txn_create(&t, CLASS_HOST, self);
	txn_create(&t, CLASS_HOST, host);
	txn_set_string(&t, host, HOST_NAME_LABEL, "beta");
	txn_set_int(&t, host, HOST_RAFT_ID, RAFT_ID);
	txn_create(&t, CLASS_VM, vm);
	txn_set_string(&t, vm, VM_NAME_LABEL, "web");
	must_apply(w.db, &t);
	return loop_new_sim(&w.d.loop, 1);
}

static int teardown(void **state)
{
	(void)state;
	calls_free(&w.d);
	loop_free(w.d.loop);
	db_free(w.db);
	buf_fini(&w.out);
	return 0;
}

/* --- the tests --- */

/* It stands in the way then, in the words of a look at it. */
static void a_ghost_comes(void **state)
{
	struct txn ghost;

	(void)state;
	reported(&ghost);
	w.meanwhile = &ghost;
	ask_to_eject();
	assert_int_equal(w.replies, 0);
	commit_ends();
	assert_int_equal(w.commits, 1);
	assert_int_equal(w.replies, 1);
	assert_int_equal(w.failed, RV_ENOTALLOWED);
	assert_non_null(strstr(w.words, "left of VMs: web"));
	assert_non_null(db_row(w.db, CLASS_HOST, host));
	assert_int_equal(w.removed, 0);
}

/* It has ended again: nothing is in the way any more. */
static void a_ghost_comes_and_goes(void **state)
{
	struct txn ghost, gone;

	(void)state;
	reported(&ghost);
	w.meanwhile = &ghost;
	ask_to_eject();
	txn_init(&gone, w.db, 1000);
	vm_ghost_unmark_txn(w.db, vm, host, &gone);
	must_apply(w.db, &gone);
	commit_ends();
	assert_int_equal(w.replies, 0);
	assert_int_equal(w.commits, 2);
	commit_ends();
	assert_int_equal(w.replies, 1);
	assert_int_equal(w.failed, 0);
	assert_null(db_row(w.db, CLASS_HOST, host));
	assert_int_equal(w.removed, 1);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_ghost_comes),
		TEST(a_ghost_comes_and_goes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
