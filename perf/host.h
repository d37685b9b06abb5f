/*
 * A real reeved on a directory of its own, with the simulated hypervisor and network, and
 * a connection to it for setting things up. Whatever goes wrong ends the benchmark.
 */
#ifndef REEVE_PERF_HOST_H
#define REEVE_PERF_HOST_H

#include <sys/types.h>

#include "perf/child.h"
#include "rpc/client.h"

enum { HOST_UUID_SIZE = 37, HOST_TOKEN_SIZE = 65 };

struct host {
	pid_t pid;
	char dir[CHILD_PATH_MAX], log[CHILD_PATH_MAX + 16];
	char ipc[CHILD_PATH_MAX + 32]; /* URLs */
	char tls[64];
	char ipc_path[CHILD_PATH_MAX + 32];
	char cert[CHILD_PATH_MAX + 32], key[CHILD_PATH_MAX + 32]; /* of the TLS port */
	struct rpc_client *client;
};

/* Keeps everything in DIR/host. `settings`: further "SECTION.KEY=VALUE" texts, ended by
 * NULL. */
void host_start(struct host *h, const char *dir, const char *const *settings);
/* The same in a network namespace; NULL: this machine's own. */
void host_start_in(
	struct host *h, const char *dir, const char *netns, const char *const *settings);
void host_stop(struct host *h);

/* Waits until it carries out VM operations (RPC is served from earlier on). */
void host_await_up(struct host *h);

/* Makes a halted VM of 16 MiB without disks. */
void host_make_vm(struct host *h, const char *name, char uuid[HOST_UUID_SIZE]);

/* The UUID of its pool. */
void host_pool(struct host *h, char uuid[HOST_UUID_SIZE]);

/* Makes a user who may read, logs in, returns the session's token. */
void host_login(struct host *h, char token[HOST_TOKEN_SIZE]);

/* A TCP port of this machine that nobody listens on now. */
int host_free_port(void);

/* A packed request [0, 7, method, params] of text params: key, value, …, NULL. Returned
 * owned; *len is its length. */
void *host_request(size_t *len, const char *method, ...) __attribute__((sentinel));
/* How the reply to any such request begins, when it is no error. */
extern const unsigned char host_reply_start[4];

#endif
