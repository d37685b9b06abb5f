/*
 * The ports beside the database's schema. Both storage/storage.h and pool/db/schema.h
 * name an enum vdi_format; here storage's is STORAGE_FORMAT_*. Whoever needs both headers
 * includes this one.
 */
#ifndef REEVE_VM_VM_PORTS_H
#define REEVE_VM_VM_PORTS_H

#define vdi_format	 storage_format
#define VDI_FORMAT_RAW	 STORAGE_FORMAT_RAW
#define VDI_FORMAT_QCOW2 STORAGE_FORMAT_QCOW2
#include "storage/storage.h"
#undef vdi_format
#undef VDI_FORMAT_RAW
#undef VDI_FORMAT_QCOW2

#include "net/net.h"
#include "pool/pool.h"
#include "xen/hyper.h"

#endif
