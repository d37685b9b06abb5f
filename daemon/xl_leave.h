/*
 * What `xl` keeps of a guest beside its domain: a process that restarts it when it ends,
 * and links in /etc/xen/auto by which it is started at boot. Both would work against
 * whoever adopts the guest. Reads /proc and may block: for the worker.
 */
#ifndef REEVE_DAEMON_XL_LEAVE_H
#define REEVE_DAEMON_XL_LEAVE_H

#include <stddef.h>

enum { XL_LEAVE_WORDS = 200 };

struct xl_leave {
	unsigned processes, links;  /* ended, removed */
	unsigned left;		    /* files in /etc/xen/auto of that name: no links */
	char words[XL_LEAVE_WORDS]; /* what could not be done; empty: all was */
};

/* Ends the `xl` that watches over the domain `name`: a process of that program whose
 * output goes to xl's log of the domain (xl's do_daemonize). Removes the links in
 * /etc/xen/auto to configurations of that name. `root` is put before every path: "" but
 * in tests. */
void xl_leave(const char *root, const char *name, struct xl_leave *out);

#endif
