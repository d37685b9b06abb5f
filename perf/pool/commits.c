/*
 * Commits on one voter, with 1, 16 and 256 outstanding, beside bare libraft on its own
 * libuv backend: the same version of libraft, size of entries, disk and file system, each
 * commit on disk before it is acknowledged. Rounds take turns; the median counts.
 */
#include "perf/pool/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "perf/child.h"

enum { ROUNDS = 5, ENTRY_BYTES = 64, ENTRY_BYTES_MAX = 1 << 16 };

struct bench {
	struct report *report;
	const char *dir;
	const char *seconds;
	char entry_bytes[24];
	int rounds, runs;
};

/* Runs a program with a directory of its own; the first number it prints, and the rest.
 */
static double run(struct bench *b, const char *name, const char *outstanding,
	const char *entry_bytes, char *rest, size_t size)
{
	char program[CHILD_PATH_MAX * 2], dir[CHILD_PATH_MAX], log[CHILD_PATH_MAX + 16];
	char *argv[] = {program, dir, (char *)outstanding, (char *)b->seconds,
		(char *)entry_bytes, NULL};
	double number;
	FILE *f;

	child_program(program, sizeof program, name);
	snprintf(dir, sizeof dir, "%.120s/run%d", b->dir, b->runs++);
	snprintf(log, sizeof log, "%s.log", dir);
	child_finish(child_start(argv, log, NULL), log);
	f = fopen(log, "r");
	if (!f || fscanf(f, "%lf", &number) != 1)
		report_die("%s: no number", log);
	if (!fgets(rest, (int)size, f))
		rest[0] = '\0';
	fclose(f);
	return number;
}

static void measure(struct bench *b, const char *name, const char *outstanding)
{
	double us[ROUNDS], them[ROUNDS], peer;
	char rest[64];
	int bytes;

	for (int i = 0; i < b->rounds; i++) {
		us[i] = run(
			b, "perf/peer_pool_pool", outstanding, NULL, rest, sizeof rest);
		bytes = atoi(rest);
		/* So short a round that it committed nothing tells no size. */
		snprintf(b->entry_bytes, sizeof b->entry_bytes, "%d",
			bytes > 0 && bytes < ENTRY_BYTES_MAX ? bytes : ENTRY_BYTES);
#ifdef HAVE_UV
		them[i] = run(b, "perf/peer_pool_uv", outstanding, b->entry_bytes, rest,
			sizeof rest);
#else
		them[i] = 0;
#endif
	}
	peer = report_percentile(them, (size_t)b->rounds, 0.5);
	report_add(b->report,
		(struct report_result){.name = name,
			.unit = "/s",
			.value = report_percentile(us, (size_t)b->rounds, 0.5),
			.peer = peer > 0 ? "bare libraft" : NULL,
			.peer_value = peer,
			.kind = peer > 0 ? REPORT_RATIO_AT_LEAST : REPORT_NO_BAR,
			.bar = 0.7});
}

void commits_measure(struct report *r, const char *dir)
{
	struct bench b = {.report = r, .dir = dir};

	b.rounds = r->quick ? 1 : ROUNDS;
	b.seconds = r->quick ? "0.1" : "1.0";
	measure(&b, "commits_1", "1");
	measure(&b, "commits_16", "16");
	measure(&b, "commits_256", "256");
	report_add(r, (struct report_result){.name = "entry_bytes",
			      .unit = "B",
			      .value = atof(b.entry_bytes)});
}
