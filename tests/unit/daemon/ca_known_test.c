/* Who has a certificate of the next CA: each is checked once, a few in one look. */
#include "daemon/ca_known.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "applied.h"
#include "link/ca.h"

enum { HOSTS = 40 };

static const struct uuid pool = {{1}};

struct fixture {
	struct db *db;
	struct ca_known *known;
	struct txn t;
};

static struct fixture f;
static int checks_made;

bool __wrap_ca_signed(const char *ca_pem, const char *cert_pem);

/* "B of host 3" is signed by "B". */
bool __wrap_ca_signed(const char *ca_pem, const char *cert_pem)
{
	checks_made++;
	return ca_pem[0] == cert_pem[0];
}

static struct uuid host(int i)
{
	return (struct uuid){{2, (uint8_t)i}};
}

static void apply(void)
{
	must_apply(f.db, &f.t);
	txn_init(&f.t, f.db, 1000);
}

static void certify(int i, const char *ca)
{
	char text[32];

	snprintf(text, sizeof text, "%s of host %d", ca, i);
	txn_set_string(&f.t, host(i), HOST_CERTIFICATE, text);
}

static int setup(void **state)
{
	char name[16];

	(void)state;
	checks_made = 0;
	f.db = db_new(1);
	assert_non_null(f.db);
	assert_int_equal(ca_known_new(&f.known, 7), 0);
	txn_init(&f.t, f.db, 1000);
	txn_create(&f.t, CLASS_POOL, pool);
	txn_set_string(&f.t, pool, POOL_CA_NEXT_CERTIFICATE, "B");
	for (int i = 0; i < HOSTS; i++) {
		snprintf(name, sizeof name, "h%d", i);
		txn_create(&f.t, CLASS_HOST, host(i));
		txn_set_string(&f.t, host(i), HOST_NAME_LABEL, name);
		certify(i, i % 2 ? "A" : "B");
	}
	apply();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	txn_fini(&f.t);
	ca_known_free(f.known);
	db_free(f.db);
	return 0;
}

/* One look at all; how many it can't tell. */
static int look(int *has, int allowed)
{
	int unknown = 0;

	*has = 0;
	for (const struct row *h = NULL; (h = db_next(f.db, CLASS_HOST, h));) {
		enum ca_known_verdict v = ca_known_ask(f.known, f.db, h, &allowed);

		unknown += v == CA_KNOWN_NOT_YET;
		*has += v == CA_KNOWN_HAS;
	}
	return unknown;
}

static void test_each_once(void **state)
{
	int has;

	(void)state;
	for (int i = 1; i <= HOSTS / 8; i++) {
		assert_int_equal(look(&has, 8), HOSTS - 8 * i);
		assert_int_equal(checks_made, 8 * i);
	}
	assert_int_equal(has, HOSTS / 2);
	assert_int_equal(look(&has, 8), 0);
	assert_int_equal(checks_made, HOSTS);
}

static void test_changes(void **state)
{
	int has;

	(void)state;
	assert_int_equal(look(&has, HOSTS), 0);
	certify(1, "B");
	apply();
	assert_int_equal(look(&has, 0), 1); /* not what it was */
	assert_int_equal(look(&has, 8), 0);
	assert_int_equal(has, HOSTS / 2 + 1);
	assert_int_equal(checks_made, HOSTS + 1);
	/* About to show another one. */
	txn_set_string(&f.t, host(1), HOST_CERTIFICATE_NEXT, "B of host 1 again");
	apply();
	assert_int_equal(look(&has, 0), 0);
	assert_int_equal(has, HOSTS / 2);
	/* Another CA: nothing of the former one counts. */
	txn_set_string(&f.t, pool, POOL_CA_NEXT_CERTIFICATE, "A");
	txn_set_string(&f.t, host(1), HOST_CERTIFICATE_NEXT, "");
	apply();
	assert_int_equal(look(&has, 8), HOSTS - 8);
	assert_int_equal(look(&has, HOSTS), 0);
	assert_int_equal(has, HOSTS / 2 - 1);
	ca_known_forget(f.known);
	assert_int_equal(look(&has, 0), HOSTS);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(test_each_once), TEST(test_changes)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
