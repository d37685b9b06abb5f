#include "daemon/files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *files_read(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *text = NULL;
	ssize_t n = -1;

	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) == 0 && st.st_size <= FILES_MAX_BYTES)
		text = calloc(1, (size_t)st.st_size + 1);
	if (text)
		n = read(fd, text, (size_t)st.st_size);
	close(fd);
	if (n >= 0)
		return text;
	free(text);
	return NULL;
}

static int write_all(int fd, const char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, bytes, len);

		if (n < 0 && errno != EINTR)
			return -1;
		if (n > 0) {
			bytes += n;
			len -= (size_t)n;
		}
	}
	return fsync(fd);
}

/* Makes the new name durable. */
static void sync_directory(const char *path)
{
	char directory[PATH_MAX];
	char *slash;
	int fd;

	snprintf(directory, sizeof directory, "%s", path);
	slash = strrchr(directory, '/');
	if (!slash)
		return;
	*slash = '\0';
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
}

int files_write(const char *path, const void *bytes, size_t len, struct rv_error *e)
{
	char tmp[PATH_MAX];
	bool good;
	int fd, err;

	snprintf(tmp, sizeof tmp, "%s.new", path);
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	good = fd >= 0 && write_all(fd, bytes, len) == 0 && rename(tmp, path) == 0;
	err = errno;
	if (fd >= 0)
		close(fd);
	if (!good)
		return rv_error_set(e, rv_error_from_errno(err),
			"%s can't be written: %s", path, strerror(err));
	sync_directory(path);
	return 0;
}

int files_sync_directory(const char *path, struct rv_error *e)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r, err;

	r = fd < 0 ? -1 : fsync(fd);
	err = errno;
	if (fd >= 0)
		close(fd);
	return r ? rv_error_set(e, rv_error_from_errno(err), "%s can't be synced: %s",
			   path, strerror(err))
		 : 0;
}

int files_make_directory(const char *path, unsigned mode, struct rv_error *e)
{
	char partial[PATH_MAX];

	for (const char *p = path;; p++) {
		if (*p && (*p != '/' || p == path))
			continue;
		snprintf(partial, sizeof partial, "%.*s", (int)(p - path), path);
		if (mkdir(partial, *p ? 0755 : mode) != 0 && errno != EEXIST)
			return rv_error_set(e, rv_error_from_errno(errno),
				"directory %s can't be made: %s", partial,
				strerror(errno));
		if (!*p)
			return 0;
	}
}
