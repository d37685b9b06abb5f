/*
 * A client of one host, in a thread of its own: writes numbers that count up, one call
 * after the other, each with a request UUID with which it is repeated until it is
 * acknowledged.
 */
#ifndef REEVE_PERF_POOL_WRITER_H
#define REEVE_PERF_POOL_WRITER_H

#include "perf/host.h"

struct writer;

/* Writes into the pool's other_config[key]. Returned owned. `key` is borrowed. */
struct writer *writer_start(const struct host *h, const char *pool, const char *key);

/* Since the time given (report_now_s) the first acknowledgement of a call that was begun
 * after it; waits for it, at most 60 s. In ms. */
double writer_first_ack_ms(struct writer *w, double since_s);

/* Ends it; the last number that was acknowledged. */
long writer_stop(struct writer *w);

#endif
