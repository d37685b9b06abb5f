/*
 * Waiting for a task: a progress bar where standard error is a terminal, Ctrl-C to
 * cancel, a daemon that is restarted meanwhile.
 */
#ifndef REEVE_CLI_TASK_H
#define REEVE_CLI_TASK_H

#include "cli/cli.h"
#include "pool/db/schema.h"

/* Begins the task method under a new request UUID and waits for its end. *result (empty,
 * or the task's result) is the caller's buffer. An exit status; failures have been told.
 */
int task_run(struct cli *cli, const struct schema_method *m, struct params *p,
	struct buf *result);

/* Waits for a task that is at work. */
int task_await(
	struct cli *cli, const struct uuid *task, const char *what, struct buf *result);

#endif
