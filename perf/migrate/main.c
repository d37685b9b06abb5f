/*
 * Live migration between two real daemons over TLS on loopback, with the simulated
 * hypervisor's guests: how fast memory moves, what it costs, how long the guest stands
 * still, and how the daemons answer meanwhile.
 *
 * Beside it, in the same run, the bytes alone: one TLS 1.3 connection with nothing but
 * libev and OpenSSL (peer_bare.c), and the same program without TLS through a pair of
 * stunnels, as XCP migrates. They only copy bytes; Reeve also makes each page (the
 * simulated guest), frames and checks it, and the other side verifies its contents.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "perf/migrate/pair.h"
#include "perf/migrate/pinger.h"
#include "perf/report.h"

enum {
	ROUNDS_MAX = 3,
	RUNS_MAX = 20,
	LIMIT_MS = 300,
	FORESEEN_PCT = 25,
	PAGE = 4096,
	SPARE_MIB = 3072
};

/* Of the link, where it was not measured: bytes per second. */
#define SPEED_ASSUMED 700e6

struct bench {
	struct report report;
	struct cluster pair;
	const char *dir;
	uint64_t guest_bytes;
	size_t rounds; /* of each measurement of speed */
	size_t runs;   /* migrations of a busy guest, per rate */
};

/* --- the peers --- */

struct peer_result {
	double bytes_per_s, send_cpu_ns; /* per byte */
};

static double log_value(const char *log, const char *name)
{
	char line[256];
	double value = -1;
	FILE *f = fopen(log, "r");

	while (f && fgets(line, sizeof line, f)) {
		const char *at = strstr(line, name);

		if (at)
			value = atof(at + strlen(name));
	}
	if (f)
		fclose(f);
	if (value < 0)
		report_die("no %s in %s", name, log);
	return value;
}

/* Sends the guest's bytes to `to` and takes them at `at`; with TLS, or through others. */
static struct peer_result run_peer(struct bench *b, int to, int at, bool tls)
{
	struct host *h = &b->pair.hosts[0].host;
	char program[CHILD_PATH_MAX * 2], to_port[16], at_port[16], bytes[32];
	char logs[2][CHILD_PATH_MAX + 32];
	char *receive[] = {
		program, "receive", at_port, tls ? h->cert : NULL, h->key, NULL};
	char *send[] = {program, "send", to_port, bytes, tls ? "tls" : NULL, NULL};
	pid_t receiver, sender;
	struct peer_result r;

	child_program(program, sizeof program, "perf/peer_migrate_bare");
	snprintf(to_port, sizeof to_port, "%d", to);
	snprintf(at_port, sizeof at_port, "%d", at);
	snprintf(bytes, sizeof bytes, "%" PRIu64, b->guest_bytes);
	for (int i = 0; i < 2; i++)
		snprintf(logs[i], sizeof logs[i], "%s/peer%d.log", b->dir, i);
	receiver = child_start(receive, logs[0], NULL);
	/* It takes one connection, and stunnel asks for it once. */
	child_await_port(receiver, at, logs[0]);
	sender = child_start(send, logs[1], NULL);
	child_finish(sender, logs[1]);
	child_finish(receiver, logs[0]);
	r.bytes_per_s = (double)b->guest_bytes / log_value(logs[1], "seconds=");
	r.send_cpu_ns = log_value(logs[1], "cpu_s=") * 1e9 / (double)b->guest_bytes;
	return r;
}

static struct peer_result run_bare(struct bench *b)
{
	int port = host_free_port();

	return run_peer(b, port, port, true);
}

static pid_t start_stunnel(struct bench *b, bool client, int accept, int connect)
{
	struct host *h = &b->pair.hosts[0].host;
	char config[CHILD_PATH_MAX + 32], log[CHILD_PATH_MAX + 32];
	char *argv[] = {"stunnel", config, NULL};
	pid_t pid;
	FILE *f;

	snprintf(config, sizeof config, "%s/stunnel-%d.conf", b->dir, client);
	snprintf(log, sizeof log, "%s/stunnel-%d.log", b->dir, client);
	f = fopen(config, "w");
	if (!f)
		report_die("can't write %s", config);
	fprintf(f,
		"foreground = yes\npid =\nsyslog = no\ndebug = 4\n"
		"sslVersionMin = TLSv1.3\n[migrate]\nclient = %s\n"
		"accept = 127.0.0.1:%d\nconnect = 127.0.0.1:%d\n",
		client ? "yes" : "no", accept, connect);
	if (!client)
		fprintf(f, "cert = %s\nkey = %s\n", h->cert, h->key);
	fclose(f);
	pid = child_start(argv, log, NULL);
	child_await_port(pid, accept, log);
	return pid;
}

static struct peer_result run_stunnel(struct bench *b)
{
	int first = host_free_port(), tls = host_free_port(), last = host_free_port();
	pid_t server = start_stunnel(b, false, tls, last);
	pid_t client = start_stunnel(b, true, first, tls);
	struct peer_result r;

	r = run_peer(b, first, last, false);
	child_stop(client);
	child_stop(server);
	return r;
}

/* --- speed --- */

struct speed {
	double memory_per_s, stream_per_s, send_cpu_ns, receive_cpu_ns;
};

/* An idle guest there and back; used_ppm of its pages are not zero. */
static struct speed run_idle(struct bench *b, const char *used_ppm)
{
	const char *const platform[][2] = {
		{"sim.used_ppm", used_ppm}, {"sim.boot", "1ms"}, {"sim.load_ppm", "0"}};
	char vm[HOST_UUID_SIZE];
	struct speed s = {0};

	pair_make_vm(&b->pair, "idle", b->guest_bytes, platform, 3, vm);
	for (int from = 0; from < 2; from++) {
		struct pair_move m = pair_move(&b->pair, from, vm);

		s.memory_per_s += (double)b->guest_bytes / m.total_ms * 1e3 / 2;
		s.stream_per_s += m.bytes / m.total_ms * 1e3 / 2;
		s.send_cpu_ns += m.cpu_s[0] * 1e9 / m.bytes / 2;
		s.receive_cpu_ns += m.cpu_s[1] * 1e9 / m.bytes / 2;
	}
	pair_end_vm(&b->pair, vm);
	return s;
}

/* In turn, so that what disturbs one disturbs the others; medians. Returns the speed of
 * Reeve's stream, bytes per second. */
static double measure_speed(struct bench *b)
{
	double full[ROUNDS_MAX], zero[ROUNDS_MAX], bare[ROUNDS_MAX], tunnel[ROUNDS_MAX];
	double send[ROUNDS_MAX], receive[ROUNDS_MAX], bare_cpu[ROUNDS_MAX];
	double speed;

	for (size_t i = 0; i < b->rounds; i++) {
		struct peer_result peer = run_bare(b);
		struct speed s = run_idle(b, "1000000");

		bare[i] = peer.bytes_per_s / 1e6;
		bare_cpu[i] = peer.send_cpu_ns;
		full[i] = s.stream_per_s / 1e6;
		send[i] = s.send_cpu_ns;
		receive[i] = s.receive_cpu_ns;
		tunnel[i] = run_stunnel(b).bytes_per_s / 1e6;
		zero[i] = run_idle(b, "250000").memory_per_s / 1e6;
	}
	speed = report_percentile(full, b->rounds, 0.5);
	report_add(&b->report,
		(struct report_result){.name = "stream_random_vs_stunnel",
			.unit = "MB/s",
			.value = speed,
			.peer = "stunnel pair",
			.peer_value = report_percentile(tunnel, b->rounds, 0.5),
			.kind = REPORT_RATIO_AT_LEAST,
			.bar = 2.2});
	report_add(
		&b->report, (struct report_result){.name = "stream_random_vs_bare",
				    .unit = "MB/s",
				    .value = speed,
				    .peer = "bare libev + OpenSSL",
				    .peer_value = report_percentile(bare, b->rounds, 0.5),
				    .kind = REPORT_RATIO_AT_LEAST,
				    .bar = 0.9});
	report_add(&b->report, (struct report_result){.name = "stream_zero75_vs_random",
				       .unit = "MB/s",
				       .value = report_percentile(zero, b->rounds, 0.5),
				       .peer = "its own random pages",
				       .peer_value = speed,
				       .kind = REPORT_RATIO_AT_LEAST,
				       .bar = 3});
	report_add(&b->report,
		(struct report_result){.name = "send_cpu_ns_per_byte",
			.unit = "ns",
			.value = report_percentile(send, b->rounds, 0.5),
			.peer = "bare libev + OpenSSL",
			.peer_value = report_percentile(bare_cpu, b->rounds, 0.5)});
	report_add(
		&b->report, (struct report_result){.name = "receive_cpu_ns_per_byte",
				    .unit = "ns",
				    .value = report_percentile(receive, b->rounds, 0.5)});
	return speed * 1e6;
}

/* --- pauses --- */

struct pauses {
	double ms[2 * RUNS_MAX], error_pct[2 * RUNS_MAX], ping_ms[2 * RUNS_MAX];
	size_t count, within, foreseen;
};

/* A guest that writes at this share of the link's rate, moved there and back. */
static void run_busy(struct bench *b, double bytes_per_s, struct pauses *p)
{
	char rate[32], vm[HOST_UUID_SIZE];
	const char *const platform[][2] = {{"sim.used_ppm", "1000000"},
		{"sim.boot", "1ms"}, {"sim.working_set", "256MiB"},
		{"sim.dirty_pages_per_s", rate}};
	size_t pings;

	snprintf(rate, sizeof rate, "%.0f", bytes_per_s / PAGE);
	pair_make_vm(&b->pair, "busy", b->guest_bytes, platform, 4, vm);
	for (size_t i = 0; i < b->runs; i++) {
		struct pinger *pinger = pinger_start(&b->pair.hosts[i % 2].host, vm);
		struct pair_move m = pair_move(&b->pair, (int)(i % 2), vm);

		p->ping_ms[p->count] = pinger_stop(pinger, &pings);
		p->ms[p->count] = m.downtime_ms;
		p->error_pct[p->count] =
			fabs(m.predicted_ms - m.downtime_ms) / m.downtime_ms * 100;
		p->within += m.downtime_ms <= LIMIT_MS;
		p->foreseen += p->error_pct[p->count] <= FORESEEN_PCT;
		p->count++;
		fprintf(stderr,
			"perf migrate: writing %.0f MB/s: %.1f s, %.0f MB, paused %.1f "
			"ms, "
			"expected %.1f ms\n",
			bytes_per_s / 1e6, m.total_ms / 1e3, m.bytes / 1e6, m.downtime_ms,
			m.predicted_ms);
	}
	pair_end_vm(&b->pair, vm);
}

static void measure_pauses(struct bench *b, double speed)
{
	static struct pauses p;

	run_busy(b, 0.1 * speed, &p);
	run_busy(b, 0.5 * speed, &p);
	report_add(
		&b->report, (struct report_result){.name = "downtime_within_limit_pct",
				    .unit = "%",
				    .value = 100.0 * (double)p.within / (double)p.count,
				    .kind = REPORT_VALUE_AT_LEAST,
				    .bar = 95});
	report_add(&b->report, (struct report_result){.name = "downtime_ms",
				       .unit = "ms",
				       .value = report_percentile(p.ms, p.count, 0.5)});
	report_add(&b->report,
		(struct report_result){.name = "downtime_prediction_error_pct",
			.unit = "%",
			.value = report_percentile(p.error_pct, p.count, 0.5),
			.kind = REPORT_VALUE_AT_MOST,
			.bar = 25});
	report_add(
		&b->report, (struct report_result){.name = "downtime_foreseen_pct",
				    .unit = "%",
				    .value = 100.0 * (double)p.foreseen / (double)p.count,
				    .kind = REPORT_VALUE_AT_LEAST,
				    .bar = 95});
	report_add(
		&b->report, (struct report_result){.name = "rpc_p99_ms",
				    .unit = "ms",
				    .value = report_percentile(p.ping_ms, p.count, 0.5),
				    .kind = REPORT_VALUE_AT_MOST,
				    .bar = 5});
}

int main(int argc, char **argv)
{
	static struct bench b;
	char memory[64];
	double speed;
	const char *const settings[] = {memory, NULL};

	report_begin(&b.report, "migrate", argc, argv);
	b.guest_bytes = UINT64_C(1) << (b.report.quick ? 26 : 32);
	b.rounds = b.report.quick ? 1 : ROUNDS_MAX;
	b.runs = b.report.quick ? 2 : RUNS_MAX / 2;
	if (b.report.times && b.report.times < b.runs)
		b.runs = b.report.times;
	if (b.report.times && b.report.times < b.rounds)
		b.rounds = b.report.times;
	b.dir = child_directory();
	snprintf(memory, sizeof memory, "hypervisor.sim-memory=%dMiB",
		(int)(b.guest_bytes >> 20) + SPARE_MIB);
	cluster_start(&b.pair, b.dir, 2, false, settings);
	speed = report_wants(&b.report, "speed") ? measure_speed(&b) : SPEED_ASSUMED;
	if (report_wants(&b.report, "pauses"))
		measure_pauses(&b, speed);
	cluster_stop(&b.pair);
	return report_end(&b.report);
}
