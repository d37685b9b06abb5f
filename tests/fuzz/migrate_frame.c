/* links: reeve_migrate reeve_xen reeve_reactor reeve_base */
/* A frame of a migration comes from a peer: no bytes may do more than be refused, and
 * what is taken apart must read the same when put together again. Sums are mended in
 * every second input, or nothing would get past them. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "migrate/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void mend(uint8_t *frame, size_t len)
{
	uint64_t head = 0, sum;

	for (int i = 0; i < 8; i++)
		head |= (uint64_t)frame[i] << (8 * i);
	sum = XXH3_64bits_withSeed(
		frame + MIGRATE_HEADER_BYTES, len - MIGRATE_HEADER_BYTES, head);
	for (int i = 0; i < 8; i++)
		frame[8 + i] = (uint8_t)(sum >> (8 * i));
}

static void again(const struct migrate_message *m)
{
	static uint8_t out[MIGRATE_CONTROL_MAX], twice[MIGRATE_CONTROL_MAX];
	struct migrate_message back;
	struct rv_error e;
	size_t len, len2;

	if (m->type == MIGRATE_DATA)
		return;
	len = migrate_encode(m, out);
	assert(migrate_decode(out, len, &back, &e) == 0);
	len2 = migrate_encode(&back, twice);
	assert(len == len2 && memcmp(out, twice, len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct migrate_message m;
	struct rv_error e;
	uint8_t *bytes;
	size_t len, at = 0;
	bool mended;

	if (size < 1)
		return 0;
	mended = data[0] & 1;
	bytes = malloc(size);
	assert(bytes);
	memcpy(bytes, data + 1, --size);
	while (migrate_frame_length(bytes + at, size - at, &len, &e) == 0 && len > 0 &&
		len <= size - at) {
		if (mended)
			mend(bytes + at, len);
		if (migrate_decode(bytes + at, len, &m, &e) == 0)
			again(&m);
		at += len;
	}
	free(bytes);
	return 0;
}
