/*
 * What a benchmark found: a table for people, JSON for machines.
 *
 * A result stands beside a peer or a limit that was measured in the same run; `ratio` is
 * Reeve ÷ peer. A bar that is not met is reported as not met; the exit status says only
 * whether the benchmark ran.
 */
#ifndef REEVE_PERF_REPORT_H
#define REEVE_PERF_REPORT_H

#include <stdbool.h>
#include <stddef.h>

enum report_bar {
	REPORT_NO_BAR,
	REPORT_RATIO_AT_LEAST,
	REPORT_RATIO_AT_MOST,
	REPORT_VALUE_AT_LEAST,
	REPORT_VALUE_AT_MOST,
};

enum { REPORT_MAX = 128 };

struct report_result {
	const char *name, *unit; /* literals */
	double value;
	const char *peer; /* NULL: none ran */
	double peer_value;
	enum report_bar kind;
	double bar;
};

struct report {
	const char *benchmark, *json_path;
	const char *only; /* parts asked for, "a,b"; NULL: all */
	size_t times; /* how often what takes long is repeated; 0: as often as it should
		       */
	bool quick;   /* only to see that it runs: rounds as short as can be */
	struct report_result results[REPORT_MAX];
	size_t count;
};

/* Reads `--json FILE`, `--quick`, `--only PART,…` and `--times N`; prints usage and exits
 * on anything else. */
void report_begin(struct report *r, const char *benchmark, int argc, char **argv);
/* Whether this part of the benchmark was asked for. */
bool report_wants(const struct report *r, const char *part);
void report_add(struct report *r, struct report_result result);
/* Prints the table, writes the JSON; the exit status for main. */
int report_end(const struct report *r);

/* --- measuring --- */

double report_now_s(void);
/* CPU seconds that a process has used so far; -1: it is gone. */
double report_cpu_s(int pid);
/* Sorts; p from 0 to 1. */
double report_percentile(double *values, size_t count, double p);

/* Ends the benchmark, saying why it can't be run. */
void report_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
