/*
 * What it means for somebody at the command line that the host that was asked hears of no
 * master: what is shown may be old, and what is asked for waits. Tells it, on standard
 * error, so that the output stays what programs read.
 */
#ifndef REEVE_CLI_MASTER_H
#define REEVE_CLI_MASTER_H

#include "cli/cli.h"

/* After connecting: a call without an answer for some seconds is looked into, and what it
 * waits for is told, once a command. */
void master_watch(struct cli *cli);
/* Not so from now on: its calls wait for something to happen, not for a master. */
void master_unwatch(struct cli *cli);

/* The same for who asks again and again: whether there is something to tell, since the
 * last answer was old, or none came for `silent_ms`, and nobody has looked just now; and
 * telling it. */
bool master_may_wait(const struct cli *cli, int64_t silent_ms);
void master_tell_waiting(struct cli *cli);

/* Something was shown, and an answer said that it was old: says how old it may be. */
void master_warn_stale(struct cli *cli);

/* `e`: no answer came in time. Adds why, if the host knows. */
void master_explain_silence(struct cli *cli, struct rv_error *e);

#endif
