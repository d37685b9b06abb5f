/*
 * One run of the `reeve` command: where it prints, what was typed, the connection.
 *
 * Functions that end a command return its exit status; they have then said why, once, on
 * `err`. Pure helpers return an RV_E code with words and leave the saying to the caller.
 */
#ifndef REEVE_CLI_CLI_H
#define REEVE_CLI_CLI_H

#include <stdbool.h>
#include <stdio.h>

#include "base/error.h"
#include "cli/connect.h"
#include "cli/words.h"

enum cli_exit {
	CLI_OK = 0,
	CLI_REFUSED = 1,     /* the pool refused, or the task failed */
	CLI_USAGE = 2,	     /* what was typed makes no command */
	CLI_UNREACHABLE = 3, /* no answer from a daemon */
	CLI_INTERRUPTED = 130,
};

struct cli {
	FILE *out, *err, *in;
	bool out_tty, err_tty, in_tty;
	struct words words;
	struct connect connect;
	bool told_waiting; /* that it waits, and for what: said once */
	int64_t looked_ms; /* when it was last looked into what it waits for */
};

/* "reeve: WORDS" on one line; CLI_USAGE. */
int cli_usage(struct cli *cli, const char *fmt, ...) RV_PRINTF(2, 3);

/* The same line, as a notice: the command goes on, or has ended otherwise. */
void cli_note(struct cli *cli, const char *fmt, ...) RV_PRINTF(2, 3);

/* "CODE: WORDS" on one line; CLI_REFUSED. */
int cli_refused(struct cli *cli, const struct rv_error *e);

/* After a call: CLI_REFUSED if the server said so, else CLI_UNREACHABLE. */
int cli_call_failed(struct cli *cli, const struct rv_error *e);

/* Opens the connection, once; CLI_OK or said why not. */
int cli_connect(struct cli *cli);

/* cli_connect and one call; *value is borrowed until the next call. `p` may be NULL. */
int cli_call(struct cli *cli, const char *method, const struct params *p,
	const msgpack_object **value);

/* Binds a change to the pool that the daemon is of now: sent again after a broken
 * connection it must not reach another one, which a host that was ejected then is. A
 * daemon that has no pool yet is not asked twice. */
void cli_bind(struct cli *cli, struct params *p);

/* As cli_call for what changes something: adds a request UUID, so that a repeat after a
 * broken connection has no second effect, and the pool. */
int cli_change(struct cli *cli, const char *method, struct params *p,
	const msgpack_object **value);

/* CLI_OK if every key=value was used and no plain word is left; else says what is known:
 * `known` is a text such as "vm=, on=". */
int cli_check_used(struct cli *cli, const char *known);

/* Runs a whole command line (without the program's name). */
int cli_run(struct cli *cli, int argc, char *const *argv);

#endif
