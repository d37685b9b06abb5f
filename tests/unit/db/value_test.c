/* Values: sharing, sets and maps, msgpack there and back, text there and back. */
#include "pool/db/value.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "base/mpcheck.h"
#include "base/prng.h"

static void add(struct value *v, const char *element)
{
	assert_int_equal(value_set_add(v, element, strlen(element)), 0);
}

static void put(struct value *v, const char *key, const char *text)
{
	assert_int_equal(value_map_put(v, key, strlen(key), text, strlen(text)), 0);
}

static void sets_are_sorted_and_shared(void **state)
{
	struct value set = value_zero(VALUE_STRING_SET), copy;

	(void)state;
	add(&set, "b");
	add(&set, "a");
	add(&set, "b");
	add(&set, "");
	assert_int_equal(value_count(&set), 3);
	assert_string_equal(value_set_at(&set, 0), "");
	assert_string_equal(value_set_at(&set, 1), "a");
	copy = value_copy(&set);
	add(&copy, "c");
	assert_int_equal(value_set_remove(&copy, "a", 1), 0);
	assert_int_equal(value_set_remove(&copy, "nothing", 7), 0);
	assert_true(value_set_has(&set, "a"));
	assert_false(value_set_has(&set, "c"));
	assert_false(value_set_has(&copy, "a"));
	assert_false(value_eq(&set, &copy));
	value_fini(&set);
	assert_true(value_set_has(&copy, "c"));
	value_fini(&copy);
}

static void maps_replace(void **state)
{
	struct value map = value_zero(VALUE_STRING_MAP), copy;

	(void)state;
	put(&map, "k", "1");
	put(&map, "a", "");
	copy = value_copy(&map);
	put(&map, "k", "2");
	assert_string_equal(value_map_get(&map, "k"), "2");
	assert_string_equal(value_map_get(&copy, "k"), "1");
	assert_null(value_map_get(&map, "b"));
	assert_int_equal(value_count(&map), 2);
	assert_int_equal(value_map_remove(&map, "k", 1), 0);
	assert_int_equal(value_map_remove(&map, "a", 1), 0);
	assert_true(value_is_zero(&map));
	value_fini(&map);
	value_fini(&copy);
}

static void limits_hold(void **state)
{
	struct value set = value_zero(VALUE_STRING_SET), text;
	char *large = malloc(RV_MAX_STRING_BYTES + 1);
	char word[16];
	int n;

	(void)state;
	memset(large, 'x', RV_MAX_STRING_BYTES + 1);
	assert_int_equal(value_from_text(&text, large, RV_MAX_STRING_BYTES), 0);
	value_fini(&text);
	assert_int_equal(
		value_from_text(&text, large, RV_MAX_STRING_BYTES + 1), RV_ETOOBIG);
	assert_int_equal(text.type, VALUE_NULL);
	assert_int_equal(value_from_text(&text, "\xff", 1), RV_EINVAL);
	assert_int_equal(value_from_text(&text, "a\0b", 3), RV_EINVAL);
	free(large);
	for (int i = 0; i < RV_MAX_SET_ELEMENTS; i++) {
		n = snprintf(word, sizeof word, "%d", i);
		assert_int_equal(value_set_add(&set, word, (size_t)n), 0);
	}
	assert_int_equal(value_set_add(&set, "one more", 8), RV_ETOOBIG);
	assert_int_equal(value_set_add(&set, "17", 2), 0);
	assert_int_equal(value_count(&set), RV_MAX_SET_ELEMENTS);
	value_fini(&set);
}

/* A value of any type with contents drawn from the generator. */
static struct value draw(struct prng *p, enum value_type type)
{
	static const char *const words[] = {"", "a", "b c", " lead", "trail ", "x;y",
		"k:v", "k=v", "back\\slash", "\\", "e", "\\e", "ä€😀", ",", "a: b; c: d"};
	size_t count = sizeof words / sizeof words[0];
	struct value v = value_zero(type);

	switch (type) {
	case VALUE_BOOL:
		return value_bool(prng_below(p, 2));
	case VALUE_INT:
		return value_int((int64_t)prng_next(p) >> prng_below(p, 64));
	case VALUE_FLOAT:
		return value_float((double)prng_range(p, -1000, 1000) / 8);
	case VALUE_TIME:
		return value_time(prng_range(p, -5000000000000, 200000000000000));
	case VALUE_REF:
		return value_ref(prng_below(p, 4) ? uuid_random(p) : UUID_NONE);
	case VALUE_STRING:
		assert_int_equal(value_from_cstr(&v, words[prng_below(p, count)]), 0);
		return v;
	default:
		break;
	}
	for (uint64_t n = prng_below(p, 6); n > 0; n--) {
		if (type == VALUE_REF_SET)
			assert_int_equal(value_refs_add(&v, uuid_random(p)), 0);
		else if (type == VALUE_STRING_SET)
			add(&v, words[prng_below(p, count)]);
		else
			put(&v, words[prng_below(p, count)], words[prng_below(p, count)]);
	}
	return v;
}

static void packs_and_unpacks(void **state)
{
	struct prng p;

	(void)state;
	prng_seed(&p, 7);
	for (int i = 0; i < 20000; i++) {
		enum value_type type = VALUE_BOOL + prng_below(&p, VALUE_TYPES - 1);
		struct value v = draw(&p, type), back;
		msgpack_unpacked u;
		struct buf b;

		buf_init(&b, 1 << 20);
		msgpack_unpacked_init(&u);
		assert_int_equal(
			value_pack_buf(&v, &b, i % 2 ? VALUE_WIRE_STORE : VALUE_WIRE_RPC),
			0);
		assert_int_equal(mpcheck(buf_data(&b), buf_len(&b), NULL), 0);
		assert_int_equal(
			msgpack_unpack_next(&u, (char *)buf_data(&b), buf_len(&b), NULL),
			MSGPACK_UNPACK_SUCCESS);
		assert_int_equal(value_unpack(&back, type, &u.data, NULL), 0);
		assert_true(value_eq(&v, &back));
		msgpack_unpacked_destroy(&u);
		buf_fini(&b);
		value_fini(&v);
		value_fini(&back);
	}
}

static void formats_and_parses(void **state)
{
	struct prng p;

	(void)state;
	prng_seed(&p, 8);
	for (int i = 0; i < 20000; i++) {
		enum value_type type = VALUE_BOOL + prng_below(&p, VALUE_TYPES - 1);
		struct value v = draw(&p, type), back;
		struct rv_error e;
		struct buf b;

		buf_init(&b, 1 << 20);
		assert_int_equal(value_format(&v, &b), 0);
		assert_int_equal(buf_append(&b, "", 1), 0);
		assert_int_equal(value_parse(&back, type, (char *)buf_data(&b), &e), 0);
		if (!value_eq(&v, &back))
			fail_msg("%s \"%s\" reads back as another value",
				value_type_name(type), (char *)buf_data(&b));
		buf_fini(&b);
		value_fini(&v);
		value_fini(&back);
	}
}

static void check_text(enum value_type type, const char *in, const char *out)
{
	struct rv_error e;
	struct value v;
	struct buf b;
	int rc = value_parse(&v, type, in, &e);

	if (!out) {
		assert_int_equal(rc, RV_EPARAM);
		return;
	}
	assert_int_equal(rc, 0);
	buf_init(&b, 1 << 20);
	assert_int_equal(value_format(&v, &b), 0);
	assert_int_equal(buf_append(&b, "", 1), 0);
	assert_string_equal((char *)buf_data(&b), out);
	buf_fini(&b);
	value_fini(&v);
}

static void text_in_the_style_of_xe(void **state)
{
	(void)state;
	check_text(VALUE_STRING_SET, "b; a", "a; b");
	check_text(VALUE_STRING_SET, "b,a,a", "a; b");
	check_text(VALUE_STRING_SET, "", "");
	check_text(VALUE_STRING_MAP, "k: v; k2=v2", "k: v; k2: v2");
	check_text(VALUE_STRING_MAP, "url: http://x/y", "url: http://x/y");
	check_text(VALUE_STRING_MAP, "no colon", NULL);
	check_text(VALUE_STRING_SET, "end\\", NULL);
	check_text(VALUE_INT, "4GiB", "4294967296");
	check_text(VALUE_INT, "-9223372036854775808", "-9223372036854775808");
	check_text(VALUE_INT, "9223372036854775807", "9223372036854775807");
	check_text(VALUE_INT, "9223372036854775808", NULL);
	check_text(VALUE_INT, "4 GiB", NULL);
	check_text(VALUE_BOOL, "yes", NULL);
	check_text(VALUE_FLOAT, "0.25", "0.25");
	check_text(VALUE_FLOAT, "inf", NULL);
	check_text(VALUE_FLOAT, "nan", NULL);
	check_text(VALUE_TIME, "20000229T23:59:59Z", "20000229T23:59:59Z");
	check_text(VALUE_TIME, "2026-01-31T09:30:00.125Z", "20260131T09:30:00.125Z");
	check_text(VALUE_TIME, "951868799000", "20000229T23:59:59Z");
	check_text(VALUE_TIME, "20010229T00:00:00Z", NULL);
	check_text(VALUE_TIME, "20260131T24:00:00Z", NULL);
	check_text(VALUE_TIME, "20260131", "19700101T05:37:40.131Z");
	check_text(VALUE_REF, "", "<not in database>");
	check_text(VALUE_REF, "not-a-uuid", NULL);
	check_text(VALUE_REF, "01234567-89ab-cdef-0123-456789ABCDEF",
		"01234567-89ab-cdef-0123-456789abcdef");
}

static void wrong_types_are_named(void **state)
{
	msgpack_object o = {.type = MSGPACK_OBJECT_POSITIVE_INTEGER, .via.u64 = 3};
	struct rv_error e;
	struct value v;

	(void)state;
	assert_int_equal(value_unpack(&v, VALUE_STRING, &o, &e), RV_EPARAM);
	assert_string_equal(e.detail, "expected a string, got an integer");
	assert_int_equal(value_unpack(&v, VALUE_FLOAT, &o, &e), 0);
	assert_true(value_get_float(&v) == 3.0);
	o.via.u64 = UINT64_MAX;
	assert_int_equal(value_unpack(&v, VALUE_INT, &o, &e), RV_EPARAM);
	o = (msgpack_object){.type = MSGPACK_OBJECT_FLOAT64, .via.f64 = 0.0 / 0.0};
	assert_int_equal(value_unpack(&v, VALUE_FLOAT, &o, &e), RV_EPARAM);
	o = (msgpack_object){.type = MSGPACK_OBJECT_NIL};
	assert_int_equal(value_unpack(&v, VALUE_REF, &o, &e), 0);
	assert_true(value_is_zero(&v));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sets_are_sorted_and_shared),
		cmocka_unit_test(maps_replace),
		cmocka_unit_test(limits_hold),
		cmocka_unit_test(packs_and_unpacks),
		cmocka_unit_test(formats_and_parses),
		cmocka_unit_test(text_in_the_style_of_xe),
		cmocka_unit_test(wrong_types_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
