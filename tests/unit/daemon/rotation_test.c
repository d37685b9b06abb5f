/*
 * One certificate after another: the plan carried out with lives that end after any step,
 * and CAs that change between; the files of the identity, cut short anywhere.
 */
#include "daemon/rotation_plan.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/prng.h"
#include "daemon/identity.h"
#include "link/ca.h"
#include "lives.h"

/* --- the plan ---------------------------------------------------------------------- */

/* Certificates are numbers, 0 for none; a certificate's CA is its number modulo 8. */
struct model {
	int shown, prepared; /* on the disk */
	int trust;	     /* the CAs that it trusts, as bits */
	int recorded, next;  /* in the pool's record */
	int ca, ca_next;
	int last; /* number given */
	bool asked;
};

static int signing(const struct model *m)
{
	return m->ca_next ? m->ca_next : m->ca;
}

static struct rotation_facts facts_of(const struct model *m)
{
	int trust = 1 << m->ca | (m->ca_next ? 1 << m->ca_next : 0);

	return (struct rotation_facts){.trust_right = m->trust == trust,
		.wanted = m->asked || m->shown % 8 != signing(m),
		.prepared = m->prepared,
		.prepared_right = m->prepared && m->prepared % 8 == signing(m),
		.shown_recorded = m->recorded == m->shown,
		.next_recorded = m->next,
		.prepared_recorded = m->prepared && m->next == m->prepared};
}

static void carry_out(struct model *m, enum rotation_step step)
{
	switch (step) {
	case ROTATION_NOTHING:
		break;
	case ROTATION_TRUST:
		m->trust = 1 << m->ca | (m->ca_next ? 1 << m->ca_next : 0);
		break;
	case ROTATION_PREPARE:
		m->prepared = ++m->last * 8 + signing(m);
		m->asked = false;
		break;
	case ROTATION_DISCARD:
		m->prepared = 0;
		break;
	case ROTATION_RECORD:
		m->next = m->prepared;
		break;
	case ROTATION_FORCE:
		m->shown = m->prepared;
		m->prepared = 0;
		break;
	case ROTATION_CONFIRM:
		m->recorded = m->shown;
		m->next = 0;
		break;
	}
}

/* What others hold against: the record, and CAs that sign. */
static void is_believed(const struct model *m, uint64_t seed)
{
	int ca = m->shown % 8;

	if (m->shown != m->recorded && m->shown != m->next)
		fail_msg("seed %llu: what it shows is not on record",
			(unsigned long long)seed);
	if (ca != m->ca && ca != m->ca_next)
		fail_msg("seed %llu: the CA of what it shows is gone",
			(unsigned long long)seed);
}

/* As daemon/ca_change.c: the former CA goes once the record is of the next. */
static void change_ca(struct model *m, struct prng *prng)
{
	if (!m->ca_next && prng_below(prng, 6) == 0)
		m->ca_next = m->ca % 7 + 1;
	else if (m->ca_next && !m->next && m->recorded % 8 == m->ca_next) {
		m->ca = m->ca_next;
		m->ca_next = 0;
	}
}

static void run_seed(uint64_t seed)
{
	struct model m = {.shown = 1, .recorded = 1, .trust = 1 << 1, .ca = 1, .last = 0};
	struct prng prng;
	unsigned idle = 0;

	prng_seed(&prng, seed);
	for (int i = 0; i < 200; i++) {
		struct rotation_facts f = facts_of(&m);

		carry_out(&m, rotation_decide(&f));
		is_believed(&m, seed);
		if (prng_below(&prng, 10) == 0)
			m.asked = true;
		if (prng_below(&prng, 10) == 0)
			m.asked = false; /* a new life: who asked is gone */
		if (prng_below(&prng, 20) == 0)
			m.prepared = 0; /* its files are lost */
		change_ca(&m, &prng);
		is_believed(&m, seed);
	}
	m.asked = false;
	while (idle < 3) {
		struct rotation_facts f = facts_of(&m);
		enum rotation_step step = rotation_decide(&f);

		carry_out(&m, step);
		if (m.ca_next)
			change_ca(&m, &prng);
		idle = step == ROTATION_NOTHING && !m.ca_next ? idle + 1 : 0;
		assert_true(m.last < 500);
	}
	assert_int_equal(m.shown, m.recorded);
	assert_int_equal(m.next, 0);
	assert_int_equal(m.prepared, 0);
	assert_int_equal(m.shown % 8, m.ca);
}

static void test_plan(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 3000; seed++)
		run_seed(seed);
}

static void test_steps(void **state)
{
	struct rotation_facts f = {.trust_right = true, .shown_recorded = true};

	(void)state;
	assert_int_equal(rotation_decide(&f), ROTATION_NOTHING);
	f.wanted = true;
	assert_int_equal(rotation_decide(&f), ROTATION_PREPARE);
	f.prepared = f.prepared_right = true;
	assert_int_equal(rotation_decide(&f), ROTATION_RECORD);
	f.next_recorded = f.prepared_recorded = true;
	assert_int_equal(rotation_decide(&f), ROTATION_FORCE);
	f.prepared = f.prepared_right = f.prepared_recorded = f.shown_recorded = false;
	assert_int_equal(rotation_decide(&f), ROTATION_CONFIRM);
	f.trust_right = false;
	assert_int_equal(rotation_decide(&f), ROTATION_TRUST);
	f = (struct rotation_facts){
		.trust_right = true, .shown_recorded = true, .prepared = true};
	assert_int_equal(rotation_decide(&f), ROTATION_DISCARD);
}

static void test_times(void **state)
{
	(void)state;
	assert_false(rotation_is_due(0, 300, 199));
	assert_true(rotation_is_due(0, 300, 200));
	assert_true(rotation_is_due(0, 300, 1000));
	assert_false(rotation_expires_soon(0, 1200, 1099));
	assert_true(rotation_expires_soon(0, 1200, 1100));
}

/* --- the files --------------------------------------------------------------------- */

static const struct uuid host = {{5}};

struct pair {
	char *cert, *key;
};

static struct pair certify(const char *ca, const char *ca_key)
{
	struct rv_error e = {0};
	struct pair p;
	char *csr;

	assert_int_equal(ca_request_new(&host, &csr, &p.key, &e), 0);
	assert_int_equal(ca_issue(ca, ca_key, csr, &host, NULL, 30, &p.cert, &e), 0);
	free(csr);
	return p;
}

static void pair_free(struct pair *p)
{
	free(p->cert);
	ca_key_free(p->key);
}

static void open_state(struct identity *id, const char *dir)
{
	const char *const names[] = {NULL};
	struct rv_error e = {0};

	if (identity_open(id, dir, &host, names, &e))
		fail_msg("%s", e.detail);
}

static void remove_directory(const char *dir)
{
	char line[128];

	snprintf(line, sizeof line, "rm -rf %s", dir);
	assert_int_equal(system(line), 0);
}

/* Prepared, discarded, prepared, put in force; cut short after any number of calls. A
 * start always finds a certificate with its key, and what is prepared whole or not. */
static void cut_short(int after)
{
	char dir[] = "/tmp/reeve-rotation-XXXXXX";
	struct identity id, again;
	struct rv_error e = {0};
	struct pair a, b;
	bool is_former, is_next;
	int rc;

	assert_non_null(mkdtemp(dir));
	open_state(&id, dir);
	a = certify(id.ca_pem, id.ca_key_pem);
	b = certify(id.ca_pem, id.ca_key_pem);
	lives = after;
	rc = identity_write_prepared(dir, a.cert, a.key, &e);
	if (!rc)
		rc = identity_write_prepared(dir, b.cert, b.key, &e);
	if (!rc)
		rc = identity_put_in_force(dir, &e);
	lives = -1;
	open_state(&again, dir); /* which checks that key and certificate match */
	is_former = strcmp(again.cert_pem, id.cert_pem) == 0;
	is_next = strcmp(again.cert_pem, b.cert) == 0;
	assert_true(is_former || is_next);
	if (!rc)
		assert_true(is_next && !again.next_cert_pem);
	if (again.next_cert_pem)
		assert_true(is_former);
	/* From wherever it stopped it goes on. */
	assert_int_equal(identity_write_prepared(dir, a.cert, a.key, &e), 0);
	assert_int_equal(identity_put_in_force(dir, &e), 0);
	identity_fini(&again);
	open_state(&again, dir);
	assert_string_equal(again.cert_pem, a.cert);
	identity_fini(&again);
	identity_fini(&id);
	pair_free(&a);
	pair_free(&b);
	remove_directory(dir);
}

static void test_files(void **state)
{
	(void)state;
	log_set_level(LOG_ERROR);
	for (int after = 0; after < 14; after++)
		cut_short(after);
}

/* In the daemon's life the second name fails: what is shown must not lose its key. */
static void test_half_in_force(void **state)
{
	char dir[] = "/tmp/reeve-rotation-XXXXXX";
	struct identity id;
	struct rv_error e = {0};
	struct pair a;

	(void)state;
	assert_non_null(mkdtemp(dir));
	open_state(&id, dir);
	a = certify(id.ca_pem, id.ca_key_pem);
	assert_int_equal(identity_write_prepared(dir, a.cert, a.key, &e), 0);
	lives = 1;
	assert_int_not_equal(identity_put_in_force(dir, &e), 0);
	lives = -1;
	assert_int_equal(identity_discard_prepared(dir, &e), 0);
	identity_fini(&id);
	open_state(&id, dir);
	assert_string_equal(id.cert_pem, a.cert);
	identity_fini(&id);
	pair_free(&a);
	remove_directory(dir);
}

/* What is shown leads to the former CA while the next one takes over. */
static void test_chain(void **state)
{
	char dir[] = "/tmp/reeve-rotation-XXXXXX";
	char *ca, *ca_key, *cross, *chain, *both;
	struct identity id;
	struct rv_error e = {0};
	struct pair a;

	(void)state;
	assert_non_null(mkdtemp(dir));
	open_state(&id, dir);
	chain = identity_chain(&id);
	assert_string_equal(chain, id.cert_pem);
	free(chain);
	assert_int_equal(
		ca_successor(id.ca_pem, id.ca_key_pem, &ca, &ca_key, &cross, &e), 0);
	assert_true(asprintf(&both, "%s%s", id.ca_pem, ca) > 0);
	assert_int_equal(identity_write_trust(dir, both, cross, &e), 0);
	a = certify(ca, ca_key);
	assert_int_equal(identity_write_prepared(dir, a.cert, a.key, &e), 0);
	identity_fini(&id);
	open_state(&id, dir);
	assert_string_equal(id.next_cert_pem, a.cert);
	assert_string_equal(id.cross_pem, cross);
	assert_int_equal(identity_put_in_force(dir, &e), 0);
	identity_fini(&id);
	open_state(&id, dir);
	chain = identity_chain(&id);
	assert_true(strncmp(chain, a.cert, strlen(a.cert)) == 0);
	assert_true(strncmp(chain + strlen(a.cert), cross, strlen(cross)) == 0);
	assert_int_equal(strlen(chain),
		strlen(a.cert) + strlen(cross) + strlen(both) - strlen(ca));
	free(chain);
	assert_int_equal(identity_write_trust(dir, ca, NULL, &e), 0);
	identity_fini(&id);
	open_state(&id, dir);
	assert_null(id.cross_pem);
	chain = identity_chain(&id);
	assert_string_equal(chain, a.cert);
	free(chain);
	identity_fini(&id);
	pair_free(&a);
	free(ca);
	ca_key_free(ca_key);
	free(cross);
	free(both);
	remove_directory(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_steps),
		cmocka_unit_test(test_plan),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_half_in_force),
		cmocka_unit_test(test_chain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
