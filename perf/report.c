#include "perf/report.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

void report_begin(struct report *r, const char *benchmark, int argc, char **argv)
{
	static const struct option options[] = {{"json", required_argument, NULL, 'j'},
		{"quick", no_argument, NULL, 'q'}, {"only", required_argument, NULL, 'o'},
		{"times", required_argument, NULL, 't'}, {0}};
	int option;

	*r = (struct report){.benchmark = benchmark};
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'j') {
			r->json_path = optarg;
		} else if (option == 'q') {
			r->quick = true;
		} else if (option == 'o') {
			r->only = optarg;
		} else if (option == 't' && atoi(optarg) > 0) {
			r->times = (size_t)atoi(optarg);
		} else {
			fprintf(stderr,
				"usage: perf_%s [--quick] [--only PART,…] [--times N] "
				"[--json FILE]\n",
				benchmark);
			exit(2);
		}
	}
	printf("%-28s %14s %-8s %14s %8s  %s\n", benchmark, "value", "unit", "peer",
		"ratio", "bar");
	fflush(stdout);
}

bool report_wants(const struct report *r, const char *part)
{
	size_t len = strlen(part);

	for (const char *at = r->only; at; at = strchr(at, ',')) {
		at += *at == ',';
		if (strncmp(at, part, len) == 0 && (at[len] == ',' || at[len] == '\0'))
			return true;
	}
	return !r->only;
}

static double result_ratio(const struct report_result *x)
{
	return x->peer && x->peer_value > 0 ? x->value / x->peer_value : 0;
}

static bool result_passes(const struct report_result *x)
{
	switch (x->kind) {
	case REPORT_NO_BAR:
		break;
	case REPORT_RATIO_AT_LEAST:
		return result_ratio(x) >= x->bar;
	case REPORT_RATIO_AT_MOST:
		return result_ratio(x) <= x->bar;
	case REPORT_VALUE_AT_LEAST:
		return x->value >= x->bar;
	case REPORT_VALUE_AT_MOST:
		return x->value <= x->bar;
	}
	return true;
}

static void bar_text(const struct report_result *x, char *text, size_t size)
{
	static const char *const signs[] = {"", ">=", "<=", ">=", "<="};
	bool ratio = x->kind == REPORT_RATIO_AT_LEAST || x->kind == REPORT_RATIO_AT_MOST;

	if (x->kind == REPORT_NO_BAR)
		text[0] = '\0';
	else
		snprintf(text, size, "%s %g%s", signs[x->kind], x->bar, ratio ? "x" : "");
}

void report_add(struct report *r, struct report_result result)
{
	char bar[48], peer[32] = "-", ratio[32] = "-";

	if (r->count == REPORT_MAX)
		abort(); /* a benchmark with more results than its author counted */
	r->results[r->count++] = result;
	bar_text(&result, bar, sizeof bar);
	if (result.peer) {
		snprintf(peer, sizeof peer, "%.1f", result.peer_value);
		snprintf(ratio, sizeof ratio, "%.2f", result_ratio(&result));
	}
	printf("%-28s %14.1f %-8s %14s %8s  %s%s\n", result.name, result.value,
		result.unit, peer, ratio, bar,
		result.kind == REPORT_NO_BAR ? ""
		: result_passes(&result)     ? "  met"
					     : "  NOT MET");
	fflush(stdout);
}

static void json_result(FILE *f, const struct report_result *x)
{
	char bar[48];

	bar_text(x, bar, sizeof bar);
	fprintf(f, "  {\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\"", x->name,
		x->value, x->unit);
	if (x->peer)
		fprintf(f, ", \"peer\": \"%s\", \"peer_value\": %.6g, \"ratio\": %.4g",
			x->peer, x->peer_value, result_ratio(x));
	else
		fprintf(f, ", \"peer\": null, \"peer_value\": null, \"ratio\": null");
	fprintf(f, ", \"bar\": \"%s\", \"pass\": %s}", bar,
		result_passes(x) ? "true" : "false");
}

int report_end(const struct report *r)
{
	struct utsname names;
	FILE *f;

	if (!r->json_path)
		return EXIT_SUCCESS;
	f = fopen(r->json_path, "w");
	if (!f) {
		perror(r->json_path);
		return EXIT_FAILURE;
	}
	uname(&names);
	fprintf(f,
		"{\"benchmark\": \"%s\", \"machine\": {\"system\": \"%s %s\", \"cpus\": "
		"%ld}, "
		"\"results\": [\n",
		r->benchmark, names.sysname, names.release,
		sysconf(_SC_NPROCESSORS_ONLN));
	for (size_t i = 0; i < r->count; i++) {
		json_result(f, &r->results[i]);
		fputs(i + 1 < r->count ? ",\n" : "\n", f);
	}
	fputs("]}\n", f);
	return fclose(f) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

double report_now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

double report_cpu_s(int pid)
{
	struct timespec t;
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t))
		return -1;
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

double report_percentile(double *values, size_t count, double p)
{
	if (count == 0)
		return 0;
	qsort(values, count, sizeof values[0], compare_doubles);
	return values[(size_t)(p * (double)(count - 1) + 0.5)];
}

void report_die(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fputs("perf: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(EXIT_FAILURE);
}
