/* An intent whose outcome is found out late: by then the master has given this host up,
 * and has ended what it had not yet begun; or a ghost was reported. */
#include "scenario.h"

#include "vm/vm_ghost_marks.h"
#include "vm/vm_lost.h"

/* pool_commit is asked through here (--wrap). */
static struct {
	struct world *w;
	bool armed;
	struct pool_commit *commit; /* the intent's, and who is told of it */
	void (*fn)(struct pool_commit *c);
	struct uuid haunted; /* a host reports a ghost; none: this one is given up */
	struct pool_commit ending;
} late;

int __real_pool_commit(struct pool *pool, struct pool_commit *c, struct txn *t,
	void (*fn)(struct pool_commit *c), struct rv_error *e);
int __wrap_pool_commit(struct pool *pool, struct pool_commit *c, struct txn *t,
	void (*fn)(struct pool_commit *c), struct rv_error *e);

static void ended(struct pool_commit *c)
{
	assert_int_equal(c->rc, 0);
	c = late.commit;
	c->rc = rv_error_set(&c->error, RV_EOUTCOME, "the master was lost");
	late.fn(c);
}

static void give_up(struct txn *t)
{
	const struct db *db = pool_db(late.w->pool);
	int lost = 0;

	for (const struct row *vm = NULL;
		(vm = db_next_ref(db, VM_INTENT_HOST, late.w->host, vm)); lost++)
		(void)vm_lost_txn(
			db, vm, "its host was given up", loop_wall_ms(late.w->loop), t);
	assert_int_equal(lost, 1);
}

/* It is on record; who asked hears nothing of it before what comes next. */
static void intended(struct pool_commit *c)
{
	struct pool *pool = late.w->pool;
	char key[UUID_TEXT_SIZE];
	struct rv_error e;
	struct txn t;

	assert_int_equal(c->rc, 0);
	world_txn(late.w, &t);
	if (uuid_is_none(&late.haunted))
		give_up(&t);
	else
		txn_map_put(&t, late.w->vm[0], VM_GHOSTS, uuid_format(&late.haunted, key),
			"7 web-0123");
	assert_int_equal(__real_pool_commit(pool, &late.ending, &t, ended, &e), 0);
}

int __wrap_pool_commit(struct pool *pool, struct pool_commit *c, struct txn *t,
	void (*fn)(struct pool_commit *c), struct rv_error *e)
{
	if (late.armed) {
		late.armed = false;
		late.commit = c;
		late.fn = fn;
		fn = intended;
	}
	return __real_pool_commit(pool, c, t, fn, e);
}

static void overtake(struct world *w)
{
	memset(&late, 0, sizeof late);
	late.w = w;
	late.armed = true;
}

/* It is not begun: its task is over. Its VM is free, and its claims are looked at. */
static void test_not_begun(void **state)
{
	struct world *w = world_new(310);
	size_t vm = world_add_vm(w, 1, 1);
	struct vm_claims *claims = &w->mgr->hosts[0]->claims;
	struct uuid task;

	(void)state;
	world_run_ms(w, 25000);
	assert_int_equal(claims->sr_count, 1);
	assert_true(claims->srs[0].due > 0);
	overtake(w);
	assert_int_equal(world_begin(w, VM_OP_START, vm, &task), 0);
	assert_non_null(late.commit);
	assert_int_equal(vm_op_count(w->mgr), 0);
	assert_int_equal(claims->srs[0].due, 0);
	settle(w);
	assert_int_equal(world_task(w, task), TASK_STATUS_FAILURE);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	world_assert_clean(w, vm);
	world_must(w, VM_OP_START, vm);
	world_assert_runs(w, vm);
	world_free(w);
}

/* What waited for its end goes on. */
static void test_others_go_on(void **state)
{
	struct world *w = world_new(311);
	size_t vm = world_add_vm(w, 1, 0);
	struct vm_op_args args = {
		.vm = w->vm[vm], .with_disks = true, .new_name = "copy"};
	struct uuid first = world_uuid(w), second = world_uuid(w);
	struct rv_error e;

	(void)state;
	overtake(w);
	assert_int_equal(
		vm_op_start(w->mgr, VM_OP_CLONE, &args, first, NULL, NULL, &e), 0);
	assert_int_equal(
		vm_op_start(w->mgr, VM_OP_CLONE, &args, second, NULL, NULL, &e), 0);
	world_run_ms(w, 1000);
	settle(w);
	assert_int_equal(world_task(w, first), TASK_STATUS_FAILURE);
	assert_int_equal(world_task(w, second), TASK_STATUS_SUCCESS);
	assert_int_equal(db_count(pool_db(w->pool), CLASS_VM), 2);
	world_free(w);
}

/* What makes a domain of the VM, or copies its disks, sees it all the same. */
static void test_beside_a_ghost(void **state)
{
	struct world *w = world_new(312);
	struct uuid host = world_uuid(w), task;
	struct vm_op_args args = {.vm = w->vm[world_add_vm(w, 1, 0)],
		.with_disks = true,
		.new_name = "copy"};
	struct txn t;

	(void)state;
	world_txn(w, &t);
	txn_create(&t, CLASS_HOST, host);
	txn_set_string(&t, host, HOST_NAME_LABEL, "host2");
	world_commit(w, &t);
	for (int copied = 0; copied < 2; copied++) {
		overtake(w);
		late.haunted = host;
		assert_int_equal(world_begin_args(w, copied ? VM_OP_CLONE : VM_OP_START,
					 &args, &task),
			0);
		assert_non_null(late.commit);
		assert_int_equal(world_end(w, task), TASK_STATUS_FAILURE);
		assert_non_null(strstr(
			world_why(w, task), "host host2 has just reported domain 7"));
		settle(w);
		check_world(w);
		world_txn(w, &t);
		vm_ghost_unmark_all_txn(pool_db(w->pool), host, &t);
		world_commit(w, &t);
	}
	assert_int_equal(db_count(pool_db(w->pool), CLASS_VM), 1);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_not_begun),
		cmocka_unit_test(test_others_go_on),
		cmocka_unit_test(test_beside_a_ghost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
