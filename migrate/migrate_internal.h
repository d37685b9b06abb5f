/* What the files of migrate/ share: the daemon's part of all migrations. */
#ifndef REEVE_MIGRATE_MIGRATE_INTERNAL_H
#define REEVE_MIGRATE_MIGRATE_INTERNAL_H

#include "migrate/handover.h"
#include "migrate/journal.h"
#include "migrate/migrate.h"
#include "migrate/wire.h"
#include "vm/vm_op.h"

enum {
	MIGRATE_DIAL_MS = 15 * 1000,
	/* The target may have to squeeze others first (vm_build's own patience). */
	MIGRATE_PREPARE_MS = 90 * 1000,
	MIGRATE_STALL_MS = 60 * 1000, /* without a byte of memory moved */
	MIGRATE_CLOSE_MS = 60 * 1000, /* for disks to be drained */
	MIGRATE_READY_MS = 30 * 1000, /* from FINAL to the hand-over */
	MIGRATE_RETRY_MS = 500,
	MIGRATE_RETRIES = 20,
	MIGRATE_HELLO_MS = 10 * 1000, /* from a connection to its PREPARE */
	MIGRATE_SEQ_MS = 30 * 1000,   /* for the database to be as new as the source's */
	/* After that: until a host that has just started, or joined, is ready. The source
	 * waits for both, and for the memory: MIGRATE_PREPARE_MS. */
	MIGRATE_READY_AT_MS = 30 * 1000,
	MIGRATE_READY_LOOK_MS = 50,
};

struct migrate {
	struct migrate_config config;
	struct loop *loop;
	struct pool *pool;
	struct vm_manager *vms;
	struct vm_host *host; /* of config.self */
	struct list incoming; /* struct incoming */
	size_t incoming_count;
	struct list ops;     /* struct migrate_watch of each operation */
	struct list closing; /* struct wire */
	struct pool_subscriber subscriber;
	struct handover handover;
	/* settle.c */
	struct timer look, answer;
	struct hyper_req list_req, destroy_req;
	struct settle_stale *stale; /* domains to be destroyed; owned */
	size_t stale_count;
	bool looking, begun, stopped;
};

/* An operation that is to look again whenever the database changes. */
struct migrate_watch {
	struct list node;
	struct op *op;
};

void migrate_watch_add(struct migrate *m, struct migrate_watch *w, struct op *op);
void migrate_watch_remove(struct migrate_watch *w); /* harmless on a zeroed one */

/* Of a VM's devices those of one kind, for vm_devices_up and _down. */
int migrate_load_devices(struct vm_devices *d, const struct db *db, const struct row *vm,
	enum vm_device_kind kind, struct rv_error *e) RV_MUST_CHECK;

/* The calls that say for sure that nothing was changed (hyper.h). */
bool migrate_is_refusal(int rc);

/* settle.c: looks at what a former daemon left; soon. */
int settle_init(struct migrate *m) RV_MUST_CHECK;
void settle_soon(struct migrate *m);
void settle_stop(struct migrate *m);

/* target.c: a message or the end of a connection that has not said what it is. */
void incoming_free_all(struct migrate *m);

#endif
