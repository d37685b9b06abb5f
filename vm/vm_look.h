/* Looks at hosts and compares what is there with the database: at the start, now and
 * then, and when an event gives reason to. For vm/'s own files. */
#ifndef REEVE_VM_VM_LOOK_H
#define REEVE_VM_VM_LOOK_H

#include "vm/vm_op.h"
#include "vm/vm_settle.h"

/* One VM without an operation at work; `d` is its recorded domain as it is now, or NULL
 * when that is surely gone; `left` (may be NULL) its half-made ones. */
void vm_look_at(struct vm_host *h, const struct row *vm, const struct hyper_domain *d,
	const struct vm_leftovers *left);

/* A guest that ended is left as it is, for somebody to look into. */
void vm_preserve(struct vm_host *h, const struct row *vm, const char *note);

/* The host is asked what is there. */
void vm_look_begin(struct vm_host *h);
void vm_look_init(struct vm_host *h);
void vm_look_timer(void *arg);

#endif
