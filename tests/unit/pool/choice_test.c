/*
 * Who should vote (pool/voters.h): tables of members and the change that must follow, and
 * random pools whose every change is carried out, hosts dying and coming back between.
 * REEVE_SEED=n runs one seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "pool/voters.h"

enum { MAX = 12, STEPS = 40 };

static const int64_t LONG = 60000;

/* One member per letter, the first being the master: V voter, S standby, O outside;
 * small: silent for long. w, W: the witness, as standby and voter. x, X: gone, likewise.
 */
static size_t parse(struct voters_member m[MAX], const char *text)
{
	size_t n = strlen(text);

	for (size_t i = 0; i < n; i++) {
		char c = text[i];

		m[i] = (struct voters_member){.raft_id = i + 1,
			.self = i == 0,
			.alive = c == 'V' || c == 'S' || c == 'O' || c == 'w' ||
				 c == 'W' || c == 'x' || c == 'X',
			.since_ms = LONG,
			.domain = "",
			.witness = c == 'w' || c == 'W',
			.gone = c == 'x' || c == 'X'};
		m[i].role = strchr("VvWX", c) ? VOTERS_VOTER
			    : strchr("Oo", c) ? VOTERS_OUTSIDE
					      : VOTERS_STANDBY;
	}
	return n;
}

static void expect(const char *text, enum voters_kind kind, size_t which)
{
	struct voters_member m[MAX];
	size_t n = parse(m, text);
	struct voters_change c = voters_decide(m, n, NULL);

	if (c.kind != kind || (kind != VOTERS_NOTHING && c.which != which))
		fail_msg("%s: %s %zu (%s), not %s %zu", text, voters_kind_name(c.kind),
			c.which, c.why, voters_kind_name(kind), which);
}

static void test_growing(void **state)
{
	(void)state;
	expect("V", VOTERS_NOTHING, 0);
	expect("VO", VOTERS_ADD, 1);
	expect("VS", VOTERS_NOTHING, 0);
	expect("VSO", VOTERS_ADD, 2);
	expect("VSS", VOTERS_PROMOTE, 1);
	expect("VVS", VOTERS_PROMOTE, 2);
	expect("VVV", VOTERS_NOTHING, 0);
	expect("VVVS", VOTERS_NOTHING, 0);
	expect("VVVSS", VOTERS_PROMOTE, 3);
	expect("VVVVVSSS", VOTERS_NOTHING, 0);
	expect("VSs", VOTERS_NOTHING, 0);
}

static void test_replacing(void **state)
{
	(void)state;
	expect("VVv", VOTERS_NOTHING, 0);
	expect("VVvS", VOTERS_PROMOTE, 3);
	expect("VVvV", VOTERS_DEMOTE, 2);
	expect("VVvs", VOTERS_NOTHING, 0);
	expect("VVVVv", VOTERS_NOTHING, 0);
	expect("VVVvv", VOTERS_DEMOTE, 3);
	expect("VVVsv", VOTERS_DEMOTE, 4);
	expect("VVVsS", VOTERS_NOTHING, 0);
	expect("VVVSS", VOTERS_PROMOTE, 3);
	expect("VVVVs", VOTERS_DEMOTE, 1);
}

static void test_leaving(void **state)
{
	(void)state;
	expect("VVVx", VOTERS_REMOVE, 3);
	expect("VVX", VOTERS_REMOVE, 2); /* two hosts: one voter */
	expect("VV", VOTERS_DEMOTE, 1);
	expect("VVXS", VOTERS_PROMOTE, 3);
	expect("VVXV", VOTERS_REMOVE, 2);
	expect("XVV", VOTERS_HAND_OVER, 1);
	expect("Xvv", VOTERS_NOTHING, 0);
}

static void test_witness(void **state)
{
	(void)state;
	expect("VSw", VOTERS_PROMOTE, 1); /* a host before the witness */
	expect("VVw", VOTERS_PROMOTE, 2);
	expect("VVW", VOTERS_NOTHING, 0);
	expect("VVWS", VOTERS_PROMOTE, 3);
	expect("VVWV", VOTERS_DEMOTE, 2);
	expect("WVV", VOTERS_HAND_OVER, 1);
	expect("VvW", VOTERS_NOTHING, 0); /* it is what two hosts live by */
	expect("VW", VOTERS_DEMOTE, 1);	  /* of no use to one */
	expect("Vw", VOTERS_NOTHING, 0);
	expect("Wvv", VOTERS_NOTHING, 0);
}

/* With more hosts it votes where it makes their number odd. */
static void test_witness_of_many(void **state)
{
	(void)state;
	expect("VVVw", VOTERS_NOTHING, 0);
	expect("VVvw", VOTERS_PROMOTE, 3); /* of three one is silent: two are left */
	expect("VVvW", VOTERS_DEMOTE, 2);
	expect("VVsW", VOTERS_NOTHING, 0);
	expect("VVSW", VOTERS_PROMOTE, 2); /* it is back */
	expect("VVVW", VOTERS_DEMOTE, 3);
	expect("VVVSw", VOTERS_PROMOTE, 3);
	expect("VVVVw", VOTERS_PROMOTE, 4);
	expect("VVVVW", VOTERS_NOTHING, 0);
	expect("VVVVWS", VOTERS_PROMOTE, 5);
	expect("VVVVWV", VOTERS_DEMOTE, 4);
	expect("VVVVVw", VOTERS_NOTHING, 0);
	expect("VVVVvw", VOTERS_PROMOTE, 5);
	expect("VVVVVSw", VOTERS_NOTHING, 0); /* six hosts: five of them */
	expect("VVVVWSS", VOTERS_PROMOTE, 5);
}

/* It hands over to who lacks little, and waits for that. */
static void test_witness_leads(void **state)
{
	struct voters_member m[MAX];
	size_t n = parse(m, "WVV");

	(void)state;
	m[1].lag = 5000;
	m[2].lag = 7;
	assert_int_equal(voters_decide(m, n, NULL).kind, VOTERS_HAND_OVER);
	assert_int_equal(voters_decide(m, n, NULL).which, 2);
	m[2].alive = false;
	assert_int_equal(voters_decide(m, n, NULL).kind, VOTERS_NOTHING);
	m[1].lag = 1024;
	assert_int_equal(voters_decide(m, n, NULL).kind, VOTERS_HAND_OVER);
	assert_int_equal(voters_decide(m, n, NULL).which, 1);
	n = parse(m, "WVv"); /* one host is away for long: the other leads all the same */
	assert_int_equal(voters_decide(m, n, NULL).kind, VOTERS_HAND_OVER);
}

/* A master whose disk stays full leads no longer, where another one can. */
static void test_full_disk(void **state)
{
	struct voters_member m[MAX];
	size_t n = parse(m, "VVV");

	(void)state;
	m[0].full_ms = 4999;
	assert_int_equal(voters_decide(m, n, NULL).kind, VOTERS_NOTHING);
	m[0].full_ms = 5000;
	assert_int_equal(voters_decide(m, n, NULL).kind, VOTERS_HAND_OVER);
	m[1].lag = 5000;
	assert_int_equal(voters_decide(m, n, NULL).which, 2);
	m[2].alive = false;
	assert_int_equal(voters_decide(m, n, NULL).kind, VOTERS_NOTHING);
	n = parse(m, "VSW"); /* the witness is no refuge */
	m[0].full_ms = LONG;
	assert_int_not_equal(voters_decide(m, n, NULL).kind, VOTERS_HAND_OVER);
	n = parse(m, "V");
	m[0].full_ms = LONG;
	assert_int_equal(voters_decide(m, n, NULL).kind, VOTERS_NOTHING);
}

static void test_times(void **state)
{
	struct voters_member m[MAX];
	size_t n = parse(m, "VVvS");

	(void)state;
	m[2].since_ms = 9000;
	assert_int_equal(voters_decide(m, n, NULL).kind, VOTERS_NOTHING);
	m[2].since_ms = LONG;
	m[3].since_ms = 500;
	assert_int_equal(voters_decide(m, n, NULL).kind, VOTERS_NOTHING);
	m[3].since_ms = LONG;
	m[3].lag = 5000;
	assert_int_equal(voters_decide(m, n, NULL).kind, VOTERS_NOTHING);
	m[3].lag = 10;
	assert_int_equal(voters_decide(m, n, NULL).kind, VOTERS_PROMOTE);
}

static void test_domains(void **state)
{
	static const char *const domains[] = {"a", "a", "b", "c"};
	struct voters_member m[MAX];
	size_t n = parse(m, "VVVS");
	struct voters_change c;

	(void)state;
	for (size_t i = 0; i < n; i++)
		m[i].domain = domains[i];
	c = voters_decide(m, n, NULL);
	assert_int_equal(c.kind, VOTERS_PROMOTE);
	assert_int_equal(c.which, 3);
	m[3].role = VOTERS_VOTER;
	c = voters_decide(m, n, NULL);
	assert_int_equal(c.kind, VOTERS_DEMOTE);
	assert_int_equal(c.which, 1);
	m[1].role = VOTERS_STANDBY;
	assert_int_equal(voters_decide(m, n, NULL).kind, VOTERS_NOTHING);
	n = parse(m, "VSSS");
	m[0].domain = m[1].domain = "a";
	m[2].domain = m[3].domain = "b";
	c = voters_decide(m, n, NULL);
	assert_int_equal(c.which, 2);
}

static void test_limits(void **state)
{
	struct voters_rules rules = {.standbys = 2};
	struct voters_member m[MAX];
	struct voters_change c;
	size_t n = parse(m, "VVVVVSSO");

	(void)state;
	assert_int_equal(voters_decide(m, n, &rules).kind, VOTERS_NOTHING);
	n = parse(m, "VVVVVsSO");
	assert_int_equal(voters_decide(m, n, &rules).kind, VOTERS_ADD);
	n = parse(m, "VVVVVsSS");
	c = voters_decide(m, n, &rules);
	assert_int_equal(c.kind, VOTERS_REMOVE);
	assert_int_equal(c.which, 5);
	n = parse(m, "VVVVVSSSS");
	assert_int_equal(voters_decide(m, n, &rules).kind, VOTERS_REMOVE);
	rules = (struct voters_rules){.most = 7};
	n = parse(m, "VVVVVSS");
	assert_int_equal(voters_wanted(m, n, &rules), 7);
	assert_int_equal(voters_decide(m, n, &rules).kind, VOTERS_PROMOTE);
	rules.most = 3;
	assert_int_equal(voters_decide(m, n, &rules).kind, VOTERS_DEMOTE);
}

/* --- random pools --- */

static unsigned voters_of(const struct voters_member *m, size_t n, bool alive)
{
	unsigned count = 0;

	for (size_t i = 0; i < n; i++)
		count += m[i].role == VOTERS_VOTER && (!alive || m[i].alive);
	return count;
}

/* Carries the change out. A change needs a majority that is alive. */
static void carry_out(
	struct voters_member *m, size_t n, struct voters_change c, uint64_t seed)
{
	static const enum voters_role to[] = {[VOTERS_ADD] = VOTERS_STANDBY,
		[VOTERS_PROMOTE] = VOTERS_VOTER,
		[VOTERS_DEMOTE] = VOTERS_STANDBY,
		[VOTERS_REMOVE] = VOTERS_OUTSIDE};
	unsigned before = voters_of(m, n, true) * 2 > voters_of(m, n, false);

	assert_true(c.which < n && *c.why);
	if (c.kind == VOTERS_HAND_OVER) {
		for (size_t i = 0; i < n; i++)
			m[i].self = i == c.which;
		return;
	}
	if (m[c.which].self)
		fail_msg(
			"seed %llu: the master loses its vote", (unsigned long long)seed);
	m[c.which].role = to[c.kind];
	if (before && voters_of(m, n, true) * 2 <= voters_of(m, n, false))
		fail_msg("seed %llu: a change cost the quorum", (unsigned long long)seed);
}

static void settle(struct voters_member *m, size_t n, uint64_t seed)
{
	unsigned voters;

	for (int step = 0;; step++) {
		struct voters_change c = voters_decide(m, n, NULL);

		if (c.kind == VOTERS_NOTHING)
			break;
		if (step == STEPS)
			fail_msg("seed %llu: no end", (unsigned long long)seed);
		carry_out(m, n, c, seed);
	}
	voters = voters_of(m, n, false);
	if (voters > 5 || (voters % 2 == 0 && voters > 2))
		fail_msg("seed %llu: %u voters", (unsigned long long)seed, voters);
}

static void all_live(struct voters_member *m, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		m[i].alive = true;
		m[i].since_ms = LONG;
		m[i].lag = 0;
	}
}

static void run_seed(uint64_t seed)
{
	static const char *const domains[] = {"", "a", "b", "c"};
	struct voters_member m[MAX];
	struct prng prng;
	size_t n, witness; /* at most one */

	prng_seed(&prng, seed);
	n = 1 + prng_below(&prng, MAX);
	witness = prng_below(&prng, 2) ? prng_below(&prng, MAX) : MAX;
	for (size_t i = 0; i < n; i++)
		m[i] = (struct voters_member){.raft_id = i + 1,
			.self = i == 0,
			.role = i == 0 ? VOTERS_VOTER : VOTERS_OUTSIDE,
			.witness = i > 0 && i == witness,
			.alive = true,
			.since_ms = LONG,
			.domain = domains[prng_below(&prng, 4)]};
	for (int round = 0; round < 20; round++) {
		settle(m, n, seed);
		for (size_t i = 0; i < n; i++) {
			m[i].lag = prng_below(&prng, 3000);
			m[i].alive = m[i].self || prng_below(&prng, 3) > 0;
			m[i].since_ms = (int64_t)prng_below(&prng, 20000);
			if (!m[i].self && prng_below(&prng, 40) == 0)
				m[i].gone = true;
		}
	}
	all_live(m, n);
	settle(m, n, seed);
	if (voters_of(m, n, false) != voters_wanted(m, n, NULL))
		fail_msg("seed %llu: %u voters at the end, wanted %u",
			(unsigned long long)seed, voters_of(m, n, false),
			voters_wanted(m, n, NULL));
}

static void test_random(void **state)
{
	const char *one = getenv("REEVE_SEED");

	(void)state;
	if (one) {
		run_seed(strtoull(one, NULL, 10));
		return;
	}
	for (uint64_t seed = 1; seed <= 3000; seed++)
		run_seed(seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_growing),
		cmocka_unit_test(test_replacing),
		cmocka_unit_test(test_leaving),
		cmocka_unit_test(test_witness),
		cmocka_unit_test(test_witness_of_many),
		cmocka_unit_test(test_witness_leads),
		cmocka_unit_test(test_full_disk),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_domains),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
