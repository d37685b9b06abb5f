/*
 * VM.import_xl: makes a VM of a configuration of `xl create` (daemon/xl_config.h), in
 * place, and takes its guest over if it runs.
 *
 *	LOOK ──► FILES ──► RECORD ──► ADOPT ──► DONE
 *	  │        │          │         │ (the guest runs)
 *	  ╰────────┴──► UNDO ◄╯         ╰──► FAILED
 *
 * Raw files that lie under a file SR of this host become VDIs by another name in the SR;
 * a symbolic link stays where they were. Nothing is copied, and xl's own configuration
 * still works. What can't be taken is told. A guest that runs is only taken with all its
 * disks and interfaces.
 */
#ifndef REEVE_DAEMON_IMPORT_XL_H
#define REEVE_DAEMON_IMPORT_XL_H

#include "daemon/call.h"
#include "daemon/import_files.h"

struct imports;

int imports_new(struct imports **out, struct daemon *d) RV_MUST_CHECK;
/* Nothing goes on; before the worker, the ports and the pool are freed. NULL-safe. */
void imports_stop(struct imports *all);
void imports_free(struct imports *all); /* after them; NULL-safe */

/* The method. */
void vm_import_xl(struct call *c);

#endif
