#include "cli/print.h"

#include <inttypes.h>
#include <libsmartcols/libsmartcols.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/units.h"
#include "cli/command.h"

enum { TEXT_CAP = RV_MAX_RPC_MESSAGE_BYTES };

const char *print_access(const struct schema_field *f)
{
	bool writable = f->writer == WRITER_USER && !f->key &&
			command_class_has(schema_class(f->cls), METHOD_KIND_SET_FIELDS);

	switch (f->type) {
	case VALUE_STRING_MAP:
		return writable ? "MRW" : "MRO";
	case VALUE_STRING_SET:
	case VALUE_REF_SET:
		return writable ? "SRW" : "SRO";
	default:
		return writable ? " RW" : " RO";
	}
}

void print_text(struct cli *cli, const char *text, size_t len)
{
	if (!cli->out_tty) {
		fwrite(text, 1, len, cli->out);
		return;
	}
	/* Guests write some of these texts: they must not steer the terminal. */
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		fputc((c < ' ' && c != '\n' && c != '\t') || c == 0x7f ? '?' : c,
			cli->out);
	}
}

static int out_of_memory(struct cli *cli)
{
	struct rv_error e = {0};

	rv_error_set(&e, RV_ENOMEM, "the output does not fit in memory");
	return cli_refused(cli, &e);
}

static int print_formatted(struct cli *cli, const struct value *v)
{
	struct buf text;
	int rc;

	buf_init(&text, TEXT_CAP);
	rc = value_format(v, &text);
	if (!rc && buf_len(&text))
		print_text(cli, (const char *)buf_data(&text), buf_len(&text));
	buf_fini(&text);
	return rc ? out_of_memory(cli) : CLI_OK;
}

int print_value(struct cli *cli, const struct value *v)
{
	int rc = print_formatted(cli, v);

	fputc('\n', cli->out);
	return rc;
}

int print_records(struct cli *cli, const struct records *r)
{
	char name[NAME_TYPED_MAX];
	int width = 0, rc = CLI_OK;

	for (int i = 0; i < r->shown; i++)
		if (r->fields[i]->name_len > width)
			width = r->fields[i]->name_len;
	for (int i = 0; i < r->count && !rc; i++) {
		for (int j = 0; j < r->shown && !rc; j++) {
			const struct schema_field *f = r->fields[j];

			name_typed(f->name, false, name, sizeof name);
			if (f->key)
				fprintf(cli->out, "%s (%s)%*s: ", name, print_access(f),
					width + 4 - (int)strlen(name), "");
			else
				fprintf(cli->out, "%*s (%s): ", width + 4, name,
					print_access(f));
			rc = print_formatted(cli, &r->list[i].values[j]);
			fputc('\n', cli->out);
		}
		fputs("\n\n", cli->out);
	}
	return rc;
}

int print_minimal(struct cli *cli, const struct records *r)
{
	int rc = CLI_OK;

	for (int i = 0; i < r->count && !rc; i++) {
		if (i)
			fputc(',', cli->out);
		rc = print_formatted(cli, &r->list[i].values[0]);
	}
	fputc('\n', cli->out);
	return rc;
}

int print_json_records(struct cli *cli, const struct records *r)
{
	fputc('[', cli->out);
	for (int i = 0; i < r->count; i++) {
		fputs(i ? ",\n {" : "\n {", cli->out);
		for (int j = 0; j < r->shown; j++) {
			fprintf(cli->out, "%s\"%s\": ", j ? ", " : "",
				r->fields[j]->name);
			print_json_value(cli->out, &r->list[i].values[j]);
		}
		fputc('}', cli->out);
	}
	fputs(r->count ? "\n]\n" : "]\n", cli->out);
	return CLI_OK;
}

/* --- tables --- */

struct cells {
	print_name_fn *name;
	void *arg;
	struct buf text;
};

static int cell_ref(struct cells *c, enum schema_class_id cls, struct uuid ref)
{
	char text[UUID_TEXT_SIZE];
	const char *name =
		c->name && cls != CLASS_NONE ? c->name(c->arg, cls, &ref) : NULL;

	return buf_printf(&c->text, "%s", name ? name : uuid_format(&ref, text));
}

/* For people: sizes with units, names for UUIDs, nothing where there is nothing. */
static int cell_format(
	struct cells *c, const struct schema_field *f, const struct value *v)
{
	char size[16];
	int rc = 0;

	if (f->bytes && value_get_int(v) >= 0)
		return buf_printf(&c->text, "%s",
			units_format_bytes(
				(uint64_t)value_get_int(v), size, sizeof size));
	if (v->type == VALUE_REF && f->key)
		return value_format(v, &c->text);
	if (v->type == VALUE_REF && value_is_zero(v))
		return 0;
	if (v->type == VALUE_REF)
		return cell_ref(c, f->ref_class, value_get_ref(v));
	if (v->type != VALUE_REF_SET)
		return value_format(v, &c->text);
	for (size_t i = 0; i < value_count(v) && !rc; i++) {
		if (i)
			rc = buf_append(&c->text, "; ", 2);
		if (!rc)
			rc = cell_ref(c, f->ref_class, value_refs_at(v, i));
	}
	return rc;
}

static int cell_set(struct cells *c, struct libscols_line *line, int column,
	const struct schema_field *f, const struct value *v)
{
	int rc;

	buf_consume(&c->text, buf_len(&c->text));
	rc = cell_format(c, f, v);
	if (!rc)
		rc = buf_append(&c->text, "", 1);
	if (!rc && scols_line_set_data(
			   line, (size_t)column, (const char *)buf_data(&c->text)))
		rc = RV_ENOMEM;
	return rc;
}

static int table_columns(struct libscols_table *table, const struct records *r)
{
	char name[NAME_TYPED_MAX];

	for (int i = 0; i < r->shown; i++) {
		enum value_type type = r->fields[i]->type;
		bool right = type == VALUE_INT || type == VALUE_FLOAT;

		name_typed(r->fields[i]->name, false, name, sizeof name);
		if (!scols_table_new_column(table, name, 0, right ? SCOLS_FL_RIGHT : 0))
			return RV_ENOMEM;
	}
	return 0;
}

static int table_fill(
	struct libscols_table *table, const struct records *r, struct cells *cells)
{
	int rc = table_columns(table, r);

	for (int i = 0; i < r->count && !rc; i++) {
		struct libscols_line *line = scols_table_new_line(table, NULL);

		if (!line)
			return RV_ENOMEM;
		for (int j = 0; j < r->shown && !rc; j++)
			rc = cell_set(
				cells, line, j, r->fields[j], &r->list[i].values[j]);
	}
	return rc;
}

int print_table(struct cli *cli, const struct records *r, print_name_fn *name, void *arg)
{
	struct cells cells = {.name = name, .arg = arg};
	struct libscols_table *table = scols_new_table();
	int rc;

	if (!table)
		return out_of_memory(cli);
	buf_init(&cells.text, TEXT_CAP);
	rc = table_fill(table, r, &cells);
	if (!rc) {
		/* Whole texts, whatever the terminal's width: UUIDs are copied. */
		scols_table_set_termforce(table, SCOLS_TERMFORCE_NEVER);
		scols_table_set_stream(table, cli->out);
		scols_table_set_column_separator(table, "  ");
		if (r->count > 0 && scols_print_table(table))
			rc = RV_ENOMEM;
	}
	buf_fini(&cells.text);
	scols_unref_table(table);
	return rc ? out_of_memory(cli) : CLI_OK;
}
