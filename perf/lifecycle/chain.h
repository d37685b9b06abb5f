/*
 * Many VMs led through their lives at once, each by its own chain of RPC calls: the reply
 * to one call sends the next. One connection of stock libnng carries them all.
 */
#ifndef REEVE_PERF_LIFECYCLE_CHAIN_H
#define REEVE_PERF_LIFECYCLE_CHAIN_H

#include <stddef.h>

struct chains;

/* The calls of a life: methods that take `self`, but VM.create, which makes it. */
struct chain_step {
	const char *method;
};

/* `count` chains on the URL, whose VMs are named NAME0, NAME1, …; the name is borrowed.
 * Returned owned. Dies where that fails. */
struct chains *chains_open(const char *url, const char *name, int count);
void chains_close(struct chains *c);

/* Leads every VM through the steps (an array ending in a NULL method). A chain that does
 * not begin with VM.create goes on with the VM it has. Returns the seconds until the last
 * one ends. Dies at an error. */
double chains_run(struct chains *c, const struct chain_step *steps);

/* Seconds that each call of a step of the last run took, one for each chain; borrowed. */
double *chains_times(struct chains *c, int step);

#endif
