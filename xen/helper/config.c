/* A domain of the port as libxl's configuration. */
#include "xen/helper/work.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int no_memory(struct work *w)
{
	return work_fail(w, RV_ENOMEM, "no memory for the domain's configuration");
}

/* libxl frees what its structures hold. NULL for an empty text. */
static char *copy(const char *text)
{
	return text[0] ? strdup(text) : NULL;
}

int work_file(struct work *w, const char *path, const char *what)
{
	if (!path || access(path, R_OK) == 0)
		return 0;
	return work_fail(
		w, RV_EINVAL, "%s %s can't be read: %s", what, path, strerror(errno));
}

/* --- disks --- */

/* The value of a word "key=value" in libxl's disk syntax, of `len` bytes; or NULL. The
 * target is what is left: it may hold commas. */
static const char *disk_word(const char *params, const char *key, size_t *len)
{
	size_t n = strlen(key);

	for (const char *at = params; *at;) {
		size_t word = strcspn(at, ",");

		if (strncmp(at, key, n) == 0 && at[n] == '=') {
			bool last = strcmp(key, "target") == 0;

			*len = last ? strlen(at + n + 1) : word - n - 1;
			return at + n + 1;
		}
		if (strncmp(at, "target=", 7) == 0)
			break;
		at += word + (at[word] == ',');
	}
	return NULL;
}

static const struct {
	const char *name;
	libxl_disk_format format;
} disk_formats[] = {
	{"raw", LIBXL_DISK_FORMAT_RAW},
	{"qcow2", LIBXL_DISK_FORMAT_QCOW2},
	{"qcow", LIBXL_DISK_FORMAT_QCOW},
	{"vhd", LIBXL_DISK_FORMAT_VHD},
	{"qed", LIBXL_DISK_FORMAT_QED},
};

static libxl_disk_format disk_format(const char *name, size_t len)
{
	for (size_t i = 0; i < sizeof disk_formats / sizeof *disk_formats; i++)
		if (strlen(disk_formats[i].name) == len &&
			strncmp(disk_formats[i].name, name, len) == 0)
			return disk_formats[i].format;
	return LIBXL_DISK_FORMAT_UNKNOWN;
}

int work_config_disk(struct work *w, const struct helper_vbd *d, libxl_device_disk *disk)
{
	const char *format, *target = d->params;
	size_t format_len = 0, target_len = strlen(d->params);
	bool is_qdisk = strcmp(d->backend, "qdisk") == 0;

	if (!is_qdisk && strcmp(d->backend, "phy") != 0 &&
		strcmp(d->backend, "loop") != 0)
		return work_fail(w, RV_EINVAL,
			"disk %s has the backend \"%s\"; possible are phy, loop, qdisk",
			d->device, d->backend);
	format = disk_word(d->params, "format", &format_len);
	if (disk_word(d->params, "target", &target_len))
		target = disk_word(d->params, "target", &target_len);
	disk->format = is_qdisk ? LIBXL_DISK_FORMAT_QCOW2 : LIBXL_DISK_FORMAT_RAW;
	if (format)
		disk->format = disk_format(format, format_len);
	if (disk->format == LIBXL_DISK_FORMAT_UNKNOWN || target[0] != '/' ||
		(!is_qdisk && disk->format != LIBXL_DISK_FORMAT_RAW))
		return work_fail(w, RV_EINVAL,
			"disk %s: \"%s\" is nothing that backend %s can serve: give the "
			"path of a device or file",
			d->device, d->params, d->backend);
	disk->backend = is_qdisk ? LIBXL_DISK_BACKEND_QDISK : LIBXL_DISK_BACKEND_PHY;
	disk->pdev_path = strndup(target, target_len);
	disk->vdev = strdup(d->device);
	disk->script = is_qdisk ? NULL : strdup(w->script_block);
	disk->readwrite = !d->read_only && !d->cdrom;
	disk->is_cdrom = d->cdrom;
	disk->removable = 1;
	if (!disk->pdev_path || !disk->vdev || (!is_qdisk && !disk->script))
		return no_memory(w);
	return 0;
}

/* --- interfaces --- */

static bool mac_parse(const char *text, libxl_mac mac)
{
	unsigned int b[6];
	int end = 0;

	if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4],
		    &b[5], &end) != 6 ||
		text[end] != '\0')
		return false;
	for (int i = 0; i < 6; i++)
		mac[i] = (uint8_t)b[i];
	return true;
}

int work_config_nic(struct work *w, const struct helper_vif *v, libxl_device_nic *nic)
{
	if (!mac_parse(v->mac, nic->mac))
		return work_fail(w, RV_EINVAL, "interface %u: \"%s\" is no MAC address",
			v->devid, v->mac);
	if (!v->bridge[0])
		return work_fail(
			w, RV_EINVAL, "interface %u is given no bridge", v->devid);
	nic->devid = (libxl_devid)v->devid;
	nic->nictype = LIBXL_NIC_TYPE_VIF;
	nic->mtu = v->mtu ? (int)v->mtu : 1500;
	nic->bridge = strdup(v->bridge);
	nic->script = strdup(w->script_vif);
	return nic->bridge && nic->script ? 0 : no_memory(w);
}

static int config_devices(struct work *w, libxl_domain_config *c)
{
	const struct helper_domain *d = &w->req->domain;
	int rc = 0;

	c->disks = calloc(d->vbd_count + 1, sizeof *c->disks);
	c->nics = calloc(d->vif_count + 1, sizeof *c->nics);
	if (!c->disks || !c->nics)
		return no_memory(w);
	for (size_t i = 0; !rc && i < d->vbd_count; i++) {
		libxl_device_disk_init(&c->disks[i]);
		c->num_disks++;
		rc = work_config_disk(w, &d->vbds[i], &c->disks[i]);
	}
	for (size_t i = 0; !rc && i < d->vif_count; i++) {
		libxl_device_nic_init(&c->nics[i]);
		c->num_nics++;
		rc = work_config_nic(w, &d->vifs[i], &c->nics[i]);
	}
	return rc;
}

/* --- the domain --- */

/* libxl wants names to be unique on a host; ours need not be. */
static char *config_name(struct work *w)
{
	const char *name = w->req->domain.name;
	char handle[UUID_TEXT_SIZE], text[HYPER_NAME_SIZE + UUID_TEXT_SIZE + 1];
	uint32_t domid;

	uuid_format(&w->req->handle, handle);
	if (!name[0])
		return strdup(handle);
	if (libxl_name_to_domid(w->ctx, name, &domid) != 0)
		return strdup(name);
	snprintf(text, sizeof text, "%s-%.8s", name, handle);
	if (libxl_name_to_domid(w->ctx, text, &domid) == 0)
		snprintf(text, sizeof text, "%s-%s", name, handle);
	return strdup(text);
}

static libxl_action_on_shutdown action(uint32_t on_exit)
{
	switch (on_exit) {
	case HYPER_ON_EXIT_RESTART:
		return LIBXL_ACTION_ON_SHUTDOWN_RESTART;
	case HYPER_ON_EXIT_PRESERVE:
		return LIBXL_ACTION_ON_SHUTDOWN_PRESERVE;
	default:
		return LIBXL_ACTION_ON_SHUTDOWN_DESTROY;
	}
}

/* Words of VM.platform: "tsc_mode=native ...". Others are another driver's. */
static int config_platform(struct work *w, libxl_domain_build_info *b)
{
	char text[HELPER_PLATFORM_SIZE], *save = NULL;

	memcpy(text, w->req->domain.platform, sizeof text);
	for (char *word = strtok_r(text, " ", &save); word;
		word = strtok_r(NULL, " ", &save)) {
		if (strncmp(word, "tsc_mode=", 9) == 0 &&
			libxl_tsc_mode_from_string(word + 9, &b->tsc_mode) != 0)
			return work_fail(w, RV_EINVAL,
				"platform's tsc_mode can't be \"%s\": default, "
				"always_emulate, native or native_paravirt",
				word + 9);
	}
	return 0;
}

static int config_build(struct work *w, libxl_domain_build_info *b, uint64_t boot_kib)
{
	const struct helper_domain *d = &w->req->domain;

	b->max_vcpus = (int)d->vcpus_max;
	if (libxl_cpu_bitmap_alloc(w->ctx, &b->avail_vcpus, (int)d->vcpus_max) != 0)
		return no_memory(w);
	for (uint32_t i = 0; i < d->vcpus_online; i++)
		libxl_bitmap_set(&b->avail_vcpus, (int)i);
	b->max_memkb = d->static_max_kib;
	b->target_memkb = boot_kib;
	libxl_defbool_set(&b->claim_mode, true);
	b->kernel = copy(d->kernel);
	b->ramdisk = copy(d->ramdisk);
	b->cmdline = copy(d->cmdline);
	b->bootloader = copy(d->bootloader);
	return config_platform(w, b);
}

int work_config(struct work *w, libxl_domain_config *c, uint64_t boot_kib)
{
	const struct helper_domain *d = &w->req->domain;
	libxl_domain_type type =
		d->type == HYPER_PV ? LIBXL_DOMAIN_TYPE_PV : LIBXL_DOMAIN_TYPE_PVH;
	int rc;

	if (d->type == HYPER_HVM)
		return work_fail(w, RV_EUNSUPPORTED,
			"guests of type hvm can't be started here: make it pvh or pv");
	if (w->req->call == HYPER_CALL_CREATE && !d->kernel[0] == !d->bootloader[0])
		return work_fail(w, RV_EINVAL,
			"a %s guest is started by a kernel or by a bootloader: one of "
			"the two must be given",
			libxl_domain_type_to_string(type));
	c->c_info.type = type;
	c->c_info.name = config_name(w);
	memcpy(&c->c_info.uuid, w->req->handle.b, sizeof w->req->handle.b);
	if (!c->c_info.name)
		return no_memory(w);
	libxl_domain_build_info_init_type(&c->b_info, type);
	rc = config_build(w, &c->b_info, boot_kib);
	if (!rc)
		rc = config_devices(w, c);
	c->on_poweroff = action(d->on_poweroff);
	c->on_reboot = action(d->on_reboot);
	c->on_crash = action(d->on_crash);
	c->on_watchdog = LIBXL_ACTION_ON_SHUTDOWN_DESTROY;
	c->on_soft_reset = LIBXL_ACTION_ON_SHUTDOWN_SOFT_RESET;
	return rc;
}
