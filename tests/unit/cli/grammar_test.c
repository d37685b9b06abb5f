/* What was typed: words, names, the nearest one, commands and their keys. */
#include "cli/words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cli/command.h"
#include "cli/name.h"

#define PARSE(w, e, ...)                                                                 \
	words_parse(w, sizeof((char *[]){__VA_ARGS__}) / sizeof(char *),                 \
		(char *[]){__VA_ARGS__}, e)

static void words_come_apart(void **state)
{
	struct rv_error e = {0};
	struct words w;
	struct word *word;
	int at = 0;

	(void)state;
	assert_int_equal(PARSE(&w, &e, "--url", "ipc:///x", "vm-create", "Name_Label=a=b",
				 "other-config:x:y=1", "other-config:z=", "--json",
				 "--live", "--on=h", "plain", "--timeout=2s", "=odd"),
		0);
	assert_string_equal(w.command, "vm-create");
	assert_string_equal(w.url, "ipc:///x");
	assert_true(w.json && !w.minimal);
	assert_int_equal(w.timeout_ms, 2000);
	assert_string_equal(words_take(&w, "name-label"), "a=b");
	assert_null(words_take(&w, "name-label"));
	assert_null(words_take(&w, "other-config"));
	word = words_next(&w, "other_config", &at);
	assert_true(word->sub_len == 3 && memcmp(word->sub, "x:y", 3) == 0);
	assert_string_equal(word->value, "1");
	word->used = true;
	word = words_next(&w, "other_config", &at);
	assert_string_equal(word->value, "");
	word->used = true;
	assert_null(words_next(&w, "other_config", &at));
	assert_string_equal(words_take(&w, "live"), "true");
	assert_string_equal(words_take(&w, "on"), "h");
	assert_string_equal(words_plain(&w), "plain");
	assert_string_equal(words_plain(&w), "=odd");
	assert_null(words_unused(&w));
	words_fini(&w);
}

static void options_are_checked(void **state)
{
	struct rv_error e = {0};
	struct words w;

	(void)state;
	assert_int_equal(PARSE(&w, &e, "vm-list", "--url"), RV_EINVAL);
	assert_string_equal(e.detail, "--url needs a value: --url=…");
	words_fini(&w);
	assert_int_equal(PARSE(&w, &e, "vm-list", "--json=1"), RV_EINVAL);
	words_fini(&w);
	assert_int_equal(PARSE(&w, &e, "vm-list", "--timeout=0"), RV_EINVAL);
	words_fini(&w);
	assert_int_equal(words_parse(&w, 0, NULL, &e), 0);
	assert_null(w.command);
	words_fini(&w);
}

static void names_fold(void **state)
{
	char text[8];

	(void)state;
	assert_true(name_is("vm_METRICS", 10, "VM-metrics"));
	assert_false(name_is("vm", 2, "vms"));
	assert_false(name_is("vms", 3, "vm"));
	assert_string_equal(name_typed("VCPUs_max", false, text, sizeof text), "VCPUs-m");
	assert_string_equal(name_typed("VM_x", true, text, sizeof text), "vm-x");
}

static void guess_is(const char *typed, const char *known, const char *wanted)
{
	struct name_guess guess;
	char list[200], text[300], *save;

	snprintf(list, sizeof list, "%s", known);
	name_guess_init(&guess, typed, strlen(typed));
	for (char *name = strtok_r(list, " ", &save); name;
		name = strtok_r(NULL, " ", &save))
		name_guess_try(&guess, name);
	assert_string_equal(name_guess_text(&guess, text, sizeof text), wanted);
}

static void the_nearest_is_meant(void **state)
{
	char long_name[300];

	(void)state;
	guess_is("vm-strat", "vm-list vm-start sr-create", "; did you mean vm-start?");
	guess_is("abcdef", "abcdxf abcdef abcxxf",
		"; did you mean abcdef, abcdxf or abcxxf?");
	guess_is("abcdef", "abcxxf abcxyf abcdxf abcdef",
		"; did you mean abcdef, abcdxf or abcxxf?");
	guess_is("VM_Start", "vm-start", "; did you mean vm-start?");
	guess_is("memory", "memory-static-max", "; did you mean memory-static-max?");
	guess_is("ab-cd", "ab-xy ab-dc", "; did you mean ab-dc or ab-xy?");
	guess_is("qqq", "vm-start", "");
	guess_is("", "vm-start", "");
	memset(long_name, 'x', sizeof long_name - 1);
	long_name[sizeof long_name - 1] = '\0';
	guess_is(long_name, "vm-start", "");
}

struct seen {
	int count;
	char names[600][NAME_TYPED_MAX];
};

static bool see(void *arg, const struct command *c)
{
	struct seen *seen = arg;
	struct command found;

	assert_true(seen->count < 600);
	for (int i = 0; i < seen->count; i++)
		assert_string_not_equal(seen->names[i], c->name);
	snprintf(seen->names[seen->count++], NAME_TYPED_MAX, "%s", c->name);
	assert_true(command_find(c->name, &found));
	assert_int_equal(found.kind, c->kind);
	assert_ptr_equal(found.method, c->method);
	assert_non_null(c->doc);
	return true;
}

/* No two commands have one name, and each is found by its own. */
static void commands_are_distinct(void **state)
{
	static struct seen seen;

	(void)state;
	command_each(see, &seen);
	assert_true(seen.count > 150);
}

/* Every method of a class can be typed, except those that list and param-* stand for. */
static void every_method_has_a_command(void **state)
{
	(void)state;
	for (int i = METHOD_NONE + 1; i < METHOD_COUNT; i++) {
		const struct schema_method *m = schema_method((enum schema_method_id)i);
		char typed[NAME_TYPED_MAX];
		struct command c;

		if (m->kind != METHOD_KIND_OWN || m->cls == CLASS_NONE)
			continue;
		snprintf(typed, sizeof typed, "%s-%s", m->group, m->name);
		assert_true(command_find(typed, &c));
		assert_true(c.method == m);
	}
}

static void xe_names_are_known(void **state)
{
	static const struct {
		const char *typed;
		enum schema_method_id method, forced;
	} names[] = {
		{"vm-shutdown", METHOD_VM_CLEAN_SHUTDOWN, METHOD_VM_HARD_SHUTDOWN},
		{"vm-reboot", METHOD_VM_CLEAN_REBOOT, METHOD_VM_HARD_REBOOT},
		{"vm-uninstall", METHOD_VM_DESTROY, METHOD_NONE},
		{"vm-memory-dynamic-range-set", METHOD_VM_SET_MEMORY_DYNAMIC_RANGE,
			METHOD_NONE},
		{"vm-vcpus-set", METHOD_VM_SET_VCPUS, METHOD_NONE},
		{"VM_Start", METHOD_VM_START, METHOD_NONE},
	};

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		struct command c;

		assert_true(command_find(names[i].typed, &c));
		assert_int_equal(c.method->id, names[i].method);
		assert_int_equal(c.forced ? c.forced->id : METHOD_NONE, names[i].forced);
	}
}

static bool count_key(void *arg, const struct command_key *k)
{
	char *list = arg;

	snprintf(list + strlen(list), 400 - strlen(list), "%s%s ", k->name,
		k->required ? "!" : "");
	return true;
}

static void keys_come_from_the_schema(void **state)
{
	char list[400] = "";
	struct command c;

	(void)state;
	assert_true(command_find("vm-clone", &c));
	command_keys(&c, count_key, list);
	assert_string_equal(list, "vm! new-name! sr ");
	list[0] = '\0';
	assert_true(command_find("pool-param-get", &c));
	command_keys(&c, count_key, list);
	assert_string_equal(list, "pool param-name! param-key ");
	assert_false(command_find("role-param-set", &c));
	assert_false(command_find("vm-get-record", &c));
	assert_false(command_find("", &c));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words_come_apart),
		cmocka_unit_test(options_are_checked),
		cmocka_unit_test(names_fold),
		cmocka_unit_test(the_nearest_is_meant),
		cmocka_unit_test(commands_are_distinct),
		cmocka_unit_test(every_method_has_a_command),
		cmocka_unit_test(xe_names_are_known),
		cmocka_unit_test(keys_come_from_the_schema),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
