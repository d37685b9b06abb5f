/*
 * What libxl runs for each backend device, as one small program instead of shell scripts:
 * reeve-xen-block and reeve-xen-vif are other names of the helper. Answers through
 * xenstore, as Xen's own scripts do: hotplug-status "connected", or "error" with words
 * in hotplug-error.
 */
#include "xen/helper/work.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOOP_TRIES = 64 };

struct hotplug {
	struct xs_handle *xs;
	const char *path; /* of the backend */
};

static char *node_read(struct hotplug *h, const char *name)
{
	char path[512];

	snprintf(path, sizeof path, "%s/%s", h->path, name);
	return xs_read(h->xs, XBT_NULL, path, NULL);
}

static bool node_write(struct hotplug *h, const char *name, const char *value)
{
	char path[512];

	snprintf(path, sizeof path, "%s/%s", h->path, name);
	return xs_write(h->xs, XBT_NULL, path, value, (unsigned int)strlen(value));
}

static int hotplug_fail(struct hotplug *h, const char *fmt, ...) RV_PRINTF(2, 3);

static int hotplug_fail(struct hotplug *h, const char *fmt, ...)
{
	char text[512], path[64];
	unsigned int domid;
	va_list al;

	va_start(al, fmt);
	vsnprintf(text, sizeof text, fmt, al);
	va_end(al);
	fprintf(stderr, "%s: %s\n", h->path, text);
	(void)node_write(h, "hotplug-error", text);
	/* libxl removes that one before the worker could read it. */
	if (sscanf(h->path, "backend/%*[a-z]/%u/", &domid) == 1) {
		snprintf(path, sizeof path, WORK_HOTPLUG_ERROR, domid);
		(void)xs_write(h->xs, XBT_NULL, path, text, (unsigned int)strlen(text));
	}
	(void)node_write(h, "hotplug-status", "error");
	return 1;
}

static int hotplug_open(struct hotplug *h)
{
	h->path = getenv("XENBUS_PATH");
	h->xs = h->path ? xs_open(0) : NULL;
	if (h->xs)
		return 0;
	fprintf(stderr, "this is run by libxl, with XENBUS_PATH and a xenstored\n");
	return 1;
}

/* --- disks --- */

/* Does this loop device serve that file? So no other's is ever taken away. */
static bool loop_serves(int fd, const char *file)
{
	struct loop_info64 info;
	struct stat st;

	return ioctl(fd, LOOP_GET_STATUS64, &info) == 0 && stat(file, &st) == 0 &&
	       info.lo_inode == st.st_ino && info.lo_device == (uint64_t)st.st_dev;
}

void hotplug_block_release(struct xs_handle *xs, const char *backend)
{
	struct hotplug h = {.xs = xs, .path = backend};
	char *node = node_read(&h, "node"), *file = node_read(&h, "params");
	int fd = -1;

	if (node && file && strncmp(node, "/dev/loop", 9) == 0)
		fd = open(node, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && loop_serves(fd, file))
		(void)ioctl(fd, LOOP_CLR_FD, 0);
	if (fd >= 0)
		close(fd);
	free(node);
	free(file);
}

/* The device's name is in xenstore before the device is set up: whoever dies, destroying
 * the domain finds it. Direct I/O, since a page cache between guest and file would be
 * behind after the guest moved away and back; some file systems refuse it. */
static int loop_setup(struct hotplug *h, int control, int file, const char *path,
	bool read_only, char *name, size_t size)
{
	struct loop_config config = {
		.fd = (uint32_t)file,
		.info = {.lo_flags = LO_FLAGS_DIRECT_IO |
				     (read_only ? LO_FLAGS_READ_ONLY : 0)},
	};

	snprintf((char *)config.info.lo_file_name, LO_NAME_SIZE, "%.*s", LO_NAME_SIZE - 1,
		path); /* for losetup -l */
	for (int i = 0; i < LOOP_TRIES; i++) {
		int number = ioctl(control, LOOP_CTL_GET_FREE);
		int fd, r;

		if (number < 0)
			return -1;
		snprintf(name, size, "/dev/loop%d", number);
		fd = open(name, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
		if (fd < 0 || !node_write(h, "node", name)) {
			if (fd >= 0)
				close(fd);
			return -1;
		}
		r = ioctl(fd, LOOP_CONFIGURE, &config);
		if (r < 0 && errno == EINVAL &&
			(config.info.lo_flags & LO_FLAGS_DIRECT_IO)) {
			config.info.lo_flags &= ~(uint32_t)LO_FLAGS_DIRECT_IO;
			r = ioctl(fd, LOOP_CONFIGURE, &config);
		}
		close(fd);
		if (r == 0)
			return 0;
		if (errno != EBUSY) /* else another took it meanwhile */
			return -1;
	}
	return -1;
}

static int loop_make(
	struct hotplug *h, const char *path, bool read_only, char *name, size_t size)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int file = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	int r = -1, err;

	if (control >= 0 && file >= 0)
		r = loop_setup(h, control, file, path, read_only, name, size);
	err = errno;
	if (control >= 0)
		close(control);
	if (file >= 0)
		close(file);
	errno = err;
	return r;
}

static int block_add(struct hotplug *h, const char *path, bool read_only)
{
	char device[HELPER_PATH_SIZE], number[32];
	struct stat st;

	snprintf(device, sizeof device, "%s", path);
	if (stat(path, &st) != 0)
		return hotplug_fail(h, "disk %s: %s", path, strerror(errno));
	if (S_ISREG(st.st_mode) &&
		(loop_make(h, path, read_only, device, sizeof device) != 0 ||
			stat(device, &st) != 0))
		return hotplug_fail(h, "disk %s can't be put on a loop device: %s", path,
			strerror(errno));
	if (!S_ISBLK(st.st_mode))
		return hotplug_fail(h, "disk %s is neither a file nor a device", path);
	snprintf(number, sizeof number, "%x:%x", major(st.st_rdev), minor(st.st_rdev));
	if (!node_write(h, "physical-device", number) ||
		!node_write(h, "physical-device-path", device) ||
		!node_write(h, "hotplug-status", "connected"))
		return hotplug_fail(h, "disk %s: xenstore: %s", path, strerror(errno));
	return 0;
}

int hotplug_block(const char *action)
{
	struct hotplug h;
	char *path, *mode;
	int status = 0;

	if (hotplug_open(&h) != 0)
		return 1;
	path = node_read(&h, "params");
	mode = node_read(&h, "mode");
	if (strcmp(action, "remove") == 0)
		hotplug_block_release(h.xs, h.path);
	else if (strcmp(action, "add") == 0)
		status = path ? block_add(&h, path, !mode || mode[0] != 'w')
			      : hotplug_fail(&h, "the disk has no path");
	free(path);
	free(mode);
	xs_close(h.xs);
	return status;
}

/* --- interfaces --- */

static bool is_linux_bridge(const char *name)
{
	char path[128];

	snprintf(path, sizeof path, "/sys/class/net/%.15s/bridge", name);
	return access(path, F_OK) == 0;
}

/* Open vSwitch is asked by its own tool: it keeps a database. */
static int ovs_port(const char *bridge, const char *vif, bool add)
{
	const char *argv[] = {"ovs-vsctl", "--timeout=30", "--", "--if-exists",
		"del-port", vif, add ? "--" : NULL, "add-port", bridge, vif, NULL};
	extern char **environ;
	int status = -1;
	pid_t pid;

	if (posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)argv, environ) != 0)
		return -1;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

/* As Xen's vif-bridge: the bridge's own address must not come from a guest's port, and
 * dom0 does not speak on it. */
static int vif_prepare(int fd, const char *vif, int mtu)
{
	struct ifreq r = {0};

	snprintf(r.ifr_name, sizeof r.ifr_name, "%s", vif);
	r.ifr_mtu = mtu;
	/* Beyond 1500 the kernel waits for a frontend that can: the guest has its MTU. */
	if (mtu > 0)
		(void)ioctl(fd, SIOCSIFMTU, &r);
	memset(&r.ifr_hwaddr, 0xff, sizeof r.ifr_hwaddr);
	r.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	r.ifr_hwaddr.sa_data[0] = (char)0xfe;
	if (ioctl(fd, SIOCSIFHWADDR, &r) < 0)
		return -1;
	return 0;
}

static int vif_up(int fd, const char *vif)
{
	struct ifreq r = {0};

	snprintf(r.ifr_name, sizeof r.ifr_name, "%s", vif);
	if (ioctl(fd, SIOCGIFFLAGS, &r) < 0)
		return -1;
	r.ifr_flags = (short)((r.ifr_flags | IFF_UP | IFF_NOARP) & ~IFF_MULTICAST);
	return ioctl(fd, SIOCSIFFLAGS, &r);
}

static int bridge_port(int fd, const char *bridge, const char *vif)
{
	struct ifreq r = {0};

	snprintf(r.ifr_name, sizeof r.ifr_name, "%s", bridge);
	r.ifr_ifindex = (int)if_nametoindex(vif);
	if (r.ifr_ifindex == 0)
		return -1;
	return ioctl(fd, SIOCBRADDIF, &r) < 0 && errno != EBUSY ? -1 : 0;
}

static int vif_online(struct hotplug *h, const char *vif, const char *bridge)
{
	char *mtu = node_read(h, "mtu");
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;

	r = vif_prepare(fd, vif, mtu ? (int)strtol(mtu, NULL, 10) : 0);
	free(mtu);
	if (!r)
		r = is_linux_bridge(bridge) ? bridge_port(fd, bridge, vif)
					    : ovs_port(bridge, vif, true);
	if (!r)
		r = vif_up(fd, vif);
	if (r)
		r = hotplug_fail(h, "interface %s can't be put into bridge %s: %s", vif,
			bridge, strerror(errno));
	else if (!node_write(h, "hotplug-status", "connected"))
		r = 1;
	if (fd >= 0)
		close(fd);
	return r;
}

int hotplug_vif(const char *action)
{
	const char *vif = getenv("vif");
	struct hotplug h;
	char *bridge;
	int status = 0;

	if (hotplug_open(&h) != 0)
		return 1;
	bridge = node_read(&h, "bridge");
	if (!vif || !bridge)
		status = hotplug_fail(&h, "the interface has no name or no bridge");
	else if (strcmp(action, "online") == 0)
		status = vif_online(&h, vif, bridge);
	else if (strcmp(action, "offline") == 0 && !is_linux_bridge(bridge))
		(void)ovs_port(bridge, vif, false);
	free(bridge);
	xs_close(h.xs);
	return status;
}
