/* What turns text into values and back: UUIDs, units; and the log line. */
#include "base/log.h"
#include "base/units.h"
#include "base/uuid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void uuid_round_trips(void **state)
{
	char text[UUID_TEXT_SIZE];
	struct prng prng;
	struct uuid u, back;

	(void)state;
	prng_seed(&prng, 1);
	for (int i = 0; i < 1000; i++) {
		u = uuid_random(&prng);
		assert_int_equal(
			uuid_parse(&back, uuid_format(&u, text), UUID_TEXT_LEN), 0);
		assert_true(uuid_eq(&u, &back));
		assert_int_equal(text[14], '4');
	}
	assert_int_equal(uuid_parse(&u, "AAAAAAAA-0000-4000-8000-00000000000f", 36), 0);
	assert_string_equal(
		uuid_format(&u, text), "aaaaaaaa-0000-4000-8000-00000000000f");
}

static void uuid_refuses_junk(void **state)
{
	static const char *const junk[] = {"", "x", "aaaaaaaa-0000-4000-8000-00000000000",
		"aaaaaaaa-0000-4000-8000-00000000000g",
		"aaaaaaaa00000-4000-8000-00000000000f",
		"aaaaaaaa-0000-4000-8000-00000000000ff",
		"-aaaaaaa-0000-4000-8000-00000000000f"};
	struct uuid u;

	(void)state;
	for (size_t i = 0; i < sizeof junk / sizeof junk[0]; i++)
		assert_int_equal(uuid_parse(&u, junk[i], strlen(junk[i])), RV_EINVAL);
}

static void sizes_parse_and_format(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {{"0", 0}, {"17", 17}, {"4GiB", 4 * GIB}, {"512M", 512 * MIB},
		{"3k", 3072}, {"9223372036854775807", INT64_MAX},
		{"2PiB", 2048 * 1024 * GIB}, {"7EiB", 7 * GIB * GIB}};
	static const char *const bad[] = {"", "GiB", "-1", "1.5G", "4 GiB", "4GiBs",
		"0x10", "99999999999999999999x"};
	static const char *const large[] = {"9223372036854775808", "99999999999GiB",
		"8EiB", "8192PiB", "99999999999999999999999"};
	uint64_t bytes;
	char text[16];

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		assert_int_equal(units_parse_bytes(good[i].text, &bytes), 0);
		assert_int_equal(bytes, good[i].bytes);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(units_parse_bytes(bad[i], &bytes), RV_EINVAL);
	for (size_t i = 0; i < sizeof large / sizeof large[0]; i++)
		assert_int_equal(units_parse_bytes(large[i], &bytes), RV_ETOOBIG);
	assert_string_equal(units_format_bytes(4 * GIB, text, sizeof text), "4GiB");
	assert_string_equal(
		units_format_bytes(GIB + GIB / 2, text, sizeof text), "1.5GiB");
	assert_string_equal(units_format_bytes(17, text, sizeof text), "17B");
	assert_int_equal(units_parse_ms("2m", &bytes), 0);
	assert_int_equal(bytes, 120000);
}

struct sink {
	int lines;
	char last[LOG_LINE_MAX];
};

static void sink_keep(void *arg, enum log_level level, const char *line, size_t len)
{
	struct sink *sink = arg;

	(void)level;
	assert_true(len < sizeof sink->last);
	memcpy(sink->last, line, len);
	sink->last[len] = '\0';
	sink->lines++;
}

static void log_lines_are_one_line_and_limited(void **state)
{
	struct sink sink = {0};

	(void)state;
	log_setup(LOG_INFO, sink_keep, &sink);
	log_debug("test.quiet", "x=1");
	assert_int_equal(sink.lines, 0);
	log_info("test.forge", "name=%s", "a\nlevel=error \x1b[2J");
	assert_non_null(
		strstr(sink.last, " level=info at=test.forge name=a?level=error ?[2J\n"));
	assert_ptr_equal(strchr(sink.last, '\n'), sink.last + strlen(sink.last) - 1);
	sink.lines = 0;
	for (int i = 0; i < LOG_BURST * 5; i++)
		log_warn("test.flood", "i=%d", i);
	assert_in_range(
		sink.lines, LOG_BURST, LOG_BURST * 2); /* two, where the second turns */
	log_setup(LOG_INFO, NULL, NULL);
	log_error("test.silent", "x=1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(uuid_round_trips),
		cmocka_unit_test(uuid_refuses_junk),
		cmocka_unit_test(sizes_parse_and_format),
		cmocka_unit_test(log_lines_are_one_line_and_limited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
