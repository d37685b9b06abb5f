#include "xen/real.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

enum { MODULE_NAME_SIZE = 48 };

static void module_name(
	char name[static MODULE_NAME_SIZE], uint32_t major, uint32_t minor)
{
	snprintf(name, MODULE_NAME_SIZE, "reeve-xen-%u.%u.so", major, minor);
}

/* "PROGRAM's folder/../xen/real", as a build tree has it; empty when it can't be told. */
static void build_dir(char *dir, size_t size)
{
	static const char beside[] = "/../xen/real";
	ssize_t r = readlink("/proc/self/exe", dir, size - sizeof beside);
	char *slash;

	dir[r > 0 ? r : 0] = '\0';
	slash = strrchr(dir, '/');
	if (slash != NULL)
		memcpy(slash, beside, sizeof beside);
}

/* Which drivers are there, for people who lack one. */
static void name_others(const char *dir, char *text, size_t size)
{
	size_t len = 0;
	struct dirent *entry;
	DIR *d = opendir(dir);

	text[0] = '\0';
	while (d != NULL && (entry = readdir(d)) != NULL)
		if (strncmp(entry->d_name, "reeve-xen-", 10) == 0 &&
			strstr(entry->d_name, ".so") != NULL && len < size)
			len += (size_t)snprintf(text + len, size - len, "%s%s",
				len > 0 ? ", " : "", entry->d_name);
	if (d != NULL)
		closedir(d);
}

static int find_module(const struct hyper_detection *found, const char *given, char *path,
	size_t size, struct rv_error *e)
{
	char name[MODULE_NAME_SIZE], build[PATH_MAX], others[200];
	const char *dirs[] = {given, build, HYPER_REAL_DRIVER_DIR};
	bool only = given != NULL && given[0] != '\0';

	module_name(name, found->version_major, found->version_minor);
	build_dir(build, sizeof build);
	for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
		if (dirs[i] == NULL || dirs[i][0] == '\0' || (only && i > 0))
			continue;
		snprintf(path, size, "%s/%s", dirs[i], name);
		if (access(path, R_OK) == 0)
			return 0;
	}
	name_others(only ? given : HYPER_REAL_DRIVER_DIR, others, sizeof others);
	return rv_error_set(e, RV_EUNSUPPORTED,
		"this host runs Xen %u.%u, and there is no driver %s in %s%s%s; build or "
		"install the one for this Xen",
		found->version_major, found->version_minor, name,
		only ? given : HYPER_REAL_DRIVER_DIR, others[0] != '\0' ? ", only " : "",
		others);
}

int hyper_real_module_check(const struct hyper_real_module *module,
	const struct hyper_detection *found, const char *path, struct rv_error *e)
{
	if (module->abi != HYPER_REAL_ABI ||
		strcmp(module->reeve_version, REEVE_VERSION) != 0 ||
		module->req_size != sizeof(struct hyper_req) ||
		module->host_size != sizeof(struct hyper_host))
		return rv_error_set(e, RV_EUNSUPPORTED,
			"%s is of another build of Reeve than this program (%s); install "
			"both from one package",
			path, REEVE_VERSION);
	if (module->version_major != found->version_major ||
		module->version_minor != found->version_minor)
		return rv_error_set(e, RV_EUNSUPPORTED,
			"%s is for Xen %u.%u, this host runs Xen %u.%u; install the one "
			"for this Xen",
			path, module->version_major, module->version_minor,
			found->version_major, found->version_minor);
	return 0;
}

/* Beside the driver in a package, in the next folder in a build tree. */
static void find_helper(const char *module, const char *given, char *path, size_t size)
{
	static const char *const places[] = {"", "/../helper"};
	size_t folder = (size_t)(strrchr(module, '/') - module);

	if (given != NULL && given[0] != '\0') {
		snprintf(path, size, "%s", given);
		return;
	}
	for (size_t i = 0; i < 2; i++) {
		snprintf(path, size, "%.*s%s/%s", (int)folder, module, places[i],
			HYPER_REAL_HELPER_NAME);
		if (access(path, X_OK) == 0)
			return;
	}
	snprintf(path, size, "%.*s/%s", (int)folder, module, HYPER_REAL_HELPER_NAME);
}

int hyper_real_new(struct hyper **out, struct loop *l,
	const struct hyper_detection *found, const struct hyper_real_config *config,
	struct rv_error *e)
{
	struct hyper_real_config own = *config;
	char path[PATH_MAX + MODULE_NAME_SIZE], helper[PATH_MAX + MODULE_NAME_SIZE];
	const struct hyper_real_module *module;
	void *handle;
	int rc;

	*out = NULL;
	if (found->here != HYPER_HERE_DOM0 || found->version_major == 0)
		return rv_error_set(e, RV_EUNSUPPORTED, "%s",
			found->here == HYPER_HERE_DOM0
				? "this Xen doesn't tell its version "
				  "(/sys/hypervisor/version)"
				: found->text);
	rc = find_module(found, config->driver_dir, path, sizeof path, e);
	if (rc != 0)
		return rc;
	handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	module = handle != NULL ? dlsym(handle, HYPER_REAL_SYMBOL) : NULL;
	if (module == NULL)
		return rv_error_set(e, RV_EUNSUPPORTED,
			"%s can't be loaded: %s; apt install the libxen packages of this "
			"Xen",
			path, dlerror());
	rc = hyper_real_module_check(module, found, path, e);
	if (rc != 0)
		return rc;
	find_helper(path, config->helper, helper, sizeof helper);
	if (access(helper, X_OK) != 0)
		return rv_error_set(e, RV_EUNSUPPORTED,
			"%s can't be run: %s; it belongs beside the driver", helper,
			strerror(errno));
	own.helper = helper;
	log_info("xen.load", "driver=\"%s\" helper=\"%s\"", path, helper);
	return module->open(out, l, found, &own, e);
}
