/* Keeps those live fields of VMs in step that follow from their state: what may be done
 * with them, and that a VM without a domain uses nothing. */
#ifndef REEVE_DAEMON_VM_LIVE_H
#define REEVE_DAEMON_VM_LIVE_H

#include "daemon/daemon.h"

/* Looks at the VMs that changed since the last time. */
void vm_live_look(struct daemon *d);

#endif
