/* Asking for a secret: at a terminal without echo, else a line of standard input. */
#ifndef REEVE_CLI_PROMPT_H
#define REEVE_CLI_PROMPT_H

#include "cli/cli.h"

/* The line without its end in `out`; "" at the end of input. Ctrl-C ends the program with
 * the terminal as it was. RV_ETOOBIG: longer than fits. */
int prompt_secret(
	struct cli *cli, const char *label, char *out, size_t size) RV_MUST_CHECK;

#endif
