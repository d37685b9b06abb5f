/*
 * The control plane: VMs led from creation to destruction through RPC on a simulated
 * hypervisor that takes 5 ms for each step, and one start while 80 clients list all VMs.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "perf/child.h"
#include "perf/host.h"
#include "perf/lifecycle/chain.h"
#include "perf/report.h"

enum { VMS = 512, QUICK_VMS = 80, CLIENTS = 80, ROUNDS = 3, STARTS = 15 };

static const struct chain_step life[] = {{"VM.create"}, {"VM.start"}, {"VM.pause"},
	{"VM.hard_shutdown"}, {"VM.destroy"}, {NULL}};
static const struct chain_step birth[] = {{"VM.create"}, {NULL}};
static const struct chain_step up_and_down[] = {
	{"VM.start"}, {"VM.hard_shutdown"}, {NULL}};

struct bench {
	struct report report;
	struct host host;
	const char *dir;
	int vms, rounds, starts;
};

static void add(struct bench *b, const char *name, const char *unit, double value)
{
	report_add(&b->report,
		(struct report_result){.name = name, .unit = unit, .value = value});
}

static void measure_full_cycle(struct bench *b)
{
	static const char *const names[] = {"create_p99_ms", "start_p99_ms",
		"pause_p99_ms", "shutdown_p99_ms", "destroy_p99_ms"};
	struct chains *c = chains_open(b->host.ipc, "life", b->vms);
	double cpu, seconds[ROUNDS];
	double sorted[ROUNDS];

	cpu = report_cpu_s(b->host.pid);
	for (int i = 0; i < b->rounds; i++)
		seconds[i] = chains_run(c, life);
	cpu = report_cpu_s(b->host.pid) - cpu;
	memcpy(sorted, seconds, sizeof sorted);
	report_add(&b->report, (struct report_result){.name = "full_cycle_vms_per_s",
				       .unit = "/s",
				       .value = b->vms / report_percentile(sorted,
								 (size_t)b->rounds, 0.5),
				       .kind = REPORT_VALUE_AT_LEAST,
				       .bar = 200});
	add(b, "full_cycle_cpu_ms", "ms", cpu * 1e3 / (b->vms * b->rounds));
	for (int step = 0; step < 5; step++)
		add(b, names[step], "ms",
			report_percentile(chains_times(c, step), (size_t)b->vms, 0.99) *
				1e3);
	chains_close(c);
}

/* The median of some starts, one after the other. */
static double start_s(struct bench *b, struct chains *one)
{
	double times[STARTS];

	for (int i = 0; i < b->starts; i++) {
		chains_run(one, up_and_down);
		times[i] = chains_times(one, 0)[0];
	}
	return report_percentile(times, (size_t)b->starts, 0.5);
}

static double read_number(const char *path)
{
	FILE *f = fopen(path, "r");
	double number;

	if (!f || fscanf(f, "%lf", &number) != 1)
		report_die("%s: no number", path);
	fclose(f);
	return number;
}

static double start_under_load_s(
	struct bench *b, struct chains *one, int round, double *lists_per_s)
{
	char program[CHILD_PATH_MAX * 2], ready[CHILD_PATH_MAX], log[CHILD_PATH_MAX];
	char clients[16], *argv[] = {program, b->host.ipc, clients, ready, NULL};
	double seconds;
	pid_t pid;

	child_program(program, sizeof program, "perf/peer_lifecycle_list");
	snprintf(clients, sizeof clients, "%d", CLIENTS);
	snprintf(ready, sizeof ready, "%.120s/ready%d", b->dir, round);
	snprintf(log, sizeof log, "%.120s/list.log", b->dir);
	pid = child_start(argv, log, NULL);
	child_await_path(pid, ready, log);
	seconds = start_s(b, one);
	child_check(pid, log);
	child_stop(pid);
	*lists_per_s = read_number(ready);
	return seconds;
}

static void measure_start_under_load(struct bench *b)
{
	/* What else the machine does only adds: the least disturbed round counts. */
	struct chains *all = chains_open(b->host.ipc, "listed", b->vms), *one;
	double idle[ROUNDS], loaded[ROUNDS], lists[ROUNDS];

	chains_run(all, birth);
	chains_close(all);
	one = chains_open(b->host.ipc, "started", 1);
	chains_run(one, birth);
	start_s(b, one);
	for (int i = 0; i < b->rounds; i++) {
		idle[i] = start_s(b, one);
		loaded[i] = start_under_load_s(b, one, i, &lists[i]);
	}
	chains_close(one);
	report_add(&b->report,
		(struct report_result){.name = "start_under_80_clients",
			.unit = "ms",
			.value = report_percentile(loaded, (size_t)b->rounds, 0) * 1e3,
			.peer = "the idle start",
			.peer_value = report_percentile(idle, (size_t)b->rounds, 0) * 1e3,
			.kind = REPORT_RATIO_AT_MOST,
			.bar = 1.2});
	add(b, "lists_per_s_meanwhile", "/s",
		report_percentile(lists, (size_t)b->rounds, 0.5));
}

int main(int argc, char **argv)
{
	static const char *const settings[] = {"log.level=warn",
		"hypervisor.sim-memory=64GiB", "hypervisor.sim-step=5ms", NULL};
	static struct bench b;

	report_begin(&b.report, "lifecycle", argc, argv);
	b.vms = b.report.quick ? QUICK_VMS : VMS;
	b.rounds = b.report.quick ? 1 : ROUNDS;
	b.starts = b.report.quick ? 2 : STARTS;
	b.dir = child_directory();
	host_start(&b.host, b.dir, settings);
	host_await_up(&b.host);
	measure_full_cycle(&b);
	measure_start_under_load(&b);
	host_stop(&b.host);
	return report_end(&b.report);
}
