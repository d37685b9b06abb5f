/*
 * How the process's file descriptors are shared out: what the daemon itself needs (the
 * database, the drivers, links to other hosts, migrations, consoles) is never left to RPC
 * clients, however many come.
 */
#ifndef REEVE_DAEMON_DESCRIPTORS_H
#define REEVE_DAEMON_DESCRIPTORS_H

#include <stdint.h>

enum {
	/* Of its own at least: about 40 for files, drivers and listeners, the rest for
	 * links, migrations and children. */
	DESCRIPTORS_RESERVE = 128,
	DESCRIPTORS_RPC_LEAST = 16,
};

/* Takes what the hard limit grants. Returns the limit that holds now. */
uint64_t descriptors_raise(void);

/* How many RPC connections at most: a quarter of the limit, DESCRIPTORS_RESERVE at least,
 * is kept back. Pure. */
int descriptors_for_rpc(uint64_t limit);

/* The same, of this process; says in the log when that is less than it should be. */
int descriptors_rpc_limit(void);

#endif
