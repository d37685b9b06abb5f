/* The real disk: one directory, locked. */
#include "pool/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/list.h"

static const char LOCK_NAME[] = "lock";

struct dir_disk {
	struct disk disk;
	struct loop *loop;
	char path[512];
	int dir_fd, lock_fd;
	atomic_bool gone; /* seen by any lane; for good */
};

struct dir_file {
	struct disk_file file;
	int fd;
};

static struct dir_disk *dir_of(struct disk *d)
{
	return CONTAINER_OF(d, struct dir_disk, disk);
}

static int sys_error(
	struct rv_error *e, struct disk *d, const char *name, const char *what, int err)
{
	const char *todo = err == ENOSPC || err == EDQUOT
				   ? "; free some space on that file system"
				   : "";

	return rv_error_set(e, rv_error_from_errno(err), "%s %s/%s: %s%s", what, d->path,
		name, strerror(err), todo);
}

/* Bytes in a file without a name are synced, and gone with the daemon: who acknowledged
 * them would have promised too much. So once the directory is not the one that was opened
 * nothing works any more, and an empty one in its place is never taken for it. */
static int dir_is_there(struct dir_disk *d, struct rv_error *e)
{
	struct stat lock, own, now;

	if (!d->gone && fstat(d->lock_fd, &lock) == 0 && lock.st_nlink > 0 &&
		fstat(d->dir_fd, &own) == 0 && stat(d->path, &now) == 0 &&
		own.st_ino == now.st_ino && own.st_dev == now.st_dev)
		return 0;
	d->gone = true;
	return rv_error_set(e, RV_EIO,
		"%s was deleted or moved away while the daemon ran: what is written now "
		"is lost, so this host votes no more. Put it back where it was moved and "
		"restart reeved; where it is lost, stop reeved, pool-eject this host "
		"elsewhere and join anew with an empty directory",
		d->path);
}

static int dir_sync_names(struct dir_disk *d, const char *name, struct rv_error *e)
{
	if (fsync(d->dir_fd))
		return sys_error(e, &d->disk, name, "sync the directory of", errno);
	return dir_is_there(d, e);
}

static int dir_list(struct disk *disk, disk_list_fn *fn, void *arg, struct rv_error *e)
{
	struct dir_disk *d = dir_of(disk);
	int rc = dir_is_there(d, e);
	int fd = rc ? -1 : openat(d->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	struct stat st;

	if (rc)
		return rc;
	if (!dir) {
		int err = errno;

		if (fd >= 0)
			close(fd);
		return sys_error(e, disk, "", "list", err);
	}
	while ((entry = readdir(dir))) {
		if (fstatat(d->dir_fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
			!S_ISREG(st.st_mode) || strcmp(entry->d_name, LOCK_NAME) == 0)
			continue;
		fn(arg, entry->d_name, (uint64_t)st.st_size);
	}
	closedir(dir);
	return 0;
}

static int read_fd(int fd, uint8_t **bytes, size_t *len)
{
	struct stat st;
	size_t got = 0;

	if (fstat(fd, &st))
		return errno;
	*bytes = malloc((size_t)st.st_size + 1);
	if (!*bytes)
		return ENOMEM;
	while (got < (size_t)st.st_size) {
		ssize_t r = pread(fd, *bytes + got, (size_t)st.st_size - got, (off_t)got);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return errno;
		if (r == 0)
			break;
		got += (size_t)r;
	}
	*len = got;
	return 0;
}

static int dir_read(struct disk *disk, const char *name, uint8_t **bytes, size_t *len,
	struct rv_error *e)
{
	int fd = openat(dir_of(disk)->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	int err;

	*bytes = NULL;
	if (fd < 0)
		return sys_error(e, disk, name, "read", errno);
	err = read_fd(fd, bytes, len);
	close(fd);
	if (err) {
		free(*bytes);
		*bytes = NULL;
		return sys_error(e, disk, name, "read", err);
	}
	return 0;
}

static int dir_prepare(struct dir_disk *d, int fd, const char *name, uint64_t reserve,
	struct rv_error *e)
{
	int err = reserve ? posix_fallocate(fd, 0, (off_t)reserve) : 0;

	/* A file system that can't set space aside still serves, later than hoped. */
	if (err && err != EOPNOTSUPP && err != EINVAL)
		return sys_error(e, &d->disk, name, "set aside space for", err);
	if (fsync(fd))
		return sys_error(e, &d->disk, name, "create", errno);
	return dir_sync_names(d, name, e);
}

static int dir_open(struct disk *disk, const char *name, bool create, uint64_t reserve,
	struct disk_file **out, struct rv_error *e)
{
	struct dir_disk *d = dir_of(disk);
	struct dir_file *f = calloc(1, sizeof *f);
	int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT | O_TRUNC : 0);
	int rc = dir_is_there(d, e);

	if (rc) {
		free(f);
		return rc;
	}
	if (!f)
		return rv_error_set(e, RV_ENOMEM, "open %s: out of memory", name);
	f->file.disk = disk;
	snprintf(f->file.name, sizeof f->file.name, "%s", name);
	f->fd = openat(d->dir_fd, name, flags, 0600);
	if (f->fd < 0) {
		rc = sys_error(e, disk, name, create ? "create" : "open", errno);
		free(f);
		return rc;
	}
	if (create)
		rc = dir_prepare(d, f->fd, name, reserve, e);
	if (rc) {
		close(f->fd);
		free(f);
		unlinkat(d->dir_fd, name, 0);
		return rc;
	}
	*out = &f->file;
	return 0;
}

static int dir_write(struct disk_file *file, uint64_t offset, const void *bytes,
	size_t len, struct rv_error *e)
{
	struct dir_file *f = CONTAINER_OF(file, struct dir_file, file);
	const uint8_t *at = bytes;

	while (len > 0) {
		ssize_t r = pwrite(f->fd, at, len, (off_t)offset);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return sys_error(e, file->disk, file->name, "write to",
				r < 0 ? errno : EIO);
		at += r;
		offset += (uint64_t)r;
		len -= (size_t)r;
	}
	return 0;
}

static int dir_sync(struct disk_file *file, struct rv_error *e)
{
	struct dir_file *f = CONTAINER_OF(file, struct dir_file, file);

	if (fdatasync(f->fd))
		return sys_error(e, file->disk, file->name, "sync", errno);
	return dir_is_there(dir_of(file->disk), e);
}

static int dir_truncate(struct disk_file *file, uint64_t size, struct rv_error *e)
{
	struct dir_file *f = CONTAINER_OF(file, struct dir_file, file);

	if (ftruncate(f->fd, (off_t)size))
		return sys_error(e, file->disk, file->name, "cut", errno);
	return 0;
}

static void dir_close(struct disk_file *file)
{
	struct dir_file *f = CONTAINER_OF(file, struct dir_file, file);

	close(f->fd);
	free(f);
}

static int dir_rename(
	struct disk *disk, const char *from, const char *to, struct rv_error *e)
{
	struct dir_disk *d = dir_of(disk);

	if (renameat(d->dir_fd, from, d->dir_fd, to))
		return sys_error(e, disk, from, "rename", errno);
	return dir_sync_names(d, to, e);
}

static int dir_remove(struct disk *disk, const char *name, struct rv_error *e)
{
	struct dir_disk *d = dir_of(disk);

	if (unlinkat(d->dir_fd, name, 0) && errno != ENOENT)
		return sys_error(e, disk, name, "remove", errno);
	return dir_sync_names(d, name, e);
}

static int dir_space(struct disk *disk, uint64_t *free_bytes, struct rv_error *e)
{
	struct statvfs st;

	if (fstatvfs(dir_of(disk)->dir_fd, &st))
		return sys_error(e, disk, "", "look at the space of", errno);
	*free_bytes = (uint64_t)st.f_bavail * st.f_frsize;
	return 0;
}

static void dir_free(struct disk *disk)
{
	struct dir_disk *d = dir_of(disk);

	for (int i = 0; i < DISK_LANE_COUNT; i++)
		worker_free(disk->lanes[i]);
	if (d->lock_fd >= 0)
		close(d->lock_fd);
	if (d->dir_fd >= 0)
		close(d->dir_fd);
	free(d);
}

static int dir_lanes(struct disk *disk)
{
	static const char *const names[DISK_LANE_COUNT] = {"pool.log", "pool.bulk"};
	int rc = 0;

	for (int i = 0; i < DISK_LANE_COUNT && !rc; i++)
		if (!disk->lanes[i])
			rc = worker_new(&disk->lanes[i], dir_of(disk)->loop, names[i]);
	return rc;
}

static const struct disk_ops dir_ops = {
	.list = dir_list,
	.read = dir_read,
	.open = dir_open,
	.write = dir_write,
	.sync = dir_sync,
	.truncate = dir_truncate,
	.close = dir_close,
	.rename = dir_rename,
	.remove = dir_remove,
	.space = dir_space,
	.lanes = dir_lanes,
	.free = dir_free,
};

static int dir_lock(struct dir_disk *d, struct rv_error *e)
{
	char text[32] = "";
	ssize_t n;

	d->lock_fd = openat(d->dir_fd, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (d->lock_fd < 0)
		return sys_error(e, &d->disk, LOCK_NAME, "create", errno);
	if (flock(d->lock_fd, LOCK_EX | LOCK_NB)) {
		n = pread(d->lock_fd, text, sizeof text - 1, 0);
		text[n > 0 ? n : 0] = '\0';
		return rv_error_set(e, RV_EBUSY,
			"%s is in use by process %s: stop that daemon, or give this one "
			"another directory",
			d->path, text[0] ? text : "(unknown)");
	}
	n = snprintf(text, sizeof text, "%d", (int)getpid());
	if (ftruncate(d->lock_fd, 0) || pwrite(d->lock_fd, text, (size_t)n, 0) != n)
		return 0; /* a full disk: the lock holds without the number, too */
	return 0;
}

int disk_open_dir(struct disk **out, struct loop *l, const char *path, struct rv_error *e)
{
	struct dir_disk *d = calloc(1, sizeof *d);
	int rc;

	if (!d)
		return rv_error_set(e, RV_ENOMEM, "open %s: out of memory", path);
	d->disk.ops = &dir_ops;
	d->disk.path = d->path;
	d->loop = l;
	d->lock_fd = d->dir_fd = -1;
	snprintf(d->path, sizeof d->path, "%s", path);
	if (mkdir(path, 0700) && errno != EEXIST) {
		rc = sys_error(e, &d->disk, "", "create", errno);
		goto out;
	}
	d->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->dir_fd < 0) {
		rc = sys_error(e, &d->disk, "", "open", errno);
		goto out;
	}
	rc = dir_lock(d, e);
	if (!rc) {
		rc = dir_lanes(&d->disk);
		if (rc)
			rv_error_set(e, rc, "%s: can't start a thread for it", path);
	}
out:
	if (rc)
		dir_free(&d->disk);
	else
		*out = &d->disk;
	return rc;
}
