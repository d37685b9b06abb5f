#include "perf/migrate/pair.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "perf/report.h"
#include "rpc/message.h"

enum { CALL_MS = 120000, TRIES = 600, TRY_US = 50000, MIB = 1 << 20, SPARE_MIB = 3072 };

/* --- calls ------------------------------------------------------------------- */

/* The call's value, borrowed until the next; NULL: refused, as *e says. */
static const msgpack_object *pair_end(struct host *h, struct rv_error *e)
{
	const msgpack_object *result;

	if (rpc_client_end(h->client, CALL_MS, &result, e))
		return NULL;
	return rpc_map_get(result, "value");
}

static const msgpack_object *pair_must(struct host *h, const char *method)
{
	struct rv_error e = {0};
	const msgpack_object *value = pair_end(h, &e);

	if (!value)
		report_die("%s: %s", method, e.detail);
	return value;
}

static void pair_copy(const msgpack_object *o, char *out, size_t size)
{
	if (o->type != MSGPACK_OBJECT_STR || o->via.str.size >= size)
		report_die("a text of at most %zu bytes was expected", size - 1);
	memcpy(out, o->via.str.ptr, o->via.str.size);
	out[o->via.str.size] = '\0';
}

static void pair_text(msgpack_packer *pk, const char *key, const char *text)
{
	rpc_pack_key(pk, key);
	rpc_pack_text(pk, text);
}

/* --- the pool ---------------------------------------------------------------- */

static void pair_begin(
	struct pair *p, int i, const char *dir, const char *address, uint64_t bytes)
{
	char own[CHILD_PATH_MAX], listen[160], name[32], memory[64];
	const char *settings[] = {listen, name, memory, NULL};

	snprintf(own, sizeof own, "%.100s/%c", dir, 'a' + i);
	snprintf(listen, sizeof listen, "pool.listen=%s", address);
	snprintf(name, sizeof name, "host.name-label=%c", 'a' + i);
	snprintf(memory, sizeof memory, "hypervisor.sim-memory=%dMiB",
		(int)(bytes / MIB) + SPARE_MIB);
	if (mkdir(own, 0700) != 0)
		report_die("can't make %s", own);
	host_start(&p->hosts[i], own, settings);
}

/* The host of that name, if the first one hears of it; UUIDs are keys of the records. */
static bool pair_find(struct pair *p, int i)
{
	const msgpack_object *all;
	char name[64];

	rpc_client_begin(p->hosts[0].client, "host.get_all_records", 0);
	all = pair_must(&p->hosts[0], "host.get_all_records");
	for (uint32_t k = 0; all->type == MSGPACK_OBJECT_MAP && k < all->via.map.size;
		k++) {
		const msgpack_object_kv *host = &all->via.map.ptr[k];
		const msgpack_object *label = rpc_map_get(&host->val, "name_label");
		const msgpack_object *live = rpc_map_get(&host->val, "live");

		if (!label || !live || live->type != MSGPACK_OBJECT_BOOLEAN ||
			!live->via.boolean)
			continue;
		pair_copy(label, name, sizeof name);
		if (name[0] != 'a' + i)
			continue;
		pair_copy(&host->key, p->uuids[i], sizeof p->uuids[i]);
		return true;
	}
	return false;
}

static void pair_join(struct pair *p, const char *master)
{
	char token[256];

	rpc_client_begin(p->hosts[0].client, "pool.issue_join_token", 0);
	pair_copy(pair_must(&p->hosts[0], "pool.issue_join_token"), token, sizeof token);
	msgpack_packer *pk = rpc_client_begin(p->hosts[1].client, "pool.join", 2);
	pair_text(pk, "master_address", master);
	pair_text(pk, "token", token);
	pair_must(&p->hosts[1], "pool.join");
}

/* The member's daemon starts anew, and its old connection is of no use. */
static void pair_reconnect(struct host *h)
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

void pair_start(struct pair *p, const char *dir, uint64_t guest_bytes)
{
	char address[2][64];

	memset(p, 0, sizeof *p);
	for (int i = 0; i < 2; i++) {
		snprintf(address[i], sizeof address[i], "tcp:127.0.0.1:%d",
			host_free_port());
		pair_begin(p, i, dir, address[i], guest_bytes);
	}
	host_await_up(&p->hosts[0]);
	pair_join(p, address[0]);
	for (int tries = 0; !pair_find(p, 0) || !pair_find(p, 1); tries++) {
		if (tries == TRIES)
			report_die("the second host is not heard of; see %s",
				p->hosts[1].log);
		usleep(TRY_US);
	}
	pair_reconnect(&p->hosts[1]);
}

void pair_stop(struct pair *p)
{
	host_stop(&p->hosts[1]);
	host_stop(&p->hosts[0]);
}

/* --- the VM ------------------------------------------------------------------ */

void pair_make_vm(struct pair *p, const char *name, uint64_t bytes,
	const char *const platform[][2], size_t platform_count, char uuid[HOST_UUID_SIZE])
{
	struct host *h = &p->hosts[0];
	msgpack_packer *pk = rpc_client_begin(h->client, "VM.create", 1);

	rpc_pack_key(pk, "record");
	msgpack_pack_map(pk, 4);
	pair_text(pk, "name_label", name);
	rpc_pack_key(pk, "memory_static_max");
	msgpack_pack_uint64(pk, bytes);
	pair_text(pk, "domain_type", "pvh");
	rpc_pack_key(pk, "platform");
	msgpack_pack_map(pk, platform_count);
	for (size_t i = 0; i < platform_count; i++)
		pair_text(pk, platform[i][0], platform[i][1]);
	pair_copy(pair_must(h, "VM.create"), uuid, HOST_UUID_SIZE);
	pk = rpc_client_begin(h->client, "VM.start", 2);
	pair_text(pk, "self", uuid);
	pair_text(pk, "on", p->uuids[0]);
	pair_must(h, "VM.start");
}

static void pair_operate(struct pair *p, const char *method, const char *uuid)
{
	msgpack_packer *pk = rpc_client_begin(p->hosts[0].client, method, 1);

	pair_text(pk, "self", uuid);
	pair_must(&p->hosts[0], method);
}

void pair_end_vm(struct pair *p, const char *uuid)
{
	pair_operate(p, "VM.hard_shutdown", uuid);
	pair_operate(p, "VM.destroy", uuid);
}

/* What the source expected of the last pause: the last line of its log that says so. */
static double pair_predicted_ms(const struct host *h)
{
	static const char mark[] = "predicted_us=";
	char line[1024];
	double us = 0;
	FILE *f = fopen(h->log, "r");

	if (!f)
		report_die("can't read %s", h->log);
	while (fgets(line, sizeof line, f)) {
		const char *at = strstr(line, mark);

		if (at)
			us = atof(at + strlen(mark));
	}
	fclose(f);
	return us / 1e3;
}

struct pair_move pair_move(struct pair *p, int from, const char *uuid)
{
	struct host *h = &p->hosts[from];
	struct pair_move m = {0};
	struct rv_error e = {0};
	const msgpack_object *value = NULL;
	char text[200];

	for (int i = 0; i < 2; i++)
		m.cpu_s[i] = report_cpu_s(p->hosts[i == 0 ? from : !from].pid);
	for (int tries = 0; !value; tries++) {
		msgpack_packer *pk = rpc_client_begin(h->client, "VM.migrate", 3);

		pair_text(pk, "self", uuid);
		pair_text(pk, "host", p->uuids[!from]);
		rpc_pack_key(pk, "accept");
		msgpack_pack_true(pk);
		value = pair_end(h, &e);
		/* The last operation's final steps go on for a moment after its end. */
		if (!value && (!rpc_client_retryable(h->client) || tries == TRIES))
			report_die("VM.migrate: %s", e.detail);
		if (!value)
			usleep(TRY_US);
	}
	pair_copy(value, text, sizeof text);
	if (sscanf(text, "downtime_ms=%lf total_ms=%lf bytes=%lf", &m.downtime_ms,
		    &m.total_ms, &m.bytes) != 3)
		report_die("a migration's result was expected, not \"%s\"", text);
	for (int i = 0; i < 2; i++)
		m.cpu_s[i] =
			report_cpu_s(p->hosts[i == 0 ? from : !from].pid) - m.cpu_s[i];
	m.predicted_ms = pair_predicted_ms(h);
	return m;
}
