#include "pool/raft_message.h"

#include <string.h>

#include "base/limits.h"
#include "pool/raft_conf.h"

enum { VERSION = 1, ENTRY_HEAD = 24, MAX_NUMBER_FIELDS = 8 };

/* --- encoding --- */

static int put64s(struct buf *out, const uint64_t *v, size_t n)
{
	uint8_t bytes[8 * MAX_NUMBER_FIELDS];

	for (size_t i = 0; i < 8 * n; i++)
		bytes[i] = (uint8_t)(v[i / 8] >> (8 * (i % 8)));
	return buf_append(out, bytes, 8 * n);
}

static int encode_entries(const struct raft_append_entries *a, struct buf *out)
{
	size_t bytes = 0;
	uint64_t n = 0;
	int rc;

	/* What doesn't fit is asked for again: the receiver answers with its last. */
	while (n < a->n_entries && n < RAFT_MESSAGE_MAX_ENTRIES &&
		(n == 0 || bytes + a->entries[n].buf.len <= RAFT_MESSAGE_ENTRIES_BYTES))
		bytes += a->entries[n++].buf.len;
	rc = put64s(out,
		(uint64_t[]){a->term, a->prev_log_index, a->prev_log_term,
			a->leader_commit, n},
		5);
	for (uint64_t i = 0; i < n && !rc; i++) {
		const struct raft_entry *entry = &a->entries[i];

		rc = put64s(
			out, (uint64_t[]){entry->term, entry->type, entry->buf.len}, 3);
		if (!rc)
			rc = buf_append(out, entry->buf.base, entry->buf.len);
	}
	return rc;
}

static int encode_snapshot(const struct raft_install_snapshot *s, struct buf *out)
{
	struct raft_buffer conf;
	int rc;

	if (raft_configuration_encode(&s->conf, &conf))
		return RV_ENOMEM;
	rc = put64s(out,
		(uint64_t[]){s->term, s->last_index, s->last_term, s->conf_index,
			conf.len, s->data.len},
		6);
	if (!rc)
		rc = buf_append(out, conf.base, conf.len);
	if (!rc)
		rc = buf_append(out, s->data.base, s->data.len);
	raft_free(conf.base);
	return rc;
}

int raft_message_encode(const struct raft_message *m, struct buf *out)
{
	const struct raft_append_entries_result *ar = &m->append_entries_result;
	const struct raft_request_vote *v = &m->request_vote;
	const struct raft_request_vote_result *vr = &m->request_vote_result;
	const struct raft_timeout_now *t = &m->timeout_now;
	int rc = buf_append(out, (uint8_t[]){VERSION, (uint8_t)m->type}, 2);

	if (rc)
		return rc;
	switch (m->type) {
	case RAFT_IO_APPEND_ENTRIES:
		return encode_entries(&m->append_entries, out);
	case RAFT_IO_APPEND_ENTRIES_RESULT:
		return put64s(
			out, (uint64_t[]){ar->term, ar->rejected, ar->last_log_index}, 3);
	case RAFT_IO_REQUEST_VOTE:
		return put64s(out,
			(uint64_t[]){v->term, v->candidate_id, v->last_log_index,
				v->last_log_term, v->disrupt_leader, v->pre_vote},
			6);
	case RAFT_IO_REQUEST_VOTE_RESULT:
		return put64s(out,
			(uint64_t[]){vr->term, vr->vote_granted,
				vr->pre_vote == raft_tribool_true},
			3);
	case RAFT_IO_INSTALL_SNAPSHOT:
		return encode_snapshot(&m->install_snapshot, out);
	case RAFT_IO_TIMEOUT_NOW:
		return put64s(out,
			(uint64_t[]){t->term, t->last_log_index, t->last_log_term}, 3);
	default:
		return RV_EINVAL;
	}
}

/* --- decoding --- */

struct reader {
	const uint8_t *at, *end;
};

static bool get64s(struct reader *r, uint64_t *v, size_t n)
{
	if ((size_t)(r->end - r->at) < 8 * n)
		return false;
	memset(v, 0, n * sizeof *v);
	for (size_t i = 0; i < 8 * n; i++)
		v[i / 8] |= (uint64_t)*r->at++ << (8 * (i % 8));
	return true;
}

static int check_entry(const struct raft_entry *entry, uint64_t index)
{
	struct raft_configuration conf;
	int rc;

	if (entry->type < RAFT_COMMAND || entry->type > RAFT_CHANGE ||
		(index == 1 && entry->type != RAFT_CHANGE))
		return RV_EPROTO;
	if (entry->type != RAFT_CHANGE)
		return 0;
	rc = raft_conf_decode(entry->buf.base, entry->buf.len, &conf);
	if (!rc)
		raft_configuration_close(&conf);
	return rc == RV_ECORRUPT ? RV_EPROTO : rc;
}

static int decode_entry(struct reader *r, struct raft_entry *entry, uint8_t **copy,
	uint64_t index, uint64_t least_term, uint64_t most_term)
{
	uint64_t v[3];

	if (!get64s(r, v, 3) || v[0] < least_term || v[0] > most_term || v[0] == 0 ||
		v[1] > RAFT_CHANGE || v[2] == 0 || v[2] > RV_MAX_ENTRY_BYTES + 64 ||
		v[2] > (uint64_t)(r->end - r->at))
		return RV_EPROTO;
	memcpy(*copy, r->at, v[2]);
	entry->term = v[0];
	entry->type = (unsigned short)v[1];
	entry->buf.base = *copy;
	entry->buf.len = v[2];
	*copy += v[2];
	r->at += v[2];
	return check_entry(entry, index);
}

static int decode_entries(struct reader *r, struct raft_append_entries *a)
{
	uint64_t v[5], term;
	uint8_t *batch, *copy;
	int rc = 0;

	a->entries = NULL;
	a->n_entries = 0;
	if (!get64s(r, v, 5) || v[0] == 0 || v[4] > RAFT_MESSAGE_MAX_ENTRIES ||
		v[1] > UINT64_MAX / 2 || v[2] > v[0] ||
		v[4] > (uint64_t)(r->end - r->at) / ENTRY_HEAD)
		return RV_EPROTO;
	a->term = v[0];
	a->prev_log_index = v[1];
	a->prev_log_term = term = v[2];
	a->leader_commit = v[3];
	if (v[4] == 0)
		return 0;
	batch = copy = raft_malloc((size_t)(r->end - r->at));
	a->entries = raft_calloc(v[4], sizeof *a->entries);
	if (!batch || !a->entries)
		rc = RV_ENOMEM;
	for (uint64_t i = 0; i < v[4] && !rc; i++) {
		a->entries[i].batch = batch;
		rc = decode_entry(r, &a->entries[i], &copy, v[1] + 1 + i, term, v[0]);
		term = a->entries[i].term;
	}
	if (rc) {
		raft_free(batch);
		raft_free(a->entries);
		a->entries = NULL;
		return rc;
	}
	a->n_entries = (unsigned)v[4];
	return 0;
}

static int decode_snapshot(struct reader *r, struct raft_install_snapshot *s)
{
	uint64_t v[6];
	int rc;

	if (!get64s(r, v, 6) || v[0] == 0 || v[1] == 0 || v[2] == 0 || v[2] > v[0] ||
		v[3] == 0 || v[3] > v[1] || v[4] > (uint64_t)(r->end - r->at) ||
		v[5] == 0 || v[5] > (uint64_t)(r->end - r->at) - v[4])
		return RV_EPROTO;
	rc = raft_conf_decode(r->at, v[4], &s->conf);
	if (rc)
		return rc == RV_ECORRUPT ? RV_EPROTO : rc;
	r->at += v[4];
	s->data.base = raft_malloc(v[5]);
	if (!s->data.base) {
		raft_configuration_close(&s->conf);
		return RV_ENOMEM;
	}
	memcpy(s->data.base, r->at, v[5]);
	r->at += v[5];
	s->data.len = v[5];
	s->term = v[0];
	s->last_index = v[1];
	s->last_term = v[2];
	s->conf_index = v[3];
	return 0;
}

static int decode_vote(struct reader *r, struct raft_message *m)
{
	uint64_t v[6];

	if (m->type == RAFT_IO_REQUEST_VOTE) {
		if (!get64s(r, v, 6) || v[0] == 0 || v[1] == 0 || v[4] > 1 || v[5] > 1)
			return RV_EPROTO;
		m->request_vote = (struct raft_request_vote){
			.term = v[0],
			.candidate_id = v[1],
			.last_log_index = v[2],
			.last_log_term = v[3],
			.disrupt_leader = v[4] != 0,
			.pre_vote = v[5] != 0,
		};
		return 0;
	}
	if (!get64s(r, v, 3) || v[1] > 1 || v[2] > 1)
		return RV_EPROTO;
	m->request_vote_result = (struct raft_request_vote_result){
		.term = v[0],
		.vote_granted = v[1] != 0,
		.pre_vote = v[2] ? raft_tribool_true : raft_tribool_false,
	};
	return 0;
}

static int decode_body(struct reader *r, struct raft_message *m)
{
	uint64_t v[3];

	switch (m->type) {
	case RAFT_IO_APPEND_ENTRIES:
		return decode_entries(r, &m->append_entries);
	case RAFT_IO_INSTALL_SNAPSHOT:
		return decode_snapshot(r, &m->install_snapshot);
	case RAFT_IO_REQUEST_VOTE:
	case RAFT_IO_REQUEST_VOTE_RESULT:
		return decode_vote(r, m);
	case RAFT_IO_APPEND_ENTRIES_RESULT:
		if (!get64s(r, v, 3))
			return RV_EPROTO;
		m->append_entries_result =
			(struct raft_append_entries_result){v[0], v[1], v[2]};
		return 0;
	case RAFT_IO_TIMEOUT_NOW:
		if (!get64s(r, v, 3) || v[0] == 0)
			return RV_EPROTO;
		m->timeout_now = (struct raft_timeout_now){v[0], v[1], v[2]};
		return 0;
	default:
		return RV_EPROTO;
	}
}

int raft_message_decode(struct raft_message *m, const uint8_t *bytes, size_t len)
{
	struct reader r = {bytes + 2, bytes + len};
	int rc;

	memset(m, 0, sizeof *m);
	if (len < 2 || bytes[0] != VERSION)
		return RV_EPROTO;
	m->type = bytes[1];
	rc = decode_body(&r, m);
	if (rc)
		return rc;
	if (r.at != r.end) {
		raft_message_fini(m);
		return RV_EPROTO;
	}
	return 0;
}

void raft_message_fini(struct raft_message *m)
{
	if (m->type == RAFT_IO_APPEND_ENTRIES && m->append_entries.n_entries > 0) {
		raft_free(m->append_entries.entries[0].batch);
		raft_free(m->append_entries.entries);
		m->append_entries.entries = NULL;
		m->append_entries.n_entries = 0;
	} else if (m->type == RAFT_IO_INSTALL_SNAPSHOT) {
		raft_configuration_close(&m->install_snapshot.conf);
		raft_free(m->install_snapshot.data.base);
		memset(&m->install_snapshot, 0, sizeof m->install_snapshot);
	}
}
