/* Drives and network interfaces as records; plugging them is vm/'s. */
#include "daemon/vm_methods.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/chore.h"
#include "daemon/daemon.h"
#include "net/net.h"
#include "rpc/message.h"
#include "vm/vm_devices.h"
#include "xen/hyper.h"

/* A ref of the record; none where it is left out. Its type is checked with the others. */
static struct uuid record_ref(const msgpack_object *record, const char *name)
{
	const msgpack_object *o = rpc_map_get(record, name);
	struct uuid uuid;

	if (!o || o->type != MSGPACK_OBJECT_STR ||
		uuid_parse(&uuid, o->via.str.ptr, o->via.str.size))
		return UUID_NONE;
	return uuid;
}

static void record_text(
	const msgpack_object *record, const char *name, char *out, size_t size)
{
	const msgpack_object *o = rpc_map_get(record, name);

	out[0] = '\0';
	if (o && o->type == MSGPACK_OBJECT_STR)
		snprintf(out, size, "%.*s", (int)o->via.str.size, o->via.str.ptr);
}

static bool record_true(const msgpack_object *record, const char *name)
{
	const msgpack_object *o = rpc_map_get(record, name);

	return o && o->type == MSGPACK_OBJECT_BOOLEAN && o->via.boolean;
}

/* The VM that a device record names; NULL: the call has been failed. */
static const struct row *device_vm(struct call *c, const msgpack_object *record)
{
	struct uuid uuid = record_ref(record, "VM");
	const struct row *vm = db_row(pool_db(c->daemon->pool), CLASS_VM, uuid);
	char text[UUID_TEXT_SIZE];

	if (!vm && uuid_is_none(&uuid))
		call_failf(c, RV_EPARAM, "record: VM is needed, the UUID of a VM");
	else if (!vm)
		call_failf(c, RV_ENOENT, "there is no VM %s", uuid_format(&uuid, text));
	return vm;
}

/* A suspended guest finds its devices again as it left them, and an operation works with
 * those it has read: what they are does not change meanwhile, also not by the time the
 * entry is applied. False: the call has been failed, and `t` has nothing to free. */
static bool devices_may_change(struct call *c, const struct row *vm, struct txn *t)
{
	const struct value *current = row_value(vm, VM_CURRENT_OPERATIONS);

	if (db_enum(vm, VM_POWER_STATE) == VM_POWER_STATE_SUSPENDED) {
		call_failf(c, RV_ESTATE,
			"VM %s is Suspended: its guest expects the devices it had; "
			"resume "
			"it, or end it with vm-shutdown --force, then change them",
			row_name(vm));
		return false;
	}
	if (value_count(current)) {
		call_failf(c, RV_EBUSY,
			"VM %s: %s is in progress; change its devices when that has "
			"ended",
			row_name(vm), value_at(current, 0));
		return false;
	}
	txn_init(t, pool_db(c->daemon->pool), loop_wall_ms(c->daemon->loop));
	txn_expect_unset(t, row_uuid(vm), VM_CURRENT_OPERATIONS);
	txn_expect_enum(t, row_uuid(vm), VM_POWER_STATE, db_enum(vm, VM_POWER_STATE));
	return true;
}

/* One more of what `row` counts: two that are made at once, both checked against the same
 * moment, are not both let in. */
static void count_made(struct txn *t, const struct row *row, enum schema_field_id field)
{
	int64_t made = db_int(row, field);

	txn_expect_int(t, row_uuid(row), field, made);
	txn_set_int(t, row_uuid(row), field, made + 1);
}

/* Has the call look anew where another came first. False: the call has been failed. */
static bool device_again(struct call *c, call_fn *create)
{
	if (c->again)
		return true;
	if (call_keep(c)) {
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return false;
	}
	c->again = create;
	return true;
}

/* The place that the caller asks for, checked, or the first free one. `used` says which
 * are taken. -1: the call has been failed. */
static int device_place(struct call *c, const msgpack_object *record, const char *key,
	const struct row *vm, const bool *used, int max)
{
	char text[16], *end;
	long place;

	record_text(record, key, text, sizeof text);
	if (!*text || strcmp(text, "autodetect") == 0) {
		for (int i = 0; i < max; i++)
			if (!used[i])
				return i;
		call_failf(c, RV_ELIMIT,
			"VM %s has %d of these already, the most there can be",
			row_name(vm), max);
		return -1;
	}
	place = strtol(text, &end, 10);
	if (*end || place < 0 || place >= max) {
		call_failf(c, RV_EINVAL,
			"record: %s '%s' is no number from 0 to %d, nor 'autodetect'",
			key, text, max - 1);
		return -1;
	}
	if (used[place]) {
		call_failf(c, RV_EEXIST,
			"VM %s has a device at %s %ld already; leave %s out for the next "
			"free one",
			row_name(vm), key, place, key);
		return -1;
	}
	return (int)place;
}

static void places_used(const struct db *db, enum schema_field_id owner,
	enum schema_field_id place, struct uuid vm, bool *used, int max)
{
	for (const struct row *row = db_next_ref(db, owner, vm, NULL); row;
		row = db_next_ref(db, owner, vm, row)) {
		int at = atoi(db_string(row, place));

		if (at >= 0 && at < max)
			used[at] = true;
	}
}

/* --- VBD --- */

/* Writing from two VMs at once destroys a file system that does not know of it. */
static bool vdi_is_free(struct call *c, const struct row *vdi, bool writing)
{
	const struct db *db = pool_db(c->daemon->pool);
	struct rv_error e = {0};

	if (*db_string(vdi, VDI_INTENT)) {
		call_failf(c, RV_EBUSY, "VDI %s is busy: %s; wait for that to end",
			row_name(vdi), db_string(vdi, VDI_INTENT));
		return false;
	}
	if (vdi_unused(db, vdi, false, &e)) {
		call_fail(c, &e);
		return false;
	}
	if (writing && db_bool(vdi, VDI_READ_ONLY)) {
		call_failf(c, RV_EREADONLY, "VDI %s is read-only; say mode=RO",
			row_name(vdi));
		return false;
	}
	if (db_bool(vdi, VDI_SHARABLE))
		return true;
	for (const struct row *vbd = db_next_ref(db, VBD_VDI, row_uuid(vdi), NULL); vbd;
		vbd = db_next_ref(db, VBD_VDI, row_uuid(vdi), vbd)) {
		if (writing || db_enum(vbd, VBD_MODE) == VBD_MODE_RW) {
			call_failf(c, RV_EBUSY,
				"VDI %s is in a drive of VM %s, and one of the two would "
				"write; destroy that VBD, or use both read-only",
				row_name(vdi), row_name(db_follow(db, vbd, VBD_VM)));
			return false;
		}
	}
	return true;
}

static void vbd_make(struct call *c)
{
	const msgpack_object *record = call_record(c, "record");
	const struct db *db = pool_db(c->daemon->pool);
	struct uuid uuid = uuid_random(loop_prng(c->daemon->loop)),
		    vdi = record_ref(record, "VDI");
	const struct row *vm = device_vm(c, record), *vdi_row;
	bool used[HYPER_MAX_VBDS] = {false};
	char text[16], mode[8];
	struct txn t;
	int place;

	if (!vm)
		return;
	vdi_row = db_row(db, CLASS_VDI, vdi);
	record_text(record, "mode", mode, sizeof mode);
	if (!vdi_row && !record_true(record, "empty")) {
		call_failf(c, RV_EPARAM,
			"record: VDI is needed, the UUID of a disk (or empty=true for a "
			"CD drive)");
		return;
	}
	if (vdi_row && !vdi_is_free(c, vdi_row, strcmp(mode, "RO") != 0))
		return;
	places_used(db, VBD_VM, VBD_USERDEVICE, row_uuid(vm), used, HYPER_MAX_VBDS);
	place = device_place(c, record, "userdevice", vm, used, HYPER_MAX_VBDS);
	if (place < 0)
		return;
	if (!devices_may_change(c, vm, &t))
		return;
	count_made(&t, vm, VM_DEVICES_MADE);
	if (vdi_row) { /* and its file is not on its way in or out */
		txn_expect_string(&t, vdi, VDI_INTENT, "");
		count_made(&t, vdi_row, VDI_DRIVES_MADE);
	}
	txn_create(&t, CLASS_VBD, uuid);
	if (!call_fields_to_txn(c, &t, record, CLASS_VBD, uuid, true)) {
		txn_fini(&t);
		return;
	}
	snprintf(text, sizeof text, "%d", place);
	txn_set_string(&t, uuid, VBD_USERDEVICE, text);
	snprintf(text, sizeof text, "xvd%c", 'a' + place);
	txn_set_string(&t, uuid, VBD_DEVICE, text);
	call_commit(c, &t, value_ref(uuid), uuid);
}

void vbd_create(struct call *c)
{
	if (device_again(c, vbd_create))
		vbd_make(c);
}

/* Whether the record of a device that counts as attached may go: its VM has no domain,
 * and the device is a drive whose SR no host has, so nothing else will ever release it.
 * False: the call has been failed. */
static bool device_is_lost(struct call *c, const struct row *row, const struct row *vm)
{
	const struct db *db = pool_db(c->daemon->pool);
	const char *cls = schema_class(c->method->cls)->name;

	if (db_enum(vm, VM_POWER_STATE) != VM_POWER_STATE_HALTED) {
		call_failf(c, RV_EBUSY,
			"%s %s is attached to VM %s, which is not halted; unplug it "
			"first",
			cls, row_name(row), row_name(vm));
		return false;
	}
	if (c->method->cls == CLASS_VBD && vm_drive_out_of_reach(db, row)) {
		log_warn("daemon.vbd",
			"vbd=%s vm=%s vdi=%s msg=\"destroyed unreleased: no host has the "
			"SR; should it come back, so does the disk, with its claim\"",
			row_name(row), row_name(vm),
			row_name(db_follow(db, row, VBD_VDI)));
		return true;
	}
	call_failf(c, RV_EBUSY,
		"%s %s is not released yet, which is tried again by itself; see the "
		"messages%s",
		cls, row_name(row),
		c->method->cls == CLASS_VBD ? ". Where its SR is lost, pbd-unplug it "
					      "everywhere, then ask again"
					    : "");
	return false;
}

/* Removes a device's record unless a domain has the device. */
static void device_destroy(
	struct call *c, enum schema_field_id owner, enum schema_field_id attached)
{
	const struct row *row = call_row(c, "self"), *vm;
	struct txn t;

	if (!row)
		return;
	vm = db_follow(pool_db(c->daemon->pool), row, owner);
	if (db_bool(row, attached) && !device_is_lost(c, row, vm))
		return;
	if (!devices_may_change(c, vm, &t))
		return;
	txn_expect_bool(&t, row_uuid(row), attached, db_bool(row, attached));
	txn_delete(&t, c->method->cls, row_uuid(row));
	call_commit(c, &t, (struct value){.type = VALUE_NULL}, row_uuid(row));
}

void vbd_destroy(struct call *c)
{
	device_destroy(c, VBD_VM, VBD_CURRENTLY_ATTACHED);
}

/* --- VIF --- */

/* Checks the MAC that the caller chose, or makes one that nobody has. */
static bool vif_mac(struct call *c, const char *wanted, struct uuid network,
	char mac[static NET_MAC_SIZE])
{
	const struct db *db = pool_db(c->daemon->pool);
	struct rv_error e = {0};

	if (*wanted && net_mac_parse(wanted, mac, &e)) {
		call_fail(c, &e);
		return false;
	}
	if (!*wanted)
		net_mac_random(loop_prng(c->daemon->loop), mac);
	for (const struct row *vif = db_next_ref(db, VIF_NETWORK, network, NULL); vif;
		vif = db_next_ref(db, VIF_NETWORK, network, vif)) {
		if (strcmp(db_string(vif, VIF_MAC), mac) != 0)
			continue;
		call_failf(c, RV_EEXIST,
			"MAC %s is that of VM %s in the same network; leave MAC out and "
			"one is made",
			mac, row_name(db_follow(db, vif, VIF_VM)));
		return false;
	}
	return true;
}

static void vif_make(struct call *c)
{
	const msgpack_object *record = call_record(c, "record");
	const struct db *db = pool_db(c->daemon->pool);
	struct uuid uuid = uuid_random(loop_prng(c->daemon->loop));
	struct uuid network = record_ref(record, "network");
	const struct row *vm = device_vm(c, record);
	bool used[HYPER_MAX_VIFS] = {false};
	char text[16], wanted[32], mac[NET_MAC_SIZE];
	struct txn t;
	int place;

	if (!vm)
		return;
	if (!db_row(db, CLASS_NETWORK, network)) {
		call_failf(
			c, RV_EPARAM, "record: network is needed, the UUID of a network");
		return;
	}
	record_text(record, "MAC", wanted, sizeof wanted);
	if (!vif_mac(c, wanted, network, mac))
		return;
	places_used(db, VIF_VM, VIF_DEVICE, row_uuid(vm), used, HYPER_MAX_VIFS);
	place = device_place(c, record, "device", vm, used, HYPER_MAX_VIFS);
	if (place < 0)
		return;
	if (!devices_may_change(c, vm, &t))
		return;
	count_made(&t, vm, VM_DEVICES_MADE);
	count_made(&t, db_row(db, CLASS_NETWORK, network), NETWORK_VIFS_MADE);
	txn_create(&t, CLASS_VIF, uuid);
	if (!call_fields_to_txn(c, &t, record, CLASS_VIF, uuid, true)) {
		txn_fini(&t);
		return;
	}
	snprintf(text, sizeof text, "%d", place);
	txn_set_string(&t, uuid, VIF_DEVICE, text);
	txn_set_string(&t, uuid, VIF_MAC, mac);
	txn_set_bool(&t, uuid, VIF_MAC_AUTOGENERATED, !*wanted);
	call_commit(c, &t, value_ref(uuid), uuid);
}

void vif_create(struct call *c)
{
	if (device_again(c, vif_create))
		vif_make(c);
}

void vif_destroy(struct call *c)
{
	device_destroy(c, VIF_VM, VIF_CURRENTLY_ATTACHED);
}
