#include "pool/learner_wire.h"

#include <string.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "pool/raft_conf.h"
#include "pool/remote_wire.h"

enum {
	LEARN_VERSION = 1,
	ASK_BYTES = 2 + 8 + 8 + 16 + 8 + 8 + 1,
	ACK_BYTES = 1 + 8 + 8 + 8,
	BYE_BYTES = 1 + 8,
	BEAT_BYTES = 1 + 8 + 8 + 8 + 16 + 8,
	REFUSE_BYTES = 1 + 8 + 1,
	DATA_HEAD = 1 + 8 + 8 + 8, /* kind, session, position, sum */
	SUM_AT = 1 + 8 + 8,
	ENTRIES_HEAD = 8 + 8 + 4, /* the entry before, how many */
	ENTRY_HEAD = 8 + 1 + 4,	  /* term, type, length */
	BEGIN_HEAD = 8 + 8 + 8 + 8,
	PLACE_BYTES = 8 + 16 + 8 + 8 + 8 + 1,
};

static int put_byte(struct buf *out, uint8_t v)
{
	return buf_append(out, &v, 1);
}

static int put64(struct buf *out, uint64_t v)
{
	uint8_t bytes[8];

	bytes_put_le64(bytes, v);
	return buf_append(out, bytes, sizeof bytes);
}

/* --- to a voter --- */

int learn_encode(const struct learn_message *m, struct buf *out)
{
	int rc = put_byte(out, (uint8_t)m->kind);

	if (!rc && m->kind == LEARN_ASK)
		rc = put_byte(out, LEARN_VERSION);
	if (!rc)
		rc = put64(out, m->session);
	switch (m->kind) {
	case LEARN_ASK:
		rc = rc ? rc : put64(out, m->generation.number);
		rc = rc ? rc : buf_append(out, m->generation.id.b, 16);
		rc = rc ? rc : put64(out, m->index);
		rc = rc ? rc : put64(out, m->term);
		rc = rc ? rc : put_byte(out, m->discard);
		break;
	case LEARN_ACK:
		rc = rc ? rc : put64(out, m->position);
		rc = rc ? rc : put64(out, m->stored);
		break;
	case LEARN_BYE:
		break;
	}
	return rc;
}

static int ask_decode(struct learn_message *m, const uint8_t *p, size_t len)
{
	if (len != ASK_BYTES || p[1] != LEARN_VERSION || p[50] > 1)
		return RV_EPROTO;
	m->session = bytes_get_le64(p + 2);
	m->generation.number = bytes_get_le64(p + 10);
	memcpy(m->generation.id.b, p + 18, 16);
	m->index = bytes_get_le64(p + 34);
	m->term = bytes_get_le64(p + 42);
	m->discard = p[50];
	/* A place in the log has a term, no place has none. */
	return (m->index == 0) == (m->term == 0) ? 0 : RV_EPROTO;
}

int learn_decode(struct learn_message *m, const uint8_t *bytes, size_t len)
{
	*m = (struct learn_message){0};
	if (len < BYE_BYTES)
		return RV_EPROTO;
	m->session = bytes_get_le64(bytes + 1);
	switch (bytes[0]) {
	case LEARN_ASK:
		m->kind = LEARN_ASK;
		return ask_decode(m, bytes, len);
	case LEARN_ACK:
		m->kind = LEARN_ACK;
		if (len != ACK_BYTES)
			return RV_EPROTO;
		m->position = bytes_get_le64(bytes + 9);
		m->stored = bytes_get_le64(bytes + 17);
		return 0;
	case LEARN_BYE:
		m->kind = LEARN_BYE;
		return len == BYE_BYTES ? 0 : RV_EPROTO;
	default:
		return RV_EPROTO;
	}
}

/* --- to a learner: encoding --- */

int feed_encode_beat(const struct feed_message *m, struct buf *out)
{
	int rc = put_byte(out, FEED_BEAT);

	rc = rc ? rc : put64(out, m->session);
	rc = rc ? rc : put64(out, m->term);
	rc = rc ? rc : put64(out, m->commit);
	rc = rc ? rc : buf_append(out, m->master.b, 16);
	return rc ? rc : put64(out, m->age_ms);
}

int feed_encode_refuse(uint64_t session, enum feed_refusal why, struct buf *out)
{
	int rc = put_byte(out, FEED_REFUSE);

	rc = rc ? rc : put64(out, session);
	return rc ? rc : put_byte(out, (uint8_t)why);
}

int feed_begin(enum feed_kind kind, uint64_t session, uint64_t position, struct buf *out)
{
	int rc = put_byte(out, (uint8_t)kind);

	rc = rc ? rc : put64(out, session);
	rc = rc ? rc : put64(out, position);
	return rc ? rc : put64(out, 0);
}

int feed_put_entries(struct buf *out, uint64_t index, uint64_t term)
{
	uint8_t head[ENTRIES_HEAD] = {0};

	bytes_put_le64(head, index);
	bytes_put_le64(head + 8, term);
	return buf_append(out, head, sizeof head);
}

int feed_put_entry(
	struct buf *out, uint64_t term, uint16_t type, const void *bytes, size_t len)
{
	uint8_t head[ENTRY_HEAD];
	int rc;

	bytes_put_le64(head, term);
	head[8] = (uint8_t)type;
	bytes_put_le32(head + 9, (uint32_t)len);
	rc = buf_append(out, head, sizeof head);
	return rc ? rc : buf_append(out, bytes, len);
}

void feed_set_count(struct buf *out, uint32_t count)
{
	bytes_put_le32(buf_data(out) + DATA_HEAD + 16, count);
}

int feed_put_snapshot(struct buf *out, uint64_t index, uint64_t term, uint64_t conf_index,
	uint64_t total, const struct raft_configuration *conf)
{
	struct raft_buffer encoded;
	int rc = put64(out, index);

	rc = rc ? rc : put64(out, term);
	rc = rc ? rc : put64(out, conf_index);
	rc = rc ? rc : put64(out, total);
	if (rc)
		return rc;
	if (raft_configuration_encode(conf, &encoded))
		return RV_ENOMEM;
	rc = buf_append(out, encoded.base, encoded.len);
	raft_free(encoded.base);
	return rc;
}

/* Kind and body: position and session are checked by themselves. */
static uint64_t sum_of(uint64_t sum, uint8_t kind, const uint8_t *body, size_t len)
{
	return XXH3_64bits_withSeed(body, len, sum + kind);
}

uint64_t feed_first_sum(uint64_t session)
{
	return XXH3_64bits_withSeed("reeve feed", 10, session);
}

void feed_end(struct buf *out, uint64_t *sum)
{
	uint8_t *bytes = buf_data(out);

	*sum = sum_of(*sum, bytes[0], bytes + DATA_HEAD, buf_len(out) - DATA_HEAD);
	bytes_put_le64(bytes + SUM_AT, *sum);
}

uint64_t feed_next_sum(uint64_t sum, const struct feed_message *m)
{
	return sum_of(sum, (uint8_t)m->kind, m->body, m->body_len);
}

/* --- to a learner: decoding --- */

bool feed_next_entry(const struct feed_message *m, size_t *at, struct feed_entry *entry)
{
	const uint8_t *p = m->entries + *at;

	if (m->entries_len - *at < ENTRY_HEAD)
		return false;
	entry->term = bytes_get_le64(p);
	entry->type = p[8];
	entry->len = bytes_get_le32(p + 9);
	entry->bytes = p + ENTRY_HEAD;
	if (entry->len > m->entries_len - *at - ENTRY_HEAD)
		return false;
	*at += ENTRY_HEAD + entry->len;
	return true;
}

/* What libraft and the files rely on. */
static int entry_check(const struct feed_entry *entry, uint64_t index, uint64_t term)
{
	struct raft_configuration conf;
	int rc;

	if (entry->type < RAFT_COMMAND || entry->type > RAFT_CHANGE || entry->len == 0 ||
		entry->len > LEARN_MAX_ENTRY || entry->term == 0 || entry->term < term)
		return RV_EPROTO;
	if (index == 1 && entry->type != RAFT_CHANGE)
		return RV_EPROTO;
	if (entry->type != RAFT_CHANGE)
		return 0;
	rc = raft_conf_decode(entry->bytes, entry->len, &conf);
	if (!rc)
		raft_configuration_close(&conf);
	return rc == RV_ECORRUPT ? RV_EPROTO : rc;
}

static int entries_decode(struct feed_message *m)
{
	uint64_t index, term;
	struct feed_entry entry;
	uint32_t count = 0;
	size_t at = 0;

	if (m->body_len < ENTRIES_HEAD)
		return RV_EPROTO;
	m->index = index = bytes_get_le64(m->body);
	m->entry_term = term = bytes_get_le64(m->body + 8);
	m->count = bytes_get_le32(m->body + 16);
	m->entries = m->body + ENTRIES_HEAD;
	m->entries_len = m->body_len - ENTRIES_HEAD;
	if (m->count == 0 || m->count > LEARN_BATCH_ENTRIES ||
		index > UINT64_MAX - m->count || (index == 0) != (term == 0))
		return RV_EPROTO;
	while (feed_next_entry(m, &at, &entry)) {
		int rc = entry_check(&entry, ++index, term);

		if (rc)
			return rc;
		term = entry.term;
		count++;
	}
	return at == m->entries_len && count == m->count ? 0 : RV_EPROTO;
}

static int snap_begin_decode(struct feed_message *m)
{
	struct raft_configuration conf;
	int rc;

	if (m->body_len < BEGIN_HEAD)
		return RV_EPROTO;
	m->index = bytes_get_le64(m->body);
	m->entry_term = bytes_get_le64(m->body + 8);
	m->conf_index = bytes_get_le64(m->body + 16);
	m->total = bytes_get_le64(m->body + 24);
	m->conf = m->body + BEGIN_HEAD;
	m->conf_len = m->body_len - BEGIN_HEAD;
	if (m->index == 0 || m->entry_term == 0 || m->index == UINT64_MAX)
		return RV_EPROTO;
	rc = raft_conf_decode(m->conf, m->conf_len, &conf);
	if (!rc)
		raft_configuration_close(&conf);
	return rc == RV_ECORRUPT ? RV_EPROTO : rc;
}

static int data_decode(struct feed_message *m, const uint8_t *p, size_t len)
{
	if (len < DATA_HEAD || len > LEARN_MAX_MESSAGE)
		return RV_EPROTO;
	m->position = bytes_get_le64(p + 9);
	m->sum = bytes_get_le64(p + SUM_AT);
	m->body = p + DATA_HEAD;
	m->body_len = len - DATA_HEAD;
	switch (m->kind) {
	case FEED_ENTRIES:
		return entries_decode(m);
	case FEED_SNAP_BEGIN:
		return snap_begin_decode(m);
	case FEED_SNAP_DATA:
		m->chunk = m->body;
		m->chunk_len = m->body_len;
		return m->chunk_len > 0 && m->chunk_len <= LEARN_MAX_CHUNK ? 0
									   : RV_EPROTO;
	default:
		return m->body_len == 0 ? 0 : RV_EPROTO;
	}
}

int feed_decode(struct feed_message *m, const uint8_t *bytes, size_t len)
{
	*m = (struct feed_message){0};
	if (len < 9 || bytes[0] < FEED_BEAT || bytes[0] > FEED_SNAP_END)
		return RV_EPROTO;
	m->kind = (enum feed_kind)bytes[0];
	m->session = bytes_get_le64(bytes + 1);
	if (m->kind == FEED_BEAT) {
		if (len != BEAT_BYTES)
			return RV_EPROTO;
		m->term = bytes_get_le64(bytes + 9);
		m->commit = bytes_get_le64(bytes + 17);
		memcpy(m->master.b, bytes + 25, 16);
		m->age_ms = bytes_get_le64(bytes + 41);
		return 0;
	}
	if (m->kind == FEED_REFUSE) {
		if (len != REFUSE_BYTES || bytes[9] < FEED_NOT_VOTER ||
			bytes[9] > FEED_ENDED)
			return RV_EPROTO;
		m->refusal = (enum feed_refusal)bytes[9];
		return 0;
	}
	return data_decode(m, bytes, len);
}

/* --- places --- */

int place_encode(const struct place_message *m, struct buf *out)
{
	int rc = put64(out, m->generation.number);

	rc = rc ? rc : buf_append(out, m->generation.id.b, 16);
	rc = rc ? rc : put64(out, m->term);
	rc = rc ? rc : put64(out, m->id);
	rc = rc ? rc : put64(out, m->conf_index);
	return rc ? rc : put_byte(out, m->standby);
}

int place_decode(struct place_message *m, const uint8_t *bytes, size_t len)
{
	if (len != PLACE_BYTES || bytes[48] > 1)
		return RV_EPROTO;
	*m = (struct place_message){.term = bytes_get_le64(bytes + 24),
		.id = bytes_get_le64(bytes + 32),
		.conf_index = bytes_get_le64(bytes + 40),
		.standby = bytes[48]};
	m->generation.number = bytes_get_le64(bytes);
	memcpy(m->generation.id.b, bytes + 8, 16);
	if (m->standby && !m->id)
		return RV_EPROTO;
	return !m->term && (m->id || !m->generation.number) ? RV_EPROTO : 0;
}
