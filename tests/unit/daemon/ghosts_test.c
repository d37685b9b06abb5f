/* host-ghost-destroy: whoever asks is answered, whatever becomes of the pool meanwhile.
 */
#include "daemon/ghosts.h"

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

enum { DOMID = 7, CALL_PATIENCE_MS = 60 * 1000 };

static const struct uuid self = {{1}}, vm = {{2}};

/* What the hypervisor, the pool and vm/ say (--wrap). */
static struct {
	struct daemon d;
	struct db *db;
	struct hyper hyper;
	struct hyper_domain domain;
	struct hyper_req *asked; /* not answered yet */
	struct pool_commit *commit;
	int commit_rc; /* the call itself fails */
	struct pool_barrier *barrier;
	int looks, destroyed;
	int replies, failed; /* the code */
	char words[RV_ERROR_DETAIL_MAX];
	struct buf out;
	msgpack_packer pk;
} w;

const struct db *__wrap_pool_db(const struct pool *pool);
uint64_t __wrap_pool_seq(const struct pool *pool);
int64_t __wrap_pool_age_ms(const struct pool *pool);
int __wrap_pool_commit(struct pool *pool, struct pool_commit *c, struct txn *t,
	void (*fn)(struct pool_commit *c), struct rv_error *e);
int __wrap_pool_read_barrier(struct pool *pool, struct pool_barrier *b,
	void (*fn)(struct pool_barrier *b, int rc));
bool __wrap_vm_ghost_is(const struct vm_manager *m, const struct uuid *host,
	const struct hyper_domain_id *id);
bool __wrap_vm_ghost_of(
	const struct vm_manager *m, const struct uuid *host, const struct uuid *uuid);
void __wrap_vm_ghost_gone(
	struct vm_manager *m, const struct uuid *host, const struct hyper_domain_id *id);
void __wrap_vm_manager_look(struct vm_manager *m);

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
	if (w.commit_rc) {
		txn_fini(t);
		return rv_error_set(e, w.commit_rc, "the disk is full");
	}
	assert_null(w.commit);
	txn_fini(t);
	c->fn = fn;
	w.commit = c;
	return 0;
}

int __wrap_pool_read_barrier(struct pool *pool, struct pool_barrier *b,
	void (*fn)(struct pool_barrier *b, int rc))
{
	(void)pool;
	assert_null(w.barrier);
	b->fn = fn;
	w.barrier = b;
	return 0;
}

static void hyper_asked(struct hyper *h, struct hyper_req *req)
{
	(void)h;
	assert_null(w.asked);
	if (req->call == HYPER_CALL_DESTROY) {
		assert_int_equal(req->id.domid, DOMID);
		w.destroyed++;
	}
	w.asked = req;
}

static const struct hyper_ops hyper_ops = {.submit = hyper_asked};

bool __wrap_vm_ghost_is(const struct vm_manager *m, const struct uuid *host,
	const struct hyper_domain_id *id)
{
	(void)m;
	(void)host;
	return id->domid == DOMID;
}

bool __wrap_vm_ghost_of(
	const struct vm_manager *m, const struct uuid *host, const struct uuid *uuid)
{
	(void)m;
	(void)host;
	(void)uuid;
	return false;
}

void __wrap_vm_ghost_gone(
	struct vm_manager *m, const struct uuid *host, const struct hyper_domain_id *id)
{
	(void)m;
	(void)host;
	(void)id;
}

void __wrap_vm_manager_look(struct vm_manager *m)
{
	(void)m;
	w.looks++;
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

static void ask_to_destroy(void)
{
	static const msgpack_object no_params = {.type = MSGPACK_OBJECT_MAP};
	struct call *c = calloc(1, sizeof *c);

	c->daemon = &w.d;
	c->port = &client_port;
	c->method = schema_method(METHOD_HOST_GHOST_DESTROY);
	c->params = &no_params;
	for (int i = 0; i < c->method->arg_count; i++)
		c->args[i] = strcmp(c->method->args[i].name, "self") == 0
				     ? value_ref(self)
				     : value_int(DOMID);
	list_init(&c->waiting);
	timer_init(&c->timer, w.d.loop, "test.call", NULL, c);
	list_push_back(&w.d.calls, &c->node);
	w.d.call_count++;
	host_ghost_destroy(c);
}

/* --- what happens --- */

static void hyper_answers(int rc)
{
	struct hyper_req *req = w.asked;

	assert_non_null(req);
	w.asked = NULL;
	req->rc = rc;
	req->domains = &w.domain;
	req->domain_count = 1;
	if (rc)
		rv_error_set(&req->error, rc, "the hypervisor says no");
	hyper_finish(req);
}

static void commit_ends(int rc)
{
	struct pool_commit *c = w.commit;

	assert_non_null(c);
	w.commit = NULL;
	c->rc = rc;
	rv_error_set(&c->error, rc, "%s", rc ? "no master was found" : "");
	c->fn(c);
}

static void barrier_ends(int rc)
{
	struct pool_barrier *b = w.barrier;

	assert_non_null(b);
	w.barrier = NULL;
	b->fn(b, rc);
}

static void mark(bool there)
{
	struct txn t;
	char key[UUID_TEXT_SIZE];

	txn_init(&t, w.db, 1000);
	if (there)
		txn_map_put(&t, vm, VM_GHOSTS, uuid_format(&self, key), "7 web");
	else
		vm_ghost_unmark_txn(w.db, vm, self, &t);
	must_apply(w.db, &t);
}

static void later_ms(int64_t ms)
{
	loop_sim_run_until(w.d.loop, loop_now_us(w.d.loop) + ms * 1000);
}

/* The domain is gone, and its record asked for. */
static void destroyed_and_asked(void)
{
	mark(true);
	ask_to_destroy();
	hyper_answers(0);
	assert_int_equal(w.destroyed, 1);
	hyper_answers(0);
	assert_int_equal(w.replies, 0);
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
	w.domain = (struct hyper_domain){.id.domid = DOMID, .vm = vm};
	snprintf(w.domain.name, sizeof w.domain.name, "web");
	w.db = db_new(1);
	txn_init(&t, NULL, 1000);
	txn_create(&t, CLASS_HOST, self);
	txn_create(&t, CLASS_VM, vm);
	must_apply(w.db, &t);
	w.d.hyper = &w.hyper;
	if (loop_new_sim(&w.d.loop, 1) || ghosts_new(&w.d.ghosts, &w.d))
		return -1;
	hyper_init(&w.hyper, &hyper_ops, w.d.loop);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	ghosts_stop(w.d.ghosts);
	calls_free(&w.d);
	ghosts_free(w.d.ghosts);
	loop_free(w.d.loop);
	db_free(w.db);
	buf_fini(&w.out);
	return 0;
}

/* --- the tests --- */

static void it_is_recorded(void **state)
{
	(void)state;
	destroyed_and_asked();
	mark(false);
	commit_ends(0);
	assert_int_equal(w.replies, 1);
	assert_int_equal(w.failed, 0);
	assert_int_equal(w.looks, 1);
	later_ms(CALL_PATIENCE_MS);
	assert_int_equal(w.replies, 1);
}

static void the_hypervisor_refuses(void **state)
{
	(void)state;
	mark(true);
	ask_to_destroy();
	hyper_answers(0);
	hyper_answers(RV_EHYPERVISOR);
	assert_int_equal(w.replies, 1);
	assert_int_equal(w.failed, RV_EHYPERVISOR);
	assert_null(w.commit);
}

/* The commit itself does not end. */
static void no_master_answers(void **state)
{
	(void)state;
	destroyed_and_asked();
	later_ms(CALL_PATIENCE_MS);
	assert_int_equal(w.replies, 1);
	assert_int_equal(w.failed, RV_EOUTCOME);
	assert_non_null(strstr(w.words, "domain 7 (web) is ended"));
	assert_non_null(strstr(w.words, "VM.ghosts"));
	mark(false);
	commit_ends(0);
	assert_int_equal(w.replies, 1);
	assert_int_equal(w.looks, 1);
}

/* What became of it is being found out, and no barrier is ever answered. */
static void the_master_is_lost_right_then(void **state)
{
	(void)state;
	destroyed_and_asked();
	commit_ends(RV_EOUTCOME);
	for (int i = 0; i < 100 && !w.replies; i++) {
		barrier_ends(RV_ENOTMASTER);
		later_ms(1000);
	}
	assert_int_equal(w.replies, 1);
	assert_int_equal(w.failed, RV_EOUTCOME);
	assert_non_null(strstr(w.words, "does not answer"));
	/* A new master: it was lost, is proposed anew, and nobody waits. */
	barrier_ends(0);
	mark(false);
	commit_ends(0);
	assert_int_equal(w.replies, 1);
	assert_int_equal(w.looks, 1);
}

static void it_is_not_recorded(void **state)
{
	(void)state;
	w.commit_rc = RV_ESPACE;
	destroyed_and_asked();
	later_ms(1);
	assert_int_equal(w.replies, 1);
	assert_int_equal(w.failed, RV_EOUTCOME);
	assert_non_null(strstr(w.words, "the disk is full"));
	assert_int_equal(w.looks, 1);
}

/* Refused, since somebody else took the mark out meanwhile. */
static void somebody_else_recorded_it(void **state)
{
	(void)state;
	destroyed_and_asked();
	mark(false);
	commit_ends(RV_ECONFLICT);
	assert_int_equal(w.replies, 1);
	assert_int_equal(w.failed, 0);
}

static void the_daemon_ends_meanwhile(void **state)
{
	(void)state;
	destroyed_and_asked();
	commit_ends(RV_EOUTCOME);
	later_ms(CALL_PATIENCE_MS);
	assert_int_equal(w.replies, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(it_is_recorded, setup, teardown),
		cmocka_unit_test_setup_teardown(the_hypervisor_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(no_master_answers, setup, teardown),
		cmocka_unit_test_setup_teardown(
			the_master_is_lost_right_then, setup, teardown),
		cmocka_unit_test_setup_teardown(it_is_not_recorded, setup, teardown),
		cmocka_unit_test_setup_teardown(
			somebody_else_recorded_it, setup, teardown),
		cmocka_unit_test_setup_teardown(
			the_daemon_ends_meanwhile, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
