/*
 * A stock libnng client that repeats one request on REQ sockets, as fast as the answers
 * come: the same code against Reeve and its peers.
 */
#ifndef REEVE_PERF_LOAD_H
#define REEVE_PERF_LOAD_H

#include <stddef.h>
#include <sys/types.h>

struct load;

struct load_config {
	const char *url;
	const char *ca_file; /* tls+tcp: the server's certificate; else NULL */
	int sockets;	     /* connections */
	int outstanding;     /* requests of each */
	const void *request; /* borrowed for the load's life */
	size_t request_len;
	const void *reply_start; /* what each reply must begin with; borrowed */
	size_t reply_start_len;
};

struct load_result {
	double rps, p50_us, p99_us;
	double cpu_us; /* of the server, per request */
};

/* Connects. Returned owned. Dies where that fails. */
struct load *load_open(const struct load_config *config);
void load_close(struct load *l);

/* Asks for `seconds`, then waits for the last answers. With one socket and one
 * outstanding request it calls libnng synchronously. `server`: whose CPU to count. Dies
 * at a wrong reply. */
struct load_result load_run(struct load *l, double seconds, pid_t server);

/* Asks once, returns the reply's length. */
size_t load_reply_bytes(struct load *l);

/* Starts and stops by hand: load as a background. */
void load_begin(struct load *l);
unsigned long load_end(struct load *l); /* requests answered in between */

#endif
