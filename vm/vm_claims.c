/*
 *	a look at the host ─► suspects that still are: released, one by one ─╮
 *	                 ╭─────────────────────────────────────────────────────╯
 *	                 ╰─► each SR that is due: listed ─► new suspects ─► until the next
 *look
 */
#include "vm/vm_claims.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vm/vm_op.h"

enum {
	CLAIMS_LOOKS = 30,     /* so often, as vm_look.c looks at all VMs */
	CLAIMS_SOON = 2,       /* where something was at work */
	CLAIMS_SUSPECTS = 256, /* the rest: the next time */
};

/* --- deciding --- */

static bool is_uuid(struct uuid a, struct uuid b)
{
	return uuid_eq(&a, &b);
}

static bool is_at_work(const struct row *vm)
{
	struct uuid migration = db_ref(vm, VM_MIGRATION);

	return db_enum(vm, VM_INTENT) != VM_INTENT_NONE || !uuid_is_none(&migration) ||
	       value_count(row_value(vm, VM_CURRENT_OPERATIONS)) > 0;
}

/* The VM has it in a drive (one that is recorded as attached), or as its memory. */
static bool has_disk(
	const struct db *db, const struct row *vm, struct uuid vdi, bool attached)
{
	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VM, row_uuid(vm), r));)
		if (is_uuid(db_ref(r, VBD_VDI), vdi) &&
			(!attached || db_bool(r, VBD_CURRENTLY_ATTACHED)))
			return true;
	return !attached && is_uuid(db_ref(vm, VM_SUSPEND_VDI), vdi);
}

static enum vm_claim_fate decide_own(
	const struct db *db, struct uuid here, const struct storage_claim *c)
{
	const struct row *vm = db_row(db, CLASS_VM, c->holder), *left;

	if (!vm)
		return VM_CLAIM_STALE;
	if (is_at_work(vm))
		return VM_CLAIM_UNSURE;
	if (is_uuid(db_ref(vm, VM_RESIDENT_ON), here))
		return has_disk(db, vm, c->vdi, false) ? VM_CLAIM_KEPT : VM_CLAIM_STALE;
	left = vm_left_on(db, vm);
	if (left && is_uuid(row_uuid(left), here) && has_disk(db, vm, c->vdi, true))
		return VM_CLAIM_KEPT;
	return VM_CLAIM_STALE;
}

/* pool.eject took it out of the pool, where it had nothing any more. */
static bool was_ejected(const struct db *db, struct uuid host)
{
	const struct row *pool = db_pool(db);
	char text[UUID_TEXT_SIZE];

	if (!pool)
		return false;
	uuid_format(&host, text);
	for (size_t i = 0; i < value_count(row_value(pool, POOL_EJECTED)); i++)
		if (strstr(value_at(row_value(pool, POOL_EJECTED), i), text))
			return true;
	return false;
}

static enum vm_claim_fate decide_foreign(
	const struct db *db, const struct storage_claim *c)
{
	const struct row *vm = db_row(db, CLASS_VM, c->holder);
	const struct row *host = db_row(db, CLASS_HOST, c->host);
	bool gone = host ? db_bool(host, HOST_DECLARED_DEAD) : was_ejected(db, c->host);

	if (vm && is_at_work(vm))
		return VM_CLAIM_UNSURE;
	if (vm && is_uuid(db_ref(vm, VM_RESIDENT_ON), c->host))
		return VM_CLAIM_KEPT;
	if (vm && (uint64_t)db_int(vm, VM_CLAIMS_VOID) >= c->generation)
		return VM_CLAIM_STALE;
	return gone ? VM_CLAIM_STALE : VM_CLAIM_KEPT;
}

enum vm_claim_fate vm_claim_decide(const struct db *db, struct uuid here, bool first,
	const struct storage_claim *claim)
{
	if (uuid_eq(&claim->host, &here))
		return decide_own(db, here, claim);
	return first ? decide_foreign(db, claim) : VM_CLAIM_KEPT;
}

static enum vm_claim_fate decide(
	const struct vm_host *h, struct uuid sr, const struct storage_claim *c)
{
	const struct db *db = pool_db(h->mgr->pool);
	struct rv_error e;

	if (vm_op_of(h->mgr, &c->holder))
		return VM_CLAIM_UNSURE;
	/* Without a lease this database may be of long ago: a host that it calls dead may
	 * be back, and run the VM. */
	if (!uuid_eq(&c->host, &h->uuid) && vm_host_may_run(h, &e))
		return VM_CLAIM_UNSURE;
	return vm_claim_decide(db, h->uuid, vm_first_of_sr(h, db, sr), c);
}

/* --- the SRs that are attached here --- */

static struct vm_claims_sr *sr_of(struct vm_claims *k, struct uuid sr)
{
	for (size_t i = 0; i < k->sr_count; i++)
		if (uuid_eq(&k->srs[i].sr, &sr))
			return &k->srs[i];
	return NULL;
}

static void sr_seen(struct vm_claims *k, struct uuid sr)
{
	struct vm_claims_sr *known = sr_of(k, sr), *srs;

	if (known) {
		known->there = true;
		known->due -= known->due > 0;
		return;
	}
	srs = realloc(k->srs, (k->sr_count + 1) * sizeof *srs);
	if (!srs)
		return; /* the next look tries again */
	k->srs = srs;
	k->srs[k->sr_count++] = (struct vm_claims_sr){.sr = sr, .there = true};
}

static void srs_look(struct vm_host *h)
{
	const struct db *db = pool_db(h->mgr->pool);
	struct vm_claims *k = &h->claims;

	for (size_t i = 0; i < k->sr_count; i++)
		k->srs[i].there = false;
	for (const struct row *pbd = NULL;
		(pbd = db_next_ref(db, PBD_HOST, h->uuid, pbd));) {
		struct uuid sr = db_ref(pbd, PBD_SR);

		if (storage_sr_attached(h->storage, &sr))
			sr_seen(k, sr);
	}
	for (size_t i = 0; i < k->sr_count;)
		if (k->srs[i].there)
			i++;
		else
			k->srs[i] = k->srs[--k->sr_count];
}

void vm_claims_due(struct vm_host *h)
{
	for (size_t i = 0; i < h->claims.sr_count; i++)
		h->claims.srs[i].due = 0;
}

/* --- going through them --- */

static void claims_next(struct vm_host *h);

static void suspect(struct vm_host *h, struct uuid sr, const struct storage_claim *c)
{
	struct vm_claims *k = &h->claims;
	struct vm_claims_suspect *grown;

	if (k->suspect_count == CLAIMS_SUSPECTS)
		return;
	grown = realloc(k->suspects, (k->suspect_count + 1) * sizeof *grown);
	if (!grown)
		return;
	k->suspects = grown;
	grown[k->suspect_count++] = (struct vm_claims_suspect){.sr = sr, .claim = *c};
}

/* vm_request.h keeps no results: its `done` is ours, for the list alone. */
static void claims_listed(void *arg, uint64_t token, const struct storage_result *result)
{
	struct vm_host *h = arg;
	struct vm_claims *k = &h->claims;
	struct vm_claims_sr *sr = sr_of(k, k->listing);

	(void)token;
	if (h->mgr->stopped)
		return;
	if (sr && sr->due > 0) /* 0: asked for anew meanwhile */
		sr->due = result->rc ? CLAIMS_SOON : CLAIMS_LOOKS;
	if (result->rc)
		log_debug("vm.claims", "rc=%s msg=\"%s\"", rv_error_symbol(result->rc),
			result->error.detail);
	for (size_t i = 0; i < result->claim_count; i++) {
		enum vm_claim_fate fate = decide(h, k->listing, &result->claims[i]);

		if (fate == VM_CLAIM_STALE)
			suspect(h, k->listing, &result->claims[i]);
		if (fate != VM_CLAIM_KEPT && sr && sr->due > 0)
			sr->due = CLAIMS_SOON;
	}
	claims_next(h);
}

static bool list_next(struct vm_host *h)
{
	struct vm_claims *k = &h->claims;
	struct storage_call call = {
		.verb = STORAGE_SR_CLAIMS, .done = claims_listed, .arg = h};
	struct rv_error e;

	for (size_t i = 0; i < k->sr_count; i++) {
		if (k->srs[i].due > 0)
			continue;
		k->srs[i].due = CLAIMS_SOON;
		call.sr = k->listing = k->srs[i].sr;
		if (storage_start(h->storage, &call, NULL, &e) == 0)
			return true;
		log_debug("vm.claims", "msg=\"%s\"", e.detail);
	}
	return false;
}

static void claim_released(void *arg, uint64_t token, int rc)
{
	struct vm_host *h = arg;

	(void)token;
	if (rc) /* listed again soon */
		log_info("vm.claims", "rc=%s msg=\"%s\"", rv_error_symbol(rc),
			h->claims.request.error.detail);
	claims_next(h);
}

static void release(struct vm_host *h, const struct vm_claims_suspect *s)
{
	struct storage_call call = {
		.verb = STORAGE_VDI_DEACTIVATE,
		.sr = s->sr,
		.vdi = s->claim.vdi,
		.holder = s->claim.holder,
		.generation = s->claim.generation,
		.claim_host = s->claim.host,
	};
	char vdi[UUID_TEXT_SIZE], vm[UUID_TEXT_SIZE], host[UUID_TEXT_SIZE];

	log_warn("vm.claims",
		"vdi=%s vm=%s host=%s generation=%llu msg=\"released: nobody holds it\"",
		uuid_format(&s->claim.vdi, vdi), uuid_format(&s->claim.holder, vm),
		uuid_format(&s->claim.host, host),
		(unsigned long long)s->claim.generation);
	vm_request_start(&h->claims.request, h->mgr->loop, h->storage, &call, 1,
		claim_released, NULL, h, 0);
}

static void claims_next(struct vm_host *h)
{
	struct vm_claims *k = &h->claims;

	k->busy = true;
	for (size_t i = 0; i < k->suspect_count; i++) {
		struct vm_claims_suspect s = k->suspects[i];

		if (!s.doomed)
			continue;
		k->suspects[i] = k->suspects[--k->suspect_count];
		/* As it is now, and not when the look began. */
		if (decide(h, s.sr, &s.claim) == VM_CLAIM_STALE) {
			release(h, &s);
			return;
		}
		i--;
	}
	k->busy = list_next(h);
}

static bool has_domain(const struct hyper_req *listed, struct uuid vm)
{
	for (size_t i = 0; i < listed->domain_count; i++)
		if (uuid_eq(&listed->domains[i].vm, &vm))
			return true;
	return false;
}

void vm_claims_look(struct vm_host *h, const struct hyper_req *listed)
{
	struct vm_claims *k = &h->claims;

	srs_look(h);
	if (k->busy)
		return;
	for (size_t i = 0; i < k->suspect_count;) {
		struct vm_claims_suspect *s = &k->suspects[i];

		s->doomed = decide(h, s->sr, &s->claim) == VM_CLAIM_STALE &&
			    !has_domain(listed, s->claim.holder);
		if (s->doomed)
			i++;
		else /* listed again, where it still is there */
			*s = k->suspects[--k->suspect_count];
	}
	claims_next(h);
}

void vm_claims_init(struct vm_host *h)
{
	h->claims = (struct vm_claims){0};
}

void vm_claims_stop(struct vm_host *h)
{
	vm_request_stop(&h->claims.request);
}

void vm_claims_fini(struct vm_host *h)
{
	free(h->claims.srs);
	free(h->claims.suspects);
}
