#include "fence/port.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "xen/detect.h"
#include "xen/real.h"

/* "PROGRAM's folder/xen", as a build tree has it; empty when it can't be told. */
static void build_dir(char *dir, size_t size)
{
	static const char beside[] = "/xen";
	ssize_t r = readlink("/proc/self/exe", dir, size - sizeof beside);
	char *slash;

	dir[r > 0 ? r : 0] = '\0';
	slash = strrchr(dir, '/');
	if (slash)
		memcpy(slash, beside, sizeof beside);
}

static int find_module(const struct hyper_detection *found, const char *given, char *path,
	size_t size, struct rv_error *e)
{
	char build[PATH_MAX];
	const char *dirs[] = {given, build, HYPER_REAL_DRIVER_DIR};

	build_dir(build, sizeof build);
	for (size_t i = 0; i < 3; i++) {
		if (!dirs[i] || !dirs[i][0] || (given && i > 0))
			continue;
		snprintf(path, size, "%s/reeve-fence-%u.%u.so", dirs[i],
			found->version_major, found->version_minor);
		if (access(path, R_OK) == 0)
			return 0;
	}
	return rv_error_set(e, RV_EUNSUPPORTED,
		"this host runs Xen %u.%u, and there is no reeve-fence-%u.%u.so in %s; "
		"install the Reeve that was built for this Xen",
		found->version_major, found->version_minor, found->version_major,
		found->version_minor, given ? given : HYPER_REAL_DRIVER_DIR);
}

int fence_xen_load(
	struct fence_port **out, const char *dir, const char *note, struct rv_error *e)
{
	const struct fence_xen_module *module;
	struct hyper_detection found;
	char path[PATH_MAX + 48];
	void *handle;
	int rc;

	*out = NULL;
	hyper_detect("", &found);
	if (found.here != HYPER_HERE_DOM0 || found.version_major == 0)
		return rv_error_set(e, RV_EUNSUPPORTED, "%s",
			found.here == HYPER_HERE_DOM0
				? "this Xen doesn't tell its version "
				  "(/sys/hypervisor/version)"
				: found.text);
	rc = find_module(&found, dir, path, sizeof path, e);
	if (rc)
		return rc;
	handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	module = handle ? dlsym(handle, FENCE_XEN_SYMBOL) : NULL;
	if (!module)
		return rv_error_set(e, RV_EUNSUPPORTED,
			"%s can't be loaded: %s; apt install the libxen packages of this "
			"Xen",
			path, dlerror());
	if (module->abi != FENCE_XEN_ABI ||
		strcmp(module->reeve_version, REEVE_VERSION) != 0 ||
		module->version_major != found.version_major ||
		module->version_minor != found.version_minor)
		return rv_error_set(e, RV_EUNSUPPORTED,
			"%s is of another build of Reeve, or for another Xen, than this "
			"program (%s) and host (Xen %u.%u); install both from one "
			"package",
			path, REEVE_VERSION, found.version_major, found.version_minor);
	return module->open(out, note, e);
}
