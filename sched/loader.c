#include "sched/loader.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sched/sched.h"

/* Names come from users: they become part of a path. */
static int check_name(const char *name, struct rv_error *e)
{
	size_t len = strlen(name);

	if (len >= 1 && len <= 63 &&
		strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len)
		return 0;
	return rv_error_set(e, RV_EINVAL,
		"scheduler '%s': names are 1 to 63 characters of a-z, 0-9 and '-'", name);
}

static int check_owner(const char *path, mode_t kind, struct rv_error *e)
{
	struct stat st;

	if (stat(path, &st) < 0) {
		int err = errno;

		return rv_error_set(e, rv_error_from_errno(err),
			"scheduler plugin %s: %s", path, strerror(err));
	}
	if ((st.st_mode & S_IFMT) != kind)
		return rv_error_set(e, RV_EINVAL, "scheduler plugin %s: is no %s", path,
			kind == S_IFDIR ? "directory" : "file");
	if ((st.st_uid != 0 && st.st_uid != geteuid()) ||
		(st.st_mode & (S_IWGRP | S_IWOTH)))
		return rv_error_set(e, RV_EPERM,
			"scheduler plugin %s: must belong to root and be writable by "
			"nobody else (chown root, chmod go-w)",
			path);
	return 0;
}

int loader_open(
	struct loader_plugin *p, const char *dir, const char *name, struct rv_error *e)
{
	char path[PATH_MAX];
	int rc, n;

	*p = (struct loader_plugin){.handle = NULL};
	rc = check_name(name, e);
	if (rc < 0)
		return rc;
	n = snprintf(path, sizeof path, "%s/%s.so", dir, name);
	if (n < 0 || (size_t)n >= sizeof path)
		return rv_error_set(e, RV_EINVAL, "scheduler %s: path too long", name);
	rc = check_owner(dir, S_IFDIR, e);
	if (rc == 0)
		rc = check_owner(path, S_IFREG, e);
	if (rc < 0)
		return rc;
	p->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!p->handle)
		return rv_error_set(e, RV_EINVAL, "scheduler plugin %s", dlerror());
	p->policy = dlsym(p->handle, REEVE_SCHED_SYMBOL);
	if (!p->policy) {
		rc = rv_error_set(e, RV_EINVAL,
			"scheduler plugin %s: has no symbol " REEVE_SCHED_SYMBOL, path);
		goto out;
	}
	rc = sched_check_policy(p->policy, e);
	if (rc < 0)
		goto out;
	if (strcmp(p->policy->name, name) != 0) {
		rc = rv_error_set(e, RV_EINVAL,
			"scheduler plugin %s: calls itself %s: rename the file", path,
			p->policy->name);
		goto out;
	}
out:
	if (rc < 0)
		loader_close(p);
	return rc;
}

void loader_close(struct loader_plugin *p)
{
	if (p->handle)
		dlclose(p->handle);
	*p = (struct loader_plugin){.handle = NULL};
}
