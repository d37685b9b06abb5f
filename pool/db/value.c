#include "pool/db/value.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/mpcheck.h"
#include "pool/db/value_parts.h"

const char *value_type_name(enum value_type t)
{
	static const char *const names[VALUE_TYPES] = {"null", "bool", "int", "float",
		"string", "time", "ref", "set of strings", "set of refs", "map"};

	assert(t < VALUE_TYPES);
	return names[t];
}

struct value value_zero(enum value_type type)
{
	return (struct value){.type = type};
}

struct value value_bool(bool b)
{
	return (struct value){.type = VALUE_BOOL, .u.b = b};
}

struct value value_int(int64_t i)
{
	return (struct value){.type = VALUE_INT, .u.i = i};
}

struct value value_float(double f)
{
	/* No NaN (it differs from itself), no -0 (it equals 0 in other bytes). */
	return (struct value){
		.type = VALUE_FLOAT, .u.f = isfinite(f) && f != 0.0 ? f : 0.0};
}

struct value value_time(int64_t ms)
{
	return (struct value){.type = VALUE_TIME, .u.i = ms};
}

struct value value_ref(struct uuid ref)
{
	return (struct value){.type = VALUE_REF, .u.ref = ref};
}

/* ---- counted parts ---- */

/* NULL stands for the empty text. */
static int text_new(struct value_text **out, const char *text, size_t len)
{
	struct value_text *t;

	*out = NULL;
	if (len > RV_MAX_STRING_BYTES)
		return RV_ETOOBIG;
	if (mpcheck_utf8((const uint8_t *)text, len) != len)
		return RV_EINVAL;
	if (len == 0)
		return 0;
	t = malloc(sizeof *t + len + 1);
	if (!t)
		return RV_ENOMEM;
	t->refs = 1;
	t->len = (uint32_t)len;
	memcpy(t->bytes, text, len);
	t->bytes[len] = '\0';
	*out = t;
	return 0;
}

static struct value_text *text_hold(struct value_text *t)
{
	if (t)
		t->refs++;
	return t;
}

static void text_release(struct value_text *t)
{
	if (t && --t->refs == 0)
		free(t);
}

static const char *text_bytes(const struct value_text *t)
{
	return t ? t->bytes : "";
}

static size_t text_len(const struct value_text *t)
{
	return t ? t->len : 0;
}

static int bytes_cmp(const char *a, size_t a_len, const char *b, size_t b_len)
{
	size_t shorter = a_len < b_len ? a_len : b_len;
	int order = shorter ? memcmp(a, b, shorter) : 0;

	return order ? order : (a_len > b_len) - (a_len < b_len);
}

struct value_list *value_list_new(size_t count)
{
	struct value_list *l = calloc(1, sizeof *l + count * sizeof(struct value_text *));

	if (l) {
		l->refs = 1;
		l->count = count;
	}
	return l;
}

void value_list_release(struct value_list *l)
{
	if (!l || --l->refs > 0)
		return;
	for (size_t i = 0; i < l->count; i++)
		text_release(l->items[i]);
	free(l);
}

/* ---- whole values ---- */

int value_from_text(struct value *out, const char *text, size_t len)
{
	struct value_text *t;
	int rc = text_new(&t, text, len);

	*out = (struct value){0};
	if (rc)
		return rc;
	*out = (struct value){.type = VALUE_STRING, .u.text = t};
	return 0;
}

int value_from_cstr(struct value *out, const char *text)
{
	return value_from_text(out, text, strlen(text));
}

void value_fini(struct value *v)
{
	switch (v->type) {
	case VALUE_STRING:
		text_release(v->u.text);
		break;
	case VALUE_STRING_SET:
	case VALUE_STRING_MAP:
		value_list_release(v->u.list);
		break;
	case VALUE_REF_SET:
		if (v->u.refs && --v->u.refs->refs == 0)
			free(v->u.refs);
		break;
	default:
		break;
	}
	*v = (struct value){0};
}

struct value value_copy(const struct value *v)
{
	switch (v->type) {
	case VALUE_STRING:
		text_hold(v->u.text);
		break;
	case VALUE_STRING_SET:
	case VALUE_STRING_MAP:
		if (v->u.list)
			v->u.list->refs++;
		break;
	case VALUE_REF_SET:
		if (v->u.refs)
			v->u.refs->refs++;
		break;
	default:
		break;
	}
	return *v;
}

static bool text_eq(const struct value_text *a, const struct value_text *b)
{
	return a == b || (text_len(a) == text_len(b) &&
				 memcmp(text_bytes(a), text_bytes(b), text_len(a)) == 0);
}

static bool list_eq(const struct value_list *a, const struct value_list *b)
{
	if (a == b)
		return true;
	if (!a || !b || a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++)
		if (!text_eq(a->items[i], b->items[i]))
			return false;
	return true;
}

bool value_eq(const struct value *a, const struct value *b)
{
	if (a->type != b->type)
		return false;
	switch (a->type) {
	case VALUE_NULL:
		return true;
	case VALUE_BOOL:
		return a->u.b == b->u.b;
	case VALUE_INT:
	case VALUE_TIME:
		return a->u.i == b->u.i;
	case VALUE_FLOAT:
		return memcmp(&a->u.f, &b->u.f, sizeof a->u.f) == 0;
	case VALUE_STRING:
		return text_eq(a->u.text, b->u.text);
	case VALUE_REF:
		return uuid_eq(&a->u.ref, &b->u.ref);
	case VALUE_STRING_SET:
	case VALUE_STRING_MAP:
		return list_eq(a->u.list, b->u.list);
	case VALUE_REF_SET:
		if (a->u.refs == b->u.refs)
			return true;
		return a->u.refs && b->u.refs && a->u.refs->count == b->u.refs->count &&
		       memcmp(a->u.refs->items, b->u.refs->items,
			       a->u.refs->count * sizeof(struct uuid)) == 0;
	case VALUE_TYPES:
		break;
	}
	assert(!"a value type");
	return false;
}

bool value_is_zero(const struct value *v)
{
	struct value zero = value_zero(v->type);

	return value_eq(v, &zero);
}

/* ---- reading ---- */

bool value_get_bool(const struct value *v)
{
	assert(v->type == VALUE_BOOL);
	return v->u.b;
}

int64_t value_get_int(const struct value *v)
{
	assert(v->type == VALUE_INT || v->type == VALUE_TIME);
	return v->u.i;
}

double value_get_float(const struct value *v)
{
	assert(v->type == VALUE_FLOAT);
	return v->u.f;
}

struct uuid value_get_ref(const struct value *v)
{
	assert(v->type == VALUE_REF);
	return v->u.ref;
}

const char *value_get_string(const struct value *v)
{
	assert(v->type == VALUE_STRING);
	return text_bytes(v->u.text);
}

size_t value_string_len(const struct value *v)
{
	assert(v->type == VALUE_STRING);
	return text_len(v->u.text);
}

size_t value_count(const struct value *v)
{
	switch (v->type) {
	case VALUE_STRING_SET:
		return v->u.list ? v->u.list->count : 0;
	case VALUE_STRING_MAP:
		return v->u.list ? v->u.list->count / 2 : 0;
	case VALUE_REF_SET:
		return v->u.refs ? v->u.refs->count : 0;
	default:
		assert(!"a set or map");
		return 0;
	}
}

const char *value_set_at(const struct value *v, size_t i)
{
	assert(v->type == VALUE_STRING_SET && i < value_count(v));
	return text_bytes(v->u.list->items[i]);
}

struct uuid value_refs_at(const struct value *v, size_t i)
{
	assert(v->type == VALUE_REF_SET && i < value_count(v));
	return v->u.refs->items[i];
}

const char *value_key_at(const struct value *v, size_t i)
{
	assert(v->type == VALUE_STRING_MAP && i < value_count(v));
	return text_bytes(v->u.list->items[2 * i]);
}

const char *value_at(const struct value *v, size_t i)
{
	assert(v->type == VALUE_STRING_MAP && i < value_count(v));
	return text_bytes(v->u.list->items[2 * i + 1]);
}

/* Where the element or key is, or where it would go; each takes `stride` items. */
static size_t list_find(const struct value_list *l, size_t stride, const char *text,
	size_t len, bool *found)
{
	size_t low = 0, high = l ? l->count / stride : 0;

	*found = false;
	while (low < high) {
		size_t middle = (low + high) / 2;
		const struct value_text *t = l->items[middle * stride];
		int order = bytes_cmp(text_bytes(t), text_len(t), text, len);

		if (order == 0) {
			*found = true;
			return middle;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const char *value_map_get(const struct value *v, const char *key)
{
	bool found;
	size_t at;

	assert(v->type == VALUE_STRING_MAP);
	at = list_find(v->u.list, 2, key, strlen(key), &found);
	return found ? value_at(v, at) : NULL;
}

bool value_set_has(const struct value *v, const char *element)
{
	bool found;

	assert(v->type == VALUE_STRING_SET);
	list_find(v->u.list, 1, element, strlen(element), &found);
	return found;
}

static size_t refs_find(const struct value_refs *r, struct uuid ref, bool *found)
{
	size_t low = 0, high = r ? r->count : 0;

	*found = false;
	while (low < high) {
		size_t middle = (low + high) / 2;
		int order = uuid_cmp(&r->items[middle], &ref);

		if (order == 0) {
			*found = true;
			return middle;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

bool value_refs_have(const struct value *v, struct uuid ref)
{
	bool found;

	assert(v->type == VALUE_REF_SET);
	refs_find(v->u.refs, ref, &found);
	return found;
}

/* ---- changing ---- */

/* A list with `stride` new texts at place `at`, or in place of those there. The texts are
 * taken, on failure too. */
static int list_put(struct value *v, size_t stride, size_t at, bool replace,
	struct value_text *first, struct value_text *second)
{
	struct value_list *old = v->u.list, *l = NULL;
	size_t count = old ? old->count : 0, from = at * stride, gap, rest;
	int rc = RV_ETOOBIG;

	if (!replace && count / stride >= RV_MAX_SET_ELEMENTS)
		goto fail;
	rc = RV_ENOMEM;
	gap = replace ? stride : 0;
	rest = count - from - gap;
	if (old && old->refs == 1 && !replace) { /* nobody else has it: no copy */
		l = realloc(old, sizeof *l + (count + stride) * sizeof l->items[0]);
		if (!l)
			goto fail;
		memmove(&l->items[from + stride], &l->items[from],
			rest * sizeof l->items[0]);
		l->items[from] = first;
		if (stride == 2)
			l->items[from + 1] = second;
		l->count = count + stride;
		v->u.list = l;
		return 0;
	}
	l = value_list_new(count + stride - gap);
	if (!l)
		goto fail;
	for (size_t i = 0; i < from; i++)
		l->items[i] = text_hold(old->items[i]);
	l->items[from] = first;
	if (stride == 2)
		l->items[from + 1] = second;
	for (size_t i = 0; i < rest; i++)
		l->items[from + stride + i] = text_hold(old->items[from + gap + i]);
	value_list_release(old);
	v->u.list = l;
	return 0;
fail:
	text_release(first);
	text_release(second);
	return rc;
}

static int list_cut(struct value *v, size_t stride, size_t at)
{
	struct value_list *old = v->u.list, *l = NULL;
	size_t n = old->count - stride;

	if (n) {
		l = value_list_new(n);
		if (!l)
			return RV_ENOMEM;
		for (size_t i = 0; i < n; i++)
			l->items[i] =
				text_hold(old->items[i < at * stride ? i : i + stride]);
	}
	value_list_release(old);
	v->u.list = l;
	return 0;
}

int value_set_add(struct value *v, const char *element, size_t len)
{
	struct value_text *t;
	bool found;
	size_t at;
	int rc;

	assert(v->type == VALUE_STRING_SET);
	at = list_find(v->u.list, 1, element, len, &found);
	if (found)
		return 0;
	rc = text_new(&t, element, len);
	return rc ? rc : list_put(v, 1, at, false, t, NULL);
}

int value_set_remove(struct value *v, const char *element, size_t len)
{
	bool found;
	size_t at;

	assert(v->type == VALUE_STRING_SET);
	at = list_find(v->u.list, 1, element, len, &found);
	return found ? list_cut(v, 1, at) : 0;
}

int value_map_put(
	struct value *v, const char *key, size_t key_len, const char *text, size_t len)
{
	struct value_text *k, *t;
	bool found;
	size_t at;
	int rc;

	assert(v->type == VALUE_STRING_MAP);
	at = list_find(v->u.list, 2, key, key_len, &found);
	rc = text_new(&k, key, key_len);
	if (rc)
		return rc;
	rc = text_new(&t, text, len);
	if (rc) {
		text_release(k);
		return rc;
	}
	return list_put(v, 2, at, found, k, t);
}

int value_map_remove(struct value *v, const char *key, size_t len)
{
	bool found;
	size_t at;

	assert(v->type == VALUE_STRING_MAP);
	at = list_find(v->u.list, 2, key, len, &found);
	return found ? list_cut(v, 2, at) : 0;
}

static struct value_refs *refs_new(size_t count)
{
	struct value_refs *r = malloc(sizeof *r + count * sizeof(struct uuid));

	if (r) {
		r->refs = 1;
		r->count = count;
	}
	return r;
}

int value_refs_add(struct value *v, struct uuid ref)
{
	struct value_refs *old = v->u.refs, *r;
	size_t at, count = old ? old->count : 0;
	bool found;

	assert(v->type == VALUE_REF_SET);
	at = refs_find(old, ref, &found);
	if (found)
		return 0;
	if (count >= RV_MAX_OBJECTS)
		return RV_ETOOBIG;
	/* Alone with its bytes, appending: the common way to build one. */
	if (old && old->refs == 1 && at == count) {
		r = realloc(old, sizeof *r + (count + 1) * sizeof(struct uuid));
		if (!r)
			return RV_ENOMEM;
		r->count++;
	} else {
		r = refs_new(count + 1);
		if (!r)
			return RV_ENOMEM;
		if (old) {
			memcpy(r->items, old->items, at * sizeof ref);
			memcpy(r->items + at + 1, old->items + at,
				(count - at) * sizeof ref);
			if (--old->refs == 0)
				free(old);
		}
	}
	r->items[at] = ref;
	v->u.refs = r;
	return 0;
}

int value_refs_remove(struct value *v, struct uuid ref)
{
	struct value_refs *old = v->u.refs, *r = NULL;
	size_t at;
	bool found;

	assert(v->type == VALUE_REF_SET);
	at = refs_find(old, ref, &found);
	if (!found)
		return 0;
	if (old->count > 1) {
		r = refs_new(old->count - 1);
		if (!r)
			return RV_ENOMEM;
		memcpy(r->items, old->items, at * sizeof ref);
		memcpy(r->items + at, old->items + at + 1,
			(old->count - at - 1) * sizeof ref);
	}
	if (--old->refs == 0)
		free(old);
	v->u.refs = r;
	return 0;
}
