#include "cli/input.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/units.h"
#include "cli/prompt.h"
#include "rpc/message.h"

struct input input_of_field(const struct schema_field *f, const char *key)
{
	return (struct input){.key = key,
		.type = f->type,
		.ref_class = f->ref_class,
		.enum_texts = f->enum_texts,
		.ms = input_is_ms(f->name)};
}

bool input_is_ms(const char *name)
{
	size_t len = strlen(name);

	return len > 3 && strcmp(name + len - 3, "_ms") == 0;
}

/* --- text to values --- */

/* "Halted, Paused or Running". */
static void enum_list(const char *const *texts, char *out, size_t size)
{
	size_t used = 0;

	out[0] = '\0';
	for (int i = 0; texts[i] && used < size; i++)
		used += (size_t)snprintf(out + used, size - used, "%s%s",
			i == 0	       ? ""
			: texts[i + 1] ? ", "
				       : " or ",
			texts[i][0] ? texts[i] : "nothing");
}

static int parse_enum(
	const struct input *in, const char *text, struct value *out, struct rv_error *e)
{
	char known[300];

	for (int i = 0; in->enum_texts[i]; i++)
		if (name_is(text, strlen(text), in->enum_texts[i]))
			return value_from_cstr(out, in->enum_texts[i]);
	enum_list(in->enum_texts, known, sizeof known);
	return rv_error_set(
		e, RV_EPARAM, "%s: \"%.64s\" is not %s", in->key, text, known);
}

static bool parse_bool(const char *text, struct value *out)
{
	static const char *const words[][2] = {
		{"false", "true"}, {"no", "yes"}, {"0", "1"}, {"off", "on"}};

	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		for (int b = 0; b < 2; b++) {
			if (!name_is(text, strlen(text), words[i][b]))
				continue;
			*out = value_bool(b);
			return true;
		}
	}
	return false;
}

int input_parse(
	const struct input *in, const char *text, struct value *out, struct rv_error *e)
{
	uint64_t ms;
	int rc;

	*out = (struct value){0};
	if (in->enum_texts)
		return parse_enum(in, text, out, e);
	if (in->type == VALUE_BOOL && parse_bool(text, out))
		return 0;
	if (in->ms && in->type == VALUE_INT && *text) {
		bool minus = text[0] == '-';

		if (units_parse_ms(text + minus, &ms) || ms > INT64_MAX)
			return rv_error_set(e, RV_EPARAM,
				"%s: \"%.64s\" is no time such as 500ms, 30s or 5m, nor "
				"a number of milliseconds",
				in->key, text);
		*out = value_int(minus ? -(int64_t)ms : (int64_t)ms);
		return 0;
	}
	if (!*text && (in->type == VALUE_BOOL || in->type == VALUE_INT ||
			      in->type == VALUE_FLOAT))
		return rv_error_set(e, RV_EPARAM, "%s= needs a value", in->key);
	rc = value_parse(out, in->type, text, e);
	if (rc)
		rv_error_prefix(e, "%s", in->key);
	return rc;
}

/* --- objects by name --- */

static int name_ambiguous(struct cli *cli, const struct schema_class *cls,
	const char *text, const msgpack_object *uuids)
{
	struct rv_error e = {0};
	char list[400];
	size_t used = 0;

	for (uint32_t i = 0; i < uuids->via.array.size && used < sizeof list; i++)
		used += (size_t)snprintf(list + used, sizeof list - used, "%s%.*s",
			i ? ", " : "", (int)uuids->via.array.ptr[i].via.str.size,
			uuids->via.array.ptr[i].via.str.ptr);
	rv_error_set(&e, RV_EINVAL,
		"%u objects of class %s are named '%.128s'; give the UUID of one: %s",
		uuids->via.array.size, cls->name, text, list);
	return cli_refused(cli, &e);
}

static int object_by_name(struct cli *cli, const struct schema_class *cls,
	const char *key, const char *text, struct uuid *out)
{
	bool template = cls->id == CLASS_VM && strcmp(key, "template") == 0;
	const msgpack_object *value;
	struct rv_error e = {0};
	char method[NAME_TYPED_MAX], list[NAME_TYPED_MAX];
	struct params p;
	int rc;

	params_init(&p);
	params_text(&p, "label", text);
	snprintf(method, sizeof method, "%s.get_by_name_label", cls->name);
	rc = cli_call(cli, method, &p, &value);
	params_fini(&p);
	if (rc)
		return rc;
	if (value->type != MSGPACK_OBJECT_ARRAY)
		rv_error_set(&e, RV_EPROTO, "%s answered no list", method);
	else if (value->via.array.size > 1)
		return name_ambiguous(cli, cls, text, value);
	else if (value->via.array.size == 0)
		rv_error_set(&e, RV_ENOENT,
			"there is no %s named '%.128s'; `reeve %s-list` shows them",
			template ? key : cls->name, text,
			template ? key : command_self_key(cls, list));
	else if (value->via.array.ptr[0].type != MSGPACK_OBJECT_STR ||
		 uuid_parse(out, value->via.array.ptr[0].via.str.ptr,
			 value->via.array.ptr[0].via.str.size))
		rv_error_set(&e, RV_EPROTO, "%s answered no UUID", method);
	return e.code ? cli_refused(cli, &e) : CLI_OK;
}

int input_object(struct cli *cli, const struct schema_class *cls, const char *key,
	const char *text, struct uuid *out)
{
	char class_name[NAME_TYPED_MAX];

	if (uuid_parse(out, text, strlen(text)) == 0)
		return CLI_OK;
	if (!*text)
		return cli_usage(cli, "%s= needs a %s", key,
			schema_name_field(cls) ? "name or UUID" : "UUID");
	if (command_class_has(cls, METHOD_KIND_GET_BY_NAME))
		return object_by_name(cli, cls, key, text, out);
	return cli_usage(cli,
		"%s: \"%.64s\" is no UUID, and objects of class %s have no names; `reeve "
		"%s-list` shows them",
		key, text, cls->name, command_self_key(cls, class_name));
}

/* The only object of a class that has exactly one: the pool. */
static int object_only(struct cli *cli, const struct schema_class *cls, struct uuid *out)
{
	const msgpack_object *value;
	struct rv_error e = {0};
	char method[NAME_TYPED_MAX];
	int rc;

	snprintf(method, sizeof method, "%s.get_all", cls->name);
	rc = cli_call(cli, method, NULL, &value);
	if (rc)
		return rc;
	if (value->type == MSGPACK_OBJECT_ARRAY && value->via.array.size == 1 &&
		value->via.array.ptr[0].type == MSGPACK_OBJECT_STR &&
		uuid_parse(out, value->via.array.ptr[0].via.str.ptr,
			value->via.array.ptr[0].via.str.size) == 0)
		return CLI_OK;
	rv_error_set(&e, RV_ENOENT, "there is not exactly one %s", cls->name);
	return cli_refused(cli, &e);
}

/* KEY= or KEY-uuid=, whichever was typed. */
static const char *take_ref(struct words *w, const char *key)
{
	const char *text = words_take(w, key);
	char long_key[NAME_TYPED_MAX + 8];

	if (text)
		return text;
	snprintf(long_key, sizeof long_key, "%s-uuid", key);
	return words_take(w, long_key);
}

/* Both vm=web1 and uuid=… were typed: they may only say the same. */
static int self_agrees(struct cli *cli, const struct schema_class *cls, const char *key,
	const char *text, const char *other_key, const char *other,
	const struct uuid *self)
{
	struct uuid uuid;
	int rc = input_object(cli, cls, other_key, other, &uuid);

	if (rc || uuid_eq(&uuid, self))
		return rc;
	return cli_usage(cli,
		"%s=%.64s and %s=%.64s are two different objects: name one of them", key,
		text, other_key, other);
}

int input_self(struct cli *cli, const struct schema_class *cls, struct uuid *out)
{
	char key[NAME_TYPED_MAX], long_key[NAME_TYPED_MAX + 8];
	const char *const keys[] = {key, long_key, "uuid"};
	const char *first = NULL, *first_key = NULL;
	int rc = CLI_OK;

	command_self_key(cls, key);
	snprintf(long_key, sizeof long_key, "%s-uuid", key);
	for (int i = 0; i < 3 && !rc; i++) {
		const char *text = words_take(&cli->words, keys[i]);

		if (!text)
			continue;
		if (first) {
			rc = self_agrees(cli, cls, first_key, first, keys[i], text, out);
			continue;
		}
		first = text;
		first_key = keys[i];
		rc = input_object(cli, cls, keys[i], text, out);
	}
	if (rc || first)
		return rc;
	if (cls->id == CLASS_POOL)
		return object_only(cli, cls, out);
	return input_needs(cli, "which %s? %s= is needed, its %s", cls->name, key,
		schema_name_field(cls) ? "name or UUID" : "UUID");
}

int input_value(
	struct cli *cli, const struct input *in, const char *text, struct value *out)
{
	struct rv_error e = {0};

	*out = (struct value){0};
	if (in->type == VALUE_REF && in->ref_class != CLASS_NONE &&
		(in->named || (*text && strcmp(text, "<not in database>") != 0))) {
		struct uuid uuid;
		int rc = input_object(
			cli, schema_class(in->ref_class), in->key, text, &uuid);

		*out = value_ref(uuid);
		return rc;
	}
	if (input_parse(in, text, out, &e))
		return cli_usage(cli, "%s", e.detail);
	return CLI_OK;
}

int input_flag(struct cli *cli, const char *key, bool *out)
{
	const struct input in = {.key = key, .type = VALUE_BOOL};
	const char *text = words_take(&cli->words, key);
	struct value v;
	int rc;

	*out = false;
	if (!text)
		return CLI_OK;
	rc = input_value(cli, &in, text, &v);
	if (!rc)
		*out = value_get_bool(&v);
	return rc;
}

/* --- keys to params --- */

/* key:sub=TEXT words, gathered into one map. */
static int gather_map(struct cli *cli, const char *key, struct value *map, bool *found)
{
	struct word *word;
	int at = 0;

	while ((word = words_next(&cli->words, key, &at))) {
		if (!word->sub)
			continue;
		word->used = *found = true;
		if (value_map_put(map, word->sub, word->sub_len, word->value,
			    strlen(word->value)))
			return cli_usage(cli,
				"%s:%.*s: this is no text of at most %d "
				"bytes in UTF-8",
				key, (int)word->sub_len, word->sub, 65536);
	}
	return CLI_OK;
}

/* One key's value, of whatever type: KEY=TEXT, and KEY:SUB=TEXT for maps. */
static int input_key(
	struct cli *cli, const struct input *in, struct value *out, bool *found)
{
	const char *text = in->type == VALUE_REF ? take_ref(&cli->words, in->key)
						 : words_take(&cli->words, in->key);
	int rc = CLI_OK;

	*out = (struct value){0};
	*found = text != NULL;
	if (text)
		rc = input_value(cli, in, text, out);
	if (rc || in->type != VALUE_STRING_MAP)
		return rc;
	if (!text)
		*out = value_zero(VALUE_STRING_MAP);
	return gather_map(cli, in->key, out, found);
}

int input_field(struct cli *cli, const struct schema_field *f, const char *key,
	struct value *out, bool *found)
{
	struct input in = input_of_field(f, key);

	return input_key(cli, &in, out, found);
}

/* Keys that xe calls otherwise. */
static const struct {
	enum schema_method_id method;
	const char *name, *other;
} other_keys[] = {
	{METHOD_VM_CLONE, "new-name", "new-name-label"},
	{METHOD_VDI_RESIZE, "size", "disk-size"},
	{METHOD_VBD_CREATE, "userdevice", "device"},
	{METHOD_USER_SET_PASSWORD, "password", "new-password"},
};

/* As input_key, under the key's other names too. */
static int input_key_of(struct cli *cli, const struct schema_method *m,
	const struct input *in, struct value *out, bool *found)
{
	int rc = input_key(cli, in, out, found);
	size_t len = strlen(in->key);

	for (size_t i = 0; i < sizeof other_keys / sizeof other_keys[0]; i++) {
		struct input other = *in;

		if (rc || *found || other_keys[i].method != m->id ||
			strcmp(other_keys[i].name, in->key) != 0)
			continue;
		other.key = other_keys[i].other;
		value_fini(out);
		rc = input_key(cli, &other, out, found);
	}
	if (!rc && !*found && in->ms && len > 3) {
		/* timeout=30s for timeout-ms=30000 */
		char unit_free[NAME_TYPED_MAX];
		struct input other = *in;

		snprintf(unit_free, sizeof unit_free, "%.*s", (int)len - 3, in->key);
		other.key = unit_free;
		value_fini(out);
		rc = input_key(cli, &other, out, found);
	}
	return rc;
}

/* A secret that was not typed, and so is in no process list. */
static int read_secret(struct cli *cli, const char *key, struct value *out)
{
	char text[1024];
	int rc;

	if (prompt_secret(cli, key, text, sizeof text))
		return cli_usage(cli, "%s: at most %zu bytes", key, sizeof text - 2);
	if (!text[0])
		return input_needs(
			cli, "%s is needed: %s=…, or a line on standard input", key, key);
	rc = value_from_cstr(out, text)
		     ? cli_usage(cli, "%s: this is no text in UTF-8", key)
		     : CLI_OK;
	explicit_bzero(text, sizeof text);
	return rc;
}

/* The record argument: every writable field that was typed. */
static int input_record(struct cli *cli, const struct schema_method *m,
	const struct schema_arg *arg, struct params *p)
{
	const struct schema_class *cls = schema_class(m->cls);
	struct params fields;
	int rc = CLI_OK;

	params_init(&fields);
	for (int i = 0; i < cls->field_count && !rc; i++) {
		const struct schema_field *f = &cls->fields[i];
		char key[NAME_TYPED_MAX];
		struct input in =
			input_of_field(f, name_typed(f->name, false, key, sizeof key));
		struct value v;
		bool found;

		if (f->writer == WRITER_SYSTEM || f->secret || f->key)
			continue;
		in.named = f->type == VALUE_REF && f->ref == REF_OWNER;
		rc = input_key_of(cli, m, &in, &v, &found);
		if (!rc && found)
			params_value(&fields, f->name, &v);
		value_fini(&v);
	}
	params_key(p, arg->name);
	msgpack_pack_map(&p->pk, fields.count);
	if (buf_len(&fields.bytes))
		p->pk.callback(p->pk.data, (const char *)buf_data(&fields.bytes),
			buf_len(&fields.bytes));
	params_fini(&fields);
	return rc;
}

/* "vm=, on=, start-paused=": what the command takes, for errors. */
struct known {
	char text[600];
	size_t used;
	struct name_guess guess;
	bool fields; /* there are more: the class's fields */
};

static bool known_add(void *arg, const struct command_key *k)
{
	struct known *known = arg;

	name_guess_try(&known->guess, k->name);
	if (k->field)
		known->fields = true;
	else if (known->used < sizeof known->text)
		known->used += (size_t)snprintf(known->text + known->used,
			sizeof known->text - known->used,
			"%s%s=", known->used ? ", " : "", k->name);
	return true;
}

/* A field that the record could hold, but not so. NULL: it is none. */
static const char *field_fault(
	const struct command *c, const struct schema_method *m, const struct word *word)
{
	const struct schema_field *f =
		schema_field_by_typed(schema_class(m->cls), word->key, word->key_len);
	bool record = false;

	for (int i = 0; i < m->arg_count; i++)
		record |= m->args[i].record;
	if (!record || !f || c->kind != COMMAND_METHOD)
		return NULL;
	if (f->writer == WRITER_SYSTEM)
		return "is kept by the pool itself";
	return word->sub ? "is no map" : "is given twice";
}

/* Tells of a word that nobody wanted. */
static int word_unknown(struct cli *cli, const struct command *c,
	const struct schema_method *m, const struct word *word)
{
	struct known known = {.used = 0};
	const char *fault;
	char guess[300];
	int len;

	if (!word->key)
		return cli_usage(
			cli, "%s: '%.64s' does not read key=value", c->name, word->value);
	len = (int)(word->key_len < 64 ? word->key_len : 64);
	fault = m && m->cls != CLASS_NONE ? field_fault(c, m, word) : NULL;
	if (fault)
		return cli_usage(cli, "%s: %.*s %s", c->name, len, word->key, fault);
	name_guess_init(&known.guess, word->key, word->key_len);
	command_keys(c, known_add, &known);
	if (known.guess.count && known.guess.distance[0] == 0)
		return cli_usage(cli, "%s: %.*s %s", c->name, len, word->key,
			word->sub ? "is no map" : "is given twice");
	name_guess_text(&known.guess, guess, sizeof guess);
	if (guess[0])
		return cli_usage(
			cli, "%s has no key '%.*s'%s", c->name, len, word->key, guess);
	if (known.fields)
		return cli_usage(cli, "%s has no key '%.*s'; `reeve help %s` lists them",
			c->name, len, word->key, c->name);
	return cli_usage(cli, "%s has no key '%.*s'; it takes %s", c->name, len,
		word->key, known.text[0] ? known.text : "none");
}

/* Looks for a word that no key of the command explains. */
struct astray {
	const struct word *word;
	bool known;
};

static bool astray_is(void *arg, const struct command_key *k)
{
	struct astray *a = arg;
	const struct word *w = a->word;
	size_t len = strlen(k->name), typed = w->key_len;

	if (k->type == VALUE_REF && typed > 5 && name_is(w->key + typed - 5, 5, "-uuid"))
		typed -= 5;
	a->known = name_is(w->key, w->key_len, k->name) ||
		   name_is(w->key, typed, k->name) ||
		   (len > 3 && strcmp(k->name + len - 3, "-ms") == 0 &&
			   len == typed + 3 && strncasecmp(w->key, k->name, typed) == 0);
	return !a->known;
}

static bool other_key_is(const struct schema_method *m, const struct word *w)
{
	for (size_t i = 0; m && i < sizeof other_keys / sizeof other_keys[0]; i++)
		if (other_keys[i].method == m->id &&
			name_is(w->key, w->key_len, other_keys[i].other))
			return true;
	return false;
}

static const struct word *word_astray(const struct cli *cli, const struct command *c)
{
	for (int i = 0; i < cli->words.count; i++) {
		struct astray a = {.word = &cli->words.list[i]};

		if (a.word->used)
			continue;
		if (a.word->key && (name_is(a.word->key, a.word->key_len, "uuid") ||
					   other_key_is(c->method, a.word)))
			continue;
		if (a.word->key)
			command_keys(c, astray_is, &a);
		if (!a.known)
			return a.word;
	}
	return NULL;
}

int input_needs(struct cli *cli, const char *fmt, ...)
{
	const struct word *word = NULL;
	struct command c;
	char text[400];
	va_list ap;

	if (cli->words.command && command_find(cli->words.command, &c))
		word = word_astray(cli, &c);
	if (word)
		return word_unknown(cli, &c, c.method, word);
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return cli_usage(cli, "%s", text);
}

static int input_arg(struct cli *cli, const struct command *c,
	const struct schema_method *m, const struct schema_arg *arg, struct params *p)
{
	char key[NAME_TYPED_MAX];
	struct input in = {.key = name_typed(arg->name, true, key, sizeof key),
		.type = arg->type,
		.ref_class = arg->ref_class,
		.enum_texts = arg->enum_texts,
		.ms = input_is_ms(arg->name),
		.named = true};
	struct value v = {0};
	bool found;
	int rc;

	if (arg->record)
		return input_record(cli, m, arg, p);
	if (strcmp(arg->name, "self") == 0) {
		struct uuid self;

		rc = input_self(cli, schema_class(arg->ref_class), &self);
		if (!rc)
			params_uuid(p, "self", &self);
		return rc;
	}
	rc = input_key_of(cli, m, &in, &v, &found);
	/* A wrong key is told before anybody types a secret for nothing. */
	if (!rc && !found && arg->secret && arg->required && word_astray(cli, c))
		rc = word_unknown(cli, c, m, word_astray(cli, c));
	if (!rc && !found && arg->secret && arg->required) {
		value_fini(&v);
		rc = read_secret(cli, key, &v);
		found = true;
	}
	if (!rc && found)
		params_value(p, arg->name, &v);
	value_fini(&v);
	if (!rc && !found && arg->required)
		return input_needs(cli, "%s needs %s=: %s", c->name, key, arg->doc);
	return rc;
}

int input_params(struct cli *cli, const struct command *c, const struct schema_method *m,
	struct params *p)
{
	int rc = CLI_OK;

	/* Spelling first: a wrong key must not cost a question to the pool. */
	for (int i = 0; i < cli->words.count && !rc; i++) {
		struct word *word = &cli->words.list[i];

		if (!word->key && !word->used)
			rc = word_unknown(cli, c, m, word);
	}
	for (int i = 0; i < m->arg_count && !rc; i++)
		rc = input_arg(cli, c, m, &m->args[i], p);
	if (!rc && words_unused(&cli->words))
		rc = word_unknown(cli, c, m, words_unused(&cli->words));
	return rc;
}
