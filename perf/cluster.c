#include "perf/cluster.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "perf/report.h"
#include "rpc/message.h"

enum { CLUSTER_MORE = 1 };
enum { CALL_MS = 60000, TRIES = 1200, TRY_US = 50000, PORT = 7473 };

/* --- calls --- */

/* The value of a call without params, borrowed until the next; NULL: it was refused. */
static const msgpack_object *cluster_ask(
	struct host *h, const char *method, struct rv_error *e)
{
	const msgpack_object *result;

	rpc_client_begin(h->client, method, 0);
	if (rpc_client_end(h->client, CALL_MS, &result, e))
		return NULL;
	return rpc_map_get(result, "value");
}

static bool cluster_copy(const msgpack_object *o, char *out, size_t size)
{
	if (!o || o->type != MSGPACK_OBJECT_STR || o->via.str.size >= size)
		return false;
	memcpy(out, o->via.str.ptr, o->via.str.size);
	out[o->via.str.size] = '\0';
	return true;
}

/* A daemon that starts anew leaves its old connection useless. */
static void cluster_reconnect(struct host *h)
{
	struct rpc_client_config config = {.url = h->ipc};
	struct rv_error e = {0};

	rpc_client_close(h->client);
	for (int tries = 0; rpc_client_open(&h->client, &config, &e); tries++) {
		if (tries == TRIES)
			report_die("%s", e.detail);
		usleep(TRY_US);
	}
}

/* --- networks --- */

__attribute__((format(printf, 1, 2))) static void ip(const char *fmt, ...)
{
	char command[300] = "ip ";
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command + 3, sizeof command - 3, fmt, ap);
	va_end(ap);
	if (system(command) != 0)
		report_die("%s: failed; namespaces need root and iproute2", command);
}

static void drop_networks(int status, void *arg)
{
	const struct cluster *c = arg;
	char command[100];

	(void)status;
	for (int i = -1; i < c->count; i++) {
		snprintf(command, sizeof command, "ip netns del %s 2>/dev/null",
			i < 0 ? c->hub : c->hosts[i].netns);
		if (system(command) != 0)
			continue;
	}
}

static void make_networks(struct cluster *c)
{
	snprintf(c->hub, sizeof c->hub, "rvp%d", (int)getpid());
	for (int i = 0; i < c->count; i++)
		snprintf(c->hosts[i].netns, sizeof c->hosts[i].netns, "rvp%d-%d",
			(int)getpid(), i);
	on_exit(drop_networks, c);
	ip("netns add %s", c->hub);
	ip("-n %s link add hub type bridge", c->hub);
	ip("-n %s link set hub up", c->hub);
	for (int i = 0; i < c->count; i++) {
		const char *ns = c->hosts[i].netns;

		ip("netns add %s", ns);
		ip("-n %s link set lo up", ns);
		ip("-n %s link add eth0 type veth peer name port%d netns %s", ns, i,
			c->hub);
		ip("-n %s address add 10.231.0.%d/24 dev eth0", ns, i + 1);
		ip("-n %s link set eth0 up", ns);
		ip("-n %s link set port%d master hub up", c->hub, i);
	}
}

void cluster_cut(struct cluster *c, int i, bool cut)
{
	ip("-n %s link set port%d %s", c->hub, i, cut ? "down" : "up");
}

/* --- hosts --- */

static void start_one(struct cluster *c, int i)
{
	struct cluster_host *m = &c->hosts[i];
	char listen[CLUSTER_ADDRESS_SIZE + 16], name[32];
	const char *settings[CLUSTER_SETTINGS_MAX + 3] = {listen, name};

	for (int k = 0; c->settings[k] && k < CLUSTER_SETTINGS_MAX; k++)
		settings[2 + k] = c->settings[k];
	snprintf(listen, sizeof listen, "pool.listen=%s", m->address);
	snprintf(name, sizeof name, "host.name-label=h%d", i);
	host_start_in(&m->host, m->dir, m->netns[0] ? m->netns : NULL, settings);
}

/* UUIDs are keys of the records; true when the host of that name is live. */
static bool find_live(struct cluster *c, int asked, int i)
{
	struct rv_error e = {0};
	const msgpack_object *all =
		cluster_ask(&c->hosts[asked].host, "host.get_all_records", &e);
	char label[64], name[16];

	snprintf(name, sizeof name, "h%d", i);
	if (!all || all->type != MSGPACK_OBJECT_MAP)
		return false;
	for (uint32_t k = 0; k < all->via.map.size; k++) {
		const msgpack_object_kv *host = &all->via.map.ptr[k];
		const msgpack_object *live = rpc_map_get(&host->val, "live");

		if (!cluster_copy(
			    rpc_map_get(&host->val, "name_label"), label, sizeof label) ||
			strcmp(label, name) != 0)
			continue;
		return cluster_copy(&host->key, c->hosts[i].uuid, HOST_UUID_SIZE) &&
		       live && live->type == MSGPACK_OBJECT_BOOLEAN && live->via.boolean;
	}
	return false;
}

static void await_live(struct cluster *c, int asked, int i)
{
	for (int tries = 0; !find_live(c, asked, i); tries++) {
		if (tries == TRIES)
			report_die("host h%d is not heard of; see %s", i,
				c->hosts[i].host.log);
		usleep(TRY_US);
	}
}

void cluster_await_whole(struct cluster *c, int asked)
{
	for (int i = 0; i < c->count; i++)
		await_live(c, asked, i);
}

void cluster_await_voters(struct cluster *c, int asked, int voters)
{
	for (int tries = 0, count = 0; count < voters; tries++) {
		struct rv_error e = {0};
		const msgpack_object *all =
			cluster_ask(&c->hosts[asked].host, "host.get_all_records", &e);
		char role[32];

		if (tries == TRIES)
			report_die("%d of %d hosts vote; see %s", count, voters,
				c->hosts[asked].host.log);
		usleep(TRY_US);
		count = 0;
		if (!all || all->type != MSGPACK_OBJECT_MAP)
			continue;
		for (uint32_t k = 0; k < all->via.map.size; k++)
			count += cluster_copy(rpc_map_get(&all->via.map.ptr[k].val,
						      "raft_role"),
					 role, sizeof role) &&
				 strcmp(role, "voter") == 0;
	}
}

static void join(struct cluster *c, int i)
{
	struct host *first = &c->hosts[0].host, *h = &c->hosts[i].host;
	struct rv_error e = {0};
	char token[256];
	msgpack_packer *pk;

	if (!cluster_copy(
		    cluster_ask(first, "pool.issue_join_token", &e), token, sizeof token))
		report_die("pool.issue_join_token: %s", e.detail);
	pk = rpc_client_begin(h->client, "pool.join", 2);
	rpc_pack_key(pk, "master_address");
	rpc_pack_text(pk, c->hosts[0].address);
	rpc_pack_key(pk, "token");
	rpc_pack_text(pk, token);
	if (rpc_client_end(h->client, CALL_MS, NULL, &e))
		report_die("pool.join: %s", e.detail);
	await_live(c, 0, i);
	cluster_reconnect(h);
}

static void make_one(struct cluster *c, int i)
{
	struct cluster_host *m = &c->hosts[i];

	snprintf(m->dir, sizeof m->dir, "%.100s/h%d", c->dir, i);
	if (mkdir(m->dir, 0700) != 0)
		report_die("can't make %s", m->dir);
	if (c->hub[0])
		snprintf(
			m->address, sizeof m->address, "tcp:10.231.0.%d:%d", i + 1, PORT);
	else
		snprintf(m->address, sizeof m->address, "tcp:127.0.0.1:%d",
			host_free_port());
	start_one(c, i);
	if (i == 0)
		host_await_up(&m->host);
	else
		join(c, i);
}

void cluster_start(struct cluster *c, const char *dir, int count, bool namespaces,
	const char *const *settings)
{
	memset(c, 0, sizeof *c);
	c->hosts = calloc((size_t)count + CLUSTER_MORE, sizeof *c->hosts);
	if (!c->hosts)
		report_die("out of memory");
	c->count = count;
	c->settings = settings;
	if (namespaces)
		make_networks(c);
	snprintf(c->dir, sizeof c->dir, "%s", dir);
	for (int i = 0; i < count; i++)
		make_one(c, i);
	await_live(c, 0, 0);
}

void cluster_join_one(struct cluster *c)
{
	make_one(c, c->count++);
}

void cluster_stop(struct cluster *c)
{
	for (int i = c->count - 1; i >= 0; i--)
		host_stop(&c->hosts[i].host);
}

void cluster_revive(struct cluster *c, int i)
{
	rpc_client_close(c->hosts[i].host.client);
	c->hosts[i].host.client = NULL;
	start_one(c, i);
}

int cluster_master(struct cluster *c, int asked)
{
	struct rv_error e = {0};
	const msgpack_object *all =
		cluster_ask(&c->hosts[asked].host, "pool.get_all_records", &e);
	char master[HOST_UUID_SIZE];

	if (!all || all->type != MSGPACK_OBJECT_MAP || all->via.map.size != 1 ||
		!cluster_copy(rpc_map_get(&all->via.map.ptr[0].val, "master"), master,
			sizeof master))
		return -1;
	for (int i = 0; i < c->count; i++)
		if (strcmp(master, c->hosts[i].uuid) == 0)
			return i;
	return -1;
}
