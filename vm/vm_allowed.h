/*
 * Which operations a VM's state allows. Pure: the table that XenAPI users know as
 * VM.allowed_operations, and the refusals that go with it.
 */
#ifndef REEVE_VM_VM_ALLOWED_H
#define REEVE_VM_VM_ALLOWED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "pool/db/schema.h"

enum vm_operation {
	VM_OP_START,
	VM_OP_START_ON,
	VM_OP_RESUME,
	VM_OP_CLEAN_SHUTDOWN,
	VM_OP_HARD_SHUTDOWN,
	VM_OP_CLEAN_REBOOT,
	VM_OP_HARD_REBOOT,
	VM_OP_PAUSE,
	VM_OP_UNPAUSE,
	VM_OP_SUSPEND,
	VM_OP_CLONE,
	VM_OP_PROVISION,
	VM_OP_DESTROY,
	VM_OP_VBD_PLUG,
	VM_OP_VBD_UNPLUG,
	VM_OP_VIF_PLUG,
	VM_OP_VIF_UNPLUG,
	VM_OP_MIGRATE, /* migrate/ begins it: vm_op_start_verb */
	VM_OP_COUNT
};

const char *vm_operation_name(enum vm_operation op);   /* "clean_shutdown" */
const char *vm_operation_method(enum vm_operation op); /* "VM.clean_shutdown" */
/* As people type it, for words: "vm-shutdown --force". */
const char *vm_operation_verb(enum vm_operation op);
int vm_operation_by_name(const char *name); /* -1: none such */

/* What the answer depends on. */
struct vm_condition {
	enum vm_power_state power_state;
	bool is_a_template, is_a_snapshot;
	/* A domain that is not the VM (a ghost) may be changing its disks. Words say
	 * where it is; ghost_host "": some domains could not be looked at. */
	bool has_domain;
	char ghost_host[64], ghost_name[64];
	uint32_t ghost_domid;
	/* The operation at work, or VM_OP_COUNT; whether it can still be cancelled. */
	enum vm_operation current;
	bool current_cancellable;
	bool busy;	  /* an operation of another module is at work (migration) */
	bool restart_due; /* it is protected, and the pool is about to start it */
};

/* 0, or why not: RV_ESTATE (power state), RV_ENOTALLOWED (template, snapshot), RV_EBUSY
 * (another operation). hard_shutdown is allowed beside a cancellable operation. */
int vm_allowed(const struct vm_condition *c, enum vm_operation op) RV_MUST_CHECK;

/* The same for all: bit 1 << op. */
uint32_t vm_allowed_all(const struct vm_condition *c);

/* The words for a refusal: names the VM, its state, and what to do. `task` is the other
 * operation's, for RV_EBUSY; may be NULL. */
int vm_refuse(const struct vm_condition *c, enum vm_operation op, int rc,
	const char *name, const char *task, struct rv_error *e);

#endif
