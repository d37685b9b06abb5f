/* Applying entries: effects, expectations, references, verdicts, records. */
#include "world.h"

#include "pool/db/changes.h"

static int setup(void **state)
{
	*state = db_new(1);
	return *state == NULL;
}

static int teardown(void **state)
{
	db_free(*state);
	return 0;
}

static void creates_with_defaults(void **state)
{
	struct db *db = *state;
	struct db_hash before = db_hash(db);
	const struct row *vm;

	make(db, CLASS_VM, 1, "web1");
	vm = db_row(db, CLASS_VM, nth(1));
	assert_non_null(vm);
	assert_string_equal(db_string(vm, VM_NAME_LABEL), "web1");
	assert_int_equal(db_enum(vm, VM_POWER_STATE), VM_POWER_STATE_HALTED);
	assert_int_equal(db_int(vm, VM_MEMORY_STATIC_MAX), 256 << 20);
	assert_int_equal(db_int(vm, VM_DOMID), -1);
	assert_null(db_row(db, CLASS_HOST, nth(1)));
	assert_ptr_equal(db_row_any(db, nth(1)), vm);
	assert_int_equal(db_seq(db), 1);
	assert_int_equal(db_wall_ms(db), 1000);
	assert_int_equal(row_seq(vm), 1);
	assert_true(db_hash(db).lo != before.lo);
	assert_int_equal(db_count(db, CLASS_VM), 1);
}

static void old_versions_stay_as_they_were(void **state)
{
	struct db *db = *state;
	const struct row *old, *now;
	struct txn t;

	make(db, CLASS_VM, 1, "web1");
	old = row_hold(db_row(db, CLASS_VM, nth(1)));
	txn_init(&t, db, 0);
	txn_set_string(&t, nth(1), VM_NAME_LABEL, "web2");
	txn_set_add(&t, nth(1), VM_TAGS, "x");
	txn_map_put(&t, nth(1), VM_OTHER_CONFIG, "k", "v");
	assert_int_equal(run(db, &t, NULL), 0);
	now = db_row(db, CLASS_VM, nth(1));
	assert_string_equal(db_string(old, VM_NAME_LABEL), "web1");
	assert_string_equal(db_string(now, VM_NAME_LABEL), "web2");
	assert_true(value_set_has(row_value(now, VM_TAGS), "x"));
	assert_false(value_set_has(row_value(old, VM_TAGS), "x"));
	assert_string_equal(db_map_get(now, VM_OTHER_CONFIG, "k"), "v");
	assert_null(db_by_name(db, CLASS_VM, "web1", NULL));
	assert_ptr_equal(db_by_name(db, CLASS_VM, "web2", NULL), now);
	txn_init(&t, db, 0);
	txn_delete(&t, CLASS_VM, nth(1));
	assert_int_equal(run(db, &t, NULL), 0);
	assert_string_equal(db_string(old, VM_NAME_LABEL), "web1");
	row_release(old);
	assert_int_equal(db_hash(db).lo, 0);
	assert_int_equal(db_hash(db).hi, 0);
}

static void names_may_be_borne_by_several(void **state)
{
	struct db *db = *state;
	unsigned count;
	const struct row *row;

	for (unsigned i = 1; i <= 100; i++)
		make(db, CLASS_VM, i, i % 2 ? "odd" : "even");
	make(db, CLASS_SR, 200, "odd");
	row = db_by_name(db, CLASS_VM, "odd", &count);
	assert_int_equal(count, 50);
	for (unsigned i = 0; i < 50; i++, row = db_next_name(db, row)) {
		assert_non_null(row);
		assert_string_equal(row_name(row), "odd");
	}
	assert_null(row);
	db_by_name(db, CLASS_SR, "odd", &count);
	assert_int_equal(count, 1);
	assert_null(db_by_name(db, CLASS_VM, "", &count));
	assert_int_equal(count, 0);
}

static void unmet_expectations_change_nothing(void **state)
{
	struct db *db = *state;
	struct db_result r;
	struct db_hash before;
	struct txn t;

	make(db, CLASS_HOST, 2, "h1");
	make(db, CLASS_VM, 1, "web1");
	before = db_hash(db);
	txn_init(&t, db, 0);
	txn_expect_exists(&t, CLASS_HOST, nth(2));
	txn_expect_enum(&t, nth(1), VM_POWER_STATE, VM_POWER_STATE_RUNNING);
	txn_set_ref(&t, nth(1), VM_RESIDENT_ON, nth(2));
	assert_int_equal(run(db, &t, &r), RV_ECONFLICT);
	assert_int_equal(r.failed_expect, 1);
	assert_string_equal(r.verdict.detail,
		"VM web1: power_state is \"Halted\", expected \"Running\"");
	assert_int_equal(r.seq, 3);
	assert_int_equal(db_seq(db), 3);
	assert_int_equal(db_hash(db).lo, before.lo);
	assert_null(db_next_ref(db, VM_RESIDENT_ON, nth(2), NULL));
}

/* Nor do the words of the refusal tell what is kept secret. */
static void secrets_are_not_told(void **state)
{
	struct db *db = *state;
	struct db_result r;
	struct txn t;

	txn_init(&t, db, 0);
	txn_create(&t, CLASS_POOL, nth(1));
	txn_set_string(&t, nth(1), POOL_CA_KEY, "hidden");
	txn_map_put(&t, nth(1), POOL_JOIN_TOKENS, "digest", "hidden");
	assert_int_equal(run(db, &t, NULL), 0);
	for (int i = 0; i < 4; i++) {
		txn_init(&t, db, 0);
		if (i == 0)
			txn_expect_string(&t, nth(1), POOL_CA_KEY, "guessed");
		else if (i == 1)
			txn_expect_key(&t, nth(1), POOL_JOIN_TOKENS, "digest", "guessed");
		else if (i == 2)
			txn_expect_key(&t, nth(1), POOL_JOIN_TOKENS, "guessed", "1");
		else
			txn_expect_value(&t, nth(1), POOL_JOIN_TOKENS,
				row_value(db_row(db, CLASS_POOL, nth(1)),
					POOL_OTHER_CONFIG));
		txn_set_string(&t, nth(1), POOL_NAME_LABEL, "changed");
		assert_int_equal(run(db, &t, &r), RV_ECONFLICT);
		assert_null(strstr(r.verdict.detail, "hidden"));
		assert_null(strstr(r.verdict.detail, "digest"));
		assert_null(strstr(r.verdict.detail, "guessed"));
	}
}

static void each_expectation_can_fail(void **state)
{
	struct db *db = *state;
	struct txn t;

	make(db, CLASS_VM, 1, "web1");
	txn_init(&t, db, 0);
	txn_map_put(&t, nth(1), VM_CURRENT_OPERATIONS, "task", "start");
	assert_int_equal(run(db, &t, NULL), 0);
#define CHECK(code, call)                                                                \
	do {                                                                             \
		txn_init(&t, db, 0);                                                     \
		call;                                                                    \
		assert_int_equal(run(db, &t, NULL), code);                               \
	} while (0)
	CHECK(0, txn_expect_exists(&t, CLASS_VM, nth(1)));
	CHECK(RV_ECONFLICT, txn_expect_exists(&t, CLASS_SR, nth(1)));
	CHECK(RV_ECONFLICT, txn_expect_absent(&t, CLASS_VM, nth(1)));
	CHECK(0, txn_expect_absent(&t, CLASS_VM, nth(9)));
	CHECK(RV_EEXIST, txn_expect_name_free(&t, CLASS_VM, "web1"));
	CHECK(0, txn_expect_name_free(&t, CLASS_HOST, "web1"));
	CHECK(0, txn_expect_unset(&t, nth(1), VM_RESIDENT_ON));
	CHECK(RV_ECONFLICT, txn_expect_unset(&t, nth(1), VM_CURRENT_OPERATIONS));
	CHECK(0, txn_expect_key_absent(&t, nth(1), VM_CURRENT_OPERATIONS, "other"));
	CHECK(RV_ECONFLICT,
		txn_expect_key_absent(&t, nth(1), VM_CURRENT_OPERATIONS, "task"));
	CHECK(0, txn_expect_key(&t, nth(1), VM_CURRENT_OPERATIONS, "task", NULL));
	CHECK(0, txn_expect_key(&t, nth(1), VM_CURRENT_OPERATIONS, "task", "start"));
	CHECK(RV_ECONFLICT,
		txn_expect_key(&t, nth(1), VM_CURRENT_OPERATIONS, "task", "stop"));
	CHECK(RV_ECONFLICT,
		txn_expect_key(&t, nth(1), VM_CURRENT_OPERATIONS, "other", NULL));
	CHECK(RV_ECONFLICT, txn_expect_int(&t, nth(9), VM_OWNER_GENERATION, 0));
	CHECK(0, txn_expect_int(&t, nth(1), VM_OWNER_GENERATION, 0));
	CHECK(RV_ECONFLICT, txn_expect_int(&t, nth(1), VM_OWNER_GENERATION, 1));
	CHECK(RV_ECONFLICT, txn_expect_not(&t, nth(1), VM_OWNER_GENERATION,
				    &(struct value){.type = VALUE_INT}));
#undef CHECK
}

static void owners_are_needed_and_kept(void **state)
{
	struct db *db = *state;
	struct db_result r;
	struct txn t;

	make(db, CLASS_VM, 1, "web1");
	txn_init(&t, db, 0);
	txn_create(&t, CLASS_VBD, nth(2));
	assert_int_equal(run(db, &t, &r), RV_EPARAM);
	txn_init(&t, db, 0);
	txn_create(&t, CLASS_VBD, nth(2));
	txn_set_ref(&t, nth(2), VBD_VM, nth(77));
	assert_int_equal(run(db, &t, &r), RV_ENOENT);
	txn_init(&t, db, 0);
	txn_create(&t, CLASS_VBD, nth(2));
	txn_set_ref(&t, nth(2), VBD_VM, nth(1));
	txn_create(&t, CLASS_VBD, nth(3));
	txn_set_ref(&t, nth(3), VBD_VM, nth(1));
	assert_int_equal(run(db, &t, &r), 0);
	assert_int_equal(r.changed, 2);
	txn_init(&t, db, 0);
	txn_delete(&t, CLASS_VBD, nth(2));
	txn_delete(&t, CLASS_VM, nth(1));
	assert_int_equal(run(db, &t, &r), RV_EBUSY);
	assert_non_null(strstr(r.verdict.detail, "VM web1 is in use: VBD "));
	assert_int_equal(db_count(db, CLASS_VBD), 2);
	txn_init(&t, db, 0);
	txn_delete(&t, CLASS_VBD, nth(2));
	txn_delete(&t, CLASS_VM, nth(1));
	txn_delete(&t, CLASS_VBD, nth(3));
	assert_int_equal(run(db, &t, &r), 0);
	assert_int_equal(r.changed, 3);
	assert_int_equal(db_count(db, CLASS_VM) + db_count(db, CLASS_VBD), 0);
}

static void weak_refs_are_cleared(void **state)
{
	struct db *db = *state;
	struct db_result r;
	struct uuid none;
	struct txn t;

	make(db, CLASS_HOST, 2, "h1");
	make(db, CLASS_VM, 1, "web1");
	txn_init(&t, db, 0);
	txn_set_ref(&t, nth(1), VM_AFFINITY, nth(2));
	assert_int_equal(run(db, &t, &r), 0);
	txn_init(&t, db, 0);
	txn_delete(&t, CLASS_HOST, nth(2));
	assert_int_equal(run(db, &t, &r), 0);
	assert_int_equal(r.changed, 2);
	none = db_ref(db_row(db, CLASS_VM, nth(1)), VM_AFFINITY);
	assert_true(uuid_is_none(&none));
	/* A ref to what the same entry deletes is refused, not cleared. */
	make(db, CLASS_HOST, 3, "h2");
	txn_init(&t, db, 0);
	txn_delete(&t, CLASS_HOST, nth(3));
	txn_set_ref(&t, nth(1), VM_AFFINITY, nth(3));
	assert_int_equal(run(db, &t, &r), RV_ENOENT);
}

static void lists_follow_the_order_of_creation(void **state)
{
	struct db *db = *state;
	const struct row *row = NULL;
	struct value back;
	struct txn t;

	make(db, CLASS_HOST, 50, "h1");
	for (unsigned i = 1; i <= 9; i++)
		make(db, CLASS_VM, i, "vm");
	for (unsigned i = 9; i >= 1; i--) {
		txn_init(&t, db, 0);
		txn_set_ref(&t, nth(i), VM_RESIDENT_ON, nth(50));
		assert_int_equal(run(db, &t, NULL), 0);
	}
	for (unsigned i = 1; i <= 9; i++) {
		struct uuid uuid = nth(i), is;

		row = db_next_ref(db, VM_RESIDENT_ON, nth(50), row);
		assert_non_null(row);
		is = row_uuid(row);
		assert_true(uuid_eq(&is, &uuid));
	}
	assert_null(db_next_ref(db, VM_RESIDENT_ON, nth(50), row));
	assert_int_equal(db_backrefs(db, db_row(db, CLASS_HOST, nth(50)),
				 HOST_RESIDENT_VMS, &back),
		0);
	assert_int_equal(value_count(&back), 9);
	value_fini(&back);
}

/* The record's field as an object; the unpacked holds its memory. */
static const msgpack_object *record_field(
	struct db *db, struct uuid uuid, const char *name, msgpack_unpacked *u)
{
	size_t len;
	const uint8_t *bytes = db_record(db, db_row_any(db, uuid), &len);

	assert_non_null(bytes);
	assert_int_equal(msgpack_unpack_next(u, (const char *)bytes, len, NULL),
		MSGPACK_UNPACK_SUCCESS);
	for (uint32_t i = 0; i < u->data.via.map.size; i++) {
		const msgpack_object_kv *kv = &u->data.via.map.ptr[i];

		if (kv->key.via.str.size == strlen(name) &&
			memcmp(kv->key.via.str.ptr, name, strlen(name)) == 0)
			return &kv->val;
	}
	return NULL;
}

static void records_show_what_is(void **state)
{
	struct db *db = *state;
	msgpack_unpacked u;
	const msgpack_object *o;
	struct txn t;

	msgpack_unpacked_init(&u);
	make(db, CLASS_VM, 1, "web1");
	o = record_field(db, nth(1), "VBDs", &u);
	assert_int_equal(o->via.array.size, 0);
	txn_init(&t, db, 0);
	txn_create(&t, CLASS_VBD, nth(2));
	txn_set_ref(&t, nth(2), VBD_VM, nth(1));
	assert_int_equal(run(db, &t, NULL), 0);
	o = record_field(db, nth(1), "VBDs", &u); /* made anew: a VBD names it now */
	assert_int_equal(o->via.array.size, 1);
	assert_int_equal(o->via.array.ptr[0].via.str.size, 36);
	assert_int_equal(db_set_live_int(db, nth(1), VM_MEMORY_TARGET, 5), 0);
	o = record_field(db, nth(1), "memory_target", &u);
	assert_int_equal(o->via.u64, 5);
	o = record_field(db, nth(1), "resident_on", &u);
	assert_int_equal(o->type, MSGPACK_OBJECT_STR);
	assert_int_equal(o->via.str.size, 0);
	assert_int_equal(record_field(db, nth(1), "uuid", &u)->via.str.size, 36);
	make(db, CLASS_USER, 3, "root");
	assert_null(record_field(db, nth(3), "password_hash", &u));
	assert_non_null(record_field(db, nth(3), "role", &u));
	msgpack_unpacked_destroy(&u);
}

static void live_fields_are_outside_the_log(void **state)
{
	struct db *db = *state;
	struct db_hash before;
	struct rv_error e;
	struct txn t;

	make(db, CLASS_VM, 1, "web1");
	before = db_hash(db);
	assert_int_equal(db_set_live_int(db, nth(1), VM_MEMORY_TARGET, 5), 0);
	assert_int_equal(db_set_live_float(db, nth(1), VM_CPU_UTILISATION, 0.5), 0);
	assert_int_equal(db_set_live_int(db, nth(9), VM_MEMORY_TARGET, 5), RV_ENOENT);
	assert_int_equal(db_hash(db).lo, before.lo);
	txn_init(&t, db, 0);
	txn_set_string(&t, nth(1), VM_NAME_LABEL, "web2");
	assert_int_equal(run(db, &t, NULL), 0);
	assert_int_equal(db_int(db_row_any(db, nth(1)), VM_MEMORY_TARGET), 5);
	txn_init(&t, db, 0);
	txn_set_int(&t, nth(1), VM_MEMORY_TARGET, 6);
	assert_int_equal(
		txn_finish(&t, &(const uint8_t *){NULL}, &(size_t){0}, &e), RV_EPARAM);
	txn_fini(&t);
}

static void wrong_values_are_refused(void **state)
{
	struct db *db = *state;
	struct rv_error e;
	struct txn t;
	char name[300];

	make(db, CLASS_VM, 1, "web1");
	memset(name, 'n', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	txn_init(&t, db, 0);
	txn_set_string(&t, nth(1), VM_NAME_LABEL, name);
	txn_set_string(&t, nth(1), VM_NAME_DESCRIPTION, "fine");
	assert_int_equal(run(db, &t, NULL), RV_EPARAM);
	txn_init(&t, db, 0);
	txn_set_string(&t, nth(1), VM_POWER_STATE, "Dancing");
	assert_int_equal(
		txn_finish(&t, &(const uint8_t *){NULL}, &(size_t){0}, &e), RV_EPARAM);
	assert_non_null(strstr(e.detail, "power_state can't be \"Dancing\""));
	txn_fini(&t);
	txn_init(&t, db, 0);
	txn_create(&t, CLASS_HOST, nth(1));
	assert_int_equal(run(db, &t, NULL), RV_EEXIST);
	txn_init(&t, db, 0);
	txn_set_bool(&t, nth(8), VM_IS_A_TEMPLATE, true);
	assert_int_equal(run(db, &t, NULL), RV_ENOENT);
}

static void there_is_one_pool_and_its_level_rises(void **state)
{
	struct db *db = *state;
	struct db_result r;
	const uint8_t *entry;
	struct rv_error e;
	struct txn t;
	size_t len;

	assert_int_equal(db_level(db), 1);
	make(db, CLASS_POOL, 1, "p");
	txn_init(&t, db, 0);
	txn_create(&t, CLASS_POOL, nth(2));
	assert_int_equal(run(db, &t, NULL), RV_EEXIST);
	/* The entry of a newer version stops this one, with nothing counted. */
	txn_init(&t, db, 0);
	txn_set_int(&t, nth(1), POOL_LEVEL, SCHEMA_LEVEL + 1);
	assert_int_equal(txn_finish(&t, &entry, &len, &e), 0);
	assert_int_equal(db_apply(db, entry, len, &r), RV_EUNSUPPORTED);
	assert_non_null(strstr(r.verdict.detail, "update its software"));
	assert_int_equal(db_seq(db), 2);
	txn_fini(&t);
	txn_init(&t, db, 0);
	txn_set_int(&t, nth(1), POOL_LEVEL, 0);
	assert_int_equal(run(db, &t, NULL), RV_EPARAM);
}

static void hosts_compare_hashes(void **state)
{
	struct db *a = *state, *b = db_new(2);
	struct db_result r;
	const uint8_t *entry;
	struct rv_error e;
	struct txn t;
	size_t len;

	make(a, CLASS_VM, 1, "web1");
	make(b, CLASS_VM, 1, "web2");
	txn_init(&t, a, 0);
	txn_check_hash(&t, a);
	make(a, CLASS_VM, 2, "between");
	make(b, CLASS_VM, 2, "between");
	assert_int_equal(txn_finish(&t, &entry, &len, &e), 0);
	assert_int_equal(db_apply(a, entry, len, &r), 0);
	assert_int_equal(r.checked_seq, 1);
	assert_false(r.differs);
	assert_int_equal(db_apply(b, entry, len, &r), 0);
	assert_int_equal(r.checked_seq, 1);
	assert_true(r.differs);
	txn_fini(&t);
	db_free(b);
}

static void large_rows_are_refused(void **state)
{
	struct db *db = *state;
	char *large = malloc(60001), key[16];
	struct txn t;
	int rc = 0;

	memset(large, 'x', 60000);
	large[60000] = '\0';
	make(db, CLASS_VM, 1, "web1");
	for (int i = 0; i < 20 && rc == 0; i++) {
		txn_init(&t, db, 0);
		snprintf(key, sizeof key, "%d", i);
		txn_map_put(&t, nth(1), VM_OTHER_CONFIG, key, large);
		rc = run(db, &t, NULL);
	}
	assert_int_equal(rc, RV_ETOOBIG);
	assert_int_equal(value_count(row_value(db_row_any(db, nth(1)), VM_OTHER_CONFIG)),
		DB_MAX_ROW_BYTES / 60010);
	free(large);
}

static void many_come_and_go(void **state)
{
	struct db *db = *state;
	struct txn t;

	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 1; i <= 1000; i++)
			make(db, CLASS_MESSAGE, i, NULL);
		assert_int_equal(db_count(db, CLASS_MESSAGE), 1000);
		for (unsigned i = 1; i <= 1000; i++) {
			txn_init(&t, db, 0);
			txn_delete(&t, CLASS_MESSAGE, nth(i));
			assert_int_equal(run(db, &t, NULL), 0);
		}
		assert_null(db_next(db, CLASS_MESSAGE, NULL));
		assert_int_equal(db_hash(db).lo, 0);
	}
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(creates_with_defaults),
		TEST(old_versions_stay_as_they_were),
		TEST(names_may_be_borne_by_several),
		TEST(unmet_expectations_change_nothing),
		TEST(secrets_are_not_told),
		TEST(each_expectation_can_fail),
		TEST(owners_are_needed_and_kept),
		TEST(weak_refs_are_cleared),
		TEST(lists_follow_the_order_of_creation),
		TEST(records_show_what_is),
		TEST(live_fields_are_outside_the_log),
		TEST(wrong_values_are_refused),
		TEST(there_is_one_pool_and_its_level_rises),
		TEST(hosts_compare_hashes),
		TEST(large_rows_are_refused),
		TEST(many_come_and_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
