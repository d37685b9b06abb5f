/* Records as text: xe's layout, a table, xe's --minimal, JSON. */
#ifndef REEVE_CLI_PRINT_H
#define REEVE_CLI_PRINT_H

#include "cli/cli.h"
#include "cli/records.h"

/* Text of a UUID for people, e.g. the object's name; NULL: the UUID itself. Borrowed. */
typedef const char *print_name_fn(
	void *arg, enum schema_class_id cls, const struct uuid *uuid);

/* xe's: "uuid ( RO)    : …", fields right-justified, blank lines after each record. */
int print_records(struct cli *cli, const struct records *r);

/* Columns by libsmartcols; sizes with units. `name` may be NULL. */
int print_table(struct cli *cli, const struct records *r, print_name_fn *name, void *arg);

/* The first field of each record, separated by commas. */
int print_minimal(struct cli *cli, const struct records *r);

int print_json_records(struct cli *cli, const struct records *r);

/* Any msgpack object: JSON on one line, or indented text for people. */
int print_object(struct cli *cli, const msgpack_object *o);

/* One value and a newline, as xe writes it. */
int print_value(struct cli *cli, const struct value *v);

/* "RW", "RO", "MRW", …: as xe marks fields. */
const char *print_access(const struct schema_field *f);

/* Text to the terminal without control characters; as it is to anything else. */
void print_text(struct cli *cli, const char *text, size_t len);

void print_json_text(FILE *out, const char *text, size_t len);
void print_json_value(FILE *out, const struct value *v);
void print_json_object(FILE *out, const msgpack_object *o);

#endif
