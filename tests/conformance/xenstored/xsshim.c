/*
 * Lets Debian's C xenstored run on a machine without Xen: LD_PRELOADed, it answers the
 * few calls of libxenctrl, libxengnttab and libxenevtchn that xenstored makes when it
 * starts and when a domain is introduced, and the two files of /proc/xen. No ring of any
 * domain is ever used: only the socket is alive. Every domid that is asked for exists.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xenctrl.h>
#include <xenevtchn.h>
#include <xengnttab.h>

static char handles[3];

xc_interface *xc_interface_open(
	xentoollog_logger *logger, xentoollog_logger *builder, unsigned flags)
{
	(void)logger;
	(void)builder;
	(void)flags;
	return (xc_interface *)(void *)&handles[0];
}

int xc_interface_close(xc_interface *xch)
{
	(void)xch;
	return 0;
}

int xc_domain_getinfo(
	xc_interface *xch, uint32_t first, unsigned int max, xc_dominfo_t *info)
{
	(void)xch;
	if (max == 0)
		return 0;
	memset(info, 0, sizeof *info);
	info->domid = first;
	info->running = 1;
	return 1;
}

xengnttab_handle *xengnttab_open(xentoollog_logger *logger, unsigned flags)
{
	(void)logger;
	(void)flags;
	return (xengnttab_handle *)(void *)&handles[1];
}

int xengnttab_close(xengnttab_handle *xgt)
{
	(void)xgt;
	return 0;
}

int xengnttab_set_max_grants(xengnttab_handle *xgt, uint32_t count)
{
	(void)xgt;
	(void)count;
	return 0;
}

void *xengnttab_map_grant_ref(
	xengnttab_handle *xgt, uint32_t domid, uint32_t ref, int prot)
{
	(void)xgt;
	(void)domid;
	(void)ref;
	(void)prot;
	return mmap(
		NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

int xengnttab_unmap(xengnttab_handle *xgt, void *start, uint32_t count)
{
	(void)xgt;
	return munmap(start, count * 4096u);
}

xenevtchn_handle *xenevtchn_open(xentoollog_logger *logger, unsigned flags)
{
	(void)logger;
	(void)flags;
	return (xenevtchn_handle *)(void *)&handles[2];
}

int xenevtchn_close(xenevtchn_handle *xce)
{
	(void)xce;
	return 0;
}

int xenevtchn_fd(xenevtchn_handle *xce)
{
	static int fd = -1;

	(void)xce;
	if (fd < 0)
		fd = eventfd(0, EFD_NONBLOCK);
	return fd;
}

int xenevtchn_notify(xenevtchn_handle *xce, evtchn_port_t port)
{
	(void)xce;
	(void)port;
	return 0;
}

int xenevtchn_unmask(xenevtchn_handle *xce, evtchn_port_t port)
{
	(void)xce;
	(void)port;
	return 0;
}

int xenevtchn_unbind(xenevtchn_handle *xce, evtchn_port_t port)
{
	(void)xce;
	(void)port;
	return 0;
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *xce)
{
	(void)xce;
	errno = EAGAIN;
	return -1;
}

static xenevtchn_port_or_error_t next_port(void)
{
	static int port = 10;

	return port++;
}

xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *xce, unsigned int virq)
{
	(void)xce;
	(void)virq;
	return next_port();
}

xenevtchn_port_or_error_t xenevtchn_bind_interdomain(
	xenevtchn_handle *xce, uint32_t domid, evtchn_port_t remote)
{
	(void)xce;
	(void)domid;
	(void)remote;
	return next_port();
}

/* The two files; -2 for any other. */
static int open_imitation(const char *path)
{
	int fd = -2;

	if (strcmp(path, "/proc/xen/xsd_port") == 0) {
		fd = memfd_create("xsd_port", 0);
		if (fd >= 0 && (write(fd, "1", 1) != 1 || lseek(fd, 0, SEEK_SET) != 0))
			fd = -1;
	} else if (strcmp(path, "/proc/xen/xsd_kva") == 0) {
		fd = memfd_create("xsd_kva", 0);
		if (fd >= 0 && ftruncate(fd, 4096) != 0)
			fd = -1;
	}
	return fd;
}

typedef int open_fn(const char *path, int flags, ...);

static int open_by(const char *name, const char *path, int flags, int mode)
{
	int fd = open_imitation(path);
	open_fn *next;

	if (fd != -2)
		return fd;
	*(void **)&next = dlsym(RTLD_NEXT, name);
	return next(path, flags, mode);
}

int open(const char *path, int flags, ...)
{
	va_list args;
	int mode;

	va_start(args, flags);
	mode = va_arg(args, int);
	va_end(args);
	return open_by("open", path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	va_list args;
	int mode;

	va_start(args, flags);
	mode = va_arg(args, int);
	va_end(args);
	return open_by("open64", path, flags, mode);
}
