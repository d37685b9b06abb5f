/*
 * Values of fields: a tagged union whose long parts (texts, sets, maps) are immutable and
 * shared by reference count, so that copying a value never copies bytes. To change a set
 * or map, make a new value from the old one.
 *
 * Sets and maps are kept sorted (by bytes) and without duplicates: equal values have
 * equal bytes on every host. Not for use by several threads at once.
 */
#ifndef REEVE_POOL_DB_VALUE_H
#define REEVE_POOL_DB_VALUE_H

#include <msgpack.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/uuid.h"

enum value_type {
	VALUE_NULL, /* no value; never in a row */
	VALUE_BOOL,
	VALUE_INT,
	VALUE_FLOAT,
	VALUE_STRING, /* UTF-8 without NUL, at most RV_MAX_STRING_BYTES; enums too */
	VALUE_TIME,   /* milliseconds since 1970 UTC; 0: never */
	VALUE_REF,    /* an object's UUID; zero: none */
	VALUE_STRING_SET,
	VALUE_REF_SET,
	VALUE_STRING_MAP, /* string to string */
	VALUE_TYPES
};

struct value_text; /* counted; see value_string */
struct value_list; /* counted; texts of a set, or keys and values of a map in turn */
struct value_refs; /* counted */

/* Read through the accessors below. All zero bytes is VALUE_NULL. */
struct value {
	enum value_type type;
	union {
		bool b;
		int64_t i; /* VALUE_INT and VALUE_TIME */
		double f;
		struct uuid ref;
		struct value_text *text;
		struct value_list *list; /* NULL: empty */
		struct value_refs *refs; /* NULL: empty */
	} u;
};

const char *value_type_name(enum value_type t); /* "string", "ref set" */

/* The type's zero: false, 0, "", none, empty. */
struct value value_zero(enum value_type type);
struct value value_bool(bool b);
struct value value_int(int64_t i);
struct value value_float(double f); /* not finite becomes 0 */
struct value value_time(int64_t ms);
struct value value_ref(struct uuid ref);

/* These allocate. RV_ENOMEM; RV_ETOOBIG (limits.h); RV_EINVAL (NUL inside, not UTF-8). On
 * failure *out is VALUE_NULL. */
int value_from_text(struct value *out, const char *text, size_t len) RV_MUST_CHECK;
int value_from_cstr(struct value *out, const char *text) RV_MUST_CHECK;

/* Drops what the value holds; it becomes VALUE_NULL. Harmless on VALUE_NULL. */
void value_fini(struct value *v);

/* A second value sharing the same bytes; must be given to value_fini too. Can't fail. */
struct value value_copy(const struct value *v);

bool value_eq(const struct value *a, const struct value *b);
bool value_is_zero(const struct value *v);

/* Reading; each asserts the type. Borrowed: live as long as some copy of the value. */
bool value_get_bool(const struct value *v);
int64_t value_get_int(const struct value *v); /* VALUE_INT or VALUE_TIME */
double value_get_float(const struct value *v);
struct uuid value_get_ref(const struct value *v);
const char *value_get_string(const struct value *v); /* ends in NUL */
size_t value_string_len(const struct value *v);
size_t value_count(const struct value *v); /* elements of a set, pairs of a map */
const char *value_set_at(const struct value *v, size_t i);
struct uuid value_refs_at(const struct value *v, size_t i);
const char *value_key_at(const struct value *v, size_t i);
const char *value_at(const struct value *v, size_t i);
const char *value_map_get(const struct value *v, const char *key); /* NULL: no such key */
bool value_set_has(const struct value *v, const char *element);
bool value_refs_have(const struct value *v, struct uuid ref);

/* Changing: *v becomes a new value (the old bytes live on where they are shared). On
 * failure it stays as it was: RV_ENOMEM, RV_ETOOBIG (element or count), RV_EINVAL. Adding
 * what is there, or removing what is not, succeeds. */
int value_set_add(struct value *v, const char *element, size_t len) RV_MUST_CHECK;
int value_set_remove(struct value *v, const char *element, size_t len) RV_MUST_CHECK;
int value_refs_add(struct value *v, struct uuid ref) RV_MUST_CHECK;
int value_refs_remove(struct value *v, struct uuid ref) RV_MUST_CHECK;
/* Replaces the value of a key that is there. */
int value_map_put(struct value *v, const char *key, size_t key_len, const char *text,
	size_t len) RV_MUST_CHECK;
int value_map_remove(struct value *v, const char *key, size_t len) RV_MUST_CHECK;

/* How refs are written. Everything else is the same in both: times are integers (ms),
 * sets arrays, maps maps, floats doubles, ints the shortest form. */
enum value_wire {
	VALUE_WIRE_STORE, /* log and snapshot: bin of 16 bytes, none: empty bin */
	VALUE_WIRE_RPC,	  /* replies: text of 36 characters, none: "" */
};

void value_pack(const struct value *v, msgpack_packer *pk, enum value_wire wire);

/* A packer's sink that keeps the first error, which the packer would drop: pass it to
 * msgpack_packer_init with value_sink_write, look at rc at the end. */
struct value_sink {
	struct buf *out;
	int rc;
};
int value_sink_write(void *sink, const char *data, size_t len);

/* As value_pack, into `out`; RV_ENOMEM or RV_ETOOBIG by the buffer's cap. */
int value_pack_buf(
	const struct value *v, struct buf *out, enum value_wire wire) RV_MUST_CHECK;

/* Decodes `o` as a value of `type`; both forms of a ref are accepted, nil too for none,
 * an int where a float is due. The bytes must have passed mpcheck (UTF-8). RV_EPARAM with
 * a reason ("expected a string, got an integer"), RV_ETOOBIG, RV_ENOMEM. */
int value_unpack(struct value *out, enum value_type type, const msgpack_object *o,
	struct rv_error *e) RV_MUST_CHECK;

/* Text as xe writes it: "true", "42", "20260131T09:30:00Z", "a; b", "k: v; k2: v2"; a
 * none ref is "<not in database>", a zero time "never". A backslash stands before ';',
 * ',' and '\' inside elements, ':' and '=' inside keys and blanks at the ends, and "\e"
 * is an empty element: value_parse reads back what was written (floats to 6 significant
 * digits). Appends, no NUL. */
int value_format(const struct value *v, struct buf *out) RV_MUST_CHECK;

/* Reads that text; "" is the type's zero, sizes such as "4GiB" are accepted for ints,
 * milliseconds for times, ',' separates as ';' does, '=' as ':'. RV_EPARAM with a reason
 * that quotes the text. */
int value_parse(struct value *out, enum value_type type, const char *text,
	struct rv_error *e) RV_MUST_CHECK;

#endif
