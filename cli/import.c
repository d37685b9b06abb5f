/* vm-import-xl: the file is read here, and its text sent. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/input.h"
#include "cli/print.h"
#include "cli/verbs.h"
#include "rpc/message.h"

enum { IMPORT_TEXT_MAX = 64 * 1024 }; /* daemon/xl_config.h's */

/* *text: returned owned. */
static int read_text(struct cli *cli, const char *filename, char **text)
{
	FILE *f = strcmp(filename, "-") == 0 ? cli->in : fopen(filename, "r");
	size_t len;

	*text = malloc(IMPORT_TEXT_MAX + 2);
	if (!f || !*text) {
		cli_usage(cli, "%.200s can't be read: %s", filename,
			f ? "no memory" : strerrordesc_np(errno));
		goto failed;
	}
	len = fread(*text, 1, IMPORT_TEXT_MAX + 1, f);
	if (ferror(f) || len > IMPORT_TEXT_MAX || memchr(*text, '\0', len)) {
		cli_usage(cli, "%.200s is no configuration of xl", filename);
		goto failed;
	}
	(*text)[len] = '\0';
	if (f != cli->in)
		fclose(f);
	return CLI_OK;
failed:
	if (f && f != cli->in)
		fclose(f);
	free(*text);
	*text = NULL;
	return CLI_USAGE;
}

static void print_line(struct cli *cli, FILE *out, const char *before,
	const msgpack_object *o, const char *after)
{
	struct cli to = *cli;

	to.out = out;
	to.out_tty = out == cli->err ? cli->err_tty : cli->out_tty;
	fputs(before, out);
	print_text(&to, o->via.str.ptr, o->via.str.size);
	fputs(after, out);
}

/* The VM's UUID; what was not taken goes to the terminal, not into a pipe. */
static int print_import(struct cli *cli, const msgpack_object *value)
{
	const msgpack_object *vm = rpc_map_get(value, "VM"),
			     *adopted = rpc_map_get(value, "adopted"),
			     *notes = rpc_map_get(value, "notes");

	if (cli->words.json || !vm || vm->type != MSGPACK_OBJECT_STR)
		return print_object(cli, value);
	print_line(cli, cli->out, "", vm, "\n");
	if (adopted && adopted->type == MSGPACK_OBJECT_BOOLEAN && adopted->via.boolean)
		fputs("its guest runs on as this VM\n", cli->err);
	if (!notes || notes->type != MSGPACK_OBJECT_ARRAY)
		return CLI_OK;
	for (uint32_t i = 0; i < notes->via.array.size; i++)
		if (notes->via.array.ptr[i].type == MSGPACK_OBJECT_STR)
			print_line(
				cli, cli->err, "note: ", &notes->via.array.ptr[i], "\n");
	return CLI_OK;
}

int verb_vm_import_xl(struct cli *cli, const struct command *c)
{
	const char *filename = words_take(&cli->words, "filename"),
		   *host = words_take(&cli->words, "host");
	const msgpack_object *value;
	struct uuid uuid = UUID_NONE;
	struct params p;
	char *text;
	int rc;

	if (!host)
		host = words_take(&cli->words, "host-uuid");
	rc = cli_check_used(cli, "filename=, host=");
	if (!rc && !filename)
		rc = cli_usage(cli, "%s needs filename=: xl's configuration", c->name);
	if (!rc)
		rc = read_text(cli, filename, &text);
	if (rc)
		return rc;
	if (host)
		rc = input_object(cli, schema_class(CLASS_HOST), "host", host, &uuid);
	params_init(&p);
	params_text(&p, "text", text);
	if (host)
		params_uuid(&p, "host", &uuid);
	if (!rc)
		rc = cli_change(cli, "VM.import_xl", &p, &value);
	if (!rc)
		rc = print_import(cli, value);
	params_fini(&p);
	free(text);
	return rc;
}
