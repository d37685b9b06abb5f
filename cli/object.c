/* Results that are no records: whatever maps and lists a method's doc line describes. */
#include <libsmartcols/libsmartcols.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "cli/print.h"

static bool is_scalar(const msgpack_object *o)
{
	return o->type != MSGPACK_OBJECT_MAP && o->type != MSGPACK_OBJECT_ARRAY;
}

static bool is_number(const msgpack_object *o)
{
	return o->type == MSGPACK_OBJECT_POSITIVE_INTEGER ||
	       o->type == MSGPACK_OBJECT_NEGATIVE_INTEGER ||
	       o->type == MSGPACK_OBJECT_FLOAT64;
}

static bool same_text(const msgpack_object *a, const msgpack_object *b)
{
	return a->type == MSGPACK_OBJECT_STR && b->type == MSGPACK_OBJECT_STR &&
	       a->via.str.size == b->via.str.size &&
	       memcmp(a->via.str.ptr, b->via.str.ptr, a->via.str.size) == 0;
}

/* A list of maps that have the same keys in the same order, and no map or list inside. */
static bool is_table(const msgpack_object *o)
{
	const msgpack_object *first;

	if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size == 0)
		return false;
	first = &o->via.array.ptr[0];
	for (uint32_t i = 0; i < o->via.array.size; i++) {
		const msgpack_object *row = &o->via.array.ptr[i];

		if (row->type != MSGPACK_OBJECT_MAP ||
			row->via.map.size != first->via.map.size)
			return false;
		for (uint32_t j = 0; j < row->via.map.size; j++)
			if (!is_scalar(&row->via.map.ptr[j].val) ||
				!same_text(&row->via.map.ptr[j].key,
					&first->via.map.ptr[j].key))
				return false;
	}
	return true;
}

/* One object's text, owned by the caller. NULL: out of memory. */
static char *scalar_text(const msgpack_object *o)
{
	char *text = NULL;
	size_t len;
	FILE *f;

	if (o->type == MSGPACK_OBJECT_STR)
		return strndup(o->via.str.ptr, o->via.str.size);
	if (o->type == MSGPACK_OBJECT_NIL)
		return strdup("");
	f = open_memstream(&text, &len);
	if (!f)
		return NULL;
	print_json_object(f, o);
	fclose(f);
	return text;
}

/* Sizes, which people read with units, go by this name. */
static bool is_size(const msgpack_object_kv *kv)
{
	static const char name[] = "memory";

	return kv->val.type == MSGPACK_OBJECT_POSITIVE_INTEGER &&
	       kv->key.type == MSGPACK_OBJECT_STR &&
	       kv->key.via.str.size == sizeof name - 1 &&
	       memcmp(kv->key.via.str.ptr, name, sizeof name - 1) == 0;
}

static char *value_text(const msgpack_object_kv *kv)
{
	char size[16];

	return is_size(kv)
		       ? strdup(units_format_bytes(kv->val.via.u64, size, sizeof size))
		       : scalar_text(&kv->val);
}

static bool table_row(struct libscols_table *table, const msgpack_object *row)
{
	struct libscols_line *line = scols_table_new_line(table, NULL);
	bool ok = line != NULL;

	for (uint32_t i = 0; ok && i < row->via.map.size; i++) {
		char *text = value_text(&row->via.map.ptr[i]);

		ok = text && scols_line_refer_data(line, i, text) == 0;
	}
	return ok;
}

static bool object_table(struct cli *cli, const msgpack_object *o)
{
	const msgpack_object_map *first = &o->via.array.ptr[0].via.map;
	struct libscols_table *table = scols_new_table();
	bool ok = table != NULL;

	for (uint32_t i = 0; ok && i < first->size; i++) {
		char *name = scalar_text(&first->ptr[i].key);

		ok = name && scols_table_new_column(table, name, 0,
				     is_number(&first->ptr[i].val) ? SCOLS_FL_RIGHT : 0);
		free(name);
	}
	for (uint32_t i = 0; ok && i < o->via.array.size; i++)
		ok = table_row(table, &o->via.array.ptr[i]);
	if (ok) {
		scols_table_set_termforce(table, SCOLS_TERMFORCE_NEVER);
		scols_table_set_stream(table, cli->out);
		scols_table_set_column_separator(table, "  ");
		ok = scols_print_table(table) == 0;
	}
	scols_unref_table(table);
	return ok;
}

static void object_text(struct cli *cli, const msgpack_object *o, int indent);

static void map_text(struct cli *cli, const msgpack_object *o, int indent)
{
	for (uint32_t i = 0; i < o->via.map.size; i++) {
		const msgpack_object_kv *kv = &o->via.map.ptr[i];
		bool scalar = is_scalar(&kv->val);

		fprintf(cli->out, "%s%*s", scalar || !i ? "" : "\n", indent, "");
		if (kv->key.type == MSGPACK_OBJECT_STR)
			print_text(cli, kv->key.via.str.ptr, kv->key.via.str.size);
		fputs(scalar ? ": " : ":\n", cli->out);
		object_text(cli, &kv->val, scalar ? 0 : indent + 2);
	}
}

static void object_text(struct cli *cli, const msgpack_object *o, int indent)
{
	char *text;

	if (is_table(o) && object_table(cli, o))
		return;
	if (o->type == MSGPACK_OBJECT_MAP) {
		map_text(cli, o, indent);
		return;
	}
	if (o->type == MSGPACK_OBJECT_ARRAY) {
		for (uint32_t i = 0; i < o->via.array.size; i++)
			object_text(cli, &o->via.array.ptr[i], indent);
		return;
	}
	text = scalar_text(o);
	fprintf(cli->out, "%*s", indent, "");
	if (text)
		print_text(cli, text, strlen(text));
	fputc('\n', cli->out);
	free(text);
}

int print_object(struct cli *cli, const msgpack_object *o)
{
	if (cli->words.json) {
		print_json_object(cli->out, o);
		fputc('\n', cli->out);
	} else if (o->type != MSGPACK_OBJECT_NIL) {
		object_text(cli, o, 0);
	}
	return CLI_OK;
}
