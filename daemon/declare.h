/*
 * Declaring what can't be found out: that a host is off for good (host.declare_dead), or
 * that one VM of such a host is (VM.reset_power_state). Done by the master, refused while
 * it hears from the host. A host that was declared dead and comes back is told as such.
 */
#ifndef REEVE_DAEMON_DECLARE_H
#define REEVE_DAEMON_DECLARE_H

#include "daemon/call.h"

/* Methods, at the master. */
void host_declare_dead(struct call *c);
void vm_reset_power_state(struct call *c);

/* At the master, now and then: whether the dead are back. */
void declare_look(struct daemon *d);

#endif
