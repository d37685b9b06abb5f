/* What the commands do; each returns an exit status. */
#ifndef REEVE_CLI_VERBS_H
#define REEVE_CLI_VERBS_H

#include "cli/cli.h"
#include "cli/command.h"

int verb_list(struct cli *cli, const struct command *c);
int verb_param_list(struct cli *cli, const struct command *c);
int verb_param_get(struct cli *cli, const struct command *c);
int verb_param_set(struct cli *cli, const struct command *c);
int verb_param_add(struct cli *cli, const struct command *c);
int verb_param_remove(struct cli *cli, const struct command *c);
int verb_param_clear(struct cli *cli, const struct command *c);
int verb_method(struct cli *cli, const struct command *c);
int verb_vm_install(struct cli *cli, const struct command *c);
int verb_vm_import_xl(struct cli *cli, const struct command *c);
int verb_task_wait(struct cli *cli, const struct command *c);
int verb_event_watch(struct cli *cli);
int verb_console(struct cli *cli, const struct command *c);
int verb_database_dump(struct cli *cli, const struct command *c);
int verb_database_restore(struct cli *cli, const struct command *c);

/* The field that was typed, or NULL: has been told, with suggestions. */
const struct schema_field *verb_field(
	struct cli *cli, const struct schema_class *cls, const char *typed, size_t len);

#endif
