/*
 * The consoles of the VMs that run on this host, for any number of watchers.
 *
 * A console is opened when somebody reads or types, and given back when nobody has for a
 * while, since the hypervisor has one reader at a time (`xl console` beside us). What a
 * guest wrote lately is kept, so that a watcher who comes later sees it too. Reading is a
 * call that waits; calls for a VM of another host are forwarded there like any other, so
 * it works from every host of the pool.
 *
 * Positions are opaque to clients: those of another life of the console (the VM moved,
 * the daemon was restarted) begin at what is kept.
 */
#ifndef REEVE_DAEMON_CONSOLE_H
#define REEVE_DAEMON_CONSOLE_H

#include "daemon/call.h"

struct consoles;

int consoles_new(struct consoles **out, struct daemon *d) RV_MUST_CHECK;
/* Asks the hypervisor nothing more; before it is freed. */
void consoles_stop(struct consoles *cs);
void consoles_free(struct consoles *cs); /* NULL-safe */

/* Methods. */
void vm_console_read(struct call *c);
void vm_console_write(struct call *c);

#endif
