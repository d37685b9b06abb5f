/* Values read and written: units, enums, filters, order, JSON, the progress bar. */
#include "cli/print.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/input.h"
#include "cli/progress.h"
#include "cli/records.h"
#include "rpc/message.h"

static struct value parsed(enum schema_field_id id, const char *text, int wanted)
{
	struct input in = input_of_field(schema_field(id), "key");
	struct rv_error e = {0};
	struct value v;

	assert_int_equal(input_parse(&in, text, &v, &e), wanted);
	if (wanted) {
		assert_int_equal(strncmp(e.detail, "key", 3), 0);
		assert_int_equal(v.type, VALUE_NULL);
	}
	return v;
}

static void typed_text_becomes_values(void **state)
{
	struct value v;

	(void)state;
	v = parsed(VM_MEMORY_STATIC_MAX, "4GiB", 0);
	assert_int_equal(value_get_int(&v), INT64_C(4) << 30);
	v = parsed(VM_IS_A_TEMPLATE, "YES", 0);
	assert_true(value_get_bool(&v));
	v = parsed(VM_IS_A_TEMPLATE, "off", 0);
	assert_false(value_get_bool(&v));
	v = parsed(VM_POWER_STATE, "running", 0);
	assert_string_equal(value_get_string(&v), "Running");
	value_fini(&v);
	v = parsed(VM_TAGS, "b; a,c", 0);
	assert_int_equal(value_count(&v), 3);
	value_fini(&v);
	parsed(VM_MEMORY_STATIC_MAX, "much", RV_EPARAM);
	parsed(VM_MEMORY_STATIC_MAX, "", RV_EPARAM);
	parsed(VM_IS_A_TEMPLATE, "", RV_EPARAM);
	parsed(VM_IS_A_TEMPLATE, "maybe", RV_EPARAM);
	parsed(VM_POWER_STATE, "Dead", RV_EPARAM);
	parsed(VM_OTHER_CONFIG, "no pair", RV_EPARAM);
	parsed(VM_AFFINITY, "no uuid", RV_EPARAM);
}

static void times_have_units(void **state)
{
	struct input in = {.key = "timeout-ms", .type = VALUE_INT, .ms = true};
	struct rv_error e = {0};
	struct value v;

	(void)state;
	assert_int_equal(input_parse(&in, "30s", &v, &e), 0);
	assert_int_equal(value_get_int(&v), 30000);
	assert_int_equal(input_parse(&in, "30", &v, &e), 0);
	assert_int_equal(value_get_int(&v), 30);
}

/* --- records --- */

struct world {
	struct records records;
	msgpack_sbuffer bytes;
	msgpack_unpacked unpacked;
};

/* {UUID…N: {name_label, tags, memory}} for each of the names, as a server packs it. */
static void world_take(struct world *w, const char *const *names, int count)
{
	struct rv_error e = {0};
	msgpack_packer pk;
	size_t off = 0;

	msgpack_sbuffer_init(&w->bytes);
	msgpack_packer_init(&pk, &w->bytes, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, (size_t)count);
	for (int i = 0; i < count; i++) {
		char uuid[UUID_TEXT_SIZE];

		snprintf(uuid, sizeof uuid, "00000000-0000-4000-8000-%012d", i);
		rpc_pack_key(&pk, uuid);
		msgpack_pack_map(&pk, 3);
		rpc_pack_key(&pk, "tags");
		msgpack_pack_array(&pk, 1);
		rpc_pack_key(&pk, i % 2 ? "odd" : "even");
		rpc_pack_key(&pk, "name_label");
		rpc_pack_key(&pk, names[i]);
		rpc_pack_key(&pk, "other_config");
		msgpack_pack_map(&pk, 1);
		rpc_pack_key(&pk, "n");
		rpc_pack_key(&pk, names[i]);
	}
	msgpack_unpacked_init(&w->unpacked);
	assert_int_equal(
		msgpack_unpack_next(&w->unpacked, w->bytes.data, w->bytes.size, &off),
		MSGPACK_UNPACK_SUCCESS);
	records_init(&w->records, schema_class(CLASS_VM));
	records_want(&w->records, schema_field(VM_NAME_LABEL));
	records_want(&w->records, schema_field(VM_UUID));
	records_want(&w->records, schema_field(VM_TAGS));
	records_want(&w->records, schema_field(VM_OTHER_CONFIG));
	records_want(&w->records, schema_field(VM_ORDER)); /* the server has none */
	w->records.shown = 2;
	assert_int_equal(records_take(&w->records, &w->unpacked.data, &e), 0);
}

static void world_fini(struct world *w)
{
	records_fini(&w->records);
	msgpack_unpacked_destroy(&w->unpacked);
	msgpack_sbuffer_destroy(&w->bytes);
}

static const char *name_at(const struct world *w, int i)
{
	return value_get_string(&w->records.list[i].values[0]);
}

static void order_counts_as_people_do(void **state)
{
	struct world w;

	(void)state;
	world_take(&w, (const char *const[]){"vm10", "vm9", "vm1", "vm1"}, 4);
	records_sort(&w.records);
	assert_string_equal(name_at(&w, 0), "vm1");
	assert_int_equal(w.records.list[0].uuid.b[15], 2);
	assert_int_equal(w.records.list[1].uuid.b[15], 3);
	assert_string_equal(name_at(&w, 2), "vm9");
	assert_string_equal(name_at(&w, 3), "vm10");
	assert_int_equal(value_get_int(&w.records.list[0].values[4]), 0);
	world_fini(&w);
}

static void filters_narrow(void **state)
{
	struct filter filters[2] = {{.field = schema_field(VM_TAGS)},
		{.field = schema_field(VM_OTHER_CONFIG), .key = "n=x", .key_len = 1}};
	struct world w;

	(void)state;
	assert_int_equal(value_from_cstr(&filters[0].value, "even"), 0);
	assert_int_equal(value_from_cstr(&filters[1].value, "c"), 0);
	world_take(&w, (const char *const[]){"a", "b", "c", "d"}, 4);
	records_filter(&w.records, filters, 1);
	assert_int_equal(w.records.count, 2);
	records_filter(&w.records, filters, 2);
	assert_int_equal(w.records.count, 1);
	assert_string_equal(name_at(&w, 0), "c");
	filters[1].key_len = 0; /* only the beginning of a key there is */
	records_filter(&w.records, filters, 2);
	assert_int_equal(w.records.count, 0);
	world_fini(&w);
	value_fini(&filters[0].value);
	value_fini(&filters[1].value);
}

static void junk_is_no_record(void **state)
{
	struct rv_error e = {0};
	msgpack_object nil = {.type = MSGPACK_OBJECT_NIL};
	msgpack_object_kv kv = {.key = {.type = MSGPACK_OBJECT_POSITIVE_INTEGER}};
	msgpack_object map = {
		.type = MSGPACK_OBJECT_MAP, .via.map = {.size = 1, .ptr = &kv}};
	struct records r;

	(void)state;
	records_init(&r, schema_class(CLASS_VM));
	records_want(&r, schema_field(VM_NAME_LABEL));
	assert_int_equal(records_take(&r, &nil, &e), RV_EPROTO);
	assert_int_equal(records_take(&r, &map, &e), RV_EPROTO);
	records_fini(&r);
}

/* --- output --- */

struct page {
	struct cli cli;
	char *text;
	size_t len;
};

static void page_open(struct page *p)
{
	*p = (struct page){.cli = {.in = stdin}};
	p->cli.out = p->cli.err = open_memstream(&p->text, &p->len);
	assert_non_null(p->cli.out);
}

static void page_is(struct page *p, const char *wanted)
{
	fclose(p->cli.out);
	assert_string_equal(p->text, wanted);
	free(p->text);
}

static void records_are_printed(void **state)
{
	struct world w;
	struct page p;

	(void)state;
	world_take(&w, (const char *const[]){"a\033[1m", "b"}, 2);
	page_open(&p);
	assert_int_equal(print_minimal(&p.cli, &w.records), CLI_OK);
	page_is(&p, "a\033[1m,b\n");
	page_open(&p);
	p.cli.out_tty = true;
	assert_int_equal(print_minimal(&p.cli, &w.records), CLI_OK);
	page_is(&p, "a?[1m,b\n");
	page_open(&p);
	assert_int_equal(print_json_records(&p.cli, &w.records), CLI_OK);
	page_is(&p, "[\n {\"name_label\": \"a\\u001b[1m\", \"uuid\": "
		    "\"00000000-0000-4000-8000-000000000000\"},\n {\"name_label\": "
		    "\"b\", \"uuid\": \"00000000-0000-4000-8000-000000000001\"}\n]\n");
	w.records.count = 1;
	page_open(&p);
	assert_int_equal(print_records(&p.cli, &w.records), CLI_OK);
	page_is(&p, "    name-label ( RW): a\033[1m\n"
		    "uuid ( RO)          : 00000000-0000-4000-8000-000000000000\n\n\n");
	world_fini(&w);
}

/* People read sizes with units, programs without. */
static void sizes_in_results_have_units(void **state)
{
	msgpack_object_kv pairs[2] = {
		{.key = {.type = MSGPACK_OBJECT_STR, .via.str = {5, "domid"}},
			.val = {.type = MSGPACK_OBJECT_POSITIVE_INTEGER, .via.u64 = 7}},
		{.key = {.type = MSGPACK_OBJECT_STR, .via.str = {6, "memory"}},
			.val = {.type = MSGPACK_OBJECT_POSITIVE_INTEGER,
				.via.u64 = 512 << 20}}};
	msgpack_object ghost = {.type = MSGPACK_OBJECT_MAP, .via.map = {2, pairs}};
	const msgpack_object list = {
		.type = MSGPACK_OBJECT_ARRAY, .via.array = {1, &ghost}};
	struct page p;

	(void)state;
	page_open(&p);
	assert_int_equal(print_object(&p.cli, &list), CLI_OK);
	page_is(&p, "domid  memory\n    7  512MiB\n");
	page_open(&p);
	p.cli.words.json = true;
	assert_int_equal(print_object(&p.cli, &list), CLI_OK);
	page_is(&p, "[{\"domid\": 7, \"memory\": 536870912}]\n");
}

static void json_is_escaped(void **state)
{
	static const char text[] = "\"\\\n\t\x01\x7f/ü";
	struct page p;

	(void)state;
	page_open(&p);
	print_json_text(p.cli.out, text, sizeof text - 1);
	page_is(&p, "\"\\\"\\\\\\n\\t\\u0001\\u007f/ü\"");
}

static void errors_are_one_line(void **state)
{
	struct rv_error e = {.code = RV_ENOENT};
	struct page p;

	(void)state;
	page_open(&p);
	snprintf(e.detail, sizeof e.detail, "two\nlines\033[2J");
	assert_int_equal(cli_refused(&p.cli, &e), CLI_REFUSED);
	page_is(&p, "HANDLE_INVALID: two lines [2J\n");
	page_open(&p);
	e.detail[0] = '\0';
	assert_int_equal(cli_call_failed(&p.cli, &e), CLI_UNREACHABLE);
	page_is(&p, "HANDLE_INVALID: no such object\n");
	page_open(&p);
	assert_int_equal(cli_usage(&p.cli, "%s", "x\r\ny"), CLI_USAGE);
	page_is(&p, "reeve: x  y\n");
}

static void the_bar_fits(void **state)
{
	struct progress p;
	char line[512];

	(void)state;
	progress_init(&p, NULL, "vm-start web1", 1000);
	assert_string_equal(
		progress_line(&p, 0.5, "booting", 63000, 60, line, sizeof line),
		"vm-start web1 [############------------]  50% 1:02 booting");
	assert_string_equal(progress_line(&p, -1, "", 1000, 20, line, sizeof line),
		"vm-start web1 [--------]   0% 0:00 ");
	assert_string_equal(progress_line(&p, 7, "a\033b", 1000, 200, line, sizeof line),
		"vm-start web1 [########################################] 100% 0:00 a");
	for (int columns = 50; columns < 200; columns++) {
		progress_line(&p, 0.3, "a rather long note, for a bar that is so small",
			2000, columns, line, sizeof line);
		assert_true(strlen(line) < (size_t)columns);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(typed_text_becomes_values),
		cmocka_unit_test(times_have_units),
		cmocka_unit_test(order_counts_as_people_do),
		cmocka_unit_test(filters_narrow),
		cmocka_unit_test(junk_is_no_record),
		cmocka_unit_test(records_are_printed),
		cmocka_unit_test(sizes_in_results_have_units),
		cmocka_unit_test(json_is_escaped),
		cmocka_unit_test(errors_are_one_line),
		cmocka_unit_test(the_bar_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
