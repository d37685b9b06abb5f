/*
 * The "file" driver: an SR is a directory on a file system of this host (ext4, xfs, a
 * mounted NFS), a VDI is one file in it.
 *
 *	reeve-sr            marker: the SR's UUID; the wrong directory is refused
 *	reeve-sr.lock       flock: held for moments, while claims or names change
 *	UUID.raw UUID.qcow2 the VDIs
 *	UUID.claim          who has the VDI active, in lines:
 *	                    "write|read holder host generation"
 *	.new.HOST.UUID.raw  being made by HOST; renamed when complete
 *
 * There is no journal: each change becomes visible by one rename or unlink, after an
 * fsync, so kill -9 leaves the old state or the new one; what is left over is removed
 * when that host attaches the SR again. Every access is by openat from the directory's
 * own descriptor, without following links, to names made of UUIDs.
 *
 * Blocking calls run on a worker of the SR, in pieces, so that a copy does not hold up a
 * start, and a hung file system holds up this SR alone. qcow2 is made by `qemu-img` in a
 * child process; images are believed only after storage/qcow2.h has checked them, and the
 * format is never guessed from contents, which a guest writes.
 */
#ifndef REEVE_STORAGE_FILE_H
#define REEVE_STORAGE_FILE_H

#include "storage/storage.h"

/* Adds type "file" to a host's storage. */
int storage_file_add(struct storage *st) RV_MUST_CHECK;

#endif
