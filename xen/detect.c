#include "xen/detect.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The first line of a small file without its newline; empty when there is none. */
static void read_line(const char *root, const char *path, char *text, size_t size)
{
	char full[512];
	ssize_t r;
	int fd;

	text[0] = '\0';
	snprintf(full, sizeof full, "%s%s", root, path);
	fd = open(full, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	r = read(fd, text, size - 1);
	close(fd);
	text[r > 0 ? r : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
}

static void read_version(const char *root, struct hyper_detection *out)
{
	char major[16], minor[16], extra[24];

	read_line(root, "/sys/hypervisor/version/major", major, sizeof major);
	read_line(root, "/sys/hypervisor/version/minor", minor, sizeof minor);
	read_line(root, "/sys/hypervisor/version/extra", extra, sizeof extra);
	if (major[0] == '\0' || minor[0] == '\0')
		return;
	out->version_major = (uint32_t)strtoul(major, NULL, 10);
	out->version_minor = (uint32_t)strtoul(minor, NULL, 10);
	snprintf(out->version, sizeof out->version, "%s.%s%s", major, minor, extra);
}

void hyper_detect(const char *root, struct hyper_detection *out)
{
	char type[32], capabilities[128];

	memset(out, 0, sizeof *out);
	read_line(root, "/sys/hypervisor/type", type, sizeof type);
	read_line(root, "/proc/xen/capabilities", capabilities, sizeof capabilities);
	/* Xen writes control_d into its control domain's capabilities. */
	if (strstr(capabilities, "control_d") != NULL) {
		out->here = HYPER_HERE_DOM0;
		read_version(root, out);
		snprintf(out->text, sizeof out->text,
			"this is the control domain of a Xen host%s%s",
			out->version[0] != '\0' ? ", Xen " : "", out->version);
		return;
	}
	if (strcmp(type, "xen") == 0) {
		out->here = HYPER_HERE_GUEST;
		read_version(root, out);
		snprintf(out->text, sizeof out->text,
			"NO REAL VIRTUAL MACHINES HERE: this machine runs on Xen but is "
			"not "
			"its control domain (or /proc/xen is not mounted: mount -t xenfs "
			"xenfs /proc/xen). Every VM is simulated and vanishes with this "
			"host's state file. For real ones run reeved in dom0.");
		return;
	}
	out->here = HYPER_HERE_NOTHING;
	snprintf(out->text, sizeof out->text,
		"NO REAL VIRTUAL MACHINES HERE: there is no Xen on this machine. Every "
		"VM "
		"is simulated and vanishes with this host's state file. For real ones: "
		"apt "
		"install xen-system-amd64, reboot into Xen, start reeved again.");
}
