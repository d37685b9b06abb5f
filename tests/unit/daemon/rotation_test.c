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

/* --- the plan --- */

/* Certificates are numbers, 0 for none; a certificate's CA is its number modulo 8. */
struct record {
	int recorded, next;
	int ca, ca_next;
};

struct model {
	int shown, prepared, prior; /* on the disk */
	int trust;		    /* the CAs that it trusts, as bits */
	struct record pool;
	/* What a host that is declared the pool may know of it: nothing before the last
	 * CA change, which all have taken part in. */
	struct record known;
	int last; /* number given */
	int ca_last;
	bool asked;
};

static int signing(const struct model *m)
{
	return m->pool.ca_next ? m->pool.ca_next : m->pool.ca;
}

/* Signed by a CA of the pool's. */
static bool believed(const struct model *m, int cert)
{
	return cert && (cert % 8 == m->pool.ca || cert % 8 == m->pool.ca_next);
}

/* As trust_text of daemon/rotation.c. */
static int right_trust(const struct model *m)
{
	return 1 << m->pool.ca | (m->pool.ca_next ? 1 << m->pool.ca_next : 0) |
	       1 << m->shown % 8;
}

static struct rotation_facts facts_of(const struct model *m)
{
	return (struct rotation_facts){.trust_right = m->trust == right_trust(m),
		.wanted = m->asked || m->shown % 8 != signing(m),
		.prepared = m->prepared,
		.prepared_right = m->prepared && m->prepared % 8 == signing(m),
		.shown_recorded = m->pool.recorded == m->shown,
		.next_recorded = m->pool.next,
		.prepared_recorded = m->prepared && m->pool.next == m->prepared,
		.shown_believed = believed(m, m->shown),
		.prior = m->prior,
		.prior_believed = believed(m, m->prior)};
}

static void carry_out(struct model *m, enum rotation_step step)
{
	switch (step) {
	case ROTATION_NOTHING:
		break;
	case ROTATION_TRUST:
		m->trust = right_trust(m);
		break;
	case ROTATION_PREPARE:
		m->prepared = ++m->last * 8 + signing(m);
		m->asked = false;
		break;
	case ROTATION_DISCARD:
		m->prepared = 0;
		break;
	case ROTATION_RECORD:
		m->pool.next = m->prepared;
		break;
	case ROTATION_FORCE:
		if (m->shown % 8 == m->pool.ca && m->prepared % 8 != m->pool.ca)
			m->prior = m->shown;
		m->shown = m->prepared;
		m->prepared = 0;
		break;
	case ROTATION_CONFIRM:
		m->pool.recorded = m->shown;
		m->pool.next = 0;
		break;
	case ROTATION_FALL_BACK:
		m->shown = m->prior;
		m->prior = 0;
		break;
	case ROTATION_FORGET:
		m->prior = 0;
		break;
	}
	/* The next start reads it. */
	assert_true(m->trust & 1 << m->shown % 8);
}

/* What others hold against: the record, and CAs that sign. */
static void is_believed(const struct model *m, uint64_t seed)
{
	if (m->shown != m->pool.recorded && m->shown != m->pool.next)
		fail_msg("seed %llu: what it shows is not on record",
			(unsigned long long)seed);
	if (!believed(m, m->shown))
		fail_msg("seed %llu: the CA of what it shows is gone",
			(unsigned long long)seed);
}

/* As daemon/ca_change.c: the former CA goes once the record is of the next. */
static void change_ca(struct model *m, struct prng *prng)
{
	struct record *p = &m->pool;

	if (!p->ca_next && prng_below(prng, 6) == 0) {
		do {
			m->ca_last = m->ca_last % 7 + 1;
		} while (m->ca_last == p->ca);
		p->ca_next = m->ca_last;
	} else if (p->ca_next && !p->next && p->recorded % 8 == p->ca_next &&
		   prng_below(prng, 4) == 0) { /* others lack theirs for a while */
		p->ca = p->ca_next;
		p->ca_next = 0;
		m->known = m->pool;
	} else if (prng_below(prng, 4) == 0) {
		m->known = m->pool;
	}
}

/* The quorum is lost for good, with what a host that is declared the pool did not know:
 * this one must have a certificate that is good there, and fall back upon it. */
static void lose(struct model *m, uint64_t seed)
{
	struct rotation_facts f;

	m->pool = m->known;
	if (!believed(m, m->shown) && !believed(m, m->prior))
		fail_msg("seed %llu: nothing that it has is believed",
			(unsigned long long)seed);
	for (int i = 0; i < 4; i++) {
		f = facts_of(m);
		carry_out(m, rotation_decide(&f));
	}
	if (!believed(m, m->shown))
		fail_msg("seed %llu: what it shows is not believed",
			(unsigned long long)seed);
	while (m->shown != m->pool.recorded && m->shown != m->pool.next) {
		f = facts_of(m);
		carry_out(m, rotation_decide(&f));
	}
}

static void settle(struct model *m, struct prng *prng)
{
	m->asked = false;
	for (unsigned idle = 0; idle < 3;) {
		struct rotation_facts f = facts_of(m);
		enum rotation_step step = rotation_decide(&f);

		carry_out(m, step);
		if (m->pool.ca_next)
			change_ca(m, prng);
		idle = step == ROTATION_NOTHING && !m->pool.ca_next ? idle + 1 : 0;
		assert_true(m->last < 1000);
	}
}

static void run_seed(uint64_t seed)
{
	struct model m = {.shown = 1,
		.pool = {.recorded = 1, .ca = 1},
		.trust = 1 << 1,
		.ca_last = 1};
	struct prng prng;

	m.known = m.pool;
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
		if (prng_below(&prng, 15) == 0)
			lose(&m, seed);
	}
	settle(&m, &prng);
	assert_int_equal(m.shown, m.pool.recorded);
	assert_int_equal(m.pool.next, 0);
	assert_int_equal(m.prepared, 0);
	assert_int_equal(m.prior, 0);
	assert_int_equal(m.shown % 8, m.pool.ca);
	assert_int_equal(m.trust, 1 << m.pool.ca);
}

static void test_plan(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 3000; seed++)
		run_seed(seed);
}

static void test_steps(void **state)
{
	struct rotation_facts f = {
		.trust_right = true, .shown_recorded = true, .shown_believed = true};

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
	f = (struct rotation_facts){.trust_right = true,
		.shown_recorded = true,
		.shown_believed = true,
		.prepared = true};
	assert_int_equal(rotation_decide(&f), ROTATION_DISCARD);
	/* The pool has another CA than the one that this host switched to. */
	f = (struct rotation_facts){.prior = true, .prior_believed = true};
	assert_int_equal(rotation_decide(&f), ROTATION_FALL_BACK);
	f = (struct rotation_facts){.trust_right = true, .wanted = true};
	assert_int_equal(rotation_decide(&f), ROTATION_PREPARE);
	f.next_recorded = f.prepared = f.prepared_right = true;
	f.prepared_recorded = true; /* what it shows is never recorded meanwhile */
	assert_int_equal(rotation_decide(&f), ROTATION_FORCE);
	/* Both are good while the change goes on; then one of them goes. */
	f = (struct rotation_facts){.trust_right = true,
		.shown_recorded = true,
		.shown_believed = true,
		.prior = true,
		.prior_believed = true};
	assert_int_equal(rotation_decide(&f), ROTATION_NOTHING);
	f.prior_believed = false;
	assert_int_equal(rotation_decide(&f), ROTATION_FORGET);
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

/* --- the files --- */

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
		rc = identity_put_in_force(dir, false, &e);
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
	assert_int_equal(identity_put_in_force(dir, false, &e), 0);
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

/* What was in force is kept, and comes into force again; cut short after any number of
 * calls. */
static void fall_back(int after)
{
	char dir[] = "/tmp/reeve-rotation-XXXXXX";
	struct identity id, again;
	struct rv_error e = {0};
	struct pair a;
	int rc;

	assert_non_null(mkdtemp(dir));
	open_state(&id, dir);
	a = certify(id.ca_pem, id.ca_key_pem);
	assert_int_equal(identity_write_prepared(dir, a.cert, a.key, &e), 0);
	lives = after;
	rc = identity_put_in_force(dir, true, &e);
	if (!rc)
		rc = identity_fall_back(dir, &e);
	lives = -1;
	open_state(&again, dir); /* which checks that key and certificate match */
	if (strcmp(again.cert_pem, a.cert) == 0)
		assert_string_equal(again.prior_cert_pem, id.cert_pem);
	else
		assert_string_equal(again.cert_pem, id.cert_pem);
	identity_fini(&again);
	/* From wherever it stopped it goes on. */
	assert_int_equal(identity_write_prepared(dir, a.cert, a.key, &e), 0);
	assert_int_equal(identity_put_in_force(dir, true, &e), 0);
	assert_int_equal(identity_fall_back(dir, &e), 0);
	assert_int_equal(identity_forget_prior(dir, &e), 0);
	open_state(&again, dir);
	assert_null(again.prior_cert_pem);
	assert_null(again.next_cert_pem);
	identity_fini(&again);
	identity_fini(&id);
	pair_free(&a);
	remove_directory(dir);
}

static void test_fall_back(void **state)
{
	(void)state;
	log_set_level(LOG_ERROR);
	for (int after = 0; after < 14; after++)
		fall_back(after);
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
	assert_int_not_equal(identity_put_in_force(dir, false, &e), 0);
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
	assert_int_equal(identity_put_in_force(dir, false, &e), 0);
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
		cmocka_unit_test(test_fall_back),
		cmocka_unit_test(test_half_in_force),
		cmocka_unit_test(test_chain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
