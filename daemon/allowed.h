/* Keeps VM.allowed_operations, a live field, in step with the VMs. */
#ifndef REEVE_DAEMON_ALLOWED_H
#define REEVE_DAEMON_ALLOWED_H

#include "daemon/daemon.h"

/* Looks at the VMs that changed since the last time. */
void allowed_look(struct daemon *d);

#endif
