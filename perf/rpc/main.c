/*
 * RPC: real, authenticated VM.get_record calls to a real reeved, beside a libnng server
 * that sends as many bytes, a bare libev socket server, and libvirtd. Rounds with Reeve
 * and with the peer take turns, so that what else the machine does hits both; the median
 * of the rounds counts.
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

enum { ROUNDS = 5, VMS = 100, OUTSTANDING = 64, CLIENTS = 50 };
#define ROUND_S 0.7
#define QUICK_S 0.04

struct bench {
	struct report report;
	struct host host;
	pid_t nng, bare;
	char nng_ipc[CHILD_PATH_MAX + 32], nng_tls[64], bare_path[CHILD_PATH_MAX];
	char bare_log[CHILD_PATH_MAX], nng_log[CHILD_PATH_MAX];
	void *ipc_request, *tls_request;
	size_t ipc_request_len, tls_request_len, reply_len;
	int rounds;
	double seconds;
};

/* A way to ask, and the names of what it yields. */
struct way {
	const char *rps, *p50, *p99, *cpu;
	int sockets, outstanding;
	bool tls;
	enum report_bar cpu_bar;
};

static const struct way ways[] = {
	{"ipc_sync_rps", "ipc_sync_p50_us", "ipc_sync_p99_us", "ipc_sync_cpu_us", 1, 1,
		false, REPORT_NO_BAR},
	{"ipc_64_rps", "ipc_64_p50_us", "ipc_64_p99_us", "ipc_64_cpu_us", 1, OUTSTANDING,
		false, REPORT_NO_BAR},
	{"ipc_50_rps", "ipc_50_p50_us", "ipc_50_p99_us", "ipc_50_cpu_us", CLIENTS, 1,
		false, REPORT_RATIO_AT_MOST},
	{"tls_sync_rps", "tls_sync_p50_us", "tls_sync_p99_us", "tls_sync_cpu_us", 1, 1,
		true, REPORT_NO_BAR},
	{"tls_50_rps", "tls_50_p50_us", "tls_50_p99_us", "tls_50_cpu_us", CLIENTS, 1,
		true, REPORT_NO_BAR},
};

/* --- both sides ----------------------------------------------------------------------
 */

static struct load *open_load(struct bench *b, const struct way *w, bool peer)
{
	struct load_config config = {
		.url = w->tls ? (peer ? b->nng_tls : b->host.tls)
			      : (peer ? b->nng_ipc : b->host.ipc),
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

static void measure(struct bench *b, const struct way *w)
{
	struct load *ours = open_load(b, w, false), *theirs = open_load(b, w, true);
	struct load_result us[ROUNDS], them[ROUNDS];
	const struct {
		const char *name, *unit;
		size_t member;
		enum report_bar kind;
		double bar;
	} parts[] = {
		{w->rps, "/s", offsetof(struct load_result, rps), REPORT_RATIO_AT_LEAST,
			1.5},
		{w->p50, "us", offsetof(struct load_result, p50_us), REPORT_NO_BAR, 0},
		{w->p99, "us", offsetof(struct load_result, p99_us), REPORT_NO_BAR, 0},
		{w->cpu, "us", offsetof(struct load_result, cpu_us), w->cpu_bar, 0.25},
	};

	load_run(ours, b->seconds / 4, b->host.pid); /* caches, buffers */
	load_run(theirs, b->seconds / 4, b->nng);
	for (int i = 0; i < b->rounds; i++) {
		us[i] = load_run(ours, b->seconds, b->host.pid);
		them[i] = load_run(theirs, b->seconds, b->nng);
	}
	load_close(ours);
	load_close(theirs);
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
		report_add(&b->report,
			(struct report_result){.name = parts[i].name,
				.unit = parts[i].unit,
				.value = median(us, b->rounds, parts[i].member),
				.peer = "libnng",
				.peer_value = median(them, b->rounds, parts[i].member),
				.kind = parts[i].kind,
				.bar = parts[i].bar});
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
	struct load *ours = open_load(b, &ways[0], false);
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

/* --- setting up ----------------------------------------------------------------------
 */

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
	probe = open_load(b, &ways[0], false);
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
		measure(&b, &ways[i]);
	measure_bare(&b);
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
