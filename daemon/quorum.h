/*
 * What is wrong when the pool has no master, in numbers and names, for those whose calls
 * can't be answered because of that.
 */
#ifndef REEVE_DAEMON_QUORUM_H
#define REEVE_DAEMON_QUORUM_H

#include "daemon/daemon.h"

enum { QUORUM_WORDS = 480 };

/* How many of the voters, as the database last had them, answer this host, itself
 * included; `missing`: the names of the others, "" where none is. */
struct quorum_view {
	int voters, answering;
	char missing[160];
};
void quorum_look(const struct daemon *d, struct quorum_view *out);

/* False: this host hears a master with a majority, or is alone in its pool; "" then. */
bool quorum_lost(const struct daemon *d, char out[static QUORUM_WORDS]);

/* Adds that to an answer that may well come of it. */
void quorum_explain(const struct daemon *d, struct rv_error *e);

#endif
