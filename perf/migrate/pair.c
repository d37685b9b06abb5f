#include "perf/migrate/pair.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "perf/report.h"
#include "rpc/message.h"

enum { CALL_MS = 120000, TRIES = 600, TRY_US = 50000 };

/* --- calls --- */

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

/* --- the VM --- */

void pair_make_vm(struct cluster *c, const char *name, uint64_t bytes,
	const char *const platform[][2], size_t platform_count, char uuid[HOST_UUID_SIZE])
{
	struct host *h = &c->hosts[0].host;
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
	pair_text(pk, "on", c->hosts[0].uuid);
	pair_must(h, "VM.start");
}

static void pair_operate(struct cluster *c, const char *method, const char *uuid)
{
	msgpack_packer *pk = rpc_client_begin(c->hosts[0].host.client, method, 1);

	pair_text(pk, "self", uuid);
	pair_must(&c->hosts[0].host, method);
}

void pair_end_vm(struct cluster *c, const char *uuid)
{
	pair_operate(c, "VM.hard_shutdown", uuid);
	pair_operate(c, "VM.destroy", uuid);
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

struct pair_move pair_move(struct cluster *c, int from, const char *uuid)
{
	struct host *h = &c->hosts[from].host;
	struct pair_move m = {0};
	struct rv_error e = {0};
	const msgpack_object *value = NULL;
	char text[200];

	for (int i = 0; i < 2; i++)
		m.cpu_s[i] = report_cpu_s(c->hosts[i == 0 ? from : !from].host.pid);
	for (int tries = 0; !value; tries++) {
		msgpack_packer *pk = rpc_client_begin(h->client, "VM.migrate", 3);

		pair_text(pk, "self", uuid);
		pair_text(pk, "host", c->hosts[!from].uuid);
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
		m.cpu_s[i] = report_cpu_s(c->hosts[i == 0 ? from : !from].host.pid) -
			     m.cpu_s[i];
	m.predicted_ms = pair_predicted_ms(h);
	return m;
}
