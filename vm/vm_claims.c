/*
 *	a look at the host ─► suspects that still are: released, one by one ─╮
 *	  ╭────────────────────────────────────────────────────────────────────╯
 *	  ╰─► each SR that is due: listed, judged in slices ─► suspects of the next look
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
	CLAIMS_SLICE = 512,    /* judged in one callback */
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

/* Which of the claims in an SR are this host's to judge. */
struct judge {
	const struct db *db;
	bool first; /* others' too */
};

static struct judge judge_of(const struct vm_host *h, struct uuid sr)
{
	struct judge j = {.db = pool_db(h->mgr->pool)};
	struct rv_error e;

	/* Without a lease no barrier would come through either. */
	j.first = vm_first_of_sr(h, j.db, sr) && vm_host_may_run(h, &e) == 0;
	return j;
}

static enum vm_claim_fate decide(
	const struct vm_host *h, const struct judge *j, const struct storage_claim *c)
{
	if (vm_op_of(h->mgr, &c->holder))
		return VM_CLAIM_UNSURE;
	return vm_claim_decide(j->db, h->uuid, j->first, c);
}

static bool is_stale(const struct vm_host *h, const struct vm_claims_suspect *s)
{
	struct judge j = judge_of(h, s->sr);

	return decide(h, &j, &s->claim) == VM_CLAIM_STALE;
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

static void judge_some(void *arg)
{
	struct vm_host *h = arg;
	struct vm_claims *k = &h->claims;
	struct vm_claims_sr *sr = sr_of(k, k->listing);
	struct judge j = judge_of(h, k->listing);

	for (int i = 0; i < CLAIMS_SLICE && k->judged < k->listed_count; i++) {
		const struct storage_claim *c = &k->listed[k->judged++];
		enum vm_claim_fate fate = decide(h, &j, c);

		if (fate == VM_CLAIM_STALE)
			suspect(h, k->listing, c);
		if (fate != VM_CLAIM_KEPT && sr && sr->due > 0)
			sr->due = CLAIMS_SOON;
	}
	if (k->judged < k->listed_count) {
		defer_start(&k->slice);
		return;
	}
	free(k->listed);
	k->listed = NULL;
	k->listed_count = k->judged = 0;
	claims_next(h);
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
	if (result->claim_count)
		k->listed = malloc(result->claim_count * sizeof *k->listed);
	if (k->listed) {
		memcpy(k->listed, result->claims,
			result->claim_count * sizeof *k->listed);
		k->listed_count = result->claim_count;
	} else if (result->claim_count && sr) {
		sr->due = CLAIMS_SOON; /* no memory now */
	}
	judge_some(h);
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

/* As it is now, and not when the look began. */
static void release_or_next(struct vm_host *h, const struct vm_claims_suspect *s)
{
	if (is_stale(h, s))
		release(h, s);
	else
		claims_next(h);
}

static void database_is_current(struct pool_barrier *b, int rc)
{
	struct vm_host *h = CONTAINER_OF(b, struct vm_host, claims.barrier);

	if (h->mgr->stopped)
		return;
	if (rc) /* listed again soon */
		claims_next(h);
	else
		release_or_next(h, &h->claims.next);
}

static void claims_next(struct vm_host *h)
{
	struct vm_claims *k = &h->claims;
	struct pool *pool = h->mgr->pool;

	k->busy = true;
	while (k->suspect_count > 0 && k->suspects[k->suspect_count - 1].doomed) {
		k->next = k->suspects[--k->suspect_count];
		if (uuid_eq(&k->next.claim.host, &h->uuid)) {
			release_or_next(h, &k->next);
			return;
		}
		if (pool_read_barrier(pool, &k->barrier, database_is_current) == 0)
			return;
	}
	k->busy = list_next(h);
}

/* A domain of the VM may still have it open: a drive whose record is gone may be left.
 * Its memory, saved before, it has not. */
static bool is_in_use(const struct vm_host *h, const struct hyper_req *listed,
	const struct storage_claim *c)
{
	const struct row *vdi = db_row(pool_db(h->mgr->pool), CLASS_VDI, c->vdi);

	if (vdi && db_enum(vdi, VDI_TYPE) == VDI_TYPE_SUSPEND)
		return false;
	for (size_t i = 0; i < listed->domain_count; i++)
		if (uuid_eq(&listed->domains[i].vm, &c->holder))
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

		s->doomed = is_stale(h, s) && !is_in_use(h, listed, &s->claim);
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
	defer_init(&h->claims.slice, h->mgr->loop, "vm.claims", judge_some, h);
}

void vm_claims_stop(struct vm_host *h)
{
	defer_stop(&h->claims.slice);
	vm_request_stop(&h->claims.request);
}

void vm_claims_fini(struct vm_host *h)
{
	free(h->claims.srs);
	free(h->claims.listed);
	free(h->claims.suspects);
}
