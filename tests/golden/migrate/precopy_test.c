/*
 * Worked examples of the pre-copy policy: precopy.script beside precopy.trace. With
 * REEVE_GOLDEN_WRITE=1 the trace is written anew, to be read before it is committed.
 *
 * Each line is a guest and a link; keys as in read_case. The guest writes `dirty` pages a
 * second, spread evenly over its working set, as Clark's model has it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/units.h"
#include "migrate/precopy.h"

struct example {
	char name[64];
	struct precopy_config config;
	uint64_t working_pages, bytes_per_s;
	double dirty_per_s;
	double slows; /* the link's rate is multiplied by this each round */
};

static uint64_t bytes_of(const char *text)
{
	uint64_t bytes;

	if (units_parse_bytes(text, &bytes))
		fail_msg("%s is no size", text);
	return bytes;
}

static int64_t us_of(const char *text)
{
	uint64_t ms;

	if (units_parse_ms(text, &ms))
		fail_msg("%s is no time", text);
	return (int64_t)ms * 1000;
}

static void read_case(char *line, struct example *x)
{
	char *save, *word = strtok_r(line, " \n", &save);

	*x = (struct example){.slows = 1};
	x->config.max_downtime_us = 300 * 1000;
	x->config.handover_us = 20 * 1000;
	x->config.suspend_us = 50 * 1000;
	snprintf(x->name, sizeof x->name, "%s", word);
	while ((word = strtok_r(NULL, " \n", &save))) {
		char *value = strchr(word, '=');

		assert_non_null(value);
		*value++ = '\0';
		if (!strcmp(word, "memory"))
			x->config.memory_pages = bytes_of(value) / 4096;
		else if (!strcmp(word, "working"))
			x->working_pages = bytes_of(value) / 4096;
		else if (!strcmp(word, "dirty"))
			x->dirty_per_s = strtod(value, NULL);
		else if (!strcmp(word, "link"))
			x->bytes_per_s = bytes_of(value);
		else if (!strcmp(word, "bandwidth"))
			x->config.bandwidth_bytes_s = bytes_of(value);
		else if (!strcmp(word, "limit"))
			x->config.max_downtime_us = us_of(value);
		else if (!strcmp(word, "handover"))
			x->config.handover_us = us_of(value);
		else if (!strcmp(word, "rounds"))
			x->config.max_rounds = (uint32_t)strtoul(value, NULL, 10);
		else if (!strcmp(word, "slows"))
			x->slows = strtod(value, NULL);
		else if (!strcmp(word, "diverge"))
			x->config.diverge = !strcmp(value, "accept") ? PRECOPY_ACCEPT
								     : PRECOPY_GIVE_UP;
		else
			fail_msg("%s is no key", word);
	}
}

static void example_run(struct example *x, FILE *out)
{
	static const char *const verdicts[] = {[HYPER_PRECOPY_CONTINUE] = "continue",
		[HYPER_PRECOPY_STOP] = "stop",
		[HYPER_PRECOPY_ABORT] = "abort"};
	struct hyper_precopy r = {.dirty_pages = x->config.memory_pages};
	struct precopy_verdict v = {.what = HYPER_PRECOPY_CONTINUE};
	struct precopy p;
	struct rv_error e;
	double rate = (double)x->bytes_per_s;

	precopy_init(&p, &x->config);
	fprintf(out, "%s\n", x->name);
	while (v.what == HYPER_PRECOPY_CONTINUE) {
		double working = (double)x->working_pages, seconds;
		double sent = rate;

		if (x->config.bandwidth_bytes_s &&
			sent > (double)x->config.bandwidth_bytes_s)
			sent = (double)x->config.bandwidth_bytes_s;
		r.iteration++;
		r.round_pages = r.dirty_pages;
		r.total_pages += r.round_pages;
		r.total_bytes += r.round_pages * PRECOPY_PAGE_BYTES;
		seconds = (double)(r.round_pages * PRECOPY_PAGE_BYTES) / sent;
		r.round_us = (int64_t)(seconds * 1e6);
		r.bytes_per_s = (uint64_t)sent;
		r.dirty_pages =
			(uint64_t)(working *
				   (1 - exp(-x->dirty_per_s * seconds / working)));
		r.dirty_per_s =
			seconds > 0 ? (uint64_t)((double)r.dirty_pages / seconds) : 0;
		v = precopy_round(&p, &r);
		fprintf(out,
			"  round %2u: %8lld ms, %7llu pages dirty, pause %6lld ms: %s "
			"(%s)\n",
			r.iteration, (long long)(r.round_us / 1000),
			(unsigned long long)r.dirty_pages,
			(long long)(v.predicted_us / 1000), verdicts[v.what],
			precopy_why_text(v.why));
		rate *= x->slows;
		assert_true(r.iteration <= PRECOPY_MAX_ROUNDS);
	}
	if (v.what == HYPER_PRECOPY_ABORT) {
		precopy_refuse(&p, &v, "web1", &e);
		fprintf(out, "  %s\n", e.detail);
	}
}

static void test_examples(void **state)
{
	char *got = NULL, *want, line[512];
	size_t got_len = 0, len;
	FILE *in = fopen(TRACE_DIR "/precopy.script", "r"), *out, *trace;
	struct example x;

	(void)state;
	assert_non_null(in);
	out = open_memstream(&got, &got_len);
	while (fgets(line, sizeof line, in)) {
		if (line[0] == '#' || line[0] == '\n')
			continue;
		read_case(line, &x);
		example_run(&x, out);
	}
	fclose(out);
	fclose(in);
	if (getenv("REEVE_GOLDEN_WRITE")) {
		trace = fopen(TRACE_DIR "/precopy.trace", "w");
		fwrite(got, 1, got_len, trace);
		fclose(trace);
	}
	trace = fopen(TRACE_DIR "/precopy.trace", "r");
	assert_non_null(trace);
	want = calloc(1, 1 << 20);
	len = fread(want, 1, (1 << 20) - 1, trace);
	fclose(trace);
	assert_int_equal(len, got_len);
	assert_string_equal(want, got);
	free(want);
	free(got);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_examples)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
