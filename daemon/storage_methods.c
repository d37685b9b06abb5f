/* SRs, PBDs and VDIs: what to journal, ask of the storage port, and record. */
#include "daemon/methods.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/chore.h"
#include "daemon/daemon.h"
#include "rpc/message.h"

/* --- finding --- */

/* The PBD by which this host reaches an SR; NULL: there is none. */
static const struct row *pbd_here(struct daemon *d, struct uuid sr)
{
	const struct db *db = pool_db(d->pool);

	for (const struct row *pbd = db_next_ref(db, PBD_SR, sr, NULL); pbd;
		pbd = db_next_ref(db, PBD_SR, sr, pbd)) {
		struct uuid host = db_ref(pbd, PBD_HOST);

		if (uuid_eq(&host, &d->host))
			return pbd;
	}
	return NULL;
}

/* A PBD's device_config as the port takes it. */
static size_t device_config(const struct row *pbd, struct storage_config *config)
{
	const struct value *map = row_value(pbd, PBD_DEVICE_CONFIG);
	size_t count = value_count(map) < STORAGE_MAX_CONFIG ? value_count(map)
							     : STORAGE_MAX_CONFIG;

	for (size_t i = 0; i < count; i++)
		config[i] =
			(struct storage_config){value_key_at(map, i), value_at(map, i)};
	return count;
}

static int step_sr_with_config(
	struct chore *c, uint64_t token, enum storage_verb verb, struct rv_error *e)
{
	const struct db *db = pool_db(c->daemon->pool);
	const struct row *sr = db_row(db, CLASS_SR, c->sr),
			 *pbd = db_row(db, CLASS_PBD, c->pbd);
	struct storage_config config[STORAGE_MAX_CONFIG];
	struct storage_call call = {.verb = verb, .sr = c->sr, .config = config};

	if (!sr || !pbd)
		return rv_error_set(
			e, RV_ENOENT, "the SR or its PBD has been removed meanwhile");
	call.type = db_string(sr, SR_TYPE);
	call.config_count = device_config(pbd, config);
	return chore_storage(c, token, &call, e);
}

static int step_sr(
	struct chore *c, uint64_t token, enum storage_verb verb, struct rv_error *e)
{
	struct storage_call call = {.verb = verb, .sr = c->sr};

	return chore_storage(c, token, &call, e);
}

static int step_attach(struct chore *c, uint64_t token, struct rv_error *e)
{
	return step_sr_with_config(c, token, STORAGE_SR_ATTACH, e);
}

static int step_detach(struct chore *c, uint64_t token, struct rv_error *e)
{
	if (!storage_sr_attached(c->daemon->storage, &c->sr)) {
		chore_answer(c, token, 0, NULL);
		return 0;
	}
	return step_sr(c, token, STORAGE_SR_DETACH, e);
}

/* --- what an SR's figures become --- */

static void live_int(
	struct daemon *d, struct uuid uuid, enum schema_field_id field, uint64_t n)
{
	struct value v = value_int((int64_t)n);
	int rc = pool_set_live(d->pool, uuid, field, &v, NULL);

	(void)rc; /* the object may have been removed meanwhile */
}

static void record_attached(struct chore *c, struct txn *t)
{
	struct value none = {0};

	txn_set_bool(t, c->pbd, PBD_CURRENTLY_ATTACHED, true);
	txn_set_bool(t, c->pbd, PBD_WANTED, true);
	live_int(c->daemon, c->sr, SR_PHYSICAL_SIZE, c->sr_info.physical_size);
	live_int(c->daemon, c->sr, SR_PHYSICAL_UTILISATION,
		c->sr_info.physical_utilisation);
	if (!value_from_cstr(&none, "") &&
		pool_set_live(c->daemon->pool, c->pbd, PBD_LAST_ERROR, &none, NULL))
		return; /* removed meanwhile */
	value_fini(&none);
}

/* --- SR.create --- */

static void sr_create_journal(struct chore *c, struct txn *t)
{
	const struct value *config = call_arg(c->call, "device_config");
	const struct value *sm_config = call_arg(c->call, "sm_config");

	txn_expect_name_free(t, CLASS_SR, call_text(c->call, "name_label"));
	txn_create(t, CLASS_SR, c->sr);
	txn_set_string(t, c->sr, SR_NAME_LABEL, call_text(c->call, "name_label"));
	txn_set_string(
		t, c->sr, SR_NAME_DESCRIPTION, call_text(c->call, "name_description"));
	txn_set_string(t, c->sr, SR_TYPE, call_text(c->call, "type"));
	if (call_arg(c->call, "content_type"))
		txn_set_string(
			t, c->sr, SR_CONTENT_TYPE, call_text(c->call, "content_type"));
	txn_set_bool(t, c->sr, SR_SHARED, call_bool(c->call, "shared", false));
	if (sm_config)
		txn_set_value(t, c->sr, SR_SM_CONFIG, sm_config);
	txn_create(t, CLASS_PBD, c->pbd);
	txn_set_ref(t, c->pbd, PBD_HOST, c->host);
	txn_set_ref(t, c->pbd, PBD_SR, c->sr);
	if (config)
		txn_set_value(t, c->pbd, PBD_DEVICE_CONFIG, config);
}

static int step_sr_make(struct chore *c, uint64_t token, struct rv_error *e)
{
	return step_sr_with_config(c, token, STORAGE_SR_CREATE, e);
}

/* The first SR becomes the pool's default: a disk then needs no more than a size. */
static void sr_create_record(struct chore *c, struct txn *t)
{
	const struct row *pool = db_pool(pool_db(c->daemon->pool));

	record_attached(c, t);
	if (!db_follow(pool_db(c->daemon->pool), pool, POOL_DEFAULT_SR))
		txn_set_ref(t, row_uuid(pool), POOL_DEFAULT_SR, c->sr);
}

static void sr_remove_records(struct chore *c, struct txn *t)
{
	const struct db *db = pool_db(c->daemon->pool);

	for (const struct row *pbd = db_next_ref(db, PBD_SR, c->sr, NULL); pbd;
		pbd = db_next_ref(db, PBD_SR, c->sr, pbd))
		txn_delete(t, CLASS_PBD, row_uuid(pbd));
	for (const struct row *vdi = db_next_ref(db, VDI_SR, c->sr, NULL); vdi;
		vdi = db_next_ref(db, VDI_SR, c->sr, vdi))
		txn_delete(t, CLASS_VDI, row_uuid(vdi));
	txn_delete(t, CLASS_SR, c->sr);
}

static const struct chore_kind sr_create_kind = {.name = "sr.create",
	.journal = sr_create_journal,
	.steps = (chore_step_fn *const[]){step_sr_make, step_attach, NULL},
	.record = sr_create_record,
	.undo = step_detach,
	.give_up = sr_remove_records,
	.cancellable = true};

/* Whether there is such a kind of SR; false: the call has been failed. */
static bool sr_type(struct call *call)
{
	if (storage_type_find(call->daemon->storage, call_text(call, "type")))
		return true;
	call_failf(call, RV_EPARAM, "type: there is no kind of SR '%s'; there is: file",
		call_text(call, "type"));
	return false;
}

void sr_create(struct call *call)
{
	struct uuid host = call_ref(call, "host");
	struct rv_error e = {0};
	struct chore *c;

	if (!sr_type(call))
		return;
	if (call_name_check(CLASS_SR, call_text(call, "name_label"), &e)) {
		call_fail(call, &e);
		return;
	}
	if (!uuid_is_none(&host) && !call_row(call, "host"))
		return;
	c = chore_new(call, &sr_create_kind);
	if (!c)
		return;
	c->host = uuid_is_none(&host) ? call->daemon->host : host;
	c->self = c->sr = uuid_random(loop_prng(call->daemon->loop));
	c->pbd = uuid_random(loop_prng(call->daemon->loop));
	uuid_format(&c->sr, c->result);
	chore_start(c);
}

/* Takes in an SR that is there already, such as one that was forgotten: its record only.
 * A PBD then tells where a host finds it. */
void sr_introduce(struct call *c)
{
	const char *text = call_text(c, "uuid"), *name = call_text(c, "name_label");
	const struct db *db = pool_db(c->daemon->pool);
	struct rv_error e = {0};
	struct uuid sr;
	struct txn t;

	if (uuid_parse(&sr, text, strlen(text)) || uuid_is_none(&sr)) {
		call_failf(c, RV_EPARAM,
			"uuid: '%.64s' is no UUID; give the SR's own, as the directory "
			"or its former record has it",
			text);
		return;
	}
	if (db_row(db, CLASS_SR, sr)) {
		call_failf(c, RV_EEXIST,
			"SR %s is in the pool already, as %s; create and plug a PBD for "
			"a host to reach it",
			text, row_name(db_row(db, CLASS_SR, sr)));
		return;
	}
	if (!sr_type(c))
		return;
	if (call_name_check(CLASS_SR, name, &e)) {
		call_fail(c, &e);
		return;
	}
	txn_init(&t, db, loop_wall_ms(c->daemon->loop));
	txn_expect_absent(&t, CLASS_SR, sr);
	txn_expect_name_free(&t, CLASS_SR, name);
	txn_create(&t, CLASS_SR, sr);
	txn_set_string(&t, sr, SR_NAME_LABEL, name);
	txn_set_string(&t, sr, SR_NAME_DESCRIPTION, call_text(c, "name_description"));
	txn_set_string(&t, sr, SR_TYPE, call_text(c, "type"));
	txn_set_bool(&t, sr, SR_SHARED, call_bool(c, "shared", false));
	call_commit(c, &t, value_ref(sr), sr);
}

struct chore *sr_create_again(
	struct daemon *d, const struct row *sr, const struct row *pbd)
{
	struct chore *c = chore_new_own(d, &sr_create_kind, NULL, NULL);

	if (!c)
		return NULL;
	c->host = d->host;
	c->self = c->sr = row_uuid(sr);
	c->pbd = row_uuid(pbd);
	uuid_format(&c->sr, c->result);
	return c;
}

/* --- SR.destroy, SR.forget, SR.scan --- */

/* A chore about an SR that this host reaches. NULL: the call has been failed. */
static struct chore *sr_chore(
	struct call *call, const struct chore_kind *kind, bool plugged)
{
	const struct row *sr = call_row(call, "self"), *pbd;
	struct chore *c;

	if (!sr)
		return NULL;
	if (*db_string(sr, SR_INTENT)) {
		call_failf(call, RV_EBUSY, "SR %s is busy: %s; wait for that to end",
			row_name(sr), db_string(sr, SR_INTENT));
		return NULL;
	}
	pbd = pbd_here(call->daemon, row_uuid(sr));
	if (plugged && (!pbd || !db_bool(pbd, PBD_CURRENTLY_ATTACHED))) {
		call_failf(call, RV_ENOTATTACHED,
			"SR %s is not attached to this host: %s", row_name(sr),
			pbd ? "plug its PBD" : "create and plug a PBD");
		return NULL;
	}
	c = chore_new(call, kind);
	if (!c)
		return NULL;
	c->self = c->sr = row_uuid(sr);
	c->pbd = pbd ? row_uuid(pbd) : UUID_NONE;
	return c;
}

/* Refuses while a VM has a disk of the SR in a drive, or its memory there, naming one. */
static bool sr_is_unused(struct call *call, const struct row *sr)
{
	const struct db *db = pool_db(call->daemon->pool);

	for (const struct row *vdi = db_next_ref(db, VDI_SR, row_uuid(sr), NULL); vdi;
		vdi = db_next_ref(db, VDI_SR, row_uuid(sr), vdi)) {
		struct rv_error e = {0};

		if (!vdi_unused(db, vdi, true, &e))
			continue;
		rv_error_prefix(&e, "SR %s", row_name(sr));
		call_fail(call, &e);
		return false;
	}
	return true;
}

/*
 * SR.destroy: the intent in the SR keeps new disks away and survives a crash. The disks
 * go one by one, then the SR's marker, then all records in one entry.
 */

/* What a former daemon did to an SR that is not attached now is told by a probe. */
static bool destroy_must_probe(const struct chore *c)
{
	return c->again && !storage_sr_attached(c->daemon->storage, &c->sr);
}

static void sr_destroy_journal(struct chore *c, struct txn *t)
{
	txn_expect_string(t, c->sr, SR_INTENT, "");
	txn_set_string(t, c->sr, SR_INTENT, "destroy");
}

/* Empties the SR, one VDI a time, then goes on with the next step. */
static int step_vdis_destroy(struct chore *c, uint64_t token, struct rv_error *e)
{
	const struct db *db = pool_db(c->daemon->pool);
	const struct row *vdi = db_next_ref(db, VDI_SR, c->sr, NULL);
	struct storage_call call = {.verb = STORAGE_VDI_DESTROY, .sr = c->sr};
	size_t i = 0;

	for (; vdi && i < c->vdi_count; i++)
		vdi = db_next_ref(db, VDI_SR, c->sr, vdi);
	if (!vdi || destroy_must_probe(c)) {
		chore_answer(c, token, 0, NULL);
		return 0;
	}
	if (vdi_unused(db, vdi, true, e)) /* since the call came */
		return e->code;
	c->vdi_count++;
	c->step--; /* this step again, for the next one */
	call.vdi = row_uuid(vdi);
	return chore_storage(c, token, &call, e);
}

static int step_sr_unmake(struct chore *c, uint64_t token, struct rv_error *e)
{
	if (destroy_must_probe(c))
		return step_sr_with_config(c, token, STORAGE_SR_PROBE, e);
	return step_sr(c, token, STORAGE_SR_DESTROY, e);
}

static int step_sr_is_gone(struct chore *c, uint64_t token, struct rv_error *e)
{
	if (c->probe_is_sr)
		return rv_error_set(e, RV_ENOTATTACHED,
			"it is not attached to this host, and has not been destroyed: "
			"plug its PBD, then destroy it again");
	chore_answer(c, token, 0, NULL);
	return 0;
}

/* The disks that are gone go from the database too; the rest can be used again. */
static void sr_destroy_give_up(struct chore *c, struct txn *t)
{
	const struct db *db = pool_db(c->daemon->pool);
	/* In the first step the last one was answered with a failure. */
	size_t gone = c->step == 0 && c->vdi_count ? c->vdi_count - 1 : c->vdi_count;
	const struct row *vdi = NULL;

	for (size_t i = 0; i < gone && (vdi = db_next_ref(db, VDI_SR, c->sr, vdi)); i++)
		txn_delete(t, CLASS_VDI, row_uuid(vdi));
	if (db_row(db, CLASS_SR, c->sr))
		txn_set_string(t, c->sr, SR_INTENT, "");
}

static const struct chore_kind sr_destroy_kind = {.name = "sr.destroy",
	.journal = sr_destroy_journal,
	.steps = (chore_step_fn *const[]){step_vdis_destroy, step_sr_unmake,
		step_sr_is_gone, NULL},
	.record = sr_remove_records,
	.give_up = sr_destroy_give_up};

struct chore *sr_destroy_again(
	struct daemon *d, const struct row *sr, const struct row *pbd)
{
	struct chore *c = chore_new_own(d, &sr_destroy_kind, NULL, NULL);

	if (!c)
		return NULL;
	c->again = true;
	c->host = d->host;
	c->self = c->sr = row_uuid(sr);
	c->pbd = row_uuid(pbd);
	return c;
}

void sr_destroy(struct call *call)
{
	const struct row *sr = call_row(call, "self");
	struct chore *c;

	if (!sr || !sr_is_unused(call, sr))
		return;
	c = sr_chore(call, &sr_destroy_kind, true);
	if (c)
		chore_start(c);
}

static const struct chore_kind sr_forget_kind = {.name = "sr.forget",
	.steps = (chore_step_fn *const[]){step_detach, NULL},
	.record = sr_remove_records};

void sr_forget(struct call *call)
{
	const struct row *sr = call_row(call, "self");
	struct chore *c;

	if (!sr || !sr_is_unused(call, sr))
		return;
	c = sr_chore(call, &sr_forget_kind, false);
	if (c)
		chore_start(c);
}

static int step_scan(struct chore *c, uint64_t token, struct rv_error *e)
{
	return step_sr(c, token, STORAGE_SR_SCAN, e);
}

static const struct storage_vdi_info *scan_find(const struct chore *c, struct uuid vdi)
{
	for (size_t i = 0; i < c->vdi_count; i++)
		if (uuid_eq(&c->vdis[i].uuid, &vdi))
			return &c->vdis[i];
	return NULL;
}

static void scan_add(struct txn *t, struct uuid sr, const struct storage_vdi_info *info)
{
	txn_create(t, CLASS_VDI, info->uuid);
	txn_set_string(t, info->uuid, VDI_NAME_LABEL, info->location);
	txn_set_ref(t, info->uuid, VDI_SR, sr);
	txn_set_int(t, info->uuid, VDI_VIRTUAL_SIZE, (int64_t)info->virtual_size);
	txn_set_enum(t, info->uuid, VDI_FORMAT,
		info->format == STORAGE_FORMAT_QCOW2 ? VDI_FORMAT_QCOW2 : VDI_FORMAT_RAW);
	txn_set_string(t, info->uuid, VDI_LOCATION, info->location);
}

/* Adds what the database does not know, marks what is gone, corrects sizes. */
static void scan_record(struct chore *c, struct txn *t)
{
	const struct db *db = pool_db(c->daemon->pool);

	for (size_t i = 0; i < c->vdi_count; i++) {
		const struct storage_vdi_info *info = &c->vdis[i];

		if (!db_row(db, CLASS_VDI, info->uuid))
			scan_add(t, c->sr, info);
	}
	for (const struct row *vdi = db_next_ref(db, VDI_SR, c->sr, NULL); vdi;
		vdi = db_next_ref(db, VDI_SR, c->sr, vdi)) {
		const struct storage_vdi_info *info = scan_find(c, row_uuid(vdi));

		if (db_bool(vdi, VDI_MISSING) != !info)
			txn_set_bool(t, row_uuid(vdi), VDI_MISSING, !info);
		if (!info)
			continue;
		if ((uint64_t)db_int(vdi, VDI_VIRTUAL_SIZE) != info->virtual_size)
			txn_set_int(t, row_uuid(vdi), VDI_VIRTUAL_SIZE,
				(int64_t)info->virtual_size);
		live_int(c->daemon, row_uuid(vdi), VDI_PHYSICAL_UTILISATION,
			info->physical_utilisation);
	}
	live_int(c->daemon, c->sr, SR_PHYSICAL_SIZE, c->sr_info.physical_size);
	live_int(c->daemon, c->sr, SR_PHYSICAL_UTILISATION,
		c->sr_info.physical_utilisation);
}

static const struct chore_kind sr_scan_kind = {.name = "sr.scan",
	.steps = (chore_step_fn *const[]){step_scan, NULL},
	.record = scan_record,
	.cancellable = true};

void sr_scan(struct call *call)
{
	struct chore *c = sr_chore(call, &sr_scan_kind, true);

	if (c)
		chore_start(c);
}

/* --- PBD.plug, PBD.unplug --- */

static void pbd_want(struct chore *c, struct txn *t)
{
	txn_set_bool(t, c->pbd, PBD_WANTED, true);
}

static void pbd_unwant(struct chore *c, struct txn *t)
{
	txn_set_bool(t, c->pbd, PBD_WANTED, false);
}

static void record_detached(struct chore *c, struct txn *t)
{
	txn_set_bool(t, c->pbd, PBD_CURRENTLY_ATTACHED, false);
}

/* Not plugged, and why. It stays wanted: attach.c tries again. */
static void record_not_attached(struct chore *c, struct txn *t)
{
	const struct row *pbd = db_row(pool_db(c->daemon->pool), CLASS_PBD, c->pbd);
	struct value why = {0};

	if (pbd && strcmp(db_string(pbd, PBD_LAST_ERROR), c->op.error.detail) != 0)
		log_warn("pbd.plug", "pbd=%s msg=\"%s\" next=\"tried again by itself\"",
			row_name(pbd), c->op.error.detail);
	if (pbd && db_bool(pbd, PBD_CURRENTLY_ATTACHED)) /* no entry each time */
		record_detached(c, t);
	if (value_from_cstr(&why, c->op.error.detail))
		return;
	if (pool_set_live(c->daemon->pool, c->pbd, PBD_LAST_ERROR, &why, NULL))
		log_debug("pbd.plug", "msg=\"removed meanwhile\"");
	value_fini(&why);
}

static const struct chore_kind pbd_plug_kind = {.name = "pbd.plug",
	.journal = pbd_want,
	.steps = (chore_step_fn *const[]){step_attach, NULL},
	.record = record_attached,
	.give_up = record_not_attached,
	.cancellable = true};

static const struct chore_kind pbd_unplug_kind = {.name = "pbd.unplug",
	.journal = pbd_unwant,
	.steps = (chore_step_fn *const[]){step_detach, NULL},
	.record = record_detached,
	.give_up = pbd_want};

static void pbd_chore(struct call *call, const struct chore_kind *kind)
{
	const struct row *pbd = call_row(call, "self");
	struct uuid host;
	struct chore *c;

	if (!pbd)
		return;
	host = db_ref(pbd, PBD_HOST);
	if (!uuid_eq(&host, &call->daemon->host)) {
		call_failf(
			call, RV_ENOTALLOWED, "PBD %s is of another host", row_name(pbd));
		return;
	}
	c = chore_new(call, kind);
	if (!c)
		return;
	c->self = c->pbd = row_uuid(pbd);
	c->sr = db_ref(pbd, PBD_SR);
	chore_start(c);
}

void pbd_plug(struct call *call)
{
	pbd_chore(call, &pbd_plug_kind);
}

/* Refuses while a VM with a domain has a disk of the SR. What a halted VM's drive still
 * holds there, the port knows better than its record. */
void pbd_unplug(struct call *call)
{
	const struct db *db = pool_db(call->daemon->pool);
	const struct row *pbd = call_row(call, "self");

	if (!pbd)
		return;
	for (const struct row *vdi = db_next_ref(db, VDI_SR, db_ref(pbd, PBD_SR), NULL);
		vdi; vdi = db_next_ref(db, VDI_SR, db_ref(pbd, PBD_SR), vdi)) {
		for (const struct row *vbd =
				db_next_ref(db, VBD_VDI, row_uuid(vdi), NULL);
			vbd; vbd = db_next_ref(db, VBD_VDI, row_uuid(vdi), vbd)) {
			if (!db_bool(vbd, VBD_CURRENTLY_ATTACHED) ||
				db_enum(db_follow(db, vbd, VBD_VM), VM_POWER_STATE) ==
					VM_POWER_STATE_HALTED)
				continue;
			call_failf(call, RV_EBUSY,
				"PBD %s: VM %s uses VDI %s of it; shut the VM down first",
				row_name(pbd), row_name(db_follow(db, vbd, VBD_VM)),
				row_name(vdi));
			return;
		}
	}
	pbd_chore(call, &pbd_unplug_kind);
}

/* For attach.c: the same plug, asked for by nobody. */
struct chore *pbd_plug_chore(
	struct daemon *d, const struct row *pbd, timer_fn *after, void *arg)
{
	struct chore *c = chore_new_own(d, &pbd_plug_kind, after, arg);

	if (!c)
		return NULL;
	c->self = c->pbd = row_uuid(pbd);
	c->sr = db_ref(pbd, PBD_SR);
	return c;
}
