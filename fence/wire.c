#include "fence/wire.h"

#include <assert.h>
#include <string.h>

#include "base/bytes.h"

static size_t put_domain(uint8_t *at, const struct fence_domain *d)
{
	bytes_put_le32(at, d->domid);
	memcpy(at + 4, d->handle.b, sizeof d->handle.b);
	return FENCE_DOMAIN_BYTES;
}

static size_t put_state(uint8_t *at, const struct fence_message *m)
{
	size_t words = strnlen(m->words, FENCE_WORDS - 1);

	bytes_put_le32(at, m->version);
	bytes_put_le64(at + 4, (uint64_t)m->until_ms);
	bytes_put_le64(at + 12, m->seq);
	bytes_put_le32(at + 20, m->guarded);
	bytes_put_le32(at + 24, m->able);
	memcpy(at + 28, m->words, words);
	return 28 + words;
}

size_t fence_encode(const struct fence_message *m, uint8_t *out)
{
	uint8_t *at = out + FENCE_HEAD_BYTES;

	bytes_put_le32(out, FENCE_MAGIC);
	bytes_put_le32(out + 4, m->type);
	switch (m->type) {
	case FENCE_HELLO:
		bytes_put_le32(at, m->version);
		at += 4;
		break;
	case FENCE_LEASE:
		bytes_put_le64(at, (uint64_t)m->until_ms);
		at += 8;
		break;
	case FENCE_GUARD:
		assert(m->count <= FENCE_MAX_DOMAINS);
		bytes_put_le64(at, m->seq);
		bytes_put_le32(at + 8, m->count);
		at += 12;
		for (uint32_t i = 0; i < m->count; i++)
			at += put_domain(at, &m->domains[i]);
		break;
	case FENCE_STATE:
		at += put_state(at, m);
		break;
	case FENCE_ENDED:
		at += put_domain(at, &m->domain);
		break;
	}
	return (size_t)(at - out);
}

/* --- reading --- */

static int wrong(struct rv_error *e, const char *what)
{
	return rv_error_set(e, RV_EPROTO, "not a message of reeve-fenced's: %s", what);
}

static int get_domain(struct fence_domain *d, const uint8_t *at, struct rv_error *e)
{
	d->domid = bytes_get_le32(at);
	memcpy(d->handle.b, at + 4, sizeof d->handle.b);
	if (d->domid == 0 || d->domid > FENCE_MAX_DOMID)
		return wrong(e, "a domid that is no guest's");
	if (uuid_is_none(&d->handle))
		return wrong(e, "a domain without a handle");
	return 0;
}

static int get_domains(struct fence_message *m, const uint8_t *at, struct rv_error *e)
{
	uint8_t seen[(FENCE_MAX_DOMID >> 3) + 1] = {0};

	for (uint32_t i = 0; i < m->count; i++) {
		struct fence_domain *d = &m->domains[i];
		int rc = get_domain(d, at + i * FENCE_DOMAIN_BYTES, e);

		if (rc)
			return rc;
		if (seen[d->domid >> 3] & 1 << (d->domid & 7))
			return wrong(e, "a domain is there twice");
		seen[d->domid >> 3] |= (uint8_t)(1 << (d->domid & 7));
	}
	return 0;
}

static void get_words(struct fence_message *m, const uint8_t *at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		m->words[i] = at[i] < ' ' || at[i] > '~' ? '?' : (char)at[i];
	m->words[len] = '\0';
}

static int get_state(
	struct fence_message *m, const uint8_t *at, size_t len, struct rv_error *e)
{
	if (len < 28 || len - 28 >= FENCE_WORDS)
		return wrong(e, "its length");
	m->version = bytes_get_le32(at);
	m->until_ms = (int64_t)bytes_get_le64(at + 4);
	m->seq = bytes_get_le64(at + 12);
	m->guarded = bytes_get_le32(at + 20);
	m->able = bytes_get_le32(at + 24) != 0;
	get_words(m, at + 28, len - 28);
	return m->guarded > FENCE_MAX_DOMAINS ? wrong(e, "too many domains") : 0;
}

static int get_guard(
	struct fence_message *m, const uint8_t *at, size_t len, struct rv_error *e)
{
	if (len < 12)
		return wrong(e, "its length");
	m->seq = bytes_get_le64(at);
	m->count = bytes_get_le32(at + 8);
	if (m->seq == 0)
		return wrong(e, "a list without a number");
	if (m->count > FENCE_MAX_DOMAINS || len != 12 + m->count * FENCE_DOMAIN_BYTES) {
		m->count = 0;
		return wrong(e, "the number of domains");
	}
	return get_domains(m, at + 12, e);
}

int fence_decode(
	struct fence_message *m, const uint8_t *bytes, size_t len, struct rv_error *e)
{
	const uint8_t *at = bytes + FENCE_HEAD_BYTES;

	memset(m, 0, sizeof *m);
	if (len < FENCE_HEAD_BYTES || bytes_get_le32(bytes) != FENCE_MAGIC)
		return wrong(e, "its beginning");
	m->type = (enum fence_message_type)bytes_get_le32(bytes + 4);
	len -= FENCE_HEAD_BYTES;
	switch (m->type) {
	case FENCE_HELLO:
		if (len != 4)
			return wrong(e, "its length");
		m->version = bytes_get_le32(at);
		return 0;
	case FENCE_LEASE:
		if (len != 8)
			return wrong(e, "its length");
		m->until_ms = (int64_t)bytes_get_le64(at);
		return m->until_ms < 0 ? wrong(e, "its time") : 0;
	case FENCE_GUARD:
		return get_guard(m, at, len, e);
	case FENCE_STATE:
		return get_state(m, at, len, e);
	case FENCE_ENDED:
		if (len != FENCE_DOMAIN_BYTES)
			return wrong(e, "its length");
		return get_domain(&m->domain, at, e);
	}
	return wrong(e, "its type");
}
