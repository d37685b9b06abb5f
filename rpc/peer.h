/* Who is at the other end of an RPC connection. */
#ifndef REEVE_RPC_PEER_H
#define REEVE_RPC_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "reactor/tls.h"

enum rpc_transport { RPC_IPC, RPC_TCP, RPC_TLS };

struct rpc_peer {
	enum rpc_transport transport;
	bool has_credentials; /* ipc: pid, uid and gid as the kernel knows them */
	pid_t pid;
	uid_t uid;
	gid_t gid;
	const gid_t *groups; /* ipc: supplementary groups; borrowed */
	size_t group_count;
	const struct tls_peer *tls; /* tls+tcp: NULL before the handshake is done */
	char name[112]; /* for logs: "unix:pid=12,uid=0", "tcp:127.0.0.1:4711" */
};

#endif
