/*
 * What a pool costs when nobody asks anything: hosts with 20 running VMs each, metrics
 * once a second. Percent of one core, over some seconds, of the master and of the member
 * that took most.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "perf/cluster.h"
#include "perf/pool/parts.h"
#include "rpc/message.h"

enum { HOSTS = 15, VMS_PER_HOST = 20, CALL_MS = 60000, SECONDS = 30, SETTLE_S = 5 };
enum { READY_S = 60, AGAIN_US = 100 * 1000 };

/* A host that has just joined compares its database with what runs, and says so. */
static void start_vm(struct host *h, const char *uuid, const char *on)
{
	double began_s = report_now_s();
	struct rv_error e = {0};

	for (;;) {
		msgpack_packer *pk = rpc_client_begin(h->client, "VM.start", 2);

		rpc_pack_key(pk, "self");
		rpc_pack_text(pk, uuid);
		rpc_pack_key(pk, "on");
		rpc_pack_text(pk, on);
		if (!rpc_client_end(h->client, CALL_MS, NULL, &e))
			return;
		if (!rpc_client_retryable(h->client) ||
			report_now_s() - began_s > READY_S)
			report_die("VM.start: %s", e.detail);
		usleep(AGAIN_US);
	}
}

static void start_vms(struct cluster *c, int i, int vms)
{
	struct host *h = &c->hosts[0].host;
	char name[32], uuid[HOST_UUID_SIZE];

	for (int k = 0; k < vms; k++) {
		snprintf(name, sizeof name, "vm-%d-%d", i, k);
		host_make_vm(h, name, uuid);
		start_vm(h, uuid, c->hosts[i].uuid);
	}
}

void scale_measure(struct report *r, const char *dir)
{
	static const char *const settings[] = {"hypervisor.sim-memory=4GiB", NULL};
	static struct cluster c;
	char own[CHILD_PATH_MAX];
	double before[HOSTS], master_pct = 0, member_pct = 0, began_s;
	int hosts = r->quick ? 3 : HOSTS, master;

	snprintf(own, sizeof own, "%.100s/scale", dir);
	if (mkdir(own, 0700) != 0)
		report_die("can't make %s", own);
	cluster_start(&c, own, hosts, false, settings);
	for (int i = 0; i < hosts; i++)
		start_vms(&c, i, r->quick ? 1 : VMS_PER_HOST);
	fprintf(stderr, "perf pool: %d hosts run their VMs; now nothing is asked\n",
		hosts);
	sleep(r->quick ? 1 : SETTLE_S);
	master = cluster_master(&c, 0);
	for (int i = 0; i < hosts; i++)
		before[i] = report_cpu_s(c.hosts[i].host.pid);
	began_s = report_now_s();
	sleep(r->quick ? 1 : SECONDS);
	for (int i = 0; i < hosts; i++) {
		double pct = (report_cpu_s(c.hosts[i].host.pid) - before[i]) /
			     (report_now_s() - began_s) * 100;

		if (i == master)
			master_pct = pct;
		else if (pct > member_pct)
			member_pct = pct;
	}
	report_add(r, (struct report_result){.name = "master_cpu_15_pct",
			      .unit = "%",
			      .value = master_pct,
			      .peer = "the seed, cited",
			      .peer_value = 100,
			      .kind = REPORT_VALUE_AT_MOST,
			      .bar = 2});
	report_add(r, (struct report_result){.name = "member_cpu_15_pct",
			      .unit = "%",
			      .value = member_pct,
			      .peer = "the seed, cited",
			      .peer_value = 25,
			      .kind = REPORT_VALUE_AT_MOST,
			      .bar = 0.5});
	cluster_stop(&c);
}
