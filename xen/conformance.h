/*
 * The conformance suite of hypervisor drivers: what hyper.h promises, tried out. Written
 * against struct hyper alone and run on every driver: the simulated one on both loops,
 * the real one on real Xen.
 *
 * A case runs the loop until its answers are there, so it is called from outside the
 * loop. It makes its own domains and leaves none behind, whether it passes or not.
 */
#ifndef REEVE_XEN_CONFORMANCE_H
#define REEVE_XEN_CONFORMANCE_H

#include "reactor/loop.h"
#include "xen/hyper.h"

struct hyper_conformance {
	struct loop *loop;
	struct hyper *hyper;
	void *arg;
	/* Fills in a small guest that boots here: type, vcpus, memory (static_max at
	 * least 64 MiB, target may be lower), kernel, ..., what it points to borrowed for
	 * ever. The suite sets vm, handle, generation and name. */
	void (*spec)(void *arg, struct hyper_domain_spec *spec);
	int64_t boot_ms;  /* after this long it answers to requests; see booted */
	int64_t limit_ms; /* no step takes longer; a hang is a failure */
	/* So much may the hypervisor keep for good, for itself or dom0, when domains come
	 * and go: tables that grow. */
	uint64_t slack_kib;
	/* Each of these may be NULL; its cases are then skipped. */
	/* A driver anew on the same host, as after kill -9 of reeved: ends `hyper`, sets
	 * it to the new one. */
	int (*restart)(struct hyper_conformance *c, struct rv_error *e);
	/* What the guest holds in memory, as a number. */
	int (*memory_hash)(void *arg, const struct uuid *vm, uint64_t *hash);
	/* Lost or wrong pages since it was created. */
	int (*damage)(void *arg, const struct uuid *vm, uint64_t *pages);
	/* Has the guest write this many pages a second (0: none). */
	int (*dirty)(void *arg, const struct uuid *vm, uint64_t pages_per_s);
	/* Has the guest end by itself, soon. */
	int (*end_guest)(void *arg, const struct uuid *vm, enum hyper_reason reason);
	/* Does it answer to requests by now? NULL: after boot_ms it does. */
	bool (*booted)(void *arg, const struct hyper_domain_id *id);
	/* Has it ignore requests to suspend from now on. */
	int (*deafen)(void *arg, const struct uuid *vm);
};

struct hyper_conformance_case {
	const char *name;
	/* 0, RV_EUNSUPPORTED (skipped: *e says why), or a failure that *e describes. */
	int (*run)(struct hyper_conformance *c, struct rv_error *e);
};

/* All cases; a NULL name ends. */
extern const struct hyper_conformance_case hyper_conformance_cases[];

#endif
