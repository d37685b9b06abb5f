/* The ports and the pool, as every operation uses them. */
#ifndef REEVE_VM_VM_PORTS_H
#define REEVE_VM_VM_PORTS_H

#include "net/net.h"
#include "pool/pool.h"
#include "storage/storage.h"
#include "xen/hyper.h"

#endif
