#include "perf/host.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "perf/report.h"
#include "rpc/message.h"

enum { REQUEST_ID = 7, SETTINGS_MAX = 16, CALL_TIMEOUT_MS = 60000 };
enum { VM_MEMORY_BYTES = 16 << 20 };
enum { CONNECT_TRIES = 200, CONNECT_US = 10000 };

const unsigned char host_reply_start[4] = {0x94, RPC_RESPONSE, REQUEST_ID, 0xc0};

int host_free_port(void)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t size = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
		getsockname(fd, (struct sockaddr *)&address, &size) != 0)
		report_die("no free TCP port");
	close(fd);
	return ntohs(address.sin_port);
}

static void host_connect(struct host *h)
{
	struct rpc_client_config config = {.url = h->ipc};
	struct rv_error e;

	child_await_path(h->pid, h->ipc_path, h->log);
	/* The path is there a moment before anybody listens at it. */
	for (int tries = 0; rpc_client_open(&h->client, &config, &e); tries++) {
		if (tries == CONNECT_TRIES)
			report_die("%s", e.detail);
		child_check(h->pid, h->log);
		usleep(CONNECT_US);
	}
}

void host_start(struct host *h, const char *dir, const char *const *settings)
{
	host_start_in(h, dir, NULL, settings);
}

void host_start_in(
	struct host *h, const char *dir, const char *netns, const char *const *settings)
{
	char program[CHILD_PATH_MAX * 2], text[SETTINGS_MAX][CHILD_PATH_MAX * 2];
	char *argv[8 + 2 * SETTINGS_MAX] = {
		"ip", "netns", "exec", (char *)netns, program, "--config", "/dev/null"};
	int argc = 7, count = 0;

	*h = (struct host){0};
	child_program(program, sizeof program, "daemon/reeved");
	snprintf(h->dir, sizeof h->dir, "%.120s/host", dir);
	snprintf(h->log, sizeof h->log, "%s.log", h->dir);
	snprintf(h->ipc_path, sizeof h->ipc_path, "%.140s/run/rpc.sock", h->dir);
	snprintf(h->ipc, sizeof h->ipc, "ipc://%.180s", h->ipc_path);
	snprintf(h->tls, sizeof h->tls, "tls+tcp://127.0.0.1:%d", host_free_port());
	snprintf(h->cert, sizeof h->cert, "%s/state/rpc-cert.pem", h->dir);
	snprintf(h->key, sizeof h->key, "%s/state/rpc-key.pem", h->dir);
	snprintf(text[count++], sizeof text[0], "host.state-dir=%s/state", h->dir);
	snprintf(text[count++], sizeof text[0], "host.run-dir=%s/run", h->dir);
	snprintf(text[count++], sizeof text[0], "rpc.listen=%s", h->tls);
	snprintf(text[count++], sizeof text[0], "hypervisor.driver=simulated");
	snprintf(text[count++], sizeof text[0], "network.driver=simulated");
	for (; *settings && count < SETTINGS_MAX; settings++)
		snprintf(text[count++], sizeof text[0], "%s", *settings);
	for (int i = 0; i < count; i++) {
		argv[argc++] = "--set";
		argv[argc++] = text[i];
	}
	argv[argc] = NULL;
	unlink(h->ipc_path); /* a killed one's */
	h->pid = child_start(netns ? argv : argv + 4, h->log, NULL);
	host_connect(h);
}

void host_stop(struct host *h)
{
	rpc_client_close(h->client);
	h->client = NULL;
	child_check(h->pid, h->log);
	child_stop(h->pid);
	h->pid = 0;
}

/* --- calls for setting up --- */

static const msgpack_object *host_end(struct host *h, const char *what)
{
	const msgpack_object *result, *value;
	struct rv_error e;

	if (rpc_client_end(h->client, CALL_TIMEOUT_MS, &result, &e))
		report_die("%s: %s", what, e.detail);
	value = rpc_map_get(result, "value");
	if (!value)
		report_die("%s: a reply without a value", what);
	return value;
}

/* A call with nothing but `self`. False: "try again soon". */
static bool host_operate(struct host *h, const char *method, const char *uuid)
{
	msgpack_packer *pk = rpc_client_begin(h->client, method, 1);
	struct rv_error e;
	int rc;

	rpc_pack_key(pk, "self");
	rpc_pack_key(pk, uuid);
	rc = rpc_client_end(h->client, CALL_TIMEOUT_MS, NULL, &e);
	if (rc && !rpc_client_retryable(h->client))
		report_die("%s: %s", method, e.detail);
	return rc == 0;
}

void host_await_up(struct host *h)
{
	char uuid[HOST_UUID_SIZE];

	host_make_vm(h, "first", uuid);
	while (!host_operate(h, "VM.start", uuid))
		usleep(10000);
	if (!host_operate(h, "VM.hard_shutdown", uuid) ||
		!host_operate(h, "VM.destroy", uuid))
		report_die("the first VM can't be removed");
}

static void copy_text(const msgpack_object *o, char *out, size_t size)
{
	if (o->type != MSGPACK_OBJECT_STR || o->via.str.size >= size)
		report_die("a text of at most %zu bytes was expected", size - 1);
	memcpy(out, o->via.str.ptr, o->via.str.size);
	out[o->via.str.size] = '\0';
}

void host_make_vm(struct host *h, const char *name, char uuid[HOST_UUID_SIZE])
{
	msgpack_packer *pk = rpc_client_begin(h->client, "VM.create", 1);

	rpc_pack_key(pk, "record");
	msgpack_pack_map(pk, 2);
	rpc_pack_key(pk, "name_label");
	rpc_pack_text(pk, name);
	rpc_pack_key(pk, "memory_static_max");
	msgpack_pack_int(pk, VM_MEMORY_BYTES);
	copy_text(host_end(h, "VM.create"), uuid, HOST_UUID_SIZE);
}

void host_pool(struct host *h, char uuid[HOST_UUID_SIZE])
{
	const msgpack_object *all;

	rpc_client_begin(h->client, "pool.get_all", 0);
	all = host_end(h, "pool.get_all");
	if (all->type != MSGPACK_OBJECT_ARRAY || all->via.array.size != 1)
		report_die("pool.get_all: one pool was expected");
	copy_text(&all->via.array.ptr[0], uuid, HOST_UUID_SIZE);
}

void host_login(struct host *h, char token[HOST_TOKEN_SIZE])
{
	msgpack_packer *pk = rpc_client_begin(h->client, "user.create", 3);

	rpc_pack_key(pk, "name_label");
	rpc_pack_text(pk, "perf");
	rpc_pack_key(pk, "password");
	rpc_pack_text(pk, "a long enough secret");
	rpc_pack_key(pk, "role");
	rpc_pack_text(pk, "read-only");
	host_end(h, "user.create");
	pk = rpc_client_begin(h->client, "session.login_with_password", 2);
	rpc_pack_key(pk, "uname");
	rpc_pack_text(pk, "perf");
	rpc_pack_key(pk, "pwd");
	rpc_pack_text(pk, "a long enough secret");
	copy_text(host_end(h, "session.login_with_password"), token, HOST_TOKEN_SIZE);
}

void *host_request(size_t *len, const char *method, ...)
{
	uint32_t entries = 0;
	msgpack_packer pk;
	struct buf b;
	const char *text;
	va_list ap;
	void *bytes;

	va_start(ap, method);
	while (va_arg(ap, const char *))
		entries++;
	va_end(ap);
	buf_init(&b, 1 << 20);
	msgpack_packer_init(&pk, &b, rpc_pack_to_buf);
	rpc_pack_request(&pk, REQUEST_ID, method, strlen(method));
	msgpack_pack_map(&pk, entries / 2);
	va_start(ap, method);
	while ((text = va_arg(ap, const char *)))
		rpc_pack_text(&pk, text);
	va_end(ap);
	*len = buf_len(&b);
	bytes = malloc(*len);
	if (!bytes)
		report_die("out of memory");
	memcpy(bytes, buf_data(&b), *len);
	buf_fini(&b);
	return bytes;
}
