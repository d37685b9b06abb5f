/*
 * A saved domain in a file (xen/real/saved_file.h): libxenguest and libxl write and read
 * it directly; a thread beside them reads the same bytes, which the kernel still has, and
 * takes their sums. Of a save it also brings them to the disk as they come: the guest
 * stands still until they are there.
 */
#include "xen/helper/work.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "xen/real/saved_file.h"

enum {
	FOLLOW_US = 20 * 1000, /* between looks how far the writer is */
	TELL_US = 250 * 1000,
	SYNC_EVERY = 64 << 20,
};

#define NOT_WRITTEN                                                                      \
	"its memory can't be written to %s: %s; give it more room or another SR "        \
	"(suspend-SR)"

struct work_saved {
	struct work *w;
	int fd;
	uint64_t begin; /* of the stream, in the file */
	bool writing;
	pthread_t thread;
	bool follows;
	uint8_t *piece;
	uint64_t *sums; /* as read or taken, in this machine's order */
	uint64_t count, room;
	uint64_t length; /* restore: of the stream */
	/* How far the thread is to go, UINT64_MAX while it is written, and whether it is
	 * to go on at all; atomic. The latter may change at any time, the former may
	 * become less than what is done. */
	uint64_t end;
	bool abandoned;
	/* The thread's; looked at when it has ended. */
	uint64_t done;	 /* bytes of the stream whose sums are taken */
	uint64_t synced; /* of them, on the disk */
	int64_t told_us;
	int rc;
	struct rv_error error;
};

/* --- reading and writing --- */

static int read_at(int fd, void *to, size_t len, uint64_t at)
{
	uint8_t *bytes = to;

	while (len > 0) {
		ssize_t r = pread(fd, bytes, len, (off_t)at);

		if (r < 0 && errno == EINTR)
			continue;
		if (r == 0)
			errno = ENODATA;
		if (r <= 0)
			return -1;
		bytes += r;
		at += (uint64_t)r;
		len -= (size_t)r;
	}
	return 0;
}

static int write_at(int fd, const void *from, size_t len, uint64_t at)
{
	const uint8_t *bytes = from;

	while (len > 0) {
		ssize_t r = pwrite(fd, bytes, len, (off_t)at);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return -1;
		bytes += r;
		at += (uint64_t)r;
		len -= (size_t)r;
	}
	return 0;
}

static int code_of(int err)
{
	return err == ENOSPC || err == EFBIG || err == EDQUOT ? RV_ESPACE
	       : err == ENODATA				      ? RV_ECORRUPT
							      : RV_EIO;
}

static const char *words_of(int err)
{
	return err == ENODATA ? "it ends too early" : strerror(err);
}

/* --- the thread --- */

static int follow_failed(struct work_saved *s, const char *what)
{
	int err = errno;

	s->rc = rv_error_set(&s->error, code_of(err), "%s %s: %s", s->w->req->file, what,
		words_of(err));
	return s->rc;
}

static int sum_keep(struct work_saved *s, uint64_t number, uint64_t sum)
{
	if (number == s->room) {
		uint64_t room = s->room ? s->room * 2 : 256;
		uint64_t *sums = realloc(s->sums, room * sizeof *sums);

		if (!sums)
			return rv_error_set(&s->error, s->rc = RV_ENOMEM,
				"no memory for the sums of a saved domain");
		s->sums = sums;
		s->room = room;
	}
	s->sums[number] = sum;
	s->count = number + 1;
	return 0;
}

static int sum_compare(struct work_saved *s, uint64_t number, uint64_t sum)
{
	if (s->sums[number] == sum)
		return 0;
	return rv_error_set(&s->error, s->rc = RV_ECORRUPT,
		"the saved domain's file %s is damaged: piece %llu has a wrong sum",
		s->w->req->file, (unsigned long long)number);
}

/* The next piece, whose bytes are all there. */
static int follow_piece(struct work_saved *s, size_t len)
{
	uint64_t number = s->done / SAVED_FILE_PIECE, sum;

	if (read_at(s->fd, s->piece, len, s->begin + s->done) < 0)
		return follow_failed(s, "can't be read");
	sum = saved_file_sum(s->piece, len, number);
	s->done += len;
	return s->writing ? sum_keep(s, number, sum) : sum_compare(s, number, sum);
}

/* fdatasync would also wait for all that the writer, far ahead, has left to the kernel.
 */
static int range_sync(int fd, uint64_t from, uint64_t to)
{
	uint64_t at = from & ~((uint64_t)sysconf(_SC_PAGESIZE) - 1);
	void *map = mmap(NULL, to - at, PROT_READ, MAP_SHARED, fd, (off_t)at);
	int r, err;

	if (map == MAP_FAILED)
		return fdatasync(fd);
	r = msync(map, to - at, MS_SYNC);
	err = errno;
	munmap(map, to - at);
	errno = err;
	return r;
}

/* `all`: also what the file system itself has to write. */
static void follow_sync(struct work_saved *s, bool all)
{
	int r, err;

	if (s->rc || !s->writing || (!all && s->done - s->synced < SYNC_EVERY))
		return;
	r = all ? fdatasync(s->fd)
		: range_sync(s->fd, s->begin + s->synced, s->begin + s->done);
	err = errno;
	s->synced = s->done;
	if (r < 0)
		s->rc = rv_error_set(&s->error, code_of(err), NOT_WRITTEN,
			s->w->req->file, strerror(err));
}

/* Where the writer is, or the thread if that lags behind: neither looks like a guest that
 * does not go on while the other does. */
static void follow_tell(struct work_saved *s, uint64_t there)
{
	struct helper_message m = {.kind = HELPER_WRITTEN};
	int64_t now = work_now_us();

	if (!s->writing || now - s->told_us < TELL_US)
		return;
	if (there > s->done + SAVED_FILE_PIECE)
		there = s->done + SAVED_FILE_PIECE;
	m.written = SAVED_FILE_HEAD + there;
	s->told_us = now;
	work_send(s->w, &m);
}

static uint64_t position(const struct work_saved *s)
{
	off_t at = lseek(s->fd, 0, SEEK_CUR);

	return at > 0 && (uint64_t)at > s->begin ? (uint64_t)at - s->begin : 0;
}

/* libxenguest is in the midst of writing: its next write fails. */
static void writer_stop(struct work_saved *s)
{
	int fd = open("/", O_PATH | O_CLOEXEC);

	if (fd < 0)
		return;
	(void)dup3(fd, s->fd, O_CLOEXEC);
	close(fd);
}

static void *follow(void *arg)
{
	struct work_saved *s = arg;

	while (!s->rc && !__atomic_load_n(&s->abandoned, __ATOMIC_ACQUIRE)) {
		uint64_t end = __atomic_load_n(&s->end, __ATOMIC_ACQUIRE);
		uint64_t there = end == UINT64_MAX ? position(s) : end;
		uint64_t left = there > s->done ? there - s->done : 0;

		if (end != UINT64_MAX && left == 0) {
			follow_sync(s, true);
			break;
		}
		follow_tell(s, there);
		if (left >= SAVED_FILE_PIECE || end != UINT64_MAX)
			(void)follow_piece(s, left < SAVED_FILE_PIECE ? (size_t)left
								      : SAVED_FILE_PIECE);
		else
			usleep(FOLLOW_US);
		follow_sync(s, false);
	}
	if (s->rc && s->writing)
		writer_stop(s);
	return NULL;
}

static int follow_start(struct work_saved *s)
{
	s->piece = malloc(SAVED_FILE_PIECE);
	if (!s->piece || pthread_create(&s->thread, NULL, follow, s) != 0)
		return work_fail(
			s->w, RV_ENOMEM, "no memory to take the sums of a saved domain");
	s->follows = true;
	return 0;
}

static void follow_end(struct work_saved *s)
{
	if (s->follows)
		pthread_join(s->thread, NULL);
	s->follows = false;
}

/* --- opening --- */

static int open_failed(struct work *w, int err)
{
	return work_fail(w, code_of(err),
		"the saved domain's file %s can't be opened: %s", w->req->file,
		strerror(err));
}

/* Names of volumes are links; a file's must not be. */
static int file_open(struct work *w, int flags)
{
	const char *path = w->req->file;
	int follow_link = strncmp(path, "/dev/", 5) == 0 ? 0 : O_NOFOLLOW;
	struct stat st;
	int fd = open(path, flags | follow_link | O_CLOEXEC);

	if (fd < 0)
		return open_failed(w, errno);
	if (fstat(fd, &st) < 0 || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))) {
		close(fd);
		return open_failed(w, ENOTSUP);
	}
	close(w->data_fd);
	w->data_fd = fd;
	return 0;
}

/* NULL: w->error says why. */
static struct work_saved *saved_open(struct work *w, bool writing)
{
	struct work_saved *s;

	if (file_open(w, writing ? O_RDWR : O_RDONLY))
		return NULL;
	s = calloc(1, sizeof *s);
	if (!s) {
		(void)work_fail(w, RV_ENOMEM, "no memory for a saved domain");
		return NULL;
	}
	s->w = w;
	s->fd = w->data_fd;
	s->begin = w->req->file_at + SAVED_FILE_HEAD;
	s->writing = writing;
	s->end = UINT64_MAX;
	s->told_us = work_now_us();
	w->saved = s;
	return s;
}

/* --- a save --- */

int work_saved_begin(struct work *w)
{
	struct rlimit most = {.rlim_cur = w->req->file_at + w->req->file_size};
	struct work_saved *s;

	if (!w->req->file[0])
		return 0;
	s = saved_open(w, true);
	if (!s)
		return w->error.code;
	/* libxenguest does not know how much room there is. */
	most.rlim_max = most.rlim_cur;
	signal(SIGXFSZ, SIG_IGN);
	if (setrlimit(RLIMIT_FSIZE, &most) < 0 ||
		lseek(s->fd, (off_t)s->begin, SEEK_SET) < 0)
		return open_failed(w, errno);
	return follow_start(s);
}

/* libxenguest says that it failed, not why: the file itself does. */
static int why_not_written(struct work_saved *s)
{
	static const uint8_t zeroes[SAVED_FILE_HEAD];
	struct work *w = s->w;
	int err;

	if (write_at(s->fd, zeroes, sizeof zeroes, s->begin + position(s)) == 0)
		return 0;
	err = errno;
	rv_error_clear(&w->error);
	return work_fail(w, code_of(err), NOT_WRITTEN, w->req->file, strerror(err));
}

static int table_write(struct work_saved *s, uint64_t length)
{
	const struct helper_request *req = s->w->req;
	uint8_t block[SAVED_FILE_HEAD];
	struct saved_file f = {
		.head = {.vm = req->vm,
			.type = (enum hyper_type)req->vm_type,
			.actual_kib = req->vm_actual_kib,
			.extra_kib = req->vm_extra_kib},
		.stream_bytes = length,
		.table_sum = saved_file_table_put(s->sums, s->count),
	};

	if (saved_file_bytes(length) > req->file_size) {
		errno = ENOSPC;
		return -1;
	}
	saved_file_format(block, &f);
	if (write_at(s->fd, s->sums, s->count * sizeof *s->sums,
		    req->file_at + saved_file_table_at(length)) < 0)
		return -1;
	return write_at(s->fd, block, sizeof block, req->file_at);
}

static int thread_failed(struct work_saved *s)
{
	rv_error_clear(&s->w->error);
	return work_fail(s->w, s->rc, "%s", s->error.detail);
}

/* The guest stands still meanwhile: the thread ends with the piece at hand. */
static int save_failed(struct work_saved *s, int rc)
{
	__atomic_store_n(&s->abandoned, true, __ATOMIC_RELEASE);
	follow_end(s);
	if (rc == RV_ESTATE || rc == RV_ENOENT || rc == RV_ECANCELLED)
		return rc;
	if (s->rc)
		return thread_failed(s);
	return why_not_written(s) ? s->w->error.code : rc;
}

int work_saved_end(struct work *w, int rc)
{
	struct work_saved *s = w->saved;
	uint64_t length;

	if (!s)
		return rc;
	if (rc)
		return save_failed(s, rc);
	length = position(s);
	__atomic_store_n(&s->end, length, __ATOMIC_RELEASE);
	follow_end(s);
	if (s->rc)
		return thread_failed(s);
	if (s->done != length || s->count != saved_file_sums(length))
		return work_fail(w, RV_EINTERNAL, "the saved domain's sums don't fit it");
	if (table_write(s, length) < 0)
		return why_not_written(s) ? w->error.code
					  : work_fail(w, code_of(errno),
						    "its memory can't be written to %s: "
						    "%s",
						    w->req->file, strerror(errno));
	w->result.file_bytes = saved_file_bytes(length);
	return 0;
}

/* --- a restore --- */

/* Is it the right guest? */
static int head_check(struct work *w, const struct saved_file *f)
{
	const struct helper_request *req = w->req;
	char was[UUID_TEXT_SIZE], is[UUID_TEXT_SIZE];

	if (!uuid_eq(&f->head.vm, &req->vm))
		return work_fail(w, RV_ESTATE,
			"the saved state is of VM %s, not of %s; restore it there",
			uuid_format(&f->head.vm, was), uuid_format(&req->vm, is));
	if ((uint32_t)f->head.type != req->vm_type)
		return work_fail(w, RV_ESTATE,
			"the saved guest is of another type than the VM now is: set the "
			"VM's type back");
	if (f->head.actual_kib > UINT64_MAX / 2048)
		return work_fail(w, RV_ECORRUPT,
			"the saved domain's file is damaged: its memory is impossible");
	return 0;
}

static int table_read(struct work_saved *s, const struct saved_file *f)
{
	struct work *w = s->w;

	s->count = saved_file_sums(f->stream_bytes);
	s->sums = malloc(s->count * sizeof *s->sums);
	if (!s->sums)
		return work_fail(w, RV_ENOMEM, "no memory for a saved domain's sums");
	if (read_at(s->fd, s->sums, s->count * sizeof *s->sums,
		    w->req->file_at + saved_file_table_at(f->stream_bytes)) < 0)
		return work_fail(w, code_of(errno),
			"the saved domain's file %s can't be read: %s", w->req->file,
			words_of(errno));
	if (saved_file_table_get(s->sums, s->count) != f->table_sum)
		return work_fail(w, RV_ECORRUPT,
			"the saved domain's file is damaged: its table of sums is");
	return 0;
}

int work_saved_open(struct work *w, uint64_t *actual_kib)
{
	uint8_t block[SAVED_FILE_HEAD];
	struct rv_error e = {0};
	struct work_saved *s;
	struct saved_file f;
	int rc;

	if (!w->req->file[0])
		return 0;
	s = saved_open(w, false);
	if (!s)
		return w->error.code;
	if (read_at(s->fd, block, sizeof block, w->req->file_at) < 0)
		return work_fail(w, code_of(errno),
			"the saved domain's file %s can't be read: %s", w->req->file,
			words_of(errno));
	rc = saved_file_parse(&f, block, w->req->file_size, &e);
	if (rc)
		return work_fail(w, rc, "%s", e.detail);
	rc = head_check(w, &f);
	if (!rc)
		rc = table_read(s, &f);
	if (rc)
		return rc;
	if (lseek(s->fd, (off_t)s->begin, SEEK_SET) < 0)
		return open_failed(w, errno);
	s->length = s->end = f.stream_bytes;
	*actual_kib = f.head.actual_kib;
	w->result.extra_kib = f.head.extra_kib;
	return 0;
}

int work_saved_check(struct work *w)
{
	return w->saved ? follow_start(w->saved) : 0;
}

/* libxl does not want the rest, however long it is: the pieces that it has read of tell
 * whether it was right. */
static void check_no_further(struct work_saved *s)
{
	uint64_t end = (position(s) / SAVED_FILE_PIECE + 1) * SAVED_FILE_PIECE;

	if (end < s->length)
		__atomic_store_n(&s->end, end, __ATOMIC_RELEASE);
}

int work_saved_checked(struct work *w, int rc)
{
	struct work_saved *s = w->saved;

	if (!s)
		return rc;
	if (rc)
		check_no_further(s);
	follow_end(s);
	/* That it is damaged says more than that libxl did not like it. */
	if (s->rc)
		return thread_failed(s);
	if (!rc && position(s) != s->length)
		return work_fail(w, RV_ECORRUPT,
			"the saved domain's stream is damaged: there is more after its "
			"end");
	w->result.file_bytes = saved_file_bytes(s->length);
	return rc;
}

void work_saved_free(struct work *w)
{
	if (!w->saved)
		return;
	free(w->saved->piece);
	free(w->saved->sums);
	free(w->saved);
	w->saved = NULL;
}
