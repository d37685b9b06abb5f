/*
 * A VM that moves between two hosts of a pool. Whatever goes wrong ends the benchmark.
 */
#ifndef REEVE_PERF_MIGRATE_PAIR_H
#define REEVE_PERF_MIGRATE_PAIR_H

#include <stdint.h>

#include "perf/cluster.h"

/* One migration; times as the pool tells them. */
struct pair_move {
	double total_ms, downtime_ms, predicted_ms, bytes;
	double cpu_s[2]; /* of the host it left, of the other */
};

/* Makes a VM with this platform (xen/sim.h: sim. keys) and starts it on the first. */
void pair_make_vm(struct cluster *c, const char *name, uint64_t bytes,
	const char *const platform[][2], size_t platform_count,
	char uuid[HOST_UUID_SIZE]);
void pair_end_vm(struct cluster *c, const char *uuid);

/* Moves it live from hosts[from] to the other. The limit of its pause is the pool's own,
 * 300 ms; where that can't be kept, a longer one is accepted. */
struct pair_move pair_move(struct cluster *c, int from, const char *uuid);

#endif
