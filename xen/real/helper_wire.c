/*
 * Messages as tables: one line per key says what it is, where it lies and what it may be.
 */
#include "xen/real/helper_wire.h"

#include <assert.h>
#include <msgpack.h>
#include <string.h>

#include "base/mpcheck.h"

enum field_kind {
	FIELD_U32, /* at most max */
	FIELD_U64,
	FIELD_I64, /* not negative */
	FIELD_BOOL,
	FIELD_RC, /* 0 or an error's number */
	FIELD_UUID,
	FIELD_TEXT,  /* max: the buffer's size */
	FIELD_BYTES, /* max: the most; the length lies at `count` */
	FIELD_LIST,  /* of `of`, each `max` bytes; how many lies at `count` */
	FIELD_MAP,   /* of `of`; there only if the bool at `count` is set */
};

struct field {
	const char *key;
	enum field_kind kind;
	size_t at, max, count, list_max;
	const struct field *of;
};

#define U32(s, f, most)                                                                  \
	{                                                                                \
#f, FIELD_U32, offsetof(struct s, f), most, 0, 0, NULL                   \
	}
#define PLAIN(s, f, kind)                                                                \
	{                                                                                \
#f, kind, offsetof(struct s, f), 0, 0, 0, NULL                           \
	}
#define TEXT(s, f)                                                                       \
	{                                                                                \
#f, FIELD_TEXT, offsetof(struct s, f), sizeof((struct s *)0)->f, 0, 0,   \
			NULL                                                             \
	}
#define LIST(s, f, n, element, table)                                                    \
	{                                                                                \
#f, FIELD_LIST, offsetof(struct s, f), sizeof(struct element),           \
			offsetof(struct s, n),                                           \
			sizeof(((struct s *)0)->f) / sizeof(struct element), table       \
	}

static const struct field vbd_fields[] = {
	U32(helper_vbd, devid, UINT32_MAX),
	TEXT(helper_vbd, device),
	TEXT(helper_vbd, backend),
	TEXT(helper_vbd, params),
	PLAIN(helper_vbd, read_only, FIELD_BOOL),
	PLAIN(helper_vbd, cdrom, FIELD_BOOL),
	{NULL, 0, 0, 0, 0, 0, NULL},
};

static const struct field vif_fields[] = {
	U32(helper_vif, devid, UINT16_MAX),
	TEXT(helper_vif, mac),
	TEXT(helper_vif, backend),
	TEXT(helper_vif, bridge),
	U32(helper_vif, mtu, UINT16_MAX),
	{NULL, 0, 0, 0, 0, 0, NULL},
};

static const struct field domain_fields[] = {
	TEXT(helper_domain, name),
	U32(helper_domain, type, HYPER_HVM),
	U32(helper_domain, vcpus_max, HYPER_MAX_VCPUS),
	U32(helper_domain, vcpus_online, HYPER_MAX_VCPUS),
	PLAIN(helper_domain, static_max_kib, FIELD_U64),
	PLAIN(helper_domain, target_kib, FIELD_U64),
	PLAIN(helper_domain, actual_kib, FIELD_U64),
	PLAIN(helper_domain, populate_on_demand, FIELD_BOOL),
	PLAIN(helper_domain, console, FIELD_BOOL),
	U32(helper_domain, on_poweroff, HYPER_ON_EXIT_PRESERVE),
	U32(helper_domain, on_reboot, HYPER_ON_EXIT_PRESERVE),
	U32(helper_domain, on_crash, HYPER_ON_EXIT_PRESERVE),
	TEXT(helper_domain, kernel),
	TEXT(helper_domain, ramdisk),
	TEXT(helper_domain, cmdline),
	TEXT(helper_domain, bootloader),
	TEXT(helper_domain, platform),
	{"cpu_policy", FIELD_BYTES, offsetof(struct helper_domain, cpu_policy),
		HYPER_MAX_CPU_POLICY, offsetof(struct helper_domain, cpu_policy_len), 0,
		NULL},
	LIST(helper_domain, vbds, vbd_count, helper_vbd, vbd_fields),
	LIST(helper_domain, vifs, vif_count, helper_vif, vif_fields),
	{NULL, 0, 0, 0, 0, 0, NULL},
};

static const struct field request_fields[] = {
	U32(helper_request, version, UINT32_MAX),
	U32(helper_request, call, HYPER_CALL_COUNT - 1),
	PLAIN(helper_request, handle, FIELD_UUID),
	U32(helper_request, domid, UINT32_MAX),
	U32(helper_request, devid, UINT32_MAX),
	PLAIN(helper_request, live, FIELD_BOOL),
	TEXT(helper_request, scripts),
	TEXT(helper_request, file),
	PLAIN(helper_request, file_at, FIELD_U64),
	PLAIN(helper_request, file_size, FIELD_U64),
	PLAIN(helper_request, vm, FIELD_UUID),
	U32(helper_request, vm_type, HYPER_HVM),
	PLAIN(helper_request, vm_actual_kib, FIELD_U64),
	U32(helper_request, vm_extra_kib, UINT32_MAX),
	{"domain", FIELD_MAP, offsetof(struct helper_request, domain),
		sizeof(struct helper_domain), offsetof(struct helper_request, has_domain),
		0, domain_fields},
	{NULL, 0, 0, 0, 0, 0, NULL},
};

static const struct field verdict_fields[] = {
	U32(helper_message, verdict, HYPER_PRECOPY_ABORT),
	{NULL, 0, 0, 0, 0, 0, NULL},
};

static const struct field precopy_fields[] = {
	U32(helper_precopy, iteration, UINT32_MAX),
	PLAIN(helper_precopy, total_pages, FIELD_U64),
	PLAIN(helper_precopy, dirty_pages, FIELD_U64),
	PLAIN(helper_precopy, round_pages, FIELD_U64),
	PLAIN(helper_precopy, round_us, FIELD_I64),
	{NULL, 0, 0, 0, 0, 0, NULL},
};

static const struct field written_fields[] = {
	PLAIN(helper_message, written, FIELD_U64),
	{NULL, 0, 0, 0, 0, 0, NULL},
};

static const struct field no_fields[] = {{NULL, 0, 0, 0, 0, 0, NULL}};

static const struct field result_fields[] = {
	PLAIN(helper_result, rc, FIELD_RC),
	TEXT(helper_result, detail),
	U32(helper_result, domid, UINT32_MAX),
	PLAIN(helper_result, left, FIELD_BOOL),
	PLAIN(helper_result, suspended, FIELD_BOOL),
	TEXT(helper_result, console),
	PLAIN(helper_result, file_bytes, FIELD_U64),
	U32(helper_result, extra_kib, UINT32_MAX),
	{NULL, 0, 0, 0, 0, 0, NULL},
};

/* --- writing --- */

static int write_bytes(void *data, const char *bytes, size_t len)
{
	return buf_append(data, bytes, len) == 0 ? 0 : -1;
}

static size_t table_size(const struct field *table)
{
	size_t n = 0;

	while (table[n].key)
		n++;
	return n;
}

static const void *at_const(const void *base, size_t offset)
{
	return (const uint8_t *)base + offset;
}

static void *at(void *base, size_t offset)
{
	return (uint8_t *)base + offset;
}

static void pack_key(msgpack_packer *pk, const char *key)
{
	(void)msgpack_pack_str(pk, strlen(key));
	(void)msgpack_pack_str_body(pk, key, strlen(key));
}

static int out_of_range(const char *key, struct rv_error *e)
{
	return rv_error_set(e, RV_EINVAL, "%s is out of its range", key);
}

static int pack_map(msgpack_packer *pk, const struct field *table, const void *base,
	uint64_t kind, struct rv_error *e);

static int pack_number(
	msgpack_packer *pk, const struct field *f, const void *value, struct rv_error *e)
{
	switch (f->kind) {
	case FIELD_U32:
		if (*(const uint32_t *)value > f->max)
			return out_of_range(f->key, e);
		(void)msgpack_pack_uint64(pk, *(const uint32_t *)value);
		return 0;
	case FIELD_U64:
		(void)msgpack_pack_uint64(pk, *(const uint64_t *)value);
		return 0;
	case FIELD_I64:
		if (*(const int64_t *)value < 0)
			return out_of_range(f->key, e);
		(void)msgpack_pack_uint64(pk, (uint64_t) * (const int64_t *)value);
		return 0;
	case FIELD_RC:
		if (*(const int *)value > 0)
			return out_of_range(f->key, e);
		(void)msgpack_pack_uint64(
			pk, (uint64_t) - (int64_t) * (const int *)value);
		return 0;
	default:
		if (*(const bool *)value)
			(void)msgpack_pack_true(pk);
		else
			(void)msgpack_pack_false(pk);
		return 0;
	}
}

static int pack_list(
	msgpack_packer *pk, const struct field *f, const void *base, struct rv_error *e)
{
	size_t n = *(const size_t *)at_const(base, f->count);
	int rc = 0;

	if (n > f->list_max)
		return out_of_range(f->key, e);
	(void)msgpack_pack_array(pk, n);
	for (size_t i = 0; !rc && i < n; i++)
		rc = pack_map(pk, f->of, at_const(base, f->at + i * f->max), 0, e);
	return rc;
}

static int pack_field(
	msgpack_packer *pk, const struct field *f, const void *base, struct rv_error *e)
{
	const void *value = at_const(base, f->at);
	size_t n;

	switch (f->kind) {
	case FIELD_UUID:
		(void)msgpack_pack_bin(pk, sizeof(struct uuid));
		(void)msgpack_pack_bin_body(pk, value, sizeof(struct uuid));
		return 0;
	case FIELD_TEXT:
		n = strnlen(value, f->max);
		if (n == f->max || mpcheck_utf8(value, n) != n)
			return out_of_range(f->key, e);
		(void)msgpack_pack_str(pk, n);
		(void)msgpack_pack_str_body(pk, value, n);
		return 0;
	case FIELD_BYTES:
		n = *(const size_t *)at_const(base, f->count);
		if (n > f->max)
			return out_of_range(f->key, e);
		(void)msgpack_pack_bin(pk, n);
		(void)msgpack_pack_bin_body(pk, value, n);
		return 0;
	case FIELD_LIST:
		return pack_list(pk, f, base, e);
	case FIELD_MAP:
		if (*(const bool *)at_const(base, f->count))
			return pack_map(pk, f->of, value, 0, e);
		(void)msgpack_pack_nil(pk);
		return 0;
	default:
		return pack_number(pk, f, value, e);
	}
}

/* kind 0: a map inside a message. */
static int pack_map(msgpack_packer *pk, const struct field *table, const void *base,
	uint64_t kind, struct rv_error *e)
{
	int rc = 0;

	(void)msgpack_pack_map(pk, table_size(table) + (kind != 0));
	if (kind != 0) {
		pack_key(pk, "kind");
		(void)msgpack_pack_uint64(pk, kind);
	}
	for (; !rc && table->key; table++) {
		pack_key(pk, table->key);
		rc = pack_field(pk, table, base, e);
	}
	return rc;
}

/* The table of a kind, and where what it describes lies in the message. */
static const struct field *table_of(uint64_t kind, struct helper_message *m, void **base)
{
	*base = m;
	switch (kind) {
	case HELPER_REQUEST:
		*base = m->request;
		return request_fields;
	case HELPER_VERDICT:
		return verdict_fields;
	case HELPER_PRECOPY:
		*base = &m->precopy;
		return precopy_fields;
	case HELPER_SUSPENDED:
		return no_fields;
	case HELPER_WRITTEN:
		return written_fields;
	case HELPER_RESULT:
		*base = &m->result;
		return result_fields;
	default:
		return NULL;
	}
}

int helper_wire_encode(
	struct buf *out, const struct helper_message *m, struct rv_error *e)
{
	void *base;
	/* Only looked at; the table is the same for reading and writing. */
	const struct field *table =
		table_of(m->kind, (struct helper_message *)(uintptr_t)m, &base);
	size_t before = buf_len(out);
	msgpack_packer pk;
	uint8_t *room;
	int rc;

	assert(table && base);
	/* One reservation, so that no packing fails later. */
	rc = buf_reserve(out, HELPER_WIRE_MAX, &room);
	if (rc)
		return rv_error_set(e, rc, "no memory for a message to the helper");
	msgpack_packer_init(&pk, out, write_bytes);
	rc = pack_map(&pk, table, base, m->kind, e);
	if (!rc && buf_len(out) - before > HELPER_WIRE_MAX)
		rc = rv_error_set(e, RV_ETOOBIG, "a message to the helper is too big");
	return rc;
}

/* --- reading --- */

static int refused(const char *key, struct rv_error *e)
{
	return rv_error_set(e, RV_EPROTO,
		"the message between daemon and helper is malformed at %s; are both of "
		"the same version?",
		key);
}

static int unpack_map(const msgpack_object *o, const struct field *table, void *base,
	bool has_kind, struct rv_error *e);

static int unpack_number(
	const msgpack_object *o, const struct field *f, void *value, struct rv_error *e)
{
	uint64_t n = o->via.u64;

	if (f->kind == FIELD_BOOL) {
		if (o->type != MSGPACK_OBJECT_BOOLEAN)
			return refused(f->key, e);
		*(bool *)value = o->via.boolean;
		return 0;
	}
	if (o->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
		return refused(f->key, e);
	if (f->kind == FIELD_U32) {
		if (n > f->max)
			return refused(f->key, e);
		*(uint32_t *)value = (uint32_t)n;
	} else if (f->kind == FIELD_I64) {
		if (n > INT64_MAX)
			return refused(f->key, e);
		*(int64_t *)value = (int64_t)n;
	} else if (f->kind == FIELD_RC) {
		if (n > 10000)
			return refused(f->key, e);
		*(int *)value = -(int)n;
	} else {
		*(uint64_t *)value = n;
	}
	return 0;
}

static int unpack_list(
	const msgpack_object *o, const struct field *f, void *base, struct rv_error *e)
{
	int rc = 0;

	if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size > f->list_max)
		return refused(f->key, e);
	for (size_t i = 0; !rc && i < o->via.array.size; i++)
		rc = unpack_map(&o->via.array.ptr[i], f->of, at(base, f->at + i * f->max),
			false, e);
	*(size_t *)at(base, f->count) = o->via.array.size;
	return rc;
}

static int unpack_field(
	const msgpack_object *o, const struct field *f, void *base, struct rv_error *e)
{
	void *value = at(base, f->at);

	switch (f->kind) {
	case FIELD_UUID:
		if (o->type != MSGPACK_OBJECT_BIN ||
			o->via.bin.size != sizeof(struct uuid))
			return refused(f->key, e);
		memcpy(value, o->via.bin.ptr, sizeof(struct uuid));
		return 0;
	case FIELD_TEXT: /* UTF-8 without NUL: mpcheck has seen to it */
		if (o->type != MSGPACK_OBJECT_STR || o->via.str.size >= f->max)
			return refused(f->key, e);
		memset(value, 0, f->max);
		memcpy(value, o->via.str.ptr, o->via.str.size);
		return 0;
	case FIELD_BYTES:
		if (o->type != MSGPACK_OBJECT_BIN || o->via.bin.size > f->max)
			return refused(f->key, e);
		memcpy(value, o->via.bin.ptr, o->via.bin.size);
		*(size_t *)at(base, f->count) = o->via.bin.size;
		return 0;
	case FIELD_LIST:
		return unpack_list(o, f, base, e);
	case FIELD_MAP:
		*(bool *)at(base, f->count) = o->type != MSGPACK_OBJECT_NIL;
		return o->type == MSGPACK_OBJECT_NIL
			       ? 0
			       : unpack_map(o, f->of, value, false, e);
	default:
		return unpack_number(o, f, value, e);
	}
}

static const msgpack_object *map_get(const msgpack_object *map, const char *key)
{
	size_t len = strlen(key);

	for (uint32_t i = 0; i < map->via.map.size; i++) {
		const msgpack_object *k = &map->via.map.ptr[i].key;

		if (k->type == MSGPACK_OBJECT_STR && k->via.str.size == len &&
			memcmp(k->via.str.ptr, key, len) == 0)
			return &map->via.map.ptr[i].val;
	}
	return NULL;
}

/* As many entries as keys and each key there: so no key is doubled, none unknown. */
static int unpack_map(const msgpack_object *o, const struct field *table, void *base,
	bool has_kind, struct rv_error *e)
{
	int rc = 0;

	if (o->type != MSGPACK_OBJECT_MAP ||
		o->via.map.size != table_size(table) + (has_kind ? 1 : 0))
		return refused("a map", e);
	for (; !rc && table->key; table++) {
		const msgpack_object *value = map_get(o, table->key);

		rc = value ? unpack_field(value, table, base, e) : refused(table->key, e);
	}
	return rc;
}

static int decode_object(
	struct helper_message *m, const msgpack_object *o, struct rv_error *e)
{
	const msgpack_object *kind;
	const struct field *table;
	void *base;

	if (o->type != MSGPACK_OBJECT_MAP)
		return refused("its beginning", e);
	kind = map_get(o, "kind");
	if (!kind || kind->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
		return refused("kind", e);
	table = table_of(kind->via.u64, m, &base);
	if (!table || !base)
		return refused("kind", e);
	m->kind = (enum helper_kind)kind->via.u64;
	return unpack_map(o, table, base, true, e);
}

int helper_wire_decode(
	struct helper_message *m, const uint8_t *data, size_t len, struct rv_error *e)
{
	msgpack_unpacked result;
	size_t used = 0;
	int rc;

	if (len > HELPER_WIRE_MAX)
		return rv_error_set(e, RV_ETOOBIG,
			"a message of %zu bytes between daemon and helper is too big",
			len);
	rc = mpcheck(data, len, e);
	if (rc)
		return rc;
	msgpack_unpacked_init(&result);
	if (msgpack_unpack_next(&result, (const char *)data, len, &used) ==
		MSGPACK_UNPACK_SUCCESS)
		rc = decode_object(m, &result.data, e);
	else
		rc = rv_error_set(e, RV_EPROTO,
			"a message between daemon and helper can't be unpacked");
	msgpack_unpacked_destroy(&result);
	return rc;
}

/* --- from the port's specs --- */

static int take(
	char *out, size_t size, const char *text, const char *what, struct rv_error *e)
{
	size_t n = text ? strlen(text) : 0;

	if (n >= size)
		return rv_error_set(e, RV_EINVAL,
			"%s is %zu bytes long; at most %zu are possible", what, n,
			size - 1);
	if (n > 0 && mpcheck_utf8((const uint8_t *)text, n) != n)
		return rv_error_set(e, RV_EINVAL, "%s is no UTF-8 text", what);
	memset(out, 0, size);
	if (n > 0)
		memcpy(out, text, n);
	return 0;
}

#define TAKE(field, what) take(d->field, sizeof d->field, spec->field, what, e)

int helper_vbd_take(
	struct helper_vbd *d, const struct hyper_vbd_spec *spec, struct rv_error *e)
{
	int rc = TAKE(device, "the disk's device name");

	if (!rc)
		rc = TAKE(backend, "the disk's backend");
	if (!rc)
		rc = TAKE(params, "the disk's path");
	d->devid = spec->devid;
	d->read_only = spec->read_only || spec->inactive;
	d->cdrom = spec->cdrom;
	return rc;
}

int helper_vif_take(
	struct helper_vif *d, const struct hyper_vif_spec *spec, struct rv_error *e)
{
	int rc = TAKE(mac, "the interface's MAC address");

	if (!rc)
		rc = TAKE(backend, "the interface's backend");
	if (!rc)
		rc = TAKE(bridge, "the bridge's name");
	if (!rc && (spec->devid > UINT16_MAX || spec->mtu > UINT16_MAX))
		rc = rv_error_set(
			e, RV_EINVAL, "the interface's number or MTU is not possible");
	d->devid = spec->devid;
	d->mtu = spec->mtu;
	return rc;
}

static int take_texts(
	struct helper_domain *d, const struct hyper_domain_spec *spec, struct rv_error *e)
{
	int rc = TAKE(name, "the domain's name");

	if (!rc)
		rc = TAKE(kernel, "the kernel's path");
	if (!rc)
		rc = TAKE(ramdisk, "the ramdisk's path");
	if (!rc)
		rc = TAKE(cmdline, "the kernel's command line");
	if (!rc)
		rc = TAKE(bootloader, "the bootloader's path");
	if (!rc)
		rc = TAKE(platform, "the platform's keys");
	return rc;
}

int helper_domain_take(
	struct helper_domain *d, const struct hyper_domain_spec *spec, struct rv_error *e)
{
	int rc;

	memset(d, 0, sizeof *d);
	if (spec->vbd_count > HYPER_MAX_VBDS || spec->vif_count > HYPER_MAX_VIFS)
		return rv_error_set(e, RV_ELIMIT,
			"%zu disks and %zu interfaces: at most %d and %d are possible",
			spec->vbd_count, spec->vif_count, HYPER_MAX_VBDS, HYPER_MAX_VIFS);
	if (spec->cpu_policy_len > HYPER_MAX_CPU_POLICY)
		return rv_error_set(e, RV_EINVAL, "the CPU policy is too long");
	if (spec->vcpus_max < 1 || spec->vcpus_max > HYPER_MAX_VCPUS)
		return rv_error_set(e, RV_EINVAL, "%u VCPUs are not possible: 1 to %d",
			spec->vcpus_max, HYPER_MAX_VCPUS);
	rc = take_texts(d, spec, e);
	for (size_t i = 0; !rc && i < spec->vbd_count; i++)
		rc = helper_vbd_take(&d->vbds[i], &spec->vbds[i], e);
	for (size_t i = 0; !rc && i < spec->vif_count; i++)
		rc = helper_vif_take(&d->vifs[i], &spec->vifs[i], e);
	d->type = (uint32_t)spec->type;
	d->vcpus_max = spec->vcpus_max;
	d->vcpus_online = spec->vcpus_online > 0 && spec->vcpus_online < spec->vcpus_max
				  ? spec->vcpus_online
				  : spec->vcpus_max;
	d->static_max_kib = spec->static_max_kib;
	d->target_kib = spec->target_kib;
	d->populate_on_demand = spec->populate_on_demand;
	d->console = spec->console;
	d->on_poweroff = (uint32_t)spec->on_poweroff;
	d->on_reboot = (uint32_t)spec->on_reboot;
	d->on_crash = (uint32_t)spec->on_crash;
	d->cpu_policy_len = spec->cpu_policy ? spec->cpu_policy_len : 0;
	if (d->cpu_policy_len > 0)
		memcpy(d->cpu_policy, spec->cpu_policy, d->cpu_policy_len);
	d->vbd_count = spec->vbd_count;
	d->vif_count = spec->vif_count;
	return rc;
}
