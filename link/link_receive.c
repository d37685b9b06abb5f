/*
 * The receiving half: frames, windows, messages put together. Memory grows with the bytes
 * that are there, never with what a head announces.
 */
#include "link/link.h"

#include <stdlib.h>
#include <string.h>

#include "link/link_internal.h"

/* --- messages --- */

static void deliver(
	struct link *k, unsigned channel, uint16_t type, const uint8_t *data, size_t len)
{
	static const uint8_t nothing[1];

	k->lanes[channel].received++;
	k->events->message(
		k->arg, (enum link_channel)channel, type, data ? data : nothing, len);
}

static bool gone(const struct link *k)
{
	return k->freed || k->state != LINK_UP;
}

/* Messages of paused channels are kept; the window bounds them. */
static int hold_back(
	struct link_lane *lane, uint16_t type, const uint8_t *data, size_t len)
{
	struct link_message *m = malloc(sizeof *m + len);

	if (!m)
		return RV_ENOMEM;
	m->type = type;
	m->len = len;
	if (len)
		memcpy(m->data, data, len);
	list_push_back(&lane->waiting, &m->node);
	lane->held += len;
	return 0;
}

static int message_done(
	struct link *k, unsigned channel, uint16_t type, const uint8_t *data, size_t len)
{
	struct link_lane *lane = &k->lanes[channel];

	/* What waits already goes first. */
	if (lane->paused || !list_empty(&lane->waiting))
		return hold_back(lane, type, data, len);
	deliver(k, channel, type, data, len);
	return 0;
}

void link_deliver_waiting(struct link *k)
{
	for (unsigned i = 0; i < LINK_CHANNELS; i++) {
		struct link_lane *lane = &k->lanes[i];

		while (!gone(k) && !lane->paused && !list_empty(&lane->waiting)) {
			struct link_message *m = CONTAINER_OF(
				lane->waiting.next, struct link_message, node);

			list_remove(&m->node);
			lane->held -= m->len;
			deliver(k, i, m->type, m->data, m->len);
			free(m);
		}
		if (gone(k))
			return;
		if (!lane->paused)
			lane->returnable = lane->unreturned;
	}
}

static int assemble(struct link *k, const struct link_frame *f, struct rv_error *e)
{
	struct link_lane *lane = &k->lanes[f->channel];
	const uint8_t *data = f->payload;
	size_t len = f->len;
	int rc;

	if (!(f->flags & LINK_FIRST) != lane->assembling)
		return rv_error_set(e, RV_EPROTO,
			lane->assembling ? "a message begins before the last one ended"
					 : "a chunk of no message");
	if (f->flags & LINK_FIRST) {
		uint16_t type = link_get16(data);

		data += LINK_START_SIZE;
		len -= LINK_START_SIZE;
		if (f->flags & LINK_LAST)
			return message_done(k, f->channel, type, data, len);
		lane->type = type;
		lane->total = link_get32(f->payload + 2);
		lane->assembling = true;
	}
	if (buf_len(&lane->partial) + len > lane->total ||
		(f->flags & LINK_LAST && buf_len(&lane->partial) + len != lane->total))
		return rv_error_set(
			e, RV_EPROTO, "a message of another length than announced");
	rc = buf_append(&lane->partial, data, len);
	if (rc)
		return rv_error_set(e, rc, "out of memory for a message");
	if (!(f->flags & LINK_LAST))
		return 0;
	lane->assembling = false;
	rc = message_done(k, f->channel, lane->type, buf_data(&lane->partial),
		buf_len(&lane->partial));
	if (lane->partial.size > LINK_CHUNK_MAX)
		buf_fini(&lane->partial);
	else
		buf_consume(&lane->partial, buf_len(&lane->partial));
	return rc;
}

static int take_data(struct link *k, const struct link_frame *f, struct rv_error *e)
{
	struct link_lane *lane = &k->lanes[f->channel];
	size_t cost = LINK_FRAME_HEAD + f->len;
	int rc;

	if (k->state != LINK_UP)
		return rv_error_set(e, RV_EPROTO, "a message before the link was up");
	lane->unreturned += cost;
	if (lane->unreturned > link_window(f->channel))
		return rv_error_set(e, RV_EPROTO, "the peer overran the window of %s",
			link_channel_name((enum link_channel)f->channel));
	rc = assemble(k, f, e);
	if (rc)
		return rc;
	if (!gone(k) && !lane->paused && list_empty(&lane->waiting))
		lane->returnable = lane->unreturned;
	return 0;
}

/* --- control --- */

static int take_hello(struct link *k, const struct link_frame *f, struct rv_error *e)
{
	const struct tls_peer *peer = stream_tls_peer(k->stream);
	char said[UUID_TEXT_SIZE];
	int rc;

	if (k->state != LINK_GREETING)
		return rv_error_set(e, RV_EPROTO, "a second HELLO");
	rc = link_hello_decode(&k->peer, f, e);
	if (rc)
		return rc;
	uuid_format(&k->peer.host, said);
	if (!peer || !peer->has_certificate || strcmp(said, peer->uuid) != 0)
		return rv_error_set(e, RV_EAUTH,
			"the peer calls itself %s, its certificate says %s", said,
			peer && peer->uuid[0] ? peer->uuid : "nothing");
	if (!uuid_is_none(&k->expected) && !uuid_eq(&k->peer.host, &k->expected))
		return rv_error_set(
			e, RV_EAUTH, "host %s answers at another host's address", said);
	if (uuid_eq(&k->peer.host, &k->self.host))
		return rv_error_set(e, RV_EAUTH, "the peer is this host itself");
	k->state = LINK_CHOOSING;
	if (k->events->hello)
		k->events->hello(k->arg, &k->peer);
	else if (link_is_arbiter(k))
		link_select(k, 1);
	return 0;
}

static int take_select(struct link *k, const struct link_frame *f, struct rv_error *e)
{
	if (k->state != LINK_CHOOSING || link_is_arbiter(k) ||
		link_get64(f->payload) == 0)
		return rv_error_set(e, RV_EPROTO, "SELECT out of place");
	k->number = link_get64(f->payload);
	k->state = LINK_UP;
	k->up_due = true;
	timer_stop(&k->hello);
	link_tell_up(k);
	return 0;
}

/* Only the last probe is answered: a flood of them costs one answer. */
static void take_probe(struct link *k, const struct link_frame *f)
{
	link_probe_decode(&k->probe, f);
	k->probe_wall_ms = loop_wall_ms(k->loop);
	k->probe_us = loop_now_us(k->loop);
	k->echo_due = true;
}

static int take_echo(struct link *k, const struct link_frame *f, struct rv_error *e)
{
	int64_t now_us = loop_now_us(k->loop), *sent_us, rtt_us;
	struct link_echo echo;

	link_echo_decode(&echo, f);
	if (echo.number >= k->next_probe)
		return rv_error_set(e, RV_EPROTO, "an answer to no probe");
	sent_us = &k->probe_sent_us[echo.number % LINK_PROBES];
	if (k->next_probe - echo.number > LINK_PROBES || *sent_us == 0)
		return 0; /* late or doubled */
	rtt_us = now_us - *sent_us - (int64_t)echo.held_us;
	*sent_us = 0;
	k->echoed_us = now_us;
	(void)clock_filter_add(&k->clock, echo.sent_ms, echo.received_ms,
		echo.returned_ms, loop_wall_ms(k->loop), rtt_us, now_us);
	return 0;
}

static int take_goodbye(struct link *k, const struct link_frame *f, struct rv_error *e)
{
	uint32_t code = link_get32(f->payload);
	char text[LINK_REASON_MAX + 1];
	size_t len = f->len - 4;

	memcpy(text, f->payload + 4, len);
	for (size_t i = 0; i < len; i++)
		if (text[i] < ' ' || text[i] > '~' || text[i] == '"')
			text[i] = '?';
	text[len] = '\0';
	k->dismissed = true;
	return rv_error_set(e, code > 0 && code < 1000 ? -(int)code : RV_ECLOSED,
		"the peer closed: %s", text);
}

static int take_frame(struct link *k, const struct link_frame *f, struct rv_error *e)
{
	if (k->state == LINK_GREETING && f->kind != LINK_HELLO && f->kind != LINK_GOODBYE)
		return rv_error_set(
			e, RV_EPROTO, "frame of kind %u before HELLO", f->kind);
	switch (f->kind) {
	case LINK_HELLO:
		return take_hello(k, f, e);
	case LINK_SELECT:
		return take_select(k, f, e);
	case LINK_DATA:
		return take_data(k, f, e);
	case LINK_WINDOW:
		return link_returned(k, f->channel, link_get32(f->payload), e);
	case LINK_PROBE:
		take_probe(k, f);
		return 0;
	case LINK_ECHO:
		return take_echo(k, f, e);
	case LINK_GOODBYE:
		return take_goodbye(k, f, e);
	default:
		return f->flags & LINK_IGNORABLE
			       ? 0
			       : rv_error_set(e, RV_EPROTO,
					 "frame of kind %u on the host link", f->kind);
	}
}

size_t link_data(void *arg, const uint8_t *data, size_t len)
{
	struct link *k = arg;
	struct link_frame f;
	struct rv_error e;
	size_t at = 0, used;
	int rc = 0;

	k->busy++;
	k->received_bytes += len;
	link_tell_up(k);
	while (!k->freed && k->state >= LINK_GREETING && k->state <= LINK_UP) {
		rc = link_frame_decode(&f, data + at, len - at, &used, &e);
		if (rc == 0) {
			k->heard_us = loop_now_us(k->loop);
			rc = take_frame(k, &f, &e);
			at += used;
		}
		if (rc)
			break;
	}
	/* The bytes after it are of no more use; what is over takes all. */
	if (!k->freed && rc && rc != RV_EAGAIN)
		link_fail(k, rc, "%s", e.detail);
	if (!k->freed && k->state > LINK_UP)
		at = len;
	if (!k->freed)
		link_pump(k);
	if (!k->freed)
		link_tell_room(k);
	k->received_bytes -= len - at;
	link_leave(k);
	return at;
}
