#include "link/join_wire.h"

#include <stdlib.h>
#include <string.h>

#include "base/mpcheck.h"

/* On the wire: never renumber. */
enum {
	JOIN_REQUEST_ID = 1,
	JOIN_HOST = 2,
	JOIN_SECRET = 3,
	JOIN_CSR = 4,
	JOIN_NAME = 5,
	JOIN_FACTS = 6,
	JOIN_POOL = 7,
	JOIN_GENERATION = 8,
	JOIN_GENERATION_ID = 9,
	JOIN_CA = 10,
	JOIN_CERTIFICATE = 11,
	JOIN_MEMBERS = 12,
	JOIN_CODE = 13,
	JOIN_WORDS = 14,
	JOIN_CLOCK = 15,
	JOIN_TAGS,
};

struct field_rule {
	const char *name;
	size_t least, most;
};

static const struct field_rule rules[JOIN_TAGS] = {
	[JOIN_REQUEST_ID] = {"request", 16, 16},
	[JOIN_HOST] = {"host", 16, 16},
	[JOIN_SECRET] = {"token", TOKEN_SECRET_SIZE, TOKEN_SECRET_SIZE},
	[JOIN_CSR] = {"certificate request", 1, JOIN_PEM_MAX},
	[JOIN_NAME] = {"name", 1, JOIN_NAME_MAX},
	[JOIN_FACTS] = {"facts", 1, JOIN_FACTS_MAX},
	[JOIN_POOL] = {"pool", 16, 16},
	[JOIN_GENERATION] = {"generation", 8, 8},
	[JOIN_GENERATION_ID] = {"generation id", 16, 16},
	[JOIN_CA] = {"CA", 1, JOIN_PEM_MAX},
	[JOIN_CERTIFICATE] = {"certificate", 1, JOIN_PEM_MAX},
	[JOIN_MEMBERS] = {"members", 0, JOIN_MEMBERS_MAX},
	[JOIN_CODE] = {"code", 4, 4},
	[JOIN_WORDS] = {"words", 0, RV_ERROR_DETAIL_MAX - 1},
	[JOIN_CLOCK] = {"clock", 8, 8},
};

enum { FIELD_HEAD = 6 };

struct field {
	unsigned tag;
	const uint8_t *data; /* borrowed from the input */
	size_t len;
};

/* --- writing --- */

static int put(
	struct buf *out, unsigned tag, const void *data, size_t len, struct rv_error *e)
{
	uint8_t head[FIELD_HEAD];
	int rc;

	if (len < rules[tag].least || len > rules[tag].most)
		return rv_error_set(e, RV_ETOOBIG, "join: %s: %zu bytes, %zu to %zu fit",
			rules[tag].name, len, rules[tag].least, rules[tag].most);
	link_put16(head, (uint16_t)tag);
	link_put32(head + 2, (uint32_t)len);
	rc = buf_append(out, head, sizeof head);
	if (!rc && len)
		rc = buf_append(out, data, len);
	return rc ? rv_error_set(e, rc, "join: no room for the message") : 0;
}

int join_request_encode(struct buf *out, const struct join_request *r, struct rv_error *e)
{
	uint8_t clock[8];
	int rc = put(out, JOIN_REQUEST_ID, r->request.b, 16, e);

	if (!rc)
		rc = put(out, JOIN_HOST, r->host.b, 16, e);
	if (!rc)
		rc = put(out, JOIN_SECRET, r->secret, sizeof r->secret, e);
	if (!rc)
		rc = put(out, JOIN_CSR, r->csr_pem, strlen(r->csr_pem), e);
	for (int i = 0; !rc && i < JOIN_NAMES_MAX && r->names[i]; i++)
		rc = put(out, JOIN_NAME, r->names[i], strlen(r->names[i]), e);
	if (!rc)
		rc = put(out, JOIN_FACTS, r->facts, r->facts_len, e);
	link_put64(clock, (uint64_t)r->clock_ms);
	if (!rc) /* the last: see below */
		rc = put(out, JOIN_CLOCK, clock, sizeof clock, e);
	return rc;
}

void join_request_set_clock(struct buf *request, int64_t clock_ms)
{
	uint8_t clock[8];

	link_put64(clock, (uint64_t)clock_ms);
	memcpy(request->base + request->end - sizeof clock, clock, sizeof clock);
}

int join_grant_encode(struct buf *out, const struct join_grant *g, struct rv_error *e)
{
	uint8_t generation[8];
	int rc;

	link_put64(generation, g->generation);
	rc = put(out, JOIN_POOL, g->pool.b, 16, e);
	if (!rc)
		rc = put(out, JOIN_GENERATION, generation, sizeof generation, e);
	if (!rc)
		rc = put(out, JOIN_GENERATION_ID, g->generation_id.b, 16, e);
	if (!rc)
		rc = put(out, JOIN_CA, g->ca_pem, strlen(g->ca_pem), e);
	if (!rc)
		rc = put(out, JOIN_CERTIFICATE, g->cert_pem, strlen(g->cert_pem), e);
	if (!rc)
		rc = put(out, JOIN_MEMBERS, g->members, g->members_len, e);
	return rc;
}

int join_refusal_encode(struct buf *out, const struct rv_error *why)
{
	uint8_t code[4];
	int rc;

	link_put32(code, (uint32_t)-why->code);
	rc = put(out, JOIN_CODE, code, sizeof code, NULL);
	return rc ? rc : put(out, JOIN_WORDS, why->detail, strlen(why->detail), NULL);
}

/* --- reading --- */

/* The next field of a known tag; RV_ENOENT at the end. */
static int next(struct field *f, const uint8_t *data, size_t len, size_t *at,
	uint32_t *seen, struct rv_error *e)
{
	while (*at < len) {
		if (len - *at < FIELD_HEAD)
			return rv_error_set(e, RV_EPROTO, "join: half a field");
		f->tag = link_get16(data + *at);
		f->len = link_get32(data + *at + 2);
		f->data = data + *at + FIELD_HEAD;
		if (f->len > len - *at - FIELD_HEAD)
			return rv_error_set(e, RV_EPROTO,
				"join: a field of %zu bytes, of which %zu are there",
				f->len, len - *at - FIELD_HEAD);
		*at += FIELD_HEAD + f->len;
		if (f->tag == 0 || f->tag >= JOIN_TAGS)
			continue;
		if (f->len < rules[f->tag].least || f->len > rules[f->tag].most)
			return rv_error_set(e, RV_EPROTO, "join: %s of %zu bytes",
				rules[f->tag].name, f->len);
		if (f->tag != JOIN_NAME && (*seen & 1u << f->tag))
			return rv_error_set(
				e, RV_EPROTO, "join: %s twice", rules[f->tag].name);
		*seen |= 1u << f->tag;
		return 0;
	}
	return RV_ENOENT;
}

static int all_there(uint32_t seen, uint32_t wanted, struct rv_error *e)
{
	for (unsigned tag = 1; tag < JOIN_TAGS; tag++)
		if (wanted & ~seen & 1u << tag)
			return rv_error_set(
				e, RV_EPROTO, "join: without its %s", rules[tag].name);
	return 0;
}

/* Copies text behind what is there; `end` moves. There is a byte of room for each NUL,
 * since each field had a head. */
static int take_text(
	const char **out, const struct field *f, char **end, struct rv_error *e)
{
	if (mpcheck_utf8(f->data, f->len) != f->len)
		return rv_error_set(
			e, RV_EPROTO, "join: %s is not text", rules[f->tag].name);
	memcpy(*end, f->data, f->len);
	(*end)[f->len] = '\0';
	*out = *end;
	*end += f->len + 1;
	return 0;
}

static int request_field(struct join_request *r, const struct field *f, char **end,
	int *names, struct rv_error *e)
{
	switch (f->tag) {
	case JOIN_REQUEST_ID:
		memcpy(r->request.b, f->data, 16);
		return 0;
	case JOIN_HOST:
		memcpy(r->host.b, f->data, 16);
		return 0;
	case JOIN_SECRET:
		memcpy(r->secret, f->data, sizeof r->secret);
		return 0;
	case JOIN_CSR:
		return take_text(&r->csr_pem, f, end, e);
	case JOIN_NAME:
		if (*names >= JOIN_NAMES_MAX)
			return rv_error_set(
				e, RV_EPROTO, "join: more than %d names", JOIN_NAMES_MAX);
		return take_text(&r->names[(*names)++], f, end, e);
	case JOIN_FACTS:
		r->facts = f->data;
		r->facts_len = f->len;
		return mpcheck(f->data, f->len, e);
	case JOIN_CLOCK:
		r->clock_ms = (int64_t)link_get64(f->data);
		return 0;
	default:
		return 0;
	}
}

int join_request_decode(struct join_request *r, struct join_text *text,
	const uint8_t *data, size_t len, struct rv_error *e)
{
	const uint32_t wanted = 1u << JOIN_REQUEST_ID | 1u << JOIN_HOST |
				1u << JOIN_SECRET | 1u << JOIN_CSR | 1u << JOIN_FACTS |
				1u << JOIN_CLOCK;
	uint32_t seen = 0;
	struct field f;
	size_t at = 0;
	int names = 0, rc;
	char *end;

	*r = (struct join_request){.facts = NULL};
	text->text = end = malloc(len + 1);
	if (!end)
		return rv_error_set(e, RV_ENOMEM, "join: out of memory");
	while ((rc = next(&f, data, len, &at, &seen, e)) == 0) {
		rc = request_field(r, &f, &end, &names, e);
		if (rc)
			break;
	}
	if (rc == RV_ENOENT)
		rc = all_there(seen, wanted, e);
	if (!rc && (uuid_is_none(&r->host) || uuid_is_none(&r->request)))
		rc = rv_error_set(e, RV_EPROTO, "join: without a host's UUID");
	if (rc)
		join_text_fini(text);
	return rc;
}

static int grant_field(
	struct join_grant *g, const struct field *f, char **end, struct rv_error *e)
{
	switch (f->tag) {
	case JOIN_POOL:
		memcpy(g->pool.b, f->data, 16);
		return 0;
	case JOIN_GENERATION:
		g->generation = link_get64(f->data);
		return 0;
	case JOIN_GENERATION_ID:
		memcpy(g->generation_id.b, f->data, 16);
		return 0;
	case JOIN_CA:
		return take_text(&g->ca_pem, f, end, e);
	case JOIN_CERTIFICATE:
		return take_text(&g->cert_pem, f, end, e);
	case JOIN_MEMBERS:
		g->members = f->data;
		g->members_len = f->len;
		return 0;
	default:
		return 0;
	}
}

int join_grant_decode(struct join_grant *g, struct join_text *text, const uint8_t *data,
	size_t len, struct rv_error *e)
{
	const uint32_t wanted = 1u << JOIN_POOL | 1u << JOIN_GENERATION |
				1u << JOIN_GENERATION_ID | 1u << JOIN_CA |
				1u << JOIN_CERTIFICATE | 1u << JOIN_MEMBERS;
	uint32_t seen = 0;
	struct field f;
	size_t at = 0;
	char *end;
	int rc;

	*g = (struct join_grant){.members = NULL};
	text->text = end = malloc(len + 1);
	if (!end)
		return rv_error_set(e, RV_ENOMEM, "join: out of memory");
	while ((rc = next(&f, data, len, &at, &seen, e)) == 0) {
		rc = grant_field(g, &f, &end, e);
		if (rc)
			break;
	}
	if (rc == RV_ENOENT)
		rc = all_there(seen, wanted, e);
	if (!rc && uuid_is_none(&g->pool))
		rc = rv_error_set(e, RV_EPROTO, "join: without a pool's UUID");
	if (rc)
		join_text_fini(text);
	return rc;
}

int join_refusal_decode(
	struct rv_error *why, const uint8_t *data, size_t len, struct rv_error *e)
{
	char text[RV_ERROR_DETAIL_MAX] = "";
	uint32_t seen = 0, code = 0;
	struct field f;
	size_t at = 0;
	int rc;

	while ((rc = next(&f, data, len, &at, &seen, e)) == 0) {
		if (f.tag == JOIN_CODE)
			code = link_get32(f.data);
		if (f.tag != JOIN_WORDS)
			continue;
		memcpy(text, f.data, f.len);
		text[f.len] = '\0';
		for (size_t i = 0; i < f.len; i++)
			if ((uint8_t)text[i] < ' ' || (uint8_t)text[i] > '~')
				text[i] = '?';
	}
	if (rc == RV_ENOENT)
		rc = all_there(seen, 1u << JOIN_CODE | 1u << JOIN_WORDS, e);
	if (!rc && (code == 0 || code > 999))
		rc = rv_error_set(e, RV_EPROTO, "join: a refusal without a reason");
	if (!rc)
		rv_error_set(why, -(int)code, "%s", text);
	return rc;
}

void join_text_fini(struct join_text *t)
{
	free(t->text);
	t->text = NULL;
}
