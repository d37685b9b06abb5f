/*
 * Claims on disks (storage/storage.h) that nobody holds any more, and that would stay in
 * their SR for ever: of a drive whose record was destroyed before it could be released,
 * of a daemon that died with its disk, of a host that is gone for good.
 *
 * Each host goes through the claims of its SRs, one SR after the other: when the SR has
 * just been attached, after an operation that failed, and now and then. Its own claims it
 * releases where the database says that the VM has nothing here; those of hosts that were
 * declared dead, fenced or ejected are released by the first host that has the SR. What
 * the VM's record still calls attached is not touched: that is tried again by vm_look.c.
 *
 * Nothing is released at first sight: only what is still so at the next look at the host,
 * with no domain of the VM there and no operation on it at work; another host's claim
 * behind a barrier, too, since this host's database may be old (a host that it calls dead
 * may be back and run the VM). For vm/'s own files.
 */
#ifndef REEVE_VM_VM_CLAIMS_H
#define REEVE_VM_VM_CLAIMS_H

#include "pool/pool.h"
#include "vm/vm_request.h"

struct vm_host;

enum vm_claim_fate {
	VM_CLAIM_KEPT,
	VM_CLAIM_UNSURE, /* an operation is at work: to be looked at again soon */
	VM_CLAIM_STALE,
};

/* What the database says of it. Pure. `here`: the host that asks; `first`: of those that
 * have the SR it is the one to clear away what others have left. */
enum vm_claim_fate vm_claim_decide(const struct db *db, struct uuid here, bool first,
	const struct storage_claim *claim);

struct vm_claims_sr {
	struct uuid sr;
	unsigned due; /* looks until its claims are gone through */
	bool there;
};

struct vm_claims_suspect {
	struct uuid sr;
	struct storage_claim claim;
	bool doomed; /* seen twice */
};

/* Zeroed, then vm_claims_init. */
struct vm_claims {
	struct vm_request request;
	struct vm_claims_sr *srs; /* owned, as are suspects */
	size_t sr_count;
	struct uuid listing;	      /* the SR whose claims were asked for */
	struct storage_claim *listed; /* owned; judged up to: */
	size_t listed_count, judged;
	struct defer slice;
	struct vm_claims_suspect *suspects;
	size_t suspect_count;
	struct vm_claims_suspect next; /* another host's, behind the barrier */
	struct pool_barrier barrier;
	bool busy;
};

void vm_claims_init(struct vm_host *h);
/* At the end of each look; `listed` has the host's domains. */
void vm_claims_look(struct vm_host *h, const struct hyper_req *listed);
/* Something went wrong: claims may have been left. */
void vm_claims_due(struct vm_host *h);
void vm_claims_stop(struct vm_host *h);
void vm_claims_fini(struct vm_host *h);

#endif
