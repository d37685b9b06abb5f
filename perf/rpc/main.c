/*
 * RPC: real, authenticated VM.get_record calls to a real reeved, beside a libnng server
 * that sends as many bytes, a bare libev socket server, and libvirtd. Rounds with Reeve
 * and with the peer take turns, so that what else the machine does hits both; the median
 * of the rounds counts. Results named `limit` are the bare libev server's with the same
 * libnng client: no server can do better than that beside libnng's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "perf/child.h"
#include "perf/host.h"
#include "perf/load.h"
#include "perf/report.h"
#include "perf/rpc/libvirt.h"
#include "perf/rpc/raw.h"

enum { ROUNDS = 11, VMS = 100, OUTSTANDING = 64, CLIENTS = 50 };
#define ROUND_S 0.2
#define QUICK_S 0.04

struct bench {
	struct report report;
	struct host host;
	pid_t nng, bare;
	char nng_ipc[CHILD_PATH_MAX + 32], nng_tls[64], bare_path[CHILD_PATH_MAX];
	char bare_ipc[CHILD_PATH_MAX + 32];
	char bare_log[CHILD_PATH_MAX], nng_log[CHILD_PATH_MAX];
	void *ipc_request, *tls_request;
	size_t ipc_request_len, tls_request_len, reply_len;
	int rounds;
	double seconds;
};

/* A way to ask, and the names of what it yields. */
struct way {
	const char *part; /* for --only */
	const char *rps, *p50, *p99, *cpu;
	const char *limit_rps, *limit_cpu; /* NULL: not measured */
	int sockets, outstanding;
	bool tls;
	enum report_bar cpu_bar;
};

static const struct way ways[] = {
	{"ipc_sync", "ipc_sync_rps", "ipc_sync_p50_us", "ipc_sync_p99_us",
		"ipc_sync_cpu_us", "ipc_sync_limit_rps", "ipc_sync_limit_cpu_us", 1, 1,
		false, REPORT_NO_BAR},
	{"ipc_64", "ipc_64_rps", "ipc_64_p50_us", "ipc_64_p99_us", "ipc_64_cpu_us",
		"ipc_64_limit_rps", "ipc_64_limit_cpu_us", 1, OUTSTANDING, false,
		REPORT_NO_BAR},
	{"ipc_50", "ipc_50_rps", "ipc_50_p50_us", "ipc_50_p99_us", "ipc_50_cpu_us",
		"ipc_50_limit_rps", "ipc_50_limit_cpu_us", CLIENTS, 1, false,
		REPORT_RATIO_AT_MOST},
	{"tls_sync", "tls_sync_rps", "tls_sync_p50_us", "tls_sync_p99_us",
		"tls_sync_cpu_us", NULL, NULL, 1, 1, true, REPORT_NO_BAR},
	{"tls_50", "tls_50_rps", "tls_50_p50_us", "tls_50_p99_us", "tls_50_cpu_us", NULL,
		NULL, CLIENTS, 1, true, REPORT_NO_BAR},
};

/* --- both sides --- */

enum side { REEVE, LIBNNG, BARE };

static struct load *open_load(struct bench *b, const struct way *w, enum side side)
{
	const char *const plain[] = {b->host.ipc, b->nng_ipc, b->bare_ipc};
	const char *const tls[] = {b->host.tls, b->nng_tls, NULL};
	struct load_config config = {
		.url = w->tls ? tls[side] : plain[side],
		.ca_file = w->tls ? b->host.cert : NULL,
		.sockets = w->sockets,
		.outstanding = w->outstanding,
		.request = w->tls ? b->tls_request : b->ipc_request,
		.request_len = w->tls ? b->tls_request_len : b->ipc_request_len,
		.reply_start = host_reply_start,
		.reply_start_len = sizeof host_reply_start,
	};

	return load_open(&config);
}

static double median(const struct load_result *results, int count, size_t member)
{
	double values[ROUNDS];

	for (int i = 0; i < count; i++)
		memcpy(&values[i], (const char *)&results[i] + member, sizeof values[i]);
	return report_percentile(values, (size_t)count, 0.5);
}

static void add_beside(struct bench *b, const char *name, const char *unit, double value,
	double libnng, enum report_bar kind, double bar)
{
	report_add(&b->report, (struct report_result){.name = name,
				       .unit = unit,
				       .value = value,
				       .peer = "libnng",
				       .peer_value = libnng,
				       .kind = kind,
				       .bar = bar});
}

static void report_way(struct bench *b, const struct way *w,
	const struct load_result results[][ROUNDS], int sides)
{
	const size_t rps = offsetof(struct load_result, rps);
	const size_t p50 = offsetof(struct load_result, p50_us);
	const size_t p99 = offsetof(struct load_result, p99_us);
	const size_t cpu = offsetof(struct load_result, cpu_us);
	const struct load_result *us = results[REEVE], *them = results[LIBNNG];
	int n = b->rounds;

	add_beside(b, w->rps, "/s", median(us, n, rps), median(them, n, rps),
		REPORT_RATIO_AT_LEAST, 1.5);
	add_beside(b, w->p50, "us", median(us, n, p50), median(them, n, p50),
		REPORT_NO_BAR, 0);
	add_beside(b, w->p99, "us", median(us, n, p99), median(them, n, p99),
		REPORT_NO_BAR, 0);
	add_beside(b, w->cpu, "us", median(us, n, cpu), median(them, n, cpu), w->cpu_bar,
		0.25);
	if (sides <= BARE)
		return;
	add_beside(b, w->limit_rps, "/s", median(results[BARE], n, rps),
		median(them, n, rps), REPORT_NO_BAR, 0);
	add_beside(b, w->limit_cpu, "us", median(results[BARE], n, cpu),
		median(them, n, cpu), REPORT_NO_BAR, 0);
}

static void measure(struct bench *b, const struct way *w)
{
	const pid_t pids[] = {b->host.pid, b->nng, b->bare};
	struct load_result results[BARE + 1][ROUNDS];
	int sides = w->limit_rps ? BARE + 1 : LIBNNG + 1;
	struct load *loads[BARE + 1];

	for (int side = 0; side < sides; side++) {
		loads[side] = open_load(b, w, (enum side)side);
		load_run(loads[side], b->seconds / 4, pids[side]); /* caches, buffers */
	}
	for (int i = 0; i < b->rounds; i++)
		for (int side = 0; side < sides; side++)
			results[side][i] = load_run(loads[side], b->seconds, pids[side]);
	for (int side = 0; side < sides; side++)
		load_close(loads[side]);
	report_way(b, w, (const struct load_result(*)[ROUNDS])results, sides);
}

static void measure_bare(struct bench *b)
{
	struct raw_config config = {
		.path = b->host.ipc_path,
		.request = b->ipc_request,
		.request_len = b->ipc_request_len,
		.reply_start = host_reply_start,
		.reply_start_len = sizeof host_reply_start,
		.outstanding = OUTSTANDING,
	};
	struct raw *ours = raw_open(&config), *theirs;
	double us[ROUNDS], them[ROUNDS], our_cpu, their_cpu, our_count = 0, count = 0;

	config.path = b->bare_path;
	theirs = raw_open(&config);
	our_cpu = report_cpu_s(b->host.pid);
	their_cpu = report_cpu_s(b->bare);
	for (int i = 0; i < b->rounds; i++) {
		us[i] = raw_run(ours, b->seconds);
		them[i] = raw_run(theirs, b->seconds);
		our_count += us[i] * b->seconds;
		count += them[i] * b->seconds;
	}
	our_cpu = (report_cpu_s(b->host.pid) - our_cpu) / our_count * 1e6;
	their_cpu = (report_cpu_s(b->bare) - their_cpu) / count * 1e6;
	raw_close(ours);
	raw_close(theirs);
	report_add(&b->report,
		(struct report_result){.name = "ipc_64_vs_bare_rps",
			.unit = "/s",
			.value = report_percentile(us, (size_t)b->rounds, 0.5),
			.peer = "bare libev",
			.peer_value = report_percentile(them, (size_t)b->rounds, 0.5),
			.kind = REPORT_RATIO_AT_LEAST,
			.bar = 0.6});
	report_add(&b->report, (struct report_result){.name = "ipc_64_vs_bare_cpu_us",
				       .unit = "us",
				       .value = our_cpu,
				       .peer = "bare libev",
				       .peer_value = their_cpu});
}

static void measure_libvirt(struct bench *b, const char *dir)
{
	const char *why = "";
	struct libvirt *v = libvirt_open(dir, &why);
	struct load *ours = open_load(b, &ways[0], REEVE);
	struct load_result us[ROUNDS];
	double them[ROUNDS];
	struct report_result result = {.name = "ipc_sync_vs_libvirt_rps", .unit = "/s"};

	if (!v)
		printf("(no libvirt peer: %s)\n", why);
	for (int i = 0; i < b->rounds; i++) {
		us[i] = load_run(ours, b->seconds, b->host.pid);
		if (v)
			them[i] = libvirt_run(v, b->seconds);
	}
	load_close(ours);
	libvirt_close(v);
	result.value = median(us, b->rounds, offsetof(struct load_result, rps));
	if (v) {
		result.peer = "libvirtd virDomainGetInfo";
		result.peer_value = report_percentile(them, (size_t)b->rounds, 0.5);
		result.kind = REPORT_RATIO_AT_LEAST;
		result.bar = 1;
	}
	report_add(&b->report, result);
}

/* --- setting up --- */

static void start_peers(struct bench *b, const char *dir)
{
	char program[CHILD_PATH_MAX * 2], bytes[24],
		start[2 * sizeof host_reply_start + 1];
	char *nng[] = {program, b->nng_ipc, b->nng_tls, b->host.cert, b->host.key, bytes,
		start, NULL};
	char *bare[] = {program, b->bare_path, bytes, start, NULL};
	int port = 0;

	for (size_t i = 0; i < sizeof host_reply_start; i++)
		snprintf(start + 2 * i, 3, "%02x", host_reply_start[i]);
	snprintf(bytes, sizeof bytes, "%zu", b->reply_len);
	snprintf(b->nng_ipc, sizeof b->nng_ipc, "ipc://%.120s/nng.sock", dir);
	snprintf(b->bare_path, sizeof b->bare_path, "%.120s/bare.sock", dir);
	snprintf(b->bare_ipc, sizeof b->bare_ipc, "ipc://%.160s", b->bare_path);
	snprintf(b->nng_log, sizeof b->nng_log, "%.120s/nng.log", dir);
	snprintf(b->bare_log, sizeof b->bare_log, "%.120s/bare.log", dir);
	port = host_free_port();
	snprintf(b->nng_tls, sizeof b->nng_tls, "tls+tcp://127.0.0.1:%d", port);
	child_program(program, sizeof program, "perf/peer_rpc_nng");
	b->nng = child_start(nng, b->nng_log, NULL);
	child_await_path(b->nng, b->nng_ipc + strlen("ipc://"), b->nng_log);
	child_program(program, sizeof program, "perf/peer_rpc_bare");
	b->bare = child_start(bare, b->bare_log, NULL);
	child_await_path(b->bare, b->bare_path, b->bare_log);
}

static void set_up(struct bench *b, const char *dir)
{
	static const char *const settings[] = {"log.level=warn", NULL};
	char uuid[HOST_UUID_SIZE], name[32], token[HOST_TOKEN_SIZE];
	struct load *probe;

	host_start(&b->host, dir, settings);
	for (int i = 0; i < VMS; i++) {
		snprintf(name, sizeof name, "vm%d", i);
		host_make_vm(&b->host, name, uuid);
	}
	host_login(&b->host, token);
	b->ipc_request =
		host_request(&b->ipc_request_len, "VM.get_record", "self", uuid, NULL);
	b->tls_request = host_request(&b->tls_request_len, "VM.get_record", "self", uuid,
		"session", token, NULL);
	probe = open_load(b, &ways[0], REEVE);
	b->reply_len = load_reply_bytes(probe);
	load_close(probe);
	start_peers(b, dir);
}

int main(int argc, char **argv)
{
	static struct bench b;
	const char *dir;

	report_begin(&b.report, "rpc", argc, argv);
	b.rounds = b.report.quick ? 1 : ROUNDS;
	b.seconds = b.report.quick ? QUICK_S : ROUND_S;
	dir = child_directory();
	set_up(&b, dir);
	for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++)
		if (report_wants(&b.report, ways[i].part))
			measure(&b, &ways[i]);
	if (report_wants(&b.report, "bare"))
		measure_bare(&b);
	if (report_wants(&b.report, "libvirt"))
		measure_libvirt(&b, dir);
	report_add(&b.report, (struct report_result){.name = "reply_bytes",
				      .unit = "B",
				      .value = (double)b.reply_len});
	child_stop(b.bare);
	child_stop(b.nng);
	host_stop(&b.host);
	free(b.ipc_request);
	free(b.tls_request);
	return report_end(&b.report);
}
