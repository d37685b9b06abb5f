#include "storage/file_claim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *const mode_names[] = {
	[CLAIM_WRITE] = "write", [CLAIM_READ] = "read", [CLAIM_COPY] = "copy"};

static char *claim_name(const struct uuid *vdi, char name[static FILE_NAME_SIZE])
{
	char text[UUID_TEXT_SIZE];
	snprintf(name, FILE_NAME_SIZE, "%s.claim", uuid_format(vdi, text));
	return name;
}

static int parse_line(struct file_claim *claim, const char *line)
{
	char mode[8], holder[40], host[40], generation[24], *end;
	int used = 0;
	if (sscanf(line, "%7s %39s %39s %23[0-9]%n", mode, holder, host, generation,
		    &used) != 4 ||
		line[used])
		return RV_ECORRUPT;
	errno = 0;
	claim->generation = strtoull(generation, &end, 10);
	if (errno || uuid_parse(&claim->holder, holder, strlen(holder)) ||
		uuid_parse(&claim->host, host, strlen(host)))
		return RV_ECORRUPT;
	for (size_t i = 0; i < sizeof mode_names / sizeof mode_names[0]; i++) {
		if (strcmp(mode, mode_names[i]) == 0) {
			claim->mode = (enum file_claim_mode)i;
			return 0;
		}
	}
	return RV_ECORRUPT;
}

int file_claims_parse(struct file_claims *c, const char *text, size_t len)
{
	c->count = 0;
	size_t nuls = 0;
	while (nuls < len && text[nuls] == '\0')
		nuls++;
	if (nuls == len)
		return 0;
	for (size_t at = 0; at < len;) {
		char line[160];
		const char *newline = memchr(text + at, '\n', len - at);
		size_t n = newline ? (size_t)(newline - (text + at)) : 0;
		if (!newline || n >= sizeof line || c->count == FILE_CLAIMS_MAX ||
			memchr(text + at, '\0', n))
			return RV_ECORRUPT;
		memcpy(line, text + at, n);
		line[n] = '\0';
		if (parse_line(&c->list[c->count], line))
			return RV_ECORRUPT;
		c->count++;
		at += n + 1;
	}
	return 0;
}

static void remove_at(struct file_claims *c, size_t i)
{
	c->list[i] = c->list[--c->count];
}

int file_claims_add(struct file_claims *c, const struct file_claim *want,
	const struct uuid *fenced_host, struct file_claim *who)
{
	for (size_t i = 0; i < c->count;) {
		const struct file_claim *had = &c->list[i];
		bool same = uuid_eq(&had->holder, &want->holder) &&
			    uuid_eq(&had->host, &want->host);
		if (same && had->generation > want->generation) {
			*who = *had;
			return RV_ESTALE;
		}
		if (same || (!uuid_is_none(fenced_host) &&
				    uuid_eq(&had->host, fenced_host))) {
			remove_at(c, i);
			continue;
		}
		if (had->mode == CLAIM_WRITE || want->mode == CLAIM_WRITE) {
			*who = *had;
			return RV_EBUSY;
		}
		i++;
	}
	if (c->count == FILE_CLAIMS_MAX)
		return RV_ELIMIT;
	c->list[c->count++] = *want;
	return 0;
}

static int load(const struct file_dir *d, const struct uuid *vdi, struct file_claims *c,
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
	rc = file_claims_parse(c, text, strlen(text));
	free(text);
	if (rc)
		return rv_error_set(e, rc,
			"%s/%s, which says who uses the VDI, is damaged: if no host has "
			"it "
			"active, remove that file",
			d->path, name);
	return 0;
}

static int store(const struct file_dir *d, const struct uuid *vdi,
	const struct file_claims *c, struct rv_error *e)
{
	char name[FILE_NAME_SIZE], holder[UUID_TEXT_SIZE], host[UUID_TEXT_SIZE];
	claim_name(vdi, name);
	if (c->count == 0) {
		if (unlinkat(d->fd, name, 0) && errno != ENOENT)
			return file_error(d, e, errno, "removing", name);
		return 0;
	}
	size_t size = c->count * 128 + 1, used = 0;
	char *text = malloc(size);
	if (!text)
		return rv_error_set(e, RV_ENOMEM, "no memory to write %s", name);
	for (size_t i = 0; i < c->count; i++)
		used += (size_t)snprintf(text + used, size - used,
			"%s %s %s %" PRIu64 "\n", mode_names[c->list[i].mode],
			uuid_format(&c->list[i].holder, holder),
			uuid_format(&c->list[i].host, host), c->list[i].generation);
	int rc = file_dir_write(d, name, text, false, false, e);
	free(text);
	return rc;
}

static int describe(const struct file_dir *d, const struct uuid *vdi, int code,
	const struct file_claim *who, struct rv_error *e)
{
	char sr[UUID_TEXT_SIZE], v[UUID_TEXT_SIZE], holder[UUID_TEXT_SIZE],
		host[UUID_TEXT_SIZE];
	uuid_format(&d->sr, sr);
	uuid_format(vdi, v);
	uuid_format(&who->holder, holder);
	uuid_format(&who->host, host);
	if (code == RV_ELIMIT)
		return rv_error_set(e, code,
			"SR %s: VDI %s has %d users, the most it can", sr, v,
			FILE_CLAIMS_MAX);
	if (code == RV_ESTALE)
		return rv_error_set(e, code,
			"SR %s: VDI %s is active for %s in generation %" PRIu64
			", newer than the one asked for",
			sr, v, holder, who->generation);
	if (who->mode == CLAIM_COPY)
		return rv_error_set(e, code,
			"SR %s: VDI %s is being copied to VDI %s by host %s: wait or "
			"cancel that",
			sr, v, holder, host);
	return rv_error_set(e, code,
		"SR %s: VDI %s is active for %s by %s on host %s: stop that first, or "
		"declare the "
		"host dead if it is",
		sr, v, who->mode == CLAIM_WRITE ? "writing" : "reading", holder, host);
}

int file_claim_take(const struct file_dir *d, const struct uuid *vdi,
	const struct file_claim *want, const struct uuid *fenced_host, struct rv_error *e)
{
	struct file_claims c;
	struct file_claim who = {0};
	/* Nobody can write to a read-only file system: readers need no claim. */
	if (d->read_only && want->mode == CLAIM_READ)
		return 0;
	int lock = file_dir_lock(d, e);
	if (lock < 0)
		return lock;
	int rc = load(d, vdi, &c, e);
	if (rc == 0) {
		rc = file_claims_add(&c, want, fenced_host, &who);
		rc = rc ? describe(d, vdi, rc, &who, e) : store(d, vdi, &c, e);
	}
	close(lock);
	return rc;
}

int file_claim_drop(const struct file_dir *d, const struct uuid *vdi,
	const struct uuid *holder, uint64_t generation, struct rv_error *e)
{
	struct file_claims c;
	bool changed = false;
	if (d->read_only)
		return 0;
	int lock = file_dir_lock(d, e);
	if (lock < 0)
		return lock;
	int rc = load(d, vdi, &c, e);
	for (size_t i = 0; rc == 0 && i < c.count;) {
		if (!uuid_eq(&c.list[i].holder, holder) ||
			!uuid_eq(&c.list[i].host, &d->host)) {
			i++;
			continue;
		}
		if (c.list[i].generation > generation) {
			rc = describe(d, vdi, RV_ESTALE, &c.list[i], e);
			break;
		}
		remove_at(&c, i);
		changed = true;
	}
	if (rc == 0 && changed)
		rc = store(d, vdi, &c, e);
	close(lock);
	return rc;
}

int file_claim_check_none(
	const struct file_dir *d, const struct uuid *vdi, struct rv_error *e)
{
	struct file_claims c;
	int rc = load(d, vdi, &c, e);
	if (rc)
		return rc;
	return c.count ? describe(d, vdi, RV_EBUSY, &c.list[0], e) : 0;
}

int file_claim_check_write(const struct file_dir *d, const struct uuid *vdi,
	const struct uuid *holder, struct rv_error *e)
{
	char v[UUID_TEXT_SIZE], h[UUID_TEXT_SIZE];
	struct file_claims c;
	int rc = load(d, vdi, &c, e);
	if (rc)
		return rc;
	for (size_t i = 0; i < c.count; i++)
		if (c.list[i].mode == CLAIM_WRITE && uuid_eq(&c.list[i].holder, holder) &&
			uuid_eq(&c.list[i].host, &d->host))
			return 0;
	return rv_error_set(e, RV_ENOTALLOWED,
		"VDI %s is not active for writing by %s on this host: activate it first",
		uuid_format(vdi, v), uuid_format(holder, h));
}

int file_claim_forget_copies(
	const struct file_dir *d, const struct uuid *vdi, struct rv_error *e)
{
	struct file_claims c;
	bool changed = false;
	int lock = file_dir_lock(d, e);
	if (lock < 0)
		return lock;
	/* A damaged claim file hinders its own VDI, not the attach. */
	struct rv_error damage;
	int rc = load(d, vdi, &c, &damage);
	if (rc == 0) {
		for (size_t i = 0; i < c.count;) {
			bool ours = c.list[i].mode == CLAIM_COPY &&
				    uuid_eq(&c.list[i].host, &d->host);
			changed |= ours;
			if (ours)
				remove_at(&c, i);
			else
				i++;
		}
		if (changed)
			rc = store(d, vdi, &c, e);
	} else {
		rc = 0;
	}
	close(lock);
	return rc;
}

static int visit_idle(void *arg, const char *name, struct rv_error *e)
{
	const struct file_dir *d = arg;
	struct uuid vdi;
	struct file_claims c;
	if (file_name_kind(name, &vdi) != FILE_CLAIM)
		return 0;
	int rc = load(d, &vdi, &c, e);
	for (size_t i = 0; rc == 0 && i < c.count; i++)
		if (uuid_eq(&c.list[i].host, &d->host))
			rc = describe(d, &vdi, RV_EBUSY, &c.list[i], e);
	return rc;
}

int file_claim_check_host_idle(const struct file_dir *d, struct rv_error *e)
{
	return file_dir_each(d, visit_idle, (void *)d, e);
}
