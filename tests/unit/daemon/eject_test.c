/* What stands in the way of a host that leaves, and what goes with it. */
#include "daemon/eject_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "daemon/pool_ca.h"
#include "daemon/witness.h"
#include "applied.h"
#include "link/ca.h"
#include "reactor/tls.h"
#include "vm/vm_ghost_marks.h"

static const struct uuid pool = {{1}}, a = {{2}}, b = {{3}}, vm = {{4}}, sr = {{5}},
			 vdi = {{6}}, pbd_a = {{7}}, pbd_b = {{8}}, pif = {{9}},
			 network = {{10}}, task = {{11}}, tagged = {{12}}, vlan = {{13}},
			 bond = {{14}}, message = {{15}};

struct fixture {
	struct db *db;
	struct txn t;
	struct rv_error verdict;
};

static struct fixture f;

static void apply(void)
{
	f.verdict = applied(f.db, &f.t);
	txn_init(&f.t, f.db, 1000);
}

static void must(void)
{
	apply();
	if (f.verdict.code)
		fail_msg("%s", f.verdict.detail);
}

static void make(enum schema_class_id cls, struct uuid uuid, enum schema_field_id name,
	const char *text)
{
	txn_create(&f.t, cls, uuid);
	if (text)
		txn_set_string(&f.t, uuid, name, text);
}

static int setup(void **state)
{
	(void)state;
	f.db = db_new(1);
	txn_init(&f.t, NULL, 1000);
	make(CLASS_POOL, pool, POOL_NAME_LABEL, "pool");
	make(CLASS_HOST, a, HOST_NAME_LABEL, "alpha");
	make(CLASS_HOST, b, HOST_NAME_LABEL, "beta");
	txn_set_int(&f.t, b, HOST_RAFT_ID, 2);
	txn_set_ref(&f.t, pool, POOL_MASTER, a);
	make(CLASS_VM, vm, VM_NAME_LABEL, "web");
	make(CLASS_SR, sr, SR_NAME_LABEL, "disks");
	make(CLASS_NETWORK, network, NETWORK_NAME_LABEL, "lan");
	txn_create(&f.t, CLASS_PBD, pbd_b);
	txn_set_ref(&f.t, pbd_b, PBD_HOST, b);
	txn_set_ref(&f.t, pbd_b, PBD_SR, sr);
	txn_create(&f.t, CLASS_PIF, pif);
	txn_set_ref(&f.t, pif, PIF_HOST, b);
	txn_set_ref(&f.t, pif, PIF_NETWORK, network);
	must();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	txn_fini(&f.t);
	db_free(f.db);
	return 0;
}

static void refused(int code, const char *words)
{
	struct rv_error e = {0};

	assert_int_equal(eject_check(f.db, b, &e), code);
	assert_int_equal(e.code, code);
	if (!strstr(e.detail, words) || !strstr(e.detail, "beta"))
		fail_msg("\"%s\" is not in: %s", words, e.detail);
}

static void eject(const char *fingerprint, int64_t wall_ms)
{
	struct rv_error e = {0};

	if (eject_check(f.db, b, &e))
		fail_msg("%s", e.detail);
	eject_txn(f.db, b, fingerprint, a, message, "root", wall_ms, &f.t);
}

static void test_vms(void **state)
{
	struct value live = value_bool(true);
	struct rv_error e;

	(void)state;
	txn_set_ref(&f.t, vm, VM_RESIDENT_ON, b);
	must();
	refused(RV_ENOTALLOWED, "host-declare-dead host=beta");
	assert_int_equal(db_set_live(f.db, b, HOST_LIVE, &live, &e), 0);
	refused(RV_ENOTALLOWED, "VMs run on it: web (");
	txn_set_ref(&f.t, vm, VM_RESIDENT_ON, a);
	txn_set_ref(&f.t, vm, VM_INTENT_HOST, b);
	must();
	refused(RV_EBUSY, "operations on VMs are at work there: web");
	txn_set_ref(&f.t, vm, VM_INTENT_HOST, UUID_NONE);
	txn_set_ref(&f.t, vm, VM_MIGRATION_TARGET, b);
	must();
	refused(RV_EBUSY, "operations on VMs are at work there: web");
}

/* A halted VM's disk that it still holds would stay with it. */
static void test_left_devices(void **state)
{
	struct value live = value_bool(true);
	struct rv_error e;

	(void)state;
	txn_set_ref(&f.t, vm, VM_DEVICES_LEFT_ON, b);
	must();
	refused(RV_ENOTALLOWED, "host-declare-dead host=beta");
	assert_int_equal(db_set_live(f.db, b, HOST_LIVE, &live, &e), 0);
	refused(RV_EBUSY, "it has not released all disks and interfaces");
	txn_set_ref(&f.t, vm, VM_DEVICES_LEFT_ON, a);
	must();
	assert_int_equal(eject_check(f.db, b, &e), 0);
}

/* Its VM could be started, once nobody hears of the domain that is left of it. */
static void test_ghosts(void **state)
{
	struct value live = value_bool(true);
	char key[UUID_TEXT_SIZE];
	struct rv_error e;

	(void)state;
	txn_map_put(&f.t, vm, VM_GHOSTS, uuid_format(&b, key), "7 web");
	must();
	refused(RV_ENOTALLOWED, "host-declare-dead host=beta");
	assert_int_equal(db_set_live(f.db, b, HOST_LIVE, &live, &e), 0);
	refused(RV_ENOTALLOWED, "left of VMs: web (host-ghost-list host=beta");
	txn_map_remove(&f.t, vm, VM_GHOSTS, key);
	txn_map_put(&f.t, vm, VM_GHOSTS, uuid_format(&a, key), "7 web");
	must();
	assert_int_equal(eject_check(f.db, b, &e), 0);
}

/* One that it tells of at the very moment. */
static void test_ghost_meanwhile(void **state)
{
	static const struct uuid other = {{77}};
	char key[UUID_TEXT_SIZE];
	struct txn eject_it;

	(void)state;
	make(CLASS_VM, other, VM_NAME_LABEL, "other");
	txn_map_put(&f.t, other, VM_GHOSTS, uuid_format(&a, key), "7 other");
	must();
	for (int i = 0; i < 2; i++) {
		const struct uuid of = i ? other : vm;

		eject("ab", 5000);
		eject_it = f.t;
		txn_init(&f.t, f.db, 1000);
		txn_map_put(&f.t, of, VM_GHOSTS, uuid_format(&b, key), "7 web");
		vm_ghost_reported_txn(f.db, b, &f.t);
		must();
		txn_fini(&f.t);
		f.t = eject_it;
		apply();
		assert_int_equal(f.verdict.code, RV_ECONFLICT);
		refused(RV_ENOTALLOWED, "are left of VMs");
		txn_map_remove(&f.t, of, VM_GHOSTS, key);
		must();
	}
	eject("ab", 5000);
	must();
	assert_null(db_row(f.db, CLASS_HOST, b));
}

/* However many VMs there are: a ghost of any would have been reported. */
static void test_no_larger_for_many_vms(void **state)
{
	unsigned expects;

	(void)state;
	eject("ab", 5000);
	expects = txn_expect_count(&f.t);
	txn_fini(&f.t);
	txn_init(&f.t, f.db, 1000);
	for (unsigned char i = 0; i < 20; i++) {
		char name[16];

		snprintf(name, sizeof name, "vm%u", i);
		make(CLASS_VM, (struct uuid){{100, i}}, VM_NAME_LABEL, name);
	}
	must();
	eject("ab", 5000);
	assert_int_equal(txn_expect_count(&f.t), expects);
}

static void test_many_names(void **state)
{
	(void)state;
	for (unsigned char i = 0; i < 9; i++) {
		struct uuid uuid = {{100, i}};
		char name[16];

		snprintf(name, sizeof name, "vm%u", i);
		make(CLASS_VM, uuid, VM_NAME_LABEL, name);
		txn_set_ref(&f.t, uuid, VM_RESIDENT_ON, b);
	}
	must();
	refused(RV_ENOTALLOWED, "vm0, vm1, vm2 and 6 more");
}

static void test_storage(void **state)
{
	(void)state;
	make(CLASS_VDI, vdi, VDI_NAME_LABEL, "precious");
	txn_set_ref(&f.t, vdi, VDI_SR, sr);
	must();
	refused(RV_ENOTALLOWED,
		"SR disks is reached from it alone, with the disks precious");
	/* Another way to it, not in use: still nobody else's while this one is. */
	txn_create(&f.t, CLASS_PBD, pbd_a);
	txn_set_ref(&f.t, pbd_a, PBD_HOST, a);
	txn_set_ref(&f.t, pbd_a, PBD_SR, sr);
	txn_set_bool(&f.t, pbd_b, PBD_CURRENTLY_ATTACHED, true);
	must();
	refused(RV_ENOTALLOWED, "SR disks is plugged on no other host");
	txn_set_ref(&f.t, vdi, VDI_WRITER, b);
	txn_set_bool(&f.t, pbd_a, PBD_CURRENTLY_ATTACHED, true);
	must();
	refused(RV_ENOTALLOWED, "disks open for writing: precious");
	txn_set_ref(&f.t, vdi, VDI_WRITER, UUID_NONE);
	must();
	eject("", 5);
	must();
	assert_non_null(db_row(f.db, CLASS_SR, sr));
	assert_non_null(db_row(f.db, CLASS_VDI, vdi));
	assert_null(db_row(f.db, CLASS_PBD, pbd_b));
}

/* Everything that hangs on the host goes in the same entry. */
static void test_all_goes(void **state)
{
	(void)state;
	txn_create(&f.t, CLASS_PIF, tagged);
	txn_set_ref(&f.t, tagged, PIF_HOST, b);
	txn_set_ref(&f.t, tagged, PIF_NETWORK, network);
	txn_create(&f.t, CLASS_VLAN, vlan);
	txn_set_ref(&f.t, vlan, VLAN_TAGGED_PIF, pif);
	txn_set_ref(&f.t, vlan, VLAN_UNTAGGED_PIF, tagged);
	txn_create(&f.t, CLASS_BOND, bond);
	txn_set_ref(&f.t, bond, BOND_MASTER, pif);
	make(CLASS_TASK, task, TASK_METHOD, "VM.start");
	txn_set_ref(&f.t, task, TASK_RESIDENT_ON, b);
	txn_set_ref(&f.t, vm, VM_AFFINITY, b);
	txn_set_ref(&f.t, pool, POOL_MASTER, b); /* it was, a moment ago */
	must();
	eject("ab", 5);
	must();
	assert_int_equal(db_count(f.db, CLASS_HOST), 1);
	assert_int_equal(db_count(f.db, CLASS_PIF), 0);
	assert_int_equal(db_count(f.db, CLASS_PBD), 0);
	assert_int_equal(db_count(f.db, CLASS_SR), 0);
	assert_int_equal(db_count(f.db, CLASS_VLAN), 0);
	assert_int_equal(db_count(f.db, CLASS_BOND), 0);
	assert_int_equal(db_count(f.db, CLASS_NETWORK), 1);
	assert_int_equal(db_enum(db_row(f.db, CLASS_TASK, task), TASK_STATUS),
		TASK_STATUS_FAILURE);
	assert_string_equal(db_string(db_row(f.db, CLASS_TASK, task), TASK_ERROR_CODE),
		"HOST_EJECTED");
	assert_string_equal(db_map_get(db_pool(f.db), POOL_EJECTED, "ab"),
		"5 03000000-0000-0000-0000-000000000000 beta");
	assert_non_null(
		strstr(db_string(db_row(f.db, CLASS_MESSAGE, message), MESSAGE_BODY),
			"by root"));
	/* The last one stays. */
	struct rv_error e = {0};

	assert_int_equal(eject_check(f.db, a, &e), RV_ENOTALLOWED);
	assert_non_null(strstr(e.detail, "last host"));
}

/* The last host does not leave its witness alone; the witness may go, and another may
 * come then. */
static void test_witness(void **state)
{
	struct rv_error e = {0};

	(void)state;
	assert_non_null(strstr(witness_advice(f.db), "--witness"));
	assert_int_equal(witness_may_join(f.db, &e), 0);
	txn_set_enum(&f.t, b, HOST_KIND, HOST_KIND_WITNESS);
	txn_set_string(&f.t, pool, POOL_WITNESS_ADDRESS, "tcp:192.0.2.9:7473");
	txn_delete(&f.t, CLASS_PBD, pbd_b);
	txn_delete(&f.t, CLASS_PIF, pif);
	must();
	assert_int_equal(witness_count_hosts(f.db), 1);
	assert_string_equal(witness_advice(f.db), "");
	assert_int_equal(witness_may_join(f.db, &e), RV_ENOTALLOWED);
	assert_non_null(strstr(e.detail, "beta"));
	assert_int_equal(eject_check(f.db, a, &e), RV_ENOTALLOWED);
	assert_non_null(strstr(e.detail, "besides the witness"));
	eject("ab", 5);
	must();
	assert_int_equal(db_count(f.db, CLASS_HOST), 1);
	assert_string_equal(db_string(db_pool(f.db), POOL_WITNESS_ADDRESS), "");
	assert_int_equal(witness_may_join(f.db, &e), 0);
}

/* A certificate that was about to follow is remembered too. */
static void test_next_certificate(void **state)
{
	struct rv_error e = {0};
	char *ca, *key, text[2 * CA_FINGERPRINT_SIZE + 1];
	uint8_t digest[CA_FINGERPRINT_SIZE];

	(void)state;
	assert_int_equal(ca_new(&b, &ca, &key, &e), 0);
	assert_int_equal(ca_fingerprint(ca, digest, &e), 0);
	txn_set_string(&f.t, b, HOST_CERTIFICATE_NEXT, ca);
	must();
	eject("ab", 5);
	must();
	assert_non_null(db_map_get(db_pool(f.db), POOL_EJECTED, "ab"));
	assert_non_null(db_map_get(
		db_pool(f.db), POOL_EJECTED, bytes_hex(digest, sizeof digest, text)));
	free(ca);
	ca_key_free(key);
}

static void test_tasks(void **state)
{
	struct value live = value_bool(true);
	struct rv_error e;

	(void)state;
	make(CLASS_TASK, task, TASK_METHOD, "SR.scan");
	txn_set_ref(&f.t, task, TASK_RESIDENT_ON, b);
	must();
	assert_int_equal(db_set_live(f.db, b, HOST_LIVE, &live, &e), 0);
	refused(RV_EBUSY, "tasks are at work there: SR.scan");
	txn_set_time(&f.t, task, TASK_FINISHED, 3);
	txn_set_enum(&f.t, task, TASK_STATUS, TASK_STATUS_SUCCESS);
	must();
	eject("", 5);
	must();
	assert_int_equal(db_enum(db_row(f.db, CLASS_TASK, task), TASK_STATUS),
		TASK_STATUS_SUCCESS); /* as it was: it had ended */
}

/* What comes between the check and the entry's turn: all or nothing. */
static void test_races(void **state)
{
	struct txn late;

	(void)state;
	eject("ab", 5);
	late = f.t;
	txn_init(&f.t, f.db, 1000);
	txn_set_ref(&f.t, vm, VM_RESIDENT_ON, b);
	must();
	txn_fini(&f.t);
	f.t = late;
	apply();
	assert_int_not_equal(f.verdict.code, 0);
	assert_non_null(db_row(f.db, CLASS_HOST, b));
	assert_null(db_map_get(db_pool(f.db), POOL_EJECTED, "ab"));

	/* It was ejected and joined again meanwhile. */
	txn_set_ref(&f.t, vm, VM_RESIDENT_ON, UUID_NONE);
	must();
	eject("ab", 5);
	late = f.t;
	txn_init(&f.t, f.db, 1000);
	txn_set_time(&f.t, b, HOST_JOINED, 9);
	must();
	txn_fini(&f.t);
	f.t = late;
	apply();
	assert_int_equal(f.verdict.code, RV_ECONFLICT);
	assert_non_null(db_row(f.db, CLASS_HOST, b));
}

static void test_remembers_so_many(void **state)
{
	(void)state;
	for (int i = 0; i < EJECT_REMEMBERED; i++) {
		char key[16], value[16];

		snprintf(key, sizeof key, "%04x", i);
		snprintf(
			value, sizeof value, "%d x", 1000 + (i + 100) % EJECT_REMEMBERED);
		txn_map_put(&f.t, pool, POOL_EJECTED, key, value);
	}
	must();
	eject("ab", 5000);
	must();
	assert_int_equal(
		value_count(row_value(db_pool(f.db), POOL_EJECTED)), EJECT_REMEMBERED);
	assert_null(db_map_get(db_pool(f.db), POOL_EJECTED, "009c")); /* the oldest */
	assert_non_null(db_map_get(db_pool(f.db), POOL_EJECTED, "009d"));
	assert_non_null(db_map_get(db_pool(f.db), POOL_EJECTED, "ab"));
}

/* A host whose certificate nobody knows is known by its UUID, unless it has come back. */
static void test_remembered_by_uuid(void **state)
{
	const struct row *row;

	(void)state;
	eject("", 8000000);
	must();
	row = db_pool(f.db);
	assert_true(eject_remembers(row, b, 0));
	assert_true(eject_remembers(row, b, 8000 - TLS_BACKDATE_S));
	assert_false(eject_remembers(row, b, 8001 - TLS_BACKDATE_S));
	assert_false(eject_remembers(row, a, 0));
	txn_map_put(&f.t, pool, POOL_EJECTED, "cd",
		"9000000 03000000-0000-0000-0000-000000000000 beta");
	must();
	assert_true(eject_remembers(db_pool(f.db), b, 9000 - TLS_BACKDATE_S));
}

/* The tokens that it joined by are of no use any more; others' are. */
static void test_tokens(void **state)
{
	(void)state;
	txn_map_put(&f.t, pool, POOL_JOIN_TOKENS, "01",
		"9 00000000-0000-0000-0000-000000000001 "
		"03000000-0000-0000-0000-000000000000 ab");
	txn_map_put(&f.t, pool, POOL_JOIN_TOKENS, "02",
		"9 00000000-0000-0000-0000-000000000001 "
		"02000000-0000-0000-0000-000000000000 ab");
	txn_map_put(&f.t, pool, POOL_JOIN_TOKENS, "03", "9");
	must();
	eject("ab", 5);
	must();
	assert_null(db_map_get(db_pool(f.db), POOL_JOIN_TOKENS, "01"));
	assert_non_null(db_map_get(db_pool(f.db), POOL_JOIN_TOKENS, "02"));
	assert_non_null(db_map_get(db_pool(f.db), POOL_JOIN_TOKENS, "03"));
}

static void change_ca(const char *cross)
{
	txn_set_string(&f.t, pool, POOL_CA_CROSS_CERTIFICATE, cross);
	must();
}

static void end_change(const char *kept)
{
	char *text = pool_ca_crosses_to_keep(f.db);

	assert_string_equal(text, kept);
	txn_set_string(&f.t, pool, POOL_CA_CROSS_CERTIFICATE, "");
	txn_set_string(&f.t, pool, POOL_CA_FORMER_CROSS_CERTIFICATES, text);
	must();
	free(text);
}

/* What leads from one CA to the next is kept for ejected hosts, of the last four changes.
 */
static void test_crosses(void **state)
{
#define CROSS(name) name "\n-----END CERTIFICATE-----\n"
	char *text;

	(void)state;
	change_ca(CROSS("a"));
	end_change("");
	eject("ab", 5);
	must();
	change_ca(CROSS("b"));
	end_change(CROSS("b"));
	change_ca(CROSS("c"));
	text = pool_ca_crosses(f.db);
	assert_string_equal(text, CROSS("c") CROSS("b"));
	free(text);
	end_change(CROSS("c") CROSS("b"));
	change_ca(CROSS("d"));
	end_change(CROSS("d") CROSS("c") CROSS("b"));
	change_ca(CROSS("e"));
	end_change(CROSS("e") CROSS("d") CROSS("c") CROSS("b"));
	change_ca(CROSS("f"));
	end_change(CROSS("f") CROSS("e") CROSS("d") CROSS("c"));
#undef CROSS
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_vms),
		TEST(test_left_devices),
		TEST(test_ghosts),
		TEST(test_ghost_meanwhile),
		TEST(test_no_larger_for_many_vms),
		TEST(test_many_names),
		TEST(test_storage),
		TEST(test_all_goes),
		TEST(test_witness),
		TEST(test_next_certificate),
		TEST(test_tasks),
		TEST(test_races),
		TEST(test_remembered_by_uuid),
		TEST(test_tokens),
		TEST(test_crosses),
		TEST(test_remembers_so_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
