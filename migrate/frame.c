#include "migrate/frame.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/mpcheck.h"

static const char *const names[MIGRATE_TYPE_COUNT] = {
	[MIGRATE_PREPARE] = "PREPARE",
	[MIGRATE_READY_TO_STREAM] = "READY_TO_STREAM",
	[MIGRATE_REFUSE] = "REFUSE",
	[MIGRATE_DATA] = "DATA",
	[MIGRATE_ROUND] = "ROUND",
	[MIGRATE_FINAL] = "FINAL",
	[MIGRATE_READY] = "READY",
	[MIGRATE_COMMITTED] = "COMMITTED",
	[MIGRATE_RUNNING] = "RUNNING",
	[MIGRATE_RETURNED] = "RETURNED",
	[MIGRATE_ABORTED] = "ABORTED",
	[MIGRATE_KEEPALIVE] = "KEEPALIVE",
};

enum {
	AT_TYPE = 4,
	AT_VERSION = 6,
	AT_SUM = 8,
	UUID_BYTES = 16,
	DRIVER_BYTES = 32,
	PREPARE_FIXED = 2 + 2 + 5 * UUID_BYTES + 5 * 8 + 2 * 4 + DRIVER_BYTES + 1 + 4,
	FINAL_BYTES = UUID_BYTES + 8 + 8 + 4 + 8 + 8 + 8,
	ROUND_BYTES = 4 + 8 + 8 + 8,
	REASON_FIXED = 4,
};

const char *migrate_type_name(unsigned type)
{
	return type > 0 && type < MIGRATE_TYPE_COUNT ? names[type] : "?";
}

/* --- numbers and pieces --- */

struct writer {
	uint8_t *at;
};

struct reader {
	const uint8_t *at, *end;
	bool broken;
};

static void put_int(struct writer *w, uint64_t v, int bytes)
{
	for (int i = 0; i < bytes; i++)
		*w->at++ = (uint8_t)(v >> (8 * i));
}

static void put_bytes(struct writer *w, const void *data, size_t n)
{
	if (n)
		memcpy(w->at, data, n);
	w->at += n;
}

static void put_uuid(struct writer *w, const struct uuid *u)
{
	put_bytes(w, u->b, sizeof u->b);
}

static const uint8_t *get_bytes(struct reader *r, size_t n)
{
	const uint8_t *at = r->at;

	if ((size_t)(r->end - r->at) < n) {
		r->broken = true;
		return NULL;
	}
	r->at += n;
	return at;
}

static uint64_t get_int(struct reader *r, int bytes)
{
	const uint8_t *p = get_bytes(r, (size_t)bytes);
	uint64_t v = 0;

	for (int i = 0; p && i < bytes; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static struct uuid get_uuid(struct reader *r)
{
	const uint8_t *p = get_bytes(r, UUID_BYTES);
	struct uuid u = UUID_NONE;

	if (p)
		memcpy(u.b, p, sizeof u.b);
	return u;
}

static uint64_t peek_int(const uint8_t *p, int bytes)
{
	struct reader r = {.at = p, .end = p + bytes};

	return get_int(&r, bytes);
}

/* --- frames --- */

static uint64_t frame_sum(const uint8_t *frame, size_t payload)
{
	return XXH3_64bits_withSeed(
		frame + MIGRATE_HEADER_BYTES, payload, peek_int(frame, AT_SUM));
}

static size_t frame_seal(uint8_t *frame, enum migrate_type type, size_t payload)
{
	struct writer w = {frame};

	put_int(&w, payload, 4);
	put_int(&w, type, 1);
	put_int(&w, 0, 1);
	put_int(&w, MIGRATE_VERSION, 2);
	put_int(&w, frame_sum(frame, payload), 8);
	return MIGRATE_HEADER_BYTES + payload;
}

size_t migrate_seal_data(uint8_t *frame, uint64_t offset, size_t len)
{
	struct writer w = {frame + MIGRATE_HEADER_BYTES};

	assert(len > 0 && len <= MIGRATE_DATA_MAX);
	put_int(&w, offset, MIGRATE_OFFSET_BYTES);
	return frame_seal(frame, MIGRATE_DATA, MIGRATE_OFFSET_BYTES + len);
}

/* The bounds of a payload, by type. */
static void payload_bounds(unsigned type, size_t *least, size_t *most)
{
	switch (type) {
	case MIGRATE_PREPARE:
		*least = PREPARE_FIXED;
		*most = PREPARE_FIXED + HYPER_MAX_CPU_POLICY;
		return;
	case MIGRATE_READY_TO_STREAM:
		*least = *most = 2;
		return;
	case MIGRATE_REFUSE:
	case MIGRATE_RETURNED:
	case MIGRATE_ABORTED:
		*least = REASON_FIXED;
		*most = REASON_FIXED + MIGRATE_TEXT_MAX;
		return;
	case MIGRATE_DATA:
		*least = MIGRATE_OFFSET_BYTES + 1;
		*most = MIGRATE_PAYLOAD_MAX;
		return;
	case MIGRATE_ROUND:
		*least = *most = ROUND_BYTES;
		return;
	case MIGRATE_FINAL:
		*least = *most = FINAL_BYTES;
		return;
	case MIGRATE_READY:
	case MIGRATE_COMMITTED:
	case MIGRATE_RUNNING:
		*least = *most = 8;
		return;
	default:
		*least = *most = 0;
	}
}

int migrate_frame_length(
	const uint8_t *bytes, size_t len, size_t *frame_len, struct rv_error *e)
{
	size_t payload, least, most;
	unsigned type, version;

	*frame_len = 0;
	if (len < MIGRATE_HEADER_BYTES)
		return 0;
	payload = (size_t)peek_int(bytes, 4);
	type = bytes[AT_TYPE];
	version = (unsigned)peek_int(bytes + AT_VERSION, 2);
	if (type == 0 || type >= MIGRATE_TYPE_COUNT || bytes[AT_TYPE + 1] != 0)
		return rv_error_set(e, RV_EPROTO,
			"the migration stream holds a frame of the unknown type %u",
			type);
	if (version != MIGRATE_VERSION)
		return rv_error_set(e, RV_EPROTO,
			"the migration stream is of version %u, this host speaks %d; "
			"update "
			"the older host",
			version, MIGRATE_VERSION);
	payload_bounds(type, &least, &most);
	if (payload > most)
		return rv_error_set(e, RV_ETOOBIG,
			"a %s frame of a migration claims %zu bytes, at most %zu can be",
			names[type], payload, most);
	if (payload < least)
		return rv_error_set(e, RV_EPROTO,
			"a %s frame of a migration has %zu bytes, at least %zu must be",
			names[type], payload, least);
	*frame_len = MIGRATE_HEADER_BYTES + payload;
	return 0;
}

/* --- payloads --- */

static void put_prepare(struct writer *w, const struct migrate_prepare *p)
{
	assert(p->cpu_policy_len <= HYPER_MAX_CPU_POLICY);
	put_int(w, p->version_min, 2);
	put_int(w, p->version_max, 2);
	put_uuid(w, &p->migration);
	put_uuid(w, &p->task);
	put_uuid(w, &p->vm);
	put_uuid(w, &p->source);
	put_uuid(w, &p->target);
	put_int(w, p->generation, 8);
	put_int(w, p->seq, 8);
	put_int(w, (uint64_t)p->wall_ms, 8);
	put_int(w, p->target_kib, 8);
	put_int(w, p->actual_kib, 8);
	put_int(w, p->xen_major, 4);
	put_int(w, p->xen_minor, 4);
	put_bytes(w, p->driver, DRIVER_BYTES);
	put_int(w, p->live, 1);
	put_int(w, p->cpu_policy_len, 4);
	put_bytes(w, p->cpu_policy, p->cpu_policy_len);
}

static void get_prepare(struct reader *r, struct migrate_prepare *p)
{
	const uint8_t *driver;

	p->version_min = (uint16_t)get_int(r, 2);
	p->version_max = (uint16_t)get_int(r, 2);
	p->migration = get_uuid(r);
	p->task = get_uuid(r);
	p->vm = get_uuid(r);
	p->source = get_uuid(r);
	p->target = get_uuid(r);
	p->generation = get_int(r, 8);
	p->seq = get_int(r, 8);
	p->wall_ms = (int64_t)get_int(r, 8);
	p->target_kib = get_int(r, 8);
	p->actual_kib = get_int(r, 8);
	p->xen_major = (uint32_t)get_int(r, 4);
	p->xen_minor = (uint32_t)get_int(r, 4);
	driver = get_bytes(r, DRIVER_BYTES);
	if (driver) {
		memcpy(p->driver, driver, DRIVER_BYTES);
		r->broken |= memchr(driver, '\0', DRIVER_BYTES) == NULL;
		p->driver[DRIVER_BYTES - 1] = '\0';
	}
	p->live = get_int(r, 1) != 0;
	p->cpu_policy_len = (size_t)get_int(r, 4);
	p->cpu_policy = get_bytes(r, p->cpu_policy_len);
	r->broken |= uuid_is_none(&p->migration) || uuid_is_none(&p->task) ||
		     uuid_is_none(&p->vm) || p->version_min > p->version_max ||
		     p->generation >= INT64_MAX || p->target_kib > INT64_MAX >> 10 ||
		     p->actual_kib > INT64_MAX >> 10;
}

static void put_final(struct writer *w, const struct migrate_final *f)
{
	put_uuid(w, &f->migration);
	put_int(w, f->generation, 8);
	put_int(w, f->bytes, 8);
	put_int(w, f->rounds, 4);
	put_int(w, (uint64_t)f->total_us, 8);
	put_int(w, (uint64_t)f->suspended_us, 8);
	put_int(w, (uint64_t)f->prepared_us, 8);
}

static void get_final(struct reader *r, struct migrate_final *f)
{
	f->migration = get_uuid(r);
	f->generation = get_int(r, 8);
	f->bytes = get_int(r, 8);
	f->rounds = (uint32_t)get_int(r, 4);
	f->total_us = (int64_t)get_int(r, 8);
	f->suspended_us = (int64_t)get_int(r, 8);
	f->prepared_us = (int64_t)get_int(r, 8);
	/* A year is longer than any migration: keeps sums from overflowing. */
	r->broken |= f->total_us < 0 || f->suspended_us < 0 || f->prepared_us < 0 ||
		     f->total_us > INT64_C(31557600000000) ||
		     f->suspended_us > f->total_us || f->prepared_us > f->total_us;
}

static void put_reason(struct writer *w, int code, const char *text)
{
	size_t n = strnlen(text, MIGRATE_TEXT_MAX);

	/* Cut between characters. */
	n = mpcheck_utf8((const uint8_t *)text, n);
	put_int(w, (uint32_t)-code, 4);
	put_bytes(w, text, n);
}

static void get_reason(struct reader *r, struct migrate_message *m)
{
	uint32_t wire = (uint32_t)get_int(r, 4);
	size_t n = (size_t)(r->end - r->at);
	const uint8_t *text = get_bytes(r, n);

	m->as.reason.code = wire > 0 && wire < 1000 ? -(int)wire : RV_EINTERNAL;
	if (!text || mpcheck_utf8(text, n) != n) {
		r->broken = true;
		return;
	}
	memcpy(m->as.reason.text, text, n);
	m->as.reason.text[n] = '\0';
}

size_t migrate_encode(
	const struct migrate_message *m, uint8_t out[static MIGRATE_CONTROL_MAX])
{
	struct writer w = {out + MIGRATE_HEADER_BYTES};

	switch (m->type) {
	case MIGRATE_PREPARE:
		put_prepare(&w, &m->as.prepare);
		break;
	case MIGRATE_READY_TO_STREAM:
		put_int(&w, m->as.version, 2);
		break;
	case MIGRATE_REFUSE:
	case MIGRATE_RETURNED:
	case MIGRATE_ABORTED:
		put_reason(&w, m->as.reason.code, m->as.reason.text);
		break;
	case MIGRATE_ROUND:
		put_int(&w, m->as.round.round, 4);
		put_int(&w, m->as.round.dirty_pages, 8);
		put_int(&w, m->as.round.bytes, 8);
		put_int(&w, (uint64_t)m->as.round.predicted_us, 8);
		break;
	case MIGRATE_FINAL:
		put_final(&w, &m->as.final);
		break;
	case MIGRATE_READY:
	case MIGRATE_COMMITTED:
	case MIGRATE_RUNNING:
		put_int(&w, m->as.generation, 8);
		break;
	case MIGRATE_KEEPALIVE:
		break;
	case MIGRATE_DATA:
	case MIGRATE_TYPE_COUNT:
		assert(!"migrate_encode: not for this type");
	}
	return frame_seal(out, m->type, (size_t)(w.at - out) - MIGRATE_HEADER_BYTES);
}

static void get_payload(struct reader *r, struct migrate_message *m)
{
	switch (m->type) {
	case MIGRATE_PREPARE:
		get_prepare(r, &m->as.prepare);
		return;
	case MIGRATE_READY_TO_STREAM:
		m->as.version = (uint16_t)get_int(r, 2);
		return;
	case MIGRATE_REFUSE:
	case MIGRATE_RETURNED:
	case MIGRATE_ABORTED:
		get_reason(r, m);
		return;
	case MIGRATE_DATA:
		m->as.data.offset = get_int(r, MIGRATE_OFFSET_BYTES);
		m->as.data.len = (size_t)(r->end - r->at);
		m->as.data.bytes = get_bytes(r, m->as.data.len);
		return;
	case MIGRATE_ROUND:
		m->as.round.round = (uint32_t)get_int(r, 4);
		m->as.round.dirty_pages = get_int(r, 8);
		m->as.round.bytes = get_int(r, 8);
		m->as.round.predicted_us = (int64_t)get_int(r, 8);
		return;
	case MIGRATE_FINAL:
		get_final(r, &m->as.final);
		return;
	case MIGRATE_READY:
	case MIGRATE_COMMITTED:
	case MIGRATE_RUNNING:
		m->as.generation = get_int(r, 8);
		return;
	case MIGRATE_KEEPALIVE:
	case MIGRATE_TYPE_COUNT:
		return;
	}
}

int migrate_decode(
	const uint8_t *frame, size_t len, struct migrate_message *out, struct rv_error *e)
{
	struct reader r;
	size_t frame_len;
	int rc = migrate_frame_length(frame, len, &frame_len, e);

	if (rc)
		return rc;
	if (frame_len == 0 || frame_len != len)
		return rv_error_set(e, RV_EPROTO, "a frame of a migration is cut short");
	if (peek_int(frame + AT_SUM, 8) != frame_sum(frame, len - MIGRATE_HEADER_BYTES))
		return rv_error_set(e, RV_ECORRUPT,
			"a %s frame of a migration does not match its checksum: it was "
			"damaged on the way",
			names[frame[AT_TYPE]]);
	memset(out, 0, sizeof *out);
	out->type = frame[AT_TYPE];
	r = (struct reader){.at = frame + MIGRATE_HEADER_BYTES, .end = frame + len};
	get_payload(&r, out);
	if (r.broken || r.at != r.end)
		return rv_error_set(e, RV_EPROTO,
			"a %s frame of a migration makes no sense: the peer is broken, "
			"or no reeved",
			names[out->type]);
	return 0;
}
