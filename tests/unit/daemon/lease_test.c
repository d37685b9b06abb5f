/* The master's side of leases, and what it makes of a host that is silent. */
#include "daemon/lease.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "daemon/call.h"
#include "daemon/fencing.h"
#include "daemon/restart.h"
#include "pool/db/message.h"
#include "vm/vm_protect.h"
#include "alone.h"

struct world {
	struct daemon d;
	struct config config;
	struct alone alone;
	struct uuid pool, a, b, armed, unarmed, plain;
};

/* Calls that would be begun end here (--wrap). */
static struct {
	int count;
	char request[UUID_TEXT_SIZE], method[32];
	bool refuse;
} calls;

int __wrap_call_begin_forwarded(struct daemon *d, const struct call_port *port,
	void *source, const struct session_identity *who, const char *method,
	size_t method_len, const msgpack_object *params);

int __wrap_call_begin_forwarded(struct daemon *d, const struct call_port *port,
	void *source, const struct session_identity *who, const char *method,
	size_t method_len, const msgpack_object *params)
{
	struct rv_error e = {.code = RV_ENOHOST, .detail = "no host is big enough"};
	struct call c = {.daemon = d, .source = source};
	const msgpack_object_map *m = &params->via.map;

	assert_int_equal(who->role, ROLE_POOL_ADMIN);
	assert_true(method_len < sizeof calls.method);
	memcpy(calls.method, method, method_len);
	calls.method[method_len] = '\0';
	calls.count++;
	assert_int_equal(m->ptr[1].val.via.str.size, UUID_TEXT_LEN);
	memcpy(calls.request, m->ptr[1].val.via.str.ptr, UUID_TEXT_LEN);
	if (calls.refuse) {
		(port->fail)(&c, &e); /* cmocka has a fail, too */
	} else {
		msgpack_pack_nil(port->begin(&c));
		port->end(&c);
	}
	return 0;
}

static void run_ms(struct world *w, int64_t ms)
{
	loop_sim_run_until(w->d.loop, loop_now_us(w->d.loop) + ms * 1000);
}

static void commit(struct world *w, struct txn *t)
{
	alone_commit(&w->alone, &w->d, t);
}

static const struct db *db_of(struct world *w)
{
	return pool_db(w->d.pool);
}

static struct uuid make_vm(
	struct world *w, struct txn *t, const char *name, enum vm_restart_priority p)
{
	struct uuid vm = uuid_random(loop_prng(w->d.loop));

	txn_create(t, CLASS_VM, vm);
	txn_set_string(t, vm, VM_NAME_LABEL, name);
	txn_set_enum(t, vm, VM_POWER_STATE, VM_POWER_STATE_RUNNING);
	txn_set_ref(t, vm, VM_RESIDENT_ON, w->b);
	txn_set_int(t, vm, VM_OWNER_GENERATION, 3);
	txn_set_enum(t, vm, VM_HA_RESTART_PRIORITY, (int)p);
	return vm;
}

static void fill(struct world *w, enum vm_restart_priority priority)
{
	char text[VM_ARMED_SIZE];
	struct txn t;

	txn_init(&t, db_of(w), 0);
	w->pool = uuid_random(loop_prng(w->d.loop));
	w->a = w->d.host = uuid_random(loop_prng(w->d.loop));
	w->b = uuid_random(loop_prng(w->d.loop));
	txn_create(&t, CLASS_POOL, w->pool);
	txn_set_ref(&t, w->pool, POOL_GENERATION_ID, w->a);
	txn_create(&t, CLASS_HOST, w->a);
	txn_set_string(&t, w->a, HOST_NAME_LABEL, "a");
	txn_create(&t, CLASS_HOST, w->b);
	txn_set_string(&t, w->b, HOST_NAME_LABEL, "b");
	w->armed = make_vm(w, &t, "armed", priority);
	w->unarmed = make_vm(w, &t, "unarmed", priority);
	w->plain = make_vm(w, &t, "plain", VM_RESTART_PRIORITY_NONE);
	commit(w, &t);
	txn_init(&t, db_of(w), 0);
	txn_set_string(&t, w->armed, VM_HA_ARMED,
		vm_armed_text(db_of(w), db_row(db_of(w), CLASS_VM, w->armed), text));
	/* Promised as it ran before: of a former owner. */
	txn_set_string(&t, w->unarmed, VM_HA_ARMED, text);
	txn_set_int(&t, w->unarmed, VM_OWNER_GENERATION, 4);
	commit(w, &t);
}

static struct world *world_new(enum vm_restart_priority priority)
{
	struct world *w = calloc(1, sizeof *w);

	assert_non_null(w);
	log_setup(LOG_ERROR + 1, NULL, NULL);
	memset(&calls, 0, sizeof calls);
	w->d.config = &w->config;
	alone_open(&w->alone, &w->d);
	run_ms(w, 5000);
	fill(w, priority);
	w->d.recorded = true;
	assert_int_equal(lease_new(&w->d.lease, &w->d), 0);
	assert_int_equal(restarts_new(&w->d.restarts, &w->d), 0);
	return w;
}

static void start(struct world *w)
{
	lease_start(w->d.lease);
	restarts_start(w->d.restarts);
}

static void world_free(struct world *w)
{
	lease_stop(w->d.lease);
	restarts_stop(w->d.restarts);
	pool_free(w->d.pool);
	lease_free(w->d.lease);
	restarts_free(w->d.restarts);
	alone_close(&w->alone, &w->d);
	free(w);
}

static const struct row *vm_row(struct world *w, struct uuid vm)
{
	return db_row(db_of(w), CLASS_VM, vm);
}

static bool is_on_b(struct world *w, struct uuid vm)
{
	struct uuid on = db_ref(vm_row(w, vm), VM_RESIDENT_ON);

	return uuid_eq(&on, &w->b);
}

static int messages(struct world *w, const char *name)
{
	int n = 0;

	for (const struct row *m = NULL; (m = db_next(db_of(w), CLASS_MESSAGE, m));)
		n += strcmp(db_string(m, MESSAGE_NAME), name) == 0;
	return n;
}

/* --- tests --- */

static void test_alone(void **state)
{
	struct world *w = world_new(VM_RESTART_PRIORITY_RESTART);
	struct rv_error e;

	(void)state;
	assert_int_equal(lease_may_run(w->d.lease, &w->a, &e), RV_EAGAIN);
	start(w);
	run_ms(w, 2000);
	assert_int_equal(lease_may_run(w->d.lease, &w->a, &e), 0);
	assert_int_equal(db_int(db_pool(db_of(w)), POOL_LEASE_EPOCH), 1);
	run_ms(w, 60000); /* it renews */
	assert_int_equal(lease_may_run(w->d.lease, &w->a, &e), 0);
	lease_stop(w->d.lease);
	run_ms(w, LEASE_DEFAULT_MS);
	assert_int_equal(lease_may_run(w->d.lease, &w->a, &e), RV_EAGAIN);
	assert_non_null(strstr(e.detail, "host a has not heard"));
	world_free(w);
}

static void test_waits_then_restarts(void **state)
{
	struct world *w = world_new(VM_RESTART_PRIORITY_RESTART);
	char text[UUID_TEXT_SIZE];
	struct uuid task;
	struct txn t;

	(void)state;
	start(w);
	/* The host has never renewed with this master: it counts from its first entry. */
	run_ms(w, lease_wait_ms(LEASE_DEFAULT_MS) - 100);
	assert_true(is_on_b(w, w->armed));
	assert_int_equal(calls.count, 0);
	run_ms(w, 4000);
	assert_false(is_on_b(w, w->armed));
	assert_true(is_on_b(w, w->unarmed) && is_on_b(w, w->plain));
	assert_int_equal(messages(w, "HOST_FENCED"), 1);
	task = db_ref(vm_row(w, w->armed), VM_HA_RESTART_TASK);
	assert_string_equal(calls.request, uuid_format(&task, text));
	assert_string_equal(calls.method, "VM.start");
	/* Asked again, it is the same request. */
	run_ms(w, 5000);
	assert_string_equal(calls.request, uuid_format(&task, text));
	txn_init(&t, db_of(w), 0);
	txn_create(&t, CLASS_TASK, task);
	txn_set_enum(&t, task, TASK_STATUS, TASK_STATUS_SUCCESS);
	txn_set_ref(&t, w->armed, VM_RESIDENT_ON, w->a);
	txn_set_enum(&t, w->armed, VM_POWER_STATE, VM_POWER_STATE_RUNNING);
	commit(w, &t);
	calls.count = 0;
	run_ms(w, 60000);
	task = db_ref(vm_row(w, w->armed), VM_HA_RESTART_TASK);
	assert_true(uuid_is_none(&task));
	assert_int_equal(calls.count, 0);
	assert_int_equal(messages(w, "VM_RESTARTED"), 1);
	assert_int_equal(messages(w, "HOST_FENCED"), 1);
	assert_int_equal(messages(w, "HOST_NOT_FENCED"), 1); /* the other one */
	world_free(w);
}

/* One whose start was under way there runs nowhere, armed or not. */
static void test_start_under_way(void **state)
{
	struct world *w = world_new(VM_RESTART_PRIORITY_RESTART);
	struct uuid task;
	struct txn t;

	(void)state;
	start(w);
	txn_init(&t, db_of(w), 0);
	txn_set_ref(&t, w->unarmed, VM_RESIDENT_ON, UUID_NONE);
	txn_set_enum(&t, w->unarmed, VM_POWER_STATE, VM_POWER_STATE_HALTED);
	txn_set_enum(&t, w->unarmed, VM_INTENT, VM_INTENT_START);
	txn_set_ref(&t, w->unarmed, VM_INTENT_HOST, w->b);
	commit(w, &t);
	run_ms(w, lease_wait_ms(LEASE_DEFAULT_MS) + 5000);
	task = db_ref(vm_row(w, w->unarmed), VM_HA_RESTART_TASK);
	assert_false(uuid_is_none(&task));
	assert_int_equal(db_enum(vm_row(w, w->unarmed), VM_INTENT), VM_INTENT_NONE);
	world_free(w);
}

/* One that was being resumed there keeps its memory, and is resumed. */
static void test_resume_under_way(void **state)
{
	struct world *w = world_new(VM_RESTART_PRIORITY_RESTART);
	struct txn t;

	(void)state;
	start(w);
	txn_init(&t, db_of(w), 0);
	txn_set_ref(&t, w->unarmed, VM_RESIDENT_ON, UUID_NONE);
	txn_set_enum(&t, w->unarmed, VM_POWER_STATE, VM_POWER_STATE_SUSPENDED);
	txn_set_enum(&t, w->unarmed, VM_INTENT, VM_INTENT_RESUME);
	txn_set_ref(&t, w->unarmed, VM_INTENT_HOST, w->b);
	txn_set_enum(&t, w->armed, VM_HA_RESTART_PRIORITY, VM_RESTART_PRIORITY_NONE);
	commit(w, &t);
	run_ms(w, lease_wait_ms(LEASE_DEFAULT_MS) + 5000);
	assert_int_equal(
		db_enum(vm_row(w, w->unarmed), VM_POWER_STATE), VM_POWER_STATE_SUSPENDED);
	assert_true(calls.count > 0);
	assert_string_equal(calls.method, "VM.resume");
	world_free(w);
}

/* Messages in the order in which they were left: of the VM, unless they are a host's.
 * What comes before "" was left an hour before the rest. */
static void leave_messages(struct world *w, const char *const *names)
{
	int64_t now_ms = loop_wall_ms(w->d.loop);
	const char *const *rest = names;

	for (const char *const *n = names; *n; n++)
		if (!**n)
			rest = n;
	for (; *names; names++) {
		bool host = strncmp(*names, "HOST_", 5) == 0;
		struct message m = {.name = *names,
			.cls = host ? "host" : "VM",
			.obj = host ? w->b : w->armed,
			.body = ""};
		struct txn t;

		if (!**names)
			continue;
		txn_init(&t, db_of(w), names < rest ? now_ms - 3600 * 1000 : now_ms);
		message_add(&t, uuid_random(loop_prng(w->d.loop)), &m);
		commit(w, &t);
	}
}

static void restarted_after(const char *words, const char *const *names)
{
	struct world *w = world_new(VM_RESTART_PRIORITY_RESTART);
	struct uuid task = uuid_random(loop_prng(w->d.loop));
	const char *told = "";
	struct txn t;

	start(w);
	run_ms(w, 5000);
	leave_messages(w, names);
	txn_init(&t, db_of(w), 0);
	txn_create(&t, CLASS_TASK, task);
	txn_set_enum(&t, task, TASK_STATUS, TASK_STATUS_SUCCESS);
	txn_set_ref(&t, w->armed, VM_HA_RESTART_TASK, task);
	txn_set_ref(&t, w->armed, VM_RESIDENT_ON, w->a);
	commit(w, &t);
	run_ms(w, 5000);
	for (const struct row *m = NULL; (m = db_next(db_of(w), CLASS_MESSAGE, m));)
		if (strcmp(db_string(m, MESSAGE_NAME), "VM_RESTARTED") == 0)
			told = db_string(m, MESSAGE_BODY); /* the last one */
	if (!strstr(told, words))
		fail_msg("'%s' is not of '%s'", told, words);
	world_free(w);
}

#define AFTER(words, ...) restarted_after(words, (const char *const[]){__VA_ARGS__, NULL})

/* Its own host found out why it was down: the words are of that, not of a lost host. */
static void test_why_restarted(void **state)
{
	(void)state;
	AFTER("been fenced", "VM_FENCED");
	AFTER("its domain had vanished", "VM_CRASHED");
	AFTER("a reboot that failed", "VM_REBOOT_FAILED");
	AFTER("found half made", "VM_HALF_MADE");
	AFTER("its host was lost", "HOST_FENCED");
	AFTER("its host was lost", "HOST_DECLARED_DEAD");
	/* Nobody has told why. */
	AFTER("gone down by itself", "VM_SHUTDOWN");
	AFTER("gone down by itself", "HOST_NOT_FENCED");
}

/* Of several: its own, and the newest of those, however many hosts are lost then. */
static void test_why_of_several(void **state)
{
	(void)state;
	AFTER("a reboot that failed", "VM_REBOOT_FAILED", "HOST_FENCED");
	AFTER("a reboot that failed", "HOST_FENCED", "VM_REBOOT_FAILED");
	AFTER("a reboot that failed", "VM_CRASHED", "VM_REBOOT_FAILED");
	AFTER("its domain had vanished", "VM_REBOOT_FAILED", "VM_CRASHED");
	/* A guest that crashed was rebooted where it was, an hour ago. */
	AFTER("its host was lost", "VM_CRASHED", "", "HOST_FENCED");
	AFTER("its domain had vanished", "HOST_FENCED", "", "VM_CRASHED");
	/* Told again as long as it is tried: that ends nothing. */
	AFTER("its domain had vanished", "VM_CRASHED", "VM_RESTART_FAILED");
}

/* What was told before it was last started again. */
static void test_why_of_before(void **state)
{
	(void)state;
	AFTER("its host was lost", "VM_CRASHED", "VM_RESTARTED", "HOST_FENCED");
	AFTER("its domain had vanished", "HOST_FENCED", "VM_RESTARTED", "VM_CRASHED");
	AFTER("gone down by itself", "HOST_FENCED", "VM_RESTARTED");
	AFTER("gone down by itself", "VM_CRASHED", "VM_RESTARTED");
}

/* A lease of the pool's former life is none in the next. */
static void test_another_life(void **state)
{
	struct world *w = world_new(VM_RESTART_PRIORITY_RESTART);
	struct rv_error e;
	struct txn t;

	(void)state;
	start(w);
	run_ms(w, 2000);
	assert_int_equal(lease_may_run(w->d.lease, &w->a, &e), 0);
	assert_true(lease_until_ms(w->d.lease) > 0);
	txn_init(&t, db_of(w), 0);
	txn_set_ref(&t, w->pool, POOL_GENERATION_ID, w->b);
	commit(w, &t);
	/* At once, not only when it is looked at. */
	assert_int_equal(lease_may_run(w->d.lease, &w->a, &e), RV_EAGAIN);
	assert_int_equal(lease_until_ms(w->d.lease), 0);
	run_ms(w, 2000);
	assert_int_equal(lease_may_run(w->d.lease, &w->a, &e), 0);
	world_free(w);
}

static void test_renews_meanwhile(void **state)
{
	struct world *w = world_new(VM_RESTART_PRIORITY_RESTART);
	uint8_t ask[8] = {1};

	(void)state;
	start(w);
	for (int i = 0; i < 60; i++) {
		lease_asked(w->d.lease, &w->b, ask, sizeof ask);
		run_ms(w, 2000);
	}
	assert_true(is_on_b(w, w->armed));
	run_ms(w, lease_wait_ms(LEASE_DEFAULT_MS) - 2500);
	assert_true(is_on_b(w, w->armed));
	run_ms(w, 5000);
	assert_false(is_on_b(w, w->armed));
	world_free(w);
}

/* Another master has begun, and this one does not know yet. */
static void test_another_epoch(void **state)
{
	struct world *w = world_new(VM_RESTART_PRIORITY_RESTART);
	struct txn t;

	(void)state;
	start(w);
	run_ms(w, 5000);
	txn_init(&t, db_of(w), 0);
	txn_set_int(&t, w->pool, POOL_LEASE_EPOCH, 9);
	commit(w, &t);
	run_ms(w, 120000);
	assert_true(is_on_b(w, w->armed));
	assert_int_equal(calls.count, 0);
	world_free(w);
}

static void test_no_host_takes_it(void **state)
{
	struct world *w = world_new(VM_RESTART_PRIORITY_RESTART);
	struct uuid first, second;

	(void)state;
	start(w);
	calls.refuse = true;
	run_ms(w, lease_wait_ms(LEASE_DEFAULT_MS) + 4000);
	assert_int_equal(calls.count, 1);
	first = db_ref(vm_row(w, w->armed), VM_HA_RESTART_TASK);
	run_ms(w, 60000);
	second = db_ref(vm_row(w, w->armed), VM_HA_RESTART_TASK);
	assert_false(uuid_eq(&first, &second) || uuid_is_none(&second));
	assert_true(calls.count > 3 && calls.count < 10);
	assert_int_equal(messages(w, "VM_RESTART_FAILED"), 1); /* not each time */
	world_free(w);
}

/* The clock by which its start has failed was set back since: it is tried again all the
 * same. */
static void test_clock_set_back(void **state)
{
	struct world *w = world_new(VM_RESTART_PRIORITY_RESTART);
	struct uuid first, second;
	struct txn t;

	(void)state;
	start(w);
	run_ms(w, lease_wait_ms(LEASE_DEFAULT_MS) + 4000);
	first = db_ref(vm_row(w, w->armed), VM_HA_RESTART_TASK);
	txn_init(&t, db_of(w), 0);
	txn_create(&t, CLASS_TASK, first);
	txn_set_enum(&t, first, TASK_STATUS, TASK_STATUS_FAILURE);
	txn_set_time(&t, first, TASK_FINISHED, loop_wall_ms(w->d.loop));
	commit(w, &t);
	loop_sim_set_wall_ms(w->d.loop, loop_wall_ms(w->d.loop) - 3600 * 1000);
	run_ms(w, 30000);
	second = db_ref(vm_row(w, w->armed), VM_HA_RESTART_TASK);
	assert_false(uuid_eq(&first, &second) || uuid_is_none(&second));
	world_free(w);
}

static void test_best_effort(void **state)
{
	struct world *w = world_new(VM_RESTART_PRIORITY_BEST_EFFORT);
	struct uuid task;

	(void)state;
	start(w);
	calls.refuse = true;
	run_ms(w, lease_wait_ms(LEASE_DEFAULT_MS) + 60000);
	task = db_ref(vm_row(w, w->armed), VM_HA_RESTART_TASK);
	assert_true(uuid_is_none(&task));
	assert_int_equal(calls.count, 1);
	assert_int_equal(messages(w, "VM_RESTART_FAILED"), 1);
	world_free(w);
}

static void test_length(void **state)
{
	struct world *w = world_new(VM_RESTART_PRIORITY_RESTART);
	struct txn t;

	(void)state;
	start(w);
	run_ms(w, 5000);
	txn_init(&t, db_of(w), 0);
	txn_set_int(&t, w->pool, POOL_LEASE_MS, 60000);
	commit(w, &t);
	run_ms(w, 2000);
	assert_int_equal(db_int(db_pool(db_of(w)), POOL_LEASE_LONGEST_MS), 60000);
	txn_init(&t, db_of(w), 0);
	txn_set_int(&t, w->pool, POOL_LEASE_MS, 5000);
	commit(w, &t);
	run_ms(w, 60000);
	assert_int_equal(db_int(db_pool(db_of(w)), POOL_LEASE_LONGEST_MS), 60000);
	run_ms(w, 30000);
	assert_int_equal(db_int(db_pool(db_of(w)), POOL_LEASE_LONGEST_MS), 5000);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alone),
		cmocka_unit_test(test_waits_then_restarts),
		cmocka_unit_test(test_start_under_way),
		cmocka_unit_test(test_resume_under_way),
		cmocka_unit_test(test_why_restarted),
		cmocka_unit_test(test_why_of_several),
		cmocka_unit_test(test_why_of_before),
		cmocka_unit_test(test_another_life),
		cmocka_unit_test(test_renews_meanwhile),
		cmocka_unit_test(test_another_epoch),
		cmocka_unit_test(test_no_host_takes_it),
		cmocka_unit_test(test_clock_set_back),
		cmocka_unit_test(test_best_effort),
		cmocka_unit_test(test_length),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
