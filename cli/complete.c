#include "cli/complete.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/records.h"
#include "rpc/message.h"

enum { LINE_MAX_BYTES = 8192, COMPLETE_LIMIT_MS = 1000 };

struct complete {
	struct cli *cli;
	char text[LINE_MAX_BYTES]; /* the line's words, unquoted, each NUL-terminated */
	char *words[256];
	int count; /* the last one is the word at the cursor */
	const char *word;
	size_t skip; /* bytes of it that bash has behind it already */
};

/* --- the line --- */

/* Splits as a shell does: blanks, quotes, backslashes. */
static void split(struct complete *c, const char *line, size_t point)
{
	size_t at = 0, len = strnlen(line, point);
	char quote = '\0';
	bool inside = false;

	for (size_t i = 0; i <= len && at + 2 < sizeof c->text; i++) {
		char ch = i < len ? line[i] : ' ';
		bool end = (ch == ' ' || ch == '\t') && !quote;

		if (i == len || end) {
			if (inside || i == len) {
				if (!inside && c->count < 255)
					c->words[c->count++] = &c->text[at];
				c->text[at++] = '\0';
			}
			inside = false;
			continue;
		}
		if (!inside) {
			if (c->count == 255)
				break;
			c->words[c->count++] = &c->text[at];
			inside = true;
		}
		if (ch == '\\' && quote != '\'' && i + 1 < len)
			c->text[at++] = line[++i];
		else if (quote ? ch == quote : ch == '\'' || ch == '"')
			quote = quote ? '\0' : ch;
		else
			c->text[at++] = ch;
	}
}

/* --- candidates --- */

/* Prints a whole word if what was typed is its beginning; `end` follows it. */
static void offer(struct complete *c, const char *front, const char *text, char end)
{
	char whole[1024];
	size_t typed = strlen(c->word);

	snprintf(whole, sizeof whole, "%s%s", front, text);
	if (strncasecmp(whole, c->word, typed) != 0 || typed < c->skip)
		return;
	for (const char *p = whole + c->skip; *p; p++) {
		if (strchr(" \t\\'\"$`&|;<>()*?[]#!{}~", *p))
			fputc('\\', c->cli->out);
		fputc((unsigned char)*p < ' ' ? '?' : *p, c->cli->out);
	}
	if (end)
		fputc(end, c->cli->out);
	fputc('\n', c->cli->out);
}

static bool offer_command(void *arg, const struct command *command)
{
	if (!command->hidden && !command->other)
		offer(arg, "", command->name, '\0');
	return true;
}

static void offer_classes(struct complete *c)
{
	for (int i = CLASS_NONE + 1; i < CLASS_COUNT; i++) {
		char name[NAME_TYPED_MAX];

		offer(c, "",
			command_self_key(schema_class((enum schema_class_id)i), name),
			'\0');
	}
}

/* Names of the class's objects; UUIDs where they have no names. */
static void offer_objects(
	struct complete *c, const char *front, const struct schema_class *cls, bool uuids)
{
	const struct schema_field *name = uuids ? NULL : schema_name_field(cls);
	const msgpack_object *value;
	struct rv_error e = {0};
	struct records r;
	struct params p;
	char method[NAME_TYPED_MAX];
	int rc;

	if (cli_connect(c->cli))
		return;
	records_init(&r, cls);
	records_want(&r, name ? name : &cls->fields[0]);
	params_init(&p);
	params_key(&p, "fields");
	msgpack_pack_array(&p.pk, 1);
	rpc_pack_key(&p.pk, r.fields[0]->name);
	snprintf(method, sizeof method, "%s.get_all_records", cls->name);
	rc = connect_call(&c->cli->connect, method, &p, COMPLETE_LIMIT_MS, &value, &e);
	params_fini(&p);
	if (!rc)
		rc = records_take(&r, value, &e);
	if (!rc)
		records_sort(&r);
	for (int i = 0; i < r.count && !rc; i++) {
		char text[UUID_TEXT_SIZE];

		offer(c, front,
			name ? value_get_string(&r.list[i].values[0])
			     : uuid_format(&r.list[i].uuid, text),
			'\0');
	}
	records_fini(&r);
}

static void offer_fields(
	struct complete *c, const char *front, const struct schema_class *cls)
{
	char name[NAME_TYPED_MAX];

	for (int i = 0; i < cls->field_count; i++)
		if (!cls->fields[i].secret)
			offer(c, front,
				name_typed(cls->fields[i].name, false, name, sizeof name),
				'\0');
}

/* --- keys and values --- */

struct keys {
	struct complete *c;
	const struct command *command;
	const char *value; /* after '=', or NULL: the key is being typed */
	size_t key_len;
};

static bool typed_before(const struct complete *c, const char *key)
{
	for (int i = 0; i + 1 < c->count; i++) {
		size_t len = strcspn(c->words[i], "=");

		if (c->words[i][len] == '=' && name_is(c->words[i], len, key))
			return true;
	}
	return false;
}

static void offer_value(struct keys *k, const struct command_key *key)
{
	struct complete *c = k->c;
	const char *comma = strrchr(k->value, ',');
	char front[512];

	snprintf(front, sizeof front, "%.*s=", (int)k->key_len, c->word);
	if (key->field_names) {
		if (key->multiple && comma)
			snprintf(front, sizeof front, "%.*s", (int)(comma + 1 - c->word),
				c->word);
		offer_fields(c, front, k->command->cls);
		if (key->multiple && !comma)
			offer(c, front, "all", '\0');
		return;
	}
	for (int i = 0; key->enum_texts && key->enum_texts[i]; i++)
		if (key->enum_texts[i][0])
			offer(c, front, key->enum_texts[i], '\0');
	if (key->type == VALUE_BOOL) {
		offer(c, front, "true", '\0');
		offer(c, front, "false", '\0');
	}
	if ((key->type == VALUE_REF || key->type == VALUE_REF_SET) &&
		key->ref_class != CLASS_NONE)
		offer_objects(c, front, schema_class(key->ref_class),
			strcmp(key->name, "uuid") == 0);
}

static bool offer_key(void *arg, const struct command_key *key)
{
	struct keys *k = arg;

	if (!k->value) {
		if (!typed_before(k->c, key->name) || key->type == VALUE_STRING_MAP)
			offer(k->c, "", key->name,
				key->type == VALUE_STRING_MAP ? ':' : '=');
		return true;
	}
	if (!name_is(k->c->word, k->key_len, key->name))
		return true;
	offer_value(k, key);
	return false;
}

static void offer_options(struct complete *c)
{
	static const char *const flags[] = {"--minimal", "--json", "--async", "--help",
		"--version", "--url=", "--user=", "--profile=", "--ca=", "--fingerprint=",
		"--timeout="};

	for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
		offer(c, "", flags[i], '\0');
}

static void complete_word(struct complete *c, const char *command_name)
{
	struct command command;
	struct keys keys = {.c = c, .command = &command};
	const char *eq = strchr(c->word, '=');

	if (c->word[0] == '-') {
		offer_options(c);
		return;
	}
	if (!command_name) {
		command_each(offer_command, c);
		return;
	}
	if (!command_find(command_name, &command))
		return;
	if (command.kind == COMMAND_HELP || command.kind == COMMAND_EVENT_WATCH) {
		offer_classes(c);
		if (command.kind == COMMAND_HELP)
			command_each(offer_command, c);
		return;
	}
	keys.value = eq ? eq + 1 : NULL;
	keys.key_len = eq ? (size_t)(eq - c->word) : 0;
	command_keys(&command, offer_key, &keys);
	/* The object can always be named by uuid= too. */
	if (command.cls && command.kind != COMMAND_LIST) {
		struct command_key uuid = {
			.name = "uuid", .type = VALUE_REF, .ref_class = command.cls->id};

		if (eq && name_is(c->word, keys.key_len, "uuid"))
			offer_value(&keys, &uuid);
	}
}

int complete_run(struct cli *cli, const char *line, size_t point)
{
	struct complete *c = calloc(1, sizeof *c);
	FILE *err = cli->err, *nowhere = fopen("/dev/null", "we");
	char *argv[256];
	struct rv_error e = {0};
	const char *end;

	if (!c || !nowhere || strlen(line) >= LINE_MAX_BYTES)
		goto out;
	c->cli = cli;
	split(c, line, point);
	if (c->count < 2)
		goto out;
	c->word = c->words[c->count - 1];
	for (end = c->word; *end; end++)
		if (*end == '=' || *end == ':')
			c->skip = (size_t)(end + 1 - c->word);
	/* Options such as --url= that were typed before count here too. */
	for (int i = 1; i + 1 < c->count; i++)
		argv[i - 1] = c->words[i];
	if (words_parse(&cli->words, c->count - 2, argv, &e))
		goto out;
	cli->words.timeout_ms = COMPLETE_LIMIT_MS;
	cli->in_tty = false;
	cli->err = nowhere; /* a word at the cursor is no place for errors */
	complete_word(c, cli->words.command);
out:
	cli->err = err;
	if (nowhere)
		fclose(nowhere);
	free(c);
	return CLI_OK;
}
