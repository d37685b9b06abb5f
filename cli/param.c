/* <class>-param-list, -get, -set, -add, -remove, -clear. */
#include <stdio.h>
#include <string.h>

#include "cli/input.h"
#include "cli/print.h"
#include "cli/records.h"
#include "cli/verbs.h"
#include "rpc/message.h"

/* "VM.get_record" */
static char *method_text(const struct schema_class *cls, const char *name, char *out)
{
	snprintf(out, NAME_TYPED_MAX, "%s.%s", cls->name, name);
	return out;
}

/* The fields of `r` of one object. */
static int fetch_one(struct cli *cli, struct records *r, struct uuid uuid, bool all)
{
	const msgpack_object *value;
	char method[NAME_TYPED_MAX];
	struct rv_error e = {0};
	struct params p;
	int rc;

	params_init(&p);
	params_uuid(&p, "self", &uuid);
	if (!all) {
		params_key(&p, "fields");
		msgpack_pack_array(&p.pk, (size_t)r->field_count);
		for (int i = 0; i < r->field_count; i++)
			rpc_pack_key(&p.pk, r->fields[i]->name);
	}
	rc = cli_call(cli, method_text(r->cls, "get_record", method), &p, &value);
	params_fini(&p);
	if (rc)
		return rc;
	return records_take_one(r, uuid, value, &e) ? cli_refused(cli, &e) : CLI_OK;
}

int verb_param_list(struct cli *cli, const struct command *c)
{
	struct records r;
	struct uuid self;
	int rc = input_self(cli, c->cls, &self);

	records_init(&r, c->cls);
	if (!rc)
		rc = cli_check_used(cli, "the object alone");
	for (int i = 0; i < c->cls->field_count; i++)
		if (!c->cls->fields[i].secret)
			records_want(&r, &c->cls->fields[i]);
	r.shown = r.field_count;
	if (!rc)
		rc = fetch_one(cli, &r, self, true);
	if (!rc)
		rc = cli->words.json	  ? print_json_records(cli, &r)
		     : cli->words.minimal ? print_minimal(cli, &r)
					  : print_records(cli, &r);
	records_fini(&r);
	return rc;
}

/* The object and the field that param-name= names. */
static int param_begin(struct cli *cli, const struct command *c, struct uuid *self,
	const struct schema_field **field)
{
	const char *name = words_take(&cli->words, "param-name");

	if (!name)
		return input_needs(cli, "%s needs param-name=: the field", c->name);
	*field = verb_field(cli, c->cls, name, strlen(name));
	return *field ? input_self(cli, c->cls, self) : CLI_USAGE;
}

static const char *typed(const struct schema_field *f, char *out)
{
	return name_typed(f->name, false, out, NAME_TYPED_MAX);
}

static int print_key(struct cli *cli, const struct schema_field *f, const struct value *v,
	const char *key)
{
	const char *text;
	char name[NAME_TYPED_MAX];
	struct rv_error e = {0};

	if (f->type != VALUE_STRING_MAP)
		return cli_usage(
			cli, "%s is no map: leave param-key= out", typed(f, name));
	text = value_map_get(v, key);
	if (!text) {
		rv_error_set(&e, RV_ENOENT, "%s.%s has no key '%.64s'",
			schema_class(f->cls)->name, typed(f, name), key);
		return cli_refused(cli, &e);
	}
	if (cli->words.json)
		print_json_text(cli->out, text, strlen(text));
	else
		print_text(cli, text, strlen(text));
	fputc('\n', cli->out);
	return CLI_OK;
}

int verb_param_get(struct cli *cli, const struct command *c)
{
	const struct schema_field *f;
	const char *key = words_take(&cli->words, "param-key");
	struct records r;
	struct uuid self;
	int rc = param_begin(cli, c, &self, &f);

	if (!rc)
		rc = cli_check_used(cli, "the object, param-name=, param-key=");
	if (rc)
		return rc;
	records_init(&r, c->cls);
	records_want(&r, f);
	rc = fetch_one(cli, &r, self, false);
	if (!rc && key)
		rc = print_key(cli, f, &r.list[0].values[0], key);
	else if (!rc && cli->words.json) {
		print_json_value(cli->out, &r.list[0].values[0]);
		fputc('\n', cli->out);
	} else if (!rc)
		rc = print_value(cli, &r.list[0].values[0]);
	records_fini(&r);
	return rc;
}

/* --- changing --- */

/* add_to with one element or one pair. */
static int add_one(struct cli *cli, const struct schema_field *f, struct uuid self,
	const char *key, size_t key_len, const char *text)
{
	char method[NAME_TYPED_MAX];
	struct params p;
	int rc;

	params_init(&p);
	params_uuid(&p, "self", &self);
	params_text(&p, "field", f->name);
	params_key(&p, "key");
	msgpack_pack_str_with_body(&p.pk, key, key_len);
	if (text)
		params_text(&p, "value", text);
	rc = cli_change(
		cli, method_text(schema_class(f->cls), "add_to", method), &p, NULL);
	params_fini(&p);
	return rc;
}

static int set_fields(struct cli *cli, const struct schema_class *cls, struct uuid self,
	const struct params *fields)
{
	char method[NAME_TYPED_MAX];
	struct params p;
	int rc;

	params_init(&p);
	params_uuid(&p, "self", &self);
	params_key(&p, "fields");
	msgpack_pack_map(&p.pk, fields->count);
	if (buf_len(&fields->bytes))
		p.pk.callback(p.pk.data, (const char *)buf_data(&fields->bytes),
			buf_len(&fields->bytes));
	rc = cli_change(cli, method_text(cls, "set_fields", method), &p, NULL);
	params_fini(&p);
	return rc;
}

/* Fields with commands of their own, since they depend on one another. */
static const char *other_command(const struct schema_field *f)
{
	switch (f->id) {
	case VM_MEMORY_STATIC_MIN:
	case VM_MEMORY_STATIC_MAX:
		return "vm-memory-static-range-set or vm-memory-limits-set";
	case VM_MEMORY_DYNAMIC_MIN:
	case VM_MEMORY_DYNAMIC_MAX:
		return "vm-memory-dynamic-range-set or vm-memory-limits-set";
	case VM_VCPUS_MAX:
	case VM_VCPUS_AT_STARTUP:
		return "vm-vcpus-set";
	case VDI_VIRTUAL_SIZE:
		return "vdi-resize";
	default:
		return NULL;
	}
}

/* Takes every field=value that was typed into `fields`; map keys stay. */
static int set_gather(
	struct cli *cli, const struct schema_class *cls, struct params *fields)
{
	for (int i = 0; i < cli->words.count; i++) {
		struct word *w = &cli->words.list[i];
		const struct schema_field *f;
		char name[NAME_TYPED_MAX];
		struct value v;
		struct input in;
		int rc;

		if (w->used)
			continue;
		if (!w->key)
			return cli_usage(cli, "%s: '%.64s' does not read field=value",
				cli->words.command, w->value);
		f = verb_field(cli, cls, w->key, w->key_len);
		if (!f)
			return CLI_USAGE;
		if (w->sub && f->type != VALUE_STRING_MAP)
			return cli_usage(cli,
				"%s is no map and has no keys: say %s=VALUE",
				typed(f, name), typed(f, name));
		if (w->sub)
			continue;
		w->used = true;
		if (other_command(f))
			return cli_usage(cli, "%s can't be set alone: use %s",
				typed(f, name), other_command(f));
		in = input_of_field(f, typed(f, name));
		rc = input_value(cli, &in, w->value, &v);
		if (rc)
			return rc;
		params_value(fields, f->name, &v);
		value_fini(&v);
	}
	return CLI_OK;
}

int verb_param_set(struct cli *cli, const struct command *c)
{
	struct params fields;
	struct uuid self;
	int rc = input_self(cli, c->cls, &self);

	if (!rc && !words_unused(&cli->words))
		return cli_usage(cli,
			"%s: nothing to set: add what to change, such as "
			"name-description=TEXT",
			c->name);
	params_init(&fields);
	if (!rc)
		rc = set_gather(cli, c->cls, &fields);
	if (!rc && fields.count)
		rc = set_fields(cli, c->cls, self, &fields);
	for (int i = 0; i < cli->words.count && !rc; i++) {
		struct word *w = &cli->words.list[i];

		if (w->used)
			continue;
		w->used = true;
		rc = add_one(cli, schema_field_by_typed(c->cls, w->key, w->key_len), self,
			w->sub, w->sub_len, w->value);
	}
	params_fini(&fields);
	return rc;
}

/* The rest of a param-add for a map: KEY=VALUE words as xe has them, or FIELD:KEY=VALUE.
 */
static int add_pairs(struct cli *cli, const struct schema_field *f, struct uuid self)
{
	int rc = CLI_OK;

	for (int i = 0; i < cli->words.count && !rc; i++) {
		struct word *w = &cli->words.list[i];

		if (w->used || !w->key)
			continue;
		w->used = true;
		if (w->sub && name_is(w->key, w->key_len, f->name))
			rc = add_one(cli, f, self, w->sub, w->sub_len, w->value);
		else
			rc = add_one(cli, f, self, w->key,
				w->sub ? (size_t)(w->sub + w->sub_len - w->key)
				       : w->key_len,
				w->value);
	}
	return rc;
}

int verb_param_add(struct cli *cli, const struct command *c)
{
	const char *key = words_take(&cli->words, "param-key");
	const char *text = words_take(&cli->words, "param-value");
	const struct schema_field *f;
	char name[NAME_TYPED_MAX];
	struct uuid self;
	int rc = param_begin(cli, c, &self, &f);

	if (rc)
		return rc;
	if (f->type != VALUE_STRING_MAP) {
		rc = cli_check_used(cli, "the object, param-name=, param-key=");
		if (rc)
			return rc;
		if (!key || text)
			return cli_usage(cli,
				"%s: param-key= is the element to add to "
				"%s",
				c->name, typed(f, name));
		return add_one(cli, f, self, key, strlen(key), NULL);
	}
	if (!key && !words_unused(&cli->words))
		return cli_usage(cli,
			"%s needs param-key= and param-value=, or "
			"KEY=VALUE words, for %s",
			c->name, typed(f, name));
	if (key && !text)
		return cli_usage(cli, "%s: %s is a map: param-value= is needed too",
			c->name, typed(f, name));
	rc = key ? add_one(cli, f, self, key, strlen(key), text) : CLI_OK;
	if (!rc)
		rc = add_pairs(cli, f, self);
	return rc ? rc : cli_check_used(cli, "KEY=VALUE words");
}

int verb_param_remove(struct cli *cli, const struct command *c)
{
	const char *key = words_take(&cli->words, "param-key");
	const struct schema_field *f;
	char method[NAME_TYPED_MAX];
	struct uuid self;
	struct params p;
	int rc = param_begin(cli, c, &self, &f);

	if (!rc)
		rc = cli_check_used(cli, "the object, param-name=, param-key=");
	if (!rc && !key)
		rc = cli_usage(
			cli, "%s needs param-key=: the element, or the key", c->name);
	if (rc)
		return rc;
	params_init(&p);
	params_uuid(&p, "self", &self);
	params_text(&p, "field", f->name);
	params_text(&p, "key", key);
	rc = cli_change(cli, method_text(c->cls, "remove_from", method), &p, NULL);
	params_fini(&p);
	return rc;
}

int verb_param_clear(struct cli *cli, const struct command *c)
{
	const struct schema_field *f;
	struct rv_error e = {0};
	struct params fields;
	struct uuid self;
	struct value v;
	int rc = param_begin(cli, c, &self, &f);

	if (!rc)
		rc = cli_check_used(cli, "the object, param-name=");
	if (rc)
		return rc;
	/* What has no empty value (numbers, enums) goes back to its default. */
	if (f->enum_texts || f->type == VALUE_BOOL || f->type == VALUE_INT ||
		f->type == VALUE_FLOAT) {
		if (schema_initial(f, &v)) {
			rv_error_set(&e, RV_ENOMEM, "out of memory");
			return cli_refused(cli, &e);
		}
	} else {
		v = value_zero(f->type);
	}
	params_init(&fields);
	params_value(&fields, f->name, &v);
	rc = set_fields(cli, c->cls, self, &fields);
	params_fini(&fields);
	value_fini(&v);
	return rc;
}
