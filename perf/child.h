/*
 * Programs that a benchmark starts beside itself (the daemon, a peer) and the directory
 * that they share. Children die with the benchmark; the directory goes at its exit.
 */
#ifndef REEVE_PERF_CHILD_H
#define REEVE_PERF_CHILD_H

#include <stddef.h>
#include <sys/types.h>

enum { CHILD_PATH_MAX = 160 };

/* Makes a directory on a real disk, below $TMPDIR or /var/tmp. Removed at exit. Returns
 * its path, which lives as long as the program. Call it once. */
const char *child_directory(void);

/* The path of a program in this build: "daemon/reeved", "perf/peer_rpc_bare". */
void child_program(char *path, size_t size, const char *name);

/* Starts argv[0]; its output goes to `log` (NULL: nowhere). `environment`: NAME=VALUE
 * texts added to ours, ended by NULL, or NULL. Dies where that is impossible. */
pid_t child_start(char *const argv[], const char *log, char *const environment[]);

/* Waits until the path exists. Dies, showing the log, when the child ends before, or
 * after 20 s. */
void child_await_path(pid_t pid, const char *path, const char *log);

/* Waits until somebody listens on the local TCP port, without connecting to it. Dies like
 * the former. */
void child_await_port(pid_t pid, int port, const char *log);

/* Dies, showing the log's end, if the child has ended. */
void child_check(pid_t pid, const char *log);

/* Waits for the child's end. Dies, showing the log, unless it was a success. */
void child_finish(pid_t pid, const char *log);

/* SIGTERM, SIGKILL after 10 s; reaps. */
void child_stop(pid_t pid);

#endif
