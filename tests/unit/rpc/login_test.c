/* Passwords, the login limit, roles. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "rpc/login_limit.h"
#include "rpc/password.h"
#include "rpc/session.h"

static void passwords_verify(void **state)
{
	char hash[PASSWORD_HASH_SIZE], other[PASSWORD_HASH_SIZE];
	struct rv_error e;

	(void)state;
	assert_int_equal(password_hash("correct horse", hash, &e), 0);
	assert_int_equal(password_hash("correct horse", other, &e), 0);
	assert_string_not_equal(hash, other); /* salted */
	assert_int_equal(password_verify("correct horse", hash, &e), 0);
	assert_int_equal(password_verify("correct horsf", hash, &e), RV_EAUTH);
	assert_int_equal(password_verify("", hash, &e), RV_EAUTH);
	assert_int_equal(password_hash("", hash, &e), RV_EINVAL);
}

static void broken_hashes_are_told(void **state)
{
	static const char *const bad[] = {"", "x", "$scrypt$", "$scrypt$ln=15,r=8,p=1$",
		"$scrypt$ln=30,r=8,p=1$00000000000000000000000000000000$"
		"0000000000000000000000000000000000000000000000000000000000000000",
		"$scrypt$ln=15,r=8,p=1$0000000000000000000000000000000g$"
		"0000000000000000000000000000000000000000000000000000000000000000"};
	struct rv_error e;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(password_verify("x", bad[i], &e), RV_ECORRUPT);
}

static void failures_lock_a_source_out_for_a_while(void **state)
{
	struct login_limit *l = login_limit_new();
	int64_t now = 1000000;
	struct rv_error e = {0};

	(void)state;
	for (int i = 0; i < SESSION_FAILURES; i++) {
		assert_int_equal(login_limit_check(l, "a", now, &e), 0);
		login_limit_note(l, "a", now, false);
	}
	assert_int_equal(login_limit_check(l, "a", now, &e), RV_ELIMIT);
	assert_non_null(strstr(e.detail, "try again in 61 s"));
	assert_int_equal(login_limit_check(l, "b", now, &e), 0);
	now += (int64_t)SESSION_FAILURE_WINDOW_MS * 1000 + 1;
	assert_int_equal(login_limit_check(l, "a", now, &e), 0);
	login_limit_free(l);
}

static void a_good_login_forgives(void **state)
{
	struct login_limit *l = login_limit_new();
	struct rv_error e;

	(void)state;
	for (int i = 0; i < SESSION_FAILURES - 1; i++)
		login_limit_note(l, "a", 1, false);
	login_limit_note(l, "a", 1, true);
	login_limit_note(l, "a", 1, false);
	assert_int_equal(login_limit_check(l, "a", 1, &e), 0);
	login_limit_free(l);
}

static void a_flood_of_sources_forgets_only_the_oldest(void **state)
{
	struct login_limit *l = login_limit_new();
	struct rv_error e;
	char name[32];

	(void)state;
	for (int i = 0; i < LOGIN_SOURCES + 1; i++) {
		snprintf(name, sizeof name, "s%d", i);
		for (int k = 0; k < SESSION_FAILURES; k++)
			login_limit_note(l, name, 1 + i, false);
	}
	assert_int_equal(login_limit_check(l, "s0", 1, &e), 0);
	assert_int_equal(login_limit_check(l, "s1", 1, &e), RV_ELIMIT);
	assert_int_equal(login_limit_check(l, name, 1, &e), RV_ELIMIT);
	login_limit_free(l);
}

static void sources_leave_out_ports(void **state)
{
	char source[LOGIN_SOURCE_MAX];
	struct rpc_peer peer = {.transport = RPC_TLS, .name = "tcp:192.0.2.7:4711"};

	(void)state;
	login_source(&peer, source);
	assert_string_equal(source, "192.0.2.7");
	snprintf(peer.name, sizeof peer.name, "tcp:[2001:db8:1:2:3:4:5:6]:99");
	login_source(&peer, source);
	assert_string_equal(source, "2001:db8:1:2::/64");
	peer.has_credentials = true;
	peer.uid = 1000;
	login_source(&peer, source);
	assert_string_equal(source, "uid:1000");
}

static void roles_are_ordered_and_named(void **state)
{
	struct session_identity who = {.role = ROLE_VM_ADMIN, .user = "ann"};
	struct rv_error e = {0};
	enum role role;

	(void)state;
	assert_int_equal(role_parse(&role, "vm-power-admin", 14), 0);
	assert_int_equal(role, ROLE_VM_POWER_ADMIN);
	assert_int_equal(role_parse(&role, "none", 4), RV_EINVAL);
	assert_int_equal(role_parse(&role, "pool-admi", 9), RV_EINVAL);
	assert_int_equal(session_check_role(&who, ROLE_VM_OPERATOR, "VM.start", &e), 0);
	assert_int_equal(session_check_role(&who, ROLE_VM_ADMIN, "VM.start", &e), 0);
	assert_int_equal(session_check_role(&who, ROLE_POOL_OPERATOR, "host.disable", &e),
		RV_EPERM);
	assert_non_null(strstr(e.detail, "host.disable"));
	assert_non_null(strstr(e.detail, "pool-operator"));
	assert_non_null(strstr(e.detail, "ann"));
	who.role = ROLE_NONE;
	assert_int_equal(session_check_role(&who, ROLE_NONE, "x", &e), RV_EPERM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(passwords_verify),
		cmocka_unit_test(broken_hashes_are_told),
		cmocka_unit_test(failures_lock_a_source_out_for_a_while),
		cmocka_unit_test(a_good_login_forgives),
		cmocka_unit_test(a_flood_of_sources_forgets_only_the_oldest),
		cmocka_unit_test(sources_leave_out_ports),
		cmocka_unit_test(roles_are_ordered_and_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
