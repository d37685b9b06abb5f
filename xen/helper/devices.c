/* Hot-plug of disks and interfaces. */
#include "xen/helper/work.h"

#include <stdlib.h>
#include <string.h>

/* --- disks --- */

/* Copies the disk with this number; RV_ENOENT: none. */
static int disk_find(
	struct work *w, uint32_t domid, uint32_t devid, libxl_device_disk *out)
{
	int count = 0, rc = RV_ENOENT;
	libxl_device_disk *disks = libxl_device_disk_list(w->ctx, domid, &count);

	for (int i = 0; rc == RV_ENOENT && i < count; i++) {
		libxl_diskinfo info;

		libxl_diskinfo_init(&info);
		if (libxl_device_disk_getinfo(w->ctx, domid, &disks[i], &info) == 0 &&
			(uint32_t)info.devid == devid) {
			libxl_device_disk_copy(w->ctx, out, &disks[i]);
			rc = 0;
		}
		libxl_diskinfo_dispose(&info);
	}
	libxl_device_disk_list_free(disks, count);
	return rc;
}

static bool same_text(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") == 0;
}

static int attach_disk(struct work *w, uint32_t domid)
{
	const struct helper_vbd *d = &w->req->domain.vbds[0];
	libxl_device_disk disk, there;
	int rc;

	libxl_device_disk_init(&disk);
	libxl_device_disk_init(&there);
	rc = work_config_disk(w, d, &disk);
	if (!rc && disk_find(w, domid, d->devid, &there) == 0) {
		bool same = same_text(there.pdev_path, disk.pdev_path) &&
			    !there.readwrite == !disk.readwrite &&
			    there.backend == disk.backend;

		if (!same)
			rc = work_fail(w, RV_EEXIST,
				"the domain has another disk as %s: detach it first",
				d->device);
	} else if (!rc) {
		rc = work_file(w, disk.pdev_path, "the disk");
	}
	if (!rc && !there.vdev) {
		int r;

		work_begun(w);
		r = libxl_device_disk_add(w->ctx, domid, &disk, NULL);
		if (r != 0) {
			work_hotplug_words(w, domid);
			rc = work_fail(w, RV_EHYPERVISOR,
				"disk %s can't be attached (%d)", d->device, r);
		}
	}
	libxl_device_disk_dispose(&disk);
	libxl_device_disk_dispose(&there);
	return rc;
}

/* A guest that doesn't run can't agree. */
static int detach_disk(struct work *w, uint32_t domid, bool runs)
{
	libxl_device_disk disk;
	int rc, r;

	libxl_device_disk_init(&disk);
	rc = disk_find(w, domid, w->req->devid, &disk);
	if (rc == 0) {
		r = runs ? libxl_device_disk_remove(w->ctx, domid, &disk, NULL)
			 : libxl_device_disk_destroy(w->ctx, domid, &disk, NULL);
		if (r != 0 && disk_find(w, domid, w->req->devid, &disk) == 0)
			rc = work_fail(w, RV_EHYPERVISOR,
				"disk %s can't be detached (%d)",
				disk.vdev ? disk.vdev : "?", r);
	}
	libxl_device_disk_dispose(&disk);
	return rc == RV_ENOENT ? 0 : rc;
}

/* --- interfaces --- */

static int nic_find(struct work *w, uint32_t domid, uint32_t devid, libxl_device_nic *out)
{
	int count = 0, rc = RV_ENOENT;
	libxl_device_nic *nics = libxl_device_nic_list(w->ctx, domid, &count);

	for (int i = 0; rc == RV_ENOENT && i < count; i++) {
		if ((uint32_t)nics[i].devid != devid)
			continue;
		libxl_device_nic_copy(w->ctx, out, &nics[i]);
		rc = 0;
	}
	libxl_device_nic_list_free(nics, count);
	return rc;
}

static int attach_nic(struct work *w, uint32_t domid)
{
	const struct helper_vif *v = &w->req->domain.vifs[0];
	libxl_device_nic nic, there;
	int rc;

	libxl_device_nic_init(&nic);
	libxl_device_nic_init(&there);
	rc = work_config_nic(w, v, &nic);
	if (!rc && nic_find(w, domid, v->devid, &there) == 0) {
		if (!same_text(there.bridge, nic.bridge) ||
			memcmp(there.mac, nic.mac, sizeof nic.mac) != 0)
			rc = work_fail(w, RV_EEXIST,
				"the domain has another interface %u: detach it first",
				v->devid);
	} else if (!rc) {
		int r;

		work_begun(w);
		r = libxl_device_nic_add(w->ctx, domid, &nic, NULL);
		if (r != 0) {
			work_hotplug_words(w, domid);
			rc = work_fail(w, RV_EHYPERVISOR,
				"interface %u can't be attached (%d)", v->devid, r);
		}
	}
	libxl_device_nic_dispose(&nic);
	libxl_device_nic_dispose(&there);
	return rc;
}

static int detach_nic(struct work *w, uint32_t domid, bool runs)
{
	libxl_device_nic nic;
	int rc, r;

	libxl_device_nic_init(&nic);
	rc = nic_find(w, domid, w->req->devid, &nic);
	if (rc == 0) {
		r = runs ? libxl_device_nic_remove(w->ctx, domid, &nic, NULL)
			 : libxl_device_nic_destroy(w->ctx, domid, &nic, NULL);
		if (r != 0 && nic_find(w, domid, w->req->devid, &nic) == 0)
			rc = work_fail(w, RV_EHYPERVISOR,
				"interface %u can't be detached (%d)", w->req->devid, r);
	}
	libxl_device_nic_dispose(&nic);
	return rc == RV_ENOENT ? 0 : rc;
}

/* --- both --- */

static int device_domain(struct work *w, xc_domaininfo_t *info, bool *runs)
{
	int rc = work_domain(w, info);

	if (!rc)
		rc = work_libxl(w);
	if (!rc)
		*runs = !(info->flags &
			  (XEN_DOMINF_paused | XEN_DOMINF_shutdown | XEN_DOMINF_dying));
	return rc;
}

int work_attach(struct work *w)
{
	xc_domaininfo_t info;
	bool runs;
	int rc = device_domain(w, &info, &runs);

	if (rc)
		return rc;
	if (w->req->call == HYPER_CALL_ATTACH_VBD)
		return attach_disk(w, info.domain);
	return attach_nic(w, info.domain);
}

int work_detach(struct work *w)
{
	xc_domaininfo_t info;
	bool runs = false;
	int rc = device_domain(w, &info, &runs);

	if (rc)
		return rc;
	if (w->req->call == HYPER_CALL_DETACH_VBD)
		return detach_disk(w, info.domain, runs);
	return detach_nic(w, info.domain, runs);
}
