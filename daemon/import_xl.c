#include "daemon/import_xl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/daemon.h"
#include "daemon/ghosts.h"
#include "daemon/tasks.h"
#include "daemon/xl_config.h"
#include "rpc/message.h"
#include "vm/vm_op.h"

enum { IMPORT_MAX_SRS = 64, IMPORT_DEFAULT_MIB = 256 };

struct imports {
	struct daemon *daemon;
	struct list list; /* struct import */
	bool stopped;
};

enum import_state { LOOK, FILES, RECORD, ADOPT, UNDO, DONE, FAILED, STATE_COUNT };

static const struct op_state states[STATE_COUNT] = {
	[LOOK] = {"look", OP_TO(FILES) | OP_TO(FAILED)},
	[FILES] = {"files", OP_TO(RECORD) | OP_TO(UNDO) | OP_TO(FAILED)},
	[RECORD] = {"record", OP_TO(ADOPT) | OP_TO(DONE) | OP_TO(UNDO)},
	[ADOPT] = {"adopt", OP_TO(DONE) | OP_TO(FAILED)},
	[UNDO] = {"undo", OP_TO(FAILED)},
	[DONE] = {"done", 0},
	[FAILED] = {"failed", 0},
};

static const struct op_table table = {"vm.import-xl", states, STATE_COUNT, LOOK};

struct import {
	struct op op;
	struct list node;
	struct imports *all;
	struct call *call;
	struct xl_config config;
	struct hyper_req req;
	bool runs; /* a ghost of that name is there */
	uint32_t domid;
	struct import_sr srs[IMPORT_MAX_SRS];
	size_t sr_count;
	struct import_file files[HYPER_MAX_VBDS]; /* of config.disks */
	struct job job;
	bool undoing;
	struct uuid vm, made[HYPER_MAX_VBDS + 2 * HYPER_MAX_VIFS];
	struct uuid networks[HYPER_MAX_VIFS];
	char macs[HYPER_MAX_VIFS][NET_MAC_SIZE];
	struct vm_entry entry;
};

static struct import *import_of(struct op *op)
{
	return CONTAINER_OF(op, struct import, op);
}

static const struct db *db_of(const struct import *im)
{
	return pool_db(im->all->daemon->pool);
}

/* --- what it comes to --- */

static void txn_memory(struct import *im, struct txn *t)
{
	const struct xl_config *c = &im->config;
	int64_t now = (int64_t)(c->memory_mib ? c->memory_mib : IMPORT_DEFAULT_MIB),
		most = (int64_t)c->maxmem_mib > now ? (int64_t)c->maxmem_mib : now;

	txn_set_int(t, im->vm, VM_MEMORY_STATIC_MIN, (now < 16 ? now : 16) << 20);
	txn_set_int(t, im->vm, VM_MEMORY_DYNAMIC_MIN, now << 20);
	txn_set_int(t, im->vm, VM_MEMORY_DYNAMIC_MAX, now << 20);
	txn_set_int(t, im->vm, VM_MEMORY_STATIC_MAX, most << 20);
}

static void txn_cpus(struct import *im, struct txn *t)
{
	const struct xl_config *c = &im->config;
	uint32_t online = c->vcpus ? c->vcpus : 1,
		 most = c->maxvcpus > online ? c->maxvcpus : online;
	char text[16];

	txn_set_int(t, im->vm, VM_VCPUS_MAX, most);
	txn_set_int(t, im->vm, VM_VCPUS_AT_STARTUP, online);
	if (c->cpu_weight) {
		snprintf(text, sizeof text, "%u", c->cpu_weight);
		txn_map_put(t, im->vm, VM_VCPUS_PARAMS, "weight", text);
	}
	if (c->cpu_cap) {
		snprintf(text, sizeof text, "%u", c->cpu_cap);
		txn_map_put(t, im->vm, VM_VCPUS_PARAMS, "cap", text);
	}
}

static void txn_boot(struct import *im, struct txn *t)
{
	const struct xl_config *c = &im->config;

	txn_set_enum(t, im->vm, VM_DOMAIN_TYPE, (int)c->type);
	txn_set_string(t, im->vm, VM_PV_KERNEL, c->kernel);
	txn_set_string(t, im->vm, VM_PV_RAMDISK, c->ramdisk);
	txn_set_string(t, im->vm, VM_PV_ARGS, c->cmdline);
	txn_set_string(t, im->vm, VM_PV_BOOTLOADER, c->bootloader);
	txn_set_string(t, im->vm, VM_PV_BOOTLOADER_ARGS, c->bootloader_args);
	if (c->type == HYPER_HVM && !c->kernel[0])
		txn_set_string(t, im->vm, VM_HVM_BOOT_POLICY, "BIOS order");
	if (c->boot[0])
		txn_map_put(t, im->vm, VM_HVM_BOOT_PARAMS, "order", c->boot);
	if (c->firmware[0])
		txn_map_put(t, im->vm, VM_HVM_BOOT_PARAMS, "firmware", c->firmware);
	/* The two enums are in the same order. */
	txn_set_enum(t, im->vm, VM_ACTIONS_AFTER_SHUTDOWN, (int)c->on_poweroff);
	txn_set_enum(t, im->vm, VM_ACTIONS_AFTER_REBOOT, (int)c->on_reboot);
	txn_set_enum(t, im->vm, VM_ACTIONS_AFTER_CRASH, (int)c->on_crash);
}

static void txn_disk(struct import *im, size_t i, struct txn *t)
{
	const struct xl_disk *d = &im->config.disks[i];
	const struct import_file *f = &im->files[i];
	struct uuid vbd = im->made[i], sr = im->srs[f->sr].uuid;
	const char *base = strrchr(f->path, '/');
	char text[UUID_TEXT_SIZE + 8], uuid[UUID_TEXT_SIZE];

	if (f->is_vdi) { /* and its file is not on its way in or out */
		txn_expect_exists(t, CLASS_VDI, f->vdi);
		txn_expect_string(t, f->vdi, VDI_INTENT, "");
	} else {
		txn_expect_string(t, sr, SR_INTENT, "");
		txn_create(t, CLASS_VDI, f->vdi);
		txn_set_ref(t, f->vdi, VDI_SR, sr);
		txn_set_string(t, f->vdi, VDI_NAME_LABEL, base ? base + 1 : f->path);
		txn_set_int(t, f->vdi, VDI_VIRTUAL_SIZE, (int64_t)f->size);
		snprintf(text, sizeof text, "%s.raw", uuid_format(&f->vdi, uuid));
		txn_set_string(t, f->vdi, VDI_LOCATION, text);
		txn_map_put(t, f->vdi, VDI_OTHER_CONFIG, "imported_from", f->path);
	}
	txn_create(t, CLASS_VBD, vbd);
	txn_set_ref(t, vbd, VBD_VM, im->vm);
	txn_set_ref(t, vbd, VBD_VDI, f->vdi);
	snprintf(text, sizeof text, "%d", d->place);
	txn_set_string(t, vbd, VBD_USERDEVICE, text);
	txn_set_string(t, vbd, VBD_DEVICE, d->vdev);
	txn_set_enum(t, vbd, VBD_MODE, d->read_only ? VBD_MODE_RO : VBD_MODE_RW);
	txn_set_bool(t, vbd, VBD_BOOTABLE, d->place == 0);
}

static const char *bridge_of(const struct import *im, size_t i)
{
	const char *bridge = im->config.vifs[i].bridge;

	return bridge[0] ? bridge : "xenbr0"; /* vif.default.bridge */
}

/* The network of that bridge, which is the admin's own; one is made where none is. */
static void txn_network(struct import *im, size_t i, struct txn *t)
{
	const struct db *db = db_of(im);
	struct uuid uuid = im->made[HYPER_MAX_VBDS + HYPER_MAX_VIFS + i];
	char name[48];

	for (size_t before = 0; before < i; before++)
		if (strcmp(bridge_of(im, before), bridge_of(im, i)) == 0) {
			im->networks[i] = im->networks[before];
			return;
		}
	for (const struct row *n = NULL; (n = db_next(db, CLASS_NETWORK, n));)
		if (strcmp(db_string(n, NETWORK_BRIDGE), bridge_of(im, i)) == 0) {
			im->networks[i] = row_uuid(n);
			return;
		}
	im->networks[i] = uuid;
	snprintf(name, sizeof name, "bridge %s", bridge_of(im, i));
	txn_expect_name_free(t, CLASS_NETWORK, name);
	txn_create(t, CLASS_NETWORK, uuid);
	txn_set_string(t, uuid, NETWORK_NAME_LABEL, name);
	txn_set_string(t, uuid, NETWORK_BRIDGE, bridge_of(im, i));
	txn_set_bool(t, uuid, NETWORK_MANAGED, false);
}

static void txn_vif(struct import *im, size_t i, struct txn *t)
{
	struct uuid vif = im->made[HYPER_MAX_VBDS + i];
	char text[24];

	txn_create(t, CLASS_VIF, vif);
	txn_set_ref(t, vif, VIF_VM, im->vm);
	txn_set_ref(t, vif, VIF_NETWORK, im->networks[i]);
	snprintf(text, sizeof text, "%zu", i);
	txn_set_string(t, vif, VIF_DEVICE, text);
	txn_set_string(t, vif, VIF_MAC, im->macs[i]);
	txn_set_bool(t, vif, VIF_MAC_AUTOGENERATED, !im->config.vifs[i].mac[0]);
}

static void txn_import(void *arg, const struct db *db, struct txn *t)
{
	static const char *const starts[] = {"start", "start_on", "resume"};
	struct import *im = arg;
	struct value result = value_ref(im->vm);

	(void)db;
	txn_expect_name_free(t, CLASS_VM, im->config.name);
	for (size_t i = 0; i < im->config.vif_count; i++)
		txn_network(im, i, t);
	txn_create(t, CLASS_VM, im->vm);
	txn_set_string(t, im->vm, VM_NAME_LABEL, im->config.name);
	txn_memory(im, t);
	txn_cpus(im, t);
	txn_boot(im, t);
	for (size_t i = 0; im->runs && i < sizeof starts / sizeof starts[0]; i++)
		txn_map_put(t, im->vm, VM_BLOCKED_OPERATIONS, starts[i], GHOSTS_BLOCKED);
	for (size_t i = 0; i < im->config.disk_count; i++)
		if (!im->files[i].why[0])
			txn_disk(im, i, t);
	for (size_t i = 0; i < im->config.vif_count; i++)
		txn_vif(im, i, t);
	if (!im->runs && !uuid_is_none(&im->call->request))
		tasks_add_finished(im->call, t, im->vm, &result);
}

static bool import_holds(void *arg, const struct db *db)
{
	struct import *im = arg;

	return db_row(db, CLASS_VM, im->vm) != NULL;
}

/* --- steps --- */

static void import_stepped(void *arg, uint64_t token, int rc)
{
	struct import *im = arg;

	(void)rc;
	if (op_resume(&im->op, token))
		im->op.step(&im->op);
}

static void import_end(struct import *im)
{
	op_move(&im->op, im->op.error.code ? FAILED : DONE);
	op_finish(&im->op);
}

static void files_run(struct job *job)
{
	struct import *im = CONTAINER_OF(job, struct import, job);

	for (size_t i = 0; i < im->config.disk_count; i++) {
		if (im->undoing)
			import_file_undo(&im->files[i], im->srs);
		else if (!im->files[i].why[0])
			import_file_take(&im->files[i], im->srs, im->sr_count);
	}
}

static void files_done(struct job *job, int rc)
{
	struct import *im = CONTAINER_OF(job, struct import, job);

	if (!im->op.awaiting || !op_resume(&im->op, im->op.token))
		return;
	if (rc)
		op_fail(&im->op, RV_ECLOSED, "the daemon ends");
	im->op.step(&im->op);
}

static void submit_files(struct import *im)
{
	(void)op_await(&im->op, 0);
	im->job = (struct job){
		.run = files_run, .done = files_done, .name = "import.files"};
	if (worker_submit(im->all->daemon->worker, &im->job) == 0)
		return;
	(void)op_resume(&im->op, im->op.token);
	op_fail(&im->op, RV_ELIMIT, "too much is being looked at; ask again later");
	import_end(im);
}

static void enter_undo(struct import *im)
{
	im->undoing = true;
	op_move(&im->op, UNDO);
	submit_files(im);
}

/* The guest of that name, if it runs and is nobody's. */
static void find_guest(struct import *im)
{
	struct daemon *d = im->all->daemon;

	for (size_t i = 0; i < im->req.domain_count; i++) {
		const struct hyper_domain *domain = &im->req.domains[i];

		if (strcmp(domain->name, im->config.name) != 0 ||
			!vm_ghost_is(d->vms, &d->host, &domain->id))
			continue;
		im->runs = true;
		im->domid = domain->id.domid;
		im->config.type = domain->type;
	}
}

static void list_srs(struct import *im)
{
	const struct db *db = db_of(im);

	for (const struct row *pbd = NULL;
		(pbd = db_next_ref(db, PBD_HOST, im->all->daemon->host, pbd));) {
		const char *location = db_map_get(pbd, PBD_DEVICE_CONFIG, "location");
		const struct row *sr = db_follow(db, pbd, PBD_SR);
		struct import_sr *out = &im->srs[im->sr_count];

		if (!location || !sr || !db_bool(pbd, PBD_CURRENTLY_ATTACHED) ||
			strcmp(db_string(sr, SR_TYPE), "file") != 0 ||
			im->sr_count == IMPORT_MAX_SRS)
			continue;
		out->uuid = row_uuid(sr);
		snprintf(out->location, sizeof out->location, "%s", location);
		im->sr_count++;
	}
}

/* Told in words, before any file is touched; the entry expects it too. */
static int check_name(struct import *im)
{
	if (!db_by_name(db_of(im), CLASS_VM, im->config.name, NULL))
		return 0;
	return op_fail(&im->op, RV_EEXIST,
		"there is a VM %s already; vm-adopt vm=%s gives it the running domain",
		im->config.name, im->config.name);
}

static void enter_files(struct import *im)
{
	struct prng *prng = loop_prng(im->all->daemon->loop);

	if (im->req.rc || check_name(im)) {
		if (im->req.rc)
			op_fail_with(&im->op, &im->req.error);
		import_end(im);
		return;
	}
	find_guest(im);
	list_srs(im);
	for (size_t i = 0; i < im->config.disk_count; i++) {
		const struct xl_disk *d = &im->config.disks[i];
		struct import_file *f = &im->files[i];

		f->vdi = uuid_random(prng);
		snprintf(f->path, sizeof f->path, "%s", d->target);
		if (d->cdrom || !d->target[0])
			snprintf(f->why, sizeof f->why, "CD drives are not taken");
		else if (strcmp(d->format, "raw") != 0)
			snprintf(f->why, sizeof f->why,
				"only raw files are taken in place: qemu-img convert it");
	}
	op_move(&im->op, FILES);
	submit_files(im);
}

/* A disk that is a VDI already must be one that nobody has. */
static void check_vdi(struct import *im, struct import_file *f)
{
	const struct row *vdi = db_row(db_of(im), CLASS_VDI, f->vdi);

	if (!vdi)
		snprintf(f->why, sizeof f->why,
			"it is named as a VDI that the pool does not know: sr-scan");
	else if (db_next_ref(db_of(im), VBD_VDI, f->vdi, NULL))
		snprintf(f->why, sizeof f->why, "it is the disk of another VM");
}

static int choose_macs(struct import *im)
{
	const struct db *db = db_of(im);
	struct rv_error e = {0};

	for (size_t i = 0; i < im->config.vif_count; i++) {
		const char *wanted = im->config.vifs[i].mac;

		if (!wanted[0])
			net_mac_random(loop_prng(im->all->daemon->loop), im->macs[i]);
		else if (net_mac_parse(wanted, im->macs[i], &e))
			return op_fail_with(&im->op, &e);
		for (const struct row *vif = NULL; (vif = db_next(db, CLASS_VIF, vif));)
			if (strcmp(db_string(vif, VIF_MAC), im->macs[i]) == 0)
				return op_fail(&im->op, RV_EEXIST,
					"MAC %s is that of VM %s already", im->macs[i],
					row_name(db_follow(db, vif, VIF_VM)));
		if (!wanted[0])
			xl_config_note(&im->config,
				"vif %zu: its MAC is not in the file; from its next "
				"start on it is %s",
				i, im->macs[i]);
	}
	return 0;
}

static void in_files(struct import *im)
{
	const char *first = NULL;

	for (size_t i = 0; i < im->config.disk_count; i++) {
		struct import_file *f = &im->files[i];

		if (f->is_vdi && !f->why[0])
			check_vdi(im, f);
		if (!f->why[0])
			continue;
		xl_config_note(&im->config, "disk %.60s (%s): not taken: %.100s", f->path,
			im->config.disks[i].vdev, f->why);
		im->config.devices_left |= !im->config.disks[i].cdrom;
	}
	for (size_t i = 0; i < im->config.note_count && !first; i++)
		if (strncmp(im->config.notes[i], "disk", 4) == 0 ||
			strncmp(im->config.notes[i], "vif", 3) == 0)
			first = im->config.notes[i];
	if (!im->op.error.code && im->runs && im->config.devices_left)
		op_fail(&im->op, RV_ENOTALLOWED,
			"VM %s runs as domain %u, and not all it has can be taken over: "
			"%s. Nothing was changed; shut it down with xl and import it "
			"then",
			im->config.name, im->domid, first ? first : "see its devices");
	if (im->op.error.code || choose_macs(im)) {
		enter_undo(im);
		return;
	}
	op_move(&im->op, RECORD);
	vm_entry_commit(&im->entry, txn_import, import_holds, false, import_stepped, im,
		op_await(&im->op, 0));
}

static void adopted(void *arg, struct uuid vm, int rc, const struct rv_error *e)
{
	struct import *im = arg;

	(void)vm;
	if (im->all->stopped || !op_resume(&im->op, im->op.token))
		return;
	if (rc)
		op_fail(&im->op, rc,
			"VM %s was made, but domain %u still runs beside it: %.500s. Use "
			"vm-adopt vm=%s domid=%u",
			im->config.name, im->domid, e->detail, im->config.name,
			im->domid);
	import_end(im);
}

static void in_record(struct import *im)
{
	struct rv_error e = {0};

	if (im->entry.rc) {
		op_fail_with(&im->op, &im->entry.error);
		enter_undo(im);
		return;
	}
	if (!im->runs) {
		import_end(im);
		return;
	}
	op_move(&im->op, ADOPT);
	(void)op_await(&im->op, 0);
	if (ghosts_adopt(im->all->daemon->ghosts, im->domid, im->vm, "", im->call,
		    adopted, im, &e))
		adopted(im, im->vm, e.code, &e);
}

static void import_step(struct op *op)
{
	struct import *im = import_of(op);

	if (op->awaiting)
		return;
	switch ((enum import_state)op->state) {
	case LOOK:
		im->req.token = op_await(op, 0);
		hyper_list(im->all->daemon->hyper, &im->req);
		return;
	case FILES:
		in_files(im);
		return;
	case RECORD:
		in_record(im);
		return;
	case UNDO:
		import_end(im);
		return;
	default:
		vm_op_lost(op);
	}
}

static void import_listed(void *arg, struct hyper_req *req)
{
	struct import *im = arg;

	if (op_resume(&im->op, req->token))
		enter_files(im); /* the list is there in this callback only */
}

/* --- the call --- */

static void import_free(struct import *im)
{
	list_remove(&im->node);
	free(im);
}

static void import_reply(struct import *im)
{
	char text[UUID_TEXT_SIZE];
	msgpack_packer *pk = call_reply_begin(im->call);

	msgpack_pack_map(pk, 3);
	rpc_pack_key(pk, "VM");
	rpc_pack_key(pk, uuid_format(&im->vm, text));
	rpc_pack_key(pk, "adopted");
	im->runs ? msgpack_pack_true(pk) : msgpack_pack_false(pk);
	rpc_pack_key(pk, "notes");
	msgpack_pack_array(pk, im->config.note_count);
	for (size_t i = 0; i < im->config.note_count; i++)
		rpc_pack_text(pk, im->config.notes[i]);
	call_reply_end(im->call);
}

static void import_done(struct op *op)
{
	struct import *im = import_of(op);

	if (op->state == DONE)
		import_reply(im);
	else if (!tasks_join_first(im->call))
		call_fail(im->call, &op->error);
	import_free(im);
}

static void import_begin(struct import *im)
{
	struct daemon *d = im->all->daemon;
	struct prng *prng = loop_prng(d->loop);

	im->vm = uuid_random(prng);
	for (size_t i = 0; i < sizeof im->made / sizeof im->made[0]; i++)
		im->made[i] = uuid_random(prng);
	hyper_req_init(&im->req, import_listed, im);
	vm_entry_init(&im->entry, d->loop, d->pool);
	list_push_back(&im->all->list, &im->node);
	op_start(&im->op, d->loop, &table, import_step, import_done, im->config.name);
}

void vm_import_xl(struct call *c)
{
	const char *text = call_text(c, "text");
	const struct row *host = NULL;
	struct rv_error e = {0};
	struct import *im;
	struct uuid uuid;

	if (call_arg(c, "host")) {
		host = call_row(c, "host");
		if (!host)
			return;
		uuid = row_uuid(host);
		if (!uuid_eq(&uuid, &c->daemon->host)) {
			call_failf(c, RV_ENOTALLOWED,
				"host %s is another machine; ask it there",
				row_name(host));
			return;
		}
	}
	im = calloc(1, sizeof *im);
	if (!im || call_keep(c)) {
		free(im);
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return;
	}
	im->all = c->daemon->imports;
	im->call = c;
	if (xl_config_parse(&im->config, text, strlen(text), &e) ||
		call_name_check(CLASS_VM, im->config.name, &e)) {
		free(im);
		call_fail(c, &e);
		return;
	}
	import_begin(im);
}

/* --- life --- */

int imports_new(struct imports **out, struct daemon *d)
{
	struct imports *all = calloc(1, sizeof *all);

	*out = all;
	if (!all)
		return RV_ENOMEM;
	all->daemon = d;
	list_init(&all->list);
	return 0;
}

void imports_stop(struct imports *all)
{
	if (!all || all->stopped)
		return;
	all->stopped = true;
	LIST_FOR_EACH (node, &all->list) {
		struct import *im = CONTAINER_OF(node, struct import, node);

		op_drop(&im->op);
		vm_entry_stop(&im->entry);
	}
}

void imports_free(struct imports *all)
{
	if (!all)
		return;
	LIST_FOR_EACH_SAFE (node, &all->list)
		import_free(CONTAINER_OF(node, struct import, node));
	free(all);
}
