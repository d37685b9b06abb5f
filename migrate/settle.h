/*
 * What is to be done on this host about a VM that is, or was, being migrated and that
 * nobody here works on: a former daemon may have died in the middle. Pure.
 */
#ifndef REEVE_MIGRATE_SETTLE_H
#define REEVE_MIGRATE_SETTLE_H

#include "migrate/journal.h"

enum settle_what {
	SETTLE_NOTHING,
	SETTLE_SOURCE,	/* finish it as its source */
	SETTLE_TARGET,	/* finish it as its target */
	SETTLE_DESTROY, /* a domain that is not, and never will be, the owner's */
};

/* By the row alone, without a domain. */
enum settle_what settle_vm(const struct row *vm, const struct uuid *self);

/* A domain of this host that bears the VM's mark. One that runs is never destroyed here:
 * should it not be the owner's, the invariants say so. */
enum settle_what settle_domain(
	const struct row *vm, const struct uuid *self, const struct hyper_domain *d);

#endif
