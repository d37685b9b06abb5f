#include "cli/command.h"

#include <stdio.h>
#include <string.h>

const struct schema_method *command_method(
	const struct schema_class *cls, const char *name)
{
	char full[NAME_TYPED_MAX];
	int len = snprintf(full, sizeof full, "%s.%s", cls->name, name);

	return schema_method_by_name(full, (size_t)len);
}

bool command_class_has(const struct schema_class *cls, enum schema_method_kind kind)
{
	for (int i = METHOD_NONE + 1; i < METHOD_COUNT; i++) {
		const struct schema_method *m = schema_method((enum schema_method_id)i);

		if (m->cls == cls->id && m->kind == kind)
			return true;
	}
	return false;
}

char *command_self_key(const struct schema_class *cls, char out[static NAME_TYPED_MAX])
{
	return name_typed(cls->name, true, out, NAME_TYPED_MAX);
}

/* --- the verbs that every class has --- */

struct verb {
	const char *name;
	enum command_kind kind;
	int needs; /* enum schema_method_kind */
	const char *doc;
};

static const struct verb verbs[] = {
	{"list", COMMAND_LIST, METHOD_KIND_GET_ALL_RECORDS,
		"Lists them; field=value narrows, params= chooses the columns"},
	{"param-list", COMMAND_PARAM_LIST, METHOD_KIND_GET_RECORD,
		"Shows all fields of one"},
	{"param-get", COMMAND_PARAM_GET, METHOD_KIND_GET_RECORD,
		"Prints one field, or one key of a map"},
	{"param-set", COMMAND_PARAM_SET, METHOD_KIND_SET_FIELDS,
		"Changes fields: field=value, map-field:key=value"},
	{"param-add", COMMAND_PARAM_ADD, METHOD_KIND_ADD_TO,
		"Adds an element to a set, or a key to a map"},
	{"param-remove", COMMAND_PARAM_REMOVE, METHOD_KIND_REMOVE_FROM,
		"Removes an element of a set, or a key of a map"},
	{"param-clear", COMMAND_PARAM_CLEAR, METHOD_KIND_SET_FIELDS,
		"Sets a field to its empty value"},
};

enum { VERB_COUNT = sizeof verbs / sizeof verbs[0] };

static bool each_verb(const struct schema_class *cls, command_fn *fn, void *arg)
{
	char class_name[NAME_TYPED_MAX];

	command_self_key(cls, class_name);
	for (int i = 0; i < VERB_COUNT; i++) {
		struct command c = {
			.kind = verbs[i].kind, .cls = cls, .doc = verbs[i].doc};

		if (!command_class_has(cls, (enum schema_method_kind)verbs[i].needs))
			continue;
		snprintf(c.name, sizeof c.name, "%.40s-%s", class_name, verbs[i].name);
		if (!fn(arg, &c))
			return false;
	}
	return true;
}

/* --- methods --- */

/* VM.set_memory_limits is vm-memory-limits-set, as xe puts it. */
static void method_name(const struct schema_method *m, bool verb_last, char *out)
{
	char class_name[NAME_TYPED_MAX], verb[NAME_TYPED_MAX];

	name_typed(m->group, true, class_name, sizeof class_name);
	name_typed(m->name, true, verb, sizeof verb);
	if (verb_last && strncmp(verb, "set-", 4) == 0)
		snprintf(out, NAME_TYPED_MAX, "%.30s-%.40s-set", class_name, verb + 4);
	else
		snprintf(out, NAME_TYPED_MAX, "%.30s-%.40s", class_name, verb);
}

static bool each_method(const struct schema_class *cls, command_fn *fn, void *arg)
{
	for (int i = METHOD_NONE + 1; i < METHOD_COUNT; i++) {
		const struct schema_method *m = schema_method((enum schema_method_id)i);
		struct command c = {
			.kind = COMMAND_METHOD, .cls = cls, .method = m, .doc = m->doc};

		if (m->cls != cls->id || m->kind != METHOD_KIND_OWN)
			continue;
		if (m->id == METHOD_SR_DESTROY)
			c.destroys = "The SR and all disks on it";
		if (m->id == METHOD_HOST_DECLARE_DEAD ||
			m->id == METHOD_VM_RESET_POWER_STATE)
			c.warns = "Should the host still run, a VM that is started "
				  "elsewhere runs twice and ruins its disks. Make sure "
				  "that the host is off.";
		if (m->id == METHOD_HOST_GHOST_DESTROY)
			c.destroys = "The domain, whatever it does now,";
		if (m->id == METHOD_VM_IMPORT_XL) {
			c.kind = COMMAND_VM_IMPORT_XL;
			c.doc = "Makes a VM of a guest of xl, with its disks in place, "
				"and takes the guest over if it runs";
		}
		if (m->id == METHOD_TASK_WAIT) {
			c.kind = COMMAND_TASK_WAIT;
			c.doc = "Waits until it has ended, with a progress bar";
		}
		if (m->id == METHOD_POOL_DATABASE_DUMP) {
			c.kind = COMMAND_DATABASE_DUMP;
			c.doc = "Writes the pool's database into a file, to be restored "
				"later; it holds every secret of the pool";
		}
		if (m->id == METHOD_POOL_DATABASE_RESTORE) {
			c.kind = COMMAND_DATABASE_RESTORE;
			c.doc = "Makes the pool's database again what a dump says; tells "
				"what is lost, and asks";
		}
		c.hidden = m->id == METHOD_POOL_DATABASE_UPLOAD;
		method_name(m, true, c.name);
		if (!fn(arg, &c))
			return false;
		if (strncmp(m->name, "set_", 4) != 0)
			continue;
		c.other = true;
		method_name(m, false, c.name);
		if (!fn(arg, &c))
			return false;
	}
	return true;
}

/* --- xe's other names, and reeve's own --- */

static const struct command extras[] = {
	{.kind = COMMAND_METHOD,
		.name = "vm-shutdown",
		.method = NULL,
		.doc = "Shuts down cleanly; force=true pulls the plug"},
	{.kind = COMMAND_METHOD,
		.name = "vm-reboot",
		.doc = "Reboots cleanly; force=true pulls the plug"},
	{.kind = COMMAND_METHOD,
		.name = "vm-uninstall",
		.doc = "Removes a halted VM with its disks; force=true does not ask",
		.uninstall = true,
		.destroys = "The VM and all its disks"},
	{.kind = COMMAND_VM_INSTALL,
		.name = "vm-install",
		.doc = "Makes a VM from a template: clones it and makes its disks"},
	{.kind = COMMAND_LIST,
		.name = "template-list",
		.doc = "Lists templates, which vm-list leaves out",
		.templates = true},
	{.kind = COMMAND_CONSOLE,
		.name = "console",
		.doc = "A VM's console in this terminal, from any host; Ctrl-] ends it"},
};

static bool each_extra(const struct schema_class *cls, command_fn *fn, void *arg)
{
	static const struct {
		enum schema_method_id method, forced;
	} methods[] = {
		{METHOD_VM_CLEAN_SHUTDOWN, METHOD_VM_HARD_SHUTDOWN},
		{METHOD_VM_CLEAN_REBOOT, METHOD_VM_HARD_REBOOT},
		{METHOD_VM_DESTROY, METHOD_NONE},
		{METHOD_NONE, METHOD_NONE},
		{METHOD_NONE, METHOD_NONE},
		{METHOD_NONE, METHOD_NONE},
	};

	if (cls->id != CLASS_VM)
		return true;
	for (size_t i = 0; i < sizeof extras / sizeof extras[0]; i++) {
		struct command c = extras[i];

		c.cls = cls;
		if (methods[i].method != METHOD_NONE)
			c.method = schema_method(methods[i].method);
		if (methods[i].forced != METHOD_NONE)
			c.forced = schema_method(methods[i].forced);
		if (!fn(arg, &c))
			return false;
	}
	return true;
}

static const struct command own[] = {
	{.kind = COMMAND_EVENT_WATCH,
		.name = "event-watch",
		.doc = "Prints changes as they happen: event-watch [CLASS…]"},
	{.kind = COMMAND_HELP,
		.name = "help",
		.doc = "Explains: help, help CLASS, help COMMAND"},
	{.kind = COMMAND_API_DOC,
		.name = "api-doc",
		.doc = "Prints docs/API.md",
		.hidden = true},
};

void command_each(command_fn *fn, void *arg)
{
	for (int i = CLASS_NONE + 1; i < CLASS_COUNT; i++) {
		const struct schema_class *cls = schema_class((enum schema_class_id)i);

		if (!each_verb(cls, fn, arg) || !each_method(cls, fn, arg) ||
			!each_extra(cls, fn, arg))
			return;
	}
	for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
		if (!fn(arg, &own[i]))
			return;
}

struct find {
	const char *name;
	size_t len;
	struct command *out;
	bool found;
};

static bool find_one(void *arg, const struct command *c)
{
	struct find *f = arg;

	if (!name_is(f->name, f->len, c->name))
		return true;
	*f->out = *c;
	f->found = true;
	return false;
}

bool command_find(const char *name, struct command *out)
{
	struct find f = {.name = name, .len = strlen(name), .out = out};

	command_each(find_one, &f);
	return f.found;
}
