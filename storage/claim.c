#include "storage/claim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const mode_names[] = {
	[CLAIM_WRITE] = "write", [CLAIM_READ] = "read", [CLAIM_COPY] = "copy"};

static int parse_line(struct claim *claim, const char *line)
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
			claim->mode = (enum claim_mode)i;
			return 0;
		}
	}
	return RV_ECORRUPT;
}

int claims_parse(struct claims *c, const char *text, size_t len)
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
		if (!newline || n >= sizeof line || c->count == CLAIMS_MAX ||
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

void claims_format(const struct claims *c, char *text)
{
	char holder[UUID_TEXT_SIZE], host[UUID_TEXT_SIZE];
	*text = '\0';
	for (size_t i = 0; i < c->count; i++)
		text += snprintf(text, CLAIM_LINE_MAX, "%s %s %s %" PRIu64 "\n",
			mode_names[c->list[i].mode],
			uuid_format(&c->list[i].holder, holder),
			uuid_format(&c->list[i].host, host), c->list[i].generation);
}

static void remove_at(struct claims *c, size_t i)
{
	c->list[i] = c->list[--c->count];
}

int claims_add(struct claims *c, const struct claim *want, uint64_t void_generation,
	struct claim *who)
{
	for (size_t i = 0; i < c->count;) {
		const struct claim *had = &c->list[i];
		bool own = uuid_eq(&had->holder, &want->holder);
		bool same = own && uuid_eq(&had->host, &want->host);
		if (same && had->generation > want->generation) {
			*who = *had;
			return RV_ESTALE;
		}
		if (same || (own && had->generation <= void_generation &&
				    had->mode != CLAIM_COPY)) {
			remove_at(c, i);
			continue;
		}
		if (had->mode == CLAIM_WRITE || want->mode == CLAIM_WRITE) {
			*who = *had;
			return RV_EBUSY;
		}
		i++;
	}
	if (c->count == CLAIMS_MAX)
		return RV_ELIMIT;
	c->list[c->count++] = *want;
	return 0;
}

bool claims_drop(struct claims *c, const struct uuid *holder, const struct uuid *host,
	uint64_t generation, int *rc, struct claim *who)
{
	bool changed = false;
	*rc = 0;
	for (size_t i = 0; i < c->count;) {
		if (!uuid_eq(&c->list[i].holder, holder) ||
			!uuid_eq(&c->list[i].host, host)) {
			i++;
			continue;
		}
		/* There is one per holder and host: nothing was removed before. */
		if (c->list[i].generation > generation) {
			*who = c->list[i];
			*rc = RV_ESTALE;
			return false;
		}
		remove_at(c, i);
		changed = true;
	}
	return changed;
}

bool claims_drop_copies(struct claims *c, const struct uuid *host)
{
	bool changed = false;
	for (size_t i = 0; i < c->count;) {
		if (c->list[i].mode == CLAIM_COPY && uuid_eq(&c->list[i].host, host)) {
			remove_at(c, i);
			changed = true;
		} else {
			i++;
		}
	}
	return changed;
}

const struct claim *claims_writer(const struct claims *c)
{
	for (size_t i = 0; i < c->count; i++)
		if (c->list[i].mode == CLAIM_WRITE)
			return &c->list[i];
	return NULL;
}

const struct claim *claims_of_host(const struct claims *c, const struct uuid *host)
{
	for (size_t i = 0; i < c->count; i++)
		if (uuid_eq(&c->list[i].host, host))
			return &c->list[i];
	return NULL;
}

int claims_describe(int code, const struct uuid *sr_uuid, const struct uuid *vdi,
	const struct claim *who, struct rv_error *e)
{
	char sr[UUID_TEXT_SIZE], v[UUID_TEXT_SIZE], holder[UUID_TEXT_SIZE],
		host[UUID_TEXT_SIZE];
	uuid_format(sr_uuid, sr);
	uuid_format(vdi, v);
	uuid_format(&who->holder, holder);
	uuid_format(&who->host, host);
	if (code == RV_ELIMIT)
		return rv_error_set(e, code,
			"SR %s: VDI %s has %d users, the most it can", sr, v, CLAIMS_MAX);
	if (code == RV_ESTALE)
		return rv_error_set(e, code,
			"SR %s: VDI %s is active for %s in generation %" PRIu64
			", newer than the one asked for: a later start has it. If that "
			"VM's owner-generation (vm-param-get) is below this, the claim "
			"is wrong: see that it runs nowhere, then remove %s.claim from "
			"the SR's directory",
			sr, v, holder, who->generation, v);
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
