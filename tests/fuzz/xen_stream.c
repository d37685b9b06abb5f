/* links: reeve_xen reeve_reactor reeve_base */
/* A saved stream comes from a peer or a disk: no bytes may do more than be refused. The
 * first byte says into what pieces the rest is cut. Sums are mended, or nothing would get
 * past them. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "xen/sim_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void mend(uint8_t *bytes, size_t size)
{
	size_t at = 0;

	while (size - at >= SIM_RECORD_HEAD) {
		size_t body = bytes[at + 4] | (size_t)bytes[at + 5] << 8;
		size_t pages = bytes[at + 8];
		uint64_t sum;

		if (body > size - at - SIM_RECORD_HEAD)
			return;
		sum = XXH3_64bits_withSeed(
			bytes + at + SIM_RECORD_HEAD, body, XXH3_64bits(bytes + at, 16));
		for (int i = 0; i < 8; i++)
			bytes[at + 16 + (size_t)i] = (uint8_t)(sum >> 8 * i);
		at += SIM_RECORD_HEAD + body;
		if (pages > (size - at) / SIM_PAGE)
			return;
		at += pages * SIM_PAGE;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t block[SIM_BLOCK];
	struct sim_decoder x;
	struct rv_error e;
	uint8_t *bytes;
	size_t piece, at = 0;

	if (size < 2)
		return 0;
	if (block[0] == 0 && block[1] == 0)
		sim_block_fill(block);
	piece = data[0] == 0 ? size : data[0];
	bytes = malloc(--size);
	if (bytes == NULL)
		return 0;
	memcpy(bytes, data + 1, size);
	mend(bytes, size);
	sim_decoder_init(&x, block);
	while (at < size) {
		size_t used = 0, n = piece < size - at ? piece : size - at;
		enum sim_decoder_step step =
			sim_decoder_feed(&x, bytes + at, n, &used, &e);

		at += used;
		if (step == SIM_DECODER_ERROR || step == SIM_DECODER_DONE)
			break;
		/* The driver admits no more than the host has. */
		if (step == SIM_DECODER_HEAD && x.record.actual_kib > 1 << 20)
			break;
		if (used == 0)
			abort();
	}
	sim_decoder_fini(&x);
	free(bytes);
	return 0;
}
