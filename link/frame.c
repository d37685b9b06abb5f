#include "link/frame.h"

#include <string.h>

#include "base/limits.h"

/* What each kind may carry. */
struct kind_rule {
	uint32_t least, most; /* payload */
	uint8_t flags;	      /* that it may have */
	bool channel;	      /* or its channel byte is 0 */
};

static const struct kind_rule kind_rules[] = {
	[LINK_HELLO] = {LINK_HELLO_SIZE, 1024, 0, false},
	[LINK_SELECT] = {LINK_SELECT_SIZE, LINK_SELECT_SIZE, 0, false},
	[LINK_DATA] = {0, LINK_START_SIZE + LINK_CHUNK_MAX, LINK_FIRST | LINK_LAST, true},
	[LINK_WINDOW] = {LINK_WINDOW_SIZE, LINK_WINDOW_SIZE, 0, true},
	[LINK_PROBE] = {LINK_PROBE_SIZE, LINK_PROBE_SIZE, 0, false},
	[LINK_ECHO] = {LINK_ECHO_SIZE, LINK_ECHO_SIZE, 0, false},
	[LINK_GOODBYE] = {4, 4 + LINK_REASON_MAX, 0, false},
	[LINK_JOIN_REQUEST] = {1, LINK_JOIN_REQUEST_MAX, 0, false},
	[LINK_JOIN_GRANT] = {1, LINK_JOIN_GRANT_MAX, 0, false},
	[LINK_JOIN_REFUSAL] = {1, 4096, 0, false},
};

/* Kinds of later versions may be skipped, but not swallow memory meanwhile. */
static const struct kind_rule ignorable_rule = {0, 4096, 0xff, true};

enum { KIND_COUNT = sizeof kind_rules / sizeof kind_rules[0] };

static const char *const channel_names[LINK_CHANNELS] = {
	[LINK_HEARTBEAT] = "heartbeat",
	[LINK_RAFT] = "raft",
	[LINK_RPC] = "rpc",
	[LINK_BULK] = "bulk",
};

/* A raft message may carry many entries; a chunk of a snapshot or of the learner stream
 * has a few of RV_MAX_ENTRY_BYTES at most; a forwarded call has a head of its own. */
static const size_t channel_max[LINK_CHANNELS] = {
	[LINK_HEARTBEAT] = 256 << 10,
	[LINK_RAFT] = 64 << 20,
	[LINK_RPC] = RV_MAX_RPC_MESSAGE_BYTES + (64 << 10),
	[LINK_BULK] = 2 * RV_MAX_ENTRY_BYTES,
};

void link_put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

void link_put32(uint8_t *p, uint32_t v)
{
	link_put16(p, (uint16_t)(v >> 16));
	link_put16(p + 2, (uint16_t)v);
}

void link_put64(uint8_t *p, uint64_t v)
{
	link_put32(p, (uint32_t)(v >> 32));
	link_put32(p + 4, (uint32_t)v);
}

uint16_t link_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

uint32_t link_get32(const uint8_t *p)
{
	return (uint32_t)link_get16(p) << 16 | link_get16(p + 2);
}

uint64_t link_get64(const uint8_t *p)
{
	return (uint64_t)link_get32(p) << 32 | link_get32(p + 4);
}

const char *link_channel_name(enum link_channel channel)
{
	return (unsigned)channel < LINK_CHANNELS ? channel_names[channel] : "unknown";
}

size_t link_channel_max(enum link_channel channel)
{
	return channel_max[channel];
}

bool link_frame_known(uint8_t kind)
{
	return kind < KIND_COUNT && kind_rules[kind].most > 0;
}

/* --- frames --- */

/* As much of the head as is there. */
static int head_check(const uint8_t *head, size_t len, struct rv_error *e)
{
	const struct kind_rule *rule = &ignorable_rule;
	bool known;

	if (head[0] != LINK_FRAME_VERSION)
		return rv_error_set(e, RV_EPROTO,
			"frame: version byte %u where %d should be", head[0],
			LINK_FRAME_VERSION);
	if (len < 4)
		return RV_EAGAIN;
	known = link_frame_known(head[1]);
	if (known)
		rule = &kind_rules[head[1]];
	else if (!(head[3] & LINK_IGNORABLE))
		return rv_error_set(e, RV_EPROTO, "frame: kind %u is not known", head[1]);
	if (known && (rule->channel ? head[2] >= LINK_CHANNELS : head[2] != 0))
		return rv_error_set(
			e, RV_EPROTO, "frame: kind %u on channel %u", head[1], head[2]);
	if (head[3] & ~rule->flags)
		return rv_error_set(
			e, RV_EPROTO, "frame: kind %u with flags 0x%x", head[1], head[3]);
	if (len < LINK_FRAME_HEAD)
		return RV_EAGAIN;
	if (link_get32(head + 4) < rule->least)
		return rv_error_set(e, RV_EPROTO, "frame: kind %u with only %u bytes",
			head[1], link_get32(head + 4));
	if (link_get32(head + 4) > rule->most)
		return rv_error_set(e, RV_ETOOBIG,
			"frame: kind %u with %u bytes, at most %u", head[1],
			link_get32(head + 4), rule->most);
	return 0;
}

/* A message's first frame says what follows; what it carries itself must fit. */
static int data_check(const struct link_frame *f, struct rv_error *e)
{
	size_t total, here;

	if (!(f->flags & LINK_FIRST)) {
		if (f->len == 0 || f->len > LINK_CHUNK_MAX)
			return rv_error_set(
				e, RV_EPROTO, "frame: a chunk of %u bytes", f->len);
		return 0;
	}
	if (f->len < LINK_START_SIZE)
		return rv_error_set(e, RV_EPROTO, "frame: a message without its length");
	total = link_get32(f->payload + 2);
	here = f->len - LINK_START_SIZE;
	if (total > channel_max[f->channel])
		return rv_error_set(e, RV_ETOOBIG,
			"frame: a message of %zu bytes on channel %s, at most %zu", total,
			channel_names[f->channel], channel_max[f->channel]);
	if (f->flags & LINK_LAST ? here != total : here == 0 || here >= total)
		return rv_error_set(e, RV_EPROTO,
			"frame: %zu bytes here of a message of %zu", here, total);
	return 0;
}

int link_frame_decode(struct link_frame *f, const uint8_t *data, size_t len, size_t *used,
	struct rv_error *e)
{
	size_t payload;
	int rc;

	if (len == 0)
		return RV_EAGAIN;
	rc = head_check(data, len, e);
	if (rc)
		return rc;
	payload = link_get32(data + 4);
	if (len - LINK_FRAME_HEAD < payload)
		return RV_EAGAIN;
	*f = (struct link_frame){.kind = data[1],
		.channel = data[2],
		.flags = data[3],
		.len = (uint32_t)payload,
		.payload = data + LINK_FRAME_HEAD};
	if (f->kind == LINK_DATA) {
		rc = data_check(f, e);
		if (rc)
			return rc;
	}
	*used = LINK_FRAME_HEAD + payload;
	return 0;
}

void link_frame_head(uint8_t head[static LINK_FRAME_HEAD], enum link_frame_kind kind,
	unsigned channel, unsigned flags, uint32_t len)
{
	head[0] = LINK_FRAME_VERSION;
	head[1] = (uint8_t)kind;
	head[2] = (uint8_t)channel;
	head[3] = (uint8_t)flags;
	link_put32(head + 4, len);
}

/* --- payloads --- */

static const uint8_t hello_magic[4] = {'R', 'V', 'L', 'K'};

void link_hello_encode(
	uint8_t out[static LINK_HELLO_SIZE], const struct link_hello *hello)
{
	memcpy(out, hello_magic, 4);
	link_put16(out + 4, hello->oldest);
	link_put16(out + 6, hello->newest);
	memcpy(out + 8, hello->host.b, 16);
	link_put64(out + 24, hello->incarnation);
	link_put64(out + 32, hello->selected);
}

int link_hello_decode(
	struct link_hello *out, const struct link_frame *f, struct rv_error *e)
{
	const uint8_t *p = f->payload;

	/* Later versions may append. */
	if (memcmp(p, hello_magic, 4) != 0)
		return rv_error_set(e, RV_EPROTO, "HELLO without its magic");
	out->oldest = link_get16(p + 4);
	out->newest = link_get16(p + 6);
	memcpy(out->host.b, p + 8, 16);
	out->incarnation = link_get64(p + 24);
	out->selected = link_get64(p + 32);
	if (out->oldest > LINK_FRAME_VERSION || out->newest < LINK_FRAME_VERSION)
		return rv_error_set(e, RV_EUNSUPPORTED,
			"the peer speaks versions %u to %u of the host link, this host "
			"%d; "
			"upgrade the older one",
			out->oldest, out->newest, LINK_FRAME_VERSION);
	if (out->incarnation == 0)
		return rv_error_set(e, RV_EPROTO, "HELLO without an incarnation");
	return 0;
}

void link_probe_encode(
	uint8_t out[static LINK_PROBE_SIZE], const struct link_probe *probe)
{
	link_put32(out, probe->number);
	link_put64(out + 4, (uint64_t)probe->sent_ms);
}

void link_probe_decode(struct link_probe *out, const struct link_frame *f)
{
	out->number = link_get32(f->payload);
	out->sent_ms = (int64_t)link_get64(f->payload + 4);
}

void link_echo_encode(uint8_t out[static LINK_ECHO_SIZE], const struct link_echo *echo)
{
	link_put32(out, echo->number);
	link_put64(out + 4, (uint64_t)echo->sent_ms);
	link_put64(out + 12, (uint64_t)echo->received_ms);
	link_put64(out + 20, (uint64_t)echo->returned_ms);
	link_put32(out + 28, echo->held_us);
}

void link_echo_decode(struct link_echo *out, const struct link_frame *f)
{
	out->number = link_get32(f->payload);
	out->sent_ms = (int64_t)link_get64(f->payload + 4);
	out->received_ms = (int64_t)link_get64(f->payload + 12);
	out->returned_ms = (int64_t)link_get64(f->payload + 20);
	out->held_us = link_get32(f->payload + 28);
}
