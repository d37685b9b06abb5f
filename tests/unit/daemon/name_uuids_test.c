/* UUIDs in words get their objects' names, once each, and nothing is cut for it. */
#include "daemon/name_uuids.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "applied.h"

#define SR     "0a000000-0000-4000-8000-000000000001"
#define VDI    "0b000000-0000-4000-8000-000000000002"
#define BARE   "0c000000-0000-4000-8000-000000000003"
#define NOBODY "0d000000-0000-4000-8000-000000000004"

static struct uuid id(const char *text)
{
	struct uuid uuid;

	assert_int_equal(uuid_parse(&uuid, text, UUID_TEXT_LEN), 0);
	return uuid;
}

static struct db *objects(const char *vdi_name)
{
	struct db *db = db_new(1);
	struct txn t;

	assert_non_null(db);
	txn_init(&t, db, 0);
	txn_create(&t, CLASS_SR, id(SR));
	txn_set_string(&t, id(SR), SR_NAME_LABEL, "local");
	txn_create(&t, CLASS_VDI, id(VDI));
	txn_set_string(&t, id(VDI), VDI_NAME_LABEL, vdi_name);
	txn_set_ref(&t, id(VDI), VDI_SR, id(SR));
	txn_create(&t, CLASS_VDI, id(BARE));
	txn_set_ref(&t, id(BARE), VDI_SR, id(SR));
	must_apply(db, &t);
	return db;
}

static void names_stand_beside_uuids(void **state)
{
	static const char *const cases[][2] = {
		{"SR " SR ": VDI " VDI " is active",
			"SR " SR " (local): VDI " VDI " (web1 disk 0) is active"},
		{VDI ", " VDI, VDI " (web1 disk 0), " VDI},
		{"VDI " BARE ", " NOBODY ".", "VDI " BARE ", " NOBODY "."},
		{"remove " VDI ".claim, /srv/" VDI " and " VDI "-x",
			"remove " VDI ".claim, /srv/" VDI " and " VDI "-x"},
		{"is at " SR ".", "is at " SR " (local)."},
		{"", ""},
		{"0b000000-0000", "0b000000-0000"},
	};
	struct db *db = objects("web1 disk 0");

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct rv_error e = {0};

		snprintf(e.detail, sizeof e.detail, "%s", cases[i][0]);
		name_uuids(db, &e);
		assert_string_equal(e.detail, cases[i][1]);
	}
	db_free(db);
}

static void nothing_is_cut_for_a_name(void **state)
{
	struct db *db = objects("web1 disk 0");

	(void)state;
	for (size_t room = 0; room < 40; room++) {
		struct rv_error e = {0};
		size_t len = sizeof e.detail - 1 - room;

		memset(e.detail, 'x', len);
		memcpy(e.detail, "VDI " VDI " ", UUID_TEXT_LEN + 5);
		e.detail[len] = '\0';
		name_uuids(db, &e);
		assert_int_equal(strlen(e.detail),
			len + (room >= strlen(" (web1 disk 0)") ? strlen(" (web1 disk 0)")
								: 0));
	}
	db_free(db);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_stand_beside_uuids),
		cmocka_unit_test(nothing_is_cut_for_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
