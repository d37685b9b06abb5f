/* At rest nothing is left over: no operation, intent, reservation, claim, domain or disk.
 */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "look.h"
#include "memctl/memctl.h"
#include "model_look.h"
#include "vm/vm_memory.h"

static const struct row *pending_task(struct sim_host *h)
{
	for (const struct row *t = NULL; (t = db_next(db_of(h), CLASS_TASK, t));)
		if (db_enum(t, TASK_STATUS) == TASK_STATUS_PENDING)
			return t;
	return NULL;
}

bool model_at_rest(struct sim_host *h)
{
	return vm_op_count(h->mgr) == 0 && !pending_task(h) && list_empty(&h->writes);
}

void model_unrest(struct sim_host *h, char *text, size_t size)
{
	const struct row *t;

	text[0] = '\0';
	if (!host_up(h)) {
		snprintf(text, size, "%s is not up (%d)", h->name, h->life);
		return;
	}
	t = pending_task(h);
	if (t)
		snprintf(text, size, "%s: task %s (%s) is pending, %zu operations",
			h->name, row_name(t), db_string(t, TASK_METHOD),
			vm_op_count(h->mgr));
	else if (vm_op_count(h->mgr))
		snprintf(text, size, "%s: %zu operations are at work", h->name,
			vm_op_count(h->mgr));
	else if (!list_empty(&h->writes))
		snprintf(text, size, "%s: a client was never answered", h->name);
}

static void settled_state(const struct row *vm, const struct hyper_domain *d)
{
	enum hyper_state want[] = {[VM_POWER_STATE_PAUSED] = HYPER_PAUSED,
		[VM_POWER_STATE_RUNNING] = HYPER_RUNNING};
	int state = db_enum(vm, VM_POWER_STATE);

	if (state == VM_POWER_STATE_HALTED || state == VM_POWER_STATE_SUSPENDED) {
		if (d)
			sim_fail("VM %s is down, and its domain %u is left", row_name(vm),
				d->id.domid);
	} else if (!d) {
		sim_fail("VM %s is up, and there is no domain of it", row_name(vm));
	} else if (db_int(vm, VM_DOMID) != d->id.domid) {
		sim_fail("VM %s is domain %lld, and runs as %u", row_name(vm),
			(long long)db_int(vm, VM_DOMID), d->id.domid);
	} else if (d->state != want[state] && !*db_string(vm, VM_PAUSED_BY)) {
		sim_fail("VM %s is in state %d, its domain %u in %d", row_name(vm), state,
			d->id.domid, d->state);
	}
}

static void settled_devices(
	struct sim_host *h, const struct row *vm, const struct hyper_domain *d)
{
	const struct db *db = db_of(h);

	for (const struct row *r = NULL;
		(r = db_next_ref(db, VBD_VM, row_uuid(vm), r));) {
		bool is = d && look_has_disk(h->hyper, d->id.domid, disk_number(r));

		/* What could not be released stays attached, to be tried again. */
		if (is != db_bool(r, VBD_CURRENTLY_ATTACHED) &&
			!(d && !is && h->storage_broke))
			sim_fail("VM %s: drive %s is said to be %sattached", row_name(vm),
				db_string(r, VBD_USERDEVICE), is ? "de" : "");
		if (value_count(row_value(r, VBD_CURRENT_OPERATIONS)))
			sim_fail("VM %s: drive %s has an operation left", row_name(vm),
				db_string(r, VBD_USERDEVICE));
	}
	for (const struct row *r = NULL;
		(r = db_next_ref(db, VIF_VM, row_uuid(vm), r));) {
		bool is = d && look_has_nic(h->hyper, d->id.domid,
				       (uint32_t)atoi(db_string(r, VIF_DEVICE)));

		if (is != db_bool(r, VIF_CURRENTLY_ATTACHED) &&
			!(d && !is && h->net_broke))
			sim_fail("VM %s: interface %s is said to be %sattached",
				row_name(vm), db_string(r, VIF_DEVICE), is ? "de" : "");
		if (value_count(row_value(r, VIF_CURRENT_OPERATIONS)))
			sim_fail("VM %s: interface %s has an operation left",
				row_name(vm), db_string(r, VIF_DEVICE));
	}
}

static void settled_vm(struct sim_host *h, const struct row *vm,
	const struct hyper_domain *domains, size_t count)
{
	const struct hyper_domain *own = NULL;
	struct uuid uuid = row_uuid(vm), image = db_ref(vm, VM_SUSPEND_VDI);
	struct hyper_sim_view view;
	bool suspended = db_enum(vm, VM_POWER_STATE) == VM_POWER_STATE_SUSPENDED;

	for (size_t i = 0; i < count; i++) {
		if (!uuid_eq(&domains[i].vm, &uuid))
			continue;
		if (own)
			sim_fail("VM %s has two domains, %u and %u", row_name(vm),
				own->id.domid, domains[i].id.domid);
		own = &domains[i];
	}
	if (db_enum(vm, VM_INTENT) != VM_INTENT_NONE)
		sim_fail("VM %s has an intent left", row_name(vm));
	if (value_count(row_value(vm, VM_CURRENT_OPERATIONS)))
		sim_fail("VM %s has an operation left", row_name(vm));
	settled_state(vm, own);
	settled_devices(h, vm, own);
	if (suspended != !uuid_is_none(&image))
		sim_fail("VM %s is %ssuspended and has %s image", row_name(vm),
			suspended ? "" : "not ", suspended ? "no" : "an");
	if (suspended && !storage_sim_vdi_hash(h->bytes, image))
		sim_fail("VM %s is suspended, and its image is gone", row_name(vm));
	if (own && hyper_sim_look(h->hyper, &uuid, &view) == 0 && view.damaged_pages)
		sim_fail("VM %s: %llu pages of its memory are damaged", row_name(vm),
			(unsigned long long)view.damaged_pages);
}

static void settled_vdi(void *arg, const struct look_vdi *v)
{
	struct sim_host *h = arg;
	const struct db *db = db_of(h);
	const struct row *vdi = db_row(db, CLASS_VDI, v->uuid);
	bool attached = false;
	char text[UUID_TEXT_SIZE];

	if (!vdi)
		sim_fail("VDI %s is in the SR, and nobody knows it",
			text_of(v->uuid, text));
	for (const struct row *r = NULL; (r = db_next_ref(db, VBD_VDI, v->uuid, r));) {
		struct uuid vm = db_ref(r, VBD_VM);

		if (db_bool(r, VBD_CURRENTLY_ATTACHED) && uuid_eq(&vm, &v->writer))
			attached = true;
	}
	/* What could not be released while its storage was broken. */
	if (h->storage_broke && db_enum(vdi, VDI_TYPE) == VDI_TYPE_SUSPEND)
		return;
	if (v->writers + v->readers > 0 && !attached)
		sim_fail("VDI %s (%s) is half activated: nobody uses it",
			text_of(v->uuid, text), row_name(vdi));
}

static void settled_disks(struct sim_host *h)
{
	char text[UUID_TEXT_SIZE];

	for (const struct row *r = NULL; (r = db_next(db_of(h), CLASS_VBD, r));) {
		struct uuid vdi = db_ref(r, VBD_VDI);

		if (!uuid_is_none(&vdi) && !storage_sim_vdi_hash(h->bytes, vdi) &&
			!model_disk(h, vdi)->may_be_gone)
			sim_fail(
				"VDI %s of a drive is not in the SR", text_of(vdi, text));
	}
	for (const struct row *r = NULL; (r = db_next(db_of(h), CLASS_VDI, r));)
		if (*db_string(r, VDI_INTENT))
			sim_fail("VDI %s has an intent left", row_name(r));
	LIST_FOR_EACH (node, &h->disks) {
		struct sim_disk *d = CONTAINER_OF(node, struct sim_disk, node);
		uint64_t now = storage_sim_vdi_hash(h->bytes, d->vdi);

		if (now && now != d->hash)
			sim_fail("VDI %s does not hold what its guest wrote",
				text_of(d->vdi, text));
	}
}

static bool is_known(struct sim_host *h, const struct hyper_domain *d)
{
	/* A ghost bears no VM; it is left alone. */
	return uuid_is_none(&d->vm) || db_row(db_of(h), CLASS_VM, d->vm);
}

static void settled_memory(struct sim_host *h)
{
	const struct memctl *m = vm_memory_controller(vm_host_memory(h->mgr, &h->uuid));
	struct rv_error e;

	if (memctl_reservation_count(m))
		sim_fail("%s: %zu reservations of memory are left", h->name,
			memctl_reservation_count(m));
	if (memctl_check(m, &e))
		sim_fail("%s: %s", h->name, e.detail);
}

void model_settled(struct sim_host *h)
{
	struct hyper_domain domains[SIM_MAX_DOMAINS];
	size_t count = look_domains(h->hyper, domains, SIM_MAX_DOMAINS), vifs = 0;
	const struct db *db = db_of(h);
	char text[UUID_TEXT_SIZE];

	for (const struct row *vm = NULL; (vm = db_next(db, CLASS_VM, vm));)
		settled_vm(h, vm, domains, count);
	for (size_t i = 0; i < count; i++)
		if (!is_known(h, &domains[i]))
			sim_fail("domain %u (%s) belongs to no VM", domains[i].id.domid,
				domains[i].name);
	look_vdis(h->bytes, settled_vdi, h);
	settled_disks(h);
	settled_memory(h);
	for (const struct row *r = NULL; (r = db_next(db, CLASS_VIF, r));)
		vifs += db_bool(r, VIF_CURRENTLY_ATTACHED);
	if (h->net_broke ? vifs < net_sim_vif_count(h->net)
			 : vifs != net_sim_vif_count(h->net))
		sim_fail("%s: %zu interfaces are attached, the port holds %zu", h->name,
			vifs, net_sim_vif_count(h->net));
	model_tasks_are_there(h);
	LIST_FOR_EACH (node, &h->tasks) {
		struct sim_task *t = CONTAINER_OF(node, struct sim_task, node);

		if ((t->accepted || t->seen) && !t->ended_seq)
			sim_fail("task %s (%s) has not ended", text_of(t->uuid, text),
				vm_operation_name(t->kind));
	}
	if (!h->meddled && vm_manager_complaint(h->mgr))
		sim_fail("%s: its own check found: %s", h->name,
			vm_manager_complaint(h->mgr));
}
