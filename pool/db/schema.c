#include "pool/db/schema.h"

#include <assert.h>
#include <string.h>

#include "base/limits.h"

/* ---- enums: texts_vm_power_state[] = {"Halted", ..., NULL} ---- */

#define ENUM_BEGIN(name)		 static const char *const texts_##name[] = {
#define ENUM_VALUE(prefix, symbol, text) text,
#define ENUM_END(prefix)                                                                 \
	NULL                                                                             \
	}                                                                                \
	;
#include "pool/db/schema_enums.def"

/* ---- fields ---- */

#define TYPE_BOOL	.type = VALUE_BOOL
#define TYPE_INT	.type = VALUE_INT
#define TYPE_BYTES	.type = VALUE_INT, .bytes = true
#define TYPE_FLOAT	.type = VALUE_FLOAT
#define TYPE_STRING	.type = VALUE_STRING
#define TYPE_TIME	.type = VALUE_TIME
#define TYPE_SET	.type = VALUE_STRING_SET
#define TYPE_MAP	.type = VALUE_STRING_MAP
#define TYPE_REF	.type = VALUE_REF
#define TYPE_ENUM(name) .type = VALUE_STRING, .enum_texts = texts_##name
#define TYPE_KEYREF(c)	.type = VALUE_REF, .ref_class = CLASS_##c
#define TYPE_OWNER(c)	.type = VALUE_REF, .ref_class = CLASS_##c, .ref = REF_OWNER
#define TYPE_HARD(c)	.type = VALUE_REF, .ref_class = CLASS_##c, .ref = REF_HARD
#define TYPE_WEAK(c)	.type = VALUE_REF, .ref_class = CLASS_##c, .ref = REF_WEAK
#define TYPE_BACK(c, f)                                                                  \
	.type = VALUE_REF_SET, .ref_class = CLASS_##c, .ref = REF_BACK, .backref = f
/* of arguments only */
#define TYPE_REFTO(c) .type = VALUE_REF, .ref_class = CLASS_##c
#define TYPE_RECORDOF .type = VALUE_NULL, .record = true
#define TYPE_HIDDEN   .type = VALUE_STRING, .secret = true

#define FLAG_0	    .live = false
#define FLAG_LIVE   .live = true
#define FLAG_SECRET .secret = true
#define FLAG_KEY    .key = true

#define FIELD(c, symbol, tag_, name_, type_, writer_, flag_, since_, initial_, doc_)     \
	[c##_##symbol] = {.id = c##_##symbol,                                            \
		.cls = CLASS_##c,                                                        \
		.tag = tag_,                                                             \
		.index = c##_##symbol - c##_UUID,                                        \
		.name_len = sizeof name_ - 1,                                            \
		.name = name_,                                                           \
		TYPE_##type_,                                                            \
		.writer = WRITER_##writer_,                                              \
		FLAG_##flag_,                                                            \
		.since = since_,                                                         \
		.initial = initial_,                                                     \
		.doc = doc_},
static const struct schema_field fields[FIELD_COUNT] = {
#include "pool/db/schema_fields.def"
};

/* ---- classes ---- */

/* VM_FIELD_COUNT and so on: one for each FIELD between CLASS and CLASS_END. */
#define CLASS(symbol, ...) enum { symbol##_FIELD_COUNT = 0
#define FIELD(...)	   +1
#define CLASS_END(symbol)                                                                \
	}                                                                                \
	;
#include "pool/db/schema_fields.def"

#define CLASS(symbol, tag, name, ...) static const char class_name_##symbol[] = name;
#include "pool/db/schema_fields.def"

#define CLASS(symbol, tag_, name_, since_, doc_)                                         \
	[CLASS_##symbol] = {.id = CLASS_##symbol,                                        \
		.tag = tag_,                                                             \
		.since = since_,                                                         \
		.name_len = sizeof name_ - 1,                                            \
		.name = class_name_##symbol,                                             \
		.doc = doc_,                                                             \
		.fields = &fields[symbol##_UUID],                                        \
		.field_count = symbol##_FIELD_COUNT},
static const struct schema_class classes[CLASS_COUNT] = {
#include "pool/db/schema_fields.def"
};

/* ---- methods ---- */

#define NEED(name_, type_, doc_)                                                         \
	{                                                                                \
		.name = name_, TYPE_##type_, .required = true, .doc = doc_               \
	}
#define MAY(name_, type_, doc_)                                                          \
	{                                                                                \
		.name = name_, TYPE_##type_, .doc = doc_                                 \
	}
#define METHOD_ARGS_NONE .args = NULL
#define METHOD_ARGS_ARGS(...)                                                            \
	.args = (const struct schema_arg[]){__VA_ARGS__},                                \
	.arg_count = sizeof((const struct schema_arg[]){__VA_ARGS__}) /                  \
		     sizeof(struct schema_arg)
#define RESULT_NOTHING	 .result = VALUE_NULL
#define RESULT_RECORD	 .result = VALUE_NULL, .result_record = true
#define RESULT_STRING	 .result = VALUE_STRING
#define RESULT_REFTO(c)	 .result = VALUE_REF, .result_class = CLASS_##c
#define RESULT_REFSET(c) .result = VALUE_REF_SET, .result_class = CLASS_##c

#define METHOD(c, symbol, name_, kind_, mode_, role_, result_, args_, since_, doc_)      \
	[METHOD_##c##_##symbol] = {.id = METHOD_##c##_##symbol,                          \
		.cls = CLASS_##c,                                                        \
		.group = class_name_##c,                                                 \
		.name = name_,                                                           \
		.name_len = sizeof name_ - 1,                                            \
		.kind = METHOD_KIND_##kind_,                                             \
		.mode = MODE_##mode_,                                                    \
		.role = ROLE_##role_,                                                    \
		RESULT_##result_,                                                        \
		METHOD_ARGS_##args_,                                                     \
		.since = since_,                                                         \
		.doc = doc_},
#define METHOD_FREE(                                                                     \
	g, symbol, group_, name_, mode_, role_, result_, args_, since_, doc_)            \
	[METHOD_##g##_##symbol] = {.id = METHOD_##g##_##symbol,                          \
		.group = group_,                                                         \
		.name = name_,                                                           \
		.name_len = sizeof name_ - 1,                                            \
		.mode = MODE_##mode_,                                                    \
		.role = ROLE_##role_,                                                    \
		RESULT_##result_,                                                        \
		METHOD_ARGS_##args_,                                                     \
		.since = since_,                                                         \
		.doc = doc_},
static const struct schema_method methods[METHOD_COUNT] = {
#include "pool/db/schema_methods.def"
};

/* ---- look-ups ---- */

const struct schema_class *schema_class(enum schema_class_id id)
{
	assert(id > CLASS_NONE && id < CLASS_COUNT);
	return &classes[id];
}

const struct schema_field *schema_field(enum schema_field_id id)
{
	assert(id > FIELD_NONE && id < FIELD_COUNT);
	return &fields[id];
}

const struct schema_method *schema_method(enum schema_method_id id)
{
	assert(id > METHOD_NONE && id < METHOD_COUNT);
	return &methods[id];
}

const struct schema_class *schema_class_by_name(const char *name, size_t len)
{
	for (int i = 1; i < CLASS_COUNT; i++)
		if (classes[i].name_len == len && memcmp(classes[i].name, name, len) == 0)
			return &classes[i];
	return NULL;
}

const struct schema_class *schema_class_by_tag(uint64_t tag)
{
	for (int i = 1; i < CLASS_COUNT; i++)
		if (classes[i].tag == tag)
			return &classes[i];
	return NULL;
}

const struct schema_field *schema_field_by_name(
	const struct schema_class *c, const char *name, size_t len)
{
	for (int i = 0; i < c->field_count; i++)
		if (c->fields[i].name_len == len &&
			memcmp(c->fields[i].name, name, len) == 0)
			return &c->fields[i];
	return NULL;
}

const struct schema_field *schema_field_by_tag(const struct schema_class *c, uint64_t tag)
{
	int low = 0, high = c->field_count;

	while (low < high) {
		int middle = (low + high) / 2;

		if (c->fields[middle].tag == tag)
			return &c->fields[middle];
		if (c->fields[middle].tag < tag)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

const struct schema_method *schema_method_by_name(const char *name, size_t len)
{
	const char *dot = memchr(name, '.', len);
	const struct schema_class *c;
	enum schema_class_id cls = CLASS_NONE;
	size_t group_len, rest;

	if (!dot)
		return NULL;
	group_len = (size_t)(dot - name);
	rest = len - group_len - 1;
	c = schema_class_by_name(name, group_len);
	if (c)
		cls = c->id;
	for (int i = 1; i < METHOD_COUNT; i++) {
		const struct schema_method *m = &methods[i];

		if (m->cls != cls || m->name_len != rest ||
			memcmp(m->name, dot + 1, rest) != 0)
			continue;
		if (c || (strlen(m->group) == group_len &&
				 memcmp(m->group, name, group_len) == 0))
			return m;
	}
	return NULL;
}

const struct schema_arg *schema_arg_by_name(
	const struct schema_method *m, const char *name, size_t len)
{
	for (int i = 0; i < m->arg_count; i++)
		if (strlen(m->args[i].name) == len &&
			memcmp(m->args[i].name, name, len) == 0)
			return &m->args[i];
	return NULL;
}

/* ASCII only: tolower would depend on the locale. */
static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* '-' and '_' alike, case ignored. */
static bool typed_eq(const char *name, const char *typed, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char c = typed[i] == '-' ? '_' : typed[i];

		if (name[i] == '\0' || lower(name[i]) != lower(c))
			return false;
	}
	return name[len] == '\0';
}

const struct schema_class *schema_class_by_typed(const char *name, size_t len)
{
	for (int i = 1; i < CLASS_COUNT; i++)
		if (typed_eq(classes[i].name, name, len))
			return &classes[i];
	return NULL;
}

const struct schema_field *schema_field_by_typed(
	const struct schema_class *c, const char *name, size_t len)
{
	for (int i = 0; i < c->field_count; i++)
		if (typed_eq(c->fields[i].name, name, len))
			return &c->fields[i];
	return NULL;
}

const struct schema_field *schema_name_field(const struct schema_class *c)
{
	/* Always the second where there is one: FIELDS_NAME follows FIELDS_KEY. */
	if (c->field_count > 1 && c->fields[1].tag == 2)
		return &c->fields[1];
	return NULL;
}

const char *schema_enum_text(const char *const *texts, int value)
{
	for (int i = 0; texts[i]; i++)
		if (i == value)
			return texts[i];
	assert(!"an enum's value");
	return "";
}

int schema_enum_value(const char *const *texts, const char *text)
{
	for (int i = 0; texts[i]; i++)
		if (texts[i][0] == text[0] && strcmp(texts[i], text) == 0)
			return i;
	return -1;
}

/* ---- values ---- */

int schema_initial(const struct schema_field *f, struct value *out)
{
	return value_parse(out, f->type, f->initial, NULL);
}

int schema_check_value(
	const struct schema_field *f, const struct value *v, struct rv_error *e)
{
	const char *cls = schema_class(f->cls)->name;

	if (v->type != f->type)
		return rv_error_set(e, RV_EPARAM, "%s.%s takes a %s, not a %s", cls,
			f->name, value_type_name(f->type), value_type_name(v->type));
	if (f->enum_texts && schema_enum_value(f->enum_texts, value_get_string(v)) < 0)
		return rv_error_set(e, RV_EPARAM, "%s.%s can't be \"%.64s\": %s", cls,
			f->name, value_get_string(v), f->doc);
	if (f->tag == 2 && value_string_len(v) > RV_MAX_NAME_BYTES)
		return rv_error_set(e, RV_EPARAM,
			"%s.%s is longer than %d bytes; choose a shorter name", cls,
			f->name, RV_MAX_NAME_BYTES);
	return 0;
}
