/*
 * The schema: every class, field and method of the pool, as const tables.
 *
 * Storage, RPC dispatch and validation, the command line, completion and docs/API.md are
 * made from it. A new field is one line in schema_fields.def, a new method one entry in
 * schema_methods.def, a new enum value one line in schema_enums.def.
 *
 * Rules that keep old logs and snapshots readable and mixed versions equal:
 * - tags of classes and fields are never reused or renumbered, types never changed;
 * - a default is never changed once released: a field that a record lacks has it;
 * - what is new carries since = SCHEMA_LEVEL + 1 (raised in the same change) and is put
 *   into entries only when the pool's level has reached it.
 */
#ifndef REEVE_POOL_DB_SCHEMA_H
#define REEVE_POOL_DB_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/role.h"
#include "pool/db/value.h"

enum { SCHEMA_LEVEL = 1 }; /* the highest level that this build understands */

/* CLASS_VM, CLASS_HOST, ...; dense, not on the wire. */
enum schema_class_id {
	CLASS_NONE,
#define CLASS(symbol, ...) CLASS_##symbol,
#include "pool/db/schema_fields.def"
	CLASS_COUNT
};

/* VM_POWER_STATE, HOST_ADDRESS, ...: unique over all classes; dense, not on the wire. */
enum schema_field_id {
	FIELD_NONE,
#define FIELD(cls, symbol, ...) cls##_##symbol,
#include "pool/db/schema_fields.def"
	FIELD_COUNT
};

/* enum vm_power_state { VM_POWER_STATE_HALTED, ... }, ... */
#define ENUM_BEGIN(name)		 enum name {
#define ENUM_VALUE(prefix, symbol, text) prefix##_##symbol,
#define ENUM_END(prefix)                                                                 \
	prefix##_COUNT                                                                   \
	}                                                                                \
	;
#include "pool/db/schema_enums.def"

/* METHOD_VM_START, METHOD_HOST_GET_RECORD, ...; dense, not on the wire. */
enum schema_method_id {
	METHOD_NONE,
#define METHOD(cls, symbol, ...)	METHOD_##cls##_##symbol,
#define METHOD_FREE(group, symbol, ...) METHOD_##group##_##symbol,
#include "pool/db/schema_methods.def"
	METHOD_COUNT
};

enum schema_writer {
	WRITER_SYSTEM, /* operations of the pool only */
	WRITER_CREATE, /* clients, when the object is made */
	WRITER_USER,   /* clients, at any time (set_fields, add_to, remove_from) */
};

/* What a reference promises. Checked when an entry is applied. */
enum schema_ref {
	REF_FREE,  /* nothing: may dangle; not indexed */
	REF_OWNER, /* always names an existing object, which can't be deleted before */
	REF_HARD,  /* none or as REF_OWNER */
	REF_WEAK,  /* none or an existing object; becomes none when that is deleted */
	REF_BACK,  /* not stored: the set of objects whose field `backref` names this one
		    */
};

struct schema_field {
	enum schema_field_id id;
	enum schema_class_id cls;
	uint16_t tag;	/* on disk */
	uint16_t index; /* within the class, 0 is the uuid */
	uint16_t name_len;
	const char *name;
	enum value_type type;
	const char *const *enum_texts;	/* ends in NULL; NULL: not an enum */
	enum schema_class_id ref_class; /* CLASS_NONE: any */
	enum schema_ref ref;
	enum schema_field_id backref;
	enum schema_writer writer;
	bool live;   /* kept in memory only: not in the log, snapshot and hash */
	bool secret; /* in no record that leaves the daemon */
	bool bytes;  /* an int that is a size: people read and write it with units */
	bool key;    /* the object's own uuid */
	uint16_t since;
	const char *initial; /* default, as value_parse reads it */
	const char *doc;
};

struct schema_class {
	enum schema_class_id id;
	uint16_t tag; /* on disk */
	uint16_t since;
	uint16_t name_len;
	const char *name; /* "VM", "host" */
	const char *doc;
	const struct schema_field *fields; /* in rising order of tags */
	int field_count;
};

enum schema_mode {
	MODE_SYNC, /* the reply is the result */
	MODE_TASK, /* the reply is the result; the work has a task (progress, cancel), and
		      with async=true the reply is the task's uuid at once */
};

struct schema_arg {
	const char *name;
	enum value_type type; /* VALUE_NULL: see `record` and `any` */
	enum schema_class_id ref_class;
	const char *const *enum_texts;
	bool required;
	bool bytes;
	bool record; /* a map: field name to value, each checked against the class */
	bool secret; /* not logged, not stored with the task */
	const char *doc;
};

/* Methods that every class has are generated; the rest are METHOD_KIND_OWN. */
enum schema_method_kind {
	METHOD_KIND_OWN,
	METHOD_KIND_GET_ALL,	     /* () -> ref set */
	METHOD_KIND_GET_ALL_RECORDS, /* () -> map uuid to record */
	METHOD_KIND_GET_RECORD,	     /* (self) -> record */
	METHOD_KIND_GET_BY_UUID,     /* (uuid) -> ref */
	METHOD_KIND_GET_BY_NAME,     /* (label) -> ref set */
	METHOD_KIND_SET_FIELDS,	     /* (self, fields) */
	METHOD_KIND_ADD_TO,	 /* (self, field, key, value): set element or map pair */
	METHOD_KIND_REMOVE_FROM, /* (self, field, key) */
};

struct schema_method {
	enum schema_method_id id;
	enum schema_class_id cls; /* CLASS_NONE: session, event */
	const char *group;	  /* "VM", "session": before the dot */
	const char *name;	  /* "start" */
	uint16_t name_len;
	enum schema_method_kind kind;
	enum schema_mode mode;
	enum role role;
	const struct schema_arg *args;
	int arg_count;
	enum value_type result; /* VALUE_NULL: nothing, or a map as the doc says */
	enum schema_class_id result_class;
	bool result_record; /* a map that the doc line describes */
	uint16_t since;
	const char *doc;
};

/* By id: never NULL for an id inside the enum, CLASS_NONE etc. excluded (asserts). */
const struct schema_class *schema_class(enum schema_class_id id);
const struct schema_field *schema_field(enum schema_field_id id);
const struct schema_method *schema_method(enum schema_method_id id);

/* By exact name; NULL: none. Length-delimited, as they come from the wire. */
const struct schema_class *schema_class_by_name(const char *name, size_t len);
const struct schema_class *schema_class_by_tag(uint64_t tag);
const struct schema_field *schema_field_by_name(
	const struct schema_class *c, const char *name, size_t len);
const struct schema_field *schema_field_by_tag(
	const struct schema_class *c, uint64_t tag);
const struct schema_method *schema_method_by_name(
	const char *name, size_t len); /* "VM.start" */
const struct schema_arg *schema_arg_by_name(
	const struct schema_method *m, const char *name, size_t len);

/* As above, but '-' and '_' and upper and lower case are the same: what people type on
 * the command line ("vm", "name-label", "hvm-boot-policy"). */
const struct schema_class *schema_class_by_typed(const char *name, size_t len);
const struct schema_field *schema_field_by_typed(
	const struct schema_class *c, const char *name, size_t len);

/* The class's name_label field, or NULL where it has none. */
const struct schema_field *schema_name_field(const struct schema_class *c);

/* Text of an enum's value, and back (-1: none such). `texts` is e.g.
 * schema_field(VM_POWER_STATE)->enum_texts. */
const char *schema_enum_text(const char *const *texts, int value);
int schema_enum_value(const char *const *texts, const char *text);

/* A copy of the field's default. RV_ENOMEM. */
int schema_initial(const struct schema_field *f, struct value *out) RV_MUST_CHECK;

/* Whether the value may stand in the field: type, enum text, ref class not checked.
 * RV_EPARAM with the field's name and what it takes. */
int schema_check_value(const struct schema_field *f, const struct value *v,
	struct rv_error *e) RV_MUST_CHECK;

#endif
