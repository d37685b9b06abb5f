/*
 * The least client that speaks SP over a Unix socket: keeps requests outstanding on one
 * connection and counts replies. It costs so little that the server is what is measured.
 */
#ifndef REEVE_PERF_RPC_RAW_H
#define REEVE_PERF_RPC_RAW_H

#include <stddef.h>

struct raw;

struct raw_config {
	const char *path; /* of the socket */
	const void *request;
	size_t request_len;
	const void *reply_start; /* what each reply must begin with; borrowed */
	size_t reply_start_len;
	int outstanding;
};

/* Connects; dies where that fails. Returned owned. */
struct raw *raw_open(const struct raw_config *config);
void raw_close(struct raw *r);

/* Replies per second. */
double raw_run(struct raw *r, double seconds);

#endif
