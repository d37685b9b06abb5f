/* VMs that are let go of by an admin's word: what the entry leaves. */
#include "daemon/lost_vms.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "vm/vm.h"
#include "vm/vm_lost.h"
#include "applied.h"

static const struct uuid pool = {{1}}, a = {{2}}, b = {{3}}, runs = {{4}}, starts = {{5}},
			 comes = {{6}}, resumes = {{7}}, sr = {{8}}, vdi = {{9}},
			 vbd = {{10}}, task = {{11}}, message = {{12}}, moves = {{13}},
			 back = {{14}};

static struct db *db;
static struct txn t;

static int apply(void)
{
	struct rv_error e = applied(db, &t);

	txn_init(&t, db, 1000);
	return e.code;
}

static void make_vm(struct uuid uuid, const char *name, int state)
{
	txn_create(&t, CLASS_VM, uuid);
	txn_set_string(&t, uuid, VM_NAME_LABEL, name);
	txn_set_enum(&t, uuid, VM_POWER_STATE, state);
	txn_set_int(&t, uuid, VM_OWNER_GENERATION, 7);
}

static int setup(void **state)
{
	char text[UUID_TEXT_SIZE];

	(void)state;
	db = db_new(1);
	txn_init(&t, NULL, 1000);
	txn_create(&t, CLASS_POOL, pool);
	txn_create(&t, CLASS_HOST, a);
	txn_set_string(&t, a, HOST_NAME_LABEL, "alpha");
	txn_create(&t, CLASS_HOST, b);
	txn_set_string(&t, b, HOST_NAME_LABEL, "beta");
	txn_create(&t, CLASS_SR, sr);
	txn_create(&t, CLASS_VDI, vdi);
	txn_set_ref(&t, vdi, VDI_SR, sr);
	txn_set_ref(&t, vdi, VDI_WRITER, b);
	txn_create(&t, CLASS_TASK, task);
	make_vm(runs, "runs", VM_POWER_STATE_RUNNING);
	txn_set_ref(&t, runs, VM_RESIDENT_ON, b);
	txn_set_int(&t, runs, VM_DOMID, 3);
	txn_set_ref(&t, runs, VM_INTENT_HOST, b);
	txn_set_enum(&t, runs, VM_INTENT, VM_INTENT_REBOOT);
	txn_map_put(&t, runs, VM_CURRENT_OPERATIONS, uuid_format(&task, text), "reboot");
	txn_create(&t, CLASS_VBD, vbd);
	txn_set_ref(&t, vbd, VBD_VM, runs);
	txn_set_ref(&t, vbd, VBD_VDI, vdi);
	txn_set_bool(&t, vbd, VBD_CURRENTLY_ATTACHED, true);
	make_vm(starts, "starts", VM_POWER_STATE_HALTED);
	txn_set_ref(&t, starts, VM_INTENT_HOST, b);
	txn_set_enum(&t, starts, VM_INTENT, VM_INTENT_START);
	make_vm(resumes, "resumes", VM_POWER_STATE_SUSPENDED);
	txn_set_ref(&t, resumes, VM_INTENT_HOST, b);
	/* These are another host's: it settles them itself. */
	make_vm(comes, "comes", VM_POWER_STATE_RUNNING);
	txn_set_ref(&t, comes, VM_RESIDENT_ON, a);
	txn_set_ref(&t, comes, VM_INTENT_HOST, b);
	make_vm(moves, "moves", VM_POWER_STATE_RUNNING);
	txn_set_ref(&t, moves, VM_RESIDENT_ON, a);
	txn_set_ref(&t, moves, VM_MIGRATION_TARGET, b);
	assert_int_equal(apply(), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	txn_fini(&t);
	db_free(db);
	return 0;
}

static const struct row *vm(struct uuid uuid)
{
	return db_row(db, CLASS_VM, uuid);
}

static void is_off(struct uuid uuid, int state)
{
	struct uuid on = db_ref(vm(uuid), VM_RESIDENT_ON);
	struct uuid intent = db_ref(vm(uuid), VM_INTENT_HOST);

	assert_int_equal(db_enum(vm(uuid), VM_POWER_STATE), state);
	assert_true(uuid_is_none(&on) && uuid_is_none(&intent));
	assert_int_equal(db_int(vm(uuid), VM_DOMID), -1);
	assert_int_equal(db_enum(vm(uuid), VM_INTENT), VM_INTENT_NONE);
	/* Neither its domain nor one half made is the owner any more. */
	assert_true(db_int(vm(uuid), VM_OWNER_GENERATION) >= 9);
	assert_int_equal(value_count(row_value(vm(uuid), VM_CURRENT_OPERATIONS)), 0);
}

/* Those that are protected are to be started again, each by a request of its own. */
static void test_protected(void **state)
{
	char account[LOST_WORDS_MAX];
	struct uuid first, second, none;

	(void)state;
	txn_set_enum(&t, runs, VM_HA_RESTART_PRIORITY, VM_RESTART_PRIORITY_RESTART);
	txn_set_enum(&t, starts, VM_HA_RESTART_PRIORITY, VM_RESTART_PRIORITY_BEST_EFFORT);
	assert_int_equal(apply(), 0);
	lost_host_txn(db, db_row(db, CLASS_HOST, b), "root", message, 5, &t, account);
	assert_int_equal(apply(), 0);
	first = db_ref(vm(runs), VM_HA_RESTART_TASK);
	second = db_ref(vm(starts), VM_HA_RESTART_TASK);
	none = db_ref(vm(resumes), VM_HA_RESTART_TASK);
	assert_false(uuid_is_none(&first) || uuid_is_none(&second));
	assert_false(uuid_eq(&first, &second));
	assert_true(uuid_is_none(&none));
}

static void test_host(void **state)
{
	struct uuid none, on;
	char account[LOST_WORDS_MAX];

	(void)state;
	lost_host_txn(db, db_row(db, CLASS_HOST, b), "root", message, 5, &t, account);
	assert_string_equal(
		account, "3 VMs of host beta count as halted: runs, starts, resumes");
	assert_int_equal(apply(), 0);
	is_off(runs, VM_POWER_STATE_HALTED);
	is_off(starts, VM_POWER_STATE_HALTED);
	is_off(resumes, VM_POWER_STATE_SUSPENDED); /* its memory is on disk */
	none = db_ref(db_row(db, CLASS_VDI, vdi), VDI_WRITER);
	assert_true(uuid_is_none(&none));
	assert_false(db_bool(db_row(db, CLASS_VBD, vbd), VBD_CURRENTLY_ATTACHED));
	assert_int_equal(
		db_enum(db_row(db, CLASS_TASK, task), TASK_STATUS), TASK_STATUS_FAILURE);
	assert_int_equal(db_int(vm(comes), VM_OWNER_GENERATION), 7);
	on = db_ref(vm(moves), VM_RESIDENT_ON);
	assert_true(uuid_eq(&on, &a));
	assert_true(db_bool(db_row(db, CLASS_HOST, b), HOST_DECLARED_DEAD));
	assert_non_null(
		strstr(db_string(db_row(db, CLASS_MESSAGE, message), MESSAGE_BODY),
			"dead by root. 3 VMs of host beta"));
	lost_host_back_txn(db_row(db, CLASS_HOST, b), back, &t);
	assert_int_equal(apply(), 0);
	assert_false(db_bool(db_row(db, CLASS_HOST, b), HOST_DECLARED_DEAD));
}

static const struct uuid saves = {{20}}, whole = {{21}}, kept = {{22}},
			 half_image = {{23}}, whole_image = {{24}}, kept_image = {{25}};

static void give_image(struct uuid of, struct uuid image)
{
	txn_create(&t, CLASS_VDI, image);
	txn_set_ref(&t, image, VDI_SR, sr);
	txn_set_enum(&t, image, VDI_TYPE, VDI_TYPE_SUSPEND);
	txn_set_ref(&t, of, VM_SUSPEND_VDI, image);
}

static bool has_image(struct uuid of, struct uuid image)
{
	struct uuid uuid = db_ref(vm(of), VM_SUSPEND_VDI);
	bool there = uuid_eq(&uuid, &image);

	assert_true(there || uuid_is_none(&uuid));
	assert_string_equal(db_string(db_row(db, CLASS_VDI, image), VDI_INTENT),
		there ? "" : VM_VDI_DISCARD);
	return there;
}

/* A VM that counts as halted has no memory anywhere, or it would need that SR wherever it
 * starts, and nobody would ever delete it. */
static void test_images(void **state)
{
	char account[LOST_WORDS_MAX];

	(void)state;
	make_vm(saves, "saves", VM_POWER_STATE_RUNNING);
	txn_set_ref(&t, saves, VM_RESIDENT_ON, b);
	txn_set_ref(&t, saves, VM_INTENT_HOST, b);
	txn_set_enum(&t, saves, VM_INTENT, VM_INTENT_SUSPEND);
	give_image(saves, half_image);
	make_vm(whole, "whole", VM_POWER_STATE_SUSPENDED); /* the domain was to go */
	txn_set_ref(&t, whole, VM_RESIDENT_ON, b);
	txn_set_ref(&t, whole, VM_INTENT_HOST, b);
	txn_set_enum(&t, whole, VM_INTENT, VM_INTENT_SUSPEND);
	give_image(whole, whole_image);
	make_vm(kept, "kept", VM_POWER_STATE_SUSPENDED);
	txn_set_ref(&t, kept, VM_INTENT_HOST, b);
	txn_set_enum(&t, kept, VM_INTENT, VM_INTENT_RESUME);
	give_image(kept, kept_image);
	assert_int_equal(apply(), 0);
	lost_host_txn(db, db_row(db, CLASS_HOST, b), "root", message, 5, &t, account);
	/* Not what was half written: its guest still ran. */
	assert_string_equal(account,
		"6 VMs of host beta count as halted: runs, saves, whole, starts, resumes"
		", kept; the suspended memory of these is deleted, since it may not fit "
		"what is on their disks, so they boot anew: whole");
	assert_int_equal(apply(), 0);
	is_off(saves, VM_POWER_STATE_HALTED);
	is_off(whole, VM_POWER_STATE_HALTED);
	is_off(kept, VM_POWER_STATE_SUSPENDED);
	assert_false(has_image(saves, half_image));
	assert_false(has_image(whole, whole_image));
	assert_true(has_image(kept, kept_image));
}

/* Started again where its disks had been left: what that start has claimed is void, too.
 */
static void test_left_there_and_started(void **state)
{
	char account[LOST_WORDS_MAX];
	struct uuid left;
	int64_t generation;

	(void)state;
	txn_set_ref(&t, starts, VM_DEVICES_LEFT_ON, b);
	assert_int_equal(apply(), 0);
	generation = db_int(vm(starts), VM_OWNER_GENERATION);
	lost_host_txn(db, db_row(db, CLASS_HOST, b), "root", message, 5, &t, account);
	assert_int_equal(apply(), 0);
	left = db_ref(vm(starts), VM_DEVICES_LEFT_ON);
	assert_true(uuid_is_none(&left));
	assert_int_equal(db_int(vm(starts), VM_CLAIMS_VOID), generation + 1);
	assert_int_equal(db_int(vm(starts), VM_OWNER_GENERATION), generation + 2);
}

/* What the host has not released is let go of, too; its claims are void. */
static void test_left_there(void **state)
{
	char account[LOST_WORDS_MAX], key[UUID_TEXT_SIZE];
	struct uuid left;

	(void)state;
	make_vm(back, "halted", VM_POWER_STATE_HALTED);
	txn_set_ref(&t, back, VM_DEVICES_LEFT_ON, b);
	txn_set_ref(&t, vbd, VBD_VM, back);
	txn_map_put(&t, back, VM_GHOSTS, uuid_format(&b, key), "7 halted");
	assert_int_equal(apply(), 0);
	lost_host_txn(db, db_row(db, CLASS_HOST, b), "root", message, 5, &t, account);
	assert_int_equal(apply(), 0);
	left = db_ref(vm(back), VM_DEVICES_LEFT_ON);
	assert_true(uuid_is_none(&left));
	assert_false(db_bool(db_row(db, CLASS_VBD, vbd), VBD_CURRENTLY_ATTACHED));
	assert_int_equal(db_int(vm(back), VM_CLAIMS_VOID), 7);
	assert_int_equal(db_int(vm(back), VM_OWNER_GENERATION), 7);
	assert_int_equal(value_count(row_value(vm(back), VM_GHOSTS)), 0);
	/* Of those that were released by the loss, and what they were about to have. */
	assert_int_equal(db_int(vm(runs), VM_CLAIMS_VOID), 8);
	assert_true(db_int(vm(runs), VM_OWNER_GENERATION) > 8);
}

/* It left that host before the entry's turn: nothing of it is touched. */
static void test_moved_meanwhile(void **state)
{
	struct txn late;

	(void)state;
	(void)vm_lost_txn(db, vm(runs), "why", 5, &t);
	late = t;
	txn_init(&t, db, 1000);
	txn_set_ref(&t, runs, VM_RESIDENT_ON, a);
	txn_set_int(&t, runs, VM_OWNER_GENERATION, 8);
	assert_int_equal(apply(), 0);
	txn_fini(&t);
	t = late;
	assert_int_equal(apply(), RV_ECONFLICT);
	assert_int_equal(db_enum(vm(runs), VM_POWER_STATE), VM_POWER_STATE_RUNNING);
}

static bool is_gone(enum schema_class_id cls, struct uuid uuid)
{
	return !db_row(db, cls, uuid);
}

/* What was being made is undone: nobody else would, and nobody may start it. */
static void test_half_made(void **state)
{
	static const struct uuid origin = {{20}}, clone = {{21}}, metrics = {{22}},
				 half = {{23}}, drive = {{24}}, cd = {{25}}, nic = {{26}},
				 network = {{27}}, making = {{28}}, filled = {{29}},
				 half2 = {{30}}, drive2 = {{31}}, old = {{32}};
	char account[LOST_WORDS_MAX], text[UUID_TEXT_SIZE];

	(void)state;
	txn_create(&t, CLASS_NETWORK, network);
	txn_create(&t, CLASS_TASK, making);
	uuid_format(&making, text);
	make_vm(origin, "origin", VM_POWER_STATE_HALTED);
	txn_map_put(&t, origin, VM_CURRENT_OPERATIONS, text, "clone");
	txn_create(&t, CLASS_VM_METRICS, metrics);
	make_vm(clone, "copy", VM_POWER_STATE_HALTED);
	txn_set_ref(&t, clone, VM_PARENT, origin);
	txn_set_ref(&t, clone, VM_METRICS, metrics);
	txn_map_put(&t, clone, VM_CURRENT_OPERATIONS, text, "clone");
	txn_set_enum(&t, clone, VM_INTENT, VM_INTENT_PROVISION);
	txn_set_ref(&t, clone, VM_INTENT_TASK, making);
	txn_set_ref(&t, clone, VM_INTENT_HOST, b);
	txn_create(&t, CLASS_VDI, half);
	txn_set_ref(&t, half, VDI_SR, sr);
	txn_set_string(&t, half, VDI_INTENT, "make");
	txn_create(&t, CLASS_VBD, drive);
	txn_set_ref(&t, drive, VBD_VM, clone);
	txn_set_ref(&t, drive, VBD_VDI, half);
	txn_create(&t, CLASS_VBD, cd);
	txn_set_ref(&t, cd, VBD_VM, clone);
	txn_set_ref(&t, cd, VBD_VDI, vdi);
	txn_create(&t, CLASS_VIF, nic);
	txn_set_ref(&t, nic, VIF_VM, clone);
	txn_set_ref(&t, nic, VIF_NETWORK, network);
	/* And a template that was being given disks. */
	make_vm(filled, "filled", VM_POWER_STATE_HALTED);
	txn_set_ref(&t, filled, VM_INTENT_HOST, b);
	txn_set_enum(&t, filled, VM_INTENT, VM_INTENT_PROVISION);
	txn_create(&t, CLASS_VDI, half2);
	txn_set_ref(&t, half2, VDI_SR, sr);
	txn_set_string(&t, half2, VDI_INTENT, "make");
	txn_create(&t, CLASS_VBD, drive2);
	txn_set_ref(&t, drive2, VBD_VM, filled);
	txn_set_ref(&t, drive2, VBD_VDI, half2);
	txn_create(&t, CLASS_VBD, old);
	txn_set_ref(&t, old, VBD_VM, filled);
	txn_set_ref(&t, old, VBD_VDI, vdi);
	assert_int_equal(apply(), 0);

	lost_host_txn(db, db_row(db, CLASS_HOST, b), "root", message, 5, &t, account);
	assert_non_null(strstr(account, "; 1 clones that it was making are undone"));
	assert_null(strstr(account, "copy"));
	assert_int_equal(apply(), 0);
	assert_true(is_gone(CLASS_VM, clone) && is_gone(CLASS_VM_METRICS, metrics));
	assert_true(is_gone(CLASS_VBD, drive) && is_gone(CLASS_VBD, cd));
	assert_true(is_gone(CLASS_VIF, nic));
	assert_string_equal(
		db_string(db_row(db, CLASS_VDI, half), VDI_INTENT), "discard");
	assert_string_equal(db_string(db_row(db, CLASS_VDI, vdi), VDI_INTENT), "");
	assert_int_equal(value_count(row_value(vm(origin), VM_CURRENT_OPERATIONS)), 0);
	assert_int_equal(db_enum(db_row(db, CLASS_TASK, making), TASK_STATUS),
		TASK_STATUS_FAILURE);
	is_off(filled, VM_POWER_STATE_HALTED);
	assert_true(is_gone(CLASS_VBD, drive2) && !is_gone(CLASS_VBD, old));
	assert_string_equal(
		db_string(db_row(db, CLASS_VDI, half2), VDI_INTENT), "discard");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_host, setup, teardown),
		cmocka_unit_test_setup_teardown(test_protected, setup, teardown),
		cmocka_unit_test_setup_teardown(test_left_there, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_left_there_and_started, setup, teardown),
		cmocka_unit_test_setup_teardown(test_moved_meanwhile, setup, teardown),
		cmocka_unit_test_setup_teardown(test_half_made, setup, teardown),
		cmocka_unit_test_setup_teardown(test_images, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
