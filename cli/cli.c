#include "cli/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/complete.h"
#include "cli/help.h"
#include "cli/master.h"
#include "cli/prompt.h"
#include "cli/verbs.h"
#include "rpc/message.h"

/* "CODE: text", one line whatever is in it, written at once: several commands may share
 * the terminal or the log. */
static void print_line(FILE *out, const char *code, const char *text)
{
	char line[RV_ERROR_DETAIL_MAX + 80];
	int len = snprintf(
		line, sizeof line, "%.60s: %.*s", code, RV_ERROR_DETAIL_MAX - 1, text);

	for (int i = 0; i < len; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = ' ';
	fprintf(out, "%s\n", line);
}

static void note(struct cli *cli, const char *fmt, va_list ap)
{
	char text[RV_ERROR_DETAIL_MAX];

	vsnprintf(text, sizeof text, fmt, ap);
	print_line(cli->err, "reeve", text);
}

int cli_usage(struct cli *cli, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	note(cli, fmt, ap);
	va_end(ap);
	return CLI_USAGE;
}

void cli_note(struct cli *cli, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	note(cli, fmt, ap);
	va_end(ap);
}

static void print_error(struct cli *cli, const struct rv_error *e)
{
	print_line(cli->err, rv_error_xenapi(e->code),
		e->detail[0] ? e->detail : rv_error_text(e->code));
}

int cli_refused(struct cli *cli, const struct rv_error *e)
{
	print_error(cli, e);
	return CLI_REFUSED;
}

int cli_call_failed(struct cli *cli, const struct rv_error *e)
{
	bool remote = cli->connect.remote;
	struct rv_error why = *e;

	if (e->code == RV_ETIMEDOUT && !remote)
		master_explain_silence(cli, &why);
	print_error(cli, &why);
	return remote ? CLI_REFUSED : CLI_UNREACHABLE;
}

/* --- where the daemon is --- */

static void set_text(char *out, const char *option, const char *variable)
{
	const char *text = option ? option : variable ? getenv(variable) : NULL;

	if (text && !out[0])
		snprintf(out, CONNECT_TEXT_MAX, "%s", text);
}

/* What neither option nor environment says comes from the profile: the one that was
 * named, which must exist, or [default] if there is one. */
static int read_profile(struct cli *cli, struct connect_target *t)
{
	const char *named =
		cli->words.profile ? cli->words.profile : getenv("REEVE_PROFILE");
	const char *dir = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	struct rv_error e = {0};
	char path[CONNECT_TEXT_MAX];
	int rc;

	if (dir && *dir)
		snprintf(path, sizeof path, "%s/reeve/config", dir);
	else
		snprintf(path, sizeof path, "%s/.config/reeve/config", home ? home : "");
	rc = connect_profile(t, path, named ? named : "default", &e);
	if (rc == RV_ENOENT && !named)
		return CLI_OK;
	return rc ? cli_usage(cli, "%s", e.detail) : CLI_OK;
}

static int read_password(struct cli *cli, struct connect_target *t)
{
	const char *text = getenv("REEVE_PASSWORD");
	char label[CONNECT_TEXT_MAX + 16];

	if (text) {
		set_text(t->password, text, NULL);
		return CLI_OK;
	}
	if (!cli->in_tty)
		return cli_usage(cli,
			"user %.64s: REEVE_PASSWORD is not set, and there is no terminal "
			"to ask for the password at",
			t->user);
	snprintf(label, sizeof label, "Password of %s", t->user);
	return prompt_secret(cli, label, t->password, sizeof t->password)
		       ? cli_usage(cli, "the password is too long")
		       : CLI_OK;
}

static int find_target(struct cli *cli)
{
	struct connect_target *t = &cli->connect.target;
	int rc;

	set_text(t->url, cli->words.url, "REEVE_URL");
	set_text(t->user, cli->words.user, "REEVE_USER");
	set_text(t->ca, cli->words.ca, NULL);
	set_text(t->fingerprint, cli->words.fingerprint, NULL);
	rc = read_profile(cli, t);
	if (rc)
		return rc;
	set_text(t->url, CONNECT_URL_DEFAULT, NULL);
	return t->user[0] && !t->password[0] ? read_password(cli, t) : CLI_OK;
}

int cli_connect(struct cli *cli)
{
	struct rv_error e = {0};
	int rc;

	if (cli->connect.client)
		return CLI_OK;
	rc = find_target(cli);
	if (rc)
		return rc;
	if (cli->words.timeout_ms)
		cli->connect.timeout_ms = cli->words.timeout_ms;
	rc = connect_open(&cli->connect, cli->words.timeout_ms, &e);
	if (rc == RV_EINVAL && !cli->connect.remote)
		return cli_usage(cli, "%s", e.detail);
	if (rc)
		return cli_call_failed(cli, &e);
	master_watch(cli);
	return CLI_OK;
}

int cli_call(struct cli *cli, const char *method, const struct params *p,
	const msgpack_object **value)
{
	struct rv_error e = {0};
	int rc = cli_connect(cli);

	if (rc)
		return rc;
	return connect_call(&cli->connect, method, p, 0, value, &e)
		       ? cli_call_failed(cli, &e)
		       : CLI_OK;
}

void cli_bind(struct cli *cli, struct params *p)
{
	struct connect *c = &cli->connect;
	const msgpack_object *value;
	struct rv_error e = {0};

	if (uuid_is_none(&c->pool) && c->client &&
		!connect_call(c, "pool.get_all", NULL, 0, &value, &e) &&
		value->type == MSGPACK_OBJECT_ARRAY && value->via.array.size == 1 &&
		value->via.array.ptr[0].type == MSGPACK_OBJECT_STR &&
		uuid_parse(&c->pool, value->via.array.ptr[0].via.str.ptr,
			value->via.array.ptr[0].via.str.size))
		c->pool = UUID_NONE;
	if (!uuid_is_none(&c->pool))
		params_uuid(p, "pool", &c->pool);
}

int cli_change(struct cli *cli, const char *method, struct params *p,
	const msgpack_object **value)
{
	struct uuid request = connect_request(&cli->connect);
	int rc = cli_connect(cli);

	if (rc)
		return rc;
	cli_bind(cli, p);
	params_uuid(p, "request", &request);
	return cli_call(cli, method, p, value);
}

int cli_check_used(struct cli *cli, const char *known)
{
	const struct word *word = words_unused(&cli->words);

	if (!word)
		return CLI_OK;
	if (!word->key)
		return cli_usage(cli, "%s: '%.64s' does not read key=value",
			cli->words.command, word->value);
	return cli_usage(cli, "%s has no key '%.*s'; it takes %s", cli->words.command,
		(int)(word->key_len < 64 ? word->key_len : 64), word->key, known);
}

/* --- running --- */

static int run_command(struct cli *cli, const struct command *c)
{
	switch (c->kind) {
	case COMMAND_LIST:
		return verb_list(cli, c);
	case COMMAND_PARAM_LIST:
		return verb_param_list(cli, c);
	case COMMAND_PARAM_GET:
		return verb_param_get(cli, c);
	case COMMAND_PARAM_SET:
		return verb_param_set(cli, c);
	case COMMAND_PARAM_ADD:
		return verb_param_add(cli, c);
	case COMMAND_PARAM_REMOVE:
		return verb_param_remove(cli, c);
	case COMMAND_PARAM_CLEAR:
		return verb_param_clear(cli, c);
	case COMMAND_METHOD:
		return verb_method(cli, c);
	case COMMAND_VM_INSTALL:
		return verb_vm_install(cli, c);
	case COMMAND_VM_IMPORT_XL:
		return verb_vm_import_xl(cli, c);
	case COMMAND_TASK_WAIT:
		return verb_task_wait(cli, c);
	case COMMAND_CONSOLE:
		return verb_console(cli, c);
	case COMMAND_DATABASE_DUMP:
		return verb_database_dump(cli, c);
	case COMMAND_DATABASE_RESTORE:
		return verb_database_restore(cli, c);
	case COMMAND_EVENT_WATCH:
		return verb_event_watch(cli);
	case COMMAND_HELP:
		return help_run(cli);
	case COMMAND_API_DOC:
		api_doc_print(cli->out);
		return CLI_OK;
	}
	return CLI_USAGE;
}

/* Shows what the pool's database holds, and does not tell by itself how old that is. */
static bool shows(const struct command *c)
{
	switch (c->kind) {
	case COMMAND_LIST:
	case COMMAND_PARAM_LIST:
	case COMMAND_PARAM_GET:
		return true;
	case COMMAND_METHOD:
		return c->method->role == ROLE_READ_ONLY &&
		       c->method->id != METHOD_POOL_STATUS;
	default:
		return false;
	}
}

static int run_words(struct cli *cli)
{
	struct command c;
	int status;

	if (cli->words.version) {
		fprintf(cli->out, "reeve %s\n", REEVE_VERSION);
		return CLI_OK;
	}
	if (!cli->words.command) {
		const struct word *word = words_unused(&cli->words);

		if (word)
			return cli_usage(cli,
				"a command comes before key=value words; `reeve help` "
				"lists them");
		help_run(cli);
		return cli->words.help ? CLI_OK : CLI_USAGE;
	}
	if (!command_find(cli->words.command, &c))
		return help_unknown(cli, cli->words.command);
	if (cli->words.help) {
		help_command(cli->out, &c);
		return CLI_OK;
	}
	status = run_command(cli, &c);
	if (cli->connect.stale && shows(&c) && status != CLI_USAGE)
		master_warn_stale(cli);
	return status;
}

int cli_run(struct cli *cli, int argc, char *const *argv)
{
	struct rv_error e = {0};
	int status;

	connect_init(&cli->connect);
	if (argc == 3 && strcmp(argv[0], "--complete") == 0)
		status = complete_run(cli, argv[1], (size_t)strtoull(argv[2], NULL, 10));
	else if (words_parse(&cli->words, argc, argv, &e))
		status = cli_usage(cli, "%s", e.detail);
	else
		status = run_words(cli);
	words_fini(&cli->words);
	connect_close(&cli->connect);
	/* A full disk must not pass for success. */
	if ((fflush(cli->out) || ferror(cli->out)) && status == CLI_OK) {
		cli_note(
			cli, "not all of the output could be written: is the disk full?");
		status = CLI_REFUSED;
	}
	return status;
}
