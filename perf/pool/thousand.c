/*
 * A pool of a thousand hosts: a real master, the members of one load process, each with a
 * TLS link of its own, that follow the log and send the metrics of 20 running VMs once a
 * second, and at last one more real host that joins.
 *
 * The master's cost is that of its process. What the members would cost, the part with
 * fifteen hosts tells.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "perf/cluster.h"
#include "perf/pool/parts.h"
#include "rpc/message.h"

enum {
	HOSTS = 1000,
	QUICK_HOSTS = 6,
	VMS_PER_HOST = 20,
	CALL_MS = 60000,
	SETTLE_S = 10,
	SECONDS = 30,
	READY_POLLS = 6000, /* ten minutes */
	POLL_US = 100000,
	TEXT_MAX = 16384,
};

struct thousand {
	struct report *report;
	struct cluster cluster; /* the master; at last one more */
	char dir[CHILD_PATH_MAX], log[CHILD_PATH_MAX + 16];
	char tokens[CHILD_PATH_MAX + 16];
	char cpu[TEXT_MAX], xen[64];
	int hosts;
	pid_t load;
};

static const msgpack_object *ask(struct thousand *t, const char *method)
{
	struct host *h = &t->cluster.hosts[0].host;
	const msgpack_object *result;
	struct rv_error e = {0};

	rpc_client_begin(h->client, method, 0);
	if (rpc_client_end(h->client, CALL_MS, &result, &e))
		report_die("%s: %s", method, e.detail);
	return rpc_map_get(result, "value");
}

static void copy_text(const msgpack_object *o, char *out, size_t size, const char *what)
{
	if (!o || o->type != MSGPACK_OBJECT_STR || o->via.str.size >= size)
		report_die("the master's record has no %s", what);
	memcpy(out, o->via.str.ptr, o->via.str.size);
	out[o->via.str.size] = '\0';
}

/* What a host that joins must say of itself: what the master says. */
static void read_host(struct thousand *t)
{
	const msgpack_object *all = ask(t, "host.get_all_records"), *record;

	if (all->type != MSGPACK_OBJECT_MAP || all->via.map.size != 1)
		report_die("the pool has not one host");
	record = &all->via.map.ptr[0].val;
	copy_text(rpc_map_get(record, "cpu_policy"), t->cpu, sizeof t->cpu, "CPU policy");
	copy_text(rpc_map_get(
			  rpc_map_get(record, "software_version"), "hypervisor-version"),
		t->xen, sizeof t->xen, "version of Xen");
}

static void issue_tokens(struct thousand *t, int count)
{
	FILE *f;

	snprintf(t->tokens, sizeof t->tokens, "%s/tokens", t->dir);
	f = fopen(t->tokens, "w");
	for (int i = 0; f && i < count; i++) {
		char token[256];

		copy_text(ask(t, "pool.issue_join_token"), token, sizeof token, "token");
		fprintf(f, "%s\n", token);
	}
	if (!f || fclose(f) != 0)
		report_die("can't write %s", t->tokens);
}

static void start_load(struct thousand *t, int count)
{
	char program[CHILD_PATH_MAX * 2], number[16], vms[16];
	char *argv[] = {program, t->cluster.hosts[0].address, t->tokens, number, vms,
		t->cpu, t->xen, NULL};
	struct stat s;

	child_program(program, sizeof program, "perf/peer_pool_members");
	snprintf(number, sizeof number, "%d", count);
	snprintf(vms, sizeof vms, "%d", VMS_PER_HOST);
	snprintf(t->log, sizeof t->log, "%s/load.log", t->dir);
	t->load = child_start(argv, t->log, NULL);
	for (int i = 0; i < READY_POLLS; i++) {
		char text[8] = "";
		FILE *f;

		usleep(POLL_US);
		child_check(t->load, t->log);
		if (stat(t->log, &s) != 0 || s.st_size == 0)
			continue;
		f = fopen(t->log, "r");
		for (char line[300]; f && fgets(line, sizeof line, f);)
			if (strcmp(line, "ready\n") == 0)
				snprintf(text, sizeof text, "ready");
		if (f)
			fclose(f);
		if (text[0])
			return;
	}
	report_die(
		"%d members are not all linked after ten minutes; see %s", count, t->log);
}

static double rss_mib(pid_t pid)
{
	char path[64], line[256];
	double kib = 0;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof line, f))
		if (strncmp(line, "VmRSS:", 6) == 0)
			kib = atof(line + 6);
	if (f)
		fclose(f);
	return kib / 1024;
}

static void measure_master(struct thousand *t)
{
	pid_t master = t->cluster.hosts[0].host.pid;
	double cpu_s, load_s, began_s;

	fprintf(stderr, "perf pool: %d hosts are linked; now nothing is asked\n",
		t->hosts - 1);
	sleep(t->report->quick ? 1 : SETTLE_S);
	cpu_s = report_cpu_s(master);
	load_s = report_cpu_s(t->load);
	began_s = report_now_s();
	sleep(t->report->quick ? 1 : SECONDS);
	cpu_s = (report_cpu_s(master) - cpu_s) / (report_now_s() - began_s) * 100;
	load_s = (report_cpu_s(t->load) - load_s) / (report_now_s() - began_s) * 100;
	report_add(t->report, (struct report_result){.name = "master_cpu_1000_pct",
				      .unit = "%",
				      .value = cpu_s,
				      .kind = REPORT_VALUE_AT_MOST,
				      .bar = 50});
	report_add(t->report, (struct report_result){.name = "master_rss_1000_mib",
				      .unit = "MiB",
				      .value = rss_mib(master),
				      .kind = REPORT_VALUE_AT_MOST,
				      .bar = 1024});
	report_add(t->report,
		(struct report_result){
			.name = "load_cpu_1000_pct", .unit = "%", .value = load_s});
}

/* From the call to its record being live by the master's word: the handshake, the restart
 * of its daemon as a member, the whole database. */
static void measure_join(struct thousand *t)
{
	double began_s = report_now_s();

	cluster_join_one(&t->cluster);
	report_add(t->report, (struct report_result){.name = "join_1000_s",
				      .unit = "s",
				      .value = report_now_s() - began_s});
	report_add(t->report, (struct report_result){.name = "member_rss_1000_mib",
				      .unit = "MiB",
				      .value = rss_mib(t->cluster.hosts[1].host.pid)});
}

static void allow_files(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) != 0)
		return;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}

void thousand_measure(struct report *r, const char *dir)
{
	static const char *const settings[] = {
		"hypervisor.sim-memory=4GiB", "log.level=warn", NULL};
	static struct thousand t;

	t.report = r;
	t.hosts = r->quick ? QUICK_HOSTS : HOSTS;
	snprintf(t.dir, sizeof t.dir, "%.100s/thousand", dir);
	if (mkdir(t.dir, 0700) != 0)
		report_die("can't make %s", t.dir);
	allow_files();
	cluster_start(&t.cluster, t.dir, 1, false, settings);
	read_host(&t);
	issue_tokens(&t, t.hosts - 2);
	start_load(&t, t.hosts - 2);
	measure_master(&t);
	measure_join(&t);
	cluster_stop(&t.cluster);
	child_stop(t.load);
}
