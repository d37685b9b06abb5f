/* 10,000 idle connections cost little and slow nobody. The clients live in a process of
 * their own; where even half the descriptors can't be had, it exits with 77. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/conformance/rpc/harness.h"

enum { IDLE = 10000, DESCRIPTORS = IDLE + 500, SKIPPED = 77, KIB_EACH_MAX = 16 };

static long resident_kib(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	long total, resident = 0;

	if (!f || fscanf(f, "%ld %ld", &total, &resident) != 2)
		resident = 0;
	if (f)
		fclose(f);
	return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* The clients' process: told where by `in`, says "connected", then on the next byte shows
 * that each idle connection still works. */
static int clients(int in, int out)
{
	struct harness h;
	int *fds = calloc(IDLE, sizeof *fds);
	char go;

	if (!fds || read(in, &h, sizeof h) != sizeof h)
		return 1;
	for (int i = 0; i < IDLE; i++)
		fds[i] = raw_open(&h, i % 2);
	if (write(out, "c", 1) != 1 || read(in, &go, 1) != 1)
		return 1;
	for (int i = 0; i < IDLE; i++) {
		uint8_t body[64];

		raw_request(fds[i], i % 2, 1,
			"\x94\x00\x07\xa4"
			"echo\x80",
			9);
		if (raw_frame(fds[i], i % 2, body, sizeof body) < 0) {
			fprintf(stderr, "FAILED: connection %d is dead\n", i);
			return 1;
		}
	}
	free(fds);
	return 0;
}

static int serve(int in, int out)
{
	struct rv_error e = {0};
	struct rpc_client *c;
	struct harness h;
	long before, each;
	char done;

	harness_start(&h, 0, 0);
	before = resident_kib();
	if (write(out, &h, sizeof h) != sizeof h || read(in, &done, 1) != 1)
		return 1;
	harness_wait_stat(&h, "connections", false, IDLE);
	each = (resident_kib() - before) / IDLE;
	printf("%d idle connections: %ld KiB each\n", IDLE, each);
	c = harness_client(&h, h.ipc);
	for (int i = 0; i < 1000; i++) {
		if (rpc_client_call(c, "echo", NULL, 0, 60000, NULL, &e) != 0) {
			fprintf(stderr, "FAILED: %s\n", e.detail);
			return 1;
		}
	}
	rpc_client_close(c);
	if (write(out, "g", 1) != 1 || read(in, &done, 1) != 0)
		return 1;
	harness_stop(&h);
	if (each > KIB_EACH_MAX) {
		fprintf(stderr, "FAILED: more than %d KiB each\n", KIB_EACH_MAX);
		return 1;
	}
	return 0;
}

int main(void)
{
	struct rlimit limit = {DESCRIPTORS, DESCRIPTORS}, now;
	int to[2], from[2], status, rc;
	pid_t child;

	if (getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_max > DESCRIPTORS)
		limit.rlim_max = now.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
		fprintf(stderr,
			"SKIPPED: RLIMIT_NOFILE can't be raised to %d (%s); run as root "
			"or raise the hard limit\n",
			DESCRIPTORS, strerror(errno));
		return SKIPPED;
	}
	if (pipe(to) != 0 || pipe(from) != 0)
		return 1;
	child = fork();
	if (child == 0) {
		close(to[1]);
		close(from[0]);
		_exit(clients(to[0], from[1]));
	}
	close(to[0]);
	close(from[1]);
	rc = serve(from[0], to[1]);
	close(to[1]);
	return waitpid(child, &status, 0) == child && status == 0 ? rc : 1;
}
