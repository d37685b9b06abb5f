/*
 * The disks that a template asks for, as text in VM.other_config:disks. Pure.
 *
 *	0: size=8GiB, bootable; 1: size=20GiB, format=qcow2, name=data
 *
 * Entries are separated by ';'. Before the colon the place (0, 1, ...), after it a comma
 * list: size (needed), bootable, format (raw, qcow2), type (user, system, ephemeral),
 * name, sr (a UUID).
 */
#ifndef REEVE_VM_VM_DISKS_H
#define REEVE_VM_VM_DISKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"
#include "pool/db/schema.h"

enum { VM_DISKS_MAX = 16, VM_DISK_NAME_SIZE = 64 };

struct vm_disk {
	int place;
	uint64_t size;
	bool bootable;
	enum vdi_format format;
	enum vdi_type type;
	char name[VM_DISK_NAME_SIZE];
	struct uuid sr; /* none: the caller's choice */
};

/* RV_EPARAM quotes what is wrong. */
int vm_disks_parse(const char *text, struct vm_disk disks[static VM_DISKS_MAX],
	size_t *count, struct rv_error *e) RV_MUST_CHECK;

#endif
