/* JSON, RFC 8259: values, records, whatever msgpack holds. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "cli/print.h"

void print_json_text(FILE *out, const char *text, size_t len)
{
	fputc('"', out);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c == '"' || c == '\\')
			fprintf(out, "\\%c", c);
		else if (c == '\n')
			fputs("\\n", out);
		else if (c == '\t')
			fputs("\\t", out);
		else if (c < ' ' || c == 0x7f)
			fprintf(out, "\\u%04x", c);
		else
			fputc(c, out);
	}
	fputc('"', out);
}

static void json_cstr(FILE *out, const char *text)
{
	print_json_text(out, text, strlen(text));
}

static void json_float(FILE *out, double f)
{
	if (isfinite(f))
		fprintf(out, "%.9g", f);
	else
		fputs("null", out);
}

static void json_uuid(FILE *out, struct uuid uuid)
{
	char text[UUID_TEXT_SIZE];

	json_cstr(out, uuid_is_none(&uuid) ? "" : uuid_format(&uuid, text));
}

static void json_many(FILE *out, const struct value *v)
{
	size_t count = value_count(v);
	bool map = v->type == VALUE_STRING_MAP;

	fputc(map ? '{' : '[', out);
	for (size_t i = 0; i < count; i++) {
		if (i)
			fputs(", ", out);
		if (map) {
			json_cstr(out, value_key_at(v, i));
			fputs(": ", out);
			json_cstr(out, value_at(v, i));
		} else if (v->type == VALUE_REF_SET) {
			json_uuid(out, value_refs_at(v, i));
		} else {
			json_cstr(out, value_set_at(v, i));
		}
	}
	fputc(map ? '}' : ']', out);
}

void print_json_value(FILE *out, const struct value *v)
{
	switch (v->type) {
	case VALUE_NULL:
	case VALUE_TYPES:
		fputs("null", out);
		break;
	case VALUE_BOOL:
		fputs(value_get_bool(v) ? "true" : "false", out);
		break;
	case VALUE_INT:
	case VALUE_TIME:
		fprintf(out, "%" PRId64, value_get_int(v));
		break;
	case VALUE_FLOAT:
		json_float(out, value_get_float(v));
		break;
	case VALUE_STRING:
		print_json_text(out, value_get_string(v), value_string_len(v));
		break;
	case VALUE_REF:
		json_uuid(out, value_get_ref(v));
		break;
	case VALUE_STRING_SET:
	case VALUE_REF_SET:
	case VALUE_STRING_MAP:
		json_many(out, v);
		break;
	}
}

static void json_array(FILE *out, const msgpack_object *o)
{
	fputc('[', out);
	for (uint32_t i = 0; i < o->via.array.size; i++) {
		if (i)
			fputs(", ", out);
		print_json_object(out, &o->via.array.ptr[i]);
	}
	fputc(']', out);
}

static void json_map(FILE *out, const msgpack_object *o)
{
	fputc('{', out);
	for (uint32_t i = 0; i < o->via.map.size; i++) {
		const msgpack_object_kv *kv = &o->via.map.ptr[i];

		if (i)
			fputs(", ", out);
		if (kv->key.type == MSGPACK_OBJECT_STR)
			print_json_object(out, &kv->key);
		else
			fprintf(out, "\"%u\"", i);
		fputs(": ", out);
		print_json_object(out, &kv->val);
	}
	fputc('}', out);
}

/* Its depth is bounded by what the client library accepts (limits.h). */
void print_json_object(FILE *out, const msgpack_object *o)
{
	switch (o->type) {
	case MSGPACK_OBJECT_BOOLEAN:
		fputs(o->via.boolean ? "true" : "false", out);
		break;
	case MSGPACK_OBJECT_POSITIVE_INTEGER:
		fprintf(out, "%" PRIu64, o->via.u64);
		break;
	case MSGPACK_OBJECT_NEGATIVE_INTEGER:
		fprintf(out, "%" PRId64, o->via.i64);
		break;
	case MSGPACK_OBJECT_FLOAT32:
	case MSGPACK_OBJECT_FLOAT64:
		json_float(out, o->via.f64);
		break;
	case MSGPACK_OBJECT_STR:
		print_json_text(out, o->via.str.ptr, o->via.str.size);
		break;
	case MSGPACK_OBJECT_ARRAY:
		json_array(out, o);
		break;
	case MSGPACK_OBJECT_MAP:
		json_map(out, o);
		break;
	default:
		fputs("null", out);
	}
}
