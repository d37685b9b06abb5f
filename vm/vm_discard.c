#include "vm/vm_discard.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vm/vm_op.h"
#include "vm/vm_told.h"

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
	struct uuid vdi = h->discard.list[h->discard.next].vdi;

	(void)db;
	txn_expect_string(t, vdi, VDI_INTENT, VM_VDI_DISCARD);
	txn_delete(t, CLASS_VDI, vdi);
}

static bool gone_holds(void *arg, const struct db *db)
{
	const struct vm_host *h = arg;

	return !db_row(db, CLASS_VDI, h->discard.list[h->discard.next].vdi);
}

static void discard_recorded(void *arg, uint64_t token, int rc)
{
	struct vm_host *h = arg;

	(void)token;
	if (rc) /* seen again at the next look; what is deleted stays deleted */
		log_debug("vm.discard", "rc=%s msg=\"%s\"", rv_error_symbol(rc),
			h->discard.entry.error.detail);
	h->discard.next++;
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
	if (vm_told_new(&h->mgr->told, d->list[d->next].vdi, d->request.error.detail))
		vm_note(h->mgr, "SUSPEND_IMAGE_LEFT", 4, UUID_NONE,
			"a disk that nobody uses any more, such as a suspend image, "
			"could "
			"not be deleted: %s. It is tried again by itself",
			d->request.error.detail);
	d->next++;
	discard_next(h);
}

static void discard_next(struct vm_host *h)
{
	const struct db *db = pool_db(h->mgr->pool);
	struct vm_discard *d = &h->discard;
	struct storage_call call = {.verb = STORAGE_VDI_DESTROY};
	const struct row *vdi = NULL;

	for (; d->next < d->count; d->next++) {
		vdi = db_row(db, CLASS_VDI, d->list[d->next].vdi);
		if (vdi && is_due(h, db, vdi))
			break;
	}
	if (d->next == d->count) {
		free(d->list);
		d->list = NULL;
		return;
	}
	call.sr = d->list[d->next].sr;
	call.vdi = d->list[d->next].vdi;
	vm_request_start(&d->request, h->mgr->loop, h->storage, &call, 1,
		discard_answered, NULL, h, 0);
}

void vm_discard_look(struct vm_host *h)
{
	const struct db *db = pool_db(h->mgr->pool);
	struct vm_discard *d = &h->discard;
	size_t count = 0;

	if (d->list)
		return;
	for (const struct row *r = NULL; (r = db_next(db, CLASS_VDI, r));)
		count += is_due(h, db, r);
	d->list = count ? calloc(count, sizeof *d->list) : NULL;
	if (!d->list)
		return; /* nothing to do; or no memory for it until a later look */
	d->count = d->next = 0;
	for (const struct row *r = NULL;
		d->count < count && (r = db_next(db, CLASS_VDI, r));)
		if (is_due(h, db, r))
			d->list[d->count++] = (struct vm_discard_disk){
				.vdi = row_uuid(r), .sr = db_ref(r, VDI_SR)};
	discard_next(h);
}

void vm_discard_init(struct vm_host *h)
{
	vm_entry_init(&h->discard.entry, h->mgr->loop, h->mgr->pool);
}

void vm_discard_stop(struct vm_host *h)
{
	vm_request_stop(&h->discard.request);
	vm_entry_stop(&h->discard.entry);
}

void vm_discard_fini(struct vm_host *h)
{
	free(h->discard.list);
}
