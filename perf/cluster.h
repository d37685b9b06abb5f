/*
 * Real daemons that form one pool over TLS. Whatever goes wrong ends the benchmark.
 *
 * They share this machine's loopback, or have a network of their own each: a network
 * namespace, joined by a bridge in one more, so that a cable can be cut silently. That
 * needs root; the namespaces go when the benchmark ends.
 */
#ifndef REEVE_PERF_CLUSTER_H
#define REEVE_PERF_CLUSTER_H

#include <stdbool.h>

#include "perf/host.h"

enum { CLUSTER_ADDRESS_SIZE = 64, CLUSTER_SETTINGS_MAX = 8 };

struct cluster_host {
	struct host host;
	char uuid[HOST_UUID_SIZE];
	char address[CLUSTER_ADDRESS_SIZE]; /* where its peers reach it */
	char netns[32];			    /* empty: this machine's */
	char dir[CHILD_PATH_MAX];
};

struct cluster {
	struct cluster_host *hosts;
	int count;
	char dir[CHILD_PATH_MAX];
	const char *const *settings; /* borrowed, ended by NULL */
	char hub[32];		     /* the bridge's namespace; empty: none */
};

/* Starts them in DIR and forms the pool; the first one is the founder. */
void cluster_start(struct cluster *c, const char *dir, int count, bool namespaces,
	const char *const *settings);
void cluster_stop(struct cluster *c);

/* One host more, started beside the others; waits until the first one hears of it. */
void cluster_join_one(struct cluster *c);

/* Starts a host again that was killed. */
void cluster_revive(struct cluster *c, int i);

/* Takes its cable out, or puts it back. Namespaces only. */
void cluster_cut(struct cluster *c, int i, bool cut);

/* Who leads, as host `asked` knows it; -1: nobody. */
int cluster_master(struct cluster *c, int asked);

/* Waits until `asked` knows every host as live. */
void cluster_await_whole(struct cluster *c, int asked);

/* Waits until so many of them vote, as `asked` knows it. */
void cluster_await_voters(struct cluster *c, int asked, int voters);

#endif
