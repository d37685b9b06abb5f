/* Which host of the pool must carry out a call. Reads the database; asks nobody. */
#ifndef REEVE_DAEMON_ROUTE_H
#define REEVE_DAEMON_ROUTE_H

#include "daemon/call.h"

enum route {
	ROUTE_HERE,
	ROUTE_HOST,   /* *host */
	ROUTE_PLACE,  /* wherever the master's scheduler decides */
	ROUTE_MASTER, /* whoever leads */
};

enum route route_call(struct call *c, struct uuid *host);

#endif
