/* The keys that a command takes: for help and completion. */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"

struct keys {
	command_key_fn *fn;
	void *arg;
	bool stop;
};

static void key_give(struct keys *k, struct command_key key, const char *name, bool lower)
{
	if (k->stop)
		return;
	name_typed(name, lower, key.name, sizeof key.name);
	k->stop = !k->fn(k->arg, &key);
}

static void key_self(struct keys *k, const struct schema_class *cls)
{
	key_give(k,
		(struct command_key){.type = VALUE_REF,
			.ref_class = cls->id,
			.required = cls->id != CLASS_POOL,
			.doc = "The object: its name or UUID; also uuid="},
		cls->name, true);
}

static void key_text(struct keys *k, const char *name, bool required, const char *doc)
{
	key_give(k,
		(struct command_key){
			.type = VALUE_STRING, .required = required, .doc = doc},
		name, true);
}

static void key_field(struct keys *k, const struct schema_field *f)
{
	key_give(k,
		(struct command_key){.type = f->type,
			.ref_class = f->ref_class,
			.enum_texts = f->enum_texts,
			.field = f,
			.doc = f->doc},
		f->name, false);
}

/* Fields that may be typed: those a filter can use, or those a client may write. */
static void keys_fields(
	struct keys *k, const struct schema_class *cls, enum schema_writer least)
{
	for (int i = 0; i < cls->field_count; i++)
		if (!cls->fields[i].secret && !cls->fields[i].key &&
			cls->fields[i].writer >= least &&
			(least == WRITER_SYSTEM || cls->fields[i].ref != REF_BACK))
			key_field(k, &cls->fields[i]);
}

/* A secret that is given once, at creation, is an argument, not a field. */
static void keys_method(struct keys *k, const struct schema_method *m, bool required)
{
	for (int i = 0; i < m->arg_count; i++) {
		const struct schema_arg *a = &m->args[i];

		if (a->required != required)
			continue;
		if (a->record)
			keys_fields(k, schema_class(m->cls), WRITER_CREATE);
		else if (strcmp(a->name, "self") == 0)
			key_self(k, schema_class(a->ref_class));
		else
			key_give(k,
				(struct command_key){.type = a->type,
					.ref_class = a->ref_class,
					.enum_texts = a->enum_texts,
					.arg = a,
					.doc = a->doc,
					.required = required},
				a->name, true);
	}
}

static void keys_param_name(struct keys *k, const char *doc)
{
	key_give(k,
		(struct command_key){.type = VALUE_STRING,
			.required = true,
			.field_names = true,
			.doc = doc},
		"param-name", true);
}

static void keys_flag(struct keys *k, const char *name, const char *doc)
{
	key_give(k, (struct command_key){.type = VALUE_BOOL, .doc = doc}, name, true);
}

static void keys_list(struct keys *k, const struct schema_class *cls)
{
	key_give(k,
		(struct command_key){.type = VALUE_STRING,
			.field_names = true,
			.multiple = true,
			.doc = "Fields to show, separated by commas; all"},
		"params", true);
	key_give(k,
		(struct command_key){
			.type = VALUE_REF, .ref_class = cls->id, .doc = "Only this one"},
		"uuid", true);
	keys_fields(k, cls, WRITER_SYSTEM);
}

static void keys_install(struct keys *k)
{
	key_give(k,
		(struct command_key){.type = VALUE_REF,
			.ref_class = CLASS_VM,
			.required = true,
			.doc = "The template: its name or UUID"},
		"template", true);
	key_text(k, "new-name-label", true, "Name of the new VM");
	key_give(k,
		(struct command_key){.type = VALUE_REF,
			.ref_class = CLASS_SR,
			.doc = "Where its disks go; default: the pool's default SR"},
		"sr", true);
}

void command_keys(const struct command *c, command_key_fn *fn, void *arg)
{
	struct keys k = {.fn = fn, .arg = arg};

	switch (c->kind) {
	case COMMAND_LIST:
		keys_list(&k, c->cls);
		break;
	case COMMAND_PARAM_LIST:
		key_self(&k, c->cls);
		break;
	case COMMAND_PARAM_GET:
		key_self(&k, c->cls);
		keys_param_name(&k, "The field");
		key_text(&k, "param-key", false, "The key, of a map");
		break;
	case COMMAND_PARAM_SET:
		key_self(&k, c->cls);
		keys_fields(&k, c->cls, WRITER_USER);
		break;
	case COMMAND_PARAM_ADD:
		key_self(&k, c->cls);
		keys_param_name(&k, "A set or map field");
		key_text(&k, "param-key", false,
			"The element, or the key; KEY=VALUE words do for a map too");
		key_text(&k, "param-value", false, "The key's value");
		break;
	case COMMAND_PARAM_REMOVE:
		key_self(&k, c->cls);
		keys_param_name(&k, "A set or map field");
		key_text(&k, "param-key", true, "The element, or the key");
		break;
	case COMMAND_PARAM_CLEAR:
		key_self(&k, c->cls);
		keys_param_name(&k, "The field");
		break;
	case COMMAND_METHOD:
		keys_method(&k, c->method, true);
		keys_method(&k, c->method, false);
		if (c->forced)
			keys_flag(&k, "force", "Do not ask the guest");
		if (c->destroys || c->warns)
			keys_flag(&k, "force", "Do not ask for confirmation");
		break;
	case COMMAND_VM_INSTALL:
		keys_install(&k);
		break;
	case COMMAND_VM_IMPORT_XL:
		key_text(&k, "filename", true,
			"The configuration, as xl create reads it; -: standard input");
		key_give(&k,
			(struct command_key){.type = VALUE_REF,
				.ref_class = CLASS_HOST,
				.doc = "Where the guest is; default: the host that is "
				       "asked"},
			"host", true);
		break;
	case COMMAND_TASK_WAIT:
		key_self(&k, c->cls);
		break;
	case COMMAND_CONSOLE:
		key_self(&k, c->cls);
		keys_flag(&k, "read-only", "Look on, type nothing");
		keys_flag(&k, "resize",
			"Tell the guest's shell the size of this terminal, by stty");
		break;
	case COMMAND_DATABASE_DUMP:
		key_text(&k, "filename", true, "The file to be made here");
		keys_flag(&k, "stale",
			"Take what the host has, also where no master can be asked");
		break;
	case COMMAND_DATABASE_RESTORE:
		key_text(&k, "filename", true, "A dump, here");
		keys_flag(&k, "force",
			"Do not ask for confirmation, and take another pool's dump too");
		break;
	case COMMAND_EVENT_WATCH:
	case COMMAND_HELP:
	case COMMAND_API_DOC:
		break;
	}
}
