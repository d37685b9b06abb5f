/* Two decisions on words of another server, each of which was a pool that could not go
 * on: who was removed while it stood for election, and who refuses a pre-vote. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "pool/learner_internal.h"
#include "pool/life.h"
#include "pool/raft_io_internal.h"
#include "pool/rlog_internal.h"

static struct raft_server servers[2] = {{.id = 3}, {.id = 7}};

/* Server 7 of a configuration at entry 20, in term 9. */
static struct rlog *server(void)
{
	struct rlog *rlog = calloc(1, sizeof *rlog);

	assert_non_null(rlog);
	rlog->config.id = 7;
	rlog->told_term = 9;
	rlog->raft.configuration.servers = servers;
	rlog->raft.configuration.n = 2;
	rlog->raft.configuration_index = 20;
	return rlog;
}

static void test_follows_newer_terms(void **state)
{
	struct rlog *rlog = server();
	struct place_message m = {.term = 9, .conf_index = 5};

	(void)state;
	assert_true(rlog_must_follow(rlog, &m));
	m.term = 10;
	assert_true(rlog_must_follow(rlog, &m));
	m.term = 8;
	assert_false(rlog_must_follow(rlog, &m));
	free(rlog);
}

/* It stood for election in vain, so its term is the greater one; the master that removed
 * it has a later configuration, and that is committed. */
static void test_follows_who_removed_it(void **state)
{
	struct rlog *rlog = server();
	struct place_message m = {.term = 8, .conf_index = 21};

	(void)state;
	assert_true(rlog_must_follow(rlog, &m));
	m.conf_index = 20; /* the one that it knows */
	assert_false(rlog_must_follow(rlog, &m));
	free(rlog);
}

/* A server that its own configuration does not name was made another one since. */
static void test_not_in_its_configuration(void **state)
{
	struct rlog *rlog = server();
	struct place_message m = {.term = 8, .conf_index = 21};

	(void)state;
	rlog->config.id = 8;
	assert_false(rlog_must_follow(rlog, &m));
	free(rlog);
}

/* Terms of two lives of the pool are not compared, nor are their entries. */
static void test_another_life(void **state)
{
	struct rlog *rlog = server();
	struct place_message m = {.term = 8, .conf_index = 21};

	(void)state;
	rlog->told_term = life_base(2) + 1;
	assert_false(rlog_must_follow(rlog, &m));
	m.term = life_base(2);
	assert_true(rlog_must_follow(rlog, &m));
	free(rlog);
}

static void test_refused_pre_vote_tells_the_term(void **state)
{
	struct rio *rio = calloc(1, sizeof *rio);
	struct raft_request_vote_result r = {
		.term = 4, .pre_vote = raft_tribool_true, .vote_granted = false};

	(void)state;
	assert_non_null(rio);
	rio->meta.term = 6;
	rio_tell_term(rio, &r);
	assert_int_equal(r.term, 6);
	/* Not a smaller one than it names. */
	r.term = 8;
	rio_tell_term(rio, &r);
	assert_int_equal(r.term, 8);
	free(rio);
}

/* A granted one names the candidate's term, and a real vote libraft's own. */
static void test_other_answers_stay(void **state)
{
	struct rio *rio = calloc(1, sizeof *rio);
	struct raft_request_vote_result r = {
		.term = 4, .pre_vote = raft_tribool_true, .vote_granted = true};

	(void)state;
	assert_non_null(rio);
	rio->meta.term = 6;
	rio_tell_term(rio, &r);
	assert_int_equal(r.term, 4);
	r.vote_granted = false;
	r.pre_vote = raft_tribool_false;
	rio_tell_term(rio, &r);
	assert_int_equal(r.term, 4);
	free(rio);
}

/* A learner that heard of a candidate's term, which came to nothing, knows the master of
 * the smaller term again when that tells. */
static void test_a_candidate_is_no_master(void **state)
{
	static const struct uuid master = {{1}}, next = {{2}}, none = {{0}};
	struct learner *l = calloc(1, sizeof *l);

	(void)state;
	assert_non_null(l);
	l->closing = true; /* nobody is told */
	learner_note_master(l, 20, &master);
	learner_note_master(l, 76, &none);
	assert_true(uuid_is_none(&l->master));
	learner_note_master(l, 20, &master);
	assert_true(uuid_eq(&l->master, &master));
	learner_note_master(l, 20, &none); /* of the same term: somebody knows less */
	assert_true(uuid_eq(&l->master, &master));
	learner_note_master(l, 19, &next);
	assert_true(uuid_eq(&l->master, &master));
	learner_note_master(l, 77, &next);
	assert_true(uuid_eq(&l->master, &next));
	assert_int_equal(l->term, 77);
	learner_note_master(l, 80, &next);
	assert_int_equal(l->term, 80);
	learner_note_master(l, 77, &master); /* of before */
	assert_true(uuid_eq(&l->master, &next));
	free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_follows_newer_terms),
		cmocka_unit_test(test_follows_who_removed_it),
		cmocka_unit_test(test_not_in_its_configuration),
		cmocka_unit_test(test_another_life),
		cmocka_unit_test(test_refused_pre_vote_tells_the_term),
		cmocka_unit_test(test_other_answers_stay),
		cmocka_unit_test(test_a_candidate_is_no_master),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
