/*
 * Copies of what a caller lent for the call alone: specs with all their texts, kept until
 * the helper starts. Checks what needs no look at the host.
 */
#ifndef REEVE_XEN_REAL_STAGED_H
#define REEVE_XEN_REAL_STAGED_H

#include "xen/hyper.h"

struct real_staged {
	struct hyper_domain_spec spec; /* create, restore */
	struct hyper_vbd_spec vbd;     /* attach */
	struct hyper_vif_spec vif;
	const char *file; /* save, restore: the path in sink or source, or NULL */
	void *memory;	  /* everything the above points to; owned */
};

/* Takes what req->call needs. RV_EINVAL in the caller's words, RV_ENOMEM. */
int real_stage(struct real_staged *s, const struct hyper_req *req,
	struct rv_error *e) RV_MUST_CHECK;
void real_staged_fini(struct real_staged *s); /* idempotent; of a zeroed one too */

#endif
