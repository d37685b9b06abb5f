/*
 * What has been told already: a condition that lasts is one message, not one at each
 * look. A cause is its words without the quantities in them, which differ each time.
 */
#ifndef REEVE_VM_VM_TOLD_H
#define REEVE_VM_VM_TOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/uuid.h"

enum { VM_TOLD_MAX = 256 }; /* the oldest is told once more */

struct vm_told {
	struct {
		struct uuid subject;
		uint64_t cause;
	} list[VM_TOLD_MAX];
	size_t count, next;
};

/* True: not told yet of this subject; it counts as told from now on. */
bool vm_told_new(struct vm_told *t, struct uuid subject, const char *words);

/* All is well with the subject: what comes next is new. */
void vm_told_over(struct vm_told *t, struct uuid subject);

#endif
