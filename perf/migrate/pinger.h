/*
 * A client that asks one host one question now and then, in a thread of its own, while a
 * benchmark does something else.
 */
#ifndef REEVE_PERF_MIGRATE_PINGER_H
#define REEVE_PERF_MIGRATE_PINGER_H

#include "perf/host.h"

struct pinger;

/* Asks VM.get_record of this VM. Returned owned. Dies where that fails. */
struct pinger *pinger_start(const struct host *h, const char *vm);

/* Ends it; the p99 of its answers' times in ms, and how many there were. */
double pinger_stop(struct pinger *p, size_t *count);

#endif
