/* Typed text to values: units, enums, names of objects; what a method's params are. */
#ifndef REEVE_CLI_INPUT_H
#define REEVE_CLI_INPUT_H

#include "cli/cli.h"
#include "cli/command.h"

/* What a key wants. */
struct input {
	const char *key; /* as shown in errors */
	enum value_type type;
	enum schema_class_id ref_class;
	const char *const *enum_texts;
	bool ms;    /* an int of milliseconds: "30s" is accepted */
	bool named; /* a reference that has to name an object: "on=" is no "none" */
};

/* What a field wants; one in milliseconds ("lease_ms") takes times with units. */
struct input input_of_field(const struct schema_field *f, const char *key);

/* Whether a field or an argument of this name holds milliseconds. */
bool input_is_ms(const char *name);

/* Reads text that names no object by name. RV_EPARAM with what is accepted. */
int input_parse(const struct input *in, const char *text, struct value *out,
	struct rv_error *e) RV_MUST_CHECK;

/* As input_parse, and looks names of objects up. An exit status. */
int input_value(
	struct cli *cli, const struct input *in, const char *text, struct value *out);

/* Takes the boolean `key` from the words: false when it was not typed. An exit status. */
int input_flag(struct cli *cli, const char *key, bool *out);

/* The object that the text names: a UUID, or a name that only one object has. */
int input_object(struct cli *cli, const struct schema_class *cls, const char *key,
	const char *text, struct uuid *out);

/* Something that the command needs was not typed, as the words say; unless what was typed
 * has a wrong key, perhaps for just that: then it is named. CLI_USAGE. */
int input_needs(struct cli *cli, const char *fmt, ...) RV_PRINTF(2, 3);

/* The object that a command is about: vm=, vm-uuid= or uuid=; two of them must agree. */
int input_self(struct cli *cli, const struct schema_class *cls, struct uuid *out);

/* The method's params from what was typed; unknown and missing keys are told. */
int input_params(struct cli *cli, const struct command *c, const struct schema_method *m,
	struct params *p);

/* Collects key=TEXT and key:sub=TEXT words into a field's value. *found: any there? */
int input_field(struct cli *cli, const struct schema_field *f, const char *key,
	struct value *out, bool *found);

#endif
