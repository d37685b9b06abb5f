/*
 * The sending half: a queue and a window for each channel, and whose turn it is.
 *
 * Heartbeats always go first; they are few. The others share by weight, in chunks, so
 * that a flood of calls slows the learner stream down but never stops it.
 */
#include "link/link.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "link/link_internal.h"

struct lane_rule {
	size_t queue_max, window;
	int turns; /* chunks a round */
};

/* The windows bound what a heartbeat may find before it in the sockets' buffers: all
 * together 20 ms of 1 Gb/s. */
static const struct lane_rule lane_rules[LINK_CHANNELS] = {
	[LINK_HEARTBEAT] = {1 << 20, 256 << 10, 1},
	[LINK_RAFT] = {64 << 20, 1 << 20, 8},
	[LINK_RPC] = {32 << 20, 1 << 20, 4},
	[LINK_BULK] = {8 << 20, 512 << 10, 1},
};

size_t link_window(unsigned channel)
{
	return lane_rules[channel].window;
}

void link_lanes_init(struct link *k, const size_t queue_max[LINK_CHANNELS])
{
	for (int i = 0; i < LINK_CHANNELS; i++) {
		struct link_lane *lane = &k->lanes[i];

		list_init(&lane->queue);
		list_init(&lane->waiting);
		buf_init(&lane->partial, link_channel_max((enum link_channel)i));
		lane->queue_max = queue_max[i] ? queue_max[i] : lane_rules[i].queue_max;
	}
}

static void queue_clear(struct list *queue)
{
	LIST_FOR_EACH_SAFE (node, queue) {
		list_remove(node);
		free(CONTAINER_OF(node, struct link_message, node));
	}
}

void link_lanes_fini(struct link *k)
{
	for (int i = 0; i < LINK_CHANNELS; i++) {
		queue_clear(&k->lanes[i].queue);
		queue_clear(&k->lanes[i].waiting);
		buf_fini(&k->lanes[i].partial);
	}
}

/* --- frames out --- */

static bool write_frame(struct link *k, const struct iovec *pieces, int count)
{
	int rc = stream_write(k->stream, pieces, count);

	for (int i = 0; i < count; i++)
		k->sent_bytes += pieces[i].iov_len;
	if (rc == RV_ENOMEM)
		link_fail(k, rc, "out of memory for bytes to send");
	/* A stream that is over says so by itself. */
	return rc == 0;
}

static bool write_small(struct link *k, enum link_frame_kind kind, unsigned channel,
	const uint8_t *payload, size_t len)
{
	uint8_t head[LINK_FRAME_HEAD];
	struct iovec pieces[2] = {{head, sizeof head}, {(void *)payload, len}};

	link_frame_head(head, kind, channel, 0, (uint32_t)len);
	return write_frame(k, pieces, 2);
}

static bool write_echo(struct link *k)
{
	int64_t held_us = loop_now_us(k->loop) - k->probe_us;
	uint8_t payload[LINK_ECHO_SIZE];
	struct link_echo echo = {.number = k->probe.number,
		.sent_ms = k->probe.sent_ms,
		.received_ms = k->probe_wall_ms,
		.returned_ms = loop_wall_ms(k->loop),
		.held_us = held_us > UINT32_MAX ? UINT32_MAX : (uint32_t)held_us};

	k->echo_due = false;
	link_echo_encode(payload, &echo);
	return write_small(k, LINK_ECHO, 0, payload, sizeof payload);
}

static bool write_probe(struct link *k)
{
	uint8_t payload[LINK_PROBE_SIZE];
	struct link_probe probe = {
		.number = k->next_probe, .sent_ms = loop_wall_ms(k->loop)};

	k->probe_due = false;
	k->probed_us = loop_now_us(k->loop);
	k->probe_sent_us[k->next_probe % LINK_PROBES] = k->probed_us;
	k->next_probe++;
	link_probe_encode(payload, &probe);
	return write_small(k, LINK_PROBE, 0, payload, sizeof payload);
}

/* Best effort, while there is room at all. */
void link_say_goodbye(struct link *k, int rc, const char *reason)
{
	uint8_t head[LINK_FRAME_HEAD + 4];
	size_t len = strlen(reason);
	struct iovec pieces[2] = {{head, sizeof head}, {(void *)reason, 0}};

	if (len > LINK_REASON_MAX)
		len = LINK_REASON_MAX;
	pieces[1].iov_len = len;
	link_frame_head(head, LINK_GOODBYE, 0, 0, (uint32_t)len + 4);
	link_put32(head + LINK_FRAME_HEAD, (uint32_t)-rc);
	(void)!stream_write(k->stream, pieces, 2);
}

/* Each of these is due at most once, so they need no queue. */
static bool write_control(struct link *k)
{
	uint8_t payload[LINK_HELLO_SIZE];

	if (k->hello_due) {
		k->hello_due = false;
		link_hello_encode(payload, &k->self);
		if (!write_small(k, LINK_HELLO, 0, payload, LINK_HELLO_SIZE))
			return false;
	}
	if (k->select_due) {
		k->select_due = false;
		link_put64(payload, k->number);
		if (!write_small(k, LINK_SELECT, 0, payload, LINK_SELECT_SIZE))
			return false;
	}
	if (k->echo_due && !write_echo(k))
		return false;
	if (k->probe_due && !write_probe(k))
		return false;
	for (unsigned i = 0; i < LINK_CHANNELS; i++) {
		struct link_lane *lane = &k->lanes[i];

		if (lane->returnable < link_window(i) / 4)
			continue;
		link_put32(payload, (uint32_t)lane->returnable);
		lane->unreturned -= lane->returnable;
		lane->returnable = 0;
		if (!write_small(k, LINK_WINDOW, i, payload, LINK_WINDOW_SIZE))
			return false;
	}
	return true;
}

/* What the next frame of the lane costs of its window; 0: nothing to send. */
static size_t lane_next_cost(const struct link_lane *lane)
{
	const struct link_message *m;
	size_t left;

	if (list_empty(&lane->queue))
		return 0;
	m = CONTAINER_OF(lane->queue.next, struct link_message, node);
	left = m->len - m->done;
	if (left > LINK_CHUNK_MAX)
		left = LINK_CHUNK_MAX;
	return LINK_FRAME_HEAD + (m->done ? 0 : LINK_START_SIZE) + left;
}

static bool lane_ready(const struct link *k, unsigned i)
{
	size_t cost = lane_next_cost(&k->lanes[i]);

	return cost > 0 && k->lanes[i].on_the_way + cost <= link_window(i);
}

/* Whose turn it is; -1: nobody can send. */
static int choose_lane(struct link *k)
{
	if (lane_ready(k, LINK_HEARTBEAT))
		return LINK_HEARTBEAT;
	for (int round = 0; round < 2; round++) {
		for (unsigned i = LINK_HEARTBEAT + 1; i < LINK_CHANNELS; i++)
			if (k->lanes[i].turns > 0 && lane_ready(k, i)) {
				k->lanes[i].turns--;
				return (int)i;
			}
		for (int i = 0; i < LINK_CHANNELS; i++)
			k->lanes[i].turns = lane_rules[i].turns;
	}
	return -1;
}

static bool write_chunk(struct link *k, unsigned channel)
{
	struct link_lane *lane = &k->lanes[channel];
	struct link_message *m =
		CONTAINER_OF(lane->queue.next, struct link_message, node);
	size_t cost = lane_next_cost(lane), payload = cost - LINK_FRAME_HEAD, n;
	uint8_t head[LINK_FRAME_HEAD + LINK_START_SIZE];
	bool first = m->done == 0, last, ok;
	struct iovec pieces[2];

	n = payload - (first ? LINK_START_SIZE : 0);
	last = m->done + n == m->len;
	link_frame_head(head, LINK_DATA, channel,
		(first ? LINK_FIRST : 0u) | (last ? LINK_LAST : 0u), (uint32_t)payload);
	link_put16(head + LINK_FRAME_HEAD, m->type);
	link_put32(head + LINK_FRAME_HEAD + 2, (uint32_t)m->len);
	pieces[0] = (struct iovec){head, cost - n};
	pieces[1] = (struct iovec){m->data + m->done, n};
	ok = write_frame(k, pieces, 2);
	m->done += n;
	lane->on_the_way += cost;
	lane->queued -= n;
	if (last) {
		list_remove(&m->node);
		free(m);
		lane->count--;
		lane->sent++;
	}
	return ok;
}

void link_pump(struct link *k)
{
	if (!k->stream || k->state < LINK_GREETING || k->state > LINK_UP)
		return;
	for (int i = 0; i < LINK_SEND_AT_ONCE; i++) {
		int channel;

		if (stream_queued(k->stream) >= LINK_STREAM_BYTES || !write_control(k))
			return;
		if (k->state != LINK_UP)
			return;
		channel = choose_lane(k);
		if (channel < 0 || !write_chunk(k, (unsigned)channel))
			return;
	}
	defer_start(&k->soon);
}

/* --- the user's side --- */

int link_send(struct link *k, enum link_channel channel, uint16_t type,
	const struct iovec *pieces, int count)
{
	struct link_lane *lane = &k->lanes[channel];
	struct link_message *m;
	size_t len = 0;

	assert((unsigned)channel < LINK_CHANNELS);
	if (k->state != LINK_UP || k->freed)
		return RV_ECLOSED;
	for (int i = 0; i < count; i++)
		len += pieces[i].iov_len;
	if (len > link_channel_max(channel))
		return RV_ETOOBIG;
	/* One message, however large, always finds an empty queue open. */
	if (lane->count >= LINK_QUEUE_MESSAGES ||
		(lane->count > 0 && lane->queued + len > lane->queue_max)) {
		lane->refused = true;
		k->refused++;
		return RV_EAGAIN;
	}
	m = malloc(sizeof *m + len);
	if (!m)
		return RV_ENOMEM;
	m->type = type;
	m->len = 0;
	m->done = 0;
	for (int i = 0; i < count; i++) {
		if (pieces[i].iov_len)
			memcpy(m->data + m->len, pieces[i].iov_base, pieces[i].iov_len);
		m->len += pieces[i].iov_len;
	}
	list_push_back(&lane->queue, &m->node);
	lane->queued += len;
	lane->count++;
	link_pump(k);
	return 0;
}

void link_tell_room(struct link *k)
{
	for (int i = 0; i < LINK_CHANNELS && k->state == LINK_UP && !k->freed; i++) {
		struct link_lane *lane = &k->lanes[i];

		if (!lane->refused || lane->queued > lane->queue_max / 2 ||
			lane->count > LINK_QUEUE_MESSAGES / 2)
			continue;
		lane->refused = false;
		if (k->events->room)
			k->events->room(k->arg, (enum link_channel)i);
	}
}

int link_returned(struct link *k, unsigned channel, uint32_t bytes, struct rv_error *e)
{
	struct link_lane *lane = &k->lanes[channel];

	if (bytes > lane->on_the_way)
		return rv_error_set(e, RV_EPROTO,
			"the peer gives back %u bytes of channel %s where %zu are on the "
			"way",
			bytes, link_channel_name((enum link_channel)channel),
			lane->on_the_way);
	lane->on_the_way -= bytes;
	return 0;
}
