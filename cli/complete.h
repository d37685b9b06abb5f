/*
 * Completion for bash: `reeve --complete LINE POINT` prints the candidates for the word
 * at the cursor, one a line, each without the part up to the last ':' or '=' before the
 * cursor, since bash takes those for ends of words.
 */
#ifndef REEVE_CLI_COMPLETE_H
#define REEVE_CLI_COMPLETE_H

#include "cli/cli.h"

/* Never fails loudly: without a daemon there are just no names of objects. */
int complete_run(struct cli *cli, const char *line, size_t point);

#endif
