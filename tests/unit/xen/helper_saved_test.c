/*
 * A saved domain in a file: what is written is read again, everything else is refused.
 * The helper's part of it (xen/helper/saved.c) against a file here; what libxenguest and
 * libxl do with it, this test does.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <cmocka.h>

#include "xen/helper/work.h"
#include "xen/real/saved_file.h"

enum { AT = 8192, ROOM = 8 << 20, STREAM = 2 * SAVED_FILE_PIECE + 12345 };

static struct helper_request *request;
static char path[64];
static uint64_t told;

/* --- what the kernel is asked --- */

/* The thread stands still in its reading of piece `hold_at`, from 1 on, until it is
 * waited for. */
static struct {
	unsigned pieces, hold_at, ranges, whole; /* atomic: read; synced */
	int fails_with;				 /* a sync */
	sem_t held, go;
} kernel;

ssize_t __real_pread(int fd, void *to, size_t len, off_t at);
ssize_t __wrap_pread(int fd, void *to, size_t len, off_t at);
int __real_pthread_join(pthread_t thread, void **out);
int __wrap_pthread_join(pthread_t thread, void **out);
int __real_msync(void *at, size_t len, int flags);
int __wrap_msync(void *at, size_t len, int flags);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);

ssize_t __wrap_pread(int fd, void *to, size_t len, off_t at)
{
	if (len == SAVED_FILE_PIECE && __atomic_add_fetch(&kernel.pieces, 1,
					       __ATOMIC_SEQ_CST) == kernel.hold_at) {
		sem_post(&kernel.held);
		while (sem_wait(&kernel.go) < 0)
			;
	}
	return __real_pread(fd, to, len, at);
}

int __wrap_pthread_join(pthread_t thread, void **out)
{
	if (kernel.hold_at)
		sem_post(&kernel.go);
	return __real_pthread_join(thread, out);
}

static int sync_result(unsigned *count)
{
	__atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST);
	errno = kernel.fails_with;
	return errno ? -1 : 0;
}

int __wrap_msync(void *at, size_t len, int flags)
{
	assert_true(len <= (65 << 20));
	return sync_result(&kernel.ranges) < 0 ? -1 : __real_msync(at, len, flags);
}

int __wrap_fdatasync(int fd)
{
	return sync_result(&kernel.whole) < 0 ? -1 : __real_fdatasync(fd);
}

/* --- the helper's other files --- */

int64_t work_now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

void work_send(struct work *w, const struct helper_message *m)
{
	(void)w;
	assert_int_equal(m->kind, HELPER_WRITTEN);
	assert_true(m->written >= told);
	told = m->written;
}

int work_fail(struct work *w, int code, const char *fmt, ...)
{
	char text[512];
	va_list al;

	va_start(al, fmt);
	vsnprintf(text, sizeof text, fmt, al);
	va_end(al);
	return rv_error_set(&w->error, code, "%s", text);
}

/* --- one save, one restore --- */

static uint8_t content(size_t at)
{
	return (uint8_t)(at * 13 + at / 509);
}

static int setup(void **state)
{
	int fd;

	(void)state;
	request = calloc(1, sizeof *request);
	assert_non_null(request);
	snprintf(path, sizeof path, "/tmp/reeve-saved-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, AT + ROOM), 0);
	close(fd);
	snprintf(request->file, sizeof request->file, "%s", path);
	request->file_at = AT;
	request->file_size = ROOM;
	request->vm = (struct uuid){{7}};
	request->vm_type = HYPER_PVH;
	request->vm_actual_kib = 98304;
	request->vm_extra_kib = 36;
	told = 0;
	memset(&kernel, 0, sizeof kernel);
	assert_int_equal(sem_init(&kernel.held, 0, 0), 0);
	assert_int_equal(sem_init(&kernel.go, 0, 0), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	free(request);
	return 0;
}

static struct work work_make(void)
{
	return (struct work){.req = request, .data_fd = open("/dev/null", O_RDWR)};
}

static void work_end(struct work *w)
{
	work_saved_free(w);
	close(w->data_fd);
}

/* The limit of this process stays as it was. */
static int save(struct work *w, size_t bytes, int how)
{
	uint8_t *piece = malloc(300001);
	struct rlimit before;
	int rc;

	assert_non_null(piece);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	rc = work_saved_begin(w);
	for (size_t at = 0; !rc && at < bytes;) {
		size_t n = bytes - at < 300001 ? bytes - at : 300001;
		ssize_t r;

		for (size_t i = 0; i < n; i++)
			piece[i] = content(at + i);
		r = write(w->data_fd, piece, n);
		if (r < 0)
			how = RV_EHYPERVISOR; /* all that libxenguest tells */
		if (r < 0)
			break;
		at += (size_t)r;
	}
	if (!rc)
		rc = work_saved_end(w, how);
	free(piece);
	return rc;
}

/* Reads as libxl would, `bytes` of it. */
static int restore(struct work *w, size_t bytes)
{
	uint64_t actual_kib = 0;
	uint8_t *piece = malloc(70001);
	bool same = true;
	int rc = work_saved_open(w, &actual_kib);

	assert_non_null(piece);
	if (!rc) {
		assert_int_equal(actual_kib, 98304);
		rc = work_saved_check(w);
	}
	for (size_t at = 0; !rc && at < bytes;) {
		size_t n = bytes - at < 70001 ? bytes - at : 70001;
		ssize_t r = read(w->data_fd, piece, n);

		assert_true(r > 0);
		for (ssize_t i = 0; i < r; i++)
			same = same && piece[i] == content(at + (size_t)i);
		at += (size_t)r;
	}
	if (!rc)
		rc = work_saved_checked(w, same ? 0 : RV_EHYPERVISOR);
	free(piece);
	return rc;
}

static int restore_once(size_t bytes)
{
	struct work w = work_make();
	int rc = restore(&w, bytes);

	work_end(&w);
	return rc;
}

static void save_once(size_t bytes)
{
	struct work w = work_make();

	if (save(&w, bytes, 0) != 0)
		fail_msg("%s", w.error.detail);
	assert_int_equal(w.result.file_bytes, saved_file_bytes(bytes));
	work_end(&w);
}

static void flip(uint64_t at)
{
	int fd = open(path, O_RDWR);
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= 4;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	close(fd);
}

/* --- tests --- */

static void what_is_saved_is_restored(void **state)
{
	static const size_t sizes[] = {
		1, 4096, SAVED_FILE_PIECE, SAVED_FILE_PIECE + 1, STREAM};

	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct work w = work_make();

		save_once(sizes[i]);
		assert_int_equal(restore(&w, sizes[i]), 0);
		assert_int_equal(w.result.extra_kib, 36);
		assert_int_equal(w.result.file_bytes, saved_file_bytes(sizes[i]));
		work_end(&w);
	}
}

static void damage_is_seen(void **state)
{
	uint64_t stream = AT + SAVED_FILE_HEAD, table = AT + saved_file_table_at(STREAM);
	const uint64_t places[] = {AT, AT + 9, AT + 20, AT + 41, AT + 50, AT + 60, stream,
		stream + SAVED_FILE_PIECE, stream + STREAM - 1, table, table + 23};

	(void)state;
	save_once(STREAM);
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		int rc;

		flip(places[i]);
		rc = restore_once(STREAM);
		if (rc != RV_ECORRUPT && !(places[i] == AT && rc == RV_EPROTO))
			fail_msg("byte %llu: %d", (unsigned long long)places[i], rc);
		flip(places[i]);
	}
	assert_int_equal(restore_once(STREAM), 0);
	/* libxl stops before its end, or the file is cut off. */
	assert_int_equal(restore_once(STREAM - 8), RV_ECORRUPT);
	assert_int_equal(truncate(path, AT + SAVED_FILE_HEAD + STREAM), 0);
	assert_int_equal(restore_once(STREAM), RV_ECORRUPT);
	assert_int_equal(truncate(path, AT + 100), 0);
	assert_int_equal(restore_once(STREAM), RV_ECORRUPT);
}

static void another_guest_is_refused(void **state)
{
	(void)state;
	save_once(5000);
	request->vm.b[0] = 8;
	assert_int_equal(restore_once(5000), RV_ESTATE);
	request->vm.b[0] = 7;
	request->vm_type = HYPER_PV;
	assert_int_equal(restore_once(5000), RV_ESTATE);
	request->vm_type = HYPER_PVH;
	request->file_size = saved_file_bytes(5000) - 1;
	assert_int_equal(restore_once(5000), RV_ECORRUPT);
}

static void no_link_is_followed(void **state)
{
	char name[80];
	struct work w = work_make();

	(void)state;
	snprintf(name, sizeof name, "%s-link", path);
	assert_int_equal(symlink(path, name), 0);
	snprintf(request->file, sizeof request->file, "%s", name);
	assert_int_equal(work_saved_begin(&w), RV_EIO);
	assert_non_null(strstr(w.error.detail, name));
	unlink(name);
	work_end(&w);
}

/* The two that come first, since a limit can't be taken back. */

static void much_room(void)
{
	request->file_size = UINT64_C(1) << 30;
	assert_int_equal(truncate(path, (off_t)(AT + request->file_size)), 0);
}

/* As if so much had been written at once. */
static void write_up_to(struct work *w, uint64_t bytes)
{
	off_t at = (off_t)(AT + SAVED_FILE_HEAD + bytes - 1);

	assert_int_equal(lseek(w->data_fd, at, SEEK_SET), at);
	assert_int_equal(write(w->data_fd, "x", 1), 1);
}

static void wait_held(void)
{
	while (sem_wait(&kernel.held) < 0)
		;
}

static void a_failed_save_is_read_no_further(void **state)
{
	struct work w = work_make();

	(void)state;
	much_room();
	kernel.hold_at = 3;
	assert_int_equal(work_saved_begin(&w), 0);
	write_up_to(&w, 512 << 20);
	wait_held();
	assert_int_equal(work_saved_end(&w, RV_EHYPERVISOR), RV_EHYPERVISOR);
	assert_int_equal(kernel.pieces, 3);
	assert_true(told <= SAVED_FILE_HEAD + 4 * SAVED_FILE_PIECE);
	work_end(&w);
}

static void a_save_is_synced_as_it_goes(void **state)
{
	struct work w = work_make();

	(void)state;
	much_room();
	assert_int_equal(work_saved_begin(&w), 0);
	write_up_to(&w, (130 << 20) + 5);
	assert_int_equal(work_saved_end(&w, 0), 0);
	assert_int_equal(kernel.pieces, 130);
	assert_int_equal(kernel.ranges, 2);
	assert_int_equal(kernel.whole, 1);
	work_end(&w);
	/* The last sync fails. */
	w = work_make();
	kernel.fails_with = EIO;
	assert_int_equal(work_saved_begin(&w), 0);
	write_up_to(&w, 5);
	assert_int_equal(work_saved_end(&w, 0), RV_EIO);
	assert_non_null(strstr(w.error.detail, path));
	work_end(&w);
	/* One in the midst: the writer is stopped. */
	w = work_make();
	kernel.fails_with = ENOSPC;
	assert_int_equal(work_saved_begin(&w), 0);
	write_up_to(&w, 300 << 20);
	for (int i = 0; i < 6000 && write(w.data_fd, "x", 1) == 1; i++)
		usleep(10000);
	assert_int_equal(write(w.data_fd, "x", 1), -1);
	assert_int_equal(work_saved_end(&w, RV_EHYPERVISOR), RV_ESPACE);
	assert_non_null(strstr(w.error.detail, "more room"));
	assert_true(kernel.pieces < 300);
	work_end(&w);
}

/* Only of what libxl has read it matters whether it is damaged. */
static void a_refused_stream_is_read_no_further(void **state)
{
	uint64_t stream = AT + SAVED_FILE_HEAD, actual_kib;
	struct work w;
	char bytes[100];

	(void)state;
	save_once(5 * SAVED_FILE_PIECE + 9);
	for (int damaged = 0; damaged < 3; damaged++) {
		w = work_make();
		kernel.pieces = 0;
		kernel.hold_at = 2;
		if (damaged == 1)
			flip(stream + 3 * SAVED_FILE_PIECE);
		if (damaged == 2)
			flip(stream + SAVED_FILE_PIECE - 1);
		assert_int_equal(work_saved_open(&w, &actual_kib), 0);
		assert_int_equal(work_saved_check(&w), 0);
		assert_int_equal(read(w.data_fd, bytes, sizeof bytes), sizeof bytes);
		if (damaged < 2)
			wait_held();
		assert_int_equal(work_saved_checked(&w, RV_EHYPERVISOR),
			damaged == 2 ? RV_ECORRUPT : RV_EHYPERVISOR);
		assert_int_equal(kernel.pieces, damaged == 2 ? 1 : 2);
		work_end(&w);
	}
	/* It has read of the fourth piece. */
	flip(stream + SAVED_FILE_PIECE - 1);
	w = work_make();
	kernel.hold_at = 0;
	assert_int_equal(work_saved_open(&w, &actual_kib), 0);
	assert_int_equal(work_saved_check(&w), 0);
	assert_true(lseek(w.data_fd, 3 * SAVED_FILE_PIECE, SEEK_CUR) > 0);
	assert_int_equal(work_saved_checked(&w, RV_EHYPERVISOR), RV_ECORRUPT);
	work_end(&w);
}

/* The limit can't be taken back, so this one is the last. */
static void too_much_is_told(void **state)
{
	struct work w = work_make();

	(void)state;
	request->file_size = 2 << 20;
	assert_int_equal(save(&w, STREAM, 0), RV_ESPACE);
	assert_non_null(strstr(w.error.detail, path));
	work_end(&w);
	/* Room for the stream, not for its table. */
	request->file_size = SAVED_FILE_HEAD + 8192;
	w = work_make();
	assert_int_equal(save(&w, 8192, 0), RV_ESPACE);
	work_end(&w);
	/* What failed for other reasons keeps its own. */
	w = work_make();
	assert_int_equal(save(&w, 100, RV_EHYPERVISOR), RV_EHYPERVISOR);
	work_end(&w);
}

static void without_a_file_nothing_happens(void **state)
{
	struct work w = work_make();
	uint64_t actual_kib = 5;

	(void)state;
	request->file[0] = '\0';
	assert_int_equal(work_saved_begin(&w), 0);
	assert_int_equal(work_saved_end(&w, RV_ESTATE), RV_ESTATE);
	assert_int_equal(work_saved_open(&w, &actual_kib), 0);
	assert_int_equal(work_saved_check(&w), 0);
	assert_int_equal(work_saved_checked(&w, RV_EIO), RV_EIO);
	assert_int_equal(actual_kib, 5);
	work_end(&w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_failed_save_is_read_no_further),
		TEST(a_save_is_synced_as_it_goes),
		TEST(what_is_saved_is_restored),
		TEST(damage_is_seen),
		TEST(another_guest_is_refused),
		TEST(no_link_is_followed),
		TEST(without_a_file_nothing_happens),
		TEST(a_refused_stream_is_read_no_further),
		TEST(too_much_is_told),
	};

	return cmocka_run_group_tests_name("xen/helper_saved", tests, NULL, NULL);
}
