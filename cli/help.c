#include "cli/help.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const char overview[] =
	"usage: reeve [options] COMMAND [key=value…]\n"
	"\n"
	"  reeve vm-list                          what there is\n"
	"  reeve vm-list power-state=Running params=name-label,resident-on\n"
	"  reeve vm-start vm=web1                 by name or UUID; the pool chooses a "
	"host\n"
	"  reeve vm-param-set vm=web1 other-config:owner=ann\n"
	"  reeve help vm                          all commands and fields of a class\n"
	"  reeve help vm-start                    one command\n"
	"\n"
	"Classes:";

static const char options[] =
	"Options:\n"
	"  --minimal           values alone, separated by commas\n"
	"  --json              JSON with every field\n"
	"  --async             begin a task, print its UUID and leave; see task-wait\n"
	"  --url=URL           the daemon; REEVE_URL; default " CONNECT_URL_DEFAULT "\n"
	"                      ipc:///path, tcp://host:port or tls+tcp://host:port\n"
	"  --ca=FILE           tls+tcp: the pool's CA certificate\n"
	"  --fingerprint=HEX   tls+tcp: SHA-256 of the server's certificate\n"
	"  --user=NAME         log in (REEVE_USER); the password: REEVE_PASSWORD, or "
	"asked\n"
	"  --profile=NAME      section of ~/.config/reeve/config with url, user, ca,\n"
	"                      fingerprint (REEVE_PROFILE); default: [default]\n"
	"  --timeout=TIME      how long to wait for an answer; default 60s\n"
	"  --version, --help\n"
	"\n"
	"Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 no answer from the\n"
	"daemon, 130 interrupted. Ctrl-C cancels the task that is awaited.\n";

/* --- one command --- */

static const char *key_placeholder(const struct command_key *k)
{
	if (k->field_names)
		return k->multiple ? "FIELD,…" : "FIELD";
	if (k->enum_texts)
		return "WORD";
	if ((k->arg && k->arg->bytes) || (k->field && k->field->bytes))
		return "SIZE";
	switch (k->type) {
	case VALUE_BOOL:
		return "true|false";
	case VALUE_INT:
	case VALUE_FLOAT:
		return "NUMBER";
	case VALUE_TIME:
		return "TIME";
	case VALUE_REF:
	case VALUE_REF_SET:
		return k->ref_class != CLASS_NONE ? schema_class(k->ref_class)->name
						  : "UUID";
	case VALUE_STRING_MAP:
		return "VALUE";
	default:
		return "TEXT";
	}
}

struct key_help {
	FILE *out;
	bool fields; /* this pass prints fields, not arguments */
	int printed;
};

static bool help_key(void *arg, const struct command_key *k)
{
	struct key_help *h = arg;
	char left[NAME_TYPED_MAX + 40];

	if ((k->field != NULL) != h->fields)
		return true;
	if (h->printed++ == 0)
		fputs(h->fields ? "\nFields:\n" : "\nKeys:\n", h->out);
	snprintf(left, sizeof left, "%s%s=%s", k->name,
		k->type == VALUE_STRING_MAP ? ":KEY" : "", key_placeholder(k));
	fprintf(h->out, "  %-34s %s%s\n", left, k->doc,
		k->required && !h->fields ? " (needed)" : "");
	return true;
}

void help_command(FILE *out, const struct command *c)
{
	struct key_help h = {.out = out};

	fprintf(out, "reeve %s\n\n%s.\n", c->name, c->doc);
	command_keys(c, help_key, &h);
	h = (struct key_help){.out = out, .fields = true};
	command_keys(c, help_key, &h);
	if (c->method) {
		fprintf(out, "\nMethod: %s.%s, for %s%s\n", c->method->group,
			c->method->name, role_name(c->method->role),
			c->method->mode == MODE_TASK
				? "; a task (progress, Ctrl-C cancels, --async)"
				: "");
	}
}

/* --- one class --- */

struct class_help {
	FILE *out;
	const struct schema_class *cls; /* NULL: commands of no class */
};

static bool help_class_command(void *arg, const struct command *c)
{
	struct class_help *h = arg;

	if (c->cls == h->cls && !c->other && !c->hidden)
		fprintf(h->out, "  %-30s %s\n", c->name, c->doc);
	return true;
}

static const char *field_type(const struct schema_field *f)
{
	if (f->enum_texts)
		return "word";
	if (f->bytes)
		return "size";
	switch (f->type) {
	case VALUE_REF:
		return f->ref_class != CLASS_NONE ? schema_class(f->ref_class)->name
						  : "UUID";
	case VALUE_STRING_MAP:
		return "map";
	case VALUE_STRING_SET:
		return "set";
	case VALUE_REF_SET:
		return "set of UUIDs";
	default:
		return value_type_name(f->type);
	}
}

static const char *field_writer(const struct schema_field *f)
{
	bool settable = command_class_has(schema_class(f->cls), METHOD_KIND_SET_FIELDS);

	if (f->writer == WRITER_SYSTEM)
		return "  ";
	return f->writer == WRITER_CREATE ? "C " : settable ? "RW" : "  ";
}

static void help_class(FILE *out, const struct schema_class *cls)
{
	struct class_help h = {.out = out, .cls = cls};
	char name[NAME_TYPED_MAX];

	fprintf(out, "%s: %s.\n\nCommands:\n", cls->name, cls->doc);
	command_each(help_class_command, &h);
	fputs("\nFields (RW: param-set changes it; C: given when the object is made):\n",
		out);
	for (int i = 0; i < cls->field_count; i++) {
		const struct schema_field *f = &cls->fields[i];

		if (!f->secret)
			fprintf(out, "  %s %-26s %-14s %s\n", field_writer(f),
				name_typed(f->name, false, name, sizeof name),
				field_type(f), f->doc);
	}
}

/* --- help --- */

static int help_overview(struct cli *cli)
{
	struct class_help h = {.out = cli->out};
	int column = 80;

	fputs(overview, cli->out);
	for (int i = CLASS_NONE + 1; i < CLASS_COUNT; i++) {
		char name[NAME_TYPED_MAX];
		int len = (int)strlen(
			command_self_key(schema_class((enum schema_class_id)i), name));

		if (column + len + 1 > 78) {
			fputs("\n ", cli->out);
			column = 1;
		}
		fprintf(cli->out, " %s", name);
		column += len + 1;
	}
	fputs("\n\nOther commands:\n", cli->out);
	command_each(help_class_command, &h);
	fprintf(cli->out, "\n%s", options);
	return CLI_OK;
}

static bool guess_command(void *arg, const struct command *c)
{
	if (!c->hidden)
		name_guess_try(arg, c->name);
	return true;
}

int help_unknown(struct cli *cli, const char *name)
{
	struct name_guess guess;
	char text[300];

	name_guess_init(&guess, name, strlen(name));
	command_each(guess_command, &guess);
	if (guess.count)
		return cli_usage(cli, "unknown command '%.64s'%s", name,
			name_guess_text(&guess, text, sizeof text));
	return cli_usage(cli, "unknown command '%.64s'; `reeve help` lists them", name);
}

int help_run(struct cli *cli)
{
	const char *topic = words_plain(&cli->words);
	const struct schema_class *cls;
	struct command c;

	if (words_unused(&cli->words))
		return cli_usage(cli, "help takes one class or command");
	if (!topic)
		return help_overview(cli);
	cls = schema_class_by_typed(topic, strlen(topic));
	if (cls)
		help_class(cli->out, cls);
	else if (command_find(topic, &c))
		help_command(cli->out, &c);
	else
		return help_unknown(cli, topic);
	return CLI_OK;
}
