/* Keeps those live fields of VMs in step that follow from their state: what may be done
 * with them, and that a VM without a domain uses nothing. */
#ifndef REEVE_DAEMON_VM_LIVE_H
#define REEVE_DAEMON_VM_LIVE_H

#include "daemon/daemon.h"

void vm_live_init(struct daemon *d);
void vm_live_fini(struct daemon *d);

/* Looks at the VMs that changed since the last time, some at a time: the others' turn
 * comes by a timer. */
void vm_live_look(struct daemon *d);

#endif
