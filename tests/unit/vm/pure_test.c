/* The reconciler's decisions over all that can be seen, the disks of a template, the
 * header of a suspend image. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "pool/db/txn.h"
#include "vm/vm_disks.h"
#include "vm/vm_image.h"
#include "vm/vm_invariants.h"
#include "vm/vm_protect.h"
#include "vm/vm_told.h"
#include "vm/vm_verdict.h"
#include "tests/unit/daemon/applied.h"

/* --- verdicts --- */

static void check_verdict(const struct vm_seen *s)
{
	struct vm_verdict v = vm_decide(s);

	/* What was begun is never just left. */
	if (s->intent != VM_INTENT_NONE && s->intent != VM_INTENT_MIGRATE &&
		!(s->intent == VM_INTENT_PROVISION && s->kind == VM_OP_CLONE))
		assert_int_not_equal(v.what, VM_KEEP);
	if (v.what != VM_SETTLE)
		return;
	/* Either it has a domain or not; one that is destroyed is not kept. */
	assert_true(v.keep_domain != v.destroy);
	/* A guest that may have run is never resumed from its image again. */
	if (s->intent == VM_INTENT_RESUME && s->recorded && s->found != VM_FOUND_PAUSED &&
		s->found != VM_FOUND_BUILDING)
		assert_true(v.drop_image && v.power_state != VM_POWER_STATE_SUSPENDED);
	/* An image is dropped only when the VM goes on without it. */
	if (v.drop_image)
		assert_int_not_equal(v.power_state, VM_POWER_STATE_SUSPENDED);
	/* A running guest is destroyed only where it can't be the owner. */
	if (s->recorded && s->found == VM_FOUND_RUNNING && v.destroy)
		assert_true(s->power_state == VM_POWER_STATE_HALTED ||
			    s->power_state == VM_POWER_STATE_SUSPENDED || s->leftovers);
	/* What was up, or about to go on, is down only as one that nobody ended: a
	 * protected one is started again. */
	if (v.power_state == VM_POWER_STATE_HALTED && s->power_state != v.power_state &&
		s->intent != VM_INTENT_START)
		assert_true(v.lost || s->ending);
	/* Nor is one that was started, and may have run until somebody was told so. */
	if (s->intent == VM_INTENT_START && s->recorded && s->found == VM_FOUND_NONE)
		assert_true(v.lost);
	/* What was shut down is not started again, however late its domain is gone. */
	if (s->ending && s->intent == VM_INTENT_NONE && s->kind == VM_OP_COUNT &&
		s->found == VM_FOUND_NONE)
		assert_false(v.lost || v.restart);
	/* One that is started again is down. */
	if (v.lost || v.restart)
		assert_true(v.destroy && v.power_state == VM_POWER_STATE_HALTED);
	if (v.rc || v.note)
		assert_non_null(v.why);
}

static void test_every_sight(void **state)
{
	struct vm_seen s;

	(void)state;
	for (int i = 0; i < VM_INTENT_COUNT; i++)
		for (int p = 0; p < VM_POWER_STATE_COUNT; p++)
			for (int k = 0; k <= VM_OP_COUNT; k++)
				for (int f = 0; f <= VM_FOUND_SUSPENDED; f++)
					for (int bits = 0; bits < 512; bits++) {
						s = (struct vm_seen){
							.power_state =
								(enum vm_power_state)p,
							.intent = (enum vm_intent)i,
							.kind = (enum vm_operation)k,
							.found = (enum vm_found)f,
							.recorded = bits & 1,
							.same_boot = bits & 2,
							.advanced = bits & 4,
							.start_paused = bits & 8,
							.preserved = bits & 16,
							.attached = bits & 32,
							.leftovers = bits & 64,
							.ending = bits & 256,
							.after_crash =
								bits & 128
									? VM_AFTER_RESTART
									: VM_AFTER_DESTROY,
						};
						check_verdict(&s);
					}
}

/* Its host is lost while it is being shut down, or something else is done with it. */
static void test_lost_in_the_middle(void **state)
{
	static const struct {
		enum vm_intent intent;
		bool ending, due;
	} cases[] = {
		{VM_INTENT_SHUTDOWN, false, false},
		{VM_INTENT_NONE, true, false},
		{VM_INTENT_REBOOT, false, true},
		{VM_INTENT_SUSPEND, false, true},
		{VM_INTENT_NONE, false, true},
	};
	struct uuid vm = {{1}}, entry = {{2}}, task;
	struct db *db;
	struct txn t;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		db = db_new(1);
		assert_non_null(db);
		txn_init(&t, db, 0);
		txn_create(&t, CLASS_VM, vm);
		txn_set_enum(&t, vm, VM_HA_RESTART_PRIORITY, VM_RESTART_PRIORITY_RESTART);
		txn_set_enum(&t, vm, VM_INTENT, cases[i].intent);
		txn_set_bool(&t, vm, VM_ENDING, cases[i].ending);
		must_apply(db, &t);
		txn_init(&t, db, 0);
		assert_true(vm_restart_due_txn(db_row(db, CLASS_VM, vm), entry, &t) ==
			    cases[i].due);
		must_apply(db, &t);
		task = db_ref(db_row(db, CLASS_VM, vm), VM_HA_RESTART_TASK);
		assert_true(uuid_is_none(&task) != cases[i].due);
		db_free(db);
	}
}

/* --- disks --- */

static void test_disks(void **state)
{
	struct vm_disk d[VM_DISKS_MAX];
	struct rv_error e;
	size_t n;

	(void)state;
	assert_int_equal(vm_disks_parse("", d, &n, &e), 0);
	assert_int_equal(n, 0);
	assert_int_equal(vm_disks_parse("0: size=8GiB, bootable; 1 : size = 20GiB , "
					"format=qcow2,name=data;",
				 d, &n, &e),
		RV_EPARAM); /* blanks around '=' are none of ours */
	assert_int_equal(vm_disks_parse(" 0: size=8GiB, bootable; 3 :size=20GiB , "
					"format=qcow2,name=my data;",
				 d, &n, &e),
		0);
	assert_int_equal(n, 2);
	assert_int_equal(d[0].place, 0);
	assert_true(d[0].bootable && d[0].size == UINT64_C(8) << 30);
	assert_int_equal(d[0].format, VDI_FORMAT_RAW);
	assert_int_equal(d[1].place, 3);
	assert_false(d[1].bootable);
	assert_int_equal(d[1].format, VDI_FORMAT_QCOW2);
	assert_string_equal(d[1].name, "my data");
}

static void test_wrong_disks(void **state)
{
	static const char *const wrong[] = {"0", "0:", "size=1GiB", "x: size=1GiB",
		"-1: size=1GiB", "100: size=1GiB", "0: size=0", "0: size=-1",
		"0: size=1GiB,", "0: size=1GiB; 0: size=1GiB", "0: size=1GiB, colour=red",
		"0: size=1GiB, format=vhd", "0: bootable", "0: size=1GiB, sr=here",
		"0: size=99999999999GiB"};
	struct vm_disk d[VM_DISKS_MAX];
	struct rv_error e;
	size_t n;

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		if (vm_disks_parse(wrong[i], d, &n, &e) == 0)
			fail_msg("accepted: %s", wrong[i]);
		assert_non_null(strstr(e.detail, "other_config:disks"));
	}
	assert_int_equal(
		vm_disks_parse("0: size=1; 1: size=1; 2: size=1; 3: size=1; 4: size=1; "
			       "5: size=1; 6: size=1; 7: size=1; 8: size=1; 9: size=1; "
			       "10: size=1; 11: size=1; 12: size=1; 13: size=1; "
			       "14: size=1; 15: size=1; 16: size=1",
			d, &n, &e),
		RV_ELIMIT);
}

/* --- the image's header --- */

static void test_header(void **state)
{
	static uint8_t bytes[VM_IMAGE_HEADER_BYTES];
	struct uuid vm = {{1, 2, 3}}, other = {{1, 2, 4}};
	uint64_t length, actual, size = 1 << 20;
	bool direct = false;
	struct rv_error e;

	(void)state;
	/* A disk that was never written to the end. */
	assert_int_equal(vm_image_parse(bytes, sizeof bytes, size, vm, &length, &actual,
				 &direct, &e),
		RV_ECORRUPT);
	vm_image_format(bytes, vm, 65536, 4096, true);
	assert_int_equal(vm_image_parse(bytes, sizeof bytes, size, vm, &length, &actual,
				 &direct, &e),
		0);
	assert_true(direct);
	vm_image_format(bytes, vm, 65536, 4096, false);
	assert_int_equal(vm_image_parse(bytes, sizeof bytes, size, vm, &length, &actual,
				 &direct, &e),
		0);
	assert_false(direct);
	assert_int_equal(length, 65536);
	assert_int_equal(actual, 4096);
	assert_int_equal(vm_image_parse(bytes, sizeof bytes, size, other, &length,
				 &actual, &direct, &e),
		RV_ECORRUPT);
	assert_int_equal(
		vm_image_parse(bytes, 40, size, vm, &length, &actual, &direct, &e),
		RV_ECORRUPT);
	assert_int_equal(vm_image_parse(bytes, sizeof bytes, 65536, vm, &length, &actual,
				 &direct, &e),
		RV_ECORRUPT);
	for (int bit = 0; bit < 56 * 8; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(vm_image_parse(bytes, sizeof bytes, size, vm, &length,
					 &actual, &direct, &e),
			RV_ECORRUPT);
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}

/* --- what has been told --- */

static void test_told_once(void **state)
{
	static struct vm_told t;
	struct prng prng;
	struct uuid a, b;

	(void)state;
	prng_seed(&prng, 1);
	a = uuid_random(&prng);
	b = uuid_random(&prng);
	assert_true(vm_told_new(&t, a, "memory used is 17 KiB, the host has 16"));
	assert_false(vm_told_new(&t, a, "memory used is 18 KiB, the host has 16"));
	assert_true(vm_told_new(&t, b, "memory used is 17 KiB, the host has 16"));
	assert_true(vm_told_new(&t, a, "domain 5 has 7 KiB"));
	assert_true(vm_told_new(&t, a, "domain 6 has 7 KiB"));
	assert_true(vm_told_new(&t, a, "VM 1 stays"));
	assert_true(vm_told_new(&t, a, "VM 2 stays"));
	assert_false(vm_told_new(&t, a, "memory used is 1 KiB, the host has 1"));
	vm_told_over(&t, a);
	assert_true(vm_told_new(&t, a, "domain 5 has 7 KiB"));
	assert_false(vm_told_new(&t, b, "memory used is 9 KiB, the host has 16"));
	for (int i = 0; i < 3 * VM_TOLD_MAX; i++)
		assert_true(vm_told_new(&t, uuid_random(&prng), "x"));
	assert_true(t.count == VM_TOLD_MAX);
}

/* People know the verbs that they type, not the names inside. */
static void test_refusals_name_verbs(void **state)
{
	struct vm_condition c = {
		.power_state = VM_POWER_STATE_RUNNING, .current = VM_OP_MIGRATE};
	const int codes[] = {RV_ESTATE, RV_EBUSY, RV_ENOTALLOWED};
	struct rv_error e;

	(void)state;
	for (int op = 0; op < VM_OP_COUNT; op++)
		for (size_t i = 0; i < 3; i++) {
			const char *verb = vm_operation_verb((enum vm_operation)op);

			assert_int_equal(vm_refuse(&c, (enum vm_operation)op, codes[i],
						 "web1", NULL, &e),
				codes[i]);
			assert_non_null(strstr(e.detail, verb));
			assert_null(strchr(e.detail, '_'));
			assert_null(strstr(e.detail, ".plug"));
			if (codes[i] == RV_EBUSY)
				assert_non_null(strstr(e.detail, "vm-migrate"));
		}
}

/* The domain that comes back with a host that was declared dead. */
static void test_stray_in_words(void **state)
{
	const struct uuid a = {{1}}, b = {{2}}, web = {{3}};
	struct hyper_domain domain = {
		.id = {.domid = 7, .generation = 3}, .vm = web, .state = HYPER_RUNNING};
	struct vm_observed seen = {
		.host = a, .seq = UINT64_MAX, .domains = &domain, .domain_count = 1};
	struct db *db = db_new(1);
	const uint8_t *bytes;
	struct db_result r;
	struct rv_error e;
	struct txn t;
	size_t len;

	(void)state;
	txn_init(&t, NULL, 1000);
	txn_create(&t, CLASS_POOL, (struct uuid){{9}});
	txn_create(&t, CLASS_HOST, a);
	txn_set_string(&t, a, HOST_NAME_LABEL, "alpha");
	txn_set_bool(&t, a, HOST_DECLARED_DEAD, true);
	txn_create(&t, CLASS_HOST, b);
	txn_set_string(&t, b, HOST_NAME_LABEL, "beta");
	txn_create(&t, CLASS_VM, web);
	txn_set_string(&t, web, VM_NAME_LABEL, "web1");
	txn_set_ref(&t, web, VM_RESIDENT_ON, b);
	txn_set_int(&t, web, VM_OWNER_GENERATION, 4);
	assert_int_equal(txn_finish(&t, &bytes, &len, &e), 0);
	assert_int_equal(db_apply(db, bytes, len, &r), 0);
	assert_int_equal(r.verdict.code, 0);
	assert_int_equal(vm_invariants_check(db, &seen, 1, &e), RV_EINTERNAL);
	assert_non_null(strstr(e.detail, "VM web1 runs on host alpha as domain 7"));
	assert_non_null(strstr(e.detail, "it is on host beta"));
	assert_non_null(strstr(e.detail, "declared dead"));
	assert_non_null(strstr(e.detail, " domid=7)"));
	txn_fini(&t);
	db_free(db);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_sight),
		cmocka_unit_test(test_lost_in_the_middle),
		cmocka_unit_test(test_disks),
		cmocka_unit_test(test_wrong_disks),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_told_once),
		cmocka_unit_test(test_refusals_name_verbs),
		cmocka_unit_test(test_stray_in_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
