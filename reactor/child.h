/*
 * Child processes: started by posix_spawn, watched by pidfd, output caught, time bounded.
 *
 * The child gets /dev/null or the given bytes as stdin, no other descriptor but those
 * listed, default signal dispositions, a session of its own. On time-out it gets SIGTERM,
 * then SIGKILL after CHILD_KILL_GRACE_MS, both to its whole process group; what is left
 * of the group when it obeyed gets SIGKILL at once. A child that ends by itself leaves
 * its own children alone, and what they write afterwards is not waited for.
 */
#ifndef REEVE_REACTOR_CHILD_H
#define REEVE_REACTOR_CHILD_H

#include "base/buf.h"
#include "reactor/loop.h"

enum { CHILD_KILL_GRACE_MS = 2000, CHILD_MAX_FDS = 8 };

struct child;

struct child_spec {
	const char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH */
	const char *const *env;	 /* NULL: a minimal PATH, LANG=C */
	const void *input;	 /* stdin; copied */
	size_t input_len;
	int64_t timeout_ms;	/* 0: none */
	int fds[CHILD_MAX_FDS]; /* become 3, 4, ... in the child; borrowed */
	int fd_count;
};

struct child_result {
	int rc; /* 0: exited with 0; RV_ECHILD; RV_ETIMEDOUT; RV_ECANCELLED: killed by us
		 */
	int exit_status; /* -1 unless it exited by itself */
	int signal;	 /* 0, or what ended it */
	/* Borrowed for the callback; NUL-terminated; cut at RV_MAX_CHILD_OUTPUT_BYTES. */
	const char *out, *err;
	size_t out_len, err_len;
};

typedef void child_done_fn(void *arg, const struct child_result *result);

/* Returned owned by itself: the child frees itself after `done`, which is called exactly
 * once, never inside this call. `name` is a literal. */
int child_start(struct child **out, struct loop *l, const char *name,
	const struct child_spec *spec, child_done_fn *done, void *arg,
	struct rv_error *e) RV_MUST_CHECK;

/* Ends it early; `done` follows with RV_ECANCELLED. Idempotent until done. */
void child_kill(struct child *c);

/* For the owner's own end: ends the child and its process group with SIGKILL, waits for
 * it (at most a second) and frees it. `done` is not called. */
void child_abandon(struct child *c);

/* Writes "PROGRAM exited with status 1: last line of stderr" in the caller's words. */
void child_describe(
	const struct child_result *r, const char *program, struct rv_error *e);

/* On a simulated loop child_start calls this instead of a process: it fills *result (rc,
 * output in static memory) and returns the delay in microseconds. Without one,
 * child_start fails with RV_EUNSUPPORTED. */
typedef int64_t child_sim_fn(
	void *arg, const struct child_spec *spec, struct child_result *result);
void child_sim_set(struct loop *l, child_sim_fn *fn, void *arg);

#endif
