#include "pool/remote_wire.h"

#include <string.h>

#include "base/limits.h"
#include "base/mpcheck.h"

enum {
	ASK_HEAD = 8 + 8 + 8 + 8 + 1,
	ANSWER_HEAD = 8 + 8 + 8 + 8,
};

void remote_put_u64(uint8_t *p, uint64_t n)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(n >> (8 * i));
}

uint64_t remote_get_u64(const uint8_t *p)
{
	uint64_t n = 0;

	for (int i = 0; i < 8; i++)
		n |= (uint64_t)p[i] << (8 * i);
	return n;
}

int remote_ask_encode(const struct remote_ask *a, struct buf *out)
{
	uint8_t head[ASK_HEAD];
	int rc;

	remote_put_u64(head, a->start);
	remote_put_u64(head + 8, a->id);
	remote_put_u64(head + 16, a->master);
	remote_put_u64(head + 24, a->term);
	head[32] = a->essential;
	rc = buf_append(out, head, sizeof head);
	return rc ? rc : buf_append(out, a->bytes, a->len);
}

int remote_ask_decode(struct remote_ask *a, const uint8_t *bytes, size_t len)
{
	if (len < ASK_HEAD || len - ASK_HEAD > RV_MAX_ENTRY_BYTES || bytes[32] > 1)
		return RV_EPROTO;
	*a = (struct remote_ask){.start = remote_get_u64(bytes),
		.id = remote_get_u64(bytes + 8),
		.master = remote_get_u64(bytes + 16),
		.term = remote_get_u64(bytes + 24),
		.essential = bytes[32],
		.bytes = bytes + ASK_HEAD,
		.len = len - ASK_HEAD};
	return 0;
}

int remote_answer_encode(const struct remote_answer *a, struct buf *out)
{
	uint8_t head[ANSWER_HEAD];
	int rc;

	remote_put_u64(head, a->start);
	remote_put_u64(head + 8, a->id);
	remote_put_u64(head + 16, (uint64_t)(int64_t)-a->rc);
	remote_put_u64(head + 24, a->seq);
	rc = buf_append(out, head, sizeof head);
	return rc ? rc : buf_append(out, a->detail, strlen(a->detail));
}

int remote_answer_decode(struct remote_answer *a, const uint8_t *bytes, size_t len)
{
	uint64_t code;
	size_t text = len - ANSWER_HEAD;

	if (len < ANSWER_HEAD || text > REMOTE_DETAIL_MAX)
		return RV_EPROTO;
	code = remote_get_u64(bytes + 16);
	if (code > 1000 || mpcheck_utf8(bytes + ANSWER_HEAD, text) != text)
		return RV_EPROTO;
	a->start = remote_get_u64(bytes);
	a->id = remote_get_u64(bytes + 8);
	a->rc = -(int)code;
	a->seq = remote_get_u64(bytes + 24);
	memcpy(a->detail, bytes + ANSWER_HEAD, text);
	a->detail[text] = '\0';
	return 0;
}
