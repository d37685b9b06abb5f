/* VDIs: disks made, grown and deleted. Their `intent` field is the journal. */
#include "daemon/methods.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/units.h"
#include "daemon/chore.h"
#include "daemon/daemon.h"
#include "rpc/message.h"

static void record_size(struct chore *c, struct txn *t)
{
	struct value v = value_int((int64_t)c->vdi_info.physical_utilisation);

	txn_set_int(t, c->vdi, VDI_VIRTUAL_SIZE, (int64_t)c->vdi_info.virtual_size);
	txn_set_string(t, c->vdi, VDI_INTENT, "");
	if (pool_set_live(c->daemon->pool, c->vdi, VDI_PHYSICAL_UTILISATION, &v, NULL))
		return; /* removed meanwhile */
}

static int step_vdi(
	struct chore *c, uint64_t token, enum storage_verb verb, struct rv_error *e)
{
	struct storage_call call = {.verb = verb,
		.sr = c->sr,
		.vdi = c->vdi,
		.size = c->size,
		.format = c->format};

	return chore_storage(c, token, &call, e);
}

int vdi_unused(
	const struct db *db, const struct row *vdi, bool drives, struct rv_error *e)
{
	const struct row *vm = db_next_ref(db, VM_SUSPEND_VDI, row_uuid(vdi), NULL);
	const struct row *vbd = db_next_ref(db, VBD_VDI, row_uuid(vdi), NULL);

	if (vm)
		return rv_error_set(e, RV_EBUSY,
			"VDI %s holds the memory of VM %s, which is suspended; resume "
			"it, or end it with vm-shutdown --force",
			row_name(vdi), row_name(vm));
	if (vbd && drives)
		return rv_error_set(e, RV_EBUSY,
			"VDI %s is in a drive of VM %s; destroy that VBD first",
			row_name(vdi), row_name(db_follow(db, vbd, VBD_VM)));
	return 0;
}

/* Looks again who has it: a drive may have been made before the intent was recorded;
 * afterwards none is (VBD.create). */
static int step_destroy(struct chore *c, uint64_t token, struct rv_error *e)
{
	const struct db *db = pool_db(c->daemon->pool);
	const struct row *vdi = db_row(db, CLASS_VDI, c->vdi);
	int rc = vdi ? vdi_unused(db, vdi, true, e) : 0;

	if (rc)
		return rc;
	return step_vdi(c, token, STORAGE_VDI_DESTROY, e);
}

static void remove_record(struct chore *c, struct txn *t)
{
	txn_delete(t, CLASS_VDI, c->vdi);
}

static void clear_intent(struct chore *c, struct txn *t)
{
	txn_set_string(t, c->vdi, VDI_INTENT, "");
}

/* --- VDI.create --- */

static void create_journal(struct chore *c, struct txn *t)
{
	txn_create(t, CLASS_VDI, c->vdi);
	/* The record was checked before the chore began; a field that fails now makes
	 * txn_finish fail, and with it the call. */
	for (uint32_t i = 0; i < call_record(c->call, "record")->via.map.size; i++) {
		const msgpack_object_kv *kv =
			&call_record(c->call, "record")->via.map.ptr[i];
		const struct schema_field *f =
			schema_field_by_name(schema_class(CLASS_VDI), kv->key.via.str.ptr,
				kv->key.via.str.size);
		struct value v;

		if (!f || value_unpack(&v, f->type, &kv->val, NULL))
			continue;
		txn_set_value(t, c->vdi, f->id, &v);
		value_fini(&v);
	}
	txn_expect_string(t, c->sr, SR_INTENT, "");
	txn_set_ref(t, c->vdi, VDI_SR, c->sr);
	txn_set_string(t, c->vdi, VDI_INTENT, "create");
}

static int step_create(struct chore *c, uint64_t token, struct rv_error *e)
{
	return step_vdi(c, token, STORAGE_VDI_CREATE, e);
}

static void create_record(struct chore *c, struct txn *t)
{
	record_size(c, t);
	txn_set_string(t, c->vdi, VDI_LOCATION, c->vdi_info.location);
}

static const struct chore_kind create_kind = {.name = "vdi.create",
	.journal = create_journal,
	.steps = (chore_step_fn *const[]){step_create, NULL},
	.record = create_record,
	.undo = step_destroy,
	.give_up = remove_record,
	.cancellable = true};

/* The SR that the record names, or the pool's default; must be attached here. NULL: the
 * call has been failed. */
static const struct row *create_sr(struct call *call, const msgpack_object *record)
{
	const struct db *db = pool_db(call->daemon->pool);
	const msgpack_object *o = rpc_map_get(record, "SR");
	const struct row *sr;
	struct uuid uuid = UUID_NONE;

	if (o && o->type == MSGPACK_OBJECT_STR && o->via.str.size &&
		uuid_parse(&uuid, o->via.str.ptr, o->via.str.size)) {
		call_failf(call, RV_EPARAM, "record: SR is no UUID");
		return NULL;
	}
	sr = uuid_is_none(&uuid) ? db_follow(db, db_pool(db), POOL_DEFAULT_SR)
				 : db_row(db, CLASS_SR, uuid);
	if (!sr) {
		call_failf(call, RV_ENOENT,
			uuid_is_none(&uuid)
				? "record: SR is needed, since the pool has no default SR"
				: "record: there is no such SR");
		return NULL;
	}
	if (*db_string(sr, SR_INTENT)) {
		call_failf(call, RV_EBUSY, "SR %s is busy: %s; use another", row_name(sr),
			db_string(sr, SR_INTENT));
		return NULL;
	}
	uuid = row_uuid(sr);
	if (!storage_sr_attached(call->daemon->storage, &uuid)) {
		call_failf(call, RV_ENOTATTACHED,
			"SR %s is not attached to this host; plug its PBD (`reeve "
			"pbd-list sr-uuid=…`)",
			row_name(sr));
		return NULL;
	}
	return sr;
}

/* Checks every field by building, and dropping, the transaction. */
static bool create_check(struct call *call, const msgpack_object *record)
{
	struct uuid trial = UUID_NONE;
	struct txn t;
	bool good;

	txn_init(&t, pool_db(call->daemon->pool), 0);
	txn_create(&t, CLASS_VDI, trial);
	good = call_fields_to_txn(call, &t, record, CLASS_VDI, trial, true);
	txn_fini(&t);
	return good;
}

void vdi_create(struct call *call)
{
	const msgpack_object *record = call_record(call, "record");
	const msgpack_object *size = rpc_map_get(record, "virtual_size");
	const msgpack_object *format = rpc_map_get(record, "format");
	const struct row *sr;
	struct chore *c;

	if (!create_check(call, record))
		return;
	if (!size || size->type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
		size->via.u64 == 0 || size->via.u64 > STORAGE_SIZE_LIMIT) {
		call_failf(call, RV_EPARAM,
			"record: virtual_size is needed, 1 byte to 64TiB, such as 8GiB");
		return;
	}
	sr = create_sr(call, record);
	if (!sr)
		return;
	c = chore_new(call, &create_kind);
	if (!c)
		return;
	c->sr = row_uuid(sr);
	c->self = c->vdi = uuid_random(loop_prng(call->daemon->loop));
	c->size = size->via.u64;
	c->format =
		format && format->type == MSGPACK_OBJECT_STR && format->via.str.size == 5
			? STORAGE_FORMAT_QCOW2
			: STORAGE_FORMAT_RAW;
	uuid_format(&c->vdi, c->result);
	chore_start(c);
}

/* --- VDI.destroy, VDI.resize --- */

/* A chore about a disk that nothing else is at work on. NULL: the call has been failed.
 */
static struct chore *vdi_chore(struct call *call, const struct chore_kind *kind)
{
	const struct row *vdi = call_row(call, "self");
	struct chore *c;

	if (!vdi)
		return NULL;
	if (*db_string(vdi, VDI_INTENT)) {
		call_failf(call, RV_EBUSY, "VDI %s is busy: %s; wait for that to end",
			row_name(vdi), db_string(vdi, VDI_INTENT));
		return NULL;
	}
	c = chore_new(call, kind);
	if (!c)
		return NULL;
	c->self = c->vdi = row_uuid(vdi);
	c->sr = db_ref(vdi, VDI_SR);
	return c;
}

static void destroy_journal(struct chore *c, struct txn *t)
{
	txn_expect_string(t, c->vdi, VDI_INTENT, "");
	txn_set_string(t, c->vdi, VDI_INTENT, "destroy");
}

static const struct chore_kind destroy_kind = {.name = "vdi.destroy",
	.journal = destroy_journal,
	.steps = (chore_step_fn *const[]){step_destroy, NULL},
	.record = remove_record,
	.give_up = clear_intent};

void vdi_destroy(struct call *call)
{
	const struct db *db = pool_db(call->daemon->pool);
	const struct row *vdi = call_row(call, "self");
	struct rv_error e = {0};
	struct chore *c;

	if (!vdi)
		return;
	if (vdi_unused(db, vdi, true, &e)) {
		call_fail(call, &e);
		return;
	}
	c = vdi_chore(call, &destroy_kind);
	if (c)
		chore_start(c);
}

static void resize_journal(struct chore *c, struct txn *t)
{
	char size[24];

	snprintf(size, sizeof size, "%llu", (unsigned long long)c->size);
	txn_expect_string(t, c->vdi, VDI_INTENT, "");
	txn_set_string(t, c->vdi, VDI_INTENT, "resize");
	txn_map_put(t, c->vdi, VDI_INTENT_DATA, "size", size);
}

static int step_resize(struct chore *c, uint64_t token, struct rv_error *e)
{
	return step_vdi(c, token, STORAGE_VDI_RESIZE, e);
}

static const struct chore_kind resize_kind = {.name = "vdi.resize",
	.journal = resize_journal,
	.steps = (chore_step_fn *const[]){step_resize, NULL},
	.record = record_size,
	.give_up = clear_intent};

void vdi_resize(struct call *call)
{
	const struct row *vdi = call_row(call, "self");
	int64_t size = call_int(call, "size", 0);
	struct rv_error e = {0};
	char text[16];
	struct chore *c;

	if (!vdi)
		return;
	if (vdi_unused(pool_db(call->daemon->pool), vdi, false, &e)) {
		call_fail(call, &e);
		return;
	}
	if (size < db_int(vdi, VDI_VIRTUAL_SIZE) || (uint64_t)size > STORAGE_SIZE_LIMIT) {
		call_failf(call, RV_EINVAL,
			"VDI %s: size must be from its present one (%s) to 64TiB; disks "
			"are never made smaller",
			row_name(vdi),
			units_format_bytes((uint64_t)db_int(vdi, VDI_VIRTUAL_SIZE), text,
				sizeof text));
		return;
	}
	c = vdi_chore(call, &resize_kind);
	if (!c)
		return;
	c->size = (uint64_t)size;
	chore_start(c);
}

/* --- after a crash --- */

struct chore *vdi_chore_again(struct daemon *d, const struct row *vdi)
{
	const char *intent = db_string(vdi, VDI_INTENT);
	const char *size = db_map_get(vdi, VDI_INTENT_DATA, "size");
	const struct chore_kind *kind = strcmp(intent, "create") == 0	 ? &create_kind
					: strcmp(intent, "destroy") == 0 ? &destroy_kind
									 : &resize_kind;
	struct chore *c = chore_new_own(d, kind, NULL, NULL);

	if (!c)
		return NULL;
	c->self = c->vdi = row_uuid(vdi);
	c->sr = db_ref(vdi, VDI_SR);
	c->size = kind == &resize_kind && size ? strtoull(size, NULL, 10)
					       : (uint64_t)db_int(vdi, VDI_VIRTUAL_SIZE);
	c->format = db_enum(vdi, VDI_FORMAT) == VDI_FORMAT_QCOW2 ? STORAGE_FORMAT_QCOW2
								 : STORAGE_FORMAT_RAW;
	if (kind == &create_kind)
		uuid_format(&c->vdi, c->result);
	return c;
}
