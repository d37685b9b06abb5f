#include "daemon/xl_leave.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/xl_config.h"

enum { PATH_SIZE = 1024 };

/* --- the process --- */

static bool is_xl(const char *root, const char *pid)
{
	char path[PATH_SIZE], comm[32] = "";
	FILE *f;

	snprintf(path, sizeof path, "%s/proc/%s/comm", root, pid);
	f = fopen(path, "r");
	if (!f)
		return false;
	if (!fgets(comm, sizeof comm, f))
		comm[0] = '\0';
	fclose(f);
	comm[strcspn(comm, "\n")] = '\0';
	return strcmp(comm, "xl") == 0;
}

/* "xl-NAME.log", or what logrotate has made of it. */
static bool is_log_of(const char *path, const char *name)
{
	const char *base = strrchr(path, '/');
	size_t len = strlen(name);

	if (!base || strncmp(base, "/xl-", 4) != 0 || strncmp(base + 4, name, len) != 0)
		return false;
	base += 4 + len;
	if (strncmp(base, ".log", 4) != 0)
		return false;
	return base[4] == '\0' || base[4] == '.';
}

static bool watches_over(const char *root, const char *pid, const char *name)
{
	char path[PATH_SIZE], target[PATH_SIZE];
	ssize_t r;

	if (!is_xl(root, pid))
		return false;
	snprintf(path, sizeof path, "%s/proc/%s/fd/1", root, pid);
	r = readlink(path, target, sizeof target - 1);
	if (r <= 0)
		return false;
	target[r] = '\0';
	return is_log_of(target, name);
}

static void end_processes(const char *root, const char *name, struct xl_leave *out)
{
	char path[PATH_SIZE];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof path, "%s/proc", root);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		int fd, pid = atoi(entry->d_name);

		if (pid <= 1)
			continue;
		/* First the descriptor: then it is surely that process. */
		fd = pidfd_open(pid, 0);
		if (fd < 0)
			continue;
		if (watches_over(root, entry->d_name, name)) {
			if (pidfd_send_signal(fd, SIGTERM, NULL, 0) == 0)
				out->processes++;
			else if (errno != ESRCH)
				snprintf(out->words, sizeof out->words,
					"xl's process %d could not be ended: %s", pid,
					strerrordesc_np(errno));
		}
		close(fd);
	}
	if (dir)
		closedir(dir);
}

/* --- the links --- */

/* Whether a configuration is of the guest. */
static bool is_of(const char *path, const char *name)
{
	char *text = malloc(XL_CONFIG_TEXT_MAX);
	FILE *f = text ? fopen(path, "r") : NULL;
	struct xl_config *config = f ? malloc(sizeof *config) : NULL;
	struct rv_error e;
	bool found = false;
	size_t len;

	if (config) {
		len = fread(text, 1, XL_CONFIG_TEXT_MAX, f);
		found = xl_config_parse(config, text, len, &e) == 0 &&
			strcmp(config->name, name) == 0;
	}
	if (f)
		fclose(f);
	free(config);
	free(text);
	return found;
}

static void remove_links(const char *root, const char *name, struct xl_leave *out)
{
	char path[PATH_SIZE], at[PATH_SIZE + 300];
	struct dirent *entry;
	struct stat s;
	DIR *dir;

	snprintf(path, sizeof path, "%s/etc/xen/auto", root);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		snprintf(at, sizeof at, "%s/%s", path, entry->d_name);
		if (lstat(at, &s) || (!S_ISLNK(s.st_mode) && !S_ISREG(s.st_mode)) ||
			!is_of(at, name))
			continue;
		if (!S_ISLNK(s.st_mode)) {
			out->left++;
			snprintf(out->words, sizeof out->words,
				"/etc/xen/auto/%.100s is a file of its own: move it away",
				entry->d_name);
		} else if (unlink(at) == 0) {
			out->links++;
		} else {
			snprintf(out->words, sizeof out->words,
				"/etc/xen/auto/%.80s could not be removed: %s",
				entry->d_name, strerrordesc_np(errno));
		}
	}
	if (dir)
		closedir(dir);
}

void xl_leave(const char *root, const char *name, struct xl_leave *out)
{
	*out = (struct xl_leave){.processes = 0};
	end_processes(root, name, out);
	remove_links(root, name, out);
}
