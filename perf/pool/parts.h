/* The parts of the pool's benchmark; each adds its results to the report. */
#ifndef REEVE_PERF_POOL_PARTS_H
#define REEVE_PERF_POOL_PARTS_H

#include "perf/report.h"

/* Commits on one voter beside bare libraft. `dir` is the benchmark's own. */
void commits_measure(struct report *r, const char *dir);

/* Three hosts: what a client sees when the master dies, freezes or is cut off. */
void failover_measure(struct report *r, const char *dir);

/* Fifteen hosts of 20 VMs each: what the pool costs when nothing happens. */
void scale_measure(struct report *r, const char *dir);

/* A thousand hosts, all but two of them in one load process: what the master costs. */
void thousand_measure(struct report *r, const char *dir);

#endif
