/* docs/API.md, from the schema. */
#include <stdio.h>
#include <string.h>

#include "cli/help.h"

static const char preamble[] =
	"# API\n"
	"\n"
	"Every class, field and method, printed by `reeve api-doc` from the schema; a "
	"test "
	"holds this\n"
	"page to it. How calls travel, and the params that every method takes, is in\n"
	"[protocol.md](protocol.md).\n"
	"\n"
	"Fields: *rw* clients change at any time, *create* clients give when the object "
	"is "
	"made, the\n"
	"rest the pool keeps itself; *live* ones are measured and not stored. Sizes are "
	"bytes, times\n"
	"milliseconds since 1970 UTC.\n"
	"\n"
	"For each class `C` there are, besides what is listed below, the methods of "
	"reading\n"
	"(`C.get_all`, `C.get_all_records`, `C.get_record`, `C.get_by_uuid`, and\n"
	"`C.get_by_name_label` where objects have names) and, where it says so, those of "
	"changing\n"
	"(`C.set_fields`, `C.add_to`, `C.remove_from`).\n";

static void print_type(FILE *out, enum value_type type, enum schema_class_id ref_class,
	const char *const *texts, bool bytes)
{
	if (texts)
		fputs("enum", out);
	else if (bytes)
		fputs("size", out);
	else if (type == VALUE_REF || type == VALUE_REF_SET)
		fprintf(out, "%s%s",
			ref_class != CLASS_NONE ? schema_class(ref_class)->name : "any",
			type == VALUE_REF ? " ref" : " ref set");
	else
		fputs(value_type_name(type), out);
}

static void print_enum(FILE *out, const char *const *texts)
{
	if (!texts)
		return;
	fputs(" (", out);
	for (int i = 0; texts[i]; i++)
		fprintf(out, "%s`%s`", i ? ", " : "", texts[i][0] ? texts[i] : "\"\"");
	fputs(")", out);
}

static const char *field_notes(const struct schema_field *f)
{
	if (f->live)
		return "live";
	return f->writer == WRITER_USER	    ? "rw"
	       : f->writer == WRITER_CREATE ? "create"
					    : "";
}

static void print_fields(FILE *out, const struct schema_class *cls)
{
	fputs("\n| field | type | | |\n|---|---|---|---|\n", out);
	for (int i = 0; i < cls->field_count; i++) {
		const struct schema_field *f = &cls->fields[i];

		if (f->secret)
			continue;
		fprintf(out, "| `%s` | ", f->name);
		print_type(out, f->type, f->ref_class, f->enum_texts, f->bytes);
		fprintf(out, " | %s | %s", field_notes(f), f->doc);
		print_enum(out, f->enum_texts);
		if (f->since > 1)
			fprintf(out, "; since level %d", f->since);
		fputs(" |\n", out);
	}
}

static void print_method(FILE *out, const struct schema_method *m)
{
	fprintf(out, "\n#### %s.%s\n\n%s. For `%s`%s", m->group, m->name, m->doc,
		role_name(m->role), m->mode == MODE_TASK ? "; *task*" : "");
	if (m->result != VALUE_NULL) {
		fputs("; returns ", out);
		print_type(out, m->result, m->result_class, NULL, false);
	} else if (m->result_record) {
		fputs("; returns a map or list", out);
	}
	fputs(".\n", out);
	if (m->since > 1)
		fprintf(out, "Since level %d.\n", m->since);
	if (m->arg_count)
		fputs("\n| param | type | | |\n|---|---|---|---|\n", out);
	for (int i = 0; i < m->arg_count; i++) {
		const struct schema_arg *a = &m->args[i];

		fprintf(out, "| `%s` | ", a->name);
		if (a->record)
			fputs("record", out);
		else
			print_type(out, a->type, a->ref_class, a->enum_texts, a->bytes);
		fprintf(out, " | %s | %s", a->required ? "needed" : "", a->doc);
		print_enum(out, a->enum_texts);
		fputs(" |\n", out);
	}
}

static void print_class(FILE *out, const struct schema_class *cls)
{
	const struct schema_method *set = command_method(cls, "set_fields");

	fprintf(out, "\n## %s\n\n%s.", cls->name, cls->doc);
	if (set)
		fprintf(out, " Changed with `%s.set_fields`, for `%s`.", cls->name,
			role_name(set->role));
	fputs("\n", out);
	print_fields(out, cls);
	for (int i = METHOD_NONE + 1; i < METHOD_COUNT; i++) {
		const struct schema_method *m = schema_method((enum schema_method_id)i);

		if (m->cls == cls->id && m->kind == METHOD_KIND_OWN)
			print_method(out, m);
	}
}

static void print_errors(FILE *out)
{
	fputs("\n## Errors\n\n| number | code | may succeed later | |\n"
	      "|---|---|---|---|\n",
		out);
#define X(symbol, number, retryable, name, text)                                         \
	fprintf(out, "| %d | `%s` | %s | %s |\n", number, name,                          \
		(retryable) ? "yes" : "", text);
	RV_ERRORS(X)
#undef X
}

void api_doc_print(FILE *out)
{
	fputs(preamble, out);
	for (int i = CLASS_NONE + 1; i < CLASS_COUNT; i++)
		print_class(out, schema_class((enum schema_class_id)i));
	fputs("\n## Methods of no class\n", out);
	for (int i = METHOD_NONE + 1; i < METHOD_COUNT; i++) {
		const struct schema_method *m = schema_method((enum schema_method_id)i);

		if (m->cls == CLASS_NONE)
			print_method(out, m);
	}
	print_errors(out);
}
