/*
 * An imitation of Xen and of reeve-xen-helper for the real driver, over a real xenstored:
 * domains are entries in a table, their guests do in a tick what xenstore asks of them.
 * It outlives the driver, as guests do.
 */
#ifndef REEVE_TESTS_XENSTORED_IMITATION_H
#define REEVE_TESTS_XENSTORED_IMITATION_H

#include "xen/real/driver.h"

struct xs_handle;

enum {
	WORLD_MAX = 64,
	WORLD_EXTRA_KIB = 36, /* special pages of a PVH guest, as real ones have */
	WORLD_TICK_MS = 5,
	WORLD_CHUNKS = 40, /* of a saved guest's stream, a round */
	WORLD_CHUNK = 4096,
};

struct world_domain {
	bool used, introduced;
	struct xen_dominfo info;
	struct uuid vm;
	uint32_t pauses;
	uint64_t static_max_kib, overhead_kib;
	int64_t boots_at_us; /* 0: never ran */
	bool deaf, wild;     /* ignores suspend; writes its nodes without end */
};

struct world {
	struct loop *loop;
	struct xs_handle *xs; /* libxenstore: what xl and guests would use */
	uint64_t total_kib, dom0_kib;
	uint32_t next_domid;
	struct world_domain domains[WORLD_MAX];
	struct timer tick;
	bool frozen; /* xenstored is stopped: guests run, nobody may ask it */
	uint32_t jobs_started, jobs_alive;
	/* Of the next create: the helper dies half-way; its clean-up fails so often. */
	bool crash_next;
	uint32_t undo_failures;
};

int world_init(struct world *w, struct loop *l);
void world_fini(struct world *w);
/* A driver on it. */
int world_driver(struct world *w, struct hyper **out, struct rv_error *e);

struct world_domain *world_find(struct world *w, const struct uuid *vm);
void world_end(struct world *w, struct world_domain *d, enum hyper_reason reason);
/* As `xl destroy`, and `xl create` of a finished, running guest. */
void world_destroy(struct world *w, struct world_domain *d);
struct world_domain *world_ghost(struct world *w, const char *name, uint64_t kib);
/* As `xl create` has it half-way: not yet known to xenstored. */
struct world_domain *world_half_ghost(struct world *w);
/* Has xenstored fire @releaseDomain, as its virq does on every death. */
void world_poke(struct world *w);
bool world_write(struct world *w, const char *path, const char *value);
/* The value, or "" (none). */
void world_read(struct world *w, const char *path, char *value, size_t size);

#endif
