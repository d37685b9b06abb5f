/* The command line as a person meets it: `reeve vm-list` of 1,000 VMs, and one TAB. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "perf/child.h"
#include "perf/host.h"
#include "perf/report.h"

enum { VMS = 1000, QUICK_VMS = 50, RUNS = 31, QUICK_RUNS = 2 };

struct bench {
	struct report report;
	struct host host;
	const char *dir;
	char url[CHILD_PATH_MAX + 64];
	int vms, runs;
};

/* Dies unless the output has at least so many lines with the text. */
static void check_output(const char *log, const char *text, int least)
{
	FILE *f = fopen(log, "r");
	char line[1024];
	int count = 0;

	while (f && fgets(line, sizeof line, f))
		count += strstr(line, text) != NULL;
	if (f)
		fclose(f);
	if (count < least)
		report_die(
			"%s: %d lines with '%s', expected %d", log, count, text, least);
}

/* Runs the command again and again, from the start of the process to its end. */
static void measure(struct bench *b, const char *name, char *const *words,
	const char *expected, int least, double bar_ms)
{
	char program[CHILD_PATH_MAX * 2], log[CHILD_PATH_MAX];
	char *environment[] = {b->url, NULL}, *argv[8] = {program};
	double times[RUNS];

	for (int i = 0; words[i]; i++)
		argv[i + 1] = words[i];
	child_program(program, sizeof program, "cli/reeve");
	snprintf(log, sizeof log, "%.120s/cli.log", b->dir);
	for (int i = 0; i < b->runs; i++) {
		double begun = report_now_s();

		unlink(log);
		child_finish(child_start(argv, log, environment), log);
		times[i] = report_now_s() - begun;
	}
	check_output(log, expected, least);
	report_add(&b->report,
		(struct report_result){.name = name,
			.unit = "ms",
			.value = report_percentile(times, (size_t)b->runs, 0.5) * 1e3,
			.kind = REPORT_VALUE_AT_MOST,
			.bar = bar_ms});
}

int main(int argc, char **argv)
{
	static const char *const settings[] = {"log.level=warn", NULL};
	static char line[] = "reeve vm-start vm=vm1", length[] = "21";
	char *list[] = {"vm-list", NULL};
	char *complete[] = {"--complete", line, length, NULL};
	char uuid[HOST_UUID_SIZE], name[32];
	static struct bench b;

	report_begin(&b.report, "cli", argc, argv);
	b.vms = b.report.quick ? QUICK_VMS : VMS;
	b.runs = b.report.quick ? QUICK_RUNS : RUNS;
	b.dir = child_directory();
	host_start(&b.host, b.dir, settings);
	for (int i = 0; i < b.vms; i++) {
		snprintf(name, sizeof name, "vm%d", i);
		host_make_vm(&b.host, name, uuid);
	}
	snprintf(b.url, sizeof b.url, "REEVE_URL=%s", b.host.ipc);
	measure(&b, "list_1000_ms", list, "name-label", b.vms, 30);
	measure(&b, "complete_ms", complete, "vm1", 11, 20);
	host_stop(&b.host);
	return report_end(&b.report);
}
