/* links: reeve_pool reeve_reactor reeve_base */
/* Raft messages from a peer: refused, or the same after encoding and decoding again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pool/raft_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct raft_message m, again;
	struct buf out;

	if (raft_message_decode(&m, data, size))
		return 0;
	buf_init(&out, RAFT_MESSAGE_MAX);
	if (raft_message_encode(&m, &out))
		abort();
	/* The configuration may be padded differently, the rest not. */
	if (m.type != RAFT_IO_INSTALL_SNAPSHOT &&
		(buf_len(&out) != size || memcmp(buf_data(&out), data, size) != 0))
		abort();
	if (raft_message_decode(&again, buf_data(&out), buf_len(&out)))
		abort();
	raft_message_fini(&again);
	raft_message_fini(&m);
	buf_fini(&out);
	return 0;
}
