/*
 * Starting protected VMs elsewhere, on the master: those of a host that is silent for so
 * long that its lease is over and its reeve-fenced has ended them (VM.ha_armed), and
 * those of a host that was declared dead.
 *
 *	armed, host silent ──► RELEASE (one entry): Halted, on no host, and
 *	host declared dead ──►          VM.ha_restart_task = a request's UUID, drawn
 *	found gone by its own host ──►  with the entry
 *	                                   │
 *	                          VM.start with that UUID, through the scheduler
 *	                                   │
 *	       success: VM_RESTARTED, the field is emptied
 *	       failure: "restart" tries again later with a new UUID; "best-effort" ends
 *
 * All that is to be done is in the database, so a master that takes over goes on with it;
 * and a request's UUID is carried out once, whoever asks again.
 */
#ifndef REEVE_DAEMON_RESTART_H
#define REEVE_DAEMON_RESTART_H

#include "daemon/daemon.h"

struct restarts;

/* Returned owned. */
int restarts_new(struct restarts **out, struct daemon *d) RV_MUST_CHECK;
void restarts_start(struct restarts *r);
void restarts_stop(struct restarts *r); /* NULL-safe, idempotent */
void restarts_free(struct restarts *r); /* after the pool and the calls; NULL-safe */

#endif
