/* Carries out a verdict of vm_verdict.h that needs steps, as an operation on the VM. */
#ifndef REEVE_VM_VM_SETTLE_H
#define REEVE_VM_VM_SETTLE_H

#include "vm/vm_op.h"
#include "vm/vm_verdict.h"

enum { VM_MAX_LEFTOVERS = 4 };

/* Domains of the VM that the database does not know, to be destroyed. */
struct vm_leftovers {
	struct hyper_domain_id id[VM_MAX_LEFTOVERS];
	size_t count;
};

/* `kind` is the interrupted operation's, for its task; the intent's task is ended too. */
int vm_settle(struct vm_host *h, const struct row *vm, enum vm_operation kind,
	const struct vm_verdict *v, const struct vm_leftovers *left,
	struct rv_error *e) RV_MUST_CHECK;

#endif
