/*
 * Three hosts, each with a network of its own, and a client at each survivor. The master
 * is killed (-9), stopped (SIGSTOP), or its cable is cut without a word, in turn. What a
 * client sees is the time from that moment to the first acknowledgement of a write that
 * it began afterwards. The host then comes back, and the next round waits until it is
 * whole.
 *
 * Beside it stands xapi's: 600 s until a host is declared dead, and a person to tell
 * another one to be the master.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "perf/cluster.h"
#include "perf/pool/parts.h"
#include "perf/pool/writer.h"
#include "rpc/message.h"

enum { HOSTS = 3, TIMES = 50, CALL_MS = 60000, SETTLE_US = 1500 * 1000 };

enum harm { HARM_KILL, HARM_STOP, HARM_CUT, HARM_COUNT };

struct failover {
	struct cluster cluster;
	char pool[HOST_UUID_SIZE];
	double ms[HARM_COUNT][TIMES];
	long lost;
};

static void harm_do(struct failover *f, enum harm harm, int i)
{
	struct cluster_host *m = &f->cluster.hosts[i];

	if (harm == HARM_KILL) {
		kill(m->host.pid, SIGKILL);
	} else if (harm == HARM_STOP) {
		kill(m->host.pid, SIGSTOP);
	} else {
		cluster_cut(&f->cluster, i, true);
	}
}

static void harm_undo(struct failover *f, enum harm harm, int i)
{
	struct cluster_host *m = &f->cluster.hosts[i];

	if (harm == HARM_KILL) {
		child_stop(m->host.pid);
		cluster_revive(&f->cluster, i);
	} else if (harm == HARM_STOP) {
		kill(m->host.pid, SIGCONT);
	} else {
		cluster_cut(&f->cluster, i, false);
	}
}

/* What is stored under a key, as `asked` knows it after a barrier. */
static long stored(struct failover *f, int asked, const char *key)
{
	struct host *h = &f->cluster.hosts[asked].host;
	msgpack_packer *pk = rpc_client_begin(h->client, "pool.get_record", 2);
	const msgpack_object *result, *value;
	struct rv_error e = {0};

	rpc_pack_key(pk, "self");
	rpc_pack_text(pk, f->pool);
	rpc_pack_key(pk, "consistent");
	msgpack_pack_true(pk);
	if (rpc_client_end(h->client, CALL_MS, &result, &e))
		report_die("pool.get_record: %s", e.detail);
	value = rpc_map_get(
		rpc_map_get(rpc_map_get(result, "value"), "other_config"), key);
	return value && value->type == MSGPACK_OBJECT_STR
		       ? strtol(value->via.str.ptr, NULL, 10)
		       : 0;
}

static double fail_once(struct failover *f, enum harm harm)
{
	static const char *const keys[HOSTS] = {"perf0", "perf1", "perf2"};
	struct writer *writers[HOSTS] = {NULL};
	int master = cluster_master(&f->cluster, 0);
	double since_s, worst_ms = 0;

	if (master < 0)
		report_die("nobody leads before the master is harmed");
	for (int i = 0; i < HOSTS; i++)
		if (i != master)
			writers[i] =
				writer_start(&f->cluster.hosts[i].host, f->pool, keys[i]);
	for (int i = 0; i < HOSTS; i++)
		if (writers[i])
			writer_first_ack_ms(writers[i], 1e-9);
	since_s = report_now_s();
	harm_do(f, harm, master);
	for (int i = 0; i < HOSTS; i++) {
		double ms = writers[i] ? writer_first_ack_ms(writers[i], since_s) : 0;

		worst_ms = ms > worst_ms ? ms : worst_ms;
	}
	for (int i = 0; i < HOSTS; i++) {
		long number = writers[i] ? writer_stop(writers[i]) : 0;

		for (int k = 0; writers[i] && k < HOSTS; k++)
			if (k != master && stored(f, k, keys[i]) < number)
				f->lost++;
	}
	harm_undo(f, harm, master);
	cluster_await_whole(&f->cluster, (master + 1) % HOSTS);
	usleep(SETTLE_US);
	return worst_ms;
}

static void report_harm(
	struct report *r, const char *name, double *ms, size_t times, double p)
{
	report_add(r, (struct report_result){.name = name,
			      .unit = "ms",
			      .value = report_percentile(ms, times, p)});
}

void failover_measure(struct report *r, const char *dir)
{
	static const char *const settings[] = {"hypervisor.sim-memory=4GiB", NULL};
	static const char *const names[HARM_COUNT] = {
		"failover_kill_p50_ms", "failover_stop_p50_ms", "failover_cut_p50_ms"};
	static struct failover f;
	size_t times = r->quick ? 1 : r->times && r->times < TIMES ? r->times : TIMES;
	double worst = 0;

	if (system("ip netns add rvp-probe 2>/dev/null && ip netns del rvp-probe") != 0) {
		fprintf(stderr, "perf pool: failover needs network namespaces (root, "
				"iproute2); left out\n");
		return;
	}
	cluster_start(&f.cluster, dir, HOSTS, true, settings);
	host_pool(&f.cluster.hosts[0].host, f.pool);
	cluster_await_voters(&f.cluster, 0, HOSTS);
	for (size_t i = 0; i < times; i++)
		for (int harm = 0; harm < HARM_COUNT; harm++) {
			double ms = fail_once(&f, (enum harm)harm);

			f.ms[harm][i] = ms;
			worst = ms > worst ? ms : worst;
		}
	for (int harm = 0; harm < HARM_COUNT; harm++)
		report_harm(r, names[harm], f.ms[harm], times, 0.5);
	report_add(r, (struct report_result){.name = "failover_max_ms",
			      .unit = "ms",
			      .value = worst,
			      .peer = "xapi, declared dead",
			      .peer_value = 600e3,
			      .kind = REPORT_VALUE_AT_MOST,
			      .bar = 1000});
	report_add(r, (struct report_result){.name = "acked_lost",
			      .unit = "",
			      .value = (double)f.lost,
			      .kind = REPORT_VALUE_AT_MOST,
			      .bar = 0});
	cluster_stop(&f.cluster);
}
