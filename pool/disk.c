#include "pool/disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int disk_submit(struct disk *d, enum disk_lane lane, struct job *job)
{
	int rc = d->lanes[lane] ? 0 : d->ops->lanes(d);

	return rc ? rc : worker_submit(d->lanes[lane], job);
}

void disk_quiesce(struct disk *d)
{
	/* Ending the lane's thread is what waits and cancels; a fresh one takes over. */
	for (int i = 0; i < DISK_LANE_COUNT; i++) {
		struct worker *w = d->lanes[i];

		d->lanes[i] = NULL;
		worker_free(w);
	}
}

void disk_free(struct disk *d)
{
	if (!d)
		return;
	disk_quiesce(d);
	d->ops->free(d);
}

int disk_list(struct disk *d, disk_list_fn *fn, void *arg, struct rv_error *e)
{
	return d->ops->list(d, fn, arg, e);
}

int disk_read(struct disk *d, const char *name, uint8_t **bytes, size_t *len,
	struct rv_error *e)
{
	return d->ops->read(d, name, bytes, len, e);
}

int disk_create(struct disk *d, const char *name, uint64_t reserve,
	struct disk_file **out, struct rv_error *e)
{
	return d->ops->open(d, name, true, reserve, out, e);
}

int disk_open(
	struct disk *d, const char *name, struct disk_file **out, struct rv_error *e)
{
	return d->ops->open(d, name, false, 0, out, e);
}

int disk_write(struct disk_file *f, uint64_t offset, const void *bytes, size_t len,
	struct rv_error *e)
{
	return f->disk->ops->write(f, offset, bytes, len, e);
}

int disk_sync(struct disk_file *f, struct rv_error *e)
{
	return f->disk->ops->sync(f, e);
}

int disk_truncate(struct disk_file *f, uint64_t size, struct rv_error *e)
{
	return f->disk->ops->truncate(f, size, e);
}

void disk_close(struct disk_file *f)
{
	if (f)
		f->disk->ops->close(f);
}

int disk_rename(struct disk *d, const char *from, const char *to, struct rv_error *e)
{
	return d->ops->rename(d, from, to, e);
}

int disk_remove(struct disk *d, const char *name, struct rv_error *e)
{
	return d->ops->remove(d, name, e);
}

int disk_space(struct disk *d, uint64_t *free_bytes, struct rv_error *e)
{
	return d->ops->space(d, free_bytes, e);
}

int disk_write_now(struct disk_file *f, uint64_t offset, const void *bytes, size_t len,
	struct rv_error *e)
{
	int rc = disk_write(f, offset, bytes, len, e);

	return rc ? rc : disk_sync(f, e);
}

int disk_replace(struct disk *d, const char *name, const void *bytes, size_t len,
	struct rv_error *e)
{
	char temp[DISK_NAME_MAX];
	struct disk_file *f = NULL;
	int rc;

	snprintf(temp, sizeof temp, "%s.tmp", name);
	rc = disk_create(d, temp, 0, &f, e);
	if (rc)
		return rc;
	rc = disk_write(f, 0, bytes, len, e);
	if (!rc)
		rc = disk_sync(f, e);
	disk_close(f);
	if (!rc)
		rc = disk_rename(d, temp, name, e);
	return rc;
}
