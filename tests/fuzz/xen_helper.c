/* links: reeve_xen_real reeve_xen reeve_reactor reeve_base */
/* What a helper process, or the daemon, sends the other; and the envelope of a saved
 * domain, or the head of its file, which come from a peer or a disk. No bytes may do more
 * than be refused; a message that is taken must read the same after it is written again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "xen/real/envelope.h"
#include "xen/real/helper_wire.h"
#include "xen/real/saved_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void message(const uint8_t *data, size_t size)
{
	struct helper_request *a = calloc(1, sizeof *a), *b = calloc(1, sizeof *b);
	struct helper_message m = {.request = a}, again = {.request = b};
	struct rv_error e;
	struct buf out;

	buf_init(&out, 2 * HELPER_WIRE_MAX);
	if (a && b && helper_wire_decode(&m, data, size, &e) == 0) {
		if (helper_wire_encode(&out, &m, &e) != 0 ||
			helper_wire_decode(&again, buf_data(&out), buf_len(&out), &e) !=
				0)
			abort();
		again.request = a;
		if (again.kind != m.kind || memcmp(a, b, sizeof *a) != 0)
			abort();
	}
	buf_fini(&out);
	free(a);
	free(b);
}

/* Makes the sums right, or nothing would get past them. */
static void mend(uint8_t *bytes, size_t size)
{
	uint64_t sum, number = 1;
	size_t at = ENVELOPE_HEAD_SIZE;

	if (size < at)
		return;
	memcpy(bytes, "RVXENSV1", 8);
	memset(bytes + 9, 0, 7);
	sum = XXH3_64bits_withSeed(bytes, 40, 0);
	memcpy(bytes + 40, &sum, 8);
	while (size - at >= ENVELOPE_MARK_SIZE) {
		size_t len = bytes[at] | (size_t)bytes[at + 1] << 8;

		memset(bytes + at + 2, 0, 6);
		if (len > size - at - ENVELOPE_MARK_SIZE)
			return;
		sum = XXH3_64bits_withSeed(
			bytes + at + ENVELOPE_MARK_SIZE, len, number++);
		memcpy(bytes + at + 8, &sum, 8);
		at += ENVELOPE_MARK_SIZE + len;
	}
}

static void envelope(uint8_t *bytes, size_t size, size_t piece)
{
	enum envelope_step step = ENVELOPE_MORE;
	struct envelope_reader r;
	struct rv_error e;
	size_t at = 0, got = 0;

	if (envelope_reader_init(&r) != 0)
		return;
	while (at < size && step != ENVELOPE_BAD && step != ENVELOPE_END) {
		size_t used = 0, n = piece < size - at ? piece : size - at;

		step = envelope_reader_feed(&r, bytes + at, n, &used, &e);
		at += used;
		if (step == ENVELOPE_CHUNK)
			got += r.chunk_len;
		if (used > n || got > at || (step == ENVELOPE_MORE && used != n))
			abort();
	}
	envelope_reader_fini(&r);
}

/* Its first bytes tell how much room there is; the sum is made right. */
static void saved_file(const uint8_t *data, size_t size)
{
	uint8_t block[SAVED_FILE_HEAD] = {0};
	uint64_t room = 0, sum;
	struct saved_file f;
	struct rv_error e;

	memcpy(&room, data, size < sizeof room ? size : sizeof room);
	memcpy(block, data, size < sizeof block ? size : sizeof block);
	memcpy(block, "RVXENSV2", 8);
	sum = XXH64(block, 56, 0);
	for (int i = 0; i < 8; i++)
		block[56 + i] = (uint8_t)(sum >> 8 * i);
	if (saved_file_parse(&f, block, room, &e) != 0)
		return;
	if (f.stream_bytes == 0 || saved_file_bytes(f.stream_bytes) > room ||
		saved_file_sums(f.stream_bytes) > f.stream_bytes)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *bytes;

	if (size < 2)
		return 0;
	if (data[0] == 0) {
		message(data + 1, size - 1);
		return 0;
	}
	if (data[0] == 4) {
		saved_file(data + 1, size - 1);
		return 0;
	}
	bytes = malloc(size - 1);
	if (!bytes)
		return 0;
	memcpy(bytes, data + 1, size - 1);
	if (data[0] & 1)
		mend(bytes, size - 1);
	envelope(bytes, size - 1, data[0] & 2 ? size : 1 + data[0] / 8);
	free(bytes);
	return 0;
}
