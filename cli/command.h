/*
 * Every command that there is, made from the schema: `<class>-list`,
 * `<class>-param-list` and its kin, each method of a class, xe's other names for some,
 * and a few of reeve's own.
 */
#ifndef REEVE_CLI_COMMAND_H
#define REEVE_CLI_COMMAND_H

#include <stdbool.h>

#include "cli/name.h"
#include "pool/db/schema.h"

enum command_kind {
	COMMAND_LIST,
	COMMAND_PARAM_LIST,
	COMMAND_PARAM_GET,
	COMMAND_PARAM_SET,
	COMMAND_PARAM_ADD,
	COMMAND_PARAM_REMOVE,
	COMMAND_PARAM_CLEAR,
	COMMAND_METHOD,
	COMMAND_VM_INSTALL,
	COMMAND_VM_IMPORT_XL,
	COMMAND_TASK_WAIT,
	COMMAND_EVENT_WATCH,
	COMMAND_CONSOLE,
	COMMAND_DATABASE_DUMP,
	COMMAND_DATABASE_RESTORE,
	COMMAND_HELP,
	COMMAND_API_DOC,
};

struct command {
	enum command_kind kind;
	char name[NAME_TYPED_MAX];
	const struct schema_class *cls;	    /* NULL: of no class */
	const struct schema_method *method; /* COMMAND_METHOD */
	const struct schema_method *forced; /* instead of it with force=true, or NULL */
	const char *doc;
	bool templates; /* template-list */
	bool uninstall; /* vm-uninstall: destroys disks too */
	/* What is lost, asked about first: "The VM and all its disks". NULL: not asked.
	 */
	const char *destroys;
	const char *warns; /* what may happen, asked about first; NULL: nothing */
	bool other;	   /* another name of a command that is listed already */
	bool hidden;	   /* not in help and completion */
};

/* Calls fn for every command, classes in the schema's order, until it returns false. */
typedef bool command_fn(void *arg, const struct command *c);
void command_each(command_fn *fn, void *arg);

/* Finds it by name as typed. */
bool command_find(const char *name, struct command *out);

/* A key that a command takes. */
struct command_key {
	char name[NAME_TYPED_MAX]; /* "name-label" */
	enum value_type type;
	enum schema_class_id ref_class;	  /* CLASS_NONE: no object */
	const char *const *enum_texts;	  /* NULL: no enum */
	const struct schema_arg *arg;	  /* of the method, or NULL */
	const struct schema_field *field; /* of the class, or NULL */
	const char *doc;
	bool required;
	bool field_names; /* takes names of fields: params=, param-name= */
	bool multiple;	  /* several of those, separated by commas */
};

/* Calls fn for each key of a command, required ones first in the schema's order. */
typedef bool command_key_fn(void *arg, const struct command_key *k);
void command_keys(const struct command *c, command_key_fn *fn, void *arg);

/* The method "<class>.<name>", or NULL. */
const struct schema_method *command_method(
	const struct schema_class *cls, const char *name);

/* Whether the class has that kind of method, e.g. METHOD_KIND_SET_FIELDS. */
bool command_class_has(const struct schema_class *cls, enum schema_method_kind kind);

/* What the key that names the object itself is called: "vm". Returns `out`. */
char *command_self_key(const struct schema_class *cls, char out[static NAME_TYPED_MAX]);

#endif
