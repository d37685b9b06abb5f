/*
 * Tasks: how a caller follows what it asked for, and how a repeated request finds what
 * the first one did.
 *
 * A task's UUID is the request's UUID. It is made in the same entry as the intent of what
 * it stands for, and ends exactly once.
 */
#ifndef REEVE_DAEMON_TASKS_H
#define REEVE_DAEMON_TASKS_H

#include "daemon/call.h"

/* The request's UUID, or a random one where the caller gave none. */
struct uuid tasks_uuid(struct call *c);

/* Adds the call's task to a transaction: pending, or one that has succeeded with `result`
 * (NULL: nothing). */
void tasks_add_pending(
	struct call *c, struct txn *t, struct uuid task, struct uuid subject);
void tasks_add_finished(
	struct call *c, struct txn *t, struct uuid subject, const struct value *result);

/* The end of a pending task, for a transaction: success with a result, or failure. */
void tasks_end(struct txn *t, struct uuid task, int64_t wall_ms, const char *result,
	const struct rv_error *e);

/* A task that nobody goes on with: it fails with `e`, unless it has ended. */
void tasks_abandon(
	struct txn *t, const struct row *task, int64_t wall_ms, const struct rv_error *e);

bool tasks_ended(const struct row *task);

/* Ends the call as the task has ended or will end; at once, with the task's UUID, where
 * the caller said async. Refuses when the request was about something else. */
void tasks_join(struct call *c, struct uuid task);

/* The call's own entry was refused: true when the same request had come a moment before,
 * and made the task; then as tasks_join. */
bool tasks_join_first(struct call *c);

/* As tasks_join for the call that has just begun the task. */
void tasks_follow(struct call *c, struct uuid task);

void tasks_init(struct daemon *d);
void tasks_stop(struct daemon *d); /* those that wait end with the other calls */

/* Looks again at the calls that wait for tasks, after the database changed: at some at
 * once, at the others in the loop's next rounds. */
void tasks_look(struct daemon *d);

/* Methods. */
void task_wait(struct call *c);
void task_cancel(struct call *c);
void task_destroy(struct call *c);

#endif
