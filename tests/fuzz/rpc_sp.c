/* links: reeve_rpc reeve_reactor reeve_base */
/* SP framing: whatever bytes come, decoding ends, within bounds, and agrees with
 * encoding. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "rpc/sp.h"

enum { MAX_BODY = 4096 };

static void frames(enum sp_framing framing, const uint8_t *data, size_t len)
{
	size_t at = 0;

	while (at < len) {
		uint8_t again[SP_MAX_HEADER_BYTES];
		size_t header, body, trace;
		struct rv_error e;

		if (sp_frame_decode(framing, data + at, len - at, MAX_BODY, &header,
			    &body, &e) != 0)
			return;
		assert(body <= MAX_BODY && header <= len - at);
		assert(sp_frame_encode(framing, again, body) == header);
		assert(memcmp(again, data + at, header) == 0);
		if (body > len - at - header)
			return;
		if (sp_backtrace_decode(data + at + header, body, &trace, &e) == 0)
			assert(trace >= 4 && trace <= body && trace % 4 == 0 &&
				trace <= SP_MAX_BACKTRACE_BYTES);
		at += header + body;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct rv_error e;

	if (len >= SP_HELLO_BYTES && sp_hello_decode(data, SP_REQ, &e) == 0) {
		uint8_t again[SP_HELLO_BYTES];

		sp_hello_encode(again, SP_REQ);
		assert(memcmp(again, data, sizeof again) == 0);
	}
	frames(SP_FRAMING_IPC, data, len);
	frames(SP_FRAMING_TCP, data, len);
	return 0;
}
