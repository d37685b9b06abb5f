#include "storage/file_vdi.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Written back this often, so that the last fsync does not take minutes. */
enum { SYNC_EVERY = 64 << 20, BOUNCE_BYTES = 256 << 10 };

void file_copy_close(struct file_copy *c)
{
	if (c->in >= 0)
		close(c->in);
	if (c->out >= 0)
		close(c->out);
	c->in = c->out = -1;
}

/* The sum of its data, for the check whether it fits. */
static int check_space(
	const struct file_dir *to, const struct stat *source, struct rv_error *e)
{
	struct storage_sr_info info;
	char sr[UUID_TEXT_SIZE];
	int rc = file_dir_stat(to, &info, e);
	if (rc)
		return rc;
	uint64_t needed = (uint64_t)source->st_blocks * 512;
	if (needed > info.free_bytes)
		return rv_error_set(e, RV_ESPACE,
			"SR %s (%s): the copy needs %llu bytes and %llu are free: free "
			"some or "
			"use another SR",
			uuid_format(&to->sr, sr), to->path, (unsigned long long)needed,
			(unsigned long long)info.free_bytes);
	return 0;
}

int file_copy_open(struct file_copy *c, const struct file_dir *from,
	const struct uuid *vdi, const struct file_dir *to, const struct uuid *target,
	struct rv_error *e)
{
	char name[FILE_NAME_SIZE];
	struct stat st;
	*c = (struct file_copy){.in = -1, .out = -1};
	file_name_vdi(vdi, STORAGE_FORMAT_RAW, name);
	c->in = openat(from->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (c->in < 0 || fstat(c->in, &st))
		return file_error(from, e, errno, "opening", name);
	int rc = file_vdi_new_open(to, target, STORAGE_FORMAT_RAW, &c->out, e);
	if (rc)
		return rc;
	c->size = (uint64_t)st.st_size;
	if (ioctl(c->out, FICLONE, c->in) == 0) {
		c->at = c->size;
		return 0;
	}
	rc = check_space(to, &st, e);
	if (rc)
		return rc;
	if (ftruncate(c->out, st.st_size))
		return file_error(to, e, errno, "making",
			file_name_vdi(target, STORAGE_FORMAT_RAW, name));
	return 0;
}

/* Finds the next run of data from c->at. False: only a hole is left. */
static bool next_data(const struct file_copy *c, uint64_t *from, uint64_t *until)
{
	off_t data = lseek(c->in, (off_t)c->at, SEEK_DATA);
	if (data < 0 && errno == ENXIO)
		return false;
	off_t hole = data < 0 ? -1 : lseek(c->in, data, SEEK_HOLE);
	*from = data < 0 ? c->at : (uint64_t)data;
	*until = hole < 0 || (uint64_t)hole > c->size ? c->size : (uint64_t)hole;
	return *from < c->size;
}

static int copy_bounce(struct file_copy *c, uint64_t n)
{
	char *bounce = malloc(BOUNCE_BYTES);
	int err = bounce ? 0 : ENOMEM;
	while (!err && n) {
		size_t want = n < BOUNCE_BYTES ? (size_t)n : BOUNCE_BYTES;
		ssize_t r = pread(c->in, bounce, want, (off_t)c->at);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0) {
			err = r < 0 ? errno : EIO;
			break;
		}
		for (ssize_t done = 0; done < r;) {
			ssize_t w = pwrite(c->out, bounce + done, (size_t)(r - done),
				(off_t)c->at + done);
			if (w < 0 && errno == EINTR)
				continue;
			if (w <= 0) {
				err = w < 0 ? errno : EIO;
				break;
			}
			done += w;
		}
		if (!err) {
			c->at += (uint64_t)r;
			n -= (uint64_t)r;
		}
	}
	free(bounce);
	return err;
}

static int copy_range(struct file_copy *c, uint64_t n)
{
	while (n && !c->no_offload) {
		off_t in = (off_t)c->at, out = in;
		ssize_t r = copy_file_range(c->in, &in, c->out, &out, (size_t)n, 0);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && (errno == ENOSPC || errno == EIO || errno == EDQUOT ||
				     errno == EFBIG))
			return errno;
		if (r <= 0) {
			c->no_offload = true;
			break;
		}
		c->at += (uint64_t)r;
		n -= (uint64_t)r;
	}
	return n ? copy_bounce(c, n) : 0;
}

int file_copy_slice(struct file_copy *c, const struct file_dir *to, struct rv_error *e)
{
	uint64_t from, until, left = FILE_SLICE_BYTES;
	while (left && c->at < c->size) {
		if (!next_data(c, &from, &until)) {
			c->at = c->size;
			break;
		}
		c->at = from;
		uint64_t n = until - from < left ? until - from : left;
		int err = copy_range(c, n);
		c->unsynced += n;
		left -= n;
		if (!err && c->unsynced >= SYNC_EVERY) {
			c->unsynced = 0;
			err = fdatasync(c->out) ? errno : 0;
		}
		if (err)
			return file_error(to, e, err, "copying", "");
	}
	return 0;
}
