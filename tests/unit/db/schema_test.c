/* The schema's promises to itself: what storage and the command line rely on. */
#include "pool/db/schema.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void classes_and_fields_are_sound(void **state)
{
	(void)state;
	for (int i = 1; i < CLASS_COUNT; i++) {
		const struct schema_class *c = schema_class(i);

		assert_ptr_equal(schema_class_by_name(c->name, strlen(c->name)), c);
		assert_ptr_equal(schema_class_by_tag(c->tag), c);
		assert_ptr_equal(schema_class_by_typed(c->name, strlen(c->name)), c);
		assert_true(c->fields[0].key);
		for (int k = 0; k < c->field_count; k++) {
			const struct schema_field *f = &c->fields[k];
			struct value v;

			assert_int_equal(f->cls, c->id);
			assert_int_equal(f->index, k);
			assert_true(k == 0 || f->tag > c->fields[k - 1].tag);
			assert_true(f->since >= 1 && f->since <= SCHEMA_LEVEL);
			assert_true(strlen(f->doc) > 0);
			assert_ptr_equal(schema_field_by_tag(c, f->tag), f);
			assert_ptr_equal(
				schema_field_by_name(c, f->name, strlen(f->name)), f);
			assert_int_equal(schema_initial(f, &v), 0);
			if (!f->enum_texts || strlen(f->initial))
				assert_int_equal(schema_check_value(f, &v, NULL), 0);
			else /* "" has to be a value of the enum */
				assert_true(schema_enum_value(f->enum_texts, "") >= 0);
			value_fini(&v);
		}
		assert_null(schema_field_by_tag(c, 60000));
	}
}

static void refs_are_sound(void **state)
{
	(void)state;
	for (int i = 1; i < FIELD_COUNT; i++) {
		const struct schema_field *f = schema_field(i);

		if (f->ref == REF_BACK) {
			const struct schema_field *from = schema_field(f->backref);

			assert_int_equal(f->ref_class, from->cls);
			assert_int_equal(from->ref_class, f->cls);
			assert_true(from->ref != REF_FREE && from->ref != REF_BACK);
		}
		/* Indexed refs are logged: the index follows from the log alone. */
		if (f->ref != REF_FREE && f->ref != REF_BACK)
			assert_false(f->live);
	}
}

static void people_type_names_their_way(void **state)
{
	const struct schema_class *vm = schema_class(CLASS_VM);

	(void)state;
	assert_ptr_equal(schema_class_by_typed("vm", 2), vm);
	assert_ptr_equal(
		schema_class_by_typed("vm-metrics", 10), schema_class(CLASS_VM_METRICS));
	assert_int_equal(
		schema_field_by_typed(vm, "power-state", 11)->id, VM_POWER_STATE);
	assert_int_equal(
		schema_field_by_typed(vm, "hvm-boot-policy", 15)->id, VM_HVM_BOOT_POLICY);
	assert_int_equal(schema_field_by_typed(vm, "VCPUs-max", 9)->id, VM_VCPUS_MAX);
	assert_null(schema_field_by_typed(vm, "power-stat", 10));
	assert_null(schema_field_by_typed(vm, "power-states", 12));
}

static void methods_are_found(void **state)
{
	(void)state;
	for (int i = 1; i < METHOD_COUNT; i++) {
		const struct schema_method *m = schema_method(i);
		char name[96];

		snprintf(name, sizeof name, "%s.%s", m->group, m->name);
		assert_ptr_equal(schema_method_by_name(name, strlen(name)), m);
		for (int k = 0; k < m->arg_count; k++)
			assert_ptr_equal(schema_arg_by_name(m, m->args[k].name,
						 strlen(m->args[k].name)),
				&m->args[k]);
	}
	assert_int_equal(schema_method_by_name("VM.start", 8)->id, METHOD_VM_START);
	assert_int_equal(schema_method_by_name("VM.start", 8)->mode, MODE_TASK);
	assert_true(schema_method(METHOD_USER_CREATE)->args[1].secret);
	assert_null(schema_method_by_name("VM.star", 7));
	assert_null(schema_method_by_name("VMstart", 7));
	assert_null(schema_method_by_name("session.start", 13));
	assert_null(schema_method_by_name("event.logout", 12));
	assert_null(schema_method_by_name(".", 1));
}

static void enums_agree(void **state)
{
	const struct schema_field *f = schema_field(VM_POWER_STATE);

	(void)state;
	assert_string_equal(
		schema_enum_text(f->enum_texts, VM_POWER_STATE_SUSPENDED), "Suspended");
	assert_int_equal(
		schema_enum_value(f->enum_texts, "Running"), VM_POWER_STATE_RUNNING);
	assert_int_equal(schema_enum_value(f->enum_texts, "running"), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(classes_and_fields_are_sound),
		cmocka_unit_test(refs_are_sound),
		cmocka_unit_test(people_type_names_their_way),
		cmocka_unit_test(methods_are_found),
		cmocka_unit_test(enums_agree),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
