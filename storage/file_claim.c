#include "storage/file_claim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char *claim_name(const struct uuid *vdi, char name[static FILE_NAME_SIZE])
{
	char text[UUID_TEXT_SIZE];
	snprintf(name, FILE_NAME_SIZE, "%s.claim", uuid_format(vdi, text));
	return name;
}

static int load(const struct file_dir *d, const struct uuid *vdi, struct claims *c,
	struct rv_error *e)
{
	char name[FILE_NAME_SIZE], *text;
	c->count = 0;
	int rc = file_dir_read(d, claim_name(vdi, name), &text, e);
	if (rc == RV_ENOENT) {
		rv_error_clear(e);
		return 0;
	}
	if (rc)
		return rc;
	rc = claims_parse(c, text, strlen(text));
	free(text);
	if (rc)
		return rv_error_set(e, rc,
			"%s/%s, which says who uses the VDI, is damaged: if no host has "
			"it "
			"active, remove that file",
			d->path, name);
	return 0;
}

static int store(const struct file_dir *d, const struct uuid *vdi, const struct claims *c,
	struct rv_error *e)
{
	char name[FILE_NAME_SIZE];
	claim_name(vdi, name);
	if (c->count == 0) {
		if (unlinkat(d->fd, name, 0) && errno != ENOENT)
			return file_error(d, e, errno, "removing", name);
		return 0;
	}
	char *text = malloc(c->count * CLAIM_LINE_MAX + 1);
	if (!text)
		return rv_error_set(e, RV_ENOMEM, "no memory to write %s", name);
	claims_format(c, text);
	int rc = file_dir_write(d, name, text, false, false, e);
	free(text);
	return rc;
}

int file_claim_take(const struct file_dir *d, const struct uuid *vdi,
	const struct claim *want, uint64_t void_generation, struct rv_error *e)
{
	struct claims c;
	struct claim who = {0};
	/* Nobody can write to a read-only file system: readers need no claim. */
	if (d->read_only && want->mode == CLAIM_READ)
		return 0;
	int lock = file_dir_lock(d, e);
	if (lock < 0)
		return lock;
	int rc = load(d, vdi, &c, e);
	if (rc == 0) {
		rc = claims_add(&c, want, void_generation, &who);
		rc = rc ? claims_describe(rc, &d->sr, vdi, &who, e)
			: store(d, vdi, &c, e);
	}
	close(lock);
	return rc;
}

int file_claim_drop(const struct file_dir *d, const struct uuid *vdi,
	const struct uuid *holder, const struct uuid *host, uint64_t generation,
	struct rv_error *e)
{
	struct claims c;
	struct claim who;
	if (d->read_only)
		return 0;
	int lock = file_dir_lock(d, e);
	if (lock < 0)
		return lock;
	int rc = load(d, vdi, &c, e);
	if (rc == 0) {
		bool changed = claims_drop(&c, holder, host, generation, &rc, &who);
		if (rc)
			claims_describe(rc, &d->sr, vdi, &who, e);
		else if (changed)
			rc = store(d, vdi, &c, e);
	}
	close(lock);
	return rc;
}

int file_claim_check_none(
	const struct file_dir *d, const struct uuid *vdi, struct rv_error *e)
{
	struct claims c;
	int rc = load(d, vdi, &c, e);
	if (rc)
		return rc;
	return c.count ? claims_describe(RV_EBUSY, &d->sr, vdi, &c.list[0], e) : 0;
}

int file_claim_check_write(const struct file_dir *d, const struct uuid *vdi,
	const struct uuid *holder, struct rv_error *e)
{
	char v[UUID_TEXT_SIZE], h[UUID_TEXT_SIZE];
	struct claims c;
	int rc = load(d, vdi, &c, e);
	if (rc)
		return rc;
	const struct claim *writer = claims_writer(&c);
	if (writer && uuid_eq(&writer->holder, holder) &&
		uuid_eq(&writer->host, &d->host))
		return 0;
	return rv_error_set(e, RV_ENOTALLOWED,
		"VDI %s is not active for writing by %s on this host: activate it first",
		uuid_format(vdi, v), uuid_format(holder, h));
}

int file_claim_forget_copies(
	const struct file_dir *d, const struct uuid *vdi, struct rv_error *e)
{
	struct claims c;
	int lock = file_dir_lock(d, e);
	if (lock < 0)
		return lock;
	/* A damaged claim file hinders its own VDI, not the attach. */
	struct rv_error damage;
	int rc = 0;
	if (load(d, vdi, &c, &damage) == 0 && claims_drop_copies(&c, &d->host))
		rc = store(d, vdi, &c, e);
	close(lock);
	return rc;
}

static int visit_idle(void *arg, const char *name, struct rv_error *e)
{
	const struct file_dir *d = arg;
	struct uuid vdi;
	struct claims c;
	if (file_name_kind(name, &vdi) != FILE_CLAIM)
		return 0;
	int rc = load(d, &vdi, &c, e);
	const struct claim *ours = rc ? NULL : claims_of_host(&c, &d->host);
	if (ours)
		rc = claims_describe(RV_EBUSY, &d->sr, &vdi, ours, e);
	return rc;
}

int file_claim_check_host_idle(const struct file_dir *d, struct rv_error *e)
{
	return file_dir_each(d, visit_idle, (void *)d, e);
}

struct listing {
	const struct file_dir *d;
	struct storage_claim *list;
	size_t count, room;
};

static int listing_add(struct listing *l, const struct uuid *vdi, const struct claim *c,
	struct rv_error *e)
{
	size_t room = l->room ? 2 * l->room : 64;
	struct storage_claim *list;
	if (c->mode == CLAIM_COPY || l->count == STORAGE_MAX_CLAIMS)
		return 0;
	if (l->count == l->room) {
		list = realloc(l->list, room * sizeof *list);
		if (!list)
			return rv_error_set(e, RV_ENOMEM, "no memory to list claims");
		l->list = list;
		l->room = room;
	}
	l->list[l->count++] = (struct storage_claim){
		.vdi = *vdi,
		.holder = c->holder,
		.host = c->host,
		.generation = c->generation,
		.write = c->mode == CLAIM_WRITE,
	};
	return 0;
}

static int visit_list(void *arg, const char *name, struct rv_error *e)
{
	struct listing *l = arg;
	struct rv_error ignored;
	struct uuid vdi;
	struct claims c;
	int rc = 0;
	if (file_name_kind(name, &vdi) != FILE_CLAIM || load(l->d, &vdi, &c, &ignored))
		return 0;
	for (size_t i = 0; rc == 0 && i < c.count; i++)
		rc = listing_add(l, &vdi, &c.list[i], e);
	return rc;
}

int file_claim_list(const struct file_dir *d, struct storage_claim **list, size_t *count,
	struct rv_error *e)
{
	struct listing l = {.d = d};
	int rc = file_dir_each(d, visit_list, &l, e);
	if (rc) {
		free(l.list);
		l.list = NULL;
		l.count = 0;
	}
	*list = l.list;
	*count = l.count;
	return rc;
}
