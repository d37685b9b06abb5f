/* Keeps those live fields in step that follow from the database itself: that a task which
 * succeeded is done to the end, and what the disks of an SR come to. VMs': vm_live.h. */
#ifndef REEVE_DAEMON_OBJECT_LIVE_H
#define REEVE_DAEMON_OBJECT_LIVE_H

#include "daemon/daemon.h"

void object_live_init(struct daemon *d);
void object_live_stop(struct daemon *d);

/* Looks at what changed since the last time, some at a time. */
void object_live_look(struct daemon *d);

#endif
