/* What Xen's command line says about dom0. Pure. */
#ifndef REEVE_XEN_REAL_CMDLINE_H
#define REEVE_XEN_REAL_CMDLINE_H

#include <stdbool.h>

/* Is dom0's memory fixed: dom0_mem=N,max:N with both the same? Else Xen gives dom0 all
 * memory and dom0's balloon driver moves what Reeve accounts for. The last dom0_mem
 * counts. Grammar: xen/docs/misc/xen-command-line.pandoc, dom0_mem. */
bool xen_cmdline_dom0_fixed(const char *cmdline);

#endif
