#include "pool/remote_wire.h"

#include <string.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/mpcheck.h"

enum {
	ASK_HEAD = 8 + 8 + 8 + 8 + 1,
	ANSWER_HEAD = 8 + 8 + 8 + 8,
};

int remote_ask_encode(const struct remote_ask *a, struct buf *out)
{
	uint8_t head[ASK_HEAD];
	int rc;

	bytes_put_le64(head, a->start);
	bytes_put_le64(head + 8, a->id);
	bytes_put_le64(head + 16, a->master);
	bytes_put_le64(head + 24, a->term);
	head[32] = a->essential;
	rc = buf_append(out, head, sizeof head);
	return rc ? rc : buf_append(out, a->bytes, a->len);
}

int remote_ask_decode(struct remote_ask *a, const uint8_t *bytes, size_t len)
{
	if (len < ASK_HEAD || len - ASK_HEAD > RV_MAX_ENTRY_BYTES || bytes[32] > 1)
		return RV_EPROTO;
	*a = (struct remote_ask){.start = bytes_get_le64(bytes),
		.id = bytes_get_le64(bytes + 8),
		.master = bytes_get_le64(bytes + 16),
		.term = bytes_get_le64(bytes + 24),
		.essential = bytes[32],
		.bytes = bytes + ASK_HEAD,
		.len = len - ASK_HEAD};
	return 0;
}

int remote_answer_encode(const struct remote_answer *a, struct buf *out)
{
	uint8_t head[ANSWER_HEAD];
	int rc;

	bytes_put_le64(head, a->start);
	bytes_put_le64(head + 8, a->id);
	bytes_put_le64(head + 16, (uint64_t)(int64_t)-a->rc);
	bytes_put_le64(head + 24, a->seq);
	rc = buf_append(out, head, sizeof head);
	return rc ? rc : buf_append(out, a->detail, strlen(a->detail));
}

int remote_answer_decode(struct remote_answer *a, const uint8_t *bytes, size_t len)
{
	uint64_t code;
	size_t text = len - ANSWER_HEAD;

	if (len < ANSWER_HEAD || text > REMOTE_DETAIL_MAX)
		return RV_EPROTO;
	code = bytes_get_le64(bytes + 16);
	if (code > 1000 || mpcheck_utf8(bytes + ANSWER_HEAD, text) != text)
		return RV_EPROTO;
	a->start = bytes_get_le64(bytes);
	a->id = bytes_get_le64(bytes + 8);
	a->rc = -(int)code;
	a->seq = bytes_get_le64(bytes + 24);
	memcpy(a->detail, bytes + ANSWER_HEAD, text);
	a->detail[text] = '\0';
	return 0;
}
