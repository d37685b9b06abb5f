#include "vm/vm_domain.h"

#include <stdio.h>

static int platform_text(const struct row *vm, char *text, size_t size)
{
	const struct value *map = row_value(vm, VM_PLATFORM);
	size_t len = 0;

	text[0] = '\0';
	for (size_t i = 0; i < value_count(map); i++) {
		int n = snprintf(text + len, size - len, "%s%s=%s", i ? " " : "",
			value_key_at(map, i), value_at(map, i));
		if (n < 0 || (size_t)n >= size - len)
			return RV_ETOOBIG;
		len += (size_t)n;
	}
	return 0;
}

static const char *text_or_null(const char *text)
{
	return *text ? text : NULL;
}

int vm_domain_describe(struct vm_domain_spec *s, const struct vm_op *o,
	struct uuid handle, uint64_t generation, uint64_t target_kib,
	const struct vm_devices *devices, struct rv_error *e)
{
	const struct row *vm = o->row;
	char text[UUID_TEXT_SIZE];

	s->spec = (struct hyper_domain_spec){
		.vm = o->vm,
		.handle = handle,
		.generation = generation,
		.name = s->name,
		.type = (enum hyper_type)db_enum(vm, VM_DOMAIN_TYPE),
		.vcpus_max = (uint32_t)db_int(vm, VM_VCPUS_MAX),
		.vcpus_online = (uint32_t)db_int(vm, VM_VCPUS_AT_STARTUP),
		.static_max_kib = (uint64_t)db_int(vm, VM_MEMORY_STATIC_MAX) >> 10,
		.target_kib = target_kib,
		.kernel = text_or_null(db_string(vm, VM_PV_KERNEL)),
		.ramdisk = text_or_null(db_string(vm, VM_PV_RAMDISK)),
		.cmdline = text_or_null(db_string(vm, VM_PV_ARGS)),
		.bootloader = text_or_null(db_string(vm, VM_PV_BOOTLOADER)),
		.vbds = s->vbds,
		.vifs = s->vifs,
		.console = true,
		.on_poweroff = HYPER_ON_EXIT_PRESERVE,
		.on_reboot = HYPER_ON_EXIT_PRESERVE,
		.on_crash = HYPER_ON_EXIT_PRESERVE,
		.platform = s->platform,
	};
	vm_cpu_shown(pool_db(o->mgr->pool), o->host->uuid, &s->cpu);
	if (s->cpu.len) {
		s->spec.cpu_policy = s->cpu.policy;
		s->spec.cpu_policy_len = s->cpu.len;
	}
	/* Unique on the host whatever people call their VMs, and short enough. */
	snprintf(s->name, sizeof s->name, "%.80s-%.8s", o->name,
		uuid_format(&o->vm, text));
	if (platform_text(vm, s->platform, sizeof s->platform))
		return rv_error_set(e, RV_ETOOBIG,
			"VM %s: its platform map is too long; shorten it "
			"(vm-param-remove)",
			o->name);
	for (size_t i = 0; i < devices->count; i++) {
		const struct vm_device *v = &devices->list[i];

		if (v->kind == VM_DEVICE_DISK)
			vm_device_vbd(v, &s->vbds[s->spec.vbd_count++]);
		else
			vm_device_vif(v, &s->vifs[s->spec.vif_count++]);
	}
	return 0;
}

void vm_domain_txn_boot(struct vm_op *o, const struct db *db, struct txn *t)
{
	vm_cpu_txn_boot(o, db, t);
	if (db_bool(db_row(db, CLASS_VM, o->vm), VM_BALLOON_PROVEN))
		txn_set_bool(t, o->vm, VM_BALLOON_PROVEN, false);
}

struct memctl_domain vm_domain_memory(
	const struct row *vm, uint32_t domid, uint64_t target_kib, bool boots_full)
{
	uint64_t static_max_kib = (uint64_t)db_int(vm, VM_MEMORY_STATIC_MAX) >> 10;

	return (struct memctl_domain){
		.domid = domid,
		.vm = row_uuid(vm),
		.static_min_kib = (uint64_t)db_int(vm, VM_MEMORY_STATIC_MIN) >> 10,
		.static_max_kib = static_max_kib,
		.dynamic_min_kib = (uint64_t)db_int(vm, VM_MEMORY_DYNAMIC_MIN) >> 10,
		.dynamic_max_kib = (uint64_t)db_int(vm, VM_MEMORY_DYNAMIC_MAX) >> 10,
		.actual_kib = target_kib,
		.target_kib = target_kib,
		.maxmem_kib = boots_full ? static_max_kib : target_kib,
		.proven = db_bool(vm, VM_BALLOON_PROVEN),
		.mode = MEMCTL_BUILDING,
	};
}
