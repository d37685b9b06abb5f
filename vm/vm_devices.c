#include "vm/vm_devices.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

enum {
	DEVICES_TRIES = 4,
	DEVICES_RETRY_MS = 500,
	/* Xen's numbers of block devices: xvdX is 202:16*n, beyond that an extended form
	 * (docs/misc/vbd-interface.txt in Xen). */
	DEVICES_XVD_MAJOR = 202,
	DEVICES_XVD_CLASSIC = 16,
	DEVICES_PLACES = 26,
};

static void device_begin(struct vm_device *v);

/* --- reading the database --- */

static int device_place(const char *text, const char *kind, const char *vm, int limit,
	int *place, struct rv_error *e)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (!*text || *end || n < 0 || n >= limit)
		return rv_error_set(e, RV_EPARAM,
			"VM %s: %s has the place \"%s\"; places are 0 to %d", vm, kind,
			text, limit - 1);
	*place = (int)n;
	return 0;
}

static int disk_load(struct vm_device *v, const struct db *db, const struct row *vbd,
	const char *vm, struct rv_error *e)
{
	const struct row *vdi = db_follow(db, vbd, VBD_VDI);
	int n, rc;

	rc = device_place(db_string(vbd, VBD_USERDEVICE), "a drive (VBD)", vm,
		DEVICES_PLACES, &n, e);
	if (rc)
		return rc;
	v->kind = VM_DEVICE_DISK;
	v->uuid = row_uuid(vbd);
	v->vdi = row_uuid(vdi);
	v->sr = db_ref(vdi, VDI_SR);
	v->cdrom = db_enum(vbd, VBD_TYPE) == VBD_TYPE_CD;
	v->write = !v->cdrom && db_enum(vbd, VBD_MODE) == VBD_MODE_RW &&
		   !db_bool(vdi, VDI_READ_ONLY);
	v->devid = n < DEVICES_XVD_CLASSIC ? (uint32_t)(DEVICES_XVD_MAJOR << 8 | n << 4)
					   : (uint32_t)(1 << 28 | n << 8);
	snprintf(v->device, sizeof v->device, "xvd%c", 'a' + n);
	return 0;
}

static int nic_load(struct vm_device *v, const struct db *db, const struct row *vif,
	const char *vm, struct rv_error *e)
{
	const struct row *network = db_follow(db, vif, VIF_NETWORK);
	const char *bridge = db_string(network, NETWORK_BRIDGE);
	int n, rc;

	rc = device_place(db_string(vif, VIF_DEVICE), "an interface (VIF)", vm,
		HYPER_MAX_VIFS, &n, e);
	if (rc)
		return rc;
	v->kind = VM_DEVICE_NIC;
	v->uuid = row_uuid(vif);
	v->network = row_uuid(network);
	v->devid = (uint32_t)n;
	v->mtu = (int)db_int(vif, VIF_MTU);
	v->unmanaged = !db_bool(network, NETWORK_MANAGED);
	snprintf(v->device, sizeof v->device, "%d", n);
	rc = net_mac_parse(db_string(vif, VIF_MAC), v->mac, e);
	if (rc)
		return rv_error_prefix(e, "VM %s: VIF %d", vm, n);
	if (*bridge)
		snprintf(v->bridge, sizeof v->bridge, "%s", bridge);
	else
		net_bridge_name(&v->network, v->bridge);
	return 0;
}

static int devices_unique(const struct vm_devices *d, const char *vm, struct rv_error *e)
{
	for (size_t i = 0; i < d->count; i++)
		for (size_t j = 0; j < i; j++)
			if (d->list[i].kind == d->list[j].kind &&
				d->list[i].devid == d->list[j].devid)
				return rv_error_set(e, RV_EPARAM,
					"VM %s: two of its %s have the place %s; "
					"destroy one of them",
					vm,
					d->list[i].kind == VM_DEVICE_DISK
						? "drives (VBD)"
						: "interfaces (VIF)",
					d->list[i].device);
	return 0;
}

static bool devices_want(const struct row *row, const struct uuid *only)
{
	struct uuid uuid = row_uuid(row);

	return uuid_is_none(only) || uuid_eq(&uuid, only);
}

int vm_disks_whole(
	const struct db *db, struct uuid vm, struct uuid only, struct rv_error *e)
{
	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VM, vm, r));) {
		const struct row *vdi = db_follow(db, r, VBD_VDI);

		if (vdi && devices_want(r, &only) && *db_string(vdi, VDI_INTENT))
			return rv_error_set(e, RV_EBUSY,
				"VM %s: its disk %s is not whole or is being changed "
				"(intent %s); wait for that to end, or take it out "
				"(vbd-destroy)",
				row_name(db_row(db, CLASS_VM, vm)), row_name(vdi),
				db_string(vdi, VDI_INTENT));
	}
	return 0;
}

void vm_txn_disks_whole(
	const struct db *db, struct txn *t, struct uuid vm, struct uuid only)
{
	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VM, vm, r));) {
		struct uuid vdi = db_ref(r, VBD_VDI);

		if (!uuid_is_none(&vdi) && devices_want(r, &only))
			txn_expect_string(t, vdi, VDI_INTENT, "");
	}
}

int vm_devices_load(struct vm_devices *d, const struct db *db, const struct row *vm,
	struct uuid only, struct rv_error *e)
{
	const char *name = row_name(vm);
	struct vm_device *list = calloc(HYPER_MAX_VBDS + HYPER_MAX_VIFS, sizeof *list);
	size_t disks = 0, nics = 0;
	int rc = 0;

	assert(d->pending == 0);
	if (!list)
		return rv_error_set(e, RV_ENOMEM, "no memory for VM %s's devices", name);
	free(d->list);
	d->list = list;
	d->count = 0;
	d->vm = row_uuid(vm);
	d->void_generation = (uint64_t)db_int(vm, VM_CLAIMS_VOID);
	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VM, d->vm, r));) {
		if (!devices_want(r, &only) || !db_follow(db, r, VBD_VDI))
			continue; /* an empty drive needs nothing */
		if (disks++ == HYPER_MAX_VBDS)
			return rv_error_set(e, RV_ELIMIT, "VM %s has more than %d drives",
				name, HYPER_MAX_VBDS);
		rc = disk_load(&list[d->count], db, r, name, e);
		if (rc)
			return rc;
		d->count++;
	}
	for (const struct row *r = NULL; (r = db_next_ref(db, VIF_VM, d->vm, r));) {
		if (!devices_want(r, &only))
			continue;
		if (nics++ == HYPER_MAX_VIFS)
			return rv_error_set(e, RV_ELIMIT,
				"VM %s has more than %d network interfaces", name,
				HYPER_MAX_VIFS);
		rc = nic_load(&list[d->count], db, r, name, e);
		if (rc)
			return rc;
		d->count++;
	}
	return devices_unique(d, name, e);
}

/* --- up and down --- */

static void devices_done(void *arg)
{
	struct vm_devices *d = arg;

	d->fn(d->arg, d->token, d->rc);
}

static void device_end(struct vm_device *v, int rc, const struct rv_error *e)
{
	struct vm_devices *d = v->set;

	v->busy = false;
	v->storage_request = NULL;
	v->net_request = NULL;
	if (rc == 0) {
		v->up = !d->down;
		v->released = d->down;
		if (d->down)
			v->touched = v->left = false;
	} else {
		v->left = d->down;
		if (!d->rc) {
			d->rc = rc;
			d->error = *e;
		}
		/* One that can't come up makes the others useless. */
		if (!d->down)
			vm_devices_cancel(d);
	}
	if (--d->pending == 0)
		defer_start(&d->done);
}

static void device_begin(struct vm_device *v);

static void device_answered(struct vm_device *v, int rc, const struct rv_error *e)
{
	struct vm_devices *d = v->set;

	if (d->stopped)
		return;
	v->storage_request = NULL;
	v->net_request = NULL;
	/* First the network itself, which no VM may have needed here before. */
	if (v->kind == VM_DEVICE_NIC && !d->down && !rc && !v->network_up &&
		!d->cancelled) {
		v->network_up = true;
		device_begin(v);
		return;
	}
	/* The claim is another's by now: nothing of ours is left to take down. */
	if (d->down && rc == RV_ESTALE)
		rc = 0;
	if (d->down && rc && ++v->tries < DEVICES_TRIES) {
		timer_start_ms(&v->retry, DEVICES_RETRY_MS);
		return;
	}
	device_end(v, rc, e);
}

static void device_storage_done(
	void *arg, uint64_t token, const struct storage_result *result)
{
	struct vm_device *v = arg;

	(void)token;
	if (result->rc == 0 && !v->set->down)
		v->disk = result->backend;
	device_answered(v, result->rc, &result->error);
}

static void device_net_done(void *arg, uint64_t token, const struct net_result *result)
{
	struct vm_device *v = arg;

	(void)token;
	if (result->rc == 0 && !v->set->down && v->network_up)
		v->nic = result->vif_backend;
	device_answered(v, result->rc, &result->error);
}

static int disk_start(struct vm_device *v, struct rv_error *e)
{
	struct vm_devices *d = v->set;
	struct storage_call call = {
		.verb = d->down ? STORAGE_VDI_DEACTIVATE : STORAGE_VDI_ACTIVATE,
		.sr = v->sr,
		.vdi = v->vdi,
		.holder = d->vm,
		.generation = d->generation,
		.void_generation = d->void_generation,
		.write = v->write,
		.done = device_storage_done,
		.arg = v,
	};

	return storage_start(d->storage, &call, &v->storage_request, e);
}

static int nic_start(struct vm_device *v, struct rv_error *e)
{
	struct vm_devices *d = v->set;
	struct net_call call = {
		.verb = d->down		? NET_VIF_UNPLUG
			: v->network_up ? NET_VIF_PLUG
					: NET_UP,
		.unmanaged = v->unmanaged,
		.vif = v->uuid,
		.network = v->network,
		.bridge = v->bridge,
		.mac = v->mac,
		.mtu = v->mtu,
		.vlan = NET_VLAN_NONE,
		.done = device_net_done,
		.arg = v,
	};

	return net_start(d->net, &call, &v->net_request, e);
}

static void device_begin(struct vm_device *v)
{
	struct rv_error e;
	int rc;

	rv_error_clear(&e);
	if (!v->set->down) {
		v->touched = true;
		v->released = false;
	}
	rc = v->kind == VM_DEVICE_DISK ? disk_start(v, &e) : nic_start(v, &e);
	if (rc)
		device_answered(v, rc, &e);
}

static void device_retry(void *arg)
{
	device_begin(arg);
}

static void devices_run(struct vm_devices *d, uint64_t generation, bool all,
	vm_devices_fn *fn, void *arg, uint64_t token)
{
	assert(d->pending == 0 && !d->stopped);
	d->generation = generation;
	d->rc = 0;
	d->cancelled = false;
	rv_error_clear(&d->error);
	d->fn = fn;
	d->arg = arg;
	d->token = token;
	/* Held up by one, so that refusals on the way don't end it too early. */
	d->pending = 1;
	for (size_t i = 0; i < d->count; i++) {
		struct vm_device *v = &d->list[i];

		if (d->down && !all && !v->touched)
			continue;
		if (d->cancelled)
			break;
		v->set = d;
		v->busy = true;
		v->tries = 0;
		v->network_up = false;
		timer_init(&v->retry, d->loop, "vm.devices.retry", device_retry, v);
		d->pending++;
		device_begin(v);
	}
	if (--d->pending == 0)
		defer_start(&d->done);
}

void vm_devices_up(struct vm_devices *d, uint64_t generation, vm_devices_fn *fn,
	void *arg, uint64_t token)
{
	d->down = false;
	devices_run(d, generation, true, fn, arg, token);
}

void vm_devices_down(struct vm_devices *d, uint64_t generation, bool all,
	vm_devices_fn *fn, void *arg, uint64_t token)
{
	d->down = true;
	devices_run(d, generation, all, fn, arg, token);
}

void vm_devices_cancel(struct vm_devices *d)
{
	if (d->down || d->cancelled)
		return;
	d->cancelled = true;
	for (size_t i = 0; i < d->count; i++) {
		struct vm_device *v = &d->list[i];

		if (v->storage_request)
			storage_cancel(v->storage_request);
		if (v->net_request)
			net_cancel(d->net, v->net_request);
	}
}

/* --- life --- */

void vm_devices_init(
	struct vm_devices *d, struct loop *l, struct storage *st, struct net *n)
{
	*d = (struct vm_devices){.loop = l, .storage = st, .net = n};
	defer_init(&d->done, l, "vm.devices", devices_done, d);
}

bool vm_devices_touched(const struct vm_devices *d)
{
	for (size_t i = 0; i < d->count; i++)
		if (d->list[i].touched)
			return true;
	return false;
}

bool vm_devices_busy(const struct vm_devices *d)
{
	return d->pending > 0 || (d->loop && !list_empty(&d->done.node));
}

void vm_devices_stop(struct vm_devices *d)
{
	d->stopped = true;
	if (!d->loop)
		return;
	defer_stop(&d->done);
	for (size_t i = 0; i < d->count; i++)
		if (d->list[i].set)
			timer_stop(&d->list[i].retry);
}

void vm_devices_fini(struct vm_devices *d)
{
	vm_devices_stop(d);
	free(d->list);
	d->list = NULL;
	d->count = 0;
}

/* --- lost storage --- */

bool vm_drive_out_of_reach(const struct db *db, const struct row *vbd)
{
	const struct row *vdi = db_follow(db, vbd, VBD_VDI);

	if (!vdi)
		return false;
	for (const struct row *pbd = NULL;
		(pbd = db_next_ref(db, PBD_SR, db_ref(vdi, VDI_SR), pbd));)
		if (db_bool(pbd, PBD_CURRENTLY_ATTACHED))
			return false;
	return true;
}

/* --- for the hypervisor --- */

void vm_device_vbd(const struct vm_device *v, struct hyper_vbd_spec *spec)
{
	const char *backend = "loop";

	if (v->disk.block_device)
		backend = "phy";
	else if (v->disk.format == STORAGE_FORMAT_QCOW2)
		backend = "qdisk";
	*spec = (struct hyper_vbd_spec){
		.devid = v->devid,
		.device = v->device,
		.backend = backend,
		.params = v->disk.path[0] ? v->disk.path : v->disk.spec,
		.read_only = !v->write,
		.cdrom = v->cdrom,
	};
}

void vm_device_vif(const struct vm_device *v, struct hyper_vif_spec *spec)
{
	*spec = (struct hyper_vif_spec){
		.devid = v->devid,
		.mac = v->nic.mac[0] ? v->nic.mac : v->mac,
		.backend = "bridge",
		.bridge = v->nic.bridge[0] ? v->nic.bridge : v->bridge,
		.mtu = v->mtu > 0 ? (uint32_t)v->mtu : 0,
	};
}
