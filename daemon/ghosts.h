/*
 * Ghosts: domains of this host that the database does not know, made by `xl` or left by a
 * crash. They are listed, destroyed where an admin says so, or adopted: made a VM while
 * they run. vm/vm_ghosts.c finds and tells of them.
 *
 *	LOOK ──► DEVICES ──► LEAVE ──► RECORD ──► DONE
 *	  │         │                    │
 *	  │         ╰──► DOWN ◄──────────╯
 *	  ╰──────────────┴──► FAILED
 *
 * LOOK asks what the domain is. DEVICES takes the VM's disks and networks, so that nobody
 * else gets them. LEAVE ends the `xl` that watches over the domain. RECORD is the entry
 * that makes it the VM's; the label follows (vm/). Until then nothing of the domain is
 * changed.
 */
#ifndef REEVE_DAEMON_GHOSTS_H
#define REEVE_DAEMON_GHOSTS_H

#include "daemon/call.h"
#include "daemon/xl_leave.h"
#include "reactor/op.h"
#include "reactor/worker.h"
#include "vm/vm_devices.h"
#include "vm/vm_entry.h"
#include "xen/hyper.h"

struct ghosts;

int ghosts_new(struct ghosts **out, struct daemon *d) RV_MUST_CHECK;
/* Nothing goes on; before the ports and the pool are freed. NULL-safe. */
void ghosts_stop(struct ghosts *g);
void ghosts_free(struct ghosts *g); /* after them; NULL-safe */

/* Methods. */
void host_ghost_list(struct call *c);
void host_ghost_destroy(struct call *c);
void vm_adopt(struct call *c);

/* Why VM.import_xl keeps a VM from being started while its guest is still xl's; the entry
 * that adopts it takes that away. */
#define GHOSTS_BLOCKED "its guest still runs as a domain that xl made: use vm-adopt"

/* One adoption at work. */
struct adoption;

/* rc 0: the domain is the VM's now. From the loop, once; the adoption is freed then. */
typedef void adopted_fn(void *arg, struct uuid vm, int rc, const struct rv_error *e);

/* Adopts domain `domid` as the VM `vm`, which is Halted; or (none) as a new one of that
 * name (empty: the domain's). `task_of`: NULL, or the call whose task goes into the
 * entry. Refused at once: RV_ENOMEM. */
int ghosts_adopt(struct ghosts *g, uint32_t domid, struct uuid vm, const char *name,
	struct call *task_of, adopted_fn *fn, void *arg,
	struct rv_error *e) RV_MUST_CHECK;

#endif
