#include "storage/file_vdi.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/file_claim.h"
#include "storage/qcow2.h"

enum { BLOCK = 4096 };

static int open_vdi(const struct file_dir *d, const struct uuid *vdi,
	enum storage_format format, int flags, struct rv_error *e)
{
	char name[FILE_NAME_SIZE];
	struct stat st;
	file_name_vdi(vdi, format, name);
	/* O_NONBLOCK: a pipe put there by somebody must not hang us. */
	int fd = openat(d->fd, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT
			       ? rv_error_set(e, RV_ENOENT,
					 "%s/%s: there is no such VDI; scan the SR",
					 d->path, name)
			       : file_error(d, e, errno, "opening", name);
	int rc = 0;
	if (fstat(fd, &st))
		rc = file_error(d, e, errno, "looking at", name);
	else if (!S_ISREG(st.st_mode))
		rc = rv_error_set(e, RV_ECORRUPT,
			"%s/%s is not a plain file: remove it, an SR holds plain files "
			"only",
			d->path, name);
	else if (st.st_nlink != 1)
		rc = rv_error_set(e, RV_ECORRUPT,
			"%s/%s has %lu names (hard links): the other could be another "
			"VDI or a "
			"file of the host; remove the others",
			d->path, name, (unsigned long)st.st_nlink);
	if (rc) {
		close(fd);
		return rc;
	}
	return fd;
}

static ssize_t read_at(int fd, void *data, size_t len, uint64_t offset)
{
	size_t used = 0;
	while (used < len) {
		ssize_t r = pread(
			fd, (char *)data + used, len - used, (off_t)(offset + used));
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -1;
		if (r == 0)
			break;
		used += (size_t)r;
	}
	return (ssize_t)used;
}

static int write_at(int fd, const void *data, size_t len, uint64_t offset)
{
	while (len) {
		ssize_t r = pwrite(fd, data, len, (off_t)offset);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? errno : EIO;
		data = (const char *)data + r;
		offset += (uint64_t)r;
		len -= (size_t)r;
	}
	return 0;
}

static int check_qcow2(const struct file_dir *d, const char *name, int fd,
	const struct stat *st, uint64_t *virtual_size, struct rv_error *e)
{
	uint8_t head[QCOW2_HEADER_BYTES];
	struct qcow2_info q;
	ssize_t r = read_at(fd, head, sizeof head, 0);
	if (r < 0)
		return file_error(d, e, errno, "reading", name);
	int rc = qcow2_check(head, (size_t)r, (uint64_t)st->st_size, &q, e);
	if (rc)
		return rv_error_prefix(e, "%s/%s is refused", d->path, name);
	*virtual_size = q.virtual_size;
	return 0;
}

int file_vdi_stat(const struct file_dir *d, const struct uuid *vdi,
	enum storage_format format, struct storage_vdi_info *info, struct rv_error *e)
{
	struct stat st;
	int rc = 0;
	*info = (struct storage_vdi_info){.uuid = *vdi, .format = format};
	char name[FILE_NAME_SIZE];
	snprintf(info->location, sizeof info->location, "%s",
		file_name_vdi(vdi, format, name));
	int fd = open_vdi(d, vdi, format, O_RDONLY, e);
	if (fd < 0) {
		rc = fd;
		goto out;
	}
	if (fstat(fd, &st)) {
		rc = file_error(d, e, errno, "looking at", name);
		goto out;
	}
	info->physical_utilisation = (uint64_t)st.st_blocks * 512;
	info->virtual_size = (uint64_t)st.st_size;
	if (format == STORAGE_FORMAT_QCOW2)
		rc = check_qcow2(d, name, fd, &st, &info->virtual_size, e);
	else if (st.st_size == 0 || st.st_size % 512)
		rc = rv_error_set(e, RV_ECORRUPT,
			"%s/%s has %lld bytes, which is no whole number of sectors: it "
			"is "
			"truncated or no disk image",
			d->path, name, (long long)st.st_size);
out:
	if (fd >= 0)
		close(fd);
	if (rc) {
		info->problem = rc;
		snprintf(info->problem_text, sizeof info->problem_text, "%.255s",
			e->detail);
	}
	return rc;
}

int file_vdi_find(const struct file_dir *d, const struct uuid *vdi,
	struct storage_vdi_info *info, struct rv_error *e)
{
	int rc = file_vdi_stat(d, vdi, STORAGE_FORMAT_RAW, info, e);
	if (rc != RV_ENOENT)
		return rc;
	struct storage_vdi_info qcow2;
	struct rv_error e2;
	rc = file_vdi_stat(d, vdi, STORAGE_FORMAT_QCOW2, &qcow2, &e2);
	if (rc == RV_ENOENT)
		return rc; /* e: of the raw one */
	*info = qcow2;
	if (rc)
		*e = e2;
	else
		rv_error_clear(e);
	return rc;
}

/* --- making and removing --- */

int file_vdi_check_new(const struct file_dir *d, const struct uuid *vdi,
	enum storage_format format, uint64_t size, bool *there,
	struct storage_vdi_info *info, struct rv_error *e)
{
	char text[UUID_TEXT_SIZE];
	*there = false;
	if (d->read_only)
		return file_error(d, e, EROFS, "making a VDI", "");
	int rc = file_vdi_find(d, vdi, info, e);
	if (rc == RV_ENOENT) {
		rv_error_clear(e);
		return 0;
	}
	if (rc == 0 && info->format == format && info->virtual_size == size) {
		*there = true;
		return 0;
	}
	return rv_error_set(e, RV_EEXIST,
		"%s: there is another VDI %s already (%s, %llu bytes): choose another "
		"UUID",
		d->path, uuid_format(vdi, text), storage_format_name(info->format),
		(unsigned long long)info->virtual_size);
}

int file_vdi_new_open(const struct file_dir *d, const struct uuid *vdi,
	enum storage_format format, int *fd, struct rv_error *e)
{
	char name[FILE_NAME_SIZE], temp[FILE_NAME_SIZE];
	file_name_new(d, file_name_vdi(vdi, format, name), temp);
	if (unlinkat(d->fd, temp, 0) && errno != ENOENT)
		return file_error(d, e, errno, "removing the leftover", temp);
	*fd = openat(
		d->fd, temp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return *fd < 0 ? file_error(d, e, errno, "making", name) : 0;
}

void file_vdi_new_drop(
	const struct file_dir *d, const struct uuid *vdi, enum storage_format format)
{
	char name[FILE_NAME_SIZE], temp[FILE_NAME_SIZE];
	file_name_new(d, file_name_vdi(vdi, format, name), temp);
	unlinkat(d->fd, temp, 0);
}

int file_vdi_new_commit(const struct file_dir *d, const struct uuid *vdi,
	enum storage_format format, uint64_t size, struct storage_vdi_info *info,
	struct rv_error *e)
{
	char name[FILE_NAME_SIZE], temp[FILE_NAME_SIZE];
	struct stat st;
	int rc = 0;
	uint64_t virtual_size = 0;
	file_name_new(d, file_name_vdi(vdi, format, name), temp);
	int fd = openat(d->fd, temp, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return file_error(d, e, errno, "opening", temp);
	if (fstat(fd, &st) || fchmod(fd, 0600))
		rc = file_error(d, e, errno, "looking at", temp);
	virtual_size = rc ? 0 : (uint64_t)st.st_size;
	if (rc == 0 && format == STORAGE_FORMAT_QCOW2)
		rc = check_qcow2(d, temp, fd, &st, &virtual_size, e);
	if (rc == 0 && virtual_size != size)
		rc = rv_error_set(e, RV_EIO,
			"%s/%s came out with %llu bytes instead of %llu", d->path, name,
			(unsigned long long)virtual_size, (unsigned long long)size);
	if (rc == 0 && fsync(fd))
		rc = file_error(d, e, errno, "writing", name);
	close(fd);
	if (rc == 0 && renameat(d->fd, temp, d->fd, name))
		rc = file_error(d, e, errno, "naming", name);
	if (rc)
		return rc;
	rc = file_dir_sync(d, e);
	return rc ? rc : file_vdi_stat(d, vdi, format, info, e);
}

int file_vdi_create_raw(const struct file_dir *d, const struct uuid *vdi, uint64_t size,
	struct storage_vdi_info *info, struct rv_error *e)
{
	bool there;
	int fd;
	int rc = file_vdi_check_new(d, vdi, STORAGE_FORMAT_RAW, size, &there, info, e);
	if (rc || there)
		return rc;
	rc = file_vdi_new_open(d, vdi, STORAGE_FORMAT_RAW, &fd, e);
	if (rc)
		return rc;
	if (ftruncate(fd, (off_t)size)) {
		char name[FILE_NAME_SIZE];
		rc = file_error(d, e, errno, "making",
			file_name_vdi(vdi, STORAGE_FORMAT_RAW, name));
	}
	close(fd);
	if (rc == 0)
		rc = file_vdi_new_commit(d, vdi, STORAGE_FORMAT_RAW, size, info, e);
	if (rc)
		file_vdi_new_drop(d, vdi, STORAGE_FORMAT_RAW);
	return rc;
}

int file_vdi_destroy(const struct file_dir *d, const struct uuid *vdi, struct rv_error *e)
{
	static const enum storage_format formats[] = {
		STORAGE_FORMAT_RAW, STORAGE_FORMAT_QCOW2};
	char name[FILE_NAME_SIZE];
	int lock = file_dir_lock(d, e);
	if (lock < 0)
		return lock;
	int rc = file_claim_check_none(d, vdi, e);
	for (int i = 0; rc == 0 && i < 2; i++) {
		file_name_vdi(vdi, formats[i], name);
		if (unlinkat(d->fd, name, 0) && errno != ENOENT)
			rc = file_error(d, e, errno, "removing", name);
	}
	close(lock);
	return rc ? rc : file_dir_sync(d, e);
}

int file_vdi_grow_raw(const struct file_dir *d, const struct uuid *vdi, uint64_t size,
	struct rv_error *e)
{
	int rc = 0;
	int fd = open_vdi(d, vdi, STORAGE_FORMAT_RAW, O_RDWR, e);
	if (fd < 0)
		return fd;
	if (ftruncate(fd, (off_t)size) || fsync(fd)) {
		char name[FILE_NAME_SIZE];
		rc = file_error(d, e, errno, "growing",
			file_name_vdi(vdi, STORAGE_FORMAT_RAW, name));
	}
	close(fd);
	return rc;
}

void file_vdi_backend(const struct file_dir *d, const struct storage_vdi_info *info,
	bool write, struct storage_backend *out)
{
	*out = (struct storage_backend){
		.format = info->format,
		.writable = write,
		.virtual_size = info->virtual_size,
	};
	snprintf(out->path, sizeof out->path, "%s/%s", d->path, info->location);
	/* target comes last: libxl takes all that follows it as the path. */
	snprintf(out->spec, sizeof out->spec, "format=%s,access=%s,target=%s",
		storage_format_name(info->format), write ? "rw" : "ro", out->path);
}

/* --- bytes --- */

static bool all_zero(const uint8_t *p, size_t len)
{
	return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

int file_vdi_read(const struct file_dir *d, const struct uuid *vdi, uint64_t offset,
	void *data, size_t len, size_t *got, struct rv_error *e)
{
	char name[FILE_NAME_SIZE];
	struct stat st;
	int rc = 0;
	file_name_vdi(vdi, STORAGE_FORMAT_RAW, name);
	int fd = open_vdi(d, vdi, STORAGE_FORMAT_RAW, O_RDONLY, e);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st)) {
		rc = file_error(d, e, errno, "looking at", name);
	} else if (offset >= (uint64_t)st.st_size) {
		rc = rv_error_set(e, RV_EINVAL,
			"%s/%s ends at %lld: nothing to read at %llu", d->path, name,
			(long long)st.st_size, (unsigned long long)offset);
	} else {
		ssize_t r = read_at(fd, data, len, offset);
		if (r < 0)
			rc = file_error(d, e, errno, "reading", name);
		*got = r < 0 ? 0 : (size_t)r;
	}
	close(fd);
	return rc;
}

/* Data as data, runs of zero blocks as holes. */
static int write_sparse(int fd, uint64_t offset, const uint8_t *p, size_t len)
{
	while (len) {
		size_t n = BLOCK - offset % BLOCK;
		bool zero = n == BLOCK && len >= n && all_zero(p, n);
		if (n > len)
			n = len;
		/* As long as the next block is of the same kind. */
		while (n < len) {
			size_t m = len - n < BLOCK ? len - n : BLOCK;
			if ((m == BLOCK && all_zero(p + n, m)) != zero)
				break;
			n += m;
		}
		int err = 0;
		if (!zero || fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				     (off_t)offset, (off_t)n))
			err = write_at(fd, p, n, offset);
		if (err)
			return err;
		p += n;
		offset += n;
		len -= n;
	}
	return 0;
}

int file_vdi_write(const struct file_dir *d, const struct uuid *vdi, uint64_t offset,
	const void *data, size_t len, bool sync, struct rv_error *e)
{
	char name[FILE_NAME_SIZE];
	struct stat st;
	int rc = 0;
	file_name_vdi(vdi, STORAGE_FORMAT_RAW, name);
	int fd = open_vdi(d, vdi, STORAGE_FORMAT_RAW, O_RDWR, e);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st)) {
		rc = file_error(d, e, errno, "looking at", name);
	} else if (offset > (uint64_t)st.st_size || len > (uint64_t)st.st_size - offset) {
		rc = rv_error_set(e, RV_EINVAL,
			"%s/%s ends at %lld: %zu bytes at %llu don't fit", d->path, name,
			(long long)st.st_size, len, (unsigned long long)offset);
	} else {
		int err = write_sparse(fd, offset, data, len);
		if (!err && sync && fdatasync(fd))
			err = errno;
		if (err)
			rc = file_error(d, e, err, "writing", name);
	}
	close(fd);
	return rc;
}
