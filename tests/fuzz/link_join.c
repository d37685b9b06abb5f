/* links: reeve_link reeve_reactor reeve_base */
/* The join handshake's messages, and tokens as text: what decodes is what encodes. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "link/join_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void request(const uint8_t *data, size_t size)
{
	struct join_request r, again;
	struct join_text text, text2;
	struct rv_error e = {0};
	struct buf b;
	int rc;

	if (join_request_decode(&r, &text, data, size, &e) != 0) {
		assert(e.code < 0 && e.detail[0]);
		return;
	}
	assert(r.facts >= data && r.facts + r.facts_len <= data + size);
	assert(strlen(r.csr_pem) <= JOIN_PEM_MAX);
	buf_init(&b, LINK_JOIN_REQUEST_MAX);
	rc = join_request_encode(&b, &r, &e);
	assert(rc == 0);
	rc = join_request_decode(&again, &text2, buf_data(&b), buf_len(&b), &e);
	assert(rc == 0);
	assert(strcmp(again.csr_pem, r.csr_pem) == 0);
	assert(memcmp(again.secret, r.secret, sizeof r.secret) == 0);
	for (int i = 0; i <= JOIN_NAMES_MAX && r.names[i]; i++)
		assert(strcmp(again.names[i], r.names[i]) == 0);
	join_text_fini(&text2);
	join_text_fini(&text);
	buf_fini(&b);
}

static void grant(const uint8_t *data, size_t size)
{
	struct join_text text;
	struct join_grant g;
	struct rv_error e = {0};
	struct buf b;
	int rc;

	if (join_grant_decode(&g, &text, data, size, &e) != 0) {
		assert(e.code < 0 && e.detail[0]);
		return;
	}
	assert(g.members >= data && g.members + g.members_len <= data + size);
	buf_init(&b, LINK_JOIN_GRANT_MAX);
	rc = join_grant_encode(&b, &g, &e);
	assert(rc == 0);
	join_text_fini(&text);
	buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rv_error why = {0}, e = {0};
	char text[TOKEN_TEXT_SIZE];
	struct token t;

	if (size < 1)
		return 0;
	switch (*data % 4) {
	case 0:
		request(data + 1, size - 1);
		break;
	case 1:
		grant(data + 1, size - 1);
		break;
	case 2:
		if (join_refusal_decode(&why, data + 1, size - 1, &e) == 0)
			assert(why.code < 0);
		break;
	default:
		if (token_parse(&t, (const char *)data + 1, size - 1, &e) == 0) {
			token_format(&t, text);
			assert(strncasecmp(text, (const char *)data + 1, size - 1) == 0);
		}
	}
	return 0;
}
