/* What xl's configurations come to, and which are refused. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/import_files.h"
#include "daemon/xl_config.h"
#include "daemon/xl_leave.h"

static struct xl_config config;

static int parse(const char *text)
{
	struct rv_error e = {0};
	int rc = xl_config_parse(&config, text, strlen(text), &e);

	if (rc)
		print_message("%s\n", e.detail);
	return rc;
}

static bool noted(const char *words)
{
	for (size_t i = 0; i < config.note_count; i++)
		if (strstr(config.notes[i], words))
			return true;
	return false;
}

static void test_whole(void **state)
{
	(void)state;
	assert_int_equal(
		parse("# web's\n"
		      "name = \"web1\"\n"
		      "type='pvh' ; memory = 0x200; maxmem=1024\n"
		      "vcpus=2\nmaxvcpus = 4\n"
		      "kernel = \"/boot/guest\"\nramdisk = '/boot/initrd'\n"
		      "root='/dev/xvda1 ro'\nextra=\"quiet \\\"x\\\"\"\n"
		      "disk = [ '/srv/vms/web1.img,raw,xvda,rw', # first\n"
		      "  \"format=raw, vdev=xvdb, access=ro, target=/srv/a,b.img\",\n"
		      "]\n"
		      "disk += [ 'file:/srv/vms/swap.img,xvdc,w' ]\n"
		      "vif = [ 'mac=00:16:3E:00:00:01,bridge=br0', '' ]\n"
		      "on_crash = 'coredump-restart'\non_poweroff=\"preserve\"\n"
		      "cpus = \"2-3\"\n"),
		0);
	assert_string_equal(config.name, "web1");
	assert_int_equal(config.type, HYPER_PVH);
	assert_int_equal(config.memory_mib, 512);
	assert_int_equal(config.maxmem_mib, 1024);
	assert_int_equal(config.vcpus, 2);
	assert_int_equal(config.maxvcpus, 4);
	assert_string_equal(config.cmdline, "root=/dev/xvda1 ro quiet \"x\"");
	assert_int_equal(config.disk_count, 3);
	assert_string_equal(config.disks[0].target, "/srv/vms/web1.img");
	assert_string_equal(config.disks[1].target, "/srv/a,b.img");
	assert_true(config.disks[1].read_only);
	assert_int_equal(config.disks[1].place, 1);
	assert_string_equal(config.disks[2].target, "/srv/vms/swap.img");
	assert_int_equal(config.disks[2].place, 2);
	assert_false(config.disks[2].read_only);
	assert_int_equal(config.vif_count, 2);
	assert_string_equal(config.vifs[0].bridge, "br0");
	assert_int_equal(config.on_crash, HYPER_ON_EXIT_RESTART);
	assert_int_equal(config.on_poweroff, HYPER_ON_EXIT_PRESERVE);
	assert_int_equal(config.on_reboot, HYPER_ON_EXIT_RESTART);
	assert_true(noted("cpus: not taken"));
	assert_true(noted("coredump-restart"));
	assert_false(config.devices_left);
}

static void test_what_is_not_taken_is_told(void **state)
{
	(void)state;
	assert_int_equal(parse("name='a'\nbuilder='hvm'\n"
			       "disk=['phy:/dev/vg/a,hda,w', 'x,vhd,xvdb,w',"
			       "'script=block-drbd,vdev=xvdc,target=r0']\n"
			       "vif=['script=vif-openvswitch,bridge=b']\nusb=1\n"),
		0);
	assert_int_equal(config.type, HYPER_HVM);
	assert_int_equal(config.disk_count, 0);
	assert_int_equal(config.vif_count, 0);
	assert_true(config.devices_left);
	assert_true(noted("xvda to xvdp"));
	assert_true(noted("neither raw nor qcow2"));
	assert_true(noted("a script or another domain"));
	assert_true(noted("usb: not taken"));
	assert_int_equal(parse("name='a'\ndisk=['/iso/d.iso,,xvdd:cdrom,r']"), 0);
	assert_true(config.disks[0].cdrom && config.disks[0].read_only);
}

static void test_refused(void **state)
{
	static const char *const bad[] = {"", "memory=1\n", "name=", "name='a",
		"name='a\n'", "name=['a']", "name='a' 'b'", "name='a'\nmemory='much'",
		"name='a'\nmemory=99999999999999999999", "name='a'\ndisk=['x'",
		"name='a'\ndisk=[['x']]", "name='a'\ndisk=['/x,raw']",
		"name='a'\ndisk=['/x,raw,xvda,what']",
		"name='a'\ndisk=['/x,raw,xvda,w','/y,raw,xvda,w']",
		"name='a'\nvif=['mac=1:2']", "name='a'\nmemory=2\nmaxmem=1",
		"name='a\\q'", "name='a\\x07'", "name='a\\x00'", "1=2", "if x:\n",
		"name='a'\ntype='pvx'", "name='a'\non_crash='dance'",
		"name='a'\nvcpus=4000"};
	char many[2000] = "name='a'\nbootloader_args=[";
	size_t used;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		if (parse(bad[i]) == 0)
			fail_msg("taken: %s", bad[i]);
	used = strlen(many);
	for (int i = 0; i < 100; i++)
		used += (size_t)snprintf(many + used, sizeof many - used, "'x',");
	snprintf(many + used, sizeof many - used, "]");
	assert_int_not_equal(parse(many), 0);
}

/* --- files --- */

static char dir[64];

static void path_make(char out[256], const char *name)
{
	snprintf(out, 256, "%s/%s", dir, name);
}

static void file_make(const char *name, const char *text, off_t size)
{
	char path[256];
	int fd;

	path_make(path, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	if (size)
		assert_int_equal(ftruncate(fd, size), 0);
	close(fd);
}

static void dir_make(const char *name)
{
	char path[256];

	path_make(path, name);
	assert_int_equal(mkdir(path, 0700), 0);
}

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof dir, "/tmp/reeve-xl-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command);
}

static void test_files_get_a_name_in_the_sr(void **state)
{
	struct import_sr sr = {.uuid = {{1}}};
	struct import_file f = {.vdi = {{7}}};
	char path[256], name[600], text[UUID_TEXT_SIZE];
	struct stat s, t;

	(void)state;
	dir_make("sr");
	path_make(sr.location, "sr");
	file_make("sr/web.img", "x", 1 << 20);
	path_make(f.path, "sr/web.img");
	import_file_take(&f, &sr, 1);
	assert_string_equal(f.why, "");
	assert_true(f.linked && f.size == 1 << 20);
	snprintf(name, sizeof name, "%s/%s.raw", sr.location, uuid_format(&f.vdi, text));
	assert_int_equal(lstat(name, &s), 0);
	assert_int_equal(stat(f.path, &t), 0);
	assert_true(s.st_ino == t.st_ino && s.st_nlink == 1 && S_ISREG(s.st_mode));
	import_file_undo(&f, &sr);
	assert_int_equal(lstat(f.path, &t), 0);
	assert_true(s.st_ino == t.st_ino && access(name, F_OK) != 0);
	import_file_take(&f, &sr, 1);
	assert_true(f.linked);
	/* One that is a VDI already keeps its name. */
	snprintf(f.path, sizeof f.path, "%.511s", name);
	f.vdi = (struct uuid){{9}};
	f.linked = false;
	import_file_take(&f, &sr, 1);
	assert_true(f.is_vdi && !f.linked && f.vdi.b[0] == 7);
	/* Not in the SR, not even by a link in it; no plain file; a part of a sector. */
	file_make("other.img", "x", 4096);
	path_make(path, "other.img");
	path_make(f.path, "sr/away.img");
	assert_int_equal(symlink(path, f.path), 0);
	import_file_take(&f, &sr, 1);
	assert_non_null(strstr(f.why, "under no file SR"));
	file_make("sr/odd.img", "x", 700);
	path_make(f.path, "sr/odd.img");
	import_file_take(&f, &sr, 1);
	assert_non_null(strstr(f.why, "sectors"));
	file_make("sr/two.img", "x", 4096);
	path_make(f.path, "sr/two.img");
	path_make(path, "second.img");
	assert_int_equal(link(f.path, path), 0);
	import_file_take(&f, &sr, 1);
	assert_non_null(strstr(f.why, "hard links"));
	path_make(f.path, "sr/none.img");
	import_file_take(&f, &sr, 1);
	assert_true(f.why[0] && !f.linked);
}

static pid_t sleeper(const char *comm, const char *log)
{
	char proc[64], path[256], name[300];
	pid_t pid = fork();

	if (pid == 0) {
		for (;;)
			pause();
	}
	assert_true(pid > 0);
	snprintf(proc, sizeof proc, "proc/%d", pid);
	dir_make(proc);
	snprintf(proc, sizeof proc, "proc/%d/fd", pid);
	dir_make(proc);
	path_make(path, proc);
	snprintf(name, sizeof name, "%s/1", path);
	assert_int_equal(symlink(log, name), 0);
	snprintf(proc, sizeof proc, "proc/%d/comm", pid);
	file_make(proc, comm, 0);
	return pid;
}

static void test_xl_leaves(void **state)
{
	char auto1[256], auto2[256], target[256];
	struct xl_leave left;
	pid_t own, other, liar;
	int status;

	(void)state;
	dir_make("proc");
	dir_make("etc");
	dir_make("etc/xen");
	dir_make("etc/xen/auto");
	file_make("etc/xen/web1.cfg", "name='web1'\n", 0);
	file_make("etc/xen/web2.cfg", "name='web2'\n", 0);
	path_make(target, "etc/xen/web1.cfg");
	path_make(auto1, "etc/xen/auto/10-web1");
	assert_int_equal(symlink(target, auto1), 0);
	path_make(target, "etc/xen/web2.cfg");
	path_make(auto2, "etc/xen/auto/web1.cfg");
	assert_int_equal(symlink(target, auto2), 0);
	file_make("etc/xen/auto/copy", "name = \"web1\"", 0);
	own = sleeper("xl\n", "/var/log/xen/xl-web1.log");
	other = sleeper("xl\n", "/var/log/xen/xl-web11.log");
	liar = sleeper("vi\n", "/var/log/xen/xl-web1.log");
	xl_leave(dir, "web1", &left);
	assert_int_equal(left.processes, 1);
	assert_int_equal(waitpid(own, &status, 0), own);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	assert_int_equal(waitpid(other, &status, WNOHANG), 0);
	assert_int_equal(waitpid(liar, &status, WNOHANG), 0);
	assert_int_equal(left.links, 1);
	assert_int_not_equal(access(auto1, F_OK), 0);
	assert_int_equal(access(auto2, F_OK), 0);
	assert_int_equal(left.left, 1);
	assert_non_null(strstr(left.words, "/etc/xen/auto/copy"));
	kill(other, SIGKILL);
	kill(liar, SIGKILL);
	waitpid(other, &status, 0);
	waitpid(liar, &status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),
		cmocka_unit_test(test_what_is_not_taken_is_told),
		cmocka_unit_test(test_refused),
		cmocka_unit_test_setup_teardown(
			test_files_get_a_name_in_the_sr, setup, teardown),
		cmocka_unit_test_setup_teardown(test_xl_leaves, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
