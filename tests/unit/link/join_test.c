/* The join handshake: on simulated pairs with every way to go wrong, its codec, and over
 * real TLS through the port. */
#include "link/join.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "link/port.h"

static const struct uuid pool = {{1}}, host = {{2}}, request = {{7}};
static const uint8_t facts[] = {0x81, 0xa3, 'x', 'e', 'n', 0xa4, '4', '.', '1', '7'};

/* A member's database, of one token. */
struct member {
	struct loop *loop;
	struct join_desk *desk;
	char *ca, *ca_key;
	struct token token;
	struct token_record record;
	int64_t now_ms;
	int asked, granted, gone, closed;
	bool keep_waiting, sign_wrongly;
	struct join_acceptor *waiting;
	struct rv_error refuse; /* what the later checks say */
};

struct fixture {
	struct loop *loop;
	struct member m;
	char *csr, *key;
	char text[TOKEN_TEXT_SIZE];
	struct stream_sim_link *wire;
	struct stream *raw;
	bool to_raw, ended;
	int64_t latency_us;
};

/* What the daemon's callback will do, on one record. */
static void on_request(void *arg, struct join_acceptor *a, const struct join_request *r)
{
	static const uint8_t members[] = "the members";
	struct member *m = arg;
	struct token_use use = {.request = r->request, .host = r->host};
	struct join_decision d = {.pool = pool,
		.generation = 3,
		.generation_id = {{5}},
		.ca_cert_pem = m->ca,
		.ca_key_pem = m->ca_key,
		.members = members,
		.members_len = sizeof members};
	enum token_verdict verdict;
	struct rv_error e = {0};
	int rc;

	m->asked++;
	assert_int_equal(r->facts_len, sizeof facts);
	assert_memory_equal(r->facts, facts, sizeof facts);
	assert_string_equal(r->names[0], "192.0.2.9");
	assert_null(r->names[1]);
	/* Read as the request left, not when the join began. */
	assert_in_range(
		r->clock_ms, loop_wall_ms(m->loop) - 30000, loop_wall_ms(m->loop));
	assert_in_range(loop_wall_ms(m->loop) - r->clock_ms, 0, r->travel_max_ms);
	if (m->keep_waiting) {
		m->waiting = a;
		return;
	}
	memcpy(use.secret, r->secret, sizeof use.secret);
	rc = ca_request_digest(r->csr_pem, use.key, &e);
	if (!rc)
		rc = token_judge(&m->record, &use, m->now_ms, &verdict, &e);
	if (!rc && m->refuse.code)
		e = m->refuse, rc = e.code;
	if (rc) {
		join_refuse(a, &e);
		return;
	}
	m->record.used = true;
	m->record.used_by_request = r->request;
	m->record.used_by_host = r->host;
	memcpy(m->record.used_key, use.key, sizeof use.key);
	if (m->sign_wrongly)
		d.ca_key_pem = "no key";
	m->granted += join_grant_to(a, &d, &e) == 0;
}

static void on_gone(void *arg, struct join_acceptor *a)
{
	struct member *m = arg;

	assert_ptr_equal(m->waiting, a);
	m->waiting = NULL;
	m->gone++;
}

static void on_desk_closed(void *arg)
{
	((struct member *)arg)->closed++;
}

static size_t raw_data(void *arg, const uint8_t *data, size_t len)
{
	(void)arg;
	(void)data;
	return len;
}

static void raw_closed(void *arg, int rc, const char *detail)
{
	struct fixture *f = arg;

	(void)rc;
	(void)detail;
	stream_free(f->raw);
	f->raw = NULL;
}

static const struct stream_events raw_events = {.data = raw_data, .closed = raw_closed};

static int dial(void *arg, const struct stream_config *config, struct stream **out,
	struct rv_error *e)
{
	struct fixture *f = arg;
	struct stream_config b = {.events = &raw_events, .arg = f};
	struct stream *other;

	(void)e;
	stream_sim_link_free(f->wire);
	assert_int_equal(stream_sim_pair(f->loop, config, &b, out, &other, &f->wire), 0);
	stream_sim_set(f->wire, f->latency_us, f->latency_us, 0);
	if (f->to_raw)
		f->raw = other;
	else
		join_desk_accept(f->m.desk, other);
	return 0;
}

static void setup_member(struct member *m, struct loop *l)
{
	struct join_desk_config config = {.request = on_request,
		.gone = on_gone,
		.closed = on_desk_closed,
		.arg = m,
		.read_timeout_ms = 1000,
		.decide_timeout_ms = 2000};
	uint8_t fingerprint[CA_FINGERPRINT_SIZE];
	struct rv_error e = {0};

	m->loop = l;
	assert_int_equal(ca_new(&pool, &m->ca, &m->ca_key, &e), 0);
	assert_int_equal(ca_fingerprint(m->ca, fingerprint, &e), 0);
	assert_int_equal(token_new(&m->token, fingerprint, &e), 0);
	token_hash(m->token.secret, m->record.hash);
	m->record.expires_ms = 1000;
	assert_int_equal(join_desk_new(&m->desk, l, &config, &e), 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct rv_error e = {0};

	log_set_level(LOG_ERROR);
	*state = f;
	f->latency_us = 300;
	if (loop_new_sim(&f->loop, 9) != 0)
		return -1;
	setup_member(&f->m, f->loop);
	token_format(&f->m.token, f->text);
	return ca_request_new(&host, &f->csr, &f->key, &e);
}

static void teardown_member(struct member *m)
{
	join_desk_free(m->desk);
	free(m->ca);
	ca_key_free(m->ca_key);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	stream_free(f->raw);
	stream_sim_link_free(f->wire);
	teardown_member(&f->m);
	if (loop_is_sim(f->loop))
		loop_sim_run_until(f->loop, loop_now_us(f->loop) + 1);
	loop_free(f->loop);
	free(f->csr);
	ca_key_free(f->key);
	free(f);
	return 0;
}

static void on_done(struct op *op)
{
	struct join_op *j = CONTAINER_OF(op, struct join_op, op);

	assert_null(j->stream);
}

static struct join_spec spec_of(struct fixture *f)
{
	static const char *const names[] = {"192.0.2.9", NULL};

	return (struct join_spec){.address = "sim",
		.token = f->text,
		.request = request,
		.host = host,
		.csr_pem = f->csr,
		.key_pem = f->key,
		.names = names,
		.facts = facts,
		.facts_len = sizeof facts,
		.timeout_ms = 5000,
		.dial = dial,
		.dial_arg = f};
}

static void run_ms(struct fixture *f, int64_t ms)
{
	loop_sim_run_until(f->loop, loop_now_us(f->loop) + ms * 1000);
}

static void start(struct fixture *f, struct join_op *j, const struct join_spec *spec)
{
	struct rv_error e = {0};

	assert_int_equal(join_start(j, f->loop, spec, on_done, &e), 0);
}

/* Runs a join to its end; the code. */
static int join_once(struct fixture *f, struct join_op *j, const struct join_spec *spec)
{
	start(f, j, spec);
	run_ms(f, 20000);
	assert_true(j->op.finished);
	return j->op.error.code;
}

static int join_and_forget(struct fixture *f, const struct join_spec *spec)
{
	struct join_op j;
	int rc = join_once(f, &j, spec);

	join_fini(&j);
	return rc;
}

static void check_grant(struct fixture *f, const struct join_op *j)
{
	struct rv_error e = {0};

	assert_true(uuid_eq(&j->grant.pool, &pool));
	assert_int_equal(j->grant.generation, 3);
	assert_int_equal(j->grant.generation_id.b[0], 5);
	assert_string_equal((const char *)j->grant.members, "the members");
	assert_string_equal(j->grant.ca_pem, f->m.ca);
	assert_int_equal(ca_check(f->m.ca, j->grant.cert_pem, f->key, &host, &e), 0);
}

static void test_join(void **state)
{
	struct fixture *f = *state;
	struct join_spec spec = spec_of(f);
	struct join_op j;

	assert_int_equal(join_once(f, &j, &spec), 0);
	check_grant(f, &j);
	join_fini(&j);
	assert_int_equal(f->m.asked, 1);
	assert_int_equal(f->m.closed, 1);
	/* The same again: the same answer, even when the token has expired since. */
	f->m.now_ms = 5000;
	assert_int_equal(join_once(f, &j, &spec), 0);
	check_grant(f, &j);
	join_fini(&j);
	assert_int_equal(f->m.granted, 2);
	/* Another request with the used token. */
	spec.request.b[3] = 9;
	assert_int_equal(join_and_forget(f, &spec), RV_ECONFLICT);
}

static void test_refusals(void **state)
{
	struct fixture *f = *state;
	struct join_spec spec = spec_of(f);
	struct join_op j;
	char wrong[TOKEN_TEXT_SIZE];
	struct rv_error e = {0};

	f->m.now_ms = 1000;
	assert_int_equal(join_and_forget(f, &spec), RV_ETIMEDOUT);
	f->m.now_ms = 0;
	memcpy(wrong, f->text, sizeof wrong);
	wrong[5] = wrong[5] == '0' ? '1' : '0';
	spec.token = wrong;
	assert_int_equal(join_and_forget(f, &spec), RV_EAUTH);
	/* The right secret and another CA: the member's CA is not what it names. */
	memcpy(wrong, f->text, sizeof wrong);
	wrong[70] = wrong[70] == '0' ? '1' : '0';
	assert_int_equal(join_once(f, &j, &spec), RV_ETLS);
	assert_non_null(strstr(j.op.error.detail, "CA"));
	join_fini(&j);
	f->m.record.used = false;
	spec.token = f->text;
	rv_error_set(&f->m.refuse, RV_ECPU, "its CPU lacks %s", "avx2");
	assert_int_equal(join_once(f, &j, &spec), RV_ECPU);
	assert_string_equal(j.op.error.detail, "its CPU lacks avx2");
	join_fini(&j);
	f->m.refuse.code = 0;
	f->m.record.used = false;
	f->m.sign_wrongly = true;
	assert_int_equal(join_and_forget(f, &spec), RV_ETLS);
	/* Malformed from the start. */
	spec.token = "abc";
	assert_int_equal(join_start(&j, f->loop, &spec, on_done, &e), RV_EINVAL);
	spec = spec_of(f);
	spec.facts_len = 0;
	assert_int_equal(join_start(&j, f->loop, &spec, on_done, &e), RV_ETOOBIG);
	spec = spec_of(f);
	spec.facts = (const uint8_t *)"\xdd\xff\xff\xff\xff";
	spec.facts_len = 5;
	assert_int_equal(join_and_forget(f, &spec), RV_EPROTO);
	spec = spec_of(f);
	spec.csr_pem = f->m.ca;
	f->m.sign_wrongly = false;
	assert_int_equal(join_and_forget(f, &spec), RV_EINVAL);
}

static void test_dying_peers(void **state)
{
	struct fixture *f = *state;
	struct join_spec spec = spec_of(f);
	struct join_op j;

	/* The member never answers; then it dies; then the cable is cut. */
	f->m.keep_waiting = true;
	spec.timeout_ms = 500;
	assert_int_equal(join_and_forget(f, &spec), RV_EOUTCOME);
	assert_int_equal(f->m.gone, 1);
	start(f, &j, &spec);
	run_ms(f, 10);
	stream_sim_reset(f->wire);
	run_ms(f, 10);
	assert_int_equal(j.op.error.code, RV_EOUTCOME);
	join_fini(&j);
	assert_int_equal(f->m.gone, 2);
	start(f, &j, &spec);
	run_ms(f, 10);
	stream_sim_cut(f->wire, true, true);
	run_ms(f, 30000);
	assert_int_equal(j.op.error.code, RV_EOUTCOME);
	join_fini(&j);
	assert_int_equal(f->m.gone, 3);
	/* The pool takes too long: it says so itself. */
	spec.timeout_ms = 30000;
	assert_int_equal(join_and_forget(f, &spec), RV_ETIMEDOUT);
	assert_int_equal(f->m.gone, 4);
	/* Cancelled while it waits. */
	start(f, &j, &spec);
	run_ms(f, 10);
	op_cancel(&j.op);
	op_cancel(&j.op);
	run_ms(f, 100);
	assert_int_equal(j.op.error.code, RV_ECANCELLED);
	join_fini(&j);
	assert_int_equal(f->m.gone, 5);
	assert_int_equal(f->m.closed, 5);
	/* Decided later. */
	start(f, &j, &spec);
	run_ms(f, 1000);
	assert_non_null(f->m.waiting);
	{
		struct rv_error why;

		rv_error_set(&why, RV_ECLOCK, "its clock is 3 s ahead");
		join_refuse(f->m.waiting, &why);
	}
	run_ms(f, 100);
	assert_int_equal(j.op.error.code, RV_ECLOCK);
	join_fini(&j);
	/* The desk goes while one waits. */
	start(f, &j, &spec);
	run_ms(f, 10);
	join_desk_free(f->m.desk);
	f->m.desk = NULL;
	run_ms(f, 100);
	assert_int_equal(j.op.error.code, RV_EOUTCOME);
	join_fini(&j);
	assert_int_equal(f->m.gone, 5);
}

/* The joiner against a member that does as the test says. */
static int answered(struct fixture *f, const void *bytes, size_t len, bool hang_up)
{
	struct join_spec spec = spec_of(f);
	struct iovec piece = {(void *)bytes, len};
	struct join_op j;
	int rc;

	f->to_raw = true;
	start(f, &j, &spec);
	run_ms(f, 10);
	assert_int_equal(stream_write(f->raw, &piece, 1), 0);
	if (hang_up)
		stream_close_after_flush(f->raw);
	run_ms(f, 20000);
	assert_true(j.op.finished);
	rc = j.op.error.code;
	join_fini(&j);
	run_ms(f, 20000);
	f->to_raw = false;
	return rc;
}

static void test_bad_members(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[64];

	assert_int_equal(answered(f, "garbage!", 8, false), RV_EPROTO);
	assert_int_equal(answered(f, "\1\x11\0\0\0\0\1\0 half", 13, false), RV_EOUTCOME);
	assert_int_equal(answered(f, "\1\x11\0\0\0\0\1\0 half", 13, true), RV_EOUTCOME);
	assert_int_equal(answered(f, "", 0, true), RV_EOUTCOME);
	assert_int_equal(answered(f, "\1\x11\0\0\xff\xff\xff\xff", 8, false), RV_ETOOBIG);
	assert_int_equal(answered(f, "\1\x11\0\0\0\0\0\1x", 9, false), RV_EPROTO);
	link_frame_head(bytes, LINK_SELECT, 0, 0, 8);
	memset(bytes + 8, 0, 8);
	assert_int_equal(answered(f, bytes, 16, false), RV_EPROTO);
}

/* A joiner that does as the test says. */
static void knock(struct fixture *f, const void *bytes, size_t len, bool hang_up)
{
	struct stream_config a = {.events = &raw_events, .arg = f}, b = a;
	struct iovec piece = {(void *)bytes, len};
	int closed = f->m.closed;
	struct stream *other;

	stream_sim_link_free(f->wire);
	assert_int_equal(stream_sim_pair(f->loop, &a, &b, &f->raw, &other, &f->wire), 0);
	join_desk_accept(f->m.desk, other);
	assert_int_equal(stream_write(f->raw, &piece, 1), 0);
	run_ms(f, 1);
	if (hang_up && f->raw) {
		stream_free(f->raw);
		f->raw = NULL;
	}
	run_ms(f, 20000);
	assert_int_equal(f->m.closed, closed + 1);
	stream_free(f->raw);
	f->raw = NULL;
}

static void test_bad_joiners(void **state)
{
	struct fixture *f = *state;

	knock(f, "", 0, false);
	knock(f, "", 0, true);
	knock(f, "\1\x10\0\0\0\0\1\0 half", 13, false);
	knock(f, "\1\x10\0\0\0\0\1\0 half", 13, true);
	knock(f, "GET / HTTP/1.0\r\n", 16, false);
	knock(f, "\1\x10\0\0\xff\xff\xff\xff", 8, false);
	knock(f, "\1\x10\0\0\0\0\0\1x", 9, false);
	knock(f, "\1\x11\0\0\0\0\0\1x", 9, false);
	assert_int_equal(f->m.asked, 0);
}

static void test_too_many(void **state)
{
	struct fixture *f = *state;
	struct join_spec spec = spec_of(f);
	struct stream_sim_link *wires[40];
	struct join_op j[40];
	int refused = 0;

	f->m.keep_waiting = true;
	spec.timeout_ms = 1000;
	for (int i = 0; i < 40; i++) {
		start(f, &j[i], &spec);
		run_ms(f, 1);
		wires[i] = f->wire;
		f->wire = NULL;
		f->m.waiting = NULL;
	}
	assert_int_equal(f->m.asked, 32);
	for (int i = 0; i < 40; i++) {
		refused += j[i].op.finished;
		op_cancel(&j[i].op);
	}
	assert_int_equal(refused, 8);
	f->m.desk ? (void)0 : fail();
	join_desk_free(f->m.desk);
	f->m.desk = NULL;
	run_ms(f, 3000);
	for (int i = 0; i < 40; i++) {
		assert_true(j[i].op.finished);
		join_fini(&j[i]);
		stream_sim_link_free(wires[i]);
	}
}

static void test_codec(void **state)
{
	struct fixture *f = *state;
	struct join_request in = {.request = request,
				    .host = host,
				    .csr_pem = f->csr,
				    .names = {"a", "b"},
				    .facts = facts,
				    .facts_len = sizeof facts},
			    out;
	struct rv_error e = {0}, why, back;
	struct join_text text;
	struct buf b;

	buf_init(&b, LINK_JOIN_REQUEST_MAX);
	assert_int_equal(join_request_encode(&b, &in, &e), 0);
	assert_int_equal(
		join_request_decode(&out, &text, buf_data(&b), buf_len(&b), &e), 0);
	assert_string_equal(out.csr_pem, f->csr);
	assert_string_equal(out.names[1], "b");
	assert_null(out.names[2]);
	join_text_fini(&text);
	/* Cut anywhere: refused, and nothing leaks. */
	for (size_t n = 0; n < buf_len(&b); n++)
		assert_int_equal(
			join_request_decode(&out, &text, buf_data(&b), n, &e), RV_EPROTO);
	/* A field that is not known yet is skipped; a known one twice is refused. */
	assert_int_equal(buf_append(&b, "\0\x63\0\0\0\1z", 7), 0);
	assert_int_equal(
		join_request_decode(&out, &text, buf_data(&b), buf_len(&b), &e), 0);
	join_text_fini(&text);
	assert_int_equal(buf_append(&b,
				 "\0\2\0\0\0\x10"
				 "0123456789abcdef",
				 22),
		0);
	assert_int_equal(join_request_decode(&out, &text, buf_data(&b), buf_len(&b), &e),
		RV_EPROTO);
	assert_non_null(strstr(e.detail, "twice"));
	buf_fini(&b);
	buf_init(&b, 4096);
	rv_error_set(&why, RV_EMEMORY, "words\nof reason");
	assert_int_equal(join_refusal_encode(&b, &why), 0);
	assert_int_equal(join_refusal_decode(&back, buf_data(&b), buf_len(&b), &e), 0);
	assert_int_equal(back.code, RV_EMEMORY);
	assert_string_equal(back.detail, "words?of reason");
	buf_fini(&b);
}

/* --- over real TLS --- */

static void stop_loop(void *arg)
{
	loop_stop(arg);
}

static void stop_when_done(struct op *op)
{
	loop_stop(op->loop);
}

static void run_real_ms(struct loop *l, int64_t ms)
{
	struct timer t;

	timer_init(&t, l, "test.stop", stop_loop, l);
	timer_start_ms(&t, ms);
	loop_run(l);
	timer_stop(&t);
}

static void test_over_tls(void **state)
{
	struct uuid member_uuid = {{3}};
	struct member m = {.now_ms = 0}, stranger = {.now_ms = 0};
	struct fixture *f = *state;
	struct join_spec spec = spec_of(f);
	struct port_config pc = {.address = "tcp:127.0.0.1:0"};
	struct port_acceptor acceptor = {
		.alpn = PORT_ALPN_JOIN, .accept = join_desk_accept, .strangers = true};
	struct rv_error e = {0};
	char *csr, *key, *cert, address[64], text[TOKEN_TEXT_SIZE];
	struct join_op j;
	struct port *port;
	struct loop *l;

	assert_int_equal(loop_new(&l, &e), 0);
	setup_member(&m, l);
	setup_member(&stranger, l);
	assert_int_equal(ca_request_new(&member_uuid, &csr, &key, &e), 0);
	assert_int_equal(
		ca_issue(m.ca, m.ca_key, csr, &member_uuid, NULL, 30, &cert, &e), 0);
	assert_int_equal(port_tls(&pc.tls, cert, key, m.ca, &e), 0);
	assert_int_equal(port_open(&port, l, &pc, &e), 0);
	acceptor.arg = m.desk;
	assert_int_equal(port_register(port, &acceptor), 0);
	snprintf(address, sizeof address, "tcp:127.0.0.1:%d", port_number(port));
	spec.address = address;
	spec.dial = NULL;
	/* A token of another pool: not a byte of it is sent. */
	spec.token = token_format(&stranger.token, text);
	assert_int_equal(join_start(&j, l, &spec, stop_when_done, &e), 0);
	loop_run(l);
	assert_int_equal(j.op.error.code, RV_ETLS);
	assert_non_null(strstr(j.op.error.detail, "fingerprint"));
	join_fini(&j);
	assert_int_equal(m.asked, 0);
	spec.token = token_format(&m.token, text);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(join_start(&j, l, &spec, stop_when_done, &e), 0);
		loop_run(l);
		if (j.op.error.code)
			fail_msg("%s", j.op.error.detail);
		assert_int_equal(ca_check(m.ca, j.grant.cert_pem, f->key, &host, &e), 0);
		join_fini(&j);
	}
	assert_int_equal(m.granted, 2);
	port_free(port);
	tls_context_unref(pc.tls);
	teardown_member(&m);
	teardown_member(&stranger);
	run_real_ms(l, 20);
	loop_free(l);
	free(csr);
	ca_key_free(key);
	free(cert);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_join),
		TEST(test_refusals),
		TEST(test_dying_peers),
		TEST(test_bad_members),
		TEST(test_bad_joiners),
		TEST(test_too_many),
		TEST(test_codec),
		TEST(test_over_tls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
