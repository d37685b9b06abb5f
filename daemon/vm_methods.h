/* The methods of VMs and their devices. */
#ifndef REEVE_DAEMON_VM_METHODS_H
#define REEVE_DAEMON_VM_METHODS_H

#include "daemon/call.h"

/* VM operations that vm/ carries out: which one follows from the method. */
void vm_operation(struct call *c);

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
