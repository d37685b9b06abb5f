/*
 * What reeved tells reeve-fenced (fence/wire.h), and what it records of that.
 *
 * VM.ha_armed (vm/vm_protect.h) says that this host's reeve-fenced has promised, with the
 * host's watchdog behind it, to end the VM's domain when the lease runs out, and has
 * taken a lease of this life of the pool. It is recorded after reeve-fenced has said so,
 * and taken back before reeve-fenced is told to let go. Only such a VM is started
 * elsewhere without an admin's word (daemon/restart.h): after a change of owner, or a new
 * generation of the pool, it is none until its host has promised anew.
 *
 * Without reeve-fenced reeved goes on as ever; host.fencing says why it is not armed.
 */
#ifndef REEVE_DAEMON_FENCING_H
#define REEVE_DAEMON_FENCING_H

#include "daemon/daemon.h"
#include "fence/wire.h"

struct fencing;

/* Returned owned. */
int fencing_new(struct fencing **out, struct daemon *d) RV_MUST_CHECK;
void fencing_start(struct fencing *f); /* connects, now and whenever it is lost */
void fencing_stop(struct fencing *f);  /* NULL-safe, idempotent */
void fencing_free(struct fencing *f);  /* after the pool; NULL-safe */

/* The database changed. */
void fencing_look(struct fencing *f);

/* This host's lease lasts until then (CLOCK_BOOTTIME, ms). NULL-safe. */
void fencing_lease(struct fencing *f, int64_t until_ms);

/* vm_was_fenced_fn; `arg` is the struct fencing. */
bool fencing_was_fenced(void *arg, const struct uuid *host, const struct uuid *handle);

/* Whether the VM, with its ha_restart_priority set, would be protected where it runs, or
 * could be anywhere: RV_ENOTALLOWED says on which host what is missing, and the line that
 * mends it. */
int fencing_check(
	struct daemon *d, const struct row *vm, struct rv_error *e) RV_MUST_CHECK;

#endif
