/* A file SR as it goes: its life, disks, claims and copies, also when it is killed. */
#include "tests/unit/storage/file_world.h"

/* --- the SR --- */

static void test_sr_life(void **state)
{
	struct fixture *f = *state;
	struct answer *a = &f->a;
	char path[256];
	call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_PROBE));
	assert_false(a->result.probe.exists);
	call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_CREATE));
	call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_CREATE)); /* a repeat */
	call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_PROBE));
	struct uuid sr = uuid_of(1);
	assert_true(a->result.probe.is_sr);
	assert_true(uuid_eq(&a->result.probe.sr, &sr));
	assert_true(a->result.probe.info.physical_size > 0);
	assert_int_equal(
		call_now(f->st, f->loop, a, create_call(2, MIB_, 1)), RV_ENOTATTACHED);
	assert_says(a, "pbd-plug");
	call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_ATTACH));
	assert_true(a->result.sr_info.free_bytes > 0);
	assert_true(storage_sr_attached(f->st, &sr));
	call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_ATTACH)); /* a repeat */

	call_ok(f->st, f->loop, a, create_call(2, MIB_, STORAGE_FORMAT_RAW));
	assert_int_equal(
		call_now(f->st, f->loop, a, sr_call(STORAGE_SR_DESTROY)), RV_ENOTALLOWED);
	assert_says(a, "holds 1 VDIs");
	call_ok(f->st, f->loop, a, vdi_call(STORAGE_VDI_DESTROY, 2));
	in_dir(f, "admin's notes.txt", path);
	put(path, "x", 1);
	call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_DESTROY));
	assert_false(storage_sr_attached(f->st, &sr));
	assert_true(exists(path)); /* not ours */
	assert_clean(f, 1);
	assert_int_equal(unlink(path), 0);
	/* Made by us: goes with the SR. */
	assert_int_equal(rmdir(f->dir), 0);
	attach(f);
	call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_DESTROY));
	assert_false(exists(f->dir));
}

static void test_sr_wrong_places(void **state)
{
	struct fixture *f = *state;
	struct answer *a = &f->a;
	char path[256];
	struct storage_call call = sr_call(STORAGE_SR_CREATE);
	static const char *const bad[] = {"relative", "/tmp/../etc", "/tmp/..", "/a\nb"};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		location[0].value = bad[i];
		assert_int_equal(call_now(f->st, f->loop, a, call), RV_EINVAL);
	}
	location[0].value = "/tmp/reeve no such parent/sr";
	assert_int_equal(call_now(f->st, f->loop, a, call), RV_ENOENT);
	assert_says(a, "no such parent");
	location[0].value = f->dir;
	struct storage_call unknown = call;
	struct storage_config both[2] = {location[0], {"server", "x"}};
	unknown.config = both;
	unknown.config_count = 2;
	assert_int_equal(call_now(f->st, f->loop, a, unknown), RV_EINVAL);
	assert_says(a, "'server'");
	unknown.config_count = 0;
	assert_int_equal(call_now(f->st, f->loop, a, unknown), RV_EINVAL);
	assert_says(a, "location");

	assert_int_equal(mkdir(f->dir, 0700), 0);
	in_dir(f, "precious", path);
	put(path, "x", 1);
	assert_int_equal(call_now(f->st, f->loop, a, call), RV_ENOTALLOWED);
	assert_says(a, "precious");
	assert_int_equal(unlink(path), 0);
	/* An empty directory that is no SR: the file system is not mounted. */
	assert_int_equal(
		call_now(f->st, f->loop, a, sr_call(STORAGE_SR_ATTACH)), RV_ENOENT);
	assert_says(a, "mounted");
	call_ok(f->st, f->loop, a, call);
	call.sr = uuid_of(7);
	assert_int_equal(call_now(f->st, f->loop, a, call), RV_EEXIST);
	call.verb = STORAGE_SR_ATTACH;
	assert_int_equal(call_now(f->st, f->loop, a, call), RV_ECONFLICT);
	assert_says(a, "device-config:location");
	in_dir(f, "reeve-sr", path);
	put(path, "nonsense", 8);
	assert_int_equal(
		call_now(f->st, f->loop, a, sr_call(STORAGE_SR_ATTACH)), RV_ECORRUPT);
}

/* --- VDIs --- */

static void test_vdi_raw(void **state)
{
	struct fixture *f = *state;
	struct answer *a = &f->a;
	char path[256];
	struct stat st;
	attach(f);
	call_ok(f->st, f->loop, a,
		create_call(2, 10 * 1024 * MIB_ - 5, STORAGE_FORMAT_RAW));
	assert_int_equal(a->result.vdi_info.virtual_size, 10 * 1024 * MIB_);
	assert_true(a->result.vdi_info.physical_utilisation < MIB_); /* sparse */
	vdi_path(f, 2, ".raw", path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	/* A repeat succeeds; another size or format does not. */
	call_ok(f->st, f->loop, a, create_call(2, 10 * 1024 * MIB_, STORAGE_FORMAT_RAW));
	assert_int_equal(
		call_now(f->st, f->loop, a, create_call(2, MIB_, STORAGE_FORMAT_RAW)),
		RV_EEXIST);
	assert_int_equal(call_now(f->st, f->loop, a,
				 create_call(2, 10 * 1024 * MIB_, STORAGE_FORMAT_QCOW2)),
		RV_EEXIST);
	struct storage_call grow = vdi_call(STORAGE_VDI_RESIZE, 2);
	grow.size = 20 * 1024 * MIB_;
	call_ok(f->st, f->loop, a, grow);
	assert_int_equal(a->result.vdi_info.virtual_size, 20 * 1024 * MIB_);
	grow.size = MIB_;
	assert_int_equal(call_now(f->st, f->loop, a, grow), RV_EINVAL);
	assert_says(a, "only grow");
	call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_SCAN));
	assert_int_equal(a->result.vdi_count, 1);
	assert_int_equal(a->result.sr_info.virtual_allocation, 20 * 1024 * MIB_);
	call_ok(f->st, f->loop, a, vdi_call(STORAGE_VDI_DESTROY, 2));
	call_ok(f->st, f->loop, a, vdi_call(STORAGE_VDI_DESTROY, 2)); /* a repeat */
	assert_int_equal(
		call_now(f->st, f->loop, a, vdi_call(STORAGE_VDI_STAT, 2)), RV_ENOENT);
	assert_clean(f, 2);
	assert_int_equal(
		call_now(f->st, f->loop, a, create_call(2, 0, STORAGE_FORMAT_RAW)),
		RV_EINVAL);
	assert_int_equal(call_now(f->st, f->loop, a,
				 create_call(2, UINT64_MAX, STORAGE_FORMAT_RAW)),
		RV_EINVAL);
}

static void test_vdi_bytes(void **state)
{
	struct fixture *f = *state;
	struct answer *a = &f->a;
	static uint8_t bytes[64 << 10];
	attach(f);
	call_ok(f->st, f->loop, a, create_call(2, MIB_, STORAGE_FORMAT_RAW));
	struct storage_call io = vdi_call(STORAGE_VDI_WRITE, 2);
	memset(bytes, 7, sizeof bytes);
	io.data = bytes;
	io.length = sizeof bytes;
	io.offset = 4096 + 100;
	io.sync = true;
	assert_int_equal(
		call_now(f->st, f->loop, a, io), RV_ENOTALLOWED); /* not active */
	call_ok(f->st, f->loop, a, activate_call(2, true, 1));
	call_ok(f->st, f->loop, a, io);
	call_ok(f->st, f->loop, a, vdi_call(STORAGE_VDI_STAT, 2));
	assert_true(a->result.vdi_info.physical_utilisation >= sizeof bytes);
	struct storage_call in = io;
	in.verb = STORAGE_VDI_READ;
	call_ok(f->st, f->loop, a, in);
	assert_int_equal(a->result.data_len, sizeof bytes);
	assert_memory_equal(a->data, bytes, sizeof bytes);
	in.offset = 0;
	call_ok(f->st, f->loop, a, in);
	assert_int_equal(a->data[4195], 0);
	assert_int_equal(a->data[4196], 7);
	/* Zeros give the space back. */
	memset(bytes, 0, sizeof bytes);
	call_ok(f->st, f->loop, a, io);
	call_ok(f->st, f->loop, a, vdi_call(STORAGE_VDI_STAT, 2));
	assert_true(a->result.vdi_info.physical_utilisation < sizeof bytes / 2);
	io.offset = MIB_ - 10;
	assert_int_equal(call_now(f->st, f->loop, a, io), RV_EINVAL);
	in.offset = MIB_;
	assert_int_equal(call_now(f->st, f->loop, a, in), RV_EINVAL);
	in.length = STORAGE_MAX_IO_BYTES + 1;
	assert_int_equal(call_now(f->st, f->loop, a, in), RV_EINVAL);
}

static void test_qcow2(void **state)
{
	struct fixture *f = *state;
	struct answer *a = &f->a;
	attach(f);
	call_ok(f->st, f->loop, a, create_call(2, 64 * MIB_, STORAGE_FORMAT_QCOW2));
	assert_int_equal(a->result.vdi_info.virtual_size, 64 * MIB_);
	call_ok(f->st, f->loop, a, create_call(2, 64 * MIB_, STORAGE_FORMAT_QCOW2));
	struct storage_call grow = vdi_call(STORAGE_VDI_RESIZE, 2);
	grow.size = 128 * MIB_;
	call_ok(f->st, f->loop, a, grow);
	assert_int_equal(a->result.vdi_info.virtual_size, 128 * MIB_);
	call_ok(f->st, f->loop, a, activate_call(2, true, 1));
	assert_non_null(
		strstr(a->result.backend.spec, "format=qcow2,access=rw,target=/"));
	struct storage_call deactivate = vdi_call(STORAGE_VDI_DEACTIVATE, 2);
	deactivate.generation = 1;
	call_ok(f->st, f->loop, a, deactivate);
	call_ok(f->st, f->loop, a, copy_call(2, 3, 0));
	assert_int_equal(a->result.vdi_info.format, STORAGE_FORMAT_QCOW2);
	call_ok(f->st, f->loop, a, copy_call(2, 4, STORAGE_FORMAT_RAW));
	assert_int_equal(a->result.vdi_info.format, STORAGE_FORMAT_RAW);
	assert_int_equal(a->result.vdi_info.virtual_size, 128 * MIB_);
	call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_SCAN));
	assert_int_equal(a->result.vdi_count, 3);
	assert_clean(f, 5); /* no claim, no leftover */
}

/* --- claims --- */

static void test_claims(void **state)
{
	struct fixture *f = *state;
	struct answer *a = &f->a;
	attach(f);
	call_ok(f->other, f->loop, a, sr_call(STORAGE_SR_ATTACH));
	call_ok(f->st, f->loop, a, create_call(2, MIB_, STORAGE_FORMAT_RAW));
	call_ok(f->st, f->loop, a, activate_call(2, true, 5));
	call_ok(f->st, f->loop, a, activate_call(2, true, 5)); /* a repeat */
	/* Another host, even with a newer generation: source -> none -> target. */
	assert_int_equal(
		call_now(f->other, f->loop, a, activate_call(2, true, 6)), RV_EBUSY);
	assert_says(a, "33000000"); /* host 51 */
	assert_int_equal(
		call_now(f->other, f->loop, a, activate_call(2, false, 6)), RV_EBUSY);
	/* An older generation, late. */
	assert_int_equal(
		call_now(f->st, f->loop, a, activate_call(2, true, 4)), RV_ESTALE);
	struct storage_call off = vdi_call(STORAGE_VDI_DEACTIVATE, 2);
	off.generation = 4;
	assert_int_equal(call_now(f->st, f->loop, a, off), RV_ESTALE);
	assert_int_equal(
		call_now(f->st, f->loop, a, vdi_call(STORAGE_VDI_DESTROY, 2)), RV_EBUSY);
	assert_int_equal(
		call_now(f->st, f->loop, a, sr_call(STORAGE_SR_DETACH)), RV_EBUSY);
	assert_int_equal(call_now(f->st, f->loop, a, copy_call(2, 3, 0)), RV_EBUSY);
	/* The claim outlives the daemon. */
	storage_free(f->st);
	host_new(&f->st, f->loop, 51);
	call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_ATTACH));
	assert_int_equal(
		call_now(f->other, f->loop, a, activate_call(2, true, 6)), RV_EBUSY);
	off.generation = 5;
	call_ok(f->st, f->loop, a, off);
	call_ok(f->st, f->loop, a, off); /* a repeat */
	call_ok(f->other, f->loop, a, activate_call(2, true, 6));
	/* Host 52 dies and is fenced. */
	struct storage_call take = activate_call(2, true, 7);
	assert_int_equal(call_now(f->st, f->loop, a, take), RV_EBUSY);
	take.void_generation = 5;
	assert_int_equal(call_now(f->st, f->loop, a, take), RV_EBUSY);
	take.void_generation = 6;
	call_ok(f->st, f->loop, a, take);
	/* A damaged claim is not "free". */
	char path[256];
	vdi_path(f, 2, ".claim", path);
	put(path, "write what\n", 11);
	assert_int_equal(
		call_now(f->st, f->loop, a, activate_call(2, true, 9)), RV_ECORRUPT);
	put(path, "\0rite what\n", 11);
	assert_int_equal(
		call_now(f->st, f->loop, a, activate_call(2, true, 9)), RV_ECORRUPT);
	put(path, "\0\0\0\0", 4); /* after a power failure */
	call_ok(f->st, f->loop, a, activate_call(2, true, 9));
}

/* All of all hosts are told of; another host's is taken away where that is asked for. */
static void test_claims_listed(void **state)
{
	struct fixture *f = *state;
	struct answer *a = &f->a;
	struct storage_call off = vdi_call(STORAGE_VDI_DEACTIVATE, 2);
	char path[256];
	attach(f);
	call_ok(f->other, f->loop, a, sr_call(STORAGE_SR_ATTACH));
	call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_CLAIMS));
	assert_int_equal(a->result.claim_count, 0);
	for (uint8_t vdi = 2; vdi < 5; vdi++)
		call_ok(f->st, f->loop, a, create_call(vdi, MIB_, STORAGE_FORMAT_RAW));
	call_ok(f->st, f->loop, a, activate_call(2, true, 7));
	call_ok(f->other, f->loop, a, activate_call(3, false, 8));
	call_ok(f->other, f->loop, a, activate_call(4, true, 9));
	/* One that can't be read hinders its own disk. */
	vdi_path(f, 4, ".claim", path);
	put(path, "write what\n", 11);
	call_ok(f->other, f->loop, a, sr_call(STORAGE_SR_CLAIMS));
	assert_int_equal(a->result.claim_count, 2);
	for (size_t i = 0; i < 2; i++) {
		struct storage_claim *c = &a->claims[i];
		struct uuid two = uuid_of(2), holder = uuid_of(90),
			    host = uuid_of(c->write ? 51 : 52);
		assert_int_equal(uuid_eq(&c->vdi, &two), c->write);
		assert_true(uuid_eq(&c->holder, &holder) && uuid_eq(&c->host, &host));
		assert_int_equal(c->generation, c->write ? 7 : 8);
	}
	off.generation = 6;
	off.claim_host = uuid_of(51);
	assert_int_equal(call_now(f->other, f->loop, a, off), RV_ESTALE);
	off.generation = 7;
	call_ok(f->other, f->loop, a, off);
	call_ok(f->other, f->loop, a, sr_call(STORAGE_SR_CLAIMS));
	assert_int_equal(a->result.claim_count, 1);
	assert_false(a->claims[0].write);
}

static void test_readers(void **state)
{
	struct fixture *f = *state;
	struct answer *a = &f->a;
	attach(f);
	call_ok(f->other, f->loop, a, sr_call(STORAGE_SR_ATTACH));
	call_ok(f->st, f->loop, a, create_call(2, MIB_, STORAGE_FORMAT_RAW));
	call_ok(f->st, f->loop, a, activate_call(2, false, 1));
	call_ok(f->other, f->loop, a, activate_call(2, false, 1));
	assert_int_equal(
		call_now(f->st, f->loop, a, activate_call(2, true, 1)), RV_EBUSY);
	struct storage_call off = vdi_call(STORAGE_VDI_DEACTIVATE, 2);
	off.generation = 1;
	call_ok(f->other, f->loop, a, off);
	assert_int_equal(
		call_now(f->other, f->loop, a, activate_call(2, true, 1)), RV_EBUSY);
}

/* Somebody holds the SR's lock and does not let go. */
static void test_locked(void **state)
{
	struct fixture *f = *state;
	char path[256];
	attach(f);
	call_ok(f->st, f->loop, &f->a, create_call(2, MIB_, STORAGE_FORMAT_RAW));
	in_dir(f, "reeve-sr.lock", path);
	int fd = open(path, O_RDWR | O_CREAT, 0600);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	struct storage_call call = activate_call(2, true, 1);
	call.deadline_ms = 200;
	assert_int_equal(call_now(f->st, f->loop, &f->a, call), RV_ETIMEDOUT);
	assert_false(f->a.result.settled);
	struct uuid sr = uuid_of(1);
	assert_true(storage_sr_settling_since_us(f->st, &sr) > 0);
	close(fd);
	call_ok(f->st, f->loop, &f->a, activate_call(2, true, 1));
	assert_int_equal(storage_sr_settling_since_us(f->st, &sr), 0);
}

/* --- copies, cancel, kill --- */

static void fill(const struct fixture *f, uint8_t vdi, const char *how)
{
	char path[256], command[400];
	vdi_path(f, vdi, ".raw", path);
	snprintf(command, sizeof command,
		"dd if=/dev/urandom of='%s' bs=1M %s conv=notrunc "
		"status=none",
		path, how);
	run_command(command);
}

static void assert_same(const struct fixture *f, uint8_t x, uint8_t y)
{
	char a[256], b[256], command[600];
	vdi_path(f, x, ".raw", a);
	vdi_path(f, y, ".raw", b);
	snprintf(command, sizeof command, "cmp '%s' '%s'", a, b);
	run_command(command);
}

static void test_copy(void **state)
{
	struct fixture *f = *state;
	struct answer *a = &f->a;
	struct stat st;
	char path[256];
	attach(f);
	call_ok(f->st, f->loop, a, create_call(2, 512 * MIB_, STORAGE_FORMAT_RAW));
	fill(f, 2, "count=20 seek=3");
	fill(f, 2, "count=1 seek=511");
	call_ok(f->st, f->loop, a, copy_call(2, 3, 0));
	assert_true(a->progress >= 1);
	assert_int_equal(a->last_bytes, 512 * MIB_);
	assert_same(f, 2, 3);
	vdi_path(f, 3, ".raw", path);
	assert_int_equal(stat(path, &st), 0);
	assert_true((uint64_t)st.st_blocks * 512 < 30 * MIB_); /* holes stay holes */
	call_ok(f->st, f->loop, a, copy_call(2, 3, 0));	       /* a repeat */
	call_ok(f->st, f->loop, a, activate_call(2, true, 1)); /* free again */
	assert_int_equal(call_now(f->st, f->loop, a, copy_call(9, 4, 0)), RV_ENOENT);
	assert_clean(f, 5);
}

static void test_copy_to_another_sr(void **state)
{
	struct fixture *f = *state;
	struct answer *a = &f->a;
	char dir2[160];
	attach(f);
	snprintf(dir2, sizeof dir2, "%s/second", f->root);
	struct storage_config second = {"location", dir2};
	struct storage_call sr = sr_call(STORAGE_SR_CREATE);
	sr.sr = uuid_of(8);
	sr.config = &second;
	call_ok(f->st, f->loop, a, sr);
	call_ok(f->st, f->loop, a, create_call(2, 32 * MIB_, STORAGE_FORMAT_RAW));
	fill(f, 2, "count=9 seek=3");
	struct storage_call copy = copy_call(2, 3, 0);
	copy.target_sr = uuid_of(8);
	assert_int_equal(call_now(f->st, f->loop, a, copy), RV_ENOTATTACHED);
	sr.verb = STORAGE_SR_ATTACH;
	call_ok(f->st, f->loop, a, sr);
	call_ok(f->st, f->loop, a, copy);
	char from[256], command[700], text[UUID_TEXT_SIZE];
	struct uuid u = uuid_of(3);
	vdi_path(f, 2, ".raw", from);
	snprintf(command, sizeof command, "cmp '%s' '%s/%s.raw'", from, dir2,
		uuid_format(&u, text));
	run_command(command);
}

static void test_copy_cancelled(void **state)
{
	struct fixture *f = *state;
	struct answer *a = &f->a;
	struct storage_request *r;
	attach(f);
	call_ok(f->st, f->loop, a, create_call(2, 128 * MIB_, STORAGE_FORMAT_RAW));
	fill(f, 2, "count=60");
	memset(a, 0, sizeof *a);
	a->loop = f->loop;
	begin(f->st, a, copy_call(2, 3, 0), &r);
	a->cancel_on_progress = r;
	loop_run(f->loop);
	if (a->result.rc == 0) { /* a file system with reflinks was done at once */
		assert_true(a->progress <= 1);
		return;
	}
	assert_int_equal(a->result.rc, RV_ECANCELLED);
	assert_true(a->result.settled);
	assert_clean(f, 3);
	call_ok(f->st, f->loop, a, activate_call(2, true, 1));
}

static void test_cancel_waiting(void **state)
{
	struct fixture *f = *state;
	struct answer *a = &f->a, *b = calloc(1, sizeof *b);
	struct storage_request *r;
	attach(f);
	memset(a, 0, sizeof *a);
	a->loop = b->loop = f->loop;
	begin(f->st, a, create_call(2, MIB_, STORAGE_FORMAT_QCOW2), NULL);
	begin(f->st, b, vdi_call(STORAGE_VDI_DESTROY, 2), &r); /* waits for the first */
	storage_cancel(r);
	storage_cancel(r);
	assert_int_equal(b->done, 0); /* never inside */
	while (!a->done || !b->done)
		loop_run(f->loop);
	assert_int_equal(b->result.rc, RV_ECANCELLED);
	assert_true(b->result.settled);
	assert_int_equal(a->result.rc, 0);
	free(b);
}

/* A daemon in the middle of `call` is killed; the next one must find old or new. */
static void kill_during(struct storage_call call, int after_us)
{
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct loop *l;
		struct storage *st;
		struct rv_error e;
		struct answer *a = calloc(1, sizeof *a);
		if (loop_new(&l, &e))
			_exit(1);
		a->loop = l;
		if (storage_new(&st, l, uuid_of(51)) || storage_file_add(st))
			_exit(1);
		struct storage_call attach_call = sr_call(STORAGE_SR_ATTACH);
		attach_call.done = call.done = answer_done;
		attach_call.arg = call.arg = a;
		if (storage_start(st, &attach_call, NULL, &e))
			_exit(1);
		loop_run(l);
		for (;;) { /* again and again: the kill hits any point */
			a->done = 0;
			if (storage_start(st, &call, NULL, &e))
				_exit(1);
			loop_run(l);
			struct storage_call undo = vdi_call(STORAGE_VDI_DESTROY, 3);
			undo.done = answer_done;
			undo.arg = a;
			if (storage_start(st, &undo, NULL, &e))
				_exit(1);
			loop_run(l);
		}
	}
	usleep((useconds_t)after_us);
	kill(pid, SIGKILL);
	int status;
	waitpid(pid, &status, 0);
	assert_true(WIFSIGNALED(status));
}

static void test_kill(void **state)
{
	struct fixture *f = *state;
	struct answer *a = &f->a;
	attach(f);
	call_ok(f->st, f->loop, a, create_call(2, 64 * MIB_, STORAGE_FORMAT_RAW));
	fill(f, 2, "count=40");
	storage_free(f->st);
	for (int round = 0; round < 12; round++) {
		struct storage_call calls[] = {copy_call(2, 3, 0),
			create_call(3, 64 * MIB_, STORAGE_FORMAT_QCOW2),
			create_call(3, 64 * MIB_, STORAGE_FORMAT_RAW)};
		kill_during(calls[round % 3], 60000 + round * 7919);
		/* A qemu-img may live on for a moment. */
		usleep(100000);
		host_new(&f->st, f->loop, 51);
		call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_ATTACH));
		call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_SCAN));
		size_t count = a->result.vdi_count;
		assert_in_range(count, 1, 2);
		for (size_t i = 0; i < count; i++)
			assert_int_equal(a->vdis[i].problem, 0);
		if (count == 2 && round % 3 == 0)
			assert_same(f, 2, 3);
		assert_clean(f, 2 + (int)count); /* no leftovers, no claims */
		call_ok(f->st, f->loop, a, vdi_call(STORAGE_VDI_DESTROY, 3));
		storage_free(f->st);
	}
	host_new(&f->st, f->loop, 51);
}

/* Given up in the middle: nothing may be called or leak. */
static void test_free_under_way(void **state)
{
	struct fixture *f = *state;
	struct answer *a = &f->a;
	attach(f);
	memset(a, 0, sizeof *a);
	a->loop = f->loop;
	begin(f->st, a, create_call(2, MIB_, STORAGE_FORMAT_QCOW2), NULL);
	begin(f->st, a, create_call(3, MIB_, STORAGE_FORMAT_RAW), NULL);
	begin(f->st, a, vdi_call(STORAGE_VDI_STAT, 3), NULL);
	storage_free(f->st);
	host_new(&f->st, f->loop, 51);
	call_ok(f->st, f->loop, a, sr_call(STORAGE_SR_ATTACH));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(test_sr_life),
		T(test_sr_wrong_places),
		T(test_vdi_raw),
		T(test_vdi_bytes),
		T(test_qcow2),
		T(test_claims),
		T(test_claims_listed),
		T(test_readers),
		T(test_locked),
		T(test_copy),
		T(test_copy_to_another_sr),
		T(test_copy_cancelled),
		T(test_cancel_waiting),
		T(test_kill),
		T(test_free_under_way),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
