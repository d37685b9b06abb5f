/*
 * Reads a guest's configuration as `xl create` takes it (xl.cfg(5),
 * xl-disk-configuration, xl-network-configuration). Pure; the text is whatever somebody
 * sent.
 *
 * What a VM of ours can't be, or what is not known, is no error: it is told in `notes`,
 * so that nothing is left out in silence. An error is a text that xl would not read
 * either, or one beyond the limits below; it names the line.
 */
#ifndef REEVE_DAEMON_XL_CONFIG_H
#define REEVE_DAEMON_XL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "xen/hyper.h"

enum {
	XL_CONFIG_TEXT_MAX = 64 * 1024,
	XL_CONFIG_MAX_NOTES = 48,
	XL_CONFIG_NOTE_SIZE = 200,
	XL_CONFIG_PATH_SIZE = 512,
	XL_CONFIG_ARGS_SIZE = 1024,
	XL_CONFIG_MAX_ITEMS = 64, /* of a list */
};

struct xl_disk {
	char target[XL_CONFIG_PATH_SIZE]; /* file or block device; empty: no medium */
	char format[16];		  /* "raw", "qcow2", ... */
	int place;			  /* 0: xvda; -1: no place that a VBD can have */
	char vdev[16];			  /* as it was written */
	bool read_only, cdrom;
	bool special; /* a script or a backend in another domain serves it */
};

struct xl_vif {
	char mac[18];	 /* empty: xl chooses */
	char bridge[16]; /* empty: xl's default */
	bool special;	 /* another script, or a backend in another domain */
};

struct xl_config {
	char name[128]; /* never empty */
	enum hyper_type type;
	bool has_type;
	uint64_t memory_mib, maxmem_mib; /* 0: not said */
	uint32_t vcpus, maxvcpus;	 /* 0: not said */
	char kernel[XL_CONFIG_PATH_SIZE], ramdisk[XL_CONFIG_PATH_SIZE];
	char cmdline[XL_CONFIG_ARGS_SIZE]; /* root= and extra= are in it, as xl does */
	char bootloader[XL_CONFIG_PATH_SIZE], bootloader_args[XL_CONFIG_ARGS_SIZE];
	char boot[8], firmware[16];
	enum hyper_on_exit on_poweroff, on_reboot, on_crash;
	uint32_t cpu_weight, cpu_cap; /* 0: not said */
	struct xl_disk disks[HYPER_MAX_VBDS];
	size_t disk_count;
	struct xl_vif vifs[HYPER_MAX_VIFS];
	size_t vif_count;
	char notes[XL_CONFIG_MAX_NOTES][XL_CONFIG_NOTE_SIZE]; /* printable */
	size_t note_count;
	bool devices_left; /* a disk or vif could not be taken at all: see notes */
};

/* RV_EINVAL, RV_ETOOBIG. *out is defined only after 0. */
int xl_config_parse(struct xl_config *out, const char *text, size_t len,
	struct rv_error *e) RV_MUST_CHECK;

/* Adds to the notes; beyond their number the last says that there are more. */
void xl_config_note(struct xl_config *c, const char *fmt, ...) RV_PRINTF(2, 3);

#endif
