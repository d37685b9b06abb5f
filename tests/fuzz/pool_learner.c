/* links: reeve_pool reeve_reactor reeve_base */
/* What learners, voters and masters say about the stream of entries: refused, or the same
 * after encoding it again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pool/learner_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void same(struct buf *out, const uint8_t *data, size_t size)
{
	if (buf_len(out) != size || memcmp(buf_data(out), data, size) != 0)
		abort();
	buf_consume(out, buf_len(out));
}

static void check_entries(const struct feed_message *m, struct buf *out)
{
	struct feed_entry e;
	uint32_t count = 0;
	size_t at = 0;

	if (feed_begin(FEED_ENTRIES, m->session, m->position, out) ||
		feed_put_entries(out, m->index, m->entry_term))
		abort();
	while (feed_next_entry(m, &at, &e)) {
		if (e.len == 0 || e.len > LEARN_MAX_ENTRY || e.term < m->entry_term ||
			feed_put_entry(out, e.term, e.type, e.bytes, e.len))
			abort();
		count++;
	}
	if (count != m->count)
		abort();
	feed_set_count(out, count);
}

static void check_feed(const uint8_t *data, size_t size, struct buf *out)
{
	struct feed_message m;
	uint64_t sum = 7;

	if (feed_decode(&m, data, size))
		return;
	switch (m.kind) {
	case FEED_BEAT:
		if (feed_encode_beat(&m, out))
			abort();
		same(out, data, size);
		return;
	case FEED_REFUSE:
		if (feed_encode_refuse(m.session, m.refusal, out))
			abort();
		same(out, data, size);
		return;
	case FEED_ENTRIES:
		check_entries(&m, out);
		break;
	default:
		if (feed_begin(m.kind, m.session, m.position, out) ||
			buf_append(out, m.body, m.body_len))
			abort();
	}
	/* All but the sum must be as it came, and the sum be what both sides compute. */
	feed_end(out, &sum);
	if (sum != feed_next_sum(7, &m) || buf_len(out) != size)
		abort();
	memcpy(buf_data(out) + 17, data + 17, 8);
	same(out, data, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct place_message place;
	struct learn_message m;
	struct buf out;

	buf_init(&out, LEARN_MAX_MESSAGE);
	if (!learn_decode(&m, data, size)) {
		if (learn_encode(&m, &out))
			abort();
		same(&out, data, size);
	}
	if (!place_decode(&place, data, size)) {
		if (place_encode(&place, &out))
			abort();
		same(&out, data, size);
	}
	check_feed(data, size, &out);
	buf_fini(&out);
	return 0;
}
