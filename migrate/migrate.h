/*
 * Live migration: moves a running VM to another host. One `struct migrate` per daemon,
 * beside its vm_manager; it plays the source for VMs that leave and the target for those
 * that come.
 *
 * The hand-over is one entry in the log (docs/migration.md, ARCHITECTURE section
 * "Migration: one owner, always"): nothing that the two hosts tell one another decides
 * who owns the VM, only the database does. What a daemon that died left half done is
 * found and finished by its successor on either host, see migrate_begin.
 *
 * Used by daemon/ alone:
 *
 *	migrate_new(&m, &config, &e);
 *	... vm_manager_start is ready ...
 *	migrate_begin(m);
 *	port_register(port, {PORT_ALPN_MIGRATE, on_stream});   → migrate_accept(m, stream)
 *	VM.migrate                                              → migrate_start(m, ...)
 *	task.cancel                                             → vm_op_cancel(mgr, ...)
 *
 * Progress is in the task's live fields: progress, and progress_note as "round 3, 812
 * MiB at 950 MiB/s, 20 MiB left, pause of about 140 ms". The task's result is text:
 * "downtime_ms=83 total_ms=2310 bytes=2203318272 rounds=4". The downtime is from the
 * moment that the guest was seen suspended to its unpausing; what it takes itself to come
 * to rest before, and to bring its devices up after, only it knows.
 */
#ifndef REEVE_MIGRATE_MIGRATE_H
#define REEVE_MIGRATE_MIGRATE_H

#include "migrate/frame.h"
#include "reactor/stream.h"
#include "vm/vm.h"

struct migrate;

enum {
	MIGRATE_MAX_INCOMING = 16, /* connections that have not said what they are */
	MIGRATE_LOOK_MS = 10 * 1000,
};

struct migrate_config {
	struct loop *loop; /* borrowed, as are pool and vms */
	struct pool *pool;
	struct vm_manager *vms; /* of this host */
	struct uuid self;

	/* Opens a connection to a host's port with ALPN "reeve/migrate": adds address,
	 * TLS and name to *config, whose events and bounds stay, and opens it. The
	 * stream's `ready` or `closed` follows; *out is returned owned. */
	int (*dial)(void *arg, const struct uuid *host, struct stream_config *config,
		struct stream **out, struct rv_error *e);
	/* Target: what the daemon knows better: clock skew, the host's state, levels. 0,
	 * or why it can't come here. May be NULL. */
	int (*check)(
		void *arg, const struct migrate_prepare *prepare, struct rv_error *e);
	void *arg;
};

/* Returned owned. */
int migrate_new(struct migrate **out, const struct migrate_config *config,
	struct rv_error *e) RV_MUST_CHECK;

/* Once the vm_manager is ready: settles what was left half done here, by operations of
 * its own, and goes on looking for it now and then. */
void migrate_begin(struct migrate *m);

/* The daemon ends, or dies in a test: before vm_manager_stop and before the ports are
 * freed. Nothing is called back afterwards. */
void migrate_stop(struct migrate *m);
void migrate_free(struct migrate *m); /* after vm_manager_free; NULL-safe */

/* Strings are borrowed for the call. */
struct migrate_args {
	struct uuid host; /* where it shall run */
	bool live;	  /* false: suspended while its memory is sent */
	bool accept;	  /* where it can't be within the limit: a longer pause, rather
			     than an error */
	int64_t max_downtime_ms;   /* 0: pool.migration_max_downtime_ms */
	int64_t bandwidth_bytes_s; /* 0: pool.migration_bandwidth; there 0: no limit */
	const char *user, *origin; /* for the task */
};

/* On the daemon of the VM's host. As vm_op_start: 0: accepted follows, from the loop; the
 * end is seen in the task's row. Refused at once besides: RV_EPARAM (to its own host,
 * numbers that make no sense), RV_ENOENT (no such host). RV_EUNSUPPORTED comes from the
 * task: a PV guest can't be migrated while it runs, but with `live` false. */
int migrate_start(struct migrate *m, const struct uuid *vm,
	const struct migrate_args *args, struct uuid task, vm_accepted_fn *accepted,
	void *arg, struct rv_error *e) RV_MUST_CHECK;

/* A connection that came in, ready, its certificate verified and admitted. Taken. */
void migrate_accept(struct migrate *m, struct stream *stream);

size_t migrate_incoming_count(const struct migrate *m);

#endif
