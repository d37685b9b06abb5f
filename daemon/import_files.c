#include "daemon/import_files.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The part of `path` below `location`; NULL: it does not lie there. */
static const char *below(const char *path, const char *location)
{
	size_t len = strlen(location);

	while (len > 1 && location[len - 1] == '/')
		len--;
	return strncmp(path, location, len) == 0 && path[len] == '/' ? path + len + 1
								     : NULL;
}

static bool vdi_name(const struct import_file *f, const struct import_sr *sr,
	char out[static PATH_MAX])
{
	char text[UUID_TEXT_SIZE];

	return snprintf(out, PATH_MAX, "%s/%s.raw", sr->location,
		       uuid_format(&f->vdi, text)) < PATH_MAX;
}

/* "UUID.raw" right in the SR is a VDI already. */
static bool is_vdi_name(const char *name, struct uuid *vdi)
{
	return strlen(name) == UUID_TEXT_SIZE - 1 + 4 &&
	       strcmp(name + UUID_TEXT_SIZE - 1, ".raw") == 0 &&
	       uuid_parse(vdi, name, UUID_TEXT_SIZE - 1) == 0;
}

static const char *find_sr(struct import_file *f, const char *path,
	const struct import_sr *srs, size_t count)
{
	char location[PATH_MAX];

	for (f->sr = 0; f->sr < count; f->sr++)
		if (realpath(srs[f->sr].location, location) && below(path, location))
			return below(path, location);
	return NULL;
}

/* Gives a file another name and leaves a symbolic link where it was. At each moment one
 * of both leads to it. */
static int move(const char *path, const char *to)
{
	char link_name[PATH_MAX];

	if (snprintf(link_name, sizeof link_name, "%s.reeve-link", path) >= PATH_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	if (link(path, to))
		return -1;
	(void)unlink(link_name); /* of a try that was interrupted */
	if (symlink(to, link_name) == 0 && rename(link_name, path) == 0)
		return 0;
	(void)unlink(link_name);
	(void)unlink(to);
	return -1;
}

void import_file_take(struct import_file *f, const struct import_sr *srs, size_t count)
{
	char path[PATH_MAX], name[PATH_MAX];
	const char *rest;
	struct stat s;

	f->why[0] = '\0';
	if (!realpath(f->path, path) || strlen(path) >= sizeof f->was || stat(path, &s)) {
		snprintf(f->why, sizeof f->why, "%s", strerrordesc_np(errno));
		return;
	}
	rest = find_sr(f, path, srs, count);
	if (!S_ISREG(s.st_mode))
		snprintf(f->why, sizeof f->why, "it is no plain file");
	else if (!rest)
		snprintf(f->why, sizeof f->why,
			"it lies under no file SR that this host has attached");
	else if (s.st_nlink > 1)
		snprintf(f->why, sizeof f->why,
			"it has several names (hard links): remove the others");
	else if (s.st_size == 0 || s.st_size % 512)
		snprintf(f->why, sizeof f->why, "its size is no whole number of sectors");
	if (f->why[0])
		return;
	f->size = (uint64_t)s.st_size;
	snprintf(f->was, sizeof f->was, "%.511s", path);
	f->is_vdi = is_vdi_name(rest, &f->vdi);
	if (f->is_vdi)
		return;
	if (!vdi_name(f, &srs[f->sr], name))
		errno = ENAMETOOLONG;
	else if (move(path, name) == 0)
		f->linked = true;
	if (!f->linked)
		snprintf(f->why, sizeof f->why, "it can't get a name in the SR: %s",
			strerrordesc_np(errno));
}

void import_file_undo(struct import_file *f, const struct import_sr *srs)
{
	char name[PATH_MAX];

	if (f->linked && vdi_name(f, &srs[f->sr], name))
		(void)rename(name, f->was); /* in place of the link */
	f->linked = false;
}
