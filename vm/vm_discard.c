#include "vm/vm_discard.h"

#include <string.h>

#include "base/log.h"
#include "vm/vm_op.h"
#include "vm/vm_told.h"

enum { DISCARD_SLICE = 512 }; /* disks in one callback */

static void discard_next(struct vm_host *h);

bool vm_first_of_sr(const struct vm_host *h, const struct db *db, struct uuid sr)
{
	for (const struct row *pbd = NULL; (pbd = db_next_ref(db, PBD_SR, sr, pbd));) {
		const struct row *host = db_follow(db, pbd, PBD_HOST);
		struct uuid uuid = host ? row_uuid(host) : UUID_NONE;

		if (host && db_bool(pbd, PBD_CURRENTLY_ATTACHED) &&
			!db_bool(host, HOST_DECLARED_DEAD))
			return uuid_eq(&uuid, &h->uuid);
	}
	return false;
}

static bool is_due(const struct vm_host *h, const struct db *db, const struct row *vdi)
{
	struct uuid sr = db_ref(vdi, VDI_SR), uuid = row_uuid(vdi);

	return strcmp(db_string(vdi, VDI_INTENT), VM_VDI_DISCARD) == 0 &&
	       !db_next_ref(db, VBD_VDI, uuid, NULL) &&
	       !db_next_ref(db, VM_SUSPEND_VDI, uuid, NULL) &&
	       storage_sr_attached(h->storage, &sr) && vm_first_of_sr(h, db, sr);
}

static void txn_gone(void *arg, const struct db *db, struct txn *t)
{
	const struct vm_host *h = arg;
	struct uuid vdi = h->discard.vdi;

	(void)db;
	txn_expect_string(t, vdi, VDI_INTENT, VM_VDI_DISCARD);
	txn_delete(t, CLASS_VDI, vdi);
}

static bool gone_holds(void *arg, const struct db *db)
{
	const struct vm_host *h = arg;

	return !db_row(db, CLASS_VDI, h->discard.vdi);
}

static void discard_recorded(void *arg, uint64_t token, int rc)
{
	struct vm_host *h = arg;
	struct vm_discard *d = &h->discard;

	(void)token;
	if (rc) {
		/* Seen again at the next look; what is deleted stays deleted. */
		log_debug("vm.discard", "rc=%s msg=\"%s\"", rv_error_symbol(rc),
			d->entry.error.detail);
		d->at = d->vdi;
	}
	discard_next(h);
}

static void discard_answered(void *arg, uint64_t token, int rc)
{
	struct vm_host *h = arg;
	struct vm_discard *d = &h->discard;

	(void)token;
	if (rc == 0) {
		vm_entry_commit(
			&d->entry, txn_gone, gone_holds, false, discard_recorded, h, 0);
		return;
	}
	log_debug("vm.discard", "rc=%s msg=\"%s\"", rv_error_symbol(rc),
		d->request.error.detail);
	if (vm_told_new(&h->mgr->told, d->vdi, d->request.error.detail))
		vm_note(h->mgr, "SUSPEND_IMAGE_LEFT", 4, UUID_NONE,
			"a disk that nobody uses any more, such as a suspend image, "
			"could "
			"not be deleted: %s. It is tried again by itself",
			d->request.error.detail);
	d->at = d->vdi;
	discard_next(h);
}

static void discard_one(struct vm_host *h, const struct row *vdi)
{
	struct vm_discard *d = &h->discard;
	struct storage_call call = {.verb = STORAGE_VDI_DESTROY,
		.sr = db_ref(vdi, VDI_SR),
		.vdi = row_uuid(vdi)};

	d->vdi = call.vdi;
	vm_request_start(&d->request, h->mgr->loop, h->storage, &call, 1,
		discard_answered, NULL, h, 0);
}

/* From where it was on. Where that disk is gone, the next look begins anew. */
static void discard_next(struct vm_host *h)
{
	const struct db *db = pool_db(h->mgr->pool);
	struct vm_discard *d = &h->discard;
	const struct row *at = db_row(db, CLASS_VDI, d->at);

	d->walking = at || uuid_is_none(&d->at);
	for (int i = 0; d->walking && i < DISCARD_SLICE; i++) {
		at = db_next(db, CLASS_VDI, at);
		if (at && is_due(h, db, at)) {
			discard_one(h, at);
			return;
		}
		d->walking = at != NULL;
		d->at = at ? row_uuid(at) : UUID_NONE;
	}
	if (d->walking)
		timer_start_us(&d->turn, 0);
}

static void discard_turn(void *arg)
{
	discard_next(arg);
}

void vm_discard_look(struct vm_host *h)
{
	if (h->discard.walking)
		return;
	h->discard.at = UUID_NONE;
	discard_next(h);
}

void vm_discard_init(struct vm_host *h)
{
	vm_entry_init(&h->discard.entry, h->mgr->loop, h->mgr->pool);
	timer_init(&h->discard.turn, h->mgr->loop, "vm.discard", discard_turn, h);
}

void vm_discard_stop(struct vm_host *h)
{
	timer_stop(&h->discard.turn);
	vm_request_stop(&h->discard.request);
	vm_entry_stop(&h->discard.entry);
}
