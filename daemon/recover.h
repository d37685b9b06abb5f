/*
 * Settles the chores that a former reeved left in the middle: their tasks end, and disks
 * that were being made or deleted are gone.
 */
#ifndef REEVE_DAEMON_RECOVER_H
#define REEVE_DAEMON_RECOVER_H

#include "daemon/daemon.h"

/* Begins; what it starts are chores of its own. Call it with SRs attached, before vm/'s
 * reconciliation, and before any call is served that could start a chore. */
void recover_chores(struct daemon *d);

void recover_init(struct daemon *d);

#endif
