/*
 * Worked examples: NAME.script beside NAME.trace. Each line of the script is shown and
 * then done; what came of it is compared with the trace. With REEVE_GOLDEN_WRITE=1 the
 * traces are written anew, to be read before they are committed.
 */
#ifndef REEVE_TESTS_GOLDEN_TRACE_H
#define REEVE_TESTS_GOLDEN_TRACE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/units.h"

struct trace {
	void (*begin)(void);
	void (*line)(char *line, FILE *out); /* may cut it up */
	void (*end)(void);
};

static inline uint64_t kib(const char *text)
{
	uint64_t bytes;

	if (units_parse_bytes(text, &bytes) != 0)
		fail_msg("%s is no size", text);
	return bytes / KIB;
}

/* What the script gives, returned owned. */
static inline char *trace_run(const char *path, const struct trace *t)
{
	FILE *in = fopen(path, "r"), *out;
	char line[1024], *got = NULL;
	size_t size = 0;

	assert_non_null(in);
	out = open_memstream(&got, &size);
	assert_non_null(out);
	t->begin();
	while (fgets(line, sizeof line, in)) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0] == '\0' || line[0] == '#')
			continue;
		fprintf(out, "> %s\n", line);
		t->line(line, out);
	}
	t->end();
	fclose(in);
	fclose(out);
	return got;
}

static inline void trace_script(const char *dir, const char *name, const struct trace *t)
{
	char path[512], *got, *want = NULL;
	size_t size = 0;
	FILE *trace;

	snprintf(path, sizeof path, "%s/%s.script", dir, name);
	got = trace_run(path, t);
	snprintf(path, sizeof path, "%s/%s.trace", dir, name);
	if (getenv("REEVE_GOLDEN_WRITE")) {
		trace = fopen(path, "w");
		assert_non_null(trace);
		fwrite(got, 1, strlen(got), trace);
		fclose(trace);
	}
	trace = fopen(path, "r");
	assert_non_null(trace);
	if (getdelim(&want, &size, EOF, trace) < 0)
		fail_msg("%s is empty", path);
	fclose(trace);
	if (strcmp(got, want) != 0)
		print_error("%s: the trace is now\n%s", name, got);
	assert_string_equal(got, want);
	free(got);
	free(want);
}

#endif
