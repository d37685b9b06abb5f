/* Images, directories and disks as nobody wants them. */
#include "tests/unit/storage/file_world.h"

/* --- hostile images and directories --- */

static void expect_refused(struct fixture *f, uint8_t vdi, int rc, const char *words)
{
	struct answer *a = &f->a;
	assert_int_equal(call_now(f->st, f->loop, a, activate_call(vdi, false, 1)), rc);
	assert_says(a, words);
	struct storage_call copy = copy_call(vdi, 77, 0);
	assert_int_equal(call_now(f->st, f->loop, a, copy), rc);
	call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_SCAN));
	bool found = false;
	struct uuid u = uuid_of(vdi);
	for (size_t i = 0; i < a->result.vdi_count; i++)
		if (uuid_eq(&a->vdis[i].uuid, &u)) {
			found = true;
			assert_int_equal(a->vdis[i].problem, rc);
			assert_non_null(strstr(a->vdis[i].problem_text, "/"));
		}
	assert_true(found);
}

static void test_hostile_images(void **state)
{
	struct fixture *f = *state;
	char path[256], target[256], command[600];
	attach(f);
	vdi_path(f, 2, ".qcow2", path);
	snprintf(command, sizeof command,
		"qemu-img create -q -u -f qcow2 -b /etc/shadow -F raw '%s' 1M", path);
	run_command(command);
	expect_refused(f, 2, RV_ENOTALLOWED, "backing file");
	vdi_path(f, 3, ".qcow2", path);
	snprintf(target, sizeof target, "%s/outside", f->root);
	snprintf(command, sizeof command,
		"qemu-img create -q -f qcow2 -o 'data_file=%s,data_file_raw=on' '%s' 1M",
		target, path);
	run_command(command);
	expect_refused(f, 3, RV_ENOTALLOWED, "external file");
	/* Truncated, and no image at all. */
	vdi_path(f, 4, ".qcow2", path);
	snprintf(command, sizeof command,
		"qemu-img create -q -f qcow2 '%s' 1G && truncate -s 70000 '%s'", path,
		path);
	run_command(command);
	expect_refused(f, 4, RV_ECORRUPT, "truncated");
	vdi_path(f, 5, ".qcow2", path);
	put(path, "#!/bin/sh\n", 10);
	expect_refused(f, 5, RV_ECORRUPT, "no qcow2 image");
	vdi_path(f, 6, ".raw", path);
	put(path, "odd", 3);
	expect_refused(f, 6, RV_ECORRUPT, "truncated");
	/* A guest that writes a qcow2 header into its raw disk gets a raw disk. */
	vdi_path(f, 7, ".raw", path);
	snprintf(command, sizeof command,
		"qemu-img create -q -u -f qcow2 -b /etc/shadow -F raw '%s' 1M && "
		"truncate -s "
		"1M '%s'",
		path, path);
	run_command(command);
	call_ok(f->st, f->loop, &f->a, activate_call(7, false, 1));
	assert_non_null(strstr(f->a.result.backend.spec, "format=raw"));
	/* Smaller than the database says. */
	struct storage_call call = activate_call(7, false, 1);
	call.size = 2 * MIB_;
	assert_int_equal(call_now(f->st, f->loop, &f->a, call), RV_ECORRUPT);
	assert_says(&f->a, "truncated");
}

static void test_links_and_pipes(void **state)
{
	struct fixture *f = *state;
	struct answer *a = &f->a;
	char path[256], other[256];
	attach(f);
	vdi_path(f, 2, ".raw", path);
	assert_int_equal(symlink("/etc/shadow", path), 0);
	expect_refused(f, 2, RV_ECORRUPT, "symbolic link");
	vdi_path(f, 3, ".raw", path);
	assert_int_equal(mkfifo(path, 0600), 0); /* must not hang */
	expect_refused(f, 3, RV_ECORRUPT, "not a plain file");
	vdi_path(f, 4, ".raw", path);
	snprintf(other, sizeof other, "%s/victim", f->root);
	put(other, "0123456789abcdef", 16);
	assert_int_equal(truncate(other, 4096), 0);
	assert_int_equal(link(other, path), 0);
	expect_refused(f, 4, RV_ECORRUPT, "hard links");
	/* A link where the temporary file goes: replaced, not followed. */
	char text[UUID_TEXT_SIZE], text2[UUID_TEXT_SIZE];
	struct uuid host = uuid_of(51), vdi = uuid_of(5);
	snprintf(path, sizeof path, "%s/.new.%s.%s.raw", f->dir, uuid_format(&host, text),
		uuid_format(&vdi, text2));
	assert_int_equal(symlink(other, path), 0);
	call_ok(f->st, f->loop, a, create_call(5, MIB_, STORAGE_FORMAT_RAW));
	struct stat st;
	assert_int_equal(stat(other, &st), 0);
	assert_int_equal(st.st_size, 4096);
	/* A link in place of the lock file and of a claim. */
	in_dir(f, "reeve-sr.lock", path);
	unlink(path);
	assert_int_equal(symlink(other, path), 0);
	assert_int_equal(
		call_now(f->st, f->loop, a, activate_call(5, true, 1)), RV_ECORRUPT);
	assert_int_equal(unlink(path), 0);
	vdi_path(f, 5, ".claim", path);
	assert_int_equal(symlink("/etc/passwd", path), 0);
	assert_int_equal(
		call_now(f->st, f->loop, a, activate_call(5, true, 1)), RV_ECORRUPT);
	/* Destroying removes the link, never what it points to. */
	assert_int_equal(unlink(path), 0);
	call_ok(f->st, f->loop, a, vdi_call(STORAGE_VDI_DESTROY, 2));
	assert_true(exists("/etc/shadow") || errno == ENOENT);
	vdi_path(f, 2, ".raw", path);
	assert_false(exists(path));
}

static void test_foreign_entries(void **state)
{
	struct fixture *f = *state;
	char path[256];
	attach(f);
	in_dir(f, "../x", path);
	static const char *const names[] = {"a b.raw", "; rm -rf .raw", "disk.raw",
		"02000000-0000-0000-0000-00000000000A.raw",
		"02000000-0000-0000-0000-000000000001.raw.bak", ".hidden"};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		in_dir(f, names[i], path);
		put(path, "x", 1);
	}
	call_ok(f->st, f->loop, &f->a, sr_call(STORAGE_SR_SCAN));
	assert_int_equal(f->a.result.vdi_count, 0);
	assert_int_equal(f->a.result.sr_info.foreign, 6);
	/* The same UUID twice. */
	call_ok(f->st, f->loop, &f->a, create_call(2, MIB_, STORAGE_FORMAT_RAW));
	vdi_path(f, 2, ".qcow2", path);
	put(path, "x", 1);
	call_ok(f->st, f->loop, &f->a, sr_call(STORAGE_SR_SCAN));
	assert_int_equal(f->a.result.vdi_count, 2);
	assert_int_equal(f->a.vdis[1].problem, RV_ECORRUPT);
}

/* --- full, read-only, missing --- */

static void need_root_mount(struct fixture *f, const char *options)
{
	if (geteuid() != 0 || mount("tmpfs", f->root, "tmpfs", 0, options) != 0) {
		print_message("SKIPPED: this needs the right to mount a tmpfs\n");
		skip();
	}
}

static void test_full_disk(void **state)
{
	struct fixture *f = *state;
	struct answer *a = &f->a;
	static uint8_t bytes[MIB_];
	need_root_mount(f, "size=3m,nr_inodes=12");
	attach(f);
	call_ok(f->st, f->loop, a, create_call(2, 64 * MIB_, STORAGE_FORMAT_RAW));
	call_ok(f->st, f->loop, a, activate_call(2, true, 1));
	struct storage_call io = vdi_call(STORAGE_VDI_WRITE, 2);
	memset(bytes, 7, sizeof bytes);
	io.data = bytes;
	io.length = sizeof bytes;
	int rc = 0;
	for (io.offset = 0; rc == 0 && io.offset < 8 * MIB_; io.offset += MIB_)
		rc = call_now(f->st, f->loop, a, io);
	assert_int_equal(rc, RV_ESPACE);
	assert_says(a, "no space left");
	assert_says(a, f->dir);
	struct storage_call off = vdi_call(STORAGE_VDI_DEACTIVATE, 2);
	off.generation = 1;
	call_ok(f->st, f->loop, a, off);
	assert_int_equal(call_now(f->st, f->loop, a, copy_call(2, 3, 0)), RV_ESPACE);
	rc = call_now(
		f->st, f->loop, a, create_call(4, 1024 * MIB_, STORAGE_FORMAT_QCOW2));
	if (rc == 0)
		call_ok(f->st, f->loop, a, vdi_call(STORAGE_VDI_DESTROY, 4));
	assert_clean(f, 3); /* marker, lock, the VDI */
	/* Out of inodes. */
	for (uint8_t i = 10; rc == 0 || i < 30; i++)
		rc = call_now(
			f->st, f->loop, a, create_call(i, MIB_, STORAGE_FORMAT_RAW));
	assert_int_equal(rc, RV_ESPACE);
	call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_SCAN));
}

static void test_size_limit(void **state)
{
	struct fixture *f = *state;
	struct rlimit old, low = {MIB_, MIB_};
	attach(f);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	low.rlim_max = old.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
	int rc = call_now(
		f->st, f->loop, &f->a, create_call(2, 8 * MIB_, STORAGE_FORMAT_RAW));
	setrlimit(RLIMIT_FSIZE, &old);
	assert_int_equal(rc, RV_ESPACE);
	assert_says(&f->a, "LimitFSIZE");
	assert_clean(f, 1);
}

static void test_read_only(void **state)
{
	struct fixture *f = *state;
	struct answer *a = &f->a;
	need_root_mount(f, "size=4m");
	attach(f);
	call_ok(f->st, f->loop, a, create_call(2, MIB_, STORAGE_FORMAT_RAW));
	call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_DETACH));
	assert_int_equal(
		mount("tmpfs", f->root, "tmpfs", MS_REMOUNT | MS_RDONLY, "size=4m"), 0);
	call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_ATTACH));
	assert_true(a->result.sr_info.read_only);
	assert_int_equal(
		call_now(f->st, f->loop, a, create_call(3, MIB_, STORAGE_FORMAT_RAW)),
		RV_ENOTALLOWED);
	assert_says(a, "read-only");
	assert_int_equal(
		call_now(f->st, f->loop, a, activate_call(2, true, 1)), RV_ENOTALLOWED);
	assert_int_equal(call_now(f->st, f->loop, a, vdi_call(STORAGE_VDI_DESTROY, 2)),
		RV_ENOTALLOWED);
	call_ok(f->st, f->loop, a, activate_call(2, false, 1));
	call_ok(f->st, f->loop, a, vdi_call(STORAGE_VDI_DEACTIVATE, 2));
	call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_DETACH));
}

/* The directory goes away under an attached SR. */
static void test_vanished(void **state)
{
	struct fixture *f = *state;
	char command[160];
	attach(f);
	snprintf(command, sizeof command, "rm -rf '%s'", f->dir);
	run_command(command);
	assert_int_equal(
		call_now(f->st, f->loop, &f->a, create_call(2, MIB_, STORAGE_FORMAT_RAW)),
		RV_ENOENT);
	assert_says(&f->a, f->dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(test_hostile_images),
		T(test_links_and_pipes),
		T(test_foreign_entries),
		T(test_full_disk),
		T(test_size_limit),
		T(test_read_only),
		T(test_vanished),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
