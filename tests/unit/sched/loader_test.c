/* Plugins: the example as it is built, and files that must be refused. */
#include "pool.h"

#include <sys/stat.h>
#include <unistd.h>

#include "sched/loader.h"

/* A directory with a copy of the example under `name`; the caller removes it. */
static void copy_plugin(char dir[64], const char *name)
{
	char path[256], command[1024];

	snprintf(dir, 64, "/tmp/reeve-plugin-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/%s.so", dir, name);
	snprintf(command, sizeof command, "cp '%s' '%s' && chmod 644 '%s'", PLUGIN, path,
		path);
	assert_int_equal(system(command), 0);
}

static void remove_dir(const char *dir)
{
	char command[256];

	snprintf(command, sizeof command, "rm -r '%s'", dir);
	assert_int_equal(system(command), 0);
}

static void the_example_decides(void **state)
{
	struct sched *s = sched_new(4);
	struct sched_request r = vm(1 * GiB, 1);
	struct loader_plugin p;
	struct rv_error e = {0};
	char dir[64];

	(void)state;
	copy_plugin(dir, "quietest");
	if (loader_open(&p, dir, "quietest", &e) != 0)
		fail_msg("%s", e.detail);
	for (unsigned i = 1; i <= 3; i++) {
		struct sched_host h = plain_host(i);

		h.load.cpu_load_ppm = i == 2 ? 100 : 5000;
		h.load.memory_free_kib = i == 2 ? 2 * GiB : 16 * GiB;
		put(s, &h);
	}
	assert_int_equal(place(s, &r, p.policy, 1), 2);
	loader_close(&p);
	loader_close(&p);
	sched_free(s);
	remove_dir(dir);
}

static void refused(const char *dir, const char *name, int code, const char *words)
{
	struct loader_plugin p;
	struct rv_error e = {0};

	assert_int_equal(loader_open(&p, dir, name, &e), code);
	if (!strstr(e.detail, words))
		fail_msg("'%s' is not in '%s'", words, e.detail);
	assert_null(p.handle);
}

static void bad_plugins_are_refused(void **state)
{
	char dir[64], path[128];
	FILE *f;

	(void)state;
	copy_plugin(dir, "other");
	refused(dir, "other", RV_EINVAL, "calls itself quietest: rename the file");
	refused(dir, "absent", RV_ENOENT, "absent.so");
	refused(dir, "../etc/x", RV_EINVAL, "names are 1 to 63 characters");
	refused(dir, "", RV_EINVAL, "names are 1 to 63 characters");
	snprintf(path, sizeof path, "%s/text.so", dir);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs("no shared object", f);
	fclose(f);
	assert_int_equal(chmod(path, 0644), 0);
	refused(dir, "text", RV_EINVAL, "text.so");
	assert_int_equal(chmod(path, 0666), 0);
	refused(dir, "text", RV_EPERM, "chmod go-w");
	assert_int_equal(chmod(dir, 0777), 0);
	refused(dir, "other", RV_EPERM, "chmod go-w");
	remove_dir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_example_decides),
		cmocka_unit_test(bad_plugins_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
