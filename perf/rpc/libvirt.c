#include "perf/rpc/libvirt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "perf/child.h"
#include "perf/report.h"

#ifdef HAVE_LIBVIRT

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

enum { TRIES = 400, TRY_US = 10000 };

struct libvirt {
	pid_t pid;
	virConnectPtr connection;
	virDomainPtr domain;
};

static const char *find_libvirtd(void)
{
	static const char *const paths[] = {"/usr/sbin/libvirtd", "/usr/bin/libvirtd"};

	for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
		if (access(paths[i], X_OK) == 0)
			return paths[i];
	return NULL;
}

static void write_configuration(const char *path, const char *dir)
{
	FILE *f = fopen(path, "w");

	if (!f ||
		fprintf(f,
			"unix_sock_dir = \"%s\"\nauth_unix_rw = \"none\"\n"
			"auth_unix_ro = \"none\"\nlog_outputs = \"3:stderr\"\n",
			dir) < 0 ||
		fclose(f) != 0)
		report_die("%s: %s", path, strerror(errno));
}

/* Its state stays in our directory, and its drivers for real machines are not loaded. */
static pid_t start(const char *program, const char *dir, const char *log)
{
	char conf[CHILD_PATH_MAX + 32], pid_file[CHILD_PATH_MAX + 32];
	char drivers[CHILD_PATH_MAX + 32], home[CHILD_PATH_MAX + 32];
	char runtime[CHILD_PATH_MAX + 32], config[CHILD_PATH_MAX + 32];
	char cache[CHILD_PATH_MAX + 32];
	char *environment[] = {drivers, home, runtime, config, cache, NULL};
	char *argv[] = {(char *)program, "-f", conf, "-p", pid_file, NULL};

	snprintf(conf, sizeof conf, "%s/libvirtd.conf", dir);
	snprintf(pid_file, sizeof pid_file, "%s/pid", dir);
	snprintf(drivers, sizeof drivers, "LIBVIRT_DRIVER_DIR=%s", dir);
	snprintf(home, sizeof home, "HOME=%s", dir);
	snprintf(runtime, sizeof runtime, "XDG_RUNTIME_DIR=%s", dir);
	snprintf(config, sizeof config, "XDG_CONFIG_HOME=%s", dir);
	snprintf(cache, sizeof cache, "XDG_CACHE_HOME=%s", dir);
	write_configuration(conf, dir);
	return child_start(argv, log, environment);
}

static void silent(void *arg, virErrorPtr error)
{
	(void)arg;
	(void)error;
}

/* As root the socket is where the configuration says, else where XDG_RUNTIME_DIR does. */
static virConnectPtr connect_to(const char *dir)
{
	const char *below = geteuid() == 0 ? "" : "/libvirt";
	char url[CHILD_PATH_MAX + 96];

	snprintf(url, sizeof url, "test+unix:///default?socket=%s%s/libvirt-sock", dir,
		below);
	virSetErrorFunc(NULL, silent);
	for (int i = 0; i < TRIES; i++) {
		virConnectPtr connection = virConnectOpen(url);

		if (connection)
			return connection;
		usleep(TRY_US);
	}
	return NULL;
}

struct libvirt *libvirt_open(const char *dir, const char **why)
{
	char own[CHILD_PATH_MAX], log[CHILD_PATH_MAX + 16];
	const char *program = find_libvirtd();
	struct libvirt *v = calloc(1, sizeof *v);

	if (!program || !v) {
		*why = "libvirtd is not installed (package libvirt-daemon)";
		free(v);
		return NULL;
	}
	snprintf(own, sizeof own, "%.120s/libvirt", dir);
	snprintf(log, sizeof log, "%s.log", own);
	if (mkdir(own, 0700) != 0)
		report_die("%s: %s", own, strerror(errno));
	v->pid = start(program, own, log);
	v->connection = connect_to(own);
	if (v->connection)
		v->domain = virDomainLookupByName(v->connection, "test");
	if (!v->domain) {
		*why = "libvirtd with its test driver does not run here";
		libvirt_close(v);
		return NULL;
	}
	return v;
}

void libvirt_close(struct libvirt *v)
{
	if (!v)
		return;
	if (v->domain)
		virDomainFree(v->domain);
	if (v->connection)
		virConnectClose(v->connection);
	child_stop(v->pid);
	free(v);
}

double libvirt_run(struct libvirt *v, double seconds)
{
	double begun = report_now_s(), until = begun + seconds, now;
	unsigned long count = 0;
	virDomainInfo info;

	do {
		if (virDomainGetInfo(v->domain, &info) != 0)
			report_die("virDomainGetInfo failed");
		count++;
		now = report_now_s();
	} while (now < until);
	return (double)count / (now - begun);
}

#else

struct libvirt *libvirt_open(const char *dir, const char **why)
{
	(void)dir;
	*why = "built without libvirt (package libvirt-dev)";
	return NULL;
}

void libvirt_close(struct libvirt *v)
{
	(void)v;
}

double libvirt_run(struct libvirt *v, double seconds)
{
	(void)v;
	(void)seconds;
	return 0;
}

#endif
