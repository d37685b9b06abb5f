/* What a restore makes of a database that has gone on since the dump. */
#include "daemon/dump_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "pool/db/snapshot.h"
#include "applied.h"

static const struct uuid pool = {{1}}, a = {{2}}, b = {{3}}, web = {{4}}, mail = {{5}},
			 later = {{6}}, sr = {{7}}, disk = {{8}}, drive = {{9}},
			 lan = {{10}}, vif = {{11}}, pbd = {{12}}, task = {{13}},
			 ann = {{14}}, new_disk = {{15}}, other_sr = {{16}}, id = {{17}},
			 message = {{18}}, pbd_b = {{19}}, moved = {{20}};

static struct db *db, *then;
static struct txn t;
static char account[DUMP_WORDS_MAX];
static struct rv_error error;

static int apply(void)
{
	error = applied(db, &t);
	txn_init(&t, db, 1000);
	return error.code;
}

/* A copy, by a snapshot. */
static struct db *copy(void)
{
	struct snapshot_encoder *out = snapshot_encoder_new(db);
	struct snapshot_decoder *in = snapshot_decoder_new(77);
	struct rv_error e = {0};
	struct db *made = NULL;
	struct buf bytes;
	int rc;

	buf_init(&bytes, 64 << 20);
	while ((rc = snapshot_encode(out, &bytes)) == RV_EAGAIN)
		;
	assert_int_equal(rc, 0);
	assert_int_equal(snapshot_decode(in, buf_data(&bytes), buf_len(&bytes), &e), 0);
	while ((rc = snapshot_decode_finish(in, &made, &e)) == RV_EAGAIN)
		;
	assert_int_equal(rc, 0);
	snapshot_encoder_free(out);
	snapshot_decoder_free(in);
	buf_fini(&bytes);
	return made;
}

static void make_vm(struct uuid uuid, const char *name, int64_t generation)
{
	txn_create(&t, CLASS_VM, uuid);
	txn_set_string(&t, uuid, VM_NAME_LABEL, name);
	txn_set_int(&t, uuid, VM_OWNER_GENERATION, generation);
}

static void make_disk(struct uuid uuid, struct uuid where)
{
	txn_create(&t, CLASS_VDI, uuid);
	txn_set_ref(&t, uuid, VDI_SR, where);
}

/* `then` is as of here. */
static int setup(void **state)
{
	(void)state;
	db = db_new(1);
	txn_init(&t, NULL, 1000);
	txn_create(&t, CLASS_POOL, pool);
	txn_set_int(&t, pool, POOL_GENERATION_NUMBER, 3);
	txn_set_string(&t, pool, POOL_NAME_LABEL, "before");
	txn_create(&t, CLASS_HOST, a);
	txn_set_string(&t, a, HOST_NAME_LABEL, "alpha");
	txn_set_string(&t, a, HOST_ADDRESS, "old:1");
	txn_create(&t, CLASS_HOST, b);
	txn_set_ref(&t, pool, POOL_MASTER, a);
	txn_create(&t, CLASS_SR, sr);
	txn_create(&t, CLASS_NETWORK, lan);
	txn_create(&t, CLASS_PBD, pbd);
	txn_set_ref(&t, pbd, PBD_HOST, a);
	txn_set_ref(&t, pbd, PBD_SR, sr);
	txn_create(&t, CLASS_PBD, pbd_b);
	txn_set_ref(&t, pbd_b, PBD_HOST, b);
	txn_set_ref(&t, pbd_b, PBD_SR, sr);
	make_disk(disk, sr);
	make_vm(web, "web", 4);
	make_vm(mail, "mail", 9);
	txn_set_enum(&t, mail, VM_POWER_STATE, VM_POWER_STATE_RUNNING);
	txn_set_ref(&t, mail, VM_RESIDENT_ON, b);
	txn_set_ref(&t, mail, VM_AFFINITY, b);
	txn_create(&t, CLASS_VBD, drive);
	txn_set_ref(&t, drive, VBD_VM, mail);
	txn_set_ref(&t, drive, VBD_VDI, disk);
	txn_set_bool(&t, drive, VBD_CURRENTLY_ATTACHED, true);
	txn_create(&t, CLASS_VIF, vif);
	txn_set_ref(&t, vif, VIF_VM, mail);
	txn_set_ref(&t, vif, VIF_NETWORK, lan);
	txn_create(&t, CLASS_USER, ann);
	assert_int_equal(apply(), 0);
	then = copy();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	txn_fini(&t);
	db_free(then);
	db_free(db);
	return 0;
}

/* The pool goes on: a host leaves, VMs come and go. */
static void go_on(void)
{
	txn_delete(&t, CLASS_VBD, drive);
	txn_delete(&t, CLASS_VIF, vif);
	txn_delete(&t, CLASS_VM, mail);
	txn_delete(&t, CLASS_VDI, disk);
	txn_delete(&t, CLASS_PBD, pbd_b);
	txn_delete(&t, CLASS_USER, ann);
	txn_delete(&t, CLASS_HOST, b);
	txn_set_string(&t, a, HOST_NAME_LABEL, "omega");
	txn_set_string(&t, a, HOST_ADDRESS, "new:2");
	txn_set_string(&t, pool, POOL_NAME_LABEL, "after");
	txn_set_bool(&t, pbd, PBD_CURRENTLY_ATTACHED, true);
	txn_set_string(&t, web, VM_NAME_LABEL, "web-new");
	txn_set_int(&t, web, VM_OWNER_GENERATION, 12);
	make_vm(later, "later", 2);
	make_disk(new_disk, sr);
	txn_create(&t, CLASS_SR, other_sr);
	txn_create(&t, CLASS_TASK, task);
	txn_set_ref(&t, pool, POOL_DEFAULT_SR, other_sr);
	txn_set_ref(&t, a, HOST_SUSPEND_IMAGE_SR, other_sr);
	assert_int_equal(apply(), 0);
}

static int plan(bool other_pool)
{
	rv_error_clear(&error);
	return dump_plan(db, then, other_pool, "ann", id, message, &t, account, &error);
}

static const struct row *row(enum schema_class_id cls, struct uuid uuid)
{
	return db_row(db, cls, uuid);
}

static bool refers(const struct row *r, enum schema_field_id field, struct uuid to)
{
	struct uuid uuid = db_ref(r, field);

	return uuid_eq(&uuid, &to);
}

static void test_goes_back(void **state)
{
	(void)state;
	go_on();
	assert_int_equal(plan(false), 0);
	assert_int_equal(apply(), 0);
	/* What people said is the dump's; where machines are, is not. */
	assert_string_equal(row_name(row(CLASS_POOL, pool)), "before");
	assert_string_equal(row_name(row(CLASS_HOST, a)), "alpha");
	assert_string_equal(db_string(row(CLASS_HOST, a), HOST_ADDRESS), "new:2");
	assert_null(row(CLASS_HOST, b));
	assert_true(refers(db_pool(db), POOL_MASTER, a));
	assert_true(refers(db_pool(db), POOL_DEFAULT_SR, UUID_NONE));
	assert_int_equal(db_int(db_pool(db), POOL_GENERATION_NUMBER), 4);
	assert_true(refers(db_pool(db), POOL_GENERATION_ID, id));
	/* VMs: those of the dump, halted, and no domain of any time owns them. */
	assert_string_equal(row_name(row(CLASS_VM, web)), "web");
	assert_int_equal(db_int(row(CLASS_VM, web), VM_OWNER_GENERATION), 12);
	assert_null(row(CLASS_VM, later));
	assert_int_equal(
		db_enum(row(CLASS_VM, mail), VM_POWER_STATE), VM_POWER_STATE_HALTED);
	assert_true(refers(row(CLASS_VM, mail), VM_RESIDENT_ON, UUID_NONE));
	assert_true(refers(row(CLASS_VM, mail), VM_AFFINITY, UUID_NONE));
	assert_true(db_int(row(CLASS_VM, mail), VM_OWNER_GENERATION) > 1000);
	assert_false(db_bool(row(CLASS_VBD, drive), VBD_CURRENTLY_ATTACHED));
	assert_true(refers(row(CLASS_VBD, drive), VBD_VDI, disk));
	assert_non_null(row(CLASS_VIF, vif));
	assert_non_null(row(CLASS_USER, ann));
	/* Storage: nothing that is there is forgotten, what was destroyed is missing. */
	assert_non_null(row(CLASS_VDI, new_disk));
	assert_non_null(row(CLASS_SR, other_sr));
	assert_true(db_bool(row(CLASS_VDI, disk), VDI_MISSING));
	assert_false(db_bool(row(CLASS_VDI, new_disk), VDI_MISSING));
	assert_true(db_bool(row(CLASS_PBD, pbd), PBD_CURRENTLY_ATTACHED));
	assert_null(row(CLASS_PBD, pbd_b)); /* its host is no member */
	assert_non_null(row(CLASS_TASK, task));
	assert_non_null(row(CLASS_MESSAGE, message));
	assert_non_null(strstr(account, "later"));
	assert_non_null(strstr(account, "Left out"));
}

static void test_again_changes_nothing_more(void **state)
{
	(void)state;
	go_on();
	assert_int_equal(plan(false), 0);
	assert_int_equal(apply(), 0);
	txn_delete(&t, CLASS_MESSAGE, message);
	assert_int_equal(apply(), 0);
	assert_int_equal(plan(false), 0);
	assert_null(strstr(account, "Made"));
	assert_null(strstr(account, "Changed"));
	assert_null(strstr(account, "Forgotten"));
	assert_int_equal(apply(), 0);
	assert_int_equal(db_int(db_pool(db), POOL_GENERATION_NUMBER), 5);
}

static void test_names_what_runs(void **state)
{
	(void)state;
	assert_int_equal(plan(false), RV_ENOTALLOWED); /* mail still runs */
	assert_non_null(strstr(error.detail, "mail"));
	assert_null(strstr(error.detail, "web"));
	txn_fini(&t);
	txn_init(&t, db, 1000);
	txn_set_enum(&t, mail, VM_POWER_STATE, VM_POWER_STATE_HALTED);
	txn_set_ref(&t, mail, VM_RESIDENT_ON, UUID_NONE);
	txn_set_ref(&t, web, VM_INTENT_HOST, a); /* begins to start */
	assert_int_equal(apply(), 0);
	assert_int_equal(plan(false), RV_ENOTALLOWED);
	assert_non_null(strstr(error.detail, "web"));
}

/* Between the plan and its turn in the log. */
static void test_loses_to_a_start(void **state)
{
	struct txn start;

	(void)state;
	go_on();
	assert_int_equal(plan(false), 0);
	txn_init(&start, db, 1000);
	txn_set_ref(&start, web, VM_INTENT_HOST, a);
	must_apply(db, &start);
	assert_int_equal(apply(), RV_ECONFLICT);
	assert_non_null(row(CLASS_VM, later));
}

static void test_another_pool(void **state)
{
	(void)state;
	db_free(then);
	txn_fini(&t);
	db_free(db);
	setup(NULL); /* then: `pool` */
	struct db *former = then;

	txn_fini(&t);
	db_free(db);
	db = db_new(2);
	txn_init(&t, NULL, 1000);
	txn_create(&t, CLASS_POOL, moved);
	txn_set_int(&t, moved, POOL_GENERATION_NUMBER, 1);
	txn_create(&t, CLASS_HOST, other_sr);
	assert_int_equal(apply(), 0);
	then = former;
	assert_int_equal(plan(false), RV_ENOTALLOWED);
	assert_non_null(strstr(error.detail, "before"));
	txn_fini(&t);
	txn_init(&t, db, 1000);
	assert_int_equal(plan(true), 0);
	assert_int_equal(apply(), 0);
	assert_int_equal(db_int(db_pool(db), POOL_GENERATION_NUMBER), 2);
	assert_non_null(row(CLASS_VM, mail));
	assert_null(row(CLASS_HOST, a));
	assert_null(row(CLASS_PBD, pbd));
	/* An id that means something else here. */
	txn_delete(&t, CLASS_VM, mail);
	txn_delete(&t, CLASS_VBD, drive);
	txn_delete(&t, CLASS_VIF, vif);
	assert_int_equal(apply(), 0);
	txn_create(&t, CLASS_SECRET, mail);
	assert_int_equal(apply(), 0);
	assert_int_equal(plan(true), RV_ECORRUPT);
}

/* That it can't be done is said by the plan, before anything is. */
static void test_too_large(void **state)
{
	char text[1001];
	struct uuid vm = {{77}};

	(void)state;
	go_on();
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	for (int i = 0; i < 5000; i++) {
		vm.b[1] = (uint8_t)i;
		vm.b[2] = (uint8_t)(i >> 8);
		make_vm(vm, "many", 1);
		txn_set_string(&t, vm, VM_NAME_DESCRIPTION, text);
		if (i % 1000 == 999)
			assert_int_equal(apply(), 0);
	}
	db_free(then);
	then = copy();
	for (int i = 0; i < 5000; i++) {
		vm.b[1] = (uint8_t)i;
		vm.b[2] = (uint8_t)(i >> 8);
		if (i % 1000 == 0 && i)
			assert_int_equal(apply(), 0);
		/* So many would fit. */
		if (i == 3000)
			assert_int_equal(plan(false), 0);
		if (i == 3000) {
			txn_fini(&t);
			txn_init(&t, db, 1000);
		}
		txn_delete(&t, CLASS_VM, vm);
	}
	assert_int_equal(apply(), 0);
	assert_int_equal(plan(false), RV_ETOOBIG);
	assert_non_null(strstr(error.detail, "nothing was changed"));
	assert_non_null(strstr(error.detail, "4032 KiB at most"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_goes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_again_changes_nothing_more, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_large, setup, teardown),
		cmocka_unit_test_setup_teardown(test_names_what_runs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_loses_to_a_start, setup, teardown),
		cmocka_unit_test_setup_teardown(test_another_pool, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
