/* No number that users may set goes unchecked: a field or a parameter that is new has to
 * get bounds, or be named here as one that its method checks by itself. */
#include "daemon/ranges.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Checked where they are used; tests/system/objects.py has these refused. */
static const char *const own[] = {
	"VM.memory_static_min", "VM.memory_dynamic_min", "VM.memory_dynamic_max",
	"VM.memory_static_max", "VM.VCPUs_max", "VM.VCPUs_at_startup", "VDI.virtual_size",
	"pool.issue_join_token ttl_ms", "pool.database_dump position",
	"pool.database_upload position", "host.ghost_destroy domid", "VM.adopt domid",
	"VM.migrate max_downtime_ms", "VM.migrate bandwidth",
	"VM.console_read timeout_ms", "VM.set_memory_dynamic_range min",
	"VM.set_memory_dynamic_range max", "VM.set_memory_static_range min",
	"VM.set_memory_static_range max", "VM.set_memory_limits static_min",
	"VM.set_memory_limits static_max", "VM.set_memory_limits dynamic_min",
	"VM.set_memory_limits dynamic_max", "VM.set_VCPUs max", "VM.set_VCPUs at_startup",
	"VDI.resize size", "task.wait timeout_ms", "message.create priority",
	"event.from timeout_ms",
	/* classes that nobody can make objects of yet */
	"PIF.MTU", "PIF.VLAN", "VLAN.tag",
	"message.priority", /* message.create takes no record */
};

static bool is_own(const char *name)
{
	for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
		if (strcmp(own[i], name) == 0)
			return true;
	return false;
}

static void check(const char *name, int rc, const struct rv_error *e)
{
	if (is_own(name)) {
		assert_int_equal(rc, 0);
		return;
	}
	if (rc != RV_EINVAL)
		fail_msg("%s may be -5", name);
	if (!strstr(e->detail, ": -5"))
		fail_msg("%s: the words do not say what was given: %s", name, e->detail);
}

static void fields_have_bounds(void **state)
{
	const struct value v = value_int(-5);

	(void)state;
	for (int i = FIELD_NONE + 1; i < FIELD_COUNT; i++) {
		const struct schema_field *f = schema_field((enum schema_field_id)i);
		struct rv_error e = {0};
		char name[128];

		if (f->type != VALUE_INT || f->writer == WRITER_SYSTEM)
			continue;
		snprintf(name, sizeof name, "%s.%s", schema_class(f->cls)->name, f->name);
		check(name, range_field(f, &v, &e), &e);
	}
}

static void parameters_have_bounds(void **state)
{
	const struct value v = value_int(-5);

	(void)state;
	for (int i = METHOD_NONE + 1; i < METHOD_COUNT; i++) {
		const struct schema_method *m = schema_method((enum schema_method_id)i);

		for (int j = 0; j < m->arg_count; j++) {
			struct rv_error e = {0};
			char name[128];

			if (m->args[j].type != VALUE_INT)
				continue;
			snprintf(name, sizeof name, "%s.%s %s", m->group, m->name,
				m->args[j].name);
			check(name, range_arg(m, &m->args[j], &v, &e), &e);
		}
	}
}

static void bounds_are_told(void **state)
{
	static const struct {
		enum schema_field_id field;
		int64_t n;
		const char *words; /* NULL: taken */
	} cases[] = {
		{NETWORK_MTU, 575,
			"MTU: 575 is not within 576 and 65517: the least that"},
		{NETWORK_MTU, 576, NULL},
		{NETWORK_MTU, 65517, NULL},
		{NETWORK_MTU, 65518, "MTU: 65518 is not within 576 and 65517"},
		{NETWORK_MTU, 0, "MTU: 0 is not"},
		{POOL_LEASE_MS, 5, "lease-ms: 5 ms is not within 5000 and 120000 ms"},
		{POOL_MIGRATION_BANDWIDTH, -1, "migration-bandwidth: -1 is less than 0"},
		{POOL_MIGRATION_BANDWIDTH, INT64_MAX, NULL},
		{VM_ORDER, INT64_MIN, "order: -9223372036854775808 is not within 0 and"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		const struct value v = value_int(cases[i].n);
		struct rv_error e = {0};
		int rc = range_field(schema_field(cases[i].field), &v, &e);

		assert_int_equal(rc, cases[i].words ? RV_EINVAL : 0);
		if (cases[i].words && !strstr(e.detail, cases[i].words))
			fail_msg("\"%s\" is not in \"%s\"", cases[i].words, e.detail);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_have_bounds),
		cmocka_unit_test(parameters_have_bounds),
		cmocka_unit_test(bounds_are_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
