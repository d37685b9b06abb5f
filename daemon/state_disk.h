/*
 * The room on the disk of the state directory, told before it is gone: a host whose disk
 * is full records nothing, so it can't say so any more, and its protected VMs are ended
 * and started elsewhere, where there is another host.
 *
 * Each host looks every ten seconds: it sets host.state_disk_free, and one entry sets
 * host.state_disk_low and leaves a message when little room is left, or enough again.
 */
#ifndef REEVE_DAEMON_STATE_DISK_H
#define REEVE_DAEMON_STATE_DISK_H

#include "daemon/daemon.h"

struct state_disk;

/* Whether `free_bytes` of `size_bytes` are little: less than a tenth of it, and less than
 * 1 GiB. What was low is so until there is a quarter more than that. */
bool state_disk_is_low(bool was_low, uint64_t free_bytes, uint64_t size_bytes);

/* Whether a host whose disk is full loses VMs: it runs protected ones, and the pool has
 * another host to start them on. */
bool state_disk_endangers_vms(const struct db *db, struct uuid host);

/* Returned owned. */
int state_disk_new(struct state_disk **out, struct daemon *d) RV_MUST_CHECK;
void state_disk_start(struct state_disk *s);
void state_disk_stop(struct state_disk *s); /* NULL-safe */
/* After the pool and the worker; NULL-safe. */
void state_disk_free(struct state_disk *s);

#endif
