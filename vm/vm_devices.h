/*
 * A VM's disks and network interfaces on one host, brought up and down together through
 * the storage and network ports. What they give back is what the hypervisor needs to
 * attach them.
 */
#ifndef REEVE_VM_VM_DEVICES_H
#define REEVE_VM_VM_DEVICES_H

#include "reactor/loop.h"
#include "vm/vm_ports.h"

enum vm_device_kind { VM_DEVICE_DISK, VM_DEVICE_NIC };

struct vm_devices;

struct vm_device {
	struct vm_devices *set;
	enum vm_device_kind kind;
	struct uuid uuid; /* VBD or VIF */
	struct uuid sr, vdi;
	struct uuid network;
	uint32_t devid;
	char device[16]; /* "xvda", "0" */
	bool write, cdrom;
	int mtu;
	char mac[NET_MAC_SIZE], bridge[NET_NAME_SIZE];
	bool unmanaged;	 /* the bridge is an admin's own */
	bool network_up; /* the port said so, this time */

	bool touched;  /* bringing up was begun: may be up */
	bool up;       /* surely */
	bool left;     /* could not be brought down: the reconciler's */
	bool released; /* was brought down, surely */
	bool busy;
	int tries;
	struct timer retry;
	struct storage_request *storage_request;
	struct net_request *net_request;
	struct storage_backend disk; /* once up */
	struct net_vif_backend nic;
};

typedef void vm_devices_fn(void *arg, uint64_t token, int rc);

/* Embed it, zeroed. */
struct vm_devices {
	struct loop *loop;
	struct storage *storage;
	struct net *net;
	struct uuid vm;
	uint64_t generation;	  /* of the claim */
	uint64_t void_generation; /* VM.claims_void */
	struct vm_device *list;
	size_t count, pending;
	bool down, cancelled, stopped;
	int rc; /* of the last up or down; the first error */
	struct rv_error error;
	vm_devices_fn *fn;
	void *arg;
	uint64_t token;
	struct defer done;
};

void vm_devices_init(
	struct vm_devices *d, struct loop *l, struct storage *st, struct net *n);

/* Takes over what the database says of the VM's VBDs and VIFs; `only`: that one alone (or
 * none: all). RV_EPARAM with the device that can't be (place taken twice, unknown place),
 * RV_ELIMIT, RV_ENOMEM. May be called again. */
/* RV_EBUSY: a disk in a drive of the VM, or in `only` of them, is not whole or is being
 * changed (VDI.intent): nothing may use it. */
int vm_disks_whole(const struct db *db, struct uuid vm, struct uuid only,
	struct rv_error *e) RV_MUST_CHECK;
/* And they still are when the entry's turn comes. */
void vm_txn_disks_whole(
	const struct db *db, struct txn *t, struct uuid vm, struct uuid only);

int vm_devices_load(struct vm_devices *d, const struct db *db, const struct row *vm,
	struct uuid only, struct rv_error *e) RV_MUST_CHECK;

/* All up, at once. fn(0), or the first error when the others have ended too; what came up
 * stays so until vm_devices_down. Repeating it is harmless. `generation` signs claims. */
void vm_devices_up(struct vm_devices *d, uint64_t generation, vm_devices_fn *fn,
	void *arg, uint64_t token);

/* Ends vm_devices_up early; fn still follows. */
void vm_devices_cancel(struct vm_devices *d);

/* Brings down what was touched, or with `all` every one: tries each several times. fn(0),
 * or an error: then those with `left` remain to the reconciler. */
void vm_devices_down(struct vm_devices *d, uint64_t generation, bool all,
	vm_devices_fn *fn, void *arg, uint64_t token);

bool vm_devices_touched(const struct vm_devices *d);
bool vm_devices_busy(const struct vm_devices *d);
/* No callback follows. */
void vm_devices_stop(struct vm_devices *d);
/* Idle, or after the ports were freed. Harmless on a zeroed one. */
void vm_devices_fini(struct vm_devices *d);

/* Whether no host has the SR of a drive's disk attached: it may be lost for good, and
 * then nothing will ever say that the drive is released. */
bool vm_drive_out_of_reach(const struct db *db, const struct row *vbd);

/* For hyper_create and hot plug; strings are borrowed from the device. */
void vm_device_vbd(const struct vm_device *v, struct hyper_vbd_spec *spec);
void vm_device_vif(const struct vm_device *v, struct hyper_vif_spec *spec);

#endif
