#include "storage/file_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "storage/file_claim.h"
#include "storage/file_vdi.h"

static const char MARKER[] = "reeve-sr";
static const char LOCK[] = "reeve-sr.lock";
static const char NEW[] = ".new.";

/* Another host's unfinished file is left alone for this long: it may be at work. */
enum { FOREIGN_LEFTOVER_S = 7 * 24 * 3600, SMALL_FILE_MAX = 64 << 10 };

/* --- names --- */

enum file_kind file_name_kind(const char *name, struct uuid *uuid)
{
	static const struct {
		const char *suffix;
		enum file_kind kind;
	} suffixes[] = {
		{".raw", FILE_RAW}, {".qcow2", FILE_QCOW2}, {".claim", FILE_CLAIM}};
	char canonical[UUID_TEXT_SIZE];

	*uuid = UUID_NONE;
	if (strcmp(name, MARKER) == 0)
		return FILE_MARKER;
	if (strcmp(name, LOCK) == 0)
		return FILE_LOCK;
	size_t len = strlen(name), skip = sizeof NEW - 1;
	if (len > skip + UUID_TEXT_LEN && memcmp(name, NEW, skip) == 0 &&
		name[skip + UUID_TEXT_LEN] == '.' &&
		uuid_parse(uuid, name + skip, UUID_TEXT_LEN) == 0)
		return FILE_NEW;
	/* Only the form that we write: else one VDI could have two names. */
	if (len < UUID_TEXT_LEN || uuid_parse(uuid, name, UUID_TEXT_LEN) ||
		memcmp(uuid_format(uuid, canonical), name, UUID_TEXT_LEN) != 0)
		return FILE_FOREIGN;
	for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++)
		if (strcmp(name + UUID_TEXT_LEN, suffixes[i].suffix) == 0)
			return suffixes[i].kind;
	return FILE_FOREIGN;
}

char *file_name_vdi(const struct uuid *vdi, enum storage_format format,
	char name[static FILE_NAME_SIZE])
{
	char text[UUID_TEXT_SIZE];
	snprintf(name, FILE_NAME_SIZE, "%s.%s", uuid_format(vdi, text),
		storage_format_name(format));
	return name;
}

char *file_name_new(
	const struct file_dir *d, const char *of, char name[static FILE_NAME_SIZE])
{
	char text[UUID_TEXT_SIZE];
	snprintf(
		name, FILE_NAME_SIZE, "%s%s.%.64s", NEW, uuid_format(&d->host, text), of);
	return name;
}

int file_location_check(const char *path, struct rv_error *e)
{
	if (path[0] != '/')
		return rv_error_set(e, RV_EINVAL,
			"device-config:location must be an absolute path, not '%.100s'",
			path);
	if (strlen(path) > FILE_LOCATION_MAX)
		return rv_error_set(e, RV_EINVAL,
			"device-config:location is longer than %d bytes",
			FILE_LOCATION_MAX);
	for (const char *p = path; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 127)
			return rv_error_set(e, RV_EINVAL,
				"device-config:location has a control character");
		if (p[0] == '/' && p[1] == '.' && p[2] == '.' && (!p[3] || p[3] == '/'))
			return rv_error_set(e, RV_EINVAL,
				"device-config:location must not contain '..': '%.200s'",
				path);
	}
	return 0;
}

/* --- errors --- */

int file_error(const struct file_dir *d, struct rv_error *e, int err, const char *what,
	const char *name)
{
	char sr[UUID_TEXT_SIZE];
	int code = rv_error_from_errno(err);
	const char *reason = strerrordesc_np(err),
		   *remedy = "look at the storage below it";

	switch (err) {
	case ENOSPC:
		reason = "no space left";
		remedy = "free some or use another SR";
		break;
	case EDQUOT:
		reason = "the quota is used up";
		remedy = "raise it or use another SR";
		break;
	case EFBIG:
		code = RV_ESPACE;
		reason = "larger than the file system or the process's limit allows";
		remedy = "choose a smaller size or raise LimitFSIZE";
		break;
	case EROFS:
		code = RV_ENOTALLOWED;
		reason = "the file system is read-only";
		remedy = "remount it for writing";
		break;
	case EACCES:
	case EPERM:
		code = RV_ENOTALLOWED;
		remedy = "give reeved the right to write there";
		break;
	case ENOENT:
	case ENOTDIR:
		code = RV_ENOENT;
		remedy = "mount or make it first";
		break;
	case ELOOP:
		code = RV_ECORRUPT;
		reason = "it is a symbolic link";
		remedy = "remove the link; an SR holds plain files only";
		break;
	case ESTALE:
		remedy = "the NFS server has changed: unplug and plug the PBD";
		break;
	default:
		break;
	}
	return rv_error_set(e, code, "SR %s (%s): %s%s%s: %s; %s",
		uuid_is_none(&d->sr) ? "at" : uuid_format(&d->sr, sr), d->path, what,
		*name ? " " : "", name, reason ? reason : "unknown error", remedy);
}

/* --- small files --- */

static int write_all(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t r = write(fd, text, len);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? errno : EIO;
		text += r;
		len -= (size_t)r;
	}
	return 0;
}

int file_dir_sync(const struct file_dir *d, struct rv_error *e)
{
	/* Some file systems have no fsync of directories and order their changes. */
	if (fsync(d->fd) && errno != EINVAL && errno != EBADF)
		return file_error(d, e, errno, "writing the directory", "");
	return 0;
}

int file_dir_write(const struct file_dir *d, const char *name, const char *text,
	bool exclusive, bool durable, struct rv_error *e)
{
	char temp[FILE_NAME_SIZE];
	file_name_new(d, name, temp);
	if (unlinkat(d->fd, temp, 0) && errno != ENOENT)
		return file_error(d, e, errno, "removing", temp);
	int fd = openat(
		d->fd, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return file_error(d, e, errno, "making", name);
	int err = write_all(fd, text, strlen(text));
	if (!err && durable && fsync(fd))
		err = errno;
	if (close(fd) && !err)
		err = errno;
	if (!err && exclusive) {
		/* link, unlike rename, never replaces. */
		if (linkat(d->fd, temp, d->fd, name, 0))
			err = errno;
		unlinkat(d->fd, temp, 0);
	} else if (!err && renameat(d->fd, temp, d->fd, name)) {
		err = errno;
	}
	if (err) {
		unlinkat(d->fd, temp, 0);
		return file_error(d, e, err, "writing", name);
	}
	return durable ? file_dir_sync(d, e) : 0;
}

/* What a power failure may leave of a file is zeros alone; others are damage, behind
 * which the rest of the text would be overlooked. */
static bool is_text(const char *text, size_t len)
{
	return len == 0 || !memchr(text, 0, len) ||
	       (text[0] == '\0' && memcmp(text, text + 1, len - 1) == 0);
}

int file_dir_read(
	const struct file_dir *d, const char *name, char **text, struct rv_error *e)
{
	int rc = 0;
	*text = NULL;
	int fd = openat(d->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT
			       ? rv_error_set(e, RV_ENOENT, "%s: no such file", name)
			       : file_error(d, e, errno, "opening", name);
	struct stat st;
	if (fstat(fd, &st))
		rc = file_error(d, e, errno, "looking at", name);
	else if (!S_ISREG(st.st_mode) || st.st_size > SMALL_FILE_MAX)
		rc = rv_error_set(e, RV_ECORRUPT,
			"%s/%s is no file of Reeve's: remove it", d->path, name);
	size_t size = rc ? 0 : (size_t)st.st_size, used = 0;
	if (rc == 0 && !(*text = malloc(size + 1)))
		rc = rv_error_set(e, RV_ENOMEM, "no memory to read %s", name);
	while (rc == 0 && used < size) {
		ssize_t r = read(fd, *text + used, size - used);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			rc = file_error(d, e, errno, "reading", name);
		if (r <= 0)
			break;
		used += (size_t)r;
	}
	close(fd);
	if (rc == 0 && !is_text(*text, used))
		rc = rv_error_set(e, RV_ECORRUPT,
			"%s/%s is damaged, it holds zero bytes: if no host uses what it "
			"is for, remove that file",
			d->path, name);
	if (rc) {
		free(*text);
		*text = NULL;
		return rc;
	}
	(*text)[used] = '\0';
	return 0;
}

int file_dir_lock(const struct file_dir *d, struct rv_error *e)
{
	int fd = openat(d->fd, LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return file_error(d, e, errno, "opening", LOCK);
	for (int waited_ms = 0; flock(fd, LOCK_EX | LOCK_NB); waited_ms += 5) {
		int err = errno;
		if (err != EWOULDBLOCK && err != EINTR) {
			close(fd);
			return file_error(d, e, err, "locking", LOCK);
		}
		if (waited_ms >= FILE_LOCK_WAIT_MS) {
			close(fd);
			return rv_error_set(e, RV_EBUSY,
				"%s/%s has been locked by another process for %d s: find "
				"it "
				"with fuser or try again",
				d->path, LOCK, FILE_LOCK_WAIT_MS / 1000);
		}
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	}
	return fd;
}

/* --- the marker --- */

struct marker {
	struct uuid sr;
	bool made_directory;
};

static int marker_read(const struct file_dir *d, struct marker *m, struct rv_error *e)
{
	char *text, uuid[64] = "", made[8] = "";
	int version = 0;
	int rc = file_dir_read(d, MARKER, &text, e);
	if (rc)
		return rc;
	int fields = sscanf(text, "reeve-sr %d\nuuid %63s\ntype file\nmade-directory %7s",
		&version, uuid, made);
	free(text);
	if (fields != 3 || version != 1 || uuid_parse(&m->sr, uuid, strlen(uuid)))
		return rv_error_set(e, RV_ECORRUPT,
			"%s/%s is damaged or of a newer Reeve: restore it from a backup",
			d->path, MARKER);
	m->made_directory = strcmp(made, "yes") == 0;
	return 0;
}

static int dir_open(struct file_dir *d, struct rv_error *e)
{
	struct statvfs fs;
	d->fd = open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->fd < 0)
		return file_error(d, e, errno, "opening the directory", "");
	if (fstatvfs(d->fd, &fs))
		return file_error(d, e, errno, "looking at the file system", "");
	d->read_only = fs.f_flag & ST_RDONLY;
	return 0;
}

void file_dir_close(struct file_dir *d)
{
	if (d->fd >= 0)
		close(d->fd);
	d->fd = -1;
}

int file_dir_each(
	const struct file_dir *d, file_visit_fn *visit, void *arg, struct rv_error *e)
{
	int rc = 0;
	/* A description of its own: the read position is not shared. */
	int fd = openat(d->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		rc = file_error(d, e, errno, "reading the directory", "");
		if (fd >= 0)
			close(fd);
		return rc;
	}
	while (rc == 0) {
		errno = 0;
		struct dirent *entry = readdir(dir);
		if (!entry && errno)
			rc = file_error(d, e, errno, "reading the directory", "");
		if (!entry)
			break;
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			rc = visit(arg, entry->d_name, e);
	}
	closedir(dir);
	return rc;
}

static int visit_refuse_foreign(void *arg, const char *name, struct rv_error *e)
{
	const struct file_dir *d = arg;
	struct uuid uuid;
	if (strcmp(name, "lost+found") == 0 || file_name_kind(name, &uuid) == FILE_NEW)
		return 0;
	return rv_error_set(e, RV_ENOTALLOWED,
		"%s is not empty (it holds '%.64s'): give an empty or new directory",
		d->path, name);
}

int file_dir_create(struct file_dir *d, struct rv_error *e)
{
	struct marker m;
	char text[128], uuid[UUID_TEXT_SIZE];
	bool made = mkdir(d->path, 0700) == 0;
	if (!made && errno != EEXIST)
		return file_error(d, e, errno, "making the directory", "");
	int rc = dir_open(d, e);
	if (rc == 0) {
		rc = marker_read(d, &m, e);
		if (rc == 0 && !uuid_eq(&m.sr, &d->sr))
			rc = rv_error_set(e, RV_EEXIST,
				"%s holds SR %s already: introduce that one (reeve "
				"sr-introduce) or give another directory",
				d->path, uuid_format(&m.sr, uuid));
		else if (rc == RV_ENOENT)
			rc = file_dir_each(d, visit_refuse_foreign, d, e);
		else
			goto out;
		if (rc)
			goto out;
		snprintf(text, sizeof text,
			"reeve-sr 1\nuuid %s\ntype file\nmade-directory %s\n",
			uuid_format(&d->sr, uuid), made ? "yes" : "no");
		rc = file_dir_write(d, MARKER, text, true, true, e);
	}
out:
	file_dir_close(d);
	if (rc && made)
		rmdir(d->path);
	return rc;
}

int file_dir_probe(struct file_dir *d, struct storage_probe *probe, struct rv_error *e)
{
	struct marker m;
	*probe = (struct storage_probe){0};
	int rc = dir_open(d, e);
	if (rc == RV_ENOENT) {
		file_dir_close(d);
		rv_error_clear(e);
		return 0;
	}
	if (rc == 0) {
		probe->exists = true;
		rc = file_dir_stat(d, &probe->info, e);
	}
	if (rc == 0) {
		rc = marker_read(d, &m, e);
		if (rc == 0) {
			probe->is_sr = true;
			probe->sr = m.sr;
			snprintf(probe->type, sizeof probe->type, "file");
		} else if (rc == RV_ENOENT) {
			rv_error_clear(e);
			rc = 0;
		}
	}
	file_dir_close(d);
	return rc;
}

static int visit_clean(void *arg, const char *name, struct rv_error *e)
{
	const struct file_dir *d = arg;
	struct uuid uuid;
	struct stat st;
	enum file_kind kind = file_name_kind(name, &uuid);
	if (kind == FILE_CLAIM)
		return file_claim_forget_copies(d, &uuid, e);
	if (kind != FILE_NEW)
		return 0;
	if (!uuid_eq(&uuid, &d->host) &&
		(fstatat(d->fd, name, &st, AT_SYMLINK_NOFOLLOW) ||
			st.st_mtime > time(NULL) - FOREIGN_LEFTOVER_S))
		return 0;
	if (unlinkat(d->fd, name, 0) && errno != ENOENT)
		return file_error(d, e, errno, "removing the leftover", name);
	return 0;
}

static int marker_match(const struct file_dir *d, struct marker *m, struct rv_error *e)
{
	char want[UUID_TEXT_SIZE], found[UUID_TEXT_SIZE];
	int rc = marker_read(d, m, e);
	if (rc == RV_ENOENT)
		return rv_error_set(e, RV_ENOENT,
			"%s is not SR %s: the directory has no marker %s; is its file "
			"system "
			"mounted?",
			d->path, uuid_format(&d->sr, want), MARKER);
	if (rc)
		return rc;
	if (!uuid_eq(&m->sr, &d->sr))
		return rv_error_set(e, RV_ECONFLICT,
			"%s holds SR %s, not SR %s: correct device-config:location of "
			"the PBD",
			d->path, uuid_format(&m->sr, found), uuid_format(&d->sr, want));
	return 0;
}

int file_dir_attach(struct file_dir *d, struct storage_sr_info *info, struct rv_error *e)
{
	struct marker m;
	file_dir_close(d);
	int rc = dir_open(d, e);
	if (rc == 0)
		rc = marker_match(d, &m, e);
	if (rc == 0 && !d->read_only)
		rc = file_dir_each(d, visit_clean, d, e);
	if (rc == 0)
		rc = file_dir_stat(d, info, e);
	if (rc)
		file_dir_close(d);
	return rc;
}

int file_dir_stat(
	const struct file_dir *d, struct storage_sr_info *info, struct rv_error *e)
{
	struct statvfs fs;
	if (fstatvfs(d->fd, &fs))
		return file_error(d, e, errno, "looking at the file system", "");
	info->physical_size = (uint64_t)fs.f_blocks * fs.f_frsize;
	info->physical_utilisation = (uint64_t)(fs.f_blocks - fs.f_bfree) * fs.f_frsize;
	info->free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	info->read_only = fs.f_flag & ST_RDONLY;
	return 0;
}

static int visit_count_vdis(void *arg, const char *name, struct rv_error *e)
{
	size_t *count = arg;
	struct uuid uuid;
	enum file_kind kind = file_name_kind(name, &uuid);
	(void)e;
	*count += kind == FILE_RAW || kind == FILE_QCOW2;
	return 0;
}

static int visit_remove_ours(void *arg, const char *name, struct rv_error *e)
{
	const struct file_dir *d = arg;
	struct uuid uuid;
	enum file_kind kind = file_name_kind(name, &uuid);
	if (kind != FILE_CLAIM && kind != FILE_NEW && kind != FILE_LOCK)
		return 0;
	if (unlinkat(d->fd, name, 0) && errno != ENOENT)
		return file_error(d, e, errno, "removing", name);
	return 0;
}

int file_dir_destroy(struct file_dir *d, struct rv_error *e)
{
	struct marker m;
	char uuid[UUID_TEXT_SIZE];
	size_t vdis = 0;
	int rc = marker_match(d, &m, e);
	if (rc == 0)
		rc = file_dir_each(d, visit_count_vdis, &vdis, e);
	if (rc)
		return rc;
	if (vdis)
		return rv_error_set(e, RV_ENOTALLOWED,
			"SR %s (%s) holds %zu VDIs: destroy them first (reeve "
			"vdi-destroy)",
			uuid_format(&d->sr, uuid), d->path, vdis);
	/* The marker last: until then the destroy can be repeated. */
	rc = file_dir_each(d, visit_remove_ours, d, e);
	if (rc)
		return rc;
	if (unlinkat(d->fd, MARKER, 0))
		return file_error(d, e, errno, "removing", MARKER);
	rc = file_dir_sync(d, e);
	if (rc)
		return rc;
	file_dir_close(d);
	if (m.made_directory)
		rmdir(d->path); /* fails when somebody else put something there: right */
	return 0;
}

/* --- scan --- */

struct scan {
	const struct file_dir *d;
	struct storage_sr_info *info;
	struct storage_vdi_info *vdis;
	size_t count, size;
};

static int visit_scan(void *arg, const char *name, struct rv_error *e)
{
	struct scan *scan = arg;
	struct uuid uuid;
	enum file_kind kind = file_name_kind(name, &uuid);
	if (kind == FILE_FOREIGN && strcmp(name, "lost+found") != 0)
		scan->info->foreign++;
	if (kind != FILE_RAW && kind != FILE_QCOW2)
		return 0;
	if (scan->count == STORAGE_MAX_SCAN)
		return rv_error_set(e, RV_ELIMIT, "%s holds more than %d VDIs",
			scan->d->path, STORAGE_MAX_SCAN);
	if (scan->count == scan->size) {
		size_t size = scan->size ? scan->size * 2 : 64;
		void *grown = realloc(scan->vdis, size * sizeof *scan->vdis);
		if (!grown)
			return rv_error_set(e, RV_ENOMEM, "no memory to scan an SR");
		scan->vdis = grown;
		scan->size = size;
	}
	struct storage_vdi_info *vdi = &scan->vdis[scan->count];
	struct rv_error problem = {0};
	int rc = file_vdi_stat(scan->d, &uuid,
		kind == FILE_RAW ? STORAGE_FORMAT_RAW : STORAGE_FORMAT_QCOW2, vdi,
		&problem);
	if (rc == RV_ENOENT)
		return 0; /* gone since */
	scan->count++;
	scan->info->virtual_allocation += vdi->virtual_size;
	return 0;
}

static int vdi_compare(const void *a, const void *b)
{
	const struct storage_vdi_info *left = a, *right = b;
	return uuid_cmp(&left->uuid, &right->uuid);
}

int file_dir_scan(const struct file_dir *d, struct storage_sr_info *info,
	struct storage_vdi_info **vdis, size_t *count, struct rv_error *e)
{
	struct scan scan = {.d = d, .info = info};
	int rc = file_dir_stat(d, info, e);
	if (rc == 0)
		rc = file_dir_each(d, visit_scan, &scan, e);
	if (rc) {
		free(scan.vdis);
		return rc;
	}
	if (scan.count)
		qsort(scan.vdis, scan.count, sizeof *scan.vdis, vdi_compare);
	for (size_t i = 1; i < scan.count; i++) {
		struct storage_vdi_info *vdi = &scan.vdis[i];
		if (!uuid_eq(&vdi->uuid, &vdi[-1].uuid))
			continue;
		vdi->problem = RV_ECORRUPT;
		snprintf(vdi->problem_text, sizeof vdi->problem_text,
			"there are a raw and a qcow2 file of this UUID: move one away");
	}
	*vdis = scan.vdis;
	*count = scan.count;
	return 0;
}
