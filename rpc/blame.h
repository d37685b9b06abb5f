/*
 * Log lines that clients cause by what they do wrong, bounded by source: one bad client
 * can't fill the log, nor hide what others do. Used by rpc/ alone.
 *
 * A source may cause BLAME_LINES at once and one more each BLAME_REFILL_MS; all together
 * BLAME_LINES_ALL and one more each BLAME_REFILL_ALL_MS. Counters tell of everything
 * (rpc_server_stats), and the next line of the source how many were left out.
 */
#ifndef REEVE_RPC_BLAME_H
#define REEVE_RPC_BLAME_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/login_limit.h"

enum {
	BLAME_SOURCES = 64, /* the one that was quiet longest is forgotten */
	BLAME_LINES = 5,
	BLAME_REFILL_MS = 30 * 1000,
	BLAME_LINES_ALL = 50,
	BLAME_REFILL_ALL_MS = 1000,
};

struct blame_source {
	char name[LOGIN_SOURCE_MAX]; /* "": free */
	int64_t empty_us; /* the lines that it may cause are counted from here */
	int64_t seen_us;
	uint32_t held;
};

/* Embed it, zeroed. */
struct blame {
	struct blame_source sources[BLAME_SOURCES];
	int64_t empty_us; /* of all together */
};

/* Whether a line about this source may be written now; *held: how many lines of it were
 * left out since the last. */
bool blame_may_log(struct blame *b, const char *source, int64_t now_us, uint32_t *held);
/* The same for a peer, by login_source. */
bool blame_peer(
	struct blame *b, const struct rpc_peer *peer, int64_t now_us, uint32_t *held);

#endif
