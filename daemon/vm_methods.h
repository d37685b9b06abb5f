/* The methods of VMs and their devices. */
#ifndef REEVE_DAEMON_VM_METHODS_H
#define REEVE_DAEMON_VM_METHODS_H

#include "daemon/call.h"

/* VM operations that vm/ carries out: which one follows from the method. */
void vm_operation(struct call *c);

/* After a refusal `rc`: true when the VM's former operation has ended, as its task says,
 * but for its last steps on this host. Nobody has to know of those: the method runs again
 * soon, and the call is not failed. */
bool vm_busy_wait(struct call *c, const struct uuid *vm, int rc);

void vm_create(struct call *c);
void vm_set_memory_dynamic_range(struct call *c);
void vm_set_memory_static_range(struct call *c);
void vm_set_memory_limits(struct call *c);
void vm_set_vcpus(struct call *c);

void vbd_create(struct call *c);
void vbd_destroy(struct call *c);
void vif_create(struct call *c);
void vif_destroy(struct call *c);

#endif
