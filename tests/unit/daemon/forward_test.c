/* Calls that go to another host, and those that come from one, as their links and the
 * clients come and go. */
#include "daemon/forward.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/limits.h"
#include "base/log.h"
#include "daemon/members.h"
#include "daemon/served.h"
#include "pool/db/db.h"
#include "rpc/message.h"

#include "applied.h"

static const struct uuid self = {{1}}, other = {{2}}, request = {{3}};

/* What the link and the pool say (--wrap). */
static struct {
	struct daemon d;
	struct db *db;
	int send_rc, sends;
	struct buf last; /* what was sent */
	bool is_master, has_task;
	int again; /* calls begun again */
	struct call *served;
	bool serve_for_real;
	bool pool_gone;
} w;

int __wrap_members_send(struct members *m, const struct uuid *host,
	enum members_message type, const void *bytes, size_t len);
uint64_t __wrap_pool_seq(const struct pool *pool);
struct uuid __wrap_pool_master(const struct pool *pool);
bool __wrap_pool_is_master(const struct pool *pool);
const struct db *__wrap_pool_db(const struct pool *pool);
struct uuid __wrap_pool_request_lookup(const struct pool *pool, const struct uuid *r);
void __wrap_call_again(struct call *c);
int __wrap_call_begin_forwarded(struct daemon *d, const struct call_port *port,
	void *source, const struct session_identity *who, const char *method,
	size_t method_len, const msgpack_object *params);
int __real_call_begin_forwarded(struct daemon *d, const struct call_port *port,
	void *source, const struct session_identity *who, const char *method,
	size_t method_len, const msgpack_object *params);

int __wrap_members_send(struct members *m, const struct uuid *host,
	enum members_message type, const void *bytes, size_t len)
{
	(void)m;
	(void)host;
	(void)type;
	assert_false(w.pool_gone);
	w.sends++;
	if (w.send_rc)
		return w.send_rc;
	buf_fini(&w.last);
	buf_init(&w.last, 32 << 20);
	return buf_append(&w.last, bytes, len);
}

uint64_t __wrap_pool_seq(const struct pool *pool)
{
	(void)pool;
	assert_false(w.pool_gone);
	return 7;
}

struct uuid __wrap_pool_master(const struct pool *pool)
{
	(void)pool;
	return other;
}

bool __wrap_pool_is_master(const struct pool *pool)
{
	(void)pool;
	return w.is_master;
}

const struct db *__wrap_pool_db(const struct pool *pool)
{
	(void)pool;
	return w.db;
}

struct uuid __wrap_pool_request_lookup(const struct pool *pool, const struct uuid *r)
{
	(void)pool;
	return w.has_task ? *r : UUID_NONE;
}

/* --- a client's call --- */

struct client {
	timer_fn *on_gone;
	int ended, failed; /* the code */
	char words[RV_ERROR_DETAIL_MAX];
	struct buf out;
	msgpack_packer pk;
};

static msgpack_packer *client_begin(struct call *c)
{
	struct client *k = c->source;

	msgpack_packer_init(&k->pk, &k->out, rpc_pack_to_buf);
	return &k->pk;
}

static void client_end(struct call *c)
{
	((struct client *)c->source)->ended++;
}

static void client_fail(struct call *c, const struct rv_error *e)
{
	struct client *k = c->source;

	k->failed = e->code;
	snprintf(k->words, sizeof k->words, "%s", e->detail);
}

static int client_keep(struct call *c)
{
	(void)c;
	return 0;
}

static void client_on_gone(struct call *c, timer_fn *fn)
{
	((struct client *)c->source)->on_gone = fn;
}

static const struct call_port client_port = {
	client_begin, client_end, client_fail, client_keep, client_on_gone};

static struct call *call_make(const struct call_port *port, void *source)
{
	static const msgpack_object no_params = {.type = MSGPACK_OBJECT_MAP};
	struct call *c = calloc(1, sizeof *c);

	c->daemon = &w.d;
	c->port = port;
	c->source = source;
	c->method = schema_method(METHOD_POOL_DATABASE_RESTORE);
	c->params = &no_params;
	c->request = request;
	list_init(&c->waiting);
	timer_init(&c->timer, w.d.loop, "test.call", NULL, c);
	list_push_back(&w.d.calls, &c->node);
	w.d.call_count++;
	return c;
}

void __wrap_call_again(struct call *c)
{
	/* It is at work here from now on: nothing may end it but what works on it. */
	assert_null(((struct client *)c->source)->on_gone);
	assert_true(list_empty(&c->waiting));
	w.again++;
	call_failf(c, RV_EBUSY, "seen");
}

int __wrap_call_begin_forwarded(struct daemon *d, const struct call_port *port,
	void *source, const struct session_identity *who, const char *method,
	size_t method_len, const msgpack_object *params)
{
	if (w.serve_for_real)
		return __real_call_begin_forwarded(
			d, port, source, who, method, method_len, params);
	w.served = call_make(port, source);
	return 0;
}

/* --- messages --- */

static void ask(uint64_t id, uint64_t start)
{
	struct packing p;

	packing_init(&p, 4096);
	msgpack_pack_array(&p.pk, 6);
	msgpack_pack_uint64(&p.pk, id);
	msgpack_pack_uint64(&p.pk, start);
	rpc_pack_text(&p.pk, "root");
	msgpack_pack_int(&p.pk, ROLE_POOL_ADMIN);
	rpc_pack_key(&p.pk, "pool.eject");
	msgpack_pack_map(&p.pk, 0);
	forward_serve(w.d.forward, &other, buf_data(&p.buf), buf_len(&p.buf));
	buf_fini(&p.buf);
}

static void answer(const struct uuid *from, uint64_t id, uint64_t start, int code)
{
	struct packing p;

	packing_init(&p, 4096);
	msgpack_pack_array(&p.pk, 6);
	msgpack_pack_uint64(&p.pk, id);
	msgpack_pack_uint64(&p.pk, start);
	msgpack_pack_int(&p.pk, -code);
	rpc_pack_text(&p.pk, "words");
	msgpack_pack_bin(&p.pk, 1);
	msgpack_pack_bin_body(&p.pk, "\xc0", 1);
	msgpack_pack_uint64(&p.pk, 7);
	forward_answered(w.d.forward, from, buf_data(&p.buf), buf_len(&p.buf));
	buf_fini(&p.buf);
}

/* One of the first three numbers of what was sent last: id, start, an answer's code. */
static uint64_t sent_number(int i)
{
	msgpack_zone zone;
	msgpack_object o;
	uint64_t n;
	size_t at = 0;

	assert_true(msgpack_zone_init(&zone, 1024));
	assert_int_equal(msgpack_unpack((const char *)buf_data(&w.last), buf_len(&w.last),
				 &at, &zone, &o),
		MSGPACK_UNPACK_SUCCESS);
	assert_int_equal(o.via.array.size, 6);
	n = o.via.array.ptr[i].via.u64;
	msgpack_zone_destroy(&zone);
	return n;
}

static int setup(void **state)
{
	(void)state;
	memset(&w, 0, sizeof w);
	log_setup(LOG_ERROR + 1, NULL, NULL);
	w.d.host = self;
	buf_init(&w.last, 1);
	w.db = db_new(1);
	list_init(&w.d.calls);
	list_init(&w.d.free_calls);
	list_init(&w.d.task_waiters);
	return loop_new_sim(&w.d.loop, 1) || forward_new(&w.d.forward, &w.d);
}

static int teardown(void **state)
{
	(void)state;
	forward_stop(w.d.forward);
	w.pool_gone = true;
	calls_free(&w.d);
	forward_free(w.d.forward);
	loop_free(w.d.loop);
	db_free(w.db);
	buf_fini(&w.last);
	return 0;
}

static void later_ms(int64_t ms)
{
	loop_sim_run_until(w.d.loop, loop_now_us(w.d.loop) + ms * 1000);
}

/* --- asking --- */

static void a_call_that_waited_no_longer_heeds_its_client(void **state)
{
	struct client k = {0};

	(void)state;
	w.send_rc = RV_ECLOSED;
	forward_to(call_make(&client_port, &k), other, NULL);
	assert_non_null(k.on_gone);
	forward_look(w.d.forward); /* see __wrap_call_again */
	assert_int_equal(w.again, 1);
	assert_int_equal(k.failed, RV_EBUSY);
}

static void a_client_may_go_while_its_call_waits(void **state)
{
	struct client parked = {0}, sent = {0};
	struct call *c;

	(void)state;
	w.send_rc = RV_ECLOSED;
	c = call_make(&client_port, &parked);
	forward_to(c, other, NULL);
	parked.on_gone(c);
	assert_int_equal(parked.failed, RV_ECLOSED);
	w.send_rc = 0;
	c = call_make(&client_port, &sent);
	forward_to(c, other, NULL);
	sent.on_gone(c);
	assert_int_equal(sent.failed, RV_ECLOSED);
	answer(&other, sent_number(0), sent_number(1), 0);
	forward_host_down(w.d.forward, &other);
	forward_look(w.d.forward);
	assert_int_equal(w.again, 0);
	assert_int_equal(w.d.call_count, 0);
}

static void a_call_lost_with_its_link_waits_and_goes_on(void **state)
{
	struct client k = {0};

	(void)state;
	forward_to(call_make(&client_port, &k), other, NULL);
	forward_host_down(w.d.forward, &other);
	assert_int_equal(k.ended + k.failed, 0);
	forward_look(w.d.forward);
	assert_int_equal(w.again, 1);
}

static void answers_to_a_former_life_are_no_answers(void **state)
{
	struct client k = {0};
	uint64_t id, start;

	(void)state;
	buf_init(&k.out, 4096);
	forward_to(call_make(&client_port, &k), other, NULL);
	id = sent_number(0);
	start = sent_number(1);
	answer(&other, id, start + 1, 0);
	answer(&self, id, start, 0);
	answer(&other, id + 1, start, 0);
	assert_int_equal(k.ended, 0);
	answer(&other, id, start, 0);
	assert_int_equal(k.ended, 1);
	answer(&other, id, start, 0);
	assert_int_equal(k.ended, 1);
	buf_fini(&k.out);
}

static void two_lives_differ(void **state)
{
	struct client k = {0};
	uint64_t start;

	(void)state;
	forward_to(call_make(&client_port, &k), other, NULL);
	start = sent_number(1);
	forward_stop(w.d.forward);
	calls_free(&w.d);
	forward_free(w.d.forward);
	assert_int_equal(forward_new(&w.d.forward, &w.d), 0);
	forward_to(call_make(&client_port, &k), other, NULL);
	assert_int_not_equal(sent_number(1), start);
}

/* A host that is live or not, and a VM that the database has there. */
static struct uuid lose_vm(struct uuid host, const char *name, bool live)
{
	const struct value is_live = value_bool(live);
	struct uuid vm = {{host.b[0], 1}};
	struct rv_error e;
	struct txn t;

	txn_init(&t, w.db, 0);
	txn_create(&t, CLASS_HOST, host);
	txn_set_string(&t, host, HOST_NAME_LABEL, name);
	txn_create(&t, CLASS_VM, vm);
	txn_set_string(&t, vm, VM_NAME_LABEL, "left");
	txn_set_ref(&t, vm, VM_RESIDENT_ON, host);
	must_apply(w.db, &t);
	assert_int_equal(db_set_live(w.db, host, HOST_LIVE, &is_live, &e), 0);
	return vm;
}

/* The way out is in the words, by name, and only where the host is not live. */
static void what_a_host_left_can_be_let_go_of(void **state)
{
	static const struct uuid hosts[] = {{{4}}, {{5}}};

	(void)state;
	loop_sim_run_until(w.d.loop, loop_now_us(w.d.loop) + 1000);
	w.send_rc = RV_ECLOSED;
	for (int live = 0; live < 2; live++) {
		struct client k = {0};
		struct call *c = call_make(&client_port, &k);

		c->method = schema_method(METHOD_VM_HARD_SHUTDOWN);
		c->args[0] =
			value_ref(lose_vm(hosts[live], live ? "busy" : "gone", live));
		c->park_until_us = 1; /* it has waited for long enough */
		forward_to(c, hosts[live], NULL);
		assert_int_equal(k.failed, RV_ECLOSED);
		assert_non_null(strstr(k.words, "which is not linked to this one"));
		assert_int_equal(
			strstr(k.words, "host-declare-dead host=gone`") != NULL, !live);
		assert_int_equal(
			strstr(k.words, "vm-reset-power-state vm=left`") != NULL, !live);
	}
}

static void a_call_that_is_never_answered_ends(void **state)
{
	struct client k = {0};

	(void)state;
	forward_to(call_make(&client_port, &k), other, NULL);
	later_ms(60000);
	assert_int_equal(k.failed, 0);
	later_ms(3600000);
	assert_int_equal(k.failed, RV_EOUTCOME);
}

static void a_task_tells_what_no_answer_did(void **state)
{
	struct client k = {0};

	(void)state;
	forward_to(call_make(&client_port, &k), other, NULL);
	w.has_task = true; /* and it has been removed since */
	later_ms(60000);
	assert_int_equal(k.failed, RV_ENOENT);
}

static void many_calls_are_looked_at_in_turns(void **state)
{
	struct client k[500] = {0};

	(void)state;
	w.send_rc = RV_ECLOSED;
	for (int i = 0; i < 500; i++)
		forward_to(call_make(&client_port, &k[i]), other, NULL);
	forward_look(w.d.forward);
	assert_in_range(w.again, 1, 100);
	later_ms(1000);
	assert_int_equal(w.again, 500);
}

static void many_lost_calls_are_looked_at_in_turns(void **state)
{
	struct client k[500] = {0};
	int waiting = 0;

	(void)state;
	for (int i = 0; i < 500; i++)
		forward_to(call_make(&client_port, &k[i]), other, NULL);
	w.d.stopping = true; /* none is parked */
	forward_host_down(w.d.forward, &other);
	for (int i = 0; i < 500; i++)
		waiting += !k[i].failed;
	assert_in_range(waiting, 400, 499);
	later_ms(1000);
	for (int i = 0; i < 500; i++)
		assert_int_equal(k[i].failed, RV_ECLOSED);
}

/* --- being asked --- */

static void an_answer_bears_the_askers_numbers(void **state)
{
	(void)state;
	ask(41, 1234567);
	call_failf(w.served, RV_EBUSY, "words");
	assert_int_equal(sent_number(0), 41);
	assert_int_equal(sent_number(1), 1234567);
	assert_int_equal(sent_number(2), -RV_EBUSY);
}

static void calls_beyond_the_limit_are_refused(void **state)
{
	(void)state;
	w.serve_for_real = true;
	w.d.call_count = RV_MAX_CALLS;
	ask(1, 1);
	assert_int_equal(sent_number(2), -RV_ELIMIT);
	assert_int_equal(w.d.call_count, RV_MAX_CALLS);
	w.d.call_count = 0;
}

static void an_answer_waits_for_room(void **state)
{
	(void)state;
	w.send_rc = RV_EAGAIN;
	ask(5, 1);
	call_failf(w.served, RV_EBUSY, "words");
	ask(6, 1);
	call_failf(w.served, RV_EBUSY, "words");
	w.send_rc = 0;
	forward_room(w.d.forward, &other);
	w.sends = 0;
	later_ms(10);
	assert_int_equal(w.sends, 2);
	assert_int_equal(sent_number(0), 6);
	later_ms(10000);
	assert_int_equal(w.sends, 2);
}

static void an_answer_that_waits_goes_with_its_link(void **state)
{
	(void)state;
	w.send_rc = RV_EAGAIN;
	ask(5, 1);
	call_failf(w.served, RV_EBUSY, "words");
	forward_host_down(w.d.forward, &other);
	w.sends = 0;
	later_ms(10000);
	assert_int_equal(w.sends, 0);
}

static void pack_result(struct call *c, size_t bytes)
{
	static char chunk[1 << 20];
	msgpack_packer *pk = c->port->begin(c);

	msgpack_pack_bin(pk, bytes);
	for (size_t done = 0; done < bytes; done += sizeof chunk)
		pk->callback(pk->data, chunk, sizeof chunk);
	call_reply_end(c);
}

static void a_result_that_is_too_big_is_an_error(void **state)
{
	(void)state;
	ask(5, 1);
	pack_result(w.served, 15 << 20);
	assert_int_equal(sent_number(2), 0);
	ask(6, 1);
	pack_result(w.served, 17 << 20);
	assert_int_equal(sent_number(0), 6);
	assert_int_equal(sent_number(2), -RV_ETOOBIG);
}

/* Results that wait for room are bounded: the later ones are left out. */
static void answers_that_wait_are_bounded(void **state)
{
	(void)state;
	w.send_rc = RV_EAGAIN;
	for (int i = 0; i < 8; i++) {
		ask((uint64_t)i, 1);
		pack_result(w.served, 15 << 20);
	}
	w.send_rc = 0;
	w.sends = 0;
	later_ms(10000);
	assert_int_equal(w.sends, 8);
	assert_int_equal(sent_number(0), 7);
	assert_int_equal(sent_number(2), -RV_ELIMIT);
}

/* The pool and the links go before the calls do: see __wrap_pool_seq. */
static void calls_outlive_the_pool_in_silence(void **state)
{
	(void)state;
	ask(5, 1);
	w.sends = 0;
	forward_stop(w.d.forward);
	w.pool_gone = true;
	calls_free(&w.d);
	assert_int_equal(w.sends, 0);
	assert_int_equal(w.d.call_count, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_call_that_waited_no_longer_heeds_its_client),
		TEST(a_client_may_go_while_its_call_waits),
		TEST(a_call_lost_with_its_link_waits_and_goes_on),
		TEST(answers_to_a_former_life_are_no_answers),
		TEST(two_lives_differ),
		TEST(what_a_host_left_can_be_let_go_of),
		TEST(a_call_that_is_never_answered_ends),
		TEST(a_task_tells_what_no_answer_did),
		TEST(many_calls_are_looked_at_in_turns),
		TEST(many_lost_calls_are_looked_at_in_turns),
		TEST(an_answer_bears_the_askers_numbers),
		TEST(calls_beyond_the_limit_are_refused),
		TEST(an_answer_waits_for_room),
		TEST(an_answer_that_waits_goes_with_its_link),
		TEST(a_result_that_is_too_big_is_an_error),
		TEST(answers_that_wait_are_bounded),
		TEST(calls_outlive_the_pool_in_silence),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
