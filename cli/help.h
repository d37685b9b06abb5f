/* `reeve help`, and docs/API.md: both from the schema's doc lines. */
#ifndef REEVE_CLI_HELP_H
#define REEVE_CLI_HELP_H

#include "cli/cli.h"
#include "cli/command.h"

int help_run(struct cli *cli); /* help [CLASS | COMMAND | fields] */
void help_command(FILE *out, const struct command *c); /* one command's page */
int help_unknown(struct cli *cli, const char *name);   /* no such command: suggestions */
void api_doc_print(FILE *out);			       /* docs/API.md */

#endif
